"""Pictures (PNG, JPEG, BMP, GIF, WebP) as grey pixels. Needs Pillow, the extra ``images``."""

import os
import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from data.errors import DataFormatError
from data.files import expanded, regular

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP")
MAX_PIXELS = 1 << 24  # 4096 x 4096


def read_picture(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """Read a picture as it is to be looked at: its brightness (H, W) uint8, 255 is white.

    What is transparent shows white paper; a photograph is turned as its camera says. Raises DataFormatError for a
    file that is no picture in one of FORMATS, is damaged, or has more than MAX_PIXELS.
    """
    path = expanded(path)
    with regular(path) as stream:
        return parse(stream, path)


def parse(stream: BinaryIO, path: Path) -> NDArray[np.uint8]:
    """What `read_picture` returns, from an open stream; ``path`` is for the messages."""
    try:
        from PIL import Image, ImageOps, UnidentifiedImageError
    except ImportError:
        raise ValueError(f"{path}: pictures need Pillow: pip install 'twinkernels[images]'") from None
    try:
        # Pillow warns of odd but readable metadata.
        with warnings.catch_warnings(action="ignore"), Image.open(stream, formats=FORMATS) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise DataFormatError(f"{picture.width} x {picture.height} pixels, at most {MAX_PIXELS} are read")
            if (count := getattr(picture, "n_frames", 1)) > 1:
                raise DataFormatError(f"{count} pictures in one file, expected one")
            drawn = ImageOps.exif_transpose(picture)
            if drawn.mode.startswith("I"):  # grey in 16 bits
                levels = np.asarray(drawn).astype(np.uint16)
                grey = np.right_shift(levels, 8).astype(np.uint8)
                grey[levels == picture.info.get("transparency", -1)] = 255
                return grey
            drawn = drawn.convert("RGBA")
        paper = Image.new("RGBA", drawn.size, "white")
        return np.array(ImageOps.grayscale(Image.alpha_composite(paper, drawn)))
    except UnidentifiedImageError:
        stream.seek(0)
        kind = " but HEIC or AVIF, whatever its name" if stream.read(12)[4:8] == b"ftyp" else ""
        raise DataFormatError(f"{path}: not a readable picture{kind}; expected {', '.join(FORMATS)}") from None
    # Decoders raise whatever a damaged file makes them meet: SyntaxError, EOFError, struct.error, IndexError.
    except Exception as error:
        raise DataFormatError(f"{path}: not a readable picture ({error})") from None
