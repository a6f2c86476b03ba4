"""Pictures (PNG, JPEG, BMP, GIF, WebP) as pixels, grey or in colour. Needs Pillow, the extra ``images``."""

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from data.errors import DataFormatError
from data.files import expanded, regular

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP")
T = TypeVar("T")

ORIENTATION = 0x0112  # how a camera was held, in its own tag; from 5 on, on its side
MAX_PIXELS = 1 << 24  # 4096 x 4096


def read_picture(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """Read a picture as it is to be looked at: its brightness (H, W) uint8, 255 is white.

    What is transparent shows white paper; a photograph is turned as its camera says. Raises DataFormatError for a
    file that is no picture in one of FORMATS, is damaged, or has more than MAX_PIXELS.
    """
    path = expanded(path)
    with regular(path) as stream:
        return parse(stream, path)


def read_pixels(path: str | os.PathLike[str], size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """Read a picture in its colours, (H, W, 3) uint8, or (H, W, 1) where it is grey; otherwise as `read_picture`.

    size: (H, W) to which it is scaled, a pixel being the mean of what it covers.
    """
    path = expanded(path)
    with regular(path) as stream:
        return parse_pixels(stream, path, size)


def parse(stream: BinaryIO, path: Path) -> NDArray[np.uint8]:
    """What `read_picture` returns, from an open stream; ``path`` is for the messages."""
    return _decoded(stream, path, _brightness)


def parse_pixels(stream: BinaryIO, path: Path, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """What `read_pixels` returns, from an open stream; ``path`` is for the messages."""

    def colours(drawn: Any, transparent: int | None) -> NDArray[np.uint8]:
        from PIL import Image

        grey = drawn.mode in ("1", "L", "LA") or drawn.mode.startswith("I")
        if drawn.mode in ("P", "PA"):
            red, green, blue = drawn.convert("RGB").split()
            grey = red.tobytes() == green.tobytes() == blue.tobytes()
        shown = Image.fromarray(_brightness(drawn, transparent)) if grey else _on_paper(drawn).convert("RGB")
        if size is not None and shown.size != (size[1], size[0]):
            shown = shown.resize((size[1], size[0]), Image.Resampling.BOX)
        pixels = np.array(shown)
        return pixels[..., np.newaxis] if grey else pixels

    return _decoded(stream, path, colours)


def _brightness(drawn: Any, transparent: int | None) -> NDArray[np.uint8]:
    from PIL import ImageOps

    if drawn.mode.startswith("I"):  # grey in 16 bits
        levels = np.asarray(drawn).astype(np.uint16)
        grey = np.right_shift(levels, 8).astype(np.uint8)
        grey[levels == transparent] = 255
        return grey
    return np.array(ImageOps.grayscale(_on_paper(drawn)))


def _on_paper(drawn: Any) -> Any:
    from PIL import Image

    return Image.alpha_composite(Image.new("RGBA", drawn.size, "white"), drawn.convert("RGBA"))


def picture_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Height and width of a picture as it is to be looked at, without decoding it. Raises as `read_picture` does."""
    path = expanded(path)

    def size(picture: Any) -> tuple[int, int]:
        turned = picture.getexif().get(ORIENTATION, 1) >= 5
        return (picture.width, picture.height) if turned else (picture.height, picture.width)

    with regular(path) as stream:
        return _opened(stream, path, size)


def _decoded(stream: BinaryIO, path: Path, pixels: Callable[[Any, int | None], NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """A picture, turned as it is to be looked at, as pixels; the second argument is its transparent level."""

    def read(picture: Any) -> NDArray[np.uint8]:
        from PIL import ImageOps

        return pixels(ImageOps.exif_transpose(picture), picture.info.get("transparency", -1))

    return _opened(stream, path, read)


def _opened(stream: BinaryIO, path: Path, read: Callable[[Any], T]) -> T:
    """What `read` makes of a picture, or the DataFormatError of what is none."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise ValueError(f"{path}: pictures need Pillow: pip install 'twinkernels[images]'") from None
    try:
        # Pillow warns of odd but readable metadata.
        with warnings.catch_warnings(action="ignore"), Image.open(stream, formats=FORMATS) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise DataFormatError(f"{picture.width} x {picture.height} pixels, at most {MAX_PIXELS} are read")
            if (count := getattr(picture, "n_frames", 1)) > 1:
                raise DataFormatError(f"{count} pictures in one file, expected one")
            return read(picture)
    except UnidentifiedImageError:
        stream.seek(0)
        kind = " but HEIC or AVIF, whatever its name" if stream.read(12)[4:8] == b"ftyp" else ""
        raise DataFormatError(f"{path}: not a readable picture{kind}; expected {', '.join(FORMATS)}") from None
    # Decoders raise whatever a damaged file makes them meet: SyntaxError, EOFError, struct.error, IndexError.
    except Exception as error:
        raise DataFormatError(f"{path}: not a readable picture ({error})") from None
