"""Where windows lie: borders, windows beyond the image, and sizes far larger than all there is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kernels import Kernels, shapes

from ..support import naive

ORACLE = Kernels("naive", naive)
LINE = np.arange(1.0, 7.0).reshape(1, 1, 6, 1)  # 1 2 3 4 5 6


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "dilation", "expected"),
    [
        (5, 3, 1, 1, (1, 1)),
        (5, 2, 1, 1, (0, 1)),
        (5, 4, 1, 1, (1, 2)),
        (6, 3, 2, 1, (0, 1)),
        (5, 3, 2, 1, (1, 1)),
        (7, 2, 2, 1, (0, 1)),
        (6, 1, 2, 1, (0, 0)),
        (6, 2, 3, 1, (0, 0)),
        (5, 3, 1, 2, (2, 2)),
        (1, 5, 9, 3, (6, 6)),
    ],
)
def test_same_makes_as_many_windows_as_strides_begin(
    size: int, kernel: int, stride: int, dilation: int, expected: tuple[int, int]
) -> None:
    reached = shapes.reach(kernel, dilation)
    for word, border in ("same", expected), ("same_lower", expected[::-1]):
        _, columns = shapes.borders("conv2d", word, (1, size), (1, reached), (1, stride))
        assert columns == border
        assert shapes.output_size(size, kernel, stride, columns, dilation) == -(-size // stride)


# By hand, from the definition; PyTorch and ONNX Runtime say the same where they have such windows.
# Settings along a line -> maxima; means over the padding too; means over real pixels.
Row = tuple[dict[str, Any], list[float], list[float], list[float]]
POOLED: dict[str, Row] = {
    "floor": ({"size": 4, "stride": 3}, [4], [2.5], [2.5]),
    "ceil": ({"size": 4, "stride": 3, "ceil_mode": True}, [4, 6], [2.5, 5], [2.5, 5]),
    "ceil, padding": (
        {"size": 4, "stride": 3, "padding": (1, 1), "ceil_mode": True},
        [3, 6, 6],
        [6 / 4, 18 / 4, 6 / 2],
        [2, 18 / 4, 6],
    ),
    "begins in the padding": (
        {"size": 2, "stride": 2, "padding": (1, 1), "ceil_mode": True},
        [1, 3, 5, 6],
        [0.5, 2.5, 4.5, 3],
        [1, 2.5, 4.5, 6],
    ),
    "begins after the image": ({"size": 2, "stride": 7, "padding": (1, 1), "ceil_mode": True}, [1], [0.5], [1]),
    "larger than the image": ({"size": 8, "stride": 3, "ceil_mode": True}, [6], [3.5], [3.5]),
    "uneven": ({"size": 3, "stride": 2, "padding": (0, 1)}, [3, 5, 6], [2, 4, 11 / 3], [2, 4, 5.5]),
    "same": ({"size": 3, "stride": 2, "padding": "same"}, [3, 5, 6], [2, 4, 11 / 3], [2, 4, 5.5]),
    "same_lower": ({"size": 3, "stride": 2, "padding": "same_lower"}, [2, 4, 6], [1, 3, 5], [1.5, 3, 5]),
    "dilation": (
        {"size": 3, "stride": 1, "dilation": 2, "padding": (1, 1)},
        [4, 5, 6, 5],
        [2, 3, 4, 8 / 3],
        [3, 3, 4, 4],
    ),
    "dilation, ceil": ({"size": 2, "stride": 3, "dilation": 3, "ceil_mode": True}, [4, 4], [2.5, 4], [2.5, 4]),
}
NEUTRAL = {"padding": (0, 0)}


@pytest.mark.parametrize("name", POOLED)
def test_windows_are_those_of_the_table(k: Kernels, name: str) -> None:
    line, maxima, padded, real = POOLED[name]

    def image(down: bool) -> tuple[np.ndarray, dict[str, Any]]:
        """The line as a row or a column, and its settings with those of the other axis."""

        def both(key: str, value: Any) -> Any:
            if key == "ceil_mode" or isinstance(value, str):
                return value
            pair = (NEUTRAL.get(key, 1), value)
            return pair[::-1] if down else pair

        shape = (1, 6, 1, 1) if down else (1, 1, 6, 1)
        return LINE.reshape(shape), {key: both(key, value) for key, value in line.items()}

    for x, options in map(image, (False, True)):
        np.testing.assert_array_equal(k.maxpool2d(x, **options)[0].ravel(), maxima)
        np.testing.assert_allclose(k.avgpool2d(x, **options).ravel(), padded, rtol=1e-15)
        np.testing.assert_allclose(k.avgpool2d(x, **options, count_include_pad=False).ravel(), real, rtol=1e-15)


def test_padding_is_no_term_of_a_sum(k: Kernels) -> None:
    """Neither a filter's NaN nor a gradient's meets it, in any of the ways that a size is computed."""
    w = np.ones((3, 3, 1, 1))
    w[0, 0] = np.nan
    assert k.conv2d(np.ones((1, 1, 1, 1)), w, padding=1).item() == 1.0
    for c, f, groups in (1, 1, 1), (3, 20, 1), (9, 4, 1), (4, 4, 4), (4, 6, 2):
        x, w, dy = np.ones((3, 5, 6, c)), np.ones((3, 3, c // groups, f)), np.ones((3, 5, 6, f))
        w[0], dy[0, 0, 0] = np.inf, np.nan
        assert np.isfinite(k.conv2d(x, w, padding=1, groups=groups)).sum() == 3 * 6 * f
        dw = k.conv2d_backward(dy, x, w, padding=1, groups=groups)[1]
        assert np.isnan(dw[1:, 1:]).all()
        assert np.isfinite(dw[0]).all()
        assert np.isfinite(dw[:, 0]).all()
        turned = np.ascontiguousarray(w.reshape(3, 3, c // groups, groups, f // groups).transpose(0, 1, 4, 3, 2))
        turned = turned.reshape(3, 3, f // groups, c)
        dw = k.convtranspose2d_backward(x, dy, np.ascontiguousarray(w), padding=1, groups=groups)[1]
        assert np.isfinite(dw[0]).all()
        assert np.isnan(dw[1:, 1:]).all()
        dx = k.convtranspose2d_backward(np.ones((3, 5, 6, f)), x, turned, padding=1, groups=groups)[0]
        assert np.isfinite(dx).sum() == 3 * 6 * c


FAR = 10**9
BEYOND: dict[str, dict[str, Any]] = {
    "stride": {"stride": 2 * FAR},
    "stride, padding": {"stride": FAR, "padding": ((FAR, 0), (2, FAR))},
    "dilation": {"dilation": (FAR, 1), "padding": (FAR, 1)},
    "all": {"dilation": FAR, "padding": FAR, "stride": FAR},
}


@pytest.mark.parametrize("name", BEYOND)
def test_work_follows_what_exists_in_a_convolution(k: Kernels, name: str) -> None:
    rng, options = np.random.default_rng(0), BEYOND[name]
    x, w = rng.integers(-3, 4, (2, 5, 4, 3)).astype(float), rng.integers(-3, 4, (3, 2, 3, 4)).astype(float)
    y = k.conv2d(x, w, **options)
    np.testing.assert_array_equal(y, ORACLE.conv2d(x, w, **options))
    for got, expected in zip(
        k.conv2d_backward(y, x, w, **options), ORACLE.conv2d_backward(y, x, w, **options), strict=True
    ):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("size", [(FAR, 1), (5000, 4500), (2 * FAR, 2 * FAR)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_work_follows_what_exists_in_a_pool(k: Kernels, size: tuple[int, int], dtype: type) -> None:
    """And a maximum's place is counted exactly, however many there are in the window."""
    x = np.arange(24, dtype=dtype).reshape(1, 4, 3, 2)
    x[0, 1, 2, 1] = np.nan
    border = tuple((max(0, side - 2), min(1, side - 1)) for side in size)
    options: dict[str, Any] = {"size": size, "padding": border}
    y, argmax = k.maxpool2d(x, **options)
    rows, columns = (min(2, side) if side > 1 else n for side, n in zip(size, (4, 3), strict=True))
    seen = x[0, :rows] if size[1] == 1 else x[0, :rows, :columns]
    assert y.shape[1] == 1
    flat = seen.max(axis=0) if size[1] == 1 else seen.reshape(-1, 2).max(axis=0)
    np.testing.assert_array_equal(y.reshape(flat.shape), flat)
    at = np.argwhere(x[0] == y[0, 0, 0, 0])[0] if size[1] > 1 else np.array([1, 0, 0])
    assert argmax[0, 0, 0, 0] == (border[0][0] + at[0]) * size[1] + border[1][0] + at[1]
    dx = k.maxpool2d_backward(np.ones_like(y), argmax, x.shape, **options)
    assert dx[(0, *at)] == 1
    assert dx.sum() == y.size
    mean = k.avgpool2d(x, **options, count_include_pad=False)
    np.testing.assert_allclose(mean[0, 0, 0, 0], seen[..., 0].mean() if size[1] > 1 else seen[:, 0, 0].mean())
    dx = k.avgpool2d_backward(np.ones_like(y), x.shape, **options, count_include_pad=False)
    assert dx.sum() == pytest.approx(y.size)


def test_what_has_no_room_is_said_by_its_shape(k: Kernels) -> None:
    x, w = np.ones((1, 4, 4, 1)), np.ones((3, 3, 1, 1))
    for call in (
        lambda: k.convtranspose2d(x, w, stride=FAR),
        lambda: k.conv2d(x, w, padding=FAR),
        lambda: k.maxpool2d(x, FAR, 1, FAR - 1),
    ):
        with pytest.raises(
            MemoryError, match=r"^Unable to allocate .* GiB for an array with shape \(1, \d{10}, \d{10}, 1\)"
        ):
            call()


def test_positions_are_counted_in_the_smallest_type_that_holds_them() -> None:
    for size, dtype in (16, np.uint8), (17, np.int32), (2**15, np.int32), (2**16, np.int64):
        d = shapes.pool2d((1, 4, 4, 1), size, None, size - 1, "maxpool2d")
        assert d.argmax_dtype == dtype


def test_layers_of_any_size_lower_and_run(tmp_path: Any) -> None:
    """And come back from a file: borders are tuples of tuples, and words."""
    import models

    layers = [
        models.Conv2d(2, 3, padding="same", stride=2),
        models.ConvTranspose2d(3, 3, padding=((1, 0), (0, 1)), stride=2, output_padding=1),
        models.MaxPool2d(3, 2, ((0, 1), (1, 0)), ceil_mode=True, dilation=(1, 2)),
        models.AvgPool2d(2, padding="same_lower", ceil_mode=True),
        models.MaxPool2d(FAR, FAR, padding=FAR - 1),
    ]
    model = models.Sequential(layers, (9, 8, 1), "numpy")
    model.save(tmp_path / "m.safetensors")
    again = models.load(tmp_path / "m.safetensors", "numpy")
    assert [node.layer for node in again.nodes] == layers
    x = np.random.default_rng(0).standard_normal((3, 9, 8, 1)).astype(np.float32)
    np.testing.assert_array_equal(again.predict(x), model.predict(x))
