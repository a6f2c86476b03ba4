"""Whole numbers leave nothing to rounding: contractions, their adjoints and pools must then agree to the last bit."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import assume, example, given, settings

import kernels
from kernels import Kernels, shapes

from ..support import naive

ORACLE = Kernels("naive", naive)

PAIRS = st.tuples(st.integers(1, 3), st.integers(1, 3))
BORDERS = st.tuples(*[st.tuples(st.integers(0, 3), st.integers(0, 3))] * 2)
DTYPES = st.sampled_from([np.float32, np.float64])


def whole(rng: np.random.Generator, dtype: Any, *shape: int) -> np.ndarray:
    return rng.integers(-3, 4, shape).astype(dtype)


def dot(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.sum(a.astype(np.float64) * b))


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]:
    """Shapes of x and w, and the options: any geometry that fits."""
    groups = draw(st.integers(1, 3))
    c, f = groups * draw(st.integers(1, 3)), groups * draw(st.integers(1, 4))
    x = (draw(st.integers(1, 3)), draw(st.integers(1, 8)), draw(st.integers(1, 8)), c)
    w = (*draw(PAIRS), c // groups, f)
    options = {
        "stride": draw(PAIRS),
        "padding": draw(BORDERS | st.sampled_from(shapes.SAME)),
        "dilation": draw(PAIRS),
        "groups": groups,
    }
    if options["padding"] not in shapes.SAME:
        for size, kernel, border, dilation in zip(x[1:3], w[:2], options["padding"], options["dilation"], strict=True):
            assume(size + sum(border) >= dilation * (kernel - 1) + 1)
    return x, w, options


@st.composite
def transposed(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]:
    """Shapes of x and w, and the options of a transposed convolution."""
    groups = draw(st.integers(1, 3))
    c, outputs = groups * draw(st.integers(1, 3)), draw(st.integers(1, 4))
    x = (draw(st.integers(1, 3)), draw(st.integers(1, 5)), draw(st.integers(1, 5)), c)
    w = (*draw(PAIRS), outputs, c)
    stride, dilation, padding = draw(PAIRS), draw(PAIRS), draw(BORDERS)
    more = tuple(draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True))
    for axis in range(2):
        size = (x[1 + axis] - 1) * stride[axis] + dilation[axis] * (w[axis] - 1) + 1 + more[axis]
        assume(size > sum(padding[axis]))
    options = {"stride": stride, "padding": padding, "output_padding": more, "dilation": dilation, "groups": groups}
    return x, w, options


@st.composite
def pools(draw: st.DrawFn) -> tuple[tuple[int, ...], dict[str, Any]]:
    """Shape of x and the options: any geometry that fits."""
    x = (draw(st.integers(1, 3)), draw(st.integers(1, 8)), draw(st.integers(1, 8)), draw(st.integers(1, 5)))
    size = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    dilation = draw(st.just((1, 1)) | PAIRS)
    most = [d * (side - 1) for d, side in zip(dilation, size, strict=True)]
    padding = tuple(tuple(draw(st.integers(0, most[axis])) for _ in range(2)) for axis in range(2))
    options = {"size": size, "stride": draw(st.none() | PAIRS), "padding": padding, "dilation": dilation}
    options["ceil_mode"] = draw(st.booleans())
    try:
        shapes.pool2d(x, kernel="pool", **options)
    except ValueError:
        assume(False)
    return x, options


@given(geometry=convolutions(), bias=st.booleans(), dtype=DTYPES, seed=st.integers(0, 99))
def test_convolution_is_exact_and_adjoint(k: Kernels, geometry: Any, bias: bool, dtype: Any, seed: int) -> None:
    x_shape, w_shape, options = geometry
    rng = np.random.default_rng(seed)
    x, w = whole(rng, dtype, *x_shape), whole(rng, dtype, *w_shape)
    b = whole(rng, dtype, w_shape[-1]) if bias else None
    y = k.conv2d(x, w, b, **options)
    np.testing.assert_array_equal(y, ORACLE.conv2d(x, w, b, **options))
    dy = whole(rng, dtype, *y.shape)
    gradients = k.conv2d_backward(dy, x, w, **options)
    for got, expected in zip(gradients, ORACLE.conv2d_backward(dy, x, w, **options), strict=True):
        np.testing.assert_array_equal(got, expected)
    dx, dw, db = gradients
    linear_part = y - b if bias else y
    assert dot(linear_part, dy) == dot(x, dx) == dot(w, dw)
    assert dot(np.ones_like(y), dy) == db.sum()


@given(geometry=transposed(), bias=st.booleans(), dtype=DTYPES, seed=st.integers(0, 99))
def test_transposed_convolution_is_exact_and_adjoint(
    k: Kernels, geometry: Any, bias: bool, dtype: Any, seed: int
) -> None:
    x_shape, w_shape, options = geometry
    rng = np.random.default_rng(seed)
    x, w = whole(rng, dtype, *x_shape), whole(rng, dtype, *w_shape)
    b = whole(rng, dtype, w_shape[2] * options["groups"]) if bias else None
    y = k.convtranspose2d(x, w, b, **options)
    np.testing.assert_array_equal(y, ORACLE.convtranspose2d(x, w, b, **options))
    dy = whole(rng, dtype, *y.shape)
    gradients = k.convtranspose2d_backward(dy, x, w, **options)
    for got, expected in zip(gradients, ORACLE.convtranspose2d_backward(dy, x, w, **options), strict=True):
        np.testing.assert_array_equal(got, expected)
    dx, dw, db = gradients
    linear_part = y - b if bias else y
    assert dot(linear_part, dy) == dot(x, dx) == dot(w, dw)
    assert dot(np.ones_like(y), dy) == db.sum()


@given(
    n=st.integers(1, 9),
    size=st.tuples(st.integers(5, 13), st.integers(5, 13)),
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    channels=st.sampled_from([1, 2, 3, 8, 16, 19]),
    filters=st.sampled_from([1, 4, 10, 16, 17, 24, 33]),
    stride=st.integers(1, 2),
    padding=BORDERS,
    dtype=DTYPES,
)
def test_larger_convolutions_equal_numpys_to_the_last_bit(
    k: Kernels,
    n: int,
    size: tuple[int, int],
    kernel: tuple[int, int],
    channels: int,
    filters: int,
    stride: int,
    padding: Any,
    dtype: Any,
) -> None:
    """Sizes that fill a block of rows, channels or filters and leave a rest; too large for scalar loops."""
    rng = np.random.default_rng(n)
    x, w, b = (
        whole(rng, dtype, n, *size, channels),
        whole(rng, dtype, *kernel, channels, filters),
        whole(rng, dtype, filters),
    )
    definition = kernels.get("numpy")
    y = k.conv2d(x, w, b, stride, padding)
    np.testing.assert_array_equal(y, definition.conv2d(x, w, b, stride, padding))
    dy = whole(rng, dtype, *y.shape)
    gradients = k.conv2d_backward(dy, x, w, stride, padding)
    for got, expected in zip(gradients, definition.conv2d_backward(dy, x, w, stride, padding), strict=True):
        np.testing.assert_array_equal(got, expected)
    assert dot(y - b, dy) == dot(x, gradients[0]) == dot(w, gradients[1])
    # The same convolution backwards. What its last windows do not reach is the transposed one's output padding.
    sides = zip(size, kernel, padding, strict=True)
    options = (stride, padding, tuple((length + sum(border) - side) % stride for length, side, border in sides))
    np.testing.assert_array_equal(k.convtranspose2d(dy, w, None, *options), gradients[0])
    dy_back, dw, _ = k.convtranspose2d_backward(x, dy, w, *options)
    np.testing.assert_array_equal(dy_back, y - b)
    np.testing.assert_array_equal(dw, gradients[1])


@given(
    n=st.integers(1, 70),
    inputs=st.integers(1, 130),
    outputs=st.integers(1, 70),
    dtype=DTYPES,
    seed=st.integers(0, 99),
)
def test_linear_is_exact_and_adjoint(k: Kernels, n: int, inputs: int, outputs: int, dtype: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, w, b = whole(rng, dtype, n, inputs), whole(rng, dtype, inputs, outputs), whole(rng, dtype, outputs)
    dy = whole(rng, dtype, n, outputs)
    np.testing.assert_array_equal(k.linear(x, w, b), x @ w + b)
    y = k.linear(x, w)
    np.testing.assert_array_equal(y, x @ w)
    dx, dw, db = k.linear_backward(dy, x, w)
    np.testing.assert_array_equal(dx, dy @ w.T)
    np.testing.assert_array_equal(dw, x.T @ dy)
    np.testing.assert_array_equal(db, dy.sum(axis=0))
    assert dot(y, dy) == dot(x, dx) == dot(w, dw)


# As many window rows as image rows, of which the padding takes some: the last ones belong to no window.
GAP = (1, 3, 3, 1), {"size": 3, "stride": None, "padding": 1}


@given(geometry=pools(), nans=st.booleans(), dtype=DTYPES, seed=st.integers(0, 99))
@example(geometry=GAP, nans=False, dtype=np.float32, seed=0)
def test_max_pooling_is_exact(k: Kernels, geometry: Any, nans: bool, dtype: Any, seed: int) -> None:
    x_shape, options = geometry
    rng = np.random.default_rng(seed)
    x = whole(rng, dtype, *x_shape)
    if nans:
        x[rng.random(x_shape) < 0.1] = np.nan
        x[rng.random(x_shape) < 0.1] = -np.inf
    y, argmax = k.maxpool2d(x, **options)
    expected, expected_argmax = ORACLE.maxpool2d(x, **options)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(argmax, expected_argmax)
    dy = whole(rng, dtype, *y.shape)
    dx = k.maxpool2d_backward(dy, argmax, x.shape, **options)
    np.testing.assert_array_equal(dx, ORACLE.maxpool2d_backward(dy, argmax, x.shape, **options))
    if np.isfinite(x).all():
        assert dot(y, dy) == dot(x, dx)


@given(geometry=pools(), count=st.booleans(), seed=st.integers(0, 99))
@example(geometry=GAP, count=False, seed=0)
def test_average_pooling_agrees(k: Kernels, geometry: Any, count: bool, seed: int) -> None:
    x_shape, options = geometry
    rng = np.random.default_rng(seed)
    x = whole(rng, np.float64, *x_shape)
    y = k.avgpool2d(x, **options, count_include_pad=count)
    np.testing.assert_allclose(y, ORACLE.avgpool2d(x, **options, count_include_pad=count), rtol=1e-15, atol=1e-15)
    dy = whole(rng, np.float64, *y.shape)
    dx = k.avgpool2d_backward(dy, x.shape, **options, count_include_pad=count)
    expected = ORACLE.avgpool2d_backward(dy, x.shape, **options, count_include_pad=count)
    np.testing.assert_allclose(dx, expected, rtol=1e-14, atol=1e-14)
    np.testing.assert_allclose(dot(y, dy), dot(x, dx), rtol=1e-12, atol=1e-12)


@given(
    shape=st.lists(st.integers(1, 5), min_size=2, max_size=5).map(tuple),
    offset=st.sampled_from([0.0, 10.0]),
    seed=st.integers(0, 99),
)
def test_normalisation_agrees_on_any_number_of_axes(
    k: Kernels, shape: tuple[int, ...], offset: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    x, dy = rng.standard_normal(shape) + offset, rng.standard_normal(shape)
    gamma, beta = rng.standard_normal((2, shape[-1]))
    forward = k.batchnorm(x, gamma, beta), ORACLE.batchnorm(x, gamma, beta)
    # Of one value a channel nothing is left but rounding, which 1 / sqrt(eps) magnifies.
    for got, expected in zip(*forward, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-11, atol=1e-11)
    _, mean, inv_std = forward[1]
    backward = [oracle.batchnorm_backward(dy, x, gamma, mean, inv_std) for oracle in (k, ORACLE)]
    for got, expected in zip(*backward, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-11, atol=1e-11 * max(1.0, float(inv_std.max())))
    for got, expected in zip(k.meannorm(x, beta), ORACLE.meannorm(x, beta), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-13, atol=1e-13)
    for got, expected in zip(k.meannorm_backward(dy), ORACLE.meannorm_backward(dy), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("large", [2**63 - 1, 2**63, 2**64 - 1, 2**64 + 5])
def test_counters_of_any_length_are_taken_after_short_ones(k: Kernels, large: int) -> None:
    x = np.ones(50, np.float32)
    for seed, step in ((0, 0), (0, large), (large, 0), (large, large)):
        mask = k.dropout(x, 0.5, seed, step)[1]
        np.testing.assert_array_equal(mask, kernels.get("numpy").dropout(x, 0.5, seed % 2**64, step % 2**64)[1])
        drawn = k.uniform(np.arange(3), (4,), seed, step)
        np.testing.assert_array_equal(drawn, kernels.get("numpy").uniform(np.arange(3), (4,), seed, step))


@given(
    shape=st.lists(st.integers(1, 20), min_size=1, max_size=4).map(tuple),
    rate=st.floats(0.0, 0.999),
    seed=st.integers(0, 2**63),
    step=st.integers(0, 2**32),
)
def test_dropout_masks_agree(k: Kernels, shape: tuple[int, ...], rate: float, seed: int, step: int) -> None:
    x = np.ones(shape, np.float32)
    y, mask = k.dropout(x, rate, seed, step)
    _, expected = ORACLE.dropout(x, rate, seed, step)
    np.testing.assert_array_equal(mask, expected)
    np.testing.assert_array_equal(y != 0, mask)


def test_dropout_keeps_the_share_it_says(k: Kernels) -> None:
    n, rate = 100_000, 0.3
    kept = int(k.dropout(np.ones(n, np.float32), rate, seed=1)[1].sum())
    assert abs(kept - n * (1 - rate)) < 5 * np.sqrt(n * rate * (1 - rate))


def test_dropout_masks_depend_on_seed_and_step_alone(k: Kernels) -> None:
    x = np.ones((8, 50), np.float32)
    _, mask = k.dropout(x, 0.5, seed=1, step=0)
    np.testing.assert_array_equal(k.dropout(x.reshape(-1) * 3, 0.5, seed=1, step=0)[1], mask.reshape(-1))
    np.testing.assert_array_equal(k.dropout(x[:3], 0.5, seed=1, step=0)[1], mask[:3])
    for seed, step in ((2, 0), (1, 1), (0, 1), (0, 0)):
        assert (k.dropout(x, 0.5, seed, step)[1] != mask).mean() > 0.3


@given(geometry=convolutions())
def test_macs_count_the_products_with_real_pixels(geometry: Any) -> None:
    x, w, options = geometry
    d = shapes.conv2d(x, w, None, **options)
    assert d.macs == sum(1 for _ in naive._products(d))


FEW = settings(max_examples=40)
SIZES = st.lists(st.integers(1, 4), min_size=1, max_size=5)


@FEW
@given(sizes=SIZES, narrow=st.tuples(*[st.integers(0, 31)] * 2), short=st.integers(0, 4), dtype=DTYPES)
def test_arithmetic_is_numpys_and_its_gradients_are_sums(
    k: Kernels, sizes: list[int], narrow: tuple[int, int], short: int, dtype: Any
) -> None:
    """Any axes repeated, of either array, and axes that the second lacks."""
    rng = np.random.default_rng(0)
    a_shape, b_shape = (tuple(1 if bits >> i & 1 else n for i, n in enumerate(sizes)) for bits in narrow)
    a, b = whole(rng, dtype, *a_shape), 2.0 ** whole(rng, dtype, *b_shape[min(short, len(sizes) - 1) :])
    b = b.astype(dtype)
    dy = whole(rng, dtype, *np.broadcast_shapes(a.shape, b.shape))
    for kernel in ("add", "subtract", "multiply", "divide"):
        np.testing.assert_array_equal(getattr(k, kernel)(a, b), getattr(np, kernel)(a, b))
    of = {
        "add": (k.add_backward(dy, a.shape, b.shape), (dy, dy)),
        "subtract": (k.subtract_backward(dy, a.shape, b.shape), (dy, -dy)),
        "multiply": (k.multiply_backward(dy, a, b), (dy * b, dy * a)),
        "divide": (k.divide_backward(dy, a, b), (dy / b, -dy * a / b / b)),
    }
    for gradients, terms in of.values():
        for gradient, each, array in zip(gradients, terms, (a, b), strict=True):
            own = (1,) * (dy.ndim - array.ndim) + array.shape
            axes = tuple(axis for axis, size in enumerate(own) if size != dy.shape[axis])
            np.testing.assert_array_equal(gradient, each.sum(axis=axes).reshape(array.shape))


@FEW
@given(sizes=SIZES, data=st.data(), dtype=DTYPES)
def test_what_moves_numbers_moves_them_where_numpy_does(
    k: Kernels, sizes: list[int], data: st.DataObject, dtype: Any
) -> None:
    x = np.arange(2 * np.prod(sizes), dtype=dtype).reshape(2, *sizes)
    order = tuple(data.draw(st.permutations(range(x.ndim))))
    y = k.transpose(x, order)
    np.testing.assert_array_equal(y, x.transpose(order))
    np.testing.assert_array_equal(k.transpose(y, [order.index(axis) for axis in range(x.ndim)]), x)
    axis = data.draw(st.integers(1, x.ndim - 1))
    part = data.draw(st.slices(x.shape[axis]))
    kept = np.moveaxis(np.moveaxis(x, axis, 0)[part], 0, axis)
    assume(kept.size)
    along = axis, part.start, part.stop, 1 if part.step is None else part.step
    np.testing.assert_array_equal(k.slice(x, *along), kept)
    dx = k.slice_backward(np.ascontiguousarray(kept), x.shape, *along)
    np.testing.assert_array_equal(dx, np.where(np.isin(x, kept), x, 0))
    np.testing.assert_allclose(k.mean(x, axis), x.mean(axis), rtol=1e-6)


@given(
    size=PAIRS, sides=st.tuples(*[st.integers(0, 2)] * 4), mode=st.sampled_from(shapes.PAD_MODES), c=st.integers(1, 3)
)
def test_padding_is_numpys_and_its_gradient_the_adjoint(
    k: Kernels, size: tuple[int, int], sides: tuple[int, ...], mode: str, c: int
) -> None:
    if mode == "reflect":
        assume(all(max(ends) < n for n, ends in zip(size, (sides[:2], sides[2:]), strict=True)))
    rng = np.random.default_rng(0)
    x, padding = whole(rng, np.float32, 2, *size, c), (sides[:2], sides[2:])
    y = k.pad2d(x, padding, mode)
    np.testing.assert_array_equal(y, np.pad(x, ((0, 0), *padding, (0, 0)), mode))
    dy = whole(rng, np.float32, *y.shape)
    assert dot(y, dy) == dot(x, k.pad2d_backward(dy, x.shape, padding, mode))
    larger = k.upsample2d(x, sides[0] + 1)
    np.testing.assert_array_equal(larger, x.repeat(sides[0] + 1, 1).repeat(sides[0] + 1, 2))
    dy = whole(rng, np.float32, *larger.shape)
    assert dot(larger, dy) == dot(x, k.upsample2d_backward(dy, sides[0] + 1))


def test_linear_maps_are_self_consistent(k: Kernels) -> None:
    """Adjoint identities of the linear kernels that have no weights."""
    rng = np.random.default_rng(0)
    x, dy = rng.standard_normal((2, 6, 3, 4))
    mean_free = k.meannorm(x, np.zeros(4))[0]
    assert dot(mean_free, dy) == pytest.approx(dot(x, k.meannorm_backward(dy)[0]), rel=1e-12)
    given = {"gamma": rng.standard_normal(4), "mean": np.zeros(4), "var": rng.random(4) + 0.5}
    y = k.batchnorm_inference(x, beta=np.zeros(4), **given)
    dx, dgamma, _ = k.batchnorm_inference_backward(dy, x, **given)
    assert dot(y, dy) == pytest.approx(dot(x, dx), rel=1e-12)
    assert dot(y, dy) == pytest.approx(dot(given["gamma"], dgamma), rel=1e-12)
    y, mask = k.dropout(x, 0.25, seed=3)
    assert dot(y, dy) == pytest.approx(dot(x, k.dropout_backward(dy, mask, 0.25)), rel=1e-12)
    joined = k.concat(x, dy)
    da, db = k.concat_backward(joined, 4)
    np.testing.assert_array_equal(da, x)
    np.testing.assert_array_equal(db, dy)
