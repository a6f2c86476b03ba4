"""The one table of kernel calls: tests, asv and pytest-benchmark all read it.

A case is one call of one kernel: `case.run(k, dtype)` on the kernels `k` of any backend. Tags say what it is for:
"small" a regular size, "edge" awkward sizes or values, "bench" a size of the model zoo. The table is append-only:
an id stands in the history of measurements and keeps its meaning.

>>> import kernels
>>> get("relu/small").run(kernels.get("numpy"), "float32").shape
(3, 5, 6)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

import kernels
from kernels import shapes
from twinkernels.bench.draw import Draw

Array = np.ndarray
Arguments = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One call of one kernel.

    `method` is the facade's method, the kernel's name but for `adamw`; `macs` counts the multiply-accumulates of
    the whole call, padding zeros not counted, 0 for kernels that are no contraction.
    """

    id: str
    kernel: str
    tags: frozenset[str]
    build: Callable[[Draw], Arguments]
    macs: int = 0
    method: str = ""

    @property
    def flops(self) -> int:
        """Floating-point operations of the call, 2 a multiply-accumulate."""
        return 2 * self.macs

    def arguments(self, dtype: DTypeLike = np.float32, seed: int = 0) -> Arguments:
        """Fresh arguments of the call; equal for equal dtype and seed."""
        return self.build(Draw(dtype, seed))

    def call(self, k: kernels.Kernels, arguments: Mapping[str, Any]) -> Any:
        """The call itself, on arguments made before: what a benchmark times."""
        return getattr(k, self.method or self.kernel)(**arguments)

    def run(self, k: kernels.Kernels, dtype: DTypeLike = np.float32, seed: int = 0) -> Any:
        """Make the arguments and call."""
        return self.call(k, self.arguments(dtype, seed))


CASES: list[Case] = []


def get(id: str) -> Case:
    """The case with that id; KeyError if there is none."""
    return next((case for case in CASES if case.id == id), None) or _unknown(id)


def select(kernel: str | None = None, tag: str | None = None) -> list[Case]:
    """The cases of a kernel, with a tag, or both, in the table's order."""
    return [c for c in CASES if kernel in (None, c.kernel) and (tag is None or tag in c.tags)]


def _unknown(id: str) -> Case:
    raise KeyError(f"no case {id!r} among {len(CASES)}")


def _case(
    kernel: str, name: str, tag: str, build: Callable[[Draw], Arguments], macs: int = 0, method: str = ""
) -> None:
    CASES.append(Case(f"{method or kernel}/{name}", kernel, frozenset(tag.split()), build, macs, method))


def _numpy() -> kernels.Kernels:
    """Makes what a backward needs from its forward."""
    return kernels.get("numpy")


# Linear ------------------------------------------------------------------------------------------------------


def _linear(name: str, tag: str, n: int, k: int, m: int, *, bias: bool = True, exact: bool = False) -> None:
    macs = n * shapes.linear((n, k), (k, m), None).macs

    def values(draw: Draw, *shape: int) -> Array:
        return draw.integers(*shape) if exact else draw.normal(*shape)

    def forward(draw: Draw) -> Arguments:
        x, w, b = values(draw, n, k), values(draw, k, m), values(draw, m)
        return {"x": x, "w": w, "b": b if bias else None}

    def backward(draw: Draw) -> Arguments:
        return {"dy": values(draw, n, m), "x": values(draw, n, k), "w": values(draw, k, m)}

    _case("linear", name, tag, forward, macs)
    _case("linear_backward", name, tag, backward, 2 * macs)


_linear("small", "small", 4, 6, 5)
_linear("ten-outputs", "small", 7, 12, 10)
_linear("odd", "edge", 5, 37, 17)
_linear("one-sample", "edge", 1, 9, 10)
_linear("one-everything", "edge", 1, 1, 1)
_linear("one-output", "edge", 3, 8, 1)
_linear("one-input", "edge", 6, 1, 3)
_linear("no-bias", "edge", 4, 6, 5, bias=False)
_linear("exact", "edge", 13, 65, 33, exact=True)
_linear("many-samples", "edge", 260, 77, 70)
_linear("mlp-512-hidden-b128", "bench", 128, 784, 512)
_linear("mlp-512-output-b128", "bench", 128, 512, 10)
_linear("mlp-meannorm-hidden1-b64", "bench", 64, 784, 256)
_linear("mlp-meannorm-hidden2-b64", "bench", 64, 256, 128)
_linear("mlp-512-hidden-b1", "bench", 1, 784, 512)
_linear("mlp-512-hidden-b512", "bench", 512, 784, 512)


def _linear_nan(draw: Draw) -> Arguments:
    x, w, b = draw.normal(4, 6), draw.normal(6, 5), draw.normal(5)
    x[1, 2], x[2, 0], w[3, 4], b[0] = np.nan, np.inf, np.nan, np.inf
    return {"x": x, "w": w, "b": b}


def _linear_backward_nan(draw: Draw) -> Arguments:
    dy, x, w = draw.normal(4, 5), draw.normal(4, 6), draw.normal(6, 5)
    dy[1, 2], x[2, 0], w[3, 4] = np.nan, np.inf, np.nan
    return {"dy": dy, "x": x, "w": w}


_case("linear", "nan-inf", "edge", _linear_nan)
_case("linear_backward", "nan-inf", "edge", _linear_backward_nan)


# Convolution -------------------------------------------------------------------------------------------------


def _conv2d(
    name: str,
    tag: str,
    x_shape: tuple[int, int, int, int],
    w_shape: tuple[int, int, int, int],
    *,
    bias: bool = True,
    exact: bool = False,
    **options: Any,
) -> None:
    d = shapes.conv2d(x_shape, w_shape, None, **options)
    macs = x_shape[0] * d.macs

    def values(draw: Draw, *shape: int) -> Array:
        return draw.integers(*shape) if exact else draw.normal(*shape)

    def forward(draw: Draw) -> Arguments:
        x, w, b = values(draw, *x_shape), values(draw, *w_shape), values(draw, d.f)
        return {"x": x, "w": w, "b": b if bias else None, **options}

    def backward(draw: Draw) -> Arguments:
        dy = values(draw, x_shape[0], d.oh, d.ow, d.f)
        return {"dy": dy, "x": values(draw, *x_shape), "w": values(draw, *w_shape), **options}

    _case("conv2d", name, tag, forward, macs)
    _case("conv2d_backward", name, tag, backward, 2 * macs)


_conv2d("small", "small", (2, 6, 6, 3), (3, 3, 3, 4))
_conv2d("one-channel", "small", (2, 7, 7, 1), (5, 5, 1, 16))
_conv2d("padding", "small", (2, 5, 5, 2), (3, 3, 2, 3), padding=1)
_conv2d("stride", "edge", (2, 8, 7, 3), (3, 3, 3, 4), stride=2)
_conv2d("stride-beyond-kernel", "edge", (2, 9, 8, 2), (2, 2, 2, 3), stride=3)
_conv2d("dilation", "edge", (2, 9, 8, 2), (3, 2, 2, 3), dilation=2)
_conv2d("stride-padding-dilation", "edge", (2, 10, 9, 3), (3, 3, 3, 5), stride=(2, 3), padding=(2, 1), dilation=(2, 1))
_conv2d("groups", "edge", (2, 5, 6, 6), (3, 3, 3, 4), groups=2, padding=1)
_conv2d("depthwise", "edge", (2, 6, 5, 7), (3, 3, 1, 7), groups=7, padding=1)
_conv2d("depthwise-multiplier", "edge", (2, 5, 5, 4), (3, 3, 1, 8), groups=4, stride=2)
_conv2d("one-by-one", "edge", (3, 4, 5, 6), (1, 1, 6, 10))
_conv2d("one-by-one-stride", "edge", (3, 5, 5, 4), (1, 1, 4, 3), stride=2)
_conv2d("one-by-one-padding", "edge", (2, 3, 3, 2), (1, 1, 2, 3), padding=1)
_conv2d("odd", "edge", (3, 7, 5, 3), (3, 2, 3, 17))
_conv2d("ten-filters", "edge", (2, 6, 7, 5), (3, 3, 5, 10), padding=(0, 1))
_conv2d("one-sample", "edge", (1, 6, 6, 2), (3, 3, 2, 3))
_conv2d("one-everything", "edge", (1, 1, 1, 1), (1, 1, 1, 1))
_conv2d("whole-image", "edge", (3, 4, 4, 2), (4, 4, 2, 5))
_conv2d("wide-padding", "edge", (2, 3, 3, 2), (2, 2, 2, 3), padding=3)
_conv2d("kernel-beyond-image", "edge", (2, 2, 3, 2), (5, 5, 2, 3), padding=2)
_conv2d("no-bias", "edge", (2, 6, 6, 3), (3, 3, 3, 4), bias=False)
_conv2d("exact", "edge", (2, 9, 9, 5), (3, 3, 5, 18), exact=True, padding=1)
_conv2d("exact-groups", "edge", (2, 8, 7, 6), (3, 3, 2, 9), exact=True, groups=3, stride=2, dilation=2)
_conv2d("cnn-bn-conv1-b128", "bench", (128, 28, 28, 1), (5, 5, 1, 16))
_conv2d("cnn-bn-conv2-b128", "bench", (128, 12, 12, 16), (5, 5, 16, 32))
_conv2d("cnn-bn-conv1-b1", "bench", (1, 28, 28, 1), (5, 5, 1, 16))
_conv2d("cnn-bn-conv2-b1", "bench", (1, 12, 12, 16), (5, 5, 16, 32))
_conv2d("residual-b64", "bench", (64, 14, 14, 32), (3, 3, 32, 32), padding=1)
_conv2d("depthwise-b64", "bench", (64, 14, 14, 32), (3, 3, 1, 32), padding=1, groups=32)
_conv2d("pointwise-b64", "bench", (64, 14, 14, 32), (1, 1, 32, 64))
_conv2d("strided-b64", "bench", (64, 28, 28, 16), (3, 3, 16, 32), padding=1, stride=2)


def _conv2d_nan(draw: Draw) -> Arguments:
    x, w, b = draw.normal(2, 6, 6, 2), draw.normal(3, 3, 2, 4), draw.normal(4)
    x[0, 1, 1, 0], x[1, 4, 4, 1], w[1, 1, 0, 2], b[3] = np.nan, np.inf, np.nan, -np.inf
    return {"x": x, "w": w, "b": b}


def _conv2d_backward_nan(draw: Draw) -> Arguments:
    dy, x, w = draw.normal(2, 4, 4, 4), draw.normal(2, 6, 6, 2), draw.normal(3, 3, 2, 4)
    dy[0, 1, 1, 0], x[1, 4, 4, 1] = np.nan, np.inf
    return {"dy": dy, "x": x, "w": w}


_case("conv2d", "nan-inf", "edge", _conv2d_nan)
_case("conv2d_backward", "nan-inf", "edge", _conv2d_backward_nan)


_conv2d("uneven-borders", "edge", (2, 6, 5, 3), (3, 3, 3, 4), padding=((0, 2), (1, 0)))
_conv2d("end-border", "edge", (2, 5, 6, 1), (3, 3, 1, 5), padding=((0, 0), (0, 1)))
_conv2d("same-stride", "edge", (2, 7, 6, 3), (3, 4, 3, 4), padding="same", stride=2)
_conv2d("same-lower-depthwise", "edge", (2, 6, 5, 7), (2, 2, 1, 7), padding="same_lower", groups=7)
_conv2d("far-stride", "edge", (2, 4, 5, 2), (3, 3, 2, 3), stride=10**9, padding=((10**9, 0), (1, 10**9)))
_conv2d("far-dilation", "edge", (2, 4, 5, 3), (3, 3, 3, 2), dilation=10**9, padding=10**9)


def _conv2d_border_nan(groups: int) -> Callable[[Draw], Arguments]:
    """Filters that are not finite, some where the padding is."""

    def build(draw: Draw) -> Arguments:
        x, w = draw.normal(2, 4, 5, 2), draw.normal(3, 3, 2 // groups, 2)
        w[0, 0, 0, 0], w[2, 1, -1, 1] = np.nan, np.inf
        return {"x": x, "w": w, "padding": ((1, 2), (1, 0)), "groups": groups}

    return build


def _conv2d_backward_border_nan(groups: int) -> Callable[[Draw], Arguments]:
    def build(draw: Draw) -> Arguments:
        dy, x, w = draw.normal(2, 5, 4, 2), draw.normal(2, 4, 5, 2), draw.normal(3, 3, 2 // groups, 2)
        dy[0, 0, 0, 0], dy[1, 4, 2, 1], w[0, 0, 0, 0] = np.nan, np.inf, np.nan
        return {"dy": dy, "x": x, "w": w, "padding": ((1, 2), (1, 0)), "groups": groups}

    return build


for _name, _groups in ("nan-inf-at-the-border", 1), ("nan-inf-at-the-border-depthwise", 2):
    _case("conv2d", _name, "edge", _conv2d_border_nan(_groups))
    _case("conv2d_backward", _name, "edge", _conv2d_backward_border_nan(_groups))

_conv2d("few-filters", "edge", (33, 3, 4, 16), (3, 3, 16, 10), padding=1)
_conv2d("few-filters-stride", "edge", (35, 4, 3, 32), (2, 2, 32, 4), padding=1, stride=2)
_conv2d("few-filters-exact", "edge", (34, 3, 3, 16), (2, 3, 16, 16), exact=True, padding=1)
_conv2d("one-vector-of-images", "edge", (17, 3, 3, 5), (3, 3, 5, 16), padding=1)
_conv2d("depthwise-three-taps", "edge", (2, 6, 7, 44), (3, 3, 1, 44), padding=1, groups=44)
_conv2d("residual-16-b64", "bench", (64, 32, 32, 16), (3, 3, 16, 16), padding=1)


def _conv2d_backward_few_filters_nan(draw: Draw) -> Arguments:
    dy, x, w = draw.normal(33, 3, 4, 9), draw.normal(33, 3, 4, 16), draw.normal(3, 3, 16, 9)
    dy[0, 0, 0, 0], dy[32, 2, 3, 8], w[0, 0, 0, 0] = np.nan, np.inf, np.nan
    return {"dy": dy, "x": x, "w": w, "padding": 1}


_case("conv2d_backward", "few-filters-nan-inf-at-the-border", "edge", _conv2d_backward_few_filters_nan)


def _convtranspose2d(
    name: str,
    tag: str,
    x_shape: tuple[int, int, int, int],
    w_shape: tuple[int, int, int, int],
    *,
    bias: bool = True,
    exact: bool = False,
    special: tuple[float, ...] = (),
    **options: Any,
) -> None:
    d = shapes.convtranspose2d(x_shape, w_shape, None, **options)
    macs = x_shape[0] * d.macs

    def values(draw: Draw, *shape: int) -> Array:
        array = draw.integers(*shape) if exact else draw.normal(*shape)
        array.flat[: len(special)] = special
        return array

    def forward(draw: Draw) -> Arguments:
        x, w, b = values(draw, *x_shape), values(draw, *w_shape), draw.integers(d.c)
        return {"x": x, "w": w, "b": b if bias else None, **options}

    def backward(draw: Draw) -> Arguments:
        dy = values(draw, x_shape[0], d.h, d.w, d.c)
        return {"dy": dy, "x": values(draw, *x_shape), "w": values(draw, *w_shape), **options}

    _case("convtranspose2d", name, tag, forward, macs)
    _case("convtranspose2d_backward", name, tag, backward, 2 * macs)


_convtranspose2d("small", "small", (2, 4, 5, 3), (3, 3, 4, 3))
_convtranspose2d("stride", "small", (2, 3, 4, 3), (2, 2, 5, 3), stride=2)
_convtranspose2d("one-channel", "edge", (2, 5, 4, 1), (3, 3, 1, 1), stride=2, padding=1, output_padding=1)
_convtranspose2d("gaps", "edge", (2, 3, 3, 2), (2, 1, 3, 2), stride=3, output_padding=(2, 0))
_convtranspose2d("dilation", "edge", (2, 4, 3, 2), (3, 2, 3, 2), dilation=(2, 3), stride=(1, 2), output_padding=(1, 2))
_convtranspose2d("uneven-borders", "edge", (2, 5, 4, 3), (4, 3, 17, 3), stride=2, padding=((2, 1), (0, 2)))
_convtranspose2d("groups", "edge", (2, 4, 4, 6), (3, 3, 2, 6), groups=3, stride=2, padding=1)
_convtranspose2d("depthwise", "edge", (3, 4, 5, 7), (3, 3, 1, 7), groups=7, stride=2, padding=1, output_padding=1)
_convtranspose2d("wide-padding", "edge", (2, 5, 5, 2), (2, 2, 3, 2), padding=2)
_convtranspose2d("one-by-one", "edge", (3, 4, 5, 6), (1, 1, 10, 6))
_convtranspose2d("one-sample", "edge", (1, 4, 4, 2), (3, 3, 3, 2))
_convtranspose2d("no-bias", "edge", (2, 4, 4, 3), (3, 3, 4, 3), bias=False)
_convtranspose2d("exact", "edge", (9, 5, 6, 5), (4, 4, 18, 5), exact=True, stride=2, padding=1)
_convtranspose2d("nan-inf", "edge", (2, 4, 4, 2), (3, 3, 2, 2), special=(np.nan, np.inf), padding=1)
_convtranspose2d("few-channels", "edge", (33, 3, 2, 7), (2, 3, 16, 7), stride=2, padding=1)
_convtranspose2d("upsample-b64", "bench", (64, 7, 7, 32), (4, 4, 16, 32), stride=2, padding=1)


# Pooling -----------------------------------------------------------------------------------------------------

_EXTREMES = (np.nan, np.inf, -np.inf, 0.0, -0.0)


def _pool2d(
    name: str,
    tag: str,
    x_shape: tuple[int, int, int, int],
    *,
    values: str = "normal",
    **options: Any,
) -> None:
    window = {"size": 2, "stride": None, "padding": 0} | options
    d = shapes.pool2d(x_shape, kernel="maxpool2d", **window)
    dy_shape = (x_shape[0], d.oh, d.ow, d.c)

    def image(draw: Draw) -> Array:
        match values:
            case "ties":
                return draw.integers(*x_shape)
            case "constant":
                return np.zeros(x_shape, draw.dtype)
            case "zeros":
                return draw.rng.choice(np.asarray([0.0, -0.0], draw.dtype), x_shape)
            case "minus-inf":
                return np.full(x_shape, -np.inf, draw.dtype)
            case "extremes":
                return draw.special(*x_shape, values=_EXTREMES)
        return draw.normal(*x_shape)

    def max_backward(draw: Draw) -> Arguments:
        argmax = _numpy().maxpool2d(image(draw), **options)[1]
        return {"dy": draw.normal(*dy_shape), "argmax": argmax, "x_shape": x_shape, **options}

    _case("maxpool2d", name, tag, lambda draw: {"x": image(draw), **options})
    _case("maxpool2d_backward", name, tag, max_backward)
    if values not in ("normal", "extremes"):  # equal and infinite values are a matter of the maximum alone
        return
    for suffix, more in ("", {}), ("-real-pixels", {"count_include_pad": False}):
        if more and d.inside:
            continue
        every = {**options, **more}

        def average_backward(draw: Draw, every: Arguments = every) -> Arguments:
            return {"dy": draw.normal(*dy_shape), "x_shape": x_shape, **every}

        _case("avgpool2d", name + suffix, tag, lambda draw, every=every: {"x": image(draw), **every})  # type: ignore[misc]
        _case("avgpool2d_backward", name + suffix, tag, average_backward)


_pool2d("small", "small", (2, 4, 6, 3))
_pool2d("odd", "edge", (3, 7, 5, 17))
_pool2d("one-channel", "edge", (2, 6, 6, 1))
_pool2d("one-sample", "edge", (1, 5, 4, 2))
_pool2d("overlapping", "edge", (2, 7, 6, 3), size=3, stride=2)
_pool2d("overlapping-padding", "edge", (2, 6, 7, 5), size=3, stride=1, padding=1)
_pool2d("uneven-padding", "edge", (2, 7, 6, 3), size=(3, 2), stride=(2, 1), padding=(1, 0))
_pool2d("gaps", "edge", (2, 9, 8, 2), size=2, stride=3)
_pool2d("one-by-one", "edge", (2, 3, 4, 2), size=1)
_pool2d("whole-image", "edge", (2, 5, 4, 3), size=(5, 4))
_pool2d("large-window", "edge", (2, 17, 18, 2), size=17, stride=1)
_pool2d("wide-padding", "edge", (2, 5, 5, 2), size=4, stride=2, padding=3)
_pool2d("ties", "edge", (3, 8, 7, 5), values="ties", size=3, stride=2, padding=1)
_pool2d("constant", "edge", (2, 4, 4, 3), values="constant", size=3, stride=1, padding=1)
_pool2d("signed-zeros", "edge", (3, 6, 6, 4), values="zeros")
_pool2d("minus-inf", "edge", (2, 4, 4, 3), values="minus-inf", size=3, stride=2, padding=1)
_pool2d("extremes", "edge", (3, 8, 8, 4), values="extremes")
_pool2d("extremes-padding", "edge", (3, 7, 8, 4), values="extremes", size=3, stride=2, padding=1)
_pool2d("cnn-bn-pool1-b128", "bench", (128, 24, 24, 16))
_pool2d("cnn-bn-pool2-b128", "bench", (128, 8, 8, 32))
_pool2d("overlapping-b64", "bench", (64, 28, 28, 16), size=3, stride=2, padding=1)
_pool2d("uneven-borders", "edge", (2, 6, 7, 3), size=3, stride=2, padding=((0, 2), (1, 0)))
_pool2d("same", "edge", (2, 7, 6, 5), size=(2, 3), stride=2, padding="same")
_pool2d("same-lower", "edge", (2, 7, 6, 5), size=(2, 3), stride=2, padding="same_lower")
_pool2d("ceil", "edge", (2, 6, 8, 3), size=3, stride=2, ceil_mode=True)
_pool2d("ceil-padding", "edge", (2, 6, 7, 18), size=(3, 4), stride=(2, 3), padding=1, ceil_mode=True)
_pool2d("ceil-apart", "edge", (2, 5, 7, 2), size=2, stride=2, ceil_mode=True)
_pool2d("ceil-beyond-the-image", "edge", (2, 2, 3, 2), size=(3, 4), stride=3, ceil_mode=True)
_pool2d("dilation", "edge", (2, 8, 9, 3), size=(2, 3), stride=(2, 1), dilation=(3, 2))
_pool2d("dilation-apart", "edge", (2, 9, 9, 2), size=2, dilation=2)
_pool2d("dilation-ceil", "edge", (2, 6, 7, 17), size=3, stride=2, padding=((2, 1), (0, 3)), dilation=2, ceil_mode=True)
_pool2d("dilation-extremes", "edge", (3, 7, 8, 4), values="extremes", size=2, stride=1, padding=1, dilation=2)


# Normalisation -----------------------------------------------------------------------------------------------


def _norm(
    name: str,
    tag: str,
    *shape: int,
    mean: float = 0.0,
    std: float = 1.0,
    constant: bool = False,
    special: tuple[float, ...] = (),
    eps: float = 1e-5,
) -> None:
    c = shape[-1]

    def image(draw: Draw) -> Array:
        x = np.full(shape, 0.5, draw.dtype) if constant else draw.normal(*shape, mean=mean, std=std)
        x.flat[: len(special)] = special
        return x

    def batch(draw: Draw) -> Arguments:
        return {"x": image(draw), "gamma": draw.normal(c), "beta": draw.normal(c), "eps": eps}

    def batch_backward(draw: Draw) -> Arguments:
        dy, x, gamma = draw.normal(*shape), image(draw), draw.normal(c)
        with np.errstate(invalid="ignore"):
            _, mean, inv_std = _numpy().batchnorm(x, gamma, np.zeros_like(gamma), eps)
        return {"dy": dy, "x": x, "gamma": gamma, "mean": mean, "inv_std": inv_std}

    def given(draw: Draw) -> Arguments:
        statistics = {"mean": draw.normal(c, mean=mean), "var": draw.positive(c)}
        return {"x": image(draw), "gamma": draw.normal(c), "beta": draw.normal(c), **statistics, "eps": eps}

    def given_backward(draw: Draw) -> Arguments:
        arguments = given(draw)
        del arguments["beta"]
        return {"dy": draw.normal(*shape), **arguments}

    _case("batchnorm", name, tag, batch)
    _case("batchnorm_backward", name, tag, batch_backward)
    _case("batchnorm_inference", name, tag, given)
    _case("batchnorm_inference_backward", name, tag, given_backward)
    _case("meannorm", name, tag, lambda draw: {"x": image(draw), "beta": draw.normal(c)})
    _case("meannorm_backward", name, tag, lambda draw: {"dy": image(draw)})
    _case(
        "meannorm_inference",
        name,
        tag,
        lambda draw: {"x": image(draw), "beta": draw.normal(c), "mean": draw.normal(c, mean=mean)},
    )
    _case("meannorm_inference_backward", name, tag, lambda draw: {"dy": image(draw)})


_norm("small", "small", 4, 6)
_norm("image", "small", 3, 4, 5, 2)
_norm("odd", "edge", 5, 3, 7, 17)
_norm("one-channel", "edge", 3, 5, 4, 1)
_norm("one-sample", "edge", 1, 4, 3, 5)
_norm("one-value", "edge", 1, 7)
_norm("ten", "edge", 9, 10)
_norm("five-axes", "edge", 2, 3, 2, 3, 4)
_norm("offset", "edge", 64, 3, mean=1000.0, std=0.5)
_norm("constant", "edge", 6, 4, constant=True)
_norm("nan-inf", "edge", 5, 8, special=(np.nan, np.inf, -np.inf))
_norm("eps", "edge", 6, 5, std=0.01, eps=1e-2)
_norm("cnn-bn-norm1-b128", "bench", 128, 24, 24, 16)
_norm("cnn-bn-norm2-b128", "bench", 128, 8, 8, 32)
_norm("mlp-meannorm-b64", "bench", 64, 256)


def _ema(name: str, tag: str, n: int, momentum: float = 0.1, special: tuple[float, ...] = ()) -> None:
    def build(draw: Draw) -> Arguments:
        value = draw.normal(n)
        value[: len(special)] = special
        return {"running": draw.normal(n), "value": value, "momentum": momentum}

    _case("ema_update", name, tag, build)


_ema("small", "small", 8)
_ema("odd", "edge", 17, 0.03)
_ema("one-channel", "edge", 1)
_ema("momentum-one", "edge", 6, 1.0)
_ema("momentum-zero", "edge", 6, 0.0)
_ema("nan-inf", "edge", 6, special=(np.nan, np.inf, -np.inf))
_ema("cnn-bn-norm2", "bench", 32)


# Activations -------------------------------------------------------------------------------------------------

_FAR = (0.0, -0.0, 1e-40, -1e-40, 1e-30, -1e-30, 1e-4, -1e-4, 8.0, -8.0, 20.0, -20.0, 89.0, -89.0, 104.0, -104.0)
_FARTHER = (*_FAR, 1e4, -1e4)
_PLATEAU = (1.0, -1.0)

_ACTIVATIONS: dict[str, Arguments] = {
    "relu": {},
    "leaky_relu": {"negative_slope": 0.02},
    "elu": {"alpha": 1.5},
    "gelu": {},
    "silu": {},
    "sigmoid": {},
    "tanh": {},
    "softplus": {},
}


def _activation(
    kernel: str, name: str, tag: str, *shape: int, values: tuple[float, ...] = (), **options: float
) -> None:
    def input(draw: Draw) -> Array:
        return draw.special(*shape, values=values) if values else draw.normal(*shape, std=2.0)

    def backward(draw: Draw) -> Arguments:
        x = input(draw)
        with np.errstate(invalid="ignore"):
            y = getattr(_numpy(), kernel)(x, **options)
        return {"dy": draw.normal(*shape), "x": x, "y": y, **options}

    _case(kernel, name, tag, lambda draw: {"x": input(draw), **options})
    _case(f"{kernel}_backward", name, tag, backward)


for _kernel, _options in _ACTIVATIONS.items():
    _activation(_kernel, "small", "small", 3, 5, 6, **_options)
    _activation(_kernel, "odd", "edge", 3, 7, 17, **_options)
    _activation(_kernel, "one-value", "edge", 1, 1, **_options)
    _activation(_kernel, "far", "edge", 6, 13, values=_FARTHER, **_options)
    _activation(_kernel, "nan", "edge", 4, 9, values=(np.nan, 0.0, -0.0), **_options)
    _activation(_kernel, "infinite", "edge", 4, 9, values=(np.inf, *_PLATEAU), **_options)
    _activation(_kernel, "cnn-bn-1-b128", "bench", 128, 24, 24, 16, **_options)
    if _kernel not in ("gelu", "silu"):  # x times something that tends to zero: no limit in arithmetic
        _activation(_kernel, "minus-infinite", "edge", 4, 9, values=(-np.inf, *_PLATEAU), **_options)
_activation("relu", "mlp-512-b128", "bench", 128, 512)


# Dropout -----------------------------------------------------------------------------------------------------


def _dropout(name: str, tag: str, *shape: int, rate: float = 0.5, seed: int = 0, step: int = 0) -> None:
    def backward(draw: Draw) -> Arguments:
        mask = draw.rng.random(shape) >= rate
        return {"dy": draw.normal(*shape), "mask": mask, "rate": rate}

    _case("dropout", name, tag, lambda draw: {"x": draw.normal(*shape), "rate": rate, "seed": seed, "step": step})
    _case("dropout_backward", name, tag, backward)


_dropout("small", "small", 4, 3, 5)
_dropout("odd", "edge", 7, 17, rate=0.3, seed=1, step=2)
_dropout("one-value", "edge", 1, 1, rate=0.25, seed=5)
_dropout("rate-zero", "edge", 5, 6, rate=0.0)
_dropout("rate-near-one", "edge", 9, 31, rate=0.999)
_dropout("large-seed", "edge", 5, 9, rate=0.1, seed=2**63 - 1, step=2**40)
_dropout("mlp-512-b128", "bench", 128, 512)


def _dropout_nan(draw: Draw) -> Arguments:
    return {"x": draw.special(6, 7, values=(np.nan, np.inf, -np.inf)), "rate": 0.5, "seed": 3}


_case("dropout", "nan-inf", "edge", _dropout_nan)


# Softmax and losses ------------------------------------------------------------------------------------------


def _softmax(name: str, tag: str, *shape: int, std: float = 1.0, special: tuple[float, ...] = ()) -> None:
    def logits(draw: Draw) -> Array:
        x = draw.normal(*shape, std=std)
        x.reshape(-1, shape[-1])[: len(special), 0] = special
        return x

    for kernel in ("softmax", "log_softmax"):

        def backward(draw: Draw, kernel: str = kernel) -> Arguments:
            x = logits(draw)
            with np.errstate(invalid="ignore"):
                y = getattr(_numpy(), kernel)(x)
            return {"dy": draw.normal(*shape), "x": x, "y": y}

        _case(kernel, name, tag, lambda draw: {"x": logits(draw)})
        _case(f"{kernel}_backward", name, tag, backward)


_softmax("small", "small", 4, 10)
_softmax("odd", "edge", 3, 5, 17)
_softmax("one-class", "edge", 3, 1)
_softmax("one-sample", "edge", 1, 7)
_softmax("far", "edge", 5, 6, std=200.0)
_softmax("nan-inf", "edge", 6, 5, special=(np.nan, np.inf, -np.inf))
_softmax("mlp-512-b128", "bench", 128, 10)


def _cross_entropy(
    name: str,
    tag: str,
    n: int,
    classes: int,
    smoothing: float = 0.0,
    std: float = 1.0,
    special: tuple[float, ...] = (),
) -> None:
    def build(draw: Draw) -> Arguments:
        logits = draw.normal(n, classes, std=std)
        logits[: len(special), 0] = special
        return {"logits": logits, "labels": draw.labels(n, classes), "smoothing": smoothing}

    _case("softmax_cross_entropy", name, tag, build)


_cross_entropy("small", "small", 5, 10)
_cross_entropy("smoothing", "small", 5, 10, smoothing=0.1)
_cross_entropy("odd", "edge", 7, 17, smoothing=0.3)
_cross_entropy("one-class", "edge", 3, 1)
_cross_entropy("one-sample", "edge", 1, 10, smoothing=0.1)
_cross_entropy("far", "edge", 6, 5, std=200.0)
_cross_entropy("far-smoothing", "edge", 6, 5, smoothing=0.1, std=200.0)
_cross_entropy("nan-inf", "edge", 6, 5, special=(np.nan, np.inf))
_cross_entropy("mlp-512-b128", "bench", 128, 10)
_cross_entropy("cnn-bn-smoothing-b128", "bench", 128, 10, smoothing=0.1)


def _mse(name: str, tag: str, *shape: int, special: tuple[float, ...] = ()) -> None:
    def build(draw: Draw) -> Arguments:
        prediction = draw.normal(*shape)
        prediction.flat[: len(special)] = special
        return {"prediction": prediction, "target": draw.normal(*shape)}

    _case("mse", name, tag, build)


_mse("small", "small", 4, 3)
_mse("image", "edge", 3, 5, 7, 2)
_mse("one-value", "edge", 1, 1)
_mse("odd", "edge", 7, 17)
_mse("nan-inf", "edge", 4, 3, special=(np.nan, np.inf))
_mse("infinite", "edge", 4, 3, special=(-np.inf,))
_mse("autoencoder-b128", "bench", 128, 784)


# Joining branches --------------------------------------------------------------------------------------------


def _join(name: str, tag: str, *shape: int, more: int = 3, special: tuple[float, ...] = ()) -> None:
    whole = (*shape[:-1], shape[-1] + more)

    def values(draw: Draw, *size: int) -> Array:
        array = draw.normal(*size)
        array.flat[: len(special)] = special
        return array

    _case("add", name, tag, lambda draw: {"a": values(draw, *shape), "b": draw.normal(*shape)})
    _case("add_backward", name, tag, lambda draw: {"dy": values(draw, *shape)})
    _case("concat", name, tag, lambda draw: {"a": values(draw, *shape), "b": draw.normal(*shape[:-1], more)})
    _case("concat_backward", name, tag, lambda draw: {"dy": values(draw, *whole), "split": shape[-1]})


_join("small", "small", 4, 5)
_join("image", "small", 2, 3, 4, 2, more=4)
_join("odd", "edge", 3, 7, 17, more=10)
_join("one-value", "edge", 1, 1, more=1)
_join("nan-inf", "edge", 3, 4, special=(np.nan, np.inf, -np.inf, -0.0))
_join("residual-b64", "bench", 64, 14, 14, 32, more=32)


# Optimizers --------------------------------------------------------------------------------------------------

_CNN_BN = 18_474
_MLP_512 = 407_050


def _sgd(name: str, tag: str, n: int, *, state: bool = True, values: tuple[float, ...] = (), **options: Any) -> None:
    def build(draw: Draw) -> Arguments:
        p, v = draw.normal(n), draw.normal(n)
        g = draw.special(n, values=values) if values else draw.normal(n)
        return {"p": p, "g": g, "v": v if state else None, "learning_rate": 0.05, **options}

    _case("sgd", name, tag, build)


_sgd("small", "small", 12, state=False)
_sgd("momentum", "small", 12, momentum=0.9)
_sgd("nesterov", "small", 12, momentum=0.9, nesterov=True)
_sgd("decay-coupled", "edge", 17, momentum=0.9, weight_decay=0.1)
_sgd("decay-decoupled", "edge", 17, momentum=0.9, weight_decay=0.1, decoupled=True)
_sgd("plain-decay-coupled", "edge", 17, state=False, weight_decay=0.1)
_sgd("plain-decay-decoupled", "edge", 17, state=False, weight_decay=0.1, decoupled=True)
_sgd("nesterov-decay-coupled", "edge", 33, momentum=0.8, nesterov=True, weight_decay=0.1)
_sgd("nesterov-decay-decoupled", "edge", 33, momentum=0.8, nesterov=True, weight_decay=0.1, decoupled=True)
_sgd("momentum-zero", "edge", 9)
_sgd("one-value", "edge", 1, momentum=0.9)
_sgd("nan-inf", "edge", 12, momentum=0.9, values=(np.nan, np.inf, -np.inf))
_sgd("mlp-512", "bench", _MLP_512, state=False)
_sgd("cnn-bn-momentum", "bench", _CNN_BN, momentum=0.9)


def _rmsprop(
    name: str, tag: str, n: int, *, values: tuple[float, ...] = (), fresh: bool = False, **options: Any
) -> None:
    def build(draw: Draw) -> Arguments:
        p, v = draw.normal(n), draw.positive(n)
        g = draw.special(n, values=values) if values else draw.normal(n)
        return {"p": p, "g": g, "v": np.zeros_like(v) if fresh else v, "learning_rate": 0.01, **options}

    _case("rmsprop", name, tag, build)


_rmsprop("small", "small", 12)
_rmsprop("fresh", "small", 12, fresh=True)
_rmsprop("decay-coupled", "edge", 17, rho=0.99, weight_decay=0.1)
_rmsprop("decay-decoupled", "edge", 17, rho=0.99, weight_decay=0.1, decoupled=True)
_rmsprop("eps", "edge", 10, eps=1e-2)
_rmsprop("zero-gradient", "edge", 10, fresh=True, values=(0.0, -0.0, 1e-4))
_rmsprop("one-value", "edge", 1)
_rmsprop("nan-inf", "edge", 12, values=(np.nan, np.inf, -np.inf))
_rmsprop("mlp-512", "bench", _MLP_512)


def _adam(
    name: str,
    tag: str,
    n: int,
    step: int,
    *,
    method: str = "",
    values: tuple[float, ...] = (),
    **options: Any,
) -> None:
    def build(draw: Draw) -> Arguments:
        p, m, v = draw.normal(n), draw.normal(n), draw.positive(n)
        g = draw.special(n, values=values) if values else draw.normal(n)
        if step == 1:
            m, v = np.zeros_like(m), np.zeros_like(v)
        return {"p": p, "g": g, "m": m, "v": v, "step": step, "learning_rate": 0.01, **options}

    _case("adam", name, tag, build, method=method)


_adam("first-step", "small", 12, 1)
_adam("later-step", "small", 12, 7)
_adam("decay-coupled", "edge", 17, 3, weight_decay=0.1)
_adam("decay-decoupled", "edge", 17, 3, weight_decay=0.1, decoupled=True)
_adam("betas", "edge", 33, 2, beta1=0.5, beta2=0.9, eps=1e-4)
_adam("zero-gradient", "edge", 10, 1, values=(0.0, -0.0, 1e-4))
_adam("late", "edge", 10, 1_000_000)
_adam("one-value", "edge", 1, 4)
_adam("nan-inf", "edge", 12, 2, values=(np.nan, np.inf, -np.inf))
_adam("default-decay", "small", 12, 3, method="adamw")
_adam("cnn-bn", "bench", _CNN_BN, 100)
_adam("mlp-512", "bench", _MLP_512, 100)


# Augmentation ------------------------------------------------------------------------------------------------


def _uniform(name: str, tag: str, n: int, *shape: int, seed: int = 0, step: int = 0) -> None:
    def build(draw: Draw) -> Arguments:
        indices = draw.rng.integers(0, 60_000, n)
        return {"indices": indices, "shape": shape, "seed": seed, "step": step, "dtype": draw.dtype}

    _case("uniform", name, tag, build)


_uniform("small", "small", 4, 5)
_uniform("image", "small", 3, 4, 5, 2)
_uniform("odd", "edge", 7, 17, seed=1, step=2)
_uniform("one-value", "edge", 1)
_uniform("large-seed", "edge", 5, 9, seed=2**63 - 1, step=2**40)
_uniform("affine-b128", "bench", 128, 7)
_uniform("field-b128", "bench", 128, 28, 28, 2)


def _smooth2d(name: str, tag: str, *shape: int, sigma: float = 1.0, radius: int = 3, special: bool = False) -> None:
    def build(draw: Draw) -> Arguments:
        x = draw.normal(*shape)
        if special:
            x[0, 1, 2, 0], x[-1, 4, 3, 1], x[-1, 0, 0, 0] = np.nan, np.inf, -np.inf
        weights = np.exp(-np.square(np.arange(radius + 1)) / (2 * sigma**2))
        weights /= weights[0] + 2 * weights[1:].sum()
        return {"x": x, "weights": weights.astype(np.float32).astype(draw.dtype)}

    _case("smooth2d", name, tag, build)


_smooth2d("small", "small", 2, 6, 7, 2)
_smooth2d("odd", "edge", 3, 9, 11, 3)
_smooth2d("beyond-the-image", "edge", 2, 3, 4, 2, sigma=4.0, radius=12)
_smooth2d("middle-alone", "edge", 2, 4, 5, 1, radius=0)
_smooth2d("one-value", "edge", 1, 1, 1, 1)
_smooth2d("nan-inf", "edge", 2, 7, 6, 2, radius=1, special=True)
_smooth2d("field-b128", "bench", 128, 28, 28, 2, sigma=4.0, radius=12)


def _warp(
    name: str,
    tag: str,
    *shape: int,
    spread: float = 0.2,
    field: float | None = None,
    fill: float = 0.0,
    pixels: tuple[float, ...] = (),
    places: tuple[float, ...] = (),
) -> None:
    def build(draw: Draw) -> Arguments:
        n, h, w, _ = shape
        x, matrix = draw.normal(*shape), draw.normal(n, 2, 3, mean=np.eye(2, 3), std=spread * np.array([1, 1, 10]))
        x.reshape(-1)[: len(pixels)] = pixels
        matrix[-1, :, 2].flat[: len(places)] = places
        displaced = None if field is None else draw.normal(n, h, w, 2, std=field)
        return {"x": x, "matrix": matrix, "field": displaced, "fill": fill}

    _case("warp", name, tag, build)


_warp("small", "small", 3, 6, 7, 2)
_warp("field", "small", 3, 6, 7, 2, field=1.0)
_warp("fill", "edge", 2, 5, 8, 1, fill=-0.4)
_warp("odd", "edge", 3, 11, 5, 3, spread=0.5, field=2.0)
_warp("identity", "edge", 2, 5, 6, 2, spread=0.0)
_warp("far", "edge", 4, 6, 5, 2, spread=100.0, fill=0.5)
_warp("one-value", "edge", 1, 1, 1, 1)
_warp("nan-inf", "edge", 2, 6, 7, 2, pixels=(np.nan, np.inf, -np.inf))
_warp("nan-place", "edge", 2, 5, 6, 2, places=(np.nan, 0.0))
_warp("infinite-place", "edge", 2, 5, 6, 2, places=(0.0, -np.inf), fill=1.5)
_warp("mnist-b128", "bench", 128, 28, 28, 1)
_warp("mnist-field-b128", "bench", 128, 28, 28, 1, field=1.0)
_warp("color-b64", "bench", 64, 32, 32, 3)


# More activations, and functions ----------------------------------------------------------------------------------

_MORE_ACTIVATIONS: dict[str, Arguments] = {
    "clip": {"low": 0.0, "high": 6.0},
    "hard_sigmoid": {"alpha": 0.2, "beta": 0.5},
    "hard_swish": {},
    "mish": {},
    "selu": {},
    "celu": {"alpha": 1.5},
    "gelu_tanh": {},
    "softsign": {},
    "thresholded_relu": {"alpha": 0.7},
    "exp": {},
    "log": {},
    "sqrt": {},
    "absolute": {},
    "negative": {},
    "reciprocal": {},
    "power": {"exponent": 3.0},
    "erf": {},
}
_KNEES = (*_FARTHER, 3.0, -3.0, 6.0, -6.0, 2.5, -2.5, 0.5, 1.5)
_GATED = ("hard_swish", "mish", "gelu_tanh")


def _positive(kernel: str, name: str, tag: str, *shape: int, **options: float) -> None:
    """`_activation` of positive numbers, from the smallest that are not denormal to nearly the largest."""

    def input(draw: Draw) -> Array:
        x = np.exp(draw.rng.uniform(-20, 20, shape)).astype(np.float32).astype(draw.dtype)
        x.flat[:4] = np.array([1.0, 2e-38, 3e38, 0.999999], np.float32)[: x.size]
        return x

    def backward(draw: Draw) -> Arguments:
        x = input(draw)
        return {"dy": draw.normal(*shape), "x": x, "y": getattr(_numpy(), kernel)(x, **options), **options}

    _case(kernel, name, tag, lambda draw: {"x": input(draw), **options})
    _case(f"{kernel}_backward", name, tag, backward)


for _kernel, _options in _MORE_ACTIVATIONS.items():
    _activation(_kernel, "small", "small", 3, 5, 6, **_options)
    _activation(_kernel, "odd", "edge", 3, 7, 17, **_options)
    _activation(_kernel, "far", "edge", 7, 13, values=_KNEES, **_options)
    _activation(_kernel, "nan", "edge", 4, 9, values=(np.nan, 0.0, -0.0), **_options)
    _activation(_kernel, "infinite", "edge", 4, 9, values=(np.inf, *_PLATEAU), **_options)
    _activation(_kernel, "cnn-bn-1-b128", "bench", 128, 24, 24, 16, **_options)
    if _kernel not in _GATED:
        _activation(_kernel, "minus-infinite", "edge", 4, 9, values=(-np.inf, *_PLATEAU), **_options)
for _kernel in ("log", "sqrt", "reciprocal"):
    _positive(_kernel, "positive", "edge", 5, 11)
for _exponent in (0.0, 0.5, 2.0, -1.0, 1 / 3, -0.75):
    _positive("power", f"positive-{_exponent:.3g}", "edge", 5, 11, exponent=_exponent)
_activation("power", "even", "edge", 4, 9, values=(0.0, -0.0, np.inf, -np.inf, np.nan), exponent=2.0)
_activation("power", "pole", "edge", 4, 9, values=(0.0, -0.0, np.inf, -np.inf, np.nan), exponent=-3.0)
_activation("power", "fraction", "edge", 4, 9, values=(0.0, np.inf, np.nan), exponent=1.5)
_activation("clip", "unbounded", "edge", 4, 9, values=(np.inf, -np.inf, np.nan), low=-np.inf, high=1.0)
_activation("clip", "crossed", "edge", 4, 9, values=(np.inf, -np.inf), low=2.0, high=-1.0)


def _rounding(name: str, tag: str, *shape: int, values: tuple[float, ...] = ()) -> None:
    def build(draw: Draw) -> Arguments:
        x = draw.normal(*shape)
        x.flat[: len(values)] = np.array(values, np.float32)
        return {"x": x}

    _case("round_to_bfloat16", name, tag, build)


_TIES = tuple(sign * (1 + k / 256) for sign in (1.0, -1.0) for k in range(8))
_LARGEST = (3.3895314e38, 3.3961775e38, 3.396178e38, 3.4028235e38)  # of bfloat16, below a half, the half, of float32
_SMALLEST = tuple(k * 2.0**-149 for k in (1, 2**15, 2**15 + 1, 3 * 2**15, 2**22 + 2**15, 2**23 - 1))
_rounding("small", "small", 3, 5, 6)
_rounding("odd", "edge", 3, 7, 17)
_rounding("ties", "edge", 5, 7, values=(*_TIES, *(x * (1 + 2.0**-23) for x in _TIES)))
_rounding("largest", "edge", 3, 7, values=(*_LARGEST, *(-x for x in _LARGEST)))
_rounding("smallest", "edge", 3, 7, values=(0.0, -0.0, *_SMALLEST, *(-x for x in _SMALLEST)))
_rounding("nan-inf", "edge", 4, 9, values=(np.nan, -np.nan, np.inf, -np.inf))
_rounding("cnn-bn-1-b128", "bench", 128, 24, 24, 16)


def _prelu(name: str, tag: str, *shape: int, shared: bool = False, values: tuple[float, ...] = ()) -> None:
    def build(draw: Draw) -> Arguments:
        x = draw.special(*shape, values=values) if values else draw.normal(*shape)
        return {"x": x, "slope": draw.normal(1 if shared else shape[-1], mean=0.25)}

    _case("prelu", name, tag, build)
    _case("prelu_backward", name, tag, lambda draw: {"dy": draw.normal(*shape), **build(draw)})


_prelu("small", "small", 4, 5, 3)
_prelu("shared", "small", 4, 5, 3, shared=True)
_prelu("odd", "edge", 3, 7, 17)
_prelu("one-value", "edge", 1, 1)
_prelu("one-channel", "edge", 5, 3, 1)
_prelu("far", "edge", 6, 13, values=_FARTHER)
_prelu("nan-inf", "edge", 4, 9, values=(np.nan, np.inf, -np.inf))
_prelu("cnn-bn-1-b128", "bench", 128, 24, 24, 16)
_prelu("shared-b128", "bench", 128, 24, 24, 16, shared=True)
# Arithmetic of two arrays ------------------------------------------------------------------------------------

_ARITHMETIC = ("add", "subtract", "multiply", "divide")


def _arithmetic(
    name: str,
    tag: str,
    a: tuple[int, ...],
    b: tuple[int, ...],
    *,
    special: tuple[float, ...] = (),
    positive: bool = False,
) -> None:
    def values(draw: Draw, shape: tuple[int, ...]) -> Array:
        array = draw.positive(*shape) if positive else draw.normal(*shape)
        array.reshape(-1)[: len(special)] = special[: array.size]
        return array

    def divisor(draw: Draw, shape: tuple[int, ...]) -> Array:
        array = draw.positive(*shape)
        array.reshape(-1)[: len(special)] = special[::-1][: array.size]
        return array

    def both(draw: Draw, kernel: str) -> Arguments:
        return {"a": values(draw, a), "b": (divisor if kernel == "divide" else values)(draw, b)}

    def gradient(draw: Draw, kernel: str) -> Arguments:
        dy = values(draw, np.broadcast_shapes(a, b))
        if kernel in ("add", "subtract"):
            return {"dy": dy, "a_shape": a, "b_shape": b}
        return {"dy": dy, **both(draw, kernel)}

    for kernel in _ARITHMETIC:
        _case(kernel, name, tag, lambda draw, kernel=kernel: both(draw, kernel))  # type: ignore[misc]
        _case(f"{kernel}_backward", name, tag, lambda draw, kernel=kernel: gradient(draw, kernel))  # type: ignore[misc]


_arithmetic("equal", "small", (3, 4, 5), (3, 4, 5))
_arithmetic("by-channel", "small", (2, 1, 1, 5), (2, 4, 3, 5))
_arithmetic("by-map", "edge", (2, 5, 4, 3), (2, 5, 4, 1))
_arithmetic("by-sample", "edge", (3, 4, 2, 5), (3, 1, 1, 1))
_arithmetic("parameter", "edge", (3, 4, 17), (17,))
_arithmetic("map-parameter", "edge", (5, 3, 4, 2), (3, 4, 2))
_arithmetic("both-repeated", "edge", (2, 3, 1, 4), (2, 1, 5, 4))
_arithmetic("runs", "edge", (2, 1, 3, 1, 2, 1), (2, 3, 3, 2, 2, 3))
_arithmetic("eight-axes", "edge", (1, 2, 1, 2, 1, 2, 1, 2), (2, 1, 2, 1, 2, 1, 2, 1), positive=True)
_arithmetic("one-value-each", "edge", (1, 1), (1, 1))
_arithmetic("nan-inf-repeated", "edge", (4, 3, 5), (4, 1, 5), special=(np.nan, np.inf, -np.inf, 0.0, -0.0))
_arithmetic("squeeze-excitation-b16", "bench", (16, 28, 28, 64), (16, 1, 1, 64))
_arithmetic("squeeze-excitation-b1", "bench", (1, 28, 28, 64), (1, 1, 1, 64))
_arithmetic("by-channel-b64", "bench", (64, 28, 28, 16), (16,))
_arithmetic("by-map-b16", "bench", (16, 28, 28, 64), (16, 28, 28, 1))
_arithmetic("equal-b64", "bench", (64, 14, 14, 32), (64, 14, 14, 32))


def _mean(name: str, tag: str, shape: tuple[int, ...], axes: tuple[int, ...], special: tuple[float, ...] = ()) -> None:
    def image(draw: Draw) -> Array:
        x = draw.normal(*shape, mean=0.5)
        x.reshape(-1)[: len(special)] = special
        return x

    left = tuple(size for axis, size in enumerate(shape) if axis not in axes)
    _case("mean", name, tag, lambda draw: {"x": image(draw), "axes": axes})
    _case("mean_backward", name, tag, lambda draw: {"dy": draw.normal(*left), "x_shape": shape, "axes": axes})


_mean("small", "small", (3, 4, 5), (1,))
_mean("map", "small", (2, 4, 3, 5), (1, 2))
_mean("channels", "edge", (3, 4, 5, 17), (3,))
_mean("middle", "edge", (2, 3, 5, 2, 3), (2,))
_mean("sample", "edge", (5, 3, 4, 2), (1, 2, 3))
_mean("one-value", "edge", (1, 1), (1,))
_mean("nan-inf", "edge", (4, 3, 2), (1,), special=(np.nan, 0.0, 0.0, 0.0, 0.0, 0.0, np.inf, 1.0, -np.inf))
_mean("map-b16", "bench", (16, 28, 28, 64), (1, 2))
_mean("map-b1", "bench", (1, 56, 56, 64), (1, 2))
_mean("channels-b16", "bench", (16, 28, 28, 64), (3,))


# Cutting and moving ------------------------------------------------------------------------------------------


def _slice(name: str, tag: str, shape: tuple[int, ...], axis: int, *places: int | None) -> None:
    arguments = dict(zip(("start", "stop", "step"), places, strict=False))
    d = shapes.slice(shape, axis, *places)  # type: ignore[arg-type]
    kept = (*shape[:axis], d.kept, *shape[axis + 1 :])
    _case("slice", name, tag, lambda draw: {"x": draw.normal(*shape), "axis": axis, **arguments})
    _case(
        "slice_backward",
        name,
        tag,
        lambda draw: {"dy": draw.normal(*kept), "x_shape": shape, "axis": axis, **arguments},
    )


_slice("small", "small", (3, 4, 6), 2, 1, 4)
_slice("rows", "small", (2, 5, 4, 3), 1, 2, None)
_slice("step", "edge", (2, 7, 5, 3), 2, 1, None, 2)
_slice("backwards", "edge", (2, 5, 6), 2, None, None, -1)
_slice("backwards-step", "edge", (2, 9, 3), 1, 7, 1, -3)
_slice("channels-step", "edge", (2, 3, 17), 2, 1, 16, 3)
_slice("everything", "edge", (2, 3, 4), 1, None, None)
_slice("one-value", "edge", (1, 1), 1, 0, 1)
_slice("channels-b16", "bench", (16, 28, 28, 64), 3, 0, 32)
_slice("every-second-b16", "bench", (16, 28, 28, 64), 1, 0, None, 2)


def _transpose(name: str, tag: str, shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
    _case("transpose", name, tag, lambda draw: {"x": draw.normal(*shape), "axes": axes})


_transpose("small", "small", (2, 3, 4), (0, 2, 1))
_transpose("channels-first", "small", (2, 4, 5, 3), (0, 3, 1, 2))
_transpose("shuffle", "edge", (2, 3, 4, 2, 9), (0, 1, 2, 4, 3))
_transpose("odd", "edge", (3, 17, 35), (2, 0, 1))
_transpose("deal-three", "edge", (2, 3, 3, 19), (0, 1, 3, 2))
_transpose("gather-three", "edge", (2, 3, 19, 3), (0, 1, 3, 2))
_transpose("deal-eight", "edge", (2, 8, 21), (0, 2, 1))
_transpose("gather-eight", "edge", (2, 21, 8), (0, 2, 1))
_transpose("deal-two", "edge", (3, 2, 33), (0, 2, 1))
_transpose("gather-two", "edge", (3, 33, 2), (0, 2, 1))
_transpose("gather-four", "edge", (3, 33, 4), (0, 2, 1))
_transpose("reversed", "edge", (2, 3, 4, 5), (3, 2, 1, 0))
_transpose("as-it-was", "edge", (2, 3, 4), (0, 1, 2))
_transpose("eight-axes", "edge", (2, 3, 2, 1, 2, 3, 2, 2), (7, 1, 5, 3, 0, 2, 6, 4))
_transpose("one-value", "edge", (1, 1), (1, 0))
_transpose("channels-first-b16", "bench", (16, 28, 28, 64), (0, 3, 1, 2))
_transpose("channels-last-b16", "bench", (16, 64, 28, 28), (0, 2, 3, 1))
_transpose("shuffle-b16", "bench", (16, 28, 28, 4, 34), (0, 1, 2, 4, 3))
_transpose("shuffle-again", "edge", (3, 37, 4, 11), (0, 1, 3, 2))


def _pad2d(name: str, tag: str, shape: tuple[int, int, int, int], padding: shapes.Sides, **options: Any) -> None:
    d = shapes.pad2d(shape, padding)
    mode = {"mode": options["mode"]} if "mode" in options else {}
    _case("pad2d", name, tag, lambda draw: {"x": draw.normal(*shape), "padding": padding, **options})
    _case(
        "pad2d_backward",
        name,
        tag,
        lambda draw: {"dy": draw.normal(shape[0], d.oh, d.ow, d.c), "x_shape": shape, "padding": padding, **mode},
    )


_pad2d("small", "small", (2, 3, 4, 5), 1)
_pad2d("reflect", "small", (2, 4, 5, 3), (1, 2), mode="reflect")
_pad2d("edge", "small", (2, 4, 5, 3), ((0, 3), (2, 1)), mode="edge")
_pad2d("value", "edge", (2, 3, 4, 17), ((1, 0), (0, 2)), value=-1.5)
_pad2d("crop", "edge", (2, 6, 5, 3), ((-1, -2), (0, -1)))
_pad2d("crop-and-pad", "edge", (2, 6, 5, 3), ((-2, 3), (2, -1)), mode="edge")
_pad2d("crop-and-reflect", "edge", (2, 6, 5, 2), ((-2, 3), (2, -1)), mode="reflect")
_pad2d("reflect-all", "edge", (2, 3, 4, 2), ((2, 2), (3, 3)), mode="reflect")
_pad2d("edge-far", "edge", (2, 2, 2, 3), 5, mode="edge")
_pad2d("nothing", "edge", (2, 3, 2, 4), 0)
_pad2d("one-value", "edge", (1, 1, 1, 1), 2, mode="edge")
_pad2d("three-b64", "bench", (64, 28, 28, 16), 3)
_pad2d("reflect-b64", "bench", (64, 28, 28, 16), 3, mode="reflect")


def _upsample2d(name: str, tag: str, shape: tuple[int, int, int, int], factor: shapes.Pair) -> None:
    h, w = shapes.pair("upsample2d", "factor", factor, 1)
    large = (shape[0], shape[1] * h, shape[2] * w, shape[3])
    _case("upsample2d", name, tag, lambda draw: {"x": draw.normal(*shape), "factor": factor})
    _case("upsample2d_backward", name, tag, lambda draw: {"dy": draw.normal(*large), "factor": factor})


_upsample2d("small", "small", (2, 3, 4, 5), 2)
_upsample2d("uneven", "edge", (2, 4, 3, 17), (3, 1))
_upsample2d("one-channel", "edge", (2, 3, 5, 1), (2, 4))
_upsample2d("once", "edge", (2, 3, 2, 3), 1)
_upsample2d("one-value", "edge", (1, 1, 1, 1), (2, 2))
_upsample2d("double-b16", "bench", (16, 14, 14, 64), 2)


def _concat_many(name: str, tag: str, *shape: int, widths: tuple[int, ...]) -> None:
    def build(draw: Draw) -> Arguments:
        return {
            part: draw.normal(*shape, width) for part, width in zip(("a", "b", "third", "fourth"), widths, strict=False)
        }

    _case("concat", name, tag, build)


_concat_many("three", "small", 3, 4, widths=(5, 2, 3))
_concat_many("four", "small", 2, 3, 4, widths=(1, 17, 2, 5))
_concat_many("inception-b16", "bench", 16, 28, 28, widths=(64, 128, 32, 32))


# Normalisation of single samples -----------------------------------------------------------------------------


def _sample_norm(
    name: str,
    tag: str,
    *shape: int,
    last: int = 1,
    groups: int = 1,
    mean: float = 0.0,
    std: float = 1.0,
    constant: bool = False,
    special: tuple[float, ...] = (),
    eps: float = 1e-5,
) -> None:
    """`layernorm` over the last axes, and `groupnorm`."""

    def image(draw: Draw) -> Array:
        x = np.full(shape, 0.5, draw.dtype) if constant else draw.normal(*shape, mean=mean, std=std)
        x.flat[: len(special)] = special
        return x

    for kernel, own, more in (("layernorm", shape[-last:], {}), ("groupnorm", shape[-1:], {"groups": groups})):

        def forward(draw: Draw, own: tuple[int, ...] = own, more: Arguments = more) -> Arguments:
            return {"x": image(draw), "gamma": draw.normal(*own), "beta": draw.normal(*own), **more, "eps": eps}

        def backward(draw: Draw, kernel: str = kernel, own: tuple[int, ...] = own, more: Arguments = more) -> Arguments:
            dy, x, gamma = draw.normal(*shape), image(draw), draw.normal(*own)
            with np.errstate(invalid="ignore"):
                _, mean, inv_std = getattr(_numpy(), kernel)(x, gamma, np.zeros_like(gamma), **more, eps=eps)
            return {"dy": dy, "x": x, "gamma": gamma, "mean": mean, "inv_std": inv_std}

        _case(kernel, name, tag, forward)
        _case(f"{kernel}_backward", name, tag, backward)


_sample_norm("small", "small", 4, 6, groups=2)
_sample_norm("image", "small", 3, 4, 5, 6, groups=3)
_sample_norm("odd", "edge", 5, 3, 7, 17)
_sample_norm("every-channel", "edge", 3, 5, 4, 7, groups=7)
_sample_norm("last-two", "edge", 3, 5, 4, 3, last=2)
_sample_norm("whole-sample", "edge", 3, 5, 4, 4, last=3, groups=2)
_sample_norm("one-channel", "edge", 3, 5, 4, 1)
_sample_norm("one-sample", "edge", 1, 4, 3, 10, groups=5)
_sample_norm("one-value", "edge", 3, 1, 5, groups=5)
_sample_norm("offset", "edge", 3, 64, 4, mean=1000.0, std=0.5, groups=2)
_sample_norm("constant", "edge", 3, 6, 4, constant=True, groups=2)
_sample_norm("nan-inf", "edge", 5, 2, 8, special=(np.nan, np.inf, -np.inf), groups=2)
_sample_norm("eps", "edge", 6, 3, 6, std=0.01, eps=1e-2, groups=3)
_sample_norm("image-b16", "bench", 16, 28, 28, 64, groups=8)
_sample_norm("image-b1", "bench", 1, 56, 56, 64, groups=64)
_sample_norm("tokens-b8", "bench", 8, 196, 192, groups=4)


def _local_response(name: str, tag: str, *shape: int, special: tuple[float, ...] = (), **options: Any) -> None:
    def image(draw: Draw) -> Array:
        x = draw.normal(*shape, std=2.0)
        x.flat[: len(special)] = special
        return x

    def backward(draw: Draw) -> Arguments:
        x = image(draw)
        with np.errstate(invalid="ignore"):
            _, scale = _numpy().local_response_norm(x, **options)
        rest = {name: value for name, value in options.items() if name != "bias"}
        return {"dy": draw.normal(*shape), "x": x, "scale": scale, **rest}

    _case("local_response_norm", name, tag, lambda draw: {"x": image(draw), **options})
    _case("local_response_norm_backward", name, tag, backward)


_local_response("small", "small", 2, 3, 4, 10, size=5, alpha=0.3)
_local_response("even", "edge", 2, 3, 9, size=4, alpha=0.5, beta=0.5)
_local_response("wide", "edge", 3, 2, 5, size=17, alpha=0.5, beta=1.0, bias=2.0)
_local_response("alone", "edge", 2, 4, 6, size=1, alpha=0.4, beta=0.6)
_local_response("odd", "edge", 2, 3, 5, 17, size=3, alpha=0.2, beta=1.3, bias=0.5)
_local_response("one-channel", "edge", 3, 4, 1, size=5)
_local_response("nan-inf", "edge", 3, 4, 9, size=3, alpha=0.1, special=(np.nan,))
_local_response("googlenet-b16", "bench", 16, 28, 28, 64, size=5)
_transpose("space-to-depth", "edge", (1, 2, 2, 3, 2, 2), (0, 1, 3, 5, 2, 4))


# Losses by weight ----------------------------------------------------------------------------------------------


def _weights(draw: Draw, n: int, kind: str) -> Arguments:
    """None; drawn ones, of which some are 0; or nothing but 0."""
    if kind == "none":
        return {}
    weights = draw.positive(n)
    weights[:: 3 if kind == "drawn" else 1] = 0
    return {"weights": weights}


def _weighted(
    name: str,
    tag: str,
    *shape: int,
    weights: str = "none",
    std: float = 1.0,
    special: tuple[float, ...] = (),
    smoothing: float = 0.0,
    threshold: float = 1.0,
) -> None:
    """Every loss of the section: those over classes with two axes, those that need weights where there are some."""

    def output(draw: Draw) -> Array:
        x = draw.normal(*shape, std=std)
        x.flat[: len(special)] = special
        return x

    def regression(draw: Draw) -> Arguments:
        return {"prediction": output(draw), "target": draw.normal(*shape), **_weights(draw, shape[0], weights)}

    def labelled(draw: Draw) -> Arguments:
        own = {"logits": output(draw), "labels": draw.labels(*shape), "smoothing": smoothing}
        return own | _weights(draw, shape[0], weights)

    def soft(draw: Draw) -> Arguments:
        target = draw.positive(*shape)
        target[:, ::2] = 0
        return {"logits": output(draw), "target": target, **_weights(draw, shape[0], weights)}

    def binary(draw: Draw) -> Arguments:
        target = draw.positive(*shape) / 2
        target.flat[::3] = 0
        target.flat[1::3] = 1
        return {"logits": output(draw), "target": target, **_weights(draw, shape[0], weights)}

    if weights != "none":
        _case("weighted_mse", name, tag, regression)
        if len(shape) == 2:
            _case("weighted_cross_entropy", name, tag, labelled)
    if len(shape) == 2:
        _case("soft_cross_entropy", name, tag, soft)
    _case("binary_cross_entropy", name, tag, binary)
    _case("huber", name, tag, lambda draw: regression(draw) | {"threshold": threshold})
    _case("mae", name, tag, regression)


_weighted("small", "small", 5, 4)
_weighted("weights", "small", 7, 5, weights="drawn", smoothing=0.1, threshold=0.5)
_weighted("image", "edge", 3, 5, 7, 2, weights="drawn", threshold=2.0)
_weighted("one-value", "edge", 1, 1)
_weighted("odd", "edge", 5, 17, weights="drawn", smoothing=0.3)
_weighted("weightless", "edge", 3, 4, weights="zero")
_weighted("far", "edge", 6, 5, weights="drawn", std=200.0)
_weighted("nan-inf", "edge", 5, 3, special=(np.nan, 1.0, 2.0, np.inf, 0.5, 0.25, -np.inf))
_weighted("nan-weights", "edge", 6, 3, weights="drawn", special=(np.nan, np.inf, -np.inf, np.nan))
_weighted("classes-b128", "bench", 128, 10, weights="drawn")
_weighted("autoencoder-b128", "bench", 128, 784)


# Clipping ------------------------------------------------------------------------------------------------------


def _clipping(name: str, tag: str, n: int, limit: float, special: tuple[float, ...] = ()) -> None:
    def build(draw: Draw) -> Arguments:
        g = draw.normal(n)
        g[: len(special)] = special
        return {"g": g, "limit": limit}

    _case("clip_norm", name, tag, build)


_clipping("small", "small", 12, 0.75)
_clipping("within", "edge", 5, 1000.0)
_clipping("odd", "edge", 4113, 1.5)
_clipping("one-value", "edge", 1, 0.25)
_clipping("large", "edge", 6, 2.0, special=(2.0**100, -(2.0**100)))
_clipping("nan", "edge", 6, 0.5, special=(np.nan,))
_clipping("infinite", "edge", 6, 0.5, special=(np.inf, -np.inf))
_clipping("cnn-bn", "bench", _CNN_BN, 1.0)


# Powers of two arrays ------------------------------------------------------------------------------------------


def _powers(name: str, tag: str, a: tuple[int, ...], b: tuple[int, ...], pairs: bool = False) -> None:
    """Of positive numbers to any exponent; with `pairs` of special numbers, each to each."""

    def operands(draw: Draw) -> Arguments:
        base, exponent = draw.positive(*a), draw.normal(*b)
        if pairs:
            base[...], exponent[...] = np.reshape(_BASES, (-1, 1)), _EXPONENTS
        return {"a": base, "b": exponent}

    def gradient(draw: Draw) -> Arguments:
        return {"dy": draw.normal(*np.broadcast_shapes(a, b)), **operands(draw)}

    _case("raise_to_power", name, tag, operands)
    _case("raise_to_power_backward", name, tag, gradient)


_BASES = (np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.75)
_EXPONENTS = (np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 2.0, -2.0, 3.0, -3.0, 0.5, -1.5)

_powers("equal", "small", (3, 4, 5), (3, 4, 5))
_powers("by-channel", "small", (2, 4, 3, 5), (5,))
_powers("special", "edge", (11, 13), (11, 13), pairs=True)
_powers("special-repeated", "edge", (11, 1), (13,), pairs=True)
_powers("both-repeated", "edge", (2, 3, 1, 4), (2, 1, 5, 4))
_powers("eight-axes", "edge", (1, 2, 1, 2, 1, 2, 1, 2), (2, 1, 2, 1, 2, 1, 2, 1))
_powers("blocks", "edge", (3, 61, 71), (3, 1, 71))
_powers("one-value-each", "edge", (1, 1), (1, 1))
_powers("by-channel-b64", "bench", (64, 28, 28, 16), (16,))
_powers("equal-b64", "bench", (64, 14, 14, 32), (64, 14, 14, 32))
