"""Every bad call of the facade gives one typed error that names the kernel and the argument."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import kernels
from benchmarks.suite.cases import select
from kernels import Kernels, shapes
from kernels.interface import Fused, kernel_names, roles

from ..support.conformance import TWINS
from ..support.every import every

F32 = np.float32


def a(*shape: int, dtype: Any = F32) -> np.ndarray:
    return np.ones(shape, dtype)


def read_only(*shape: int) -> np.ndarray:
    array = a(*shape)
    array.flags.writeable = False
    return array


X, W, B = a(2, 6, 6, 3), a(3, 3, 3, 4), a(4)
BACKWARD = [name for name in kernel_names() if list(roles(name))[:3] == ["dy", "x", "y"] and "softmax" not in name]
ELEMENTWISE = {*BACKWARD, *(name.removesuffix("_backward") for name in BACKWARD), "ema_update", "add", "add_backward"}
ELEMENTWISE |= {"dropout", "dropout_backward", "sgd", "rmsprop", "adam", "clip_norm"}
T = a(3, 3, 4, 3)
VECTOR, LABELS = a(5), np.zeros(2, np.int64)
NAN = float("nan")

# What the message begins with, for each bad call.
BadCalls = list[tuple[Callable[[Kernels], Any], str]]

TYPE_ERRORS: BadCalls = [
    (lambda k: k.relu([1.0]), "relu: x is a list"),
    (lambda k: k.relu(1.0), "relu: x is a float"),
    (lambda k: k.linear(a(2, 3), None), "linear: w is a NoneType"),
    (lambda k: k.relu(a(3, dtype=np.int64)), "relu: x has dtype int64"),
    (lambda k: k.tanh(a(3, dtype=np.float16)), "tanh: x has dtype float16"),
    (lambda k: k.tanh(a(3, dtype=np.complex64)), "tanh: x has dtype complex64"),
    (lambda k: k.tanh(a(3, dtype=object)), "tanh: x has dtype object"),
    (lambda k: k.silu(a(3, dtype=">f4")), "silu: x has dtype >f4"),
    (lambda k: k.linear(a(2, 3), a(3, 4, dtype=np.float64)), "linear: w has dtype float64, x has float32"),
    (lambda k: k.conv2d(X, W, a(4, dtype=np.float64)), "conv2d: b has dtype float64"),
    (lambda k: k.softmax_cross_entropy(a(2, 3), a(2)), "softmax_cross_entropy: labels have dtype float32"),
    (lambda k: k.softmax_cross_entropy(a(2, 3), np.ones(2, bool)), "softmax_cross_entropy: labels have dtype bool"),
    (lambda k: k.softmax_cross_entropy(a(2, 3), [0, 1]), "softmax_cross_entropy: labels have type list"),
    (lambda k: k.rmsprop(a(5), a(5), None, 0.1), "rmsprop: v is"),
    (lambda k: k.adam(a(5), a(5), None, a(5), 1, 0.1), "adam: m is"),
    (lambda k: k.adam(a(5), a(5), a(5), a(5, dtype=np.float64), 1, 0.1), "adam: v has dtype float64"),
]

VALUE_ERRORS: BadCalls = [
    # Arrays
    (lambda k: k.linear(a(3, 2).T, a(3, 4)), "linear: x is not C-contiguous"),
    (lambda k: k.relu(a(8)[::2]), "relu: x is not C-contiguous"),
    (lambda k: k.relu(np.frombuffer(bytes(13), F32, 3, offset=1)), "relu: x does not start at a multiple"),
    (lambda k: k.linear(a(0, 3), a(3, 4)), "linear: x has an empty batch"),
    (lambda k: k.linear(a(2, 0), a(0, 4)), "linear: x has an empty axis"),
    # Linear
    (lambda k: k.linear(a(2, 3, 1), a(3, 4)), "linear: x has shape (2, 3, 1)"),
    (lambda k: k.linear(a(2, 3), a(3)), "linear: w has shape (3,)"),
    (lambda k: k.linear(a(2, 3), a(5, 4)), "linear: w has 5 inputs, x has 3"),
    (lambda k: k.linear(a(2, 3), a(3, 4), a(3)), "linear: b has shape (3,), expected (4,)"),
    (lambda k: k.linear_backward(a(2, 5), a(2, 3), a(3, 4)), "linear_backward: dy has shape (2, 5)"),
    (lambda k: k.linear_backward(a(1, 4), a(2, 3), a(3, 4)), "linear_backward: dy has shape"),
    # Convolution
    (lambda k: k.conv2d(a(6, 6, 3), W), "conv2d: x has shape (6, 6, 3)"),
    (lambda k: k.conv2d(X, a(3, 3, 3)), "conv2d: w has shape (3, 3, 3)"),
    (lambda k: k.conv2d(X, a(3, 3, 2, 4)), "conv2d: w has 2 input channels, x has 3"),
    (lambda k: k.conv2d(X, W, a(3)), "conv2d: b has shape (3,), expected (4,)"),
    (lambda k: k.conv2d(X, W, groups=2), "conv2d: groups is 2"),
    (lambda k: k.conv2d(a(1, 4, 4, 4), a(1, 1, 4, 4), groups=2), "conv2d: w has 4 input channels times 2 groups"),
    (lambda k: k.conv2d(X, W, groups=0), "conv2d: groups is 0"),
    (lambda k: k.conv2d(X, a(7, 3, 3, 4)), "conv2d: w (7, 3, 3, 4)"),
    (lambda k: k.conv2d(X, W, dilation=3), "conv2d: w (3, 3, 3, 4) with dilation (3, 3)"),
    (lambda k: k.conv2d(X, W, stride=0), "conv2d: stride is 0"),
    (lambda k: k.conv2d(X, W, stride=1.5), "conv2d: stride is 1.5"),
    (lambda k: k.conv2d(X, W, stride=(1, 1, 1)), "conv2d: stride is (1, 1, 1)"),
    (lambda k: k.conv2d(X, W, padding=-1), "conv2d: padding is -1"),
    (
        lambda k: k.conv2d(X, W, padding="valid"),
        "conv2d: padding is 'valid', expected an int, an (h, w) pair or",
    ),
    (lambda k: k.conv2d(X, W, padding=((1, 1), (1, -1))), "conv2d: padding is ((1, 1), (1, -1))"),
    (lambda k: k.conv2d(X, W, padding=(1, (1, 1))), "conv2d: padding is (1, (1, 1))"),
    (lambda k: k.conv2d(X, W, padding=((1, 1, 1), (1, 1))), "conv2d: padding is ((1, 1, 1), (1, 1))"),
    (lambda k: k.conv2d(X, W, padding=((1, 1), (1, 1), (1, 1))), "conv2d: padding is ((1, 1), (1, 1), (1, 1))"),
    (lambda k: k.conv2d(X, W, padding=1.0), "conv2d: padding is 1.0"),
    (
        lambda k: k.conv2d(X, a(9, 9, 3, 4), padding=((1, 0), (1, 1))),
        "conv2d: w (9, 9, 3, 4) with dilation (1, 1)",
    ),
    (
        lambda k: k.conv2d(X, W, stride=10**10),
        "conv2d: stride is 10000000000, expected an int or an (h, w)",
    ),
    (lambda k: k.conv2d(X, W, dilation=2**31), "conv2d: dilation is 2147483648"),
    (lambda k: k.conv2d(X, W, padding=2**31), "conv2d: padding is 2147483648"),
    (lambda k: k.conv2d(X, W, dilation=(1, 0)), "conv2d: dilation is (1, 0)"),
    (lambda k: k.conv2d(X, W, stride=True), "conv2d: stride is True"),
    (
        lambda k: k.conv2d_backward(a(2, 6, 6, 4), X, W),
        "conv2d_backward: dy has shape (2, 6, 6, 4), expected (2, 4, 4, 4)",
    ),
    (lambda k: k.conv2d_backward(a(2, 4, 4, 4), X, a(3, 3, 1, 4)), "conv2d_backward: w has 1 input channels, x has 3"),
    # Transposed convolution
    (lambda k: k.convtranspose2d(a(6, 6, 3), T), "convtranspose2d: x has shape (6, 6, 3)"),
    (lambda k: k.convtranspose2d(X, a(3, 3, 3)), "convtranspose2d: w has shape (3, 3, 3)"),
    (lambda k: k.convtranspose2d(X, W), "convtranspose2d: w has 4 input channels, x has 3"),
    (lambda k: k.convtranspose2d(X, T, a(3)), "convtranspose2d: b has shape (3,), expected (4,)"),
    (lambda k: k.convtranspose2d(X, T, a(4), groups=3), "convtranspose2d: b has shape (4,), expected (12,)"),
    (lambda k: k.convtranspose2d(X, T, groups=2), "convtranspose2d: groups is 2"),
    (
        lambda k: k.convtranspose2d(X, T, padding="same"),
        "convtranspose2d: padding is 'same', expected an int",
    ),
    (lambda k: k.convtranspose2d(X, T, padding=4), "convtranspose2d: padding (4, 4) leaves nothing of x (2, 6, 6, 3)"),
    (
        lambda k: k.convtranspose2d(X, T, stride=2, output_padding=2),
        "convtranspose2d: output_padding is (2, 2)",
    ),
    (lambda k: k.convtranspose2d(X, T, output_padding=-1), "convtranspose2d: output_padding is -1"),
    (lambda k: k.convtranspose2d(X, T, stride=0), "convtranspose2d: stride is 0"),
    (
        lambda k: k.convtranspose2d_backward(a(2, 6, 6, 4), X, T),
        "convtranspose2d_backward: dy has shape (2, 6, 6, 4), expected (2, 8, 8, 4)",
    ),
    # Pooling
    (lambda k: k.maxpool2d(a(4, 4, 3)), "maxpool2d: x has shape (4, 4, 3)"),
    (lambda k: k.maxpool2d(X, 0), "maxpool2d: size is 0"),
    (lambda k: k.maxpool2d(X, 7), "maxpool2d: size (7, 7) does not fit into x"),
    (lambda k: k.maxpool2d(X, 2, padding=2), "maxpool2d: padding is (2, 2), expected less than size"),
    (
        lambda k: k.maxpool2d(X, 2, padding=((0, 0), (0, 2))),
        "maxpool2d: padding is ((0, 0), (0, 2)), expected",
    ),
    (
        lambda k: k.maxpool2d(X, 2, padding=4, dilation=3),
        "maxpool2d: padding is (4, 4), expected less than size (2,",
    ),
    (
        lambda k: k.maxpool2d(a(1, 1, 9, 1), 2, padding=1, dilation=2),
        "maxpool2d: dilation (2, 2) with padding (1, 1) leaves windows of x (1, 1, 9, 1) empty: a window needs a pixel",
    ),
    (lambda k: k.avgpool2d(X, 2, dilation=0), "avgpool2d: dilation is 0"),
    (lambda k: k.avgpool2d(X, 2, ceil_mode=1), "avgpool2d: ceil_mode is 1, expected True or False"),
    (lambda k: k.avgpool2d(X, 9, 2, ceil_mode=True), "avgpool2d: size (9, 9) does not fit into x"),
    (lambda k: k.maxpool2d(X, 10**10), "maxpool2d: size is 10000000000"),
    (lambda k: k.avgpool2d(X, 2, stride=0), "avgpool2d: stride is 0"),
    (lambda k: k.avgpool2d(X, 2, padding=(0, 2)), "avgpool2d: padding is (0, 2)"),
    (lambda k: k.avgpool2d_backward(a(2, 2, 3, 3), X.shape), "avgpool2d_backward: dy has shape (2, 2, 3, 3)"),
    (lambda k: k.avgpool2d_backward(a(2, 3, 3, 3), (3, 6, 6, 3)), "avgpool2d_backward: x_shape has shape (3, 6, 6, 3)"),
    (lambda k: k.maxpool2d_backward(a(2, 3, 3, 3), a(2, 3, 3, 3), X.shape), "maxpool2d_backward: argmax is"),
    (
        lambda k: k.maxpool2d_backward(a(2, 3, 3, 3), a(2, 3, 3, 1, dtype=np.uint8), X.shape),
        "maxpool2d_backward: argmax is",
    ),
    (
        lambda k: k.maxpool2d_backward(a(2, 3, 3, 3), 4 * a(2, 3, 3, 3, dtype=np.uint8), X.shape),
        "maxpool2d_backward: argmax holds positions outside",
    ),
    (lambda k: k.maxpool2d_backward(a(2, 3, 3, 3), [0], X.shape), "maxpool2d_backward: argmax is"),
    (
        lambda k: k.maxpool2d_backward(a(1, 3, 3, 1), a(1, 3, 3, 1, dtype=np.uint8), (1, 4, 4, 1), padding=1),
        "maxpool2d_backward: argmax",
    ),
    # Normalisation
    (lambda k: k.batchnorm(a(4), a(4), a(4)), "batchnorm: x has shape (4,)"),
    (lambda k: k.batchnorm(a(2, 3), a(4), a(3)), "batchnorm: gamma has shape (4,), expected (3,)"),
    (lambda k: k.batchnorm(a(2, 3), a(3), a(3, 1)), "batchnorm: beta has shape (3, 1)"),
    (lambda k: k.batchnorm(a(2, 3), a(3), a(3), eps=-1e-5), "batchnorm: eps is -1e-05"),
    (lambda k: k.batchnorm_inference(a(2, 3), a(3), a(3), a(3), a(3), eps=NAN), "batchnorm_inference: eps is nan"),
    (lambda k: k.batchnorm_inference(a(2, 3), a(3), a(3), a(3), a(2)), "batchnorm_inference: var has shape"),
    (lambda k: k.batchnorm_backward(a(3, 3), a(2, 3), a(3), a(3), a(3)), "batchnorm_backward: dy has shape"),
    (
        lambda k: k.batchnorm_inference_backward(a(2, 3), a(2, 3), a(3), a(1), a(3)),
        "batchnorm_inference_backward: mean has shape",
    ),
    (lambda k: k.meannorm(a(2, 3), a(2)), "meannorm: beta has shape (2,)"),
    (lambda k: k.meannorm_inference(a(2, 3), a(3), a(2)), "meannorm_inference: mean has shape (2,)"),
    (lambda k: k.meannorm_backward(a(3)), "meannorm_backward: dy has shape (3,)"),
    (lambda k: k.meannorm_inference_backward(a(3)), "meannorm_inference_backward: dy has shape (3,)"),
    (lambda k: k.ema_update(a(3), a(4), 0.1), "ema_update: value has shape (4,)"),
    (lambda k: k.ema_update(read_only(3), a(3), 0.1), "ema_update: running is read-only"),
    (lambda k: k.ema_update(a(3), a(3), NAN), "ema_update: momentum is nan"),
    # Activations and dropout
    (lambda k: k.relu_backward(a(3), a(4), a(4)), "relu_backward: x has shape (4,), expected (3,)"),
    (lambda k: k.gelu_backward(a(4), a(4), a(3)), "gelu_backward: y has shape (3,)"),
    (lambda k: k.leaky_relu(a(4), NAN), "leaky_relu: negative_slope is nan"),
    (lambda k: k.elu(a(4), "1"), "elu: alpha is '1'"),
    (lambda k: k.clip(a(4), NAN), "clip: low is nan, expected a number or an infinity"),
    (lambda k: k.clip(a(4), 0, "6"), "clip: high is '6'"),
    (lambda k: k.clip_backward(a(4), a(4), a(4), 0, 10**400), "clip_backward: high is 1"),
    (lambda k: k.hard_sigmoid(a(4), float("inf")), "hard_sigmoid: alpha is inf"),
    (lambda k: k.selu(a(4), gamma=None), "selu: gamma is None"),
    (lambda k: k.celu(a(4), 0.0), "celu: alpha is 0.0, expected a finite number > 0"),
    (lambda k: k.power(a(4), NAN), "power: exponent is nan"),
    (lambda k: k.prelu(a(2, 3), a(2)), "prelu: slope has shape (2,), expected (3,) (x (2, 3); or (1,)"),
    (lambda k: k.prelu(a(3), a(1)), "prelu: x has shape (3,), expected a batch axis and a channel axis"),
    (lambda k: k.prelu_backward(a(2, 2), a(2, 3), a(3)), "prelu_backward: dy has shape (2, 2), expected (2, 3)"),
    (lambda k: k.prelu_backward(a(2, 3), a(2, 3), a(3, 1)), "prelu_backward: slope has shape (3, 1)"),
    (lambda k: k.dropout(a(4), 1.0), "dropout: rate is 1.0"),
    (lambda k: k.dropout(a(4), -0.1), "dropout: rate is -0.1"),
    (lambda k: k.dropout_backward(a(4), np.ones(4, bool), 1), "dropout_backward: rate is 1"),
    (lambda k: k.dropout(a(4), 0.5, seed=-1), "dropout: seed is -1"),
    (lambda k: k.dropout(a(4), 0.5, step=0.5), "dropout: step is 0.5"),
    (lambda k: k.dropout_backward(a(4), np.ones(3, bool)), "dropout_backward: mask is"),
    (lambda k: k.dropout_backward(a(4), a(4)), "dropout_backward: mask is"),
    # Losses
    (lambda k: k.softmax_cross_entropy(a(2, 3, 4), LABELS), "softmax_cross_entropy: logits has shape (2, 3, 4)"),
    (lambda k: k.softmax_cross_entropy(a(2, 3), np.array([0, 3])), "softmax_cross_entropy: labels[1] is 3"),
    (lambda k: k.softmax_cross_entropy(a(2, 3), np.array([-1, 0])), "softmax_cross_entropy: labels[0] is -1"),
    (lambda k: k.softmax_cross_entropy(a(2, 3), np.zeros(3, int)), "softmax_cross_entropy: labels have shape (3,)"),
    (
        lambda k: k.softmax_cross_entropy(a(2, 3), np.zeros((2, 3), int)),
        "softmax_cross_entropy: labels have shape (2, 3)",
    ),
    (lambda k: k.softmax_cross_entropy(a(2, 3), LABELS, 1.0), "softmax_cross_entropy: smoothing is 1.0"),
    (lambda k: k.softmax_cross_entropy(a(2, 3), LABELS, -0.1), "softmax_cross_entropy: smoothing is -0.1"),
    (lambda k: k.mse(a(2, 3), a(2, 4)), "mse: target has shape (2, 4), expected (2, 3)"),
    (lambda k: k.mse(a(3), a(3)), "mse: prediction has shape (3,)"),
    (
        lambda k: k.weighted_cross_entropy(a(2, 3), np.array([0, -100]), a(2)),
        "weighted_cross_entropy: labels[1] is -100",
    ),
    (lambda k: k.weighted_cross_entropy(a(2, 3), LABELS, a(3)), "weighted_cross_entropy: weights has shape (3,)"),
    (lambda k: k.weighted_cross_entropy(a(2, 3), LABELS, -a(2)), "weighted_cross_entropy: weights[0] is -1.0"),
    (lambda k: k.soft_cross_entropy(a(2, 3, 4), a(2, 3, 4)), "soft_cross_entropy: logits has shape (2, 3, 4)"),
    (lambda k: k.soft_cross_entropy(a(2, 3), a(2, 4)), "soft_cross_entropy: target has shape (2, 4)"),
    (lambda k: k.binary_cross_entropy(a(2, 3), a(3, 2)), "binary_cross_entropy: target has shape (3, 2)"),
    (lambda k: k.huber(a(2, 3), a(2, 3), threshold=0.0), "huber: threshold is 0.0"),
    (lambda k: k.mae(a(2, 3), a(2, 3), NAN * a(2)), "mae: weights[0] is nan"),
    (lambda k: k.weighted_mse(a(2, 3), a(2, 3), np.inf * a(2)), "weighted_mse: weights[0] is inf"),
    # Joining branches
    (lambda k: k.add(a(2, 3), a(2, 4)), "add: a has shape (2, 3), b has (2, 4)"),
    (lambda k: k.divide(a(2, 3), a(2)), "divide: a has shape (2, 3), b has (2,)"),
    (
        lambda k: k.multiply(a(*[1] * 9), a(1)),
        "multiply: a has shape (1, 1, 1, 1, 1, 1, 1, 1, 1), b has (1,); expected",
    ),
    (lambda k: k.add_backward(a(2, 3), (2, 1), (1, 4)), "add_backward: dy has shape (2, 3), expected (2, 4)"),
    (lambda k: k.subtract_backward(a(2, 3), b_shape=(2,)), "subtract_backward: a has shape (2, 3), b has (2,)"),
    (lambda k: k.multiply_backward(a(2, 3), a(2, 3), a(2, 3, 1)), "multiply_backward: a has shape (2, 3), b has"),
    (lambda k: k.divide_backward(a(2, 3), a(3), a(3)), "divide_backward: dy has shape (2, 3), expected (3,)"),
    (lambda k: k.raise_to_power(a(2, 3), a(2)), "raise_to_power: a has shape (2, 3), b has (2,)"),
    (
        lambda k: k.raise_to_power_backward(a(2), a(3), a(3)),
        "raise_to_power_backward: dy has shape (2,), expected (3,)",
    ),
    (lambda k: k.mean(a(2, 3), 0), "mean: axes is 0, expected an axis from 1 to 1, or from -1 to -1"),
    (lambda k: k.mean(a(2, 3), 2), "mean: axes is 2"),
    (lambda k: k.mean(a(2, 3), ()), "mean: axes is ()"),
    (lambda k: k.mean(a(2, 3, 4), (1, -2)), "mean: axes is (1, -2), expected an axis, or some that differ"),
    (lambda k: k.mean(a(2, 3, 4, 5), (1, 3)), "mean: axes is (1, 3), expected axes side by side"),
    (lambda k: k.mean_backward(a(2, 3), (2, 3, 4), 1), "mean_backward: dy has shape (2, 3), expected (2, 4)"),
    # Cutting and moving
    (lambda k: k.slice(a(2, 3), 0, 1), "slice: axis is 0"),
    (lambda k: k.slice(a(2, 3), 1, 1, 1), "slice: 1:1:1 of axis 1 has no element (x (2, 3))"),
    (lambda k: k.slice(a(2, 3), 1, step=0), "slice: step is 0"),
    (lambda k: k.slice(a(2, 3), 1, 0.5), "slice: start is 0.5"),
    (lambda k: k.slice_backward(a(2, 2), (2, 3), 1, 1, 2), "slice_backward: dy has shape (2, 2), expected (2, 1)"),
    (lambda k: k.transpose(a(2, 3), (0, 0)), "transpose: axes is (0, 0)"),
    (lambda k: k.transpose(a(2, 3), (0, 1, 2)), "transpose: axes is (0, 1, 2)"),
    (lambda k: k.transpose(a(2, 3), "01"), "transpose: axes is '01'"),
    (lambda k: k.transpose(a(*[1] * 9), tuple(range(9))), "transpose: x has 9 axes, expected at most 8"),
    (lambda k: k.pad2d(a(2, 3, 4), 1), "pad2d: x has shape (2, 3, 4)"),
    (lambda k: k.pad2d(X, (1, 2, 3)), "pad2d: padding is (1, 2, 3)"),
    (lambda k: k.pad2d(X, 0.5), "pad2d: padding is 0.5"),
    (lambda k: k.pad2d(X, -3), "pad2d: padding is -3, which leaves nothing"),
    (lambda k: k.pad2d(X, 6, "reflect"), "pad2d: padding is 6, expected less than x's size to reflect"),
    (lambda k: k.pad2d(X, 1, "wrap"), "pad2d: mode is 'wrap', expected one of constant, reflect, edge"),
    (lambda k: k.pad2d(X, 1, value=NAN), "pad2d: value is nan"),
    (lambda k: k.pad2d_backward(X, X.shape, 1), "pad2d_backward: dy has shape (2, 6, 6, 3), expected (2, 8, 8, 3)"),
    (lambda k: k.upsample2d(X, 0), "upsample2d: factor is 0"),
    (lambda k: k.upsample2d(a(2, 3)), "upsample2d: x has shape (2, 3)"),
    (lambda k: k.upsample2d_backward(a(2, 5, 6, 3)), "upsample2d_backward: dy has shape (2, 5, 6, 3), expected"),
    # Normalisation of single samples
    (
        lambda k: k.layernorm(a(2, 3), a(2), a(2)),
        "layernorm: gamma has shape (2,), expected the sizes of last",
    ),
    (lambda k: k.layernorm(a(2, 3), a(2, 3), a(2, 3)), "layernorm: gamma has shape (2, 3)"),
    (lambda k: k.layernorm(a(2, 3), a(3), a(1)), "layernorm: beta has shape (1,)"),
    (lambda k: k.layernorm(a(2, 3), a(3), a(3), -1.0), "layernorm: eps is -1.0"),
    (lambda k: k.layernorm_backward(a(2, 3), a(2, 3), a(3), a(3), a(2)), "layernorm_backward: mean has shape (3,)"),
    (lambda k: k.groupnorm(a(2, 3), a(3), a(3), 2), "groupnorm: groups is 2, expected a divisor of 3 channels"),
    (lambda k: k.groupnorm(a(2, 3), a(3), a(2), 3), "groupnorm: beta has shape (2,)"),
    (lambda k: k.groupnorm(a(2, 3), a(3), a(3), 0), "groupnorm: groups is 0"),
    (lambda k: k.groupnorm_backward(a(2, 3), a(2, 3), a(3), a(2, 3), a(3, 3)), "groupnorm_backward: inv_std has shape"),
    (lambda k: k.groupnorm_backward(a(2, 3), a(2, 3), a(3), a(2), a(2)), "groupnorm_backward: mean has shape (2,)"),
    (lambda k: k.local_response_norm(a(2, 3), 0), "local_response_norm: size is 0"),
    (lambda k: k.local_response_norm(a(2, 3), 3, bias=0.0), "local_response_norm: bias is 0.0"),
    (lambda k: k.local_response_norm(a(3), 3), "local_response_norm: x has shape (3,)"),
    (
        lambda k: k.local_response_norm_backward(a(2, 3), a(2, 3), a(2, 4), 3),
        "local_response_norm_backward: scale has shape (2, 4)",
    ),
    (lambda k: k.concat(a(2, 3), a(3, 3)), "concat: a has shape (2, 3), b has (3, 3)"),
    (lambda k: k.concat(a(2, 3), a(2, 3), fourth=a(3, 3)), "concat: a has shape (2, 3), fourth has (3, 3)"),
    (lambda k: k.concat_backward(a(2, 3), 3), "concat_backward: split is 3"),
    (lambda k: k.concat_backward(a(2, 3), 0), "concat_backward: split is 0"),
    # Optimizers
    (lambda k: k.sgd(read_only(5), VECTOR, None, 0.1), "sgd: p is read-only"),
    (lambda k: k.adam(a(5), VECTOR, a(5), read_only(5), 1, 0.1), "adam: v is read-only"),
    (lambda k: k.sgd(a(5), a(4), None, 0.1), "sgd: g has shape (4,)"),
    (lambda k: k.clip_norm(read_only(5), 1.0), "clip_norm: g is read-only"),
    (lambda k: k.clip_norm(a(5), -1.0), "clip_norm: limit is -1.0"),
    (lambda k: k.rmsprop(a(5), a(5), a(4), 0.1), "rmsprop: v has shape (4,)"),
    (lambda k: k.sgd(a(5), a(5), None, 0.1, momentum=0.9), "sgd: v is None"),
    (lambda k: k.sgd(a(5), a(5), None, NAN), "sgd: learning_rate is nan"),
    (lambda k: k.adam(a(5), a(5), a(5), a(5), 1, float("inf")), "adam: learning_rate is inf"),
    (lambda k: k.rmsprop(a(5), a(5), a(5), "fast"), "rmsprop: learning_rate is 'fast'"),
    (lambda k: k.sgd(a(5), a(5), a(5), 0.1, momentum=1.0), "sgd: momentum is 1.0"),
    (lambda k: k.sgd(a(5), a(5), None, 0.1, weight_decay=-1.0), "sgd: weight_decay is -1.0"),
    (lambda k: k.adam(a(5), a(5), a(5), a(5), 0, 0.1), "adam: step is 0"),
    (lambda k: k.adam(a(5), a(5), a(5), a(5), 1, 0.1, beta1=1.0), "adam: beta1 is 1.0"),
    (lambda k: k.adamw(a(5), a(5), a(5), a(5), 1, 0.1, beta2=-0.1), "adam: beta2 is -0.1"),
    (lambda k: k.rmsprop(a(5), a(5), a(5), 0.1, eps=-1.0), "rmsprop: eps is -1.0"),
    (lambda k: k.rmsprop(a(5), a(5), a(5), 0.1, rho=1.5), "rmsprop: rho is 1.5"),
]


def name(value: Any) -> str | None:
    """A test's name: the kernel and the argument that its message must name."""
    return re.sub(r"\W+", "-", " ".join(value.split(" ")[:2])) if isinstance(value, str) else ""


def refused(call: Callable[[Kernels], Any], error: type[Exception], message: str) -> None:
    """On each backend by this error, whose message begins so."""

    def check(k: Kernels) -> None:
        with pytest.raises(error, match=f"^{re.escape(message)}"):
            call(k)

    every(TWINS, check)


@pytest.mark.parametrize(("call", "message"), TYPE_ERRORS, ids=name)
def test_type_error(call: Callable[[Kernels], Any], message: str) -> None:
    refused(call, TypeError, message)


@pytest.mark.parametrize(("call", "message"), VALUE_ERRORS, ids=name)
def test_value_error(call: Callable[[Kernels], Any], message: str) -> None:
    refused(call, ValueError, message)


def test_the_message_shows_both_shapes(k: Kernels) -> None:
    expected = "conv2d: w has 3 input channels, x has 1 (x (64, 28, 28, 1), w (5, 5, 3, 16))"
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        k.conv2d(a(64, 28, 28, 1), a(5, 5, 3, 16))


def test_unknown_backend_lists_the_names() -> None:
    with pytest.raises(ValueError, match="unknown backend 'cuda'; expected one of numpy, numba"):
        kernels.get("cuda")


CALLS_BY_NAME: list[Callable[[Kernels, Any], Any]] = [
    lambda k, name: k.function(name),
    lambda k, name: k.scratch_size(name, None, 1),
    lambda k, name: k.fold_size(name, None),
    lambda k, name: roles(name),
]


@pytest.mark.parametrize("call", CALLS_BY_NAME, ids=["function", "scratch_size", "fold_size", "roles"])
def test_an_unknown_kernel_is_answered_with_those_alike(k: Kernels, call: Callable[[Kernels, Any], Any]) -> None:
    with pytest.raises(ValueError, match=re.escape("unknown kernel 'conv3d'; did you mean 'conv2d'")):
        call(k, "conv3d")
    with pytest.raises(ValueError, match=r"^unknown kernel 'countcorrect'; did you mean 'count_correct'\?$"):
        call(k, "countcorrect")
    with pytest.raises(ValueError, match=re.escape("unknown kernel 'xyz'; kernels.kernel_names() lists those")):
        call(k, "xyz")


def test_a_function_is_no_name(k: Kernels) -> None:
    with pytest.raises(TypeError, match=r"^kernel is a function, expected a name or a kernels\.Kernel$"):
        roles(k.function("relu"))  # type: ignore[arg-type]


def test_what_a_backend_lacks_is_named(k: Kernels) -> None:
    with pytest.raises(ValueError, match=f"^the {k.name} backend has no relu_scratch$"):
        k.scratch_size("relu", None, 1)
    with pytest.raises(ValueError, match=f"^the {k.name} backend has no relu_fold_size$"):
        k.fold_size("relu", None)
    for kernel in kernel_names(Fused):
        if not k.has(kernel):
            with pytest.raises(ValueError, match=f"^the {k.name} backend has no {kernel}$"):
                k.function(kernel)


def test_a_module_of_the_backend_is_no_kernel(k: Kernels) -> None:
    assert k.has("conv2d")
    assert hasattr(k.backend, "activation")
    assert not k.has("activation")
    with pytest.raises(ValueError, match="unknown kernel 'activation'"):
        k.function("activation")


@pytest.mark.parametrize("n", [0, -1, 1.5, True, "2", None])
def test_set_threads_wants_a_positive_int(n: Any) -> None:
    with pytest.raises(ValueError, match="set_threads: n is"):
        kernels.set_threads(n)


@pytest.mark.parametrize("kernel", kernels.kernel_names())
def test_an_empty_batch_is_refused(kernel: str) -> None:
    case = select(kernel, "small")[0]
    arguments = {
        name: value[:0] if isinstance(value, np.ndarray) else value for name, value in case.arguments().items()
    }

    def check(k: Kernels) -> None:
        with pytest.raises(ValueError, match=f"^{kernel}: .* has an empty"):
            case.call(k, arguments)

    every(TWINS, check)


@pytest.mark.parametrize("kernel", kernels.kernel_names())
def test_every_array_argument_is_checked(kernel: str) -> None:
    """Each array in turn as a list, in another dtype, and strided: an error that names it."""
    every(TWINS, lambda k: checks_every_array(k, kernel))


def checks_every_array(k: Kernels, kernel: str) -> None:
    case = select(kernel, "small")[0]
    for name, value in case.arguments().items():
        if not isinstance(value, np.ndarray) or value.dtype.kind != "f":
            continue
        bad: list[tuple[Any, type[Exception]]] = [
            (value.tolist(), TypeError),
            (value.astype(np.float16), TypeError),
            (np.repeat(value, 2, axis=-1)[..., ::2], ValueError),
        ]
        for argument, error in bad:
            with pytest.raises(error, match=f"^{kernel}: {name} "):
                case.call(k, {**case.arguments(), name: argument})


def refusal(call: Callable[[], Any]) -> str:
    """The message of the ValueError that a call ends in, "" if it does not."""
    try:
        call()
    except ValueError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("kernel", kernels.kernel_names())
def test_arrays_without_axes_are_elements_or_refused(kernel: str) -> None:
    """A kernel that wants an axis says so in one line; of any other, the result is that of one element."""
    every(TWINS, lambda k: takes_or_refuses_elements(k, kernel))


def takes_or_refuses_elements(k: Kernels, kernel: str) -> None:
    case = select(kernel, "small")[0]

    def outcome(shape: tuple[int, ...]) -> Any:
        arguments = {
            name: value.reshape(-1)[:1].reshape(shape).copy() if isinstance(value, np.ndarray) else value
            for name, value in case.arguments().items()
        }
        results = case.call(k, arguments)
        updated = [value for value in arguments.values() if isinstance(value, np.ndarray)]
        return [*(results if isinstance(results, tuple) else [results] if results is not None else []), *updated]

    if refused := refusal(lambda: outcome(())):
        assert kernel not in ELEMENTWISE
        assert re.match(rf"{kernel}: \w+ (has|is) [^\n]*expected [^\n]*$", refused)
        return
    for one, other in zip(outcome(()), outcome((1,)), strict=True):
        assert one.shape in ((), other.shape)
        assert one.tobytes() == other.tobytes()


def test_any_integer_labels_will_do(k: Kernels) -> None:
    logits = np.random.default_rng(0).standard_normal((4, 3))
    expected, _ = k.softmax_cross_entropy(logits, np.array([0, 2, 1, 0]))
    for dtype in (np.uint8, np.int32, np.uint64, ">i2"):
        loss, _ = k.softmax_cross_entropy(logits, np.array([0, 2, 1, 0], dtype))
        assert float(loss) == float(expected)
    strided = np.array([0, 9, 2, 9, 1, 9, 0, 9])[::2]
    assert float(k.softmax_cross_entropy(logits, strided)[0]) == float(expected)


def test_read_only_inputs_will_do(k: Kernels) -> None:
    y = k.linear(read_only(2, 3), read_only(3, 4), read_only(4))
    np.testing.assert_array_equal(y, np.full((2, 4), 4.0))
    np.testing.assert_array_equal(k.relu(read_only(3)), np.ones(3))


def test_results_are_new_aligned_arrays_of_the_inputs_dtype(k: Kernels) -> None:
    for dtype in (np.float32, np.float64):
        x = a(3, 5, dtype=dtype)
        y = k.relu(x)
        assert not np.shares_memory(x, y)
        assert y.dtype == dtype
        assert y.ctypes.data % 64 == 0
        assert y.flags.c_contiguous
        assert y.flags.writeable


def test_the_loss_is_a_0_d_value(k: Kernels) -> None:
    for loss, gradient in (k.softmax_cross_entropy(a(2, 3), LABELS), k.mse(a(2, 3), a(2, 3))):
        assert np.shape(loss) == ()
        assert loss.dtype == F32
        assert gradient.shape == (2, 3)


def test_ints_pairs_and_numpy_ints_mean_the_same(k: Kernels) -> None:
    x, w = np.random.default_rng(0).standard_normal((1, 7, 7, 2)), np.ones((3, 3, 2, 2))
    expected = k.conv2d(x, w, stride=2, padding=1)
    for stride, padding in (((2, 2), (1, 1)), ([2, 2], [1, 1]), (np.int64(2), np.uint8(1))):
        np.testing.assert_array_equal(k.conv2d(x, w, stride=stride, padding=padding), expected)


def test_symbolic_batch_size() -> None:
    d = shapes.conv2d(("N", 28, 28, 1), (5, 5, 1, 16), (16,))
    assert (d.oh, d.ow, d.f) == (24, 24, 16)
    with pytest.raises(ValueError, match=re.escape("x (N, 28, 28, 1)")):
        shapes.conv2d(("N", 28, 28, 1), (5, 5, 3, 16), None)


def test_its_name_is_in_print(k: Kernels) -> None:
    assert repr(k) == f"<Kernels {k.name}>"
