"""Gradients against central differences, every coordinate of every input, in float64."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

import kernels
from kernels import Kernels, shapes

from ..support.conformance import TWINS
from ..support.every import every

Arrays = dict[str, np.ndarray]

STEP = float(np.finfo(np.float64).eps) ** (1 / 3)
"""Where the truncation error h² and the rounding error eps / h of a central difference are about equal."""

TOLERANCE = 100 * STEP**2


@dataclass(frozen=True)
class Differentiable:
    """A function of named arrays and the gradients that a kernel claims for it."""

    name: str
    kernel: str
    inputs: Arrays
    forward: Callable[..., Any]
    backward: Callable[..., Any]
    gradients: tuple[str, ...] = field(default=("x",))


BROADCAST = ("add", "subtract", "multiply", "divide", "raise_to_power")
"""Kernels of two arrays that broadcast."""


def values(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def distinct(*shape: int) -> np.ndarray:
    """Numbers at least 0.1 apart and none nearer to 0 than 0.05: no step crosses a kink or a tie."""
    size = int(np.prod(shape))
    return (np.random.default_rng(3).permutation(size) - size // 2 + 0.5).reshape(shape) / 10.0


def _contractions() -> Iterator[Differentiable]:
    yield Differentiable(
        "linear",
        "linear_backward",
        {"x": values(3, 4), "w": values(4, 5, seed=1), "b": values(5, seed=2)},
        lambda k, x, w, b: k.linear(x, w, b),
        lambda k, dy, x, w, b: k.linear_backward(dy, x, w),
        ("x", "w", "b"),
    )
    geometries: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
        "plain": ((2, 4, 5, 2), (3, 2, 2, 3), {}),
        "padding": ((2, 3, 4, 1), (3, 3, 1, 2), {"padding": 1}),
        "stride": ((1, 6, 5, 2), (3, 3, 2, 2), {"stride": 2, "padding": (1, 0)}),
        "dilation": ((1, 6, 5, 1), (2, 2, 1, 3), {"dilation": (3, 2)}),
        "groups": ((2, 3, 3, 4), (2, 2, 2, 4), {"groups": 2}),
        "depthwise": ((1, 4, 4, 3), (3, 3, 1, 3), {"groups": 3, "padding": 1, "stride": 2}),
        "uneven-borders": ((1, 4, 5, 2), (3, 2, 2, 2), {"padding": ((0, 2), (1, 0)), "stride": 2}),
    }
    for name, (x, w, options) in geometries.items():
        yield Differentiable(
            f"conv2d-{name}",
            "conv2d_backward",
            {"x": values(*x), "w": values(*w, seed=1), "b": values(w[-1], seed=2)},
            lambda k, x, w, b, o=options: k.conv2d(x, w, b, **o),
            lambda k, dy, x, w, b, o=options: k.conv2d_backward(dy, x, w, **o),
            ("x", "w", "b"),
        )

    geometries = {
        "plain": ((2, 3, 3, 2), (3, 2, 3, 2), {}),
        "stride": ((1, 3, 4, 2), (2, 3, 2, 2), {"stride": 2, "padding": ((1, 0), (0, 1)), "output_padding": (1, 0)}),
        "groups": ((2, 2, 3, 4), (2, 2, 3, 4), {"groups": 2, "dilation": 2}),
        "depthwise": ((1, 3, 3, 3), (3, 3, 1, 3), {"groups": 3, "padding": 1, "stride": 2, "output_padding": 1}),
    }
    for name, (x, w, options) in geometries.items():
        yield Differentiable(
            f"convtranspose2d-{name}",
            "convtranspose2d_backward",
            {"x": values(*x), "w": values(*w, seed=1), "b": values(w[2] * options.get("groups", 1), seed=2)},
            lambda k, x, w, b, o=options: k.convtranspose2d(x, w, b, **o),
            lambda k, dy, x, w, b, o=options: k.convtranspose2d_backward(dy, x, w, **o),
            ("x", "w", "b"),
        )


def _pools() -> Iterator[Differentiable]:
    geometries: dict[str, dict[str, Any]] = {
        "plain": {},
        "overlapping": {"size": 3, "stride": 2, "padding": 1},
        "gaps": {"size": (1, 2), "stride": (2, 3)},
        "ceil": {"size": 3, "stride": 2, "padding": ((1, 0), (0, 0)), "ceil_mode": True},
        "dilation": {"size": (2, 3), "stride": 1, "padding": (1, 0), "dilation": (3, 2)},
    }
    x = distinct(2, 5, 6, 2)
    for name, options in geometries.items():
        yield Differentiable(
            f"maxpool2d-{name}",
            "maxpool2d_backward",
            {"x": x},
            lambda k, x, o=options: k.maxpool2d(x, **o)[0],
            lambda k, dy, x, o=options: k.maxpool2d_backward(dy, k.maxpool2d(x, **o)[1], x.shape, **o),
        )
        for count in (True, False):
            every = {**options, "count_include_pad": count}
            yield Differentiable(
                f"avgpool2d-{name}-{'all' if count else 'real'}-pixels",
                "avgpool2d_backward",
                {"x": x},
                lambda k, x, o=every: k.avgpool2d(x, **o),
                lambda k, dy, x, o=every: k.avgpool2d_backward(dy, x.shape, **o),
            )


def _norms() -> Iterator[Differentiable]:
    for shape in ((5, 3), (2, 3, 2, 2)):
        c = shape[-1]
        x, gamma, beta = values(*shape), values(c, seed=1), values(c, seed=2)
        given = {"mean": values(c, seed=4), "var": np.abs(values(c, seed=5)) + 0.5}
        yield Differentiable(
            f"batchnorm-{len(shape)}d",
            "batchnorm_backward",
            {"x": x, "gamma": gamma, "beta": beta},
            lambda k, x, gamma, beta: k.batchnorm(x, gamma, beta)[0],
            lambda k, dy, x, gamma, beta: k.batchnorm_backward(dy, x, gamma, *k.batchnorm(x, gamma, beta)[1:]),
            ("x", "gamma", "beta"),
        )
        yield Differentiable(
            f"batchnorm_inference-{len(shape)}d",
            "batchnorm_inference_backward",
            {"x": x, "gamma": gamma, "beta": beta},
            lambda k, x, gamma, beta, s=given: k.batchnorm_inference(x, gamma, beta, **s),
            lambda k, dy, x, gamma, beta, s=given: k.batchnorm_inference_backward(dy, x, gamma, **s),
            ("x", "gamma", "beta"),
        )
        yield Differentiable(
            f"meannorm-{len(shape)}d",
            "meannorm_backward",
            {"x": x, "beta": beta},
            lambda k, x, beta: k.meannorm(x, beta)[0],
            lambda k, dy, x, beta: k.meannorm_backward(dy),
            ("x", "beta"),
        )
        yield Differentiable(
            f"meannorm_inference-{len(shape)}d",
            "meannorm_inference_backward",
            {"x": x, "beta": beta},
            lambda k, x, beta, s=given: k.meannorm_inference(x, beta, s["mean"]),
            lambda k, dy, x, beta: k.meannorm_inference_backward(dy),
            ("x", "beta"),
        )


def _sample_norms() -> Iterator[Differentiable]:
    x = values(2, 3, 2, 4)
    for name, shape in (("channels", (4,)), ("sample", (3, 2, 4))):
        yield Differentiable(
            f"layernorm-{name}",
            "layernorm_backward",
            {"x": x, "gamma": values(*shape, seed=1), "beta": values(*shape, seed=2)},
            lambda k, x, gamma, beta: k.layernorm(x, gamma, beta)[0],
            lambda k, dy, x, gamma, beta: k.layernorm_backward(dy, x, gamma, *k.layernorm(x, gamma, beta)[1:]),
            ("x", "gamma", "beta"),
        )
    for groups in (1, 2, 4):
        yield Differentiable(
            f"groupnorm-{groups}",
            "groupnorm_backward",
            {"x": x, "gamma": values(4, seed=1), "beta": values(4, seed=2)},
            lambda k, x, gamma, beta, g=groups: k.groupnorm(x, gamma, beta, g)[0],
            lambda k, dy, x, gamma, beta, g=groups: k.groupnorm_backward(
                dy, x, gamma, *k.groupnorm(x, gamma, beta, g)[1:]
            ),
            ("x", "gamma", "beta"),
        )
    for size, beta in ((3, 0.75), (4, 0.5), (5, 1.3)):
        options = {"size": size, "alpha": 0.7, "beta": beta}
        yield Differentiable(
            f"local_response_norm-{size}",
            "local_response_norm_backward",
            {"x": values(2, 2, 6)},
            lambda k, x, o=options: k.local_response_norm(x, **o)[0],
            lambda k, dy, x, o=options: k.local_response_norm_backward(dy, x, k.local_response_norm(x, **o)[1], **o),
        )


def _activations() -> Iterator[Differentiable]:
    x = distinct(4, 13)
    options: dict[str, dict[str, float]] = {
        "leaky_relu": {"negative_slope": 0.2},
        "elu": {"alpha": 0.7},
        "clip": {"low": -1.02, "high": 1.51},
        "hard_sigmoid": {"alpha": 0.31, "beta": 0.4},
        "celu": {"alpha": 0.7},
        "thresholded_relu": {"alpha": 0.52},
        "power": {"exponent": 3.0},
    }
    positive: dict[str, dict[str, float]] = {"log": {}, "sqrt": {}, "power": {"exponent": -1.7}}
    activations = ("relu", "leaky_relu", "elu", "gelu", "silu", "sigmoid", "tanh", "softplus", "clip", "hard_sigmoid")
    activations += ("hard_swish", "mish", "selu", "celu", "gelu_tanh", "softsign", "thresholded_relu")
    functions = ("exp", "absolute", "negative", "power", "erf")
    checks = [(name, x, options.get(name, {})) for name in (*activations, *functions)]
    checks += [(name, np.abs(x) + 0.5, own) for name, own in positive.items()]
    checks += [("reciprocal", x + np.copysign(0.5, x), {})]
    for kernel, x, own in checks:
        yield Differentiable(
            f"{kernel}{own.get('exponent', '')}",
            f"{kernel}_backward",
            {"x": x},
            lambda k, x, name=kernel, o=own: getattr(k, name)(x, **o),
            lambda k, dy, x, name=kernel, o=own: getattr(k, f"{name}_backward")(dy, x, getattr(k, name)(x, **o), **o),
        )
    for kernel in ("softmax", "log_softmax"):
        yield Differentiable(
            kernel,
            f"{kernel}_backward",
            {"x": values(2, 3, 4)},
            lambda k, x, name=kernel: getattr(k, name)(x),
            lambda k, dy, x, name=kernel: getattr(k, f"{name}_backward")(dy, x, getattr(k, name)(x)),
        )
    for shape in ((3, 4), (2, 3, 2, 2)):
        for slopes in (shape[-1], 1):
            yield Differentiable(
                f"prelu-{len(shape)}d-{slopes}",
                "prelu_backward",
                {"x": distinct(*shape), "slope": values(slopes, seed=1)},
                lambda k, x, slope: k.prelu(x, slope),
                lambda k, dy, x, slope: k.prelu_backward(dy, x, slope),
                ("x", "slope"),
            )
    yield Differentiable(
        "dropout",
        "dropout_backward",
        {"x": values(4, 5)},
        lambda k, x: k.dropout(x, 0.3, seed=7)[0],
        lambda k, dy, x: k.dropout_backward(dy, k.dropout(x, 0.3, seed=7)[1], 0.3),
    )


def _losses_and_joins() -> Iterator[Differentiable]:
    labels = np.array([0, 3, 1, 3, 2])
    for smoothing in (0.0, 0.1, 0.5):
        yield Differentiable(
            f"softmax_cross_entropy-smoothing-{smoothing}",
            "softmax_cross_entropy",
            {"logits": values(5, 4)},
            lambda k, logits, s=smoothing: k.softmax_cross_entropy(logits, labels, s)[0],
            lambda k, dy, logits, s=smoothing: dy * k.softmax_cross_entropy(logits, labels, s)[1],
            ("logits",),
        )
    yield Differentiable(
        "mse",
        "mse",
        {"prediction": values(3, 2, 2)},
        lambda k, prediction: k.mse(prediction, values(3, 2, 2, seed=1))[0],
        lambda k, dy, prediction: dy * k.mse(prediction, values(3, 2, 2, seed=1))[1],
        ("prediction",),
    )
    weights = np.array([0.5, 0.0, 2.0, 1.5, 1.0])
    target = np.abs(values(5, 4, seed=1)) % 1.0
    for name, own in (("plain", None), ("weights", weights)):
        for kernel, first in (
            ("soft_cross_entropy", "logits"),
            ("binary_cross_entropy", "logits"),
            ("huber", "prediction"),
            ("mae", "prediction"),
            ("weighted_mse", "prediction"),
            ("weighted_cross_entropy", "logits"),
        ):
            if own is None and kernel.startswith("weighted"):
                continue
            wanted = labels if kernel == "weighted_cross_entropy" else target
            yield Differentiable(
                f"{kernel}-{name}",
                kernel,
                {first: values(5, 4)},
                lambda k, kernel=kernel, wanted=wanted, own=own, **x: getattr(k, kernel)(*x.values(), wanted, own)[0],
                lambda k, dy, kernel=kernel, wanted=wanted, own=own, **x: (
                    dy * getattr(k, kernel)(*x.values(), wanted, own)[1]
                ),
                (first,),
            )
    repeated = {"equal": ((3, 4), (3, 4)), "repeated": ((2, 1, 3, 2), (2, 3, 1, 2)), "parameter": ((3, 2, 3), (3,))}
    for (name, (a, b)), kernel in itertools.product(repeated.items(), BROADCAST):
        operands = {"a": values(*a), "b": 1.5 + np.abs(values(*b, seed=1))}
        if kernel == "raise_to_power":
            operands = {"a": 0.5 + np.abs(values(*a)), "b": values(*b, seed=1)}
        by_shape = kernel in ("add", "subtract")
        yield Differentiable(
            f"{kernel}-{name}",
            f"{kernel}_backward",
            operands,
            lambda k, a, b, kernel=kernel: getattr(k, kernel)(a, b),
            lambda k, dy, a, b, kernel=kernel, by_shape=by_shape: getattr(k, f"{kernel}_backward")(
                dy, *((a.shape, b.shape) if by_shape else (a, b))
            ),
            ("a", "b"),
        )
    yield Differentiable(
        "mean",
        "mean_backward",
        {"x": values(2, 3, 2, 3)},
        lambda k, x: k.mean(x, (1, 2)),
        lambda k, dy, x: k.mean_backward(dy, x.shape, (1, 2)),
    )
    yield Differentiable(
        "slice",
        "slice_backward",
        {"x": values(2, 5, 3)},
        lambda k, x: k.slice(x, 1, 4, 0, -2),
        lambda k, dy, x: k.slice_backward(dy, x.shape, 1, 4, 0, -2),
    )
    for mode in shapes.PAD_MODES:
        yield Differentiable(
            f"pad2d-{mode}",
            "pad2d_backward",
            {"x": values(2, 3, 4, 2)},
            lambda k, x, mode=mode: k.pad2d(x, ((2, 1), (-1, 3)), mode, *((0.5,) if mode == "constant" else ())),
            lambda k, dy, x, mode=mode: k.pad2d_backward(dy, x.shape, ((2, 1), (-1, 3)), mode),
        )
    yield Differentiable(
        "upsample2d",
        "upsample2d_backward",
        {"x": values(2, 2, 3, 2)},
        lambda k, x: k.upsample2d(x, (2, 3)),
        lambda k, dy, x: k.upsample2d_backward(dy, (2, 3)),
    )
    yield Differentiable(
        "concat",
        "concat_backward",
        {"a": values(2, 3, 4), "b": values(2, 3, 2, seed=1)},
        lambda k, a, b: k.concat(a, b),
        lambda k, dy, a, b: k.concat_backward(dy, 4),
        ("a", "b"),
    )


CHECKS = [*_contractions(), *_pools(), *_norms(), *_sample_norms(), *_activations(), *_losses_and_joins()]


def central_differences(function: Callable[[], float], x: np.ndarray) -> np.ndarray:
    """The gradient of `function` by every coordinate of x, which is moved in place and put back."""
    gradient = np.empty_like(x)
    for index in np.ndindex(x.shape):
        middle = x[index]
        x[index] = middle + STEP
        above = function()
        x[index] = middle - STEP
        below = function()
        x[index] = middle
        gradient[index] = (above - below) / (2 * STEP)
    return gradient


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_gradient_equals_central_differences(check: Differentiable) -> None:
    every(TWINS, lambda k: equals_central_differences(k, check))


def equals_central_differences(k: Kernels, check: Differentiable) -> None:
    inputs = {name: array.copy() for name, array in check.inputs.items()}
    y = check.forward(k, **inputs)
    dy = values(*np.shape(y), seed=9)
    claimed = check.backward(k, dy, **inputs)
    claimed = claimed if isinstance(claimed, tuple) else (claimed,)
    assert len(claimed) == len(check.gradients)
    for name, gradient in zip(check.gradients, claimed, strict=True):
        expected = central_differences(lambda: float(np.sum(check.forward(k, **inputs) * dy)), inputs[name])
        np.testing.assert_allclose(
            gradient, expected, rtol=TOLERANCE, atol=TOLERANCE * np.abs(expected).max(), err_msg=name
        )


def test_every_gradient_is_checked() -> None:
    losses = {"softmax_cross_entropy", "mse", "weighted_cross_entropy", "soft_cross_entropy", "binary_cross_entropy"}
    losses |= {"huber", "mae", "weighted_mse"}
    backward = {name for name in kernels.kernel_names() if name.endswith("_backward")}
    assert {check.kernel for check in CHECKS} == backward | losses
