"""The fused kernels in plain NumPy, as `kernels.interface.Fused` states them: a third opinion beside a backend's own
and the steps that they replace. `REFERENCE` is the NumPy backend with these kernels added."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

import kernels
from kernels import Kernels
from kernels.interface import Fused, kernel_names
from kernels.shapes import ChannelDims, Conv2dDims, LinearDims, Pool2dDims

NAMES = kernel_names(Fused)

_K = kernels.get("numpy")


def _run(kernel: str, d: Any, n: int, *arguments: Any) -> None:
    """A kernel of the contract with dims, its scratch made here; the dims mark where scratch goes after them."""
    dtype = arguments[0].dtype
    at = next(i for i, argument in enumerate(arguments) if argument is d) + 1
    scratch = np.full(_K.scratch_size(kernel, d, n), np.nan, dtype)
    _K.function(kernel)(*arguments[:at], scratch, *arguments[at:])


def windows(x: np.ndarray, d: Pool2dDims) -> np.ndarray:
    """(N, OH, OW, window, C): a copy of the windows, what is left over at the border cut off."""
    x = x[:, : d.oh * d.kh, : d.ow * d.kw].reshape(len(x), d.oh, d.kh, d.ow, d.kw, d.c)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(len(x), d.oh, d.ow, d.kh * d.kw, d.c)


def peaks(x: np.ndarray, gamma: np.ndarray, d: Pool2dDims) -> tuple[np.ndarray, np.ndarray]:
    """Each window's maximum (gamma > 0), minimum (gamma < 0) or first value, and its place."""
    inside = windows(x, d)
    argmax = np.where(gamma < 0, -inside, inside).argmax(3)  # of several NaN the first
    argmax[..., gamma == 0] = 0
    return np.take_along_axis(inside, argmax[:, :, :, None], 3)[:, :, :, 0], argmax


def _normalised(peak: Any, gamma: Any, beta: Any, mean: Any, inv_std: Any) -> np.ndarray:
    out: np.ndarray = (peak - mean) * (gamma * inv_std) + beta
    return out


def batchnorm_relu_maxpool2d(
    x: Any, gamma: Any, beta: Any, eps: float, d: Pool2dDims, scratch: Any, mean: Any, inv_std: Any, var: Any,
    peak: Any, y: Any, argmax: Any,
) -> None:  # fmt: skip
    channels = ChannelDims(d.h * d.w, d.c)
    _run("batchnorm", channels, len(x), x, gamma, beta, eps, channels, np.empty_like(x), mean, inv_std, var)
    peak[...], argmax[...] = peaks(x, gamma, d)
    _K.function("relu")(_normalised(peak, gamma, beta, mean, inv_std), y)


def batchnorm_relu_maxpool2d_backward(
    dy: Any, x: Any, gamma: Any, beta: Any, mean: Any, inv_std: Any, peak: Any, argmax: Any, d: Pool2dDims,
    scratch: Any, dx: Any, dgamma: Any, dbeta: Any,
) -> None:  # fmt: skip
    off = _normalised(peak, gamma, beta, mean, inv_std) <= 0
    spread = np.empty_like(x)
    _K.function("maxpool2d_backward")(np.where(off, 0, dy).astype(dy.dtype), argmax, d, spread)
    channels = ChannelDims(d.h * d.w, d.c)
    _run(
        "batchnorm_backward", channels, len(x), spread, x, gamma, mean, inv_std, channels, dx, dgamma, dbeta
    )  # fmt: skip


def conv2d_batchnorm_relu_maxpool2d(
    x: Any, w: Any, b: Any, gamma: Any, beta: Any, eps: float, pool: Pool2dDims, d: Conv2dDims, scratch: Any, z: Any,
    mean: Any, inv_std: Any, var: Any, peak: Any, y: Any, argmax: Any,
) -> None:  # fmt: skip
    _run("conv2d", d, len(x), x, w, b, d, z)
    batchnorm_relu_maxpool2d(z, gamma, beta, eps, pool, None, mean, inv_std, var, peak, y, argmax)


def conv2d_batchnorm_relu_maxpool2d_backward(
    dy: Any, x: Any, w: Any, z: Any, gamma: Any, beta: Any, mean: Any, inv_std: Any, peak: Any, argmax: Any,
    pool: Pool2dDims, d: Conv2dDims, scratch: Any, dx: Any, dw: Any, db: Any, dgamma: Any, dbeta: Any,
) -> None:  # fmt: skip
    dz = np.empty_like(z)
    batchnorm_relu_maxpool2d_backward(
        dy, z, gamma, beta, mean, inv_std, peak, argmax, pool, None, dz, dgamma, dbeta
    )  # fmt: skip
    _run("conv2d_backward", d, len(x), dz, x, w, d, dx, dw, db)


def batchnorm_relu(
    x: Any, gamma: Any, beta: Any, residual: Any, eps: float, d: ChannelDims, scratch: Any, y: Any, mean: Any,
    inv_std: Any, var: Any,
) -> None:  # fmt: skip
    z = np.empty_like(x)
    _run("batchnorm", d, len(x), x, gamma, beta, eps, d, z, mean, inv_std, var)
    _K.function("relu")(z if residual is None else z + residual, y)


def batchnorm_relu_backward(
    dy: Any, more: Any, x: Any, y: Any, gamma: Any, beta: Any, mean: Any, inv_std: Any, d: ChannelDims, scratch: Any,
    dresidual: Any, dx: Any, dgamma: Any, dbeta: Any,
) -> None:  # fmt: skip
    if y is None:
        y = _normalised(x, gamma, beta, mean, inv_std)
    dz = np.where(y <= 0, 0, dy if more is None else dy + more).astype(dy.dtype)
    if dresidual is not None:
        dresidual[...] = dz
    _run("batchnorm_backward", d, len(x), dz, x, gamma, mean, inv_std, d, dx, dgamma, dbeta)


def linear_relu(x: Any, w: Any, b: Any, d: LinearDims, scratch: Any, y: Any) -> None:
    z = np.empty_like(y)
    _run("linear", d, len(x), x, w, b, d, z)
    _K.function("relu")(z, y)


def linear_relu_backward(
    dy: Any, y: Any, x: Any, w: Any, d: LinearDims, scratch: Any, dx: Any, dw: Any, db: Any
) -> None:
    dz = np.where(y <= 0, 0, dy).astype(dy.dtype)
    _run("linear_backward", d, len(x), dz, x, w, d, dx, dw, db)


def conv2d_fold_size(d: Conv2dDims) -> int:
    return d.kh * d.kw * (d.c // d.groups) * d.f


def conv2d_fold(
    w: Any, b: Any, gamma: Any, beta: Any, mean: Any, var: Any, eps: float, d: Conv2dDims, packed: Any, bias: Any
) -> None:
    scale = 1 if gamma is None else gamma / np.sqrt(var + eps)
    packed[...] = (w * scale).ravel()
    bias[...] = 0 if b is None else b
    if gamma is not None:
        bias[...] = (bias - mean) * scale + beta


def conv2d_folded(
    x: Any, packed: Any, bias: Any, residual: Any, relu: bool, pool: Pool2dDims, d: Conv2dDims, scratch: Any, y: Any
) -> None:
    z = np.empty((len(x), d.oh, d.ow, d.f), x.dtype)
    _run("conv2d", d, len(x), x, packed.reshape(d.kh, d.kw, d.c // d.groups, d.f), bias, d, z)
    if residual is not None:
        z += residual
    if relu:
        _K.function("relu")(z.copy(), z)
    _K.function("maxpool2d")(z, pool, y, np.empty(y.shape, pool.argmax_dtype))


def maxpool2d_inference(x: Any, d: Pool2dDims, y: Any) -> None:
    _K.function("maxpool2d")(x, d, y, np.empty(y.shape, d.argmax_dtype))


def linear_fold_size(d: LinearDims) -> int:
    return d.k * d.m


def linear_fold(w: Any, b: Any, d: LinearDims, packed: Any, bias: Any) -> None:
    packed[...] = w.ravel()
    bias[...] = 0 if b is None else b


def linear_folded(x: Any, packed: Any, bias: Any, relu: bool, d: LinearDims, scratch: Any, y: Any) -> None:
    _run("linear", d, len(x), x, packed.reshape(d.k, d.m), bias, d, y)
    if relu:
        _K.function("relu")(y.copy(), y)


def _rounded(x: Any) -> np.ndarray:
    y = np.empty_like(x)
    _K.function("round_to_bfloat16")(x, y)
    return y


def linear_bfloat16(x: Any, w: Any, b: Any, d: LinearDims, scratch: Any, y: Any) -> None:
    _run("linear", d, len(x), _rounded(x), _rounded(w), b, d, y)


def linear_backward_bfloat16(dy: Any, x: Any, w: Any, d: LinearDims, scratch: Any, dx: Any, dw: Any) -> None:
    _run("linear_backward", d, len(x), _rounded(dy), _rounded(x), _rounded(w), d, dx, dw, None)


def linear_fold_bfloat16(w: Any, b: Any, d: LinearDims, packed: Any, bias: Any) -> None:
    linear_fold(_rounded(w), b, d, packed, bias)


def linear_folded_bfloat16(x: Any, packed: Any, bias: Any, relu: bool, d: LinearDims, scratch: Any, y: Any) -> None:
    linear_folded(_rounded(x), packed, bias, relu, d, scratch, y)


def conv2d_bfloat16(x: Any, w: Any, b: Any, d: Conv2dDims, scratch: Any, y: Any) -> None:
    _run("conv2d", d, len(x), _rounded(x), _rounded(w), b, d, y)


def conv2d_backward_bfloat16(dy: Any, x: Any, w: Any, d: Conv2dDims, scratch: Any, dx: Any, dw: Any) -> None:
    _run("conv2d_backward", d, len(x), _rounded(dy), _rounded(x), _rounded(w), d, dx, dw, None)


def conv2d_fold_bfloat16(
    w: Any, b: Any, gamma: Any, beta: Any, mean: Any, var: Any, eps: float, d: Conv2dDims, packed: Any, scale: Any,
    bias: Any,
) -> None:  # fmt: skip
    ones = np.ones_like(w)
    conv2d_fold(ones, b, gamma, beta, mean, var, eps, d, packed, bias)
    scale[...] = packed.reshape(-1, d.f)[0]
    packed[...] = _rounded(w).ravel()


def conv2d_folded_bfloat16(
    x: Any, packed: Any, scale: Any, bias: Any, residual: Any, relu: bool, pool: Pool2dDims, d: Conv2dDims,
    scratch: Any, y: Any,
) -> None:  # fmt: skip
    z = np.empty((len(x), d.oh, d.ow, d.f), x.dtype)
    _run("conv2d", d, len(x), _rounded(x), packed.reshape(d.kh, d.kw, d.c, d.f), None, d, z)
    z *= scale
    z += bias
    if residual is not None:
        z += residual
    if relu:
        _K.function("relu")(z.copy(), z)
    y[...] = windows(z, pool).max(3)


def _no_scratch(d: Any, n: int) -> int:
    return 0


def backend(base: Any, names: list[str]) -> SimpleNamespace:
    """A backend's functions and, of the fused kernels here, these."""
    public = {name: getattr(base, name) for name in dir(base) if not name.startswith("_")}
    own = {name: globals()[name] for name in names}
    sizes = {f"{name}_size": globals()[f"{name}_size"] for name in names if name.endswith("_fold")}
    return SimpleNamespace(**public | own | sizes | {f"{name}_scratch": _no_scratch for name in names})


REFERENCE = Kernels("numpy", backend(_K.backend, NAMES))
