"""Layout: weights between channels first, as ONNX and PyTorch have them, and channels last, as the kernels do.

Images are (N, C, H, W) there and (N, H, W, C) here; a convolution's weights (F, C / groups, KH, KW) there and
(KH, KW, C / groups, F) here; those of a linear layer (M, K) there and (K, M) here. A linear layer behind a flattened
image numbers its inputs by (C, H, W) there and by (H, W, C) here. Each turn is a view; who keeps it copies.
"""

from __future__ import annotations

import math

import numpy as np


def convolution_in(w: np.ndarray) -> np.ndarray:
    """(F, C / groups, KH, KW) to (KH, KW, C / groups, F). Its own inverse is `convolution_out`."""
    return w.transpose(2, 3, 1, 0)


def convolution_out(w: np.ndarray) -> np.ndarray:
    """(KH, KW, C / groups, F) to (F, C / groups, KH, KW)."""
    return w.transpose(3, 2, 0, 1)


def transposed_in(w: np.ndarray) -> np.ndarray:
    """(C, F / groups, KH, KW), of a transposed convolution, to (KH, KW, F / groups, C)."""
    return w.transpose(2, 3, 1, 0)


def transposed_out(w: np.ndarray) -> np.ndarray:
    """(KH, KW, F / groups, C), of a transposed convolution, to (C, F / groups, KH, KW)."""
    return w.transpose(3, 2, 0, 1)


def flattened_in(w: np.ndarray, image: tuple[int, int, int]) -> np.ndarray:
    """Rows of (K, M) from the order of (C, H, W) to that of (H, W, C); image is (H, W, C), and K its size."""
    height, width, channels = _checked(w, image)
    return w.reshape(channels, height, width, -1).transpose(1, 2, 0, 3).reshape(len(w), -1)


def flattened_out(w: np.ndarray, image: tuple[int, int, int]) -> np.ndarray:
    """Rows of (K, M) from the order of (H, W, C) to that of (C, H, W); image is (H, W, C), and K its size."""
    height, width, channels = _checked(w, image)
    return w.reshape(height, width, channels, -1).transpose(2, 0, 1, 3).reshape(len(w), -1)


def _checked(w: np.ndarray, image: tuple[int, int, int]) -> tuple[int, int, int]:
    if w.ndim != 2 or len(w) != math.prod(image):
        raise ValueError(f"layout: w has shape {w.shape}, expected (K, M) with K = {math.prod(image)} of {image}")
    return image
