"""Pictures (PNG, JPEG and the like) as grey pixels. Needs Pillow, the extra ``images``."""

import os
import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from data.errors import DataFormatError
from data.files import regular

# No others: some of Pillow's formats start programs (EPS), some allocate before their size can be looked at (WebP).
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM")
MAX_PIXELS = 1 << 24  # 4096 x 4096; each takes up to 20 bytes on the way


def read_picture(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """Read a picture: its brightness (H, W) uint8, 255 is white; what is transparent shows white paper.

    Raises DataFormatError for a file that is no picture in one of FORMATS, damaged, of more than MAX_PIXELS or no
    regular file, and ImportError without Pillow.
    """
    path = Path(path)
    with regular(path) as stream:
        return parse(stream, path)


def parse(stream: BinaryIO, path: Path) -> NDArray[np.uint8]:
    """What `read_picture` returns, from an open stream; ``path`` is for the messages."""
    from PIL import Image, ImageOps

    try:
        # Pillow warns of odd but readable metadata.
        with warnings.catch_warnings(action="ignore"), Image.open(stream, formats=FORMATS) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise DataFormatError(f"{picture.width} x {picture.height} pixels, at most {MAX_PIXELS} are read")
            drawn = picture.convert("RGBA")
        paper = Image.new("RGBA", drawn.size, "white")
        return np.array(ImageOps.grayscale(Image.alpha_composite(paper, drawn)))
    # Decoders raise whatever a damaged file makes them meet: SyntaxError, EOFError, struct.error, IndexError.
    except Exception as error:
        raise DataFormatError(f"{path}: not a readable picture ({error})") from None
