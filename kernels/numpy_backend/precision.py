"""Numbers of fewer bits than those they are kept in."""

from __future__ import annotations

import numpy as np

from ..interface import Input, Output
from .unary import silent

__all__ = ["round_to_bfloat16"]


@silent
def round_to_bfloat16(x: Input, y: Output) -> None:
    # The upper 16 bits of a float32 are a bfloat16. What is added to the lower ones carries into these above a half,
    # and at a half exactly where the last of these is 1; out of the largest number it carries into infinity.
    bits = x.astype(np.float32).view(np.uint32)
    last = bits >> 16
    last &= 1
    bits += 0x7FFF
    bits += last
    bits &= 0xFFFF0000
    np.copyto(y, bits.view(np.float32))
    np.copyto(y, x, where=np.isnan(x))
