"""Augmentation: each epoch sees every image a little changed, in a way that can be made again alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import kernels
from kernels import shapes

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Augment:
    """Random distortions of images, each drawn uniformly from its range, all applied in one interpolation.

    An output pixel at q from the image's centre is fetched from p, where q = z R(θ) K(φ) F p + t, and then moved by
    the elastic displacement; between pixels by bilinear interpolation.

    rotation: θ in degrees, in [−rotation, rotation].
    translation: t in pixels, both of its coordinates in [−translation, translation]. Nothing wraps around.
    scale: z in [low, high] for a pair, in [1 − scale, 1 + scale] for a number.
    shear: φ in degrees, in [−shear, shear]; K(φ) slants upright lines by the angle φ.
    elastic_alpha, elastic_sigma: every pixel is moved by alpha times random numbers in [−1, 1], one a pixel and
    coordinate, smoothed by a Gaussian of standard deviation sigma, in pixels, cut at 3 sigma. Away from the border a
    displacement has standard deviation alpha / (2 sigma √(3π)). Simard, Steinkraus and Platt 2003, who take 34 and 4;
    of MNIST's digits that smears a stroke or closes a loop now and then, and 20 and 4 leave all readable.
    flip_horizontal, flip_vertical: left and right, top and bottom, are exchanged in half of the images.
    fill: value of what comes from outside the image. 0 is right for raw images on black; images that are normalised
    have another black.

    Raises ValueError for a field that is out of its range, and names it.
    """

    rotation: float = 0.0
    translation: float = 0.0
    scale: float | tuple[float, float] = 0.0
    shear: float = 0.0
    elastic_alpha: float = 0.0
    elastic_sigma: float = 4.0
    flip_horizontal: bool = False
    flip_vertical: bool = False
    fill: float = 0.0

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            object.__setattr__(self, name, shapes.plain(getattr(self, name)))
        shapes.number("Augment", "rotation", self.rotation, 0.0)
        shapes.number("Augment", "translation", self.translation, 0.0)
        shapes.number("Augment", "shear", self.shear, 0.0, below=90.0)
        shapes.number("Augment", "elastic_alpha", self.elastic_alpha, 0.0)
        shapes.number("Augment", "elastic_sigma", self.elastic_sigma, 0.0, above=True)
        shapes.number("Augment", "fill", self.fill)
        if isinstance(self.scale, tuple):
            if len(self.scale) != 2:
                raise ValueError(f"Augment: scale is {self.scale!r}, expected a fraction or a pair (low, high)")
            low = shapes.number("Augment", "scale[0]", self.scale[0], 0.0, above=True)
            shapes.number("Augment", "scale[1]", self.scale[1], low)
        else:
            shapes.number("Augment", "scale", self.scale, 0.0, below=1.0)
        for name in ("flip_horizontal", "flip_vertical"):
            shapes.flag("Augment", name, getattr(self, name))

    def __call__(
        self,
        images: NDArray[Any],
        indices: NDArray[Any],
        seed: int = 0,
        epoch: int = 0,
        backend: str = "numba",
    ) -> NDArray[Any]:
        """New images (N, H, W, C) of the dtype of `images`: uint8, rounded, float32 or float64.

        indices (N,): which samples of the data set they are. What becomes of an image depends on it, its index, seed
        and epoch alone: not on its place in a batch, the batch's size or the threads, and on the backend by no more
        than rounding.

        Raises TypeError or ValueError, naming the argument, for anything else.
        """
        k = kernels.get(backend)
        if not isinstance(images, np.ndarray) or images.dtype not in (np.dtype(np.uint8), *shapes.FLOAT_DTYPES):
            got = f"of dtype {images.dtype}" if isinstance(images, np.ndarray) else f"a {type(images).__name__}"
            raise TypeError(f"Augment: images is {got}, expected an array of uint8, float32 or float64")
        whole = images.dtype == np.uint8
        if whole and not 0 <= self.fill <= 255:
            raise ValueError(f"Augment: fill is {self.fill!r}, expected 0 to 255 for uint8 images")
        x = np.ascontiguousarray(images, dtype=np.float32 if whole else images.dtype)
        shapes.arrays("Augment", images=x)
        shapes.rank("Augment", "images", x.shape, 4, "samples, height, width, channels")
        indices = shapes.indices("Augment", indices)
        shapes.equal("Augment", "indices", indices.shape, (len(x),), f"images {shapes.text(x.shape)}")
        seed = shapes.integer("Augment", "seed", seed, 0)
        epoch = shapes.integer("Augment", "epoch", epoch, 0)

        # An epoch has two streams of random numbers.
        matrix = self._matrix(k.uniform(indices, (7,), seed, 2 * epoch, np.float64)).astype(x.dtype)
        field = None
        if self.elastic_alpha:
            field = k.uniform(indices, (*x.shape[1:3], 2), seed, 2 * epoch + 1, x.dtype)
            field = k.smooth2d(field, gaussian(self.elastic_sigma).astype(x.dtype))
            field *= self.elastic_alpha
        y = k.warp(x, matrix, field, self.fill)
        return np.rint(y, out=y).astype(np.uint8) if whole else y

    def _matrix(self, u: Floats) -> Floats:
        """(N, 2, 3), from outputs to where they come from, of random numbers u (N, 7) in [−1, 1]."""
        low, high = self.scale if isinstance(self.scale, tuple) else (1 - self.scale, 1 + self.scale)
        angle, slant = np.radians(self.rotation) * u[:, 0], np.tan(np.radians(self.shear) * u[:, 1])
        scale = (low + high) / 2 + (high - low) / 2 * u[:, 2]
        flip = np.where((u[:, 3:5] < 0) & [self.flip_vertical, self.flip_horizontal], -1.0, 1.0)
        # p = F K⁻¹ R⁻¹ (q − t) / z, in coordinates (row, column)
        cos, sin = np.cos(angle), np.sin(angle)
        unslanted = np.array([[cos, sin], [-sin - slant * cos, cos - slant * sin]]) / scale
        linear = flip[:, :, None] * np.moveaxis(unslanted, -1, 0)
        moved = linear @ (self.translation * u[:, 5:7, None])
        return np.concatenate([linear, -moved], axis=2)


def gaussian(sigma: float) -> Floats:
    """Half of a Gaussian filter of standard deviation sigma, middle first, cut at 3 sigma; the whole sums to 1."""
    weights: Floats = np.exp(-np.square(np.arange(math.ceil(3 * sigma) + 1) / sigma) / 2)
    weights /= 2 * weights.sum() - weights[0]
    return weights
