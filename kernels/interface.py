"""The contract: every kernel's formula, shapes, tie and NaN rules, once.

A backend is a package with these functions, same names, same parameters, in the same order: all of `Backend` and
`Batches`, and if it likes those of `Fused` and `Programs`. A kernel fills arrays that its caller made and returns
nothing.

* `Input` arrays are never written. `Output` arrays are overwritten in full, never accumulated into, and do not
  overlap inputs. `InPlace` arrays (optimizers, running averages) are updated. Some outputs and the bias may be
  None: then nobody wants them, and nothing is spent on them.
* Arrays are C-contiguous and share one dtype, float32 or float64, labels and indices (int64), masks (bool) and argmax
  aside.
  They have an axis at least, losses aside, and none is empty. The facade in `ops` and the plan in `models` see to it;
  backends check nothing.
* `scratch` is the backend's private workspace, a flat array of the common dtype, undefined on entry. A kernel
  with scratch has dims `d`, and its backend has the kernel's `ScratchSize`.
* Shapes: images are NHWC, convolution weights (KH, KW, C / groups, F), linear weights (K, M). The last axis is
  the channels', the first the batch's. `...` stands for any number of axes between.
* NaN and infinities in an input reach every output that the formula makes depend on it. Elementwise kernels give a
  zero the sign that IEEE 754 gives the formula; tanh, erf and eˣ − 1 of a zero are that zero.
* Gradients are of one scalar loss: `dy` is its gradient by y. A `_backward` needs its named arguments only.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Protocol, Self, Union, get_args, get_origin, get_type_hints

import numpy as np

from .shapes import (
    AxisDims,
    BroadcastDims,
    ChannelDims,
    Conv2dDims,
    FlatDims,
    GroupDims,
    ImageDims,
    LinearDims,
    Pad2dDims,
    Pool2dDims,
    SliceDims,
    Upsample2dDims,
)

Input = Annotated[np.ndarray, "input"]
Output = Annotated[np.ndarray, "output"]
InPlace = Annotated[np.ndarray, "in place"]
Scratch = Annotated[np.ndarray, "scratch"]

SPLITMIX64 = (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
"""Increment and multipliers of SplitMix64 (Steele, Lea, Flood 2014), the generator of dropout's masks and
of `uniform`."""


class Backend(Protocol):
    """Every kernel. Implemented by the modules `numpy_backend` and `numba_backend`."""

    # Contractions ------------------------------------------------------------------------------------------

    @staticmethod
    def linear(x: Input, w: Input, b: Input | None, d: LinearDims, scratch: Scratch, y: Output) -> None:
        """y = x w + b, with x (N, K), w (K, M), b (M,) or None, y (N, M)."""

    @staticmethod
    def linear_backward(
        dy: Input,
        x: Input,
        w: Input,
        d: LinearDims,
        scratch: Scratch,
        dx: Output | None,
        dw: Output,
        db: Output | None,
    ) -> None:
        """dx = dy wᵀ, dw = xᵀ dy, db = Σₙ dy."""

    @staticmethod
    def conv2d(x: Input, w: Input, b: Input | None, d: Conv2dDims, scratch: Scratch, y: Output) -> None:
        """y[n, p, q, f] = b[f] + Σ x[n, p·stride − pad + i·dilation, q·stride − pad + j·dilation, c] w[i, j, c, f].

        x (N, H, W, C), w (KH, KW, C / groups, F), b (F,) or None, y (N, OH, OW, F). The sum goes over the taps whose
        place lies inside x: padding contributes nothing, whatever w holds. pad is d's pad_h and pad_w, the places above
        and to the left; those below and to the right follow from OH and OW. With groups, filters f of group g see
        that group's channels c alone. A cross-correlation, as in every deep-learning library.
        """

    @staticmethod
    def conv2d_backward(
        dy: Input,
        x: Input,
        w: Input,
        d: Conv2dDims,
        scratch: Scratch,
        dx: Output | None,
        dw: Output,
        db: Output | None,
    ) -> None:
        """Gradients of `conv2d`: dx by its adjoint, dw[i, j, c, f] = Σ x[n, .., .., c] dy[n, p, q, f], db = Σ dy.

        Both sums have the terms of the forward: none where a tap lies outside x.
        """

    @staticmethod
    def convtranspose2d(x: Input, w: Input, b: Input | None, d: Conv2dDims, scratch: Scratch, y: Output) -> None:
        """y[n, p·stride − pad + i·dilation, q·stride − pad + j·dilation, m] = b[m] + Σ x[n, p, q, c] w[i, j, m, c].

        x (N, H, W, C), w (KH, KW, M / groups, C), b (M,) or None, y (N, OH, OW, M). The sum goes over all p, q, i, j
        and c that lead to the place; what would lie outside y is dropped. It is the gradient by the input of the
        convolution with these filters from y's shape to x's, whose geometry d is: y is d's (h, w, c), x its
        (oh, ow, f). With groups, outputs m of group g see that group's channels c alone. Zeiler et al. 2010.
        """

    @staticmethod
    def convtranspose2d_backward(
        dy: Input,
        x: Input,
        w: Input,
        d: Conv2dDims,
        scratch: Scratch,
        dx: Output | None,
        dw: Output,
        db: Output | None,
    ) -> None:
        """Gradients of `convtranspose2d`: dx = `conv2d` of dy by w, dw[i, j, m, c] = Σ dy[n, .., .., m] x[n, p, q, c],
        db = Σ dy."""

    # Pooling -----------------------------------------------------------------------------------------------

    @staticmethod
    def maxpool2d(x: Input, d: Pool2dDims, y: Output, argmax: Output) -> None:
        """y = maximum over each window; argmax (N, OH, OW, C) = its position i·KW + j in the window.

        Position (i, j) of window (p, q) lies at (p·stride − pad + i·dilation, q·stride − pad + j·dilation). The first
        maximum in row-major order wins; the first NaN beats every number; padding never wins.
        argmax has dtype `d.argmax_dtype`.
        """

    @staticmethod
    def maxpool2d_backward(dy: Input, argmax: Input, d: Pool2dDims, dx: Output) -> None:
        """dx = each dy added at its window's argmax, zero elsewhere."""

    @staticmethod
    def avgpool2d(x: Input, d: Pool2dDims, count_include_pad: bool, y: Output) -> None:
        """y = sum over each window's real pixels, divided by how many they are, or by its places if count_include_pad.

        Those are the places in the image and in the padding, of end_h rows below it and end_w columns to the right:
        KH·KW but in windows that reach beyond, which ceil_mode makes.
        """

    @staticmethod
    def avgpool2d_backward(dy: Input, d: Pool2dDims, count_include_pad: bool, dx: Output) -> None:
        """dx = each dy, divided as in the forward, added over its window."""

    # Normalisation -----------------------------------------------------------------------------------------

    @staticmethod
    def batchnorm(
        x: Input,
        gamma: Input,
        beta: Input,
        eps: float,
        d: ChannelDims,
        scratch: Scratch,
        y: Output,
        mean: Output,
        inv_std: Output,
        var: Output,
    ) -> None:
        """y = gamma (x − mean) inv_std + beta by channel, statistics over all axes but the last.

        x, y (N, ..., C); the rest (C,). inv_std = 1 / √(biased variance + eps). var is the unbiased variance
        (divisor m − 1 of m values, 1 if m = 1), meant for the running average. Ioffe and Szegedy 2015.
        """

    @staticmethod
    def batchnorm_backward(
        dy: Input,
        x: Input,
        gamma: Input,
        mean: Input,
        inv_std: Input,
        d: ChannelDims,
        scratch: Scratch,
        dx: Output | None,
        dgamma: Output,
        dbeta: Output,
    ) -> None:
        """With x̂ = (x − mean) inv_std and m values a channel:

        dbeta = Σ dy, dgamma = Σ dy x̂, dx = gamma inv_std (dy − dbeta / m − x̂ dgamma / m).
        """

    @staticmethod
    def batchnorm_inference(
        x: Input, gamma: Input, beta: Input, mean: Input, var: Input, eps: float, y: Output
    ) -> None:
        """y = gamma (x − mean) / √(var + eps) + beta with given, usually running, statistics."""

    @staticmethod
    def batchnorm_inference_backward(
        dy: Input,
        x: Input,
        gamma: Input,
        mean: Input,
        var: Input,
        eps: float,
        d: ChannelDims,
        scratch: Scratch,
        dx: Output | None,
        dgamma: Output,
        dbeta: Output,
    ) -> None:
        """The statistics are constants: dx = dy gamma / √(var + eps), dgamma = Σ dy x̂, dbeta = Σ dy."""

    @staticmethod
    def meannorm(x: Input, beta: Input, d: ChannelDims, scratch: Scratch, y: Output, mean: Output) -> None:
        """y = x − mean + beta by channel, mean over all axes but the last. Salimans and Kingma 2016."""

    @staticmethod
    def meannorm_backward(dy: Input, d: ChannelDims, scratch: Scratch, dx: Output | None, dbeta: Output) -> None:
        """dbeta = Σ dy, dx = dy − dbeta / m, for m values a channel."""

    @staticmethod
    def meannorm_inference(x: Input, beta: Input, mean: Input, y: Output) -> None:
        """y = x − mean + beta with a given, usually running, mean."""

    @staticmethod
    def meannorm_inference_backward(
        dy: Input, d: ChannelDims, scratch: Scratch, dx: Output | None, dbeta: Output
    ) -> None:
        """The mean is a constant: dx = dy, dbeta = Σ dy."""

    @staticmethod
    def layernorm(
        x: Input, gamma: Input, beta: Input, eps: float, d: ChannelDims, y: Output, mean: Output, inv_std: Output
    ) -> None:
        """y = gamma (x − mean) inv_std + beta, statistics over the channels of each position of each sample.

        x, y hold (N, positions, channels) elements, gamma and beta (channels,), mean and inv_std (N, positions).
        inv_std = 1 / √(biased variance + eps). Ba, Kiros and Hinton 2016.
        """

    @staticmethod
    def layernorm_backward(
        dy: Input,
        x: Input,
        gamma: Input,
        mean: Input,
        inv_std: Input,
        d: ChannelDims,
        scratch: Scratch,
        dx: Output | None,
        dgamma: Output,
        dbeta: Output,
    ) -> None:
        """With x̂ = (x − mean) inv_std, g = gamma dy, and means over the channels of a position:

        dbeta = Σ dy, dgamma = Σ dy x̂, dx = inv_std (g − mean(g) − x̂ mean(g x̂)).
        """

    @staticmethod
    def groupnorm(
        x: Input,
        gamma: Input,
        beta: Input,
        eps: float,
        d: GroupDims,
        scratch: Scratch,
        y: Output,
        mean: Output,
        inv_std: Output,
    ) -> None:
        """y = gamma (x − mean) inv_std + beta by channel, statistics over each sample's groups of channels.

        x, y (N, ..., C), gamma and beta (C,), mean and inv_std (N, groups). A group is C / groups channels that lie
        side by side, at all positions. inv_std = 1 / √(biased variance + eps). Wu and He 2018.
        """

    @staticmethod
    def groupnorm_backward(
        dy: Input,
        x: Input,
        gamma: Input,
        mean: Input,
        inv_std: Input,
        d: GroupDims,
        scratch: Scratch,
        dx: Output | None,
        dgamma: Output,
        dbeta: Output,
    ) -> None:
        """With x̂ = (x − mean) inv_std, g = gamma dy, and means over a sample's group:

        dbeta = Σ dy, dgamma = Σ dy x̂, dx = inv_std (g − mean(g) − x̂ mean(g x̂)).
        """

    @staticmethod
    def local_response_norm(
        x: Input, size: int, alpha: float, beta: float, bias: float, d: ChannelDims, y: Output, scale: Output
    ) -> None:
        """scale[c] = bias + alpha / size · Σ x[k]² over c − ⌊(size − 1) / 2⌋ <= k <= c + ⌊size / 2⌋; y = x scale^−beta.

        x, y, scale (N, ..., C); channels that are not there count as zero. Krizhevsky et al. 2012.
        """

    @staticmethod
    def local_response_norm_backward(
        dy: Input,
        x: Input,
        scale: Input,
        size: int,
        alpha: float,
        beta: float,
        d: ChannelDims,
        scratch: Scratch,
        dx: Output,
    ) -> None:
        """dx[k] = dy[k] scale[k]^−beta − 2 alpha beta / size · x[k] Σ dy[c] x[c] scale[c]^(−beta − 1), over the c that
        have k in their window.
        """

    @staticmethod
    def ema_update(running: InPlace, value: Input, momentum: float) -> None:
        """running += momentum (value − running): momentum is the weight of the new value."""

    # Activations, elementwise, any shape -------------------------------------------------------------------

    @staticmethod
    def relu(x: Input, y: Output) -> None:
        """y = x where x > 0, else +0; NaN stays NaN."""

    @staticmethod
    def relu_backward(dy: Input, x: Input, y: Input, dx: Output) -> None:
        """dx = 0 where x <= 0, else dy."""

    @staticmethod
    def leaky_relu(x: Input, negative_slope: float, y: Output) -> None:
        """y = x where x > 0, else negative_slope x."""

    @staticmethod
    def leaky_relu_backward(dy: Input, x: Input, y: Input, negative_slope: float, dx: Output) -> None:
        """dx = dy where x > 0, else negative_slope dy."""

    @staticmethod
    def elu(x: Input, alpha: float, y: Output) -> None:
        """y = x where x > 0, else alpha (eˣ − 1). Clevert et al. 2015."""

    @staticmethod
    def elu_backward(dy: Input, x: Input, y: Input, alpha: float, dx: Output) -> None:
        """dx = dy where x > 0, else dy (y + alpha)."""

    @staticmethod
    def gelu(x: Input, y: Output) -> None:
        """y = x Φ(x), Φ the standard normal distribution function: the exact form. Hendrycks and Gimpel 2016."""

    @staticmethod
    def gelu_backward(dy: Input, x: Input, y: Input, dx: Output) -> None:
        """dx = dy (Φ(x) + x φ(x)), φ the standard normal density."""

    @staticmethod
    def silu(x: Input, y: Output) -> None:
        """y = x σ(x)."""

    @staticmethod
    def silu_backward(dy: Input, x: Input, y: Input, dx: Output) -> None:
        """dx = dy σ(x) (1 + x (1 − σ(x)))."""

    @staticmethod
    def sigmoid(x: Input, y: Output) -> None:
        """y = σ(x) = 1 / (1 + e⁻ˣ), without overflow."""

    @staticmethod
    def sigmoid_backward(dy: Input, x: Input, y: Input, dx: Output) -> None:
        """dx = dy y (1 − y)."""

    @staticmethod
    def tanh(x: Input, y: Output) -> None:
        """y = tanh x."""

    @staticmethod
    def tanh_backward(dy: Input, x: Input, y: Input, dx: Output) -> None:
        """dx = dy (1 − y²)."""

    @staticmethod
    def softplus(x: Input, y: Output) -> None:
        """y = log(1 + eˣ), without overflow."""

    @staticmethod
    def softplus_backward(dy: Input, x: Input, y: Input, dx: Output) -> None:
        """dx = dy σ(x)."""

    @staticmethod
    def clip(x: Input, low: float, high: float, y: Output) -> None:
        """y = min(max(x, low), high): low where x <= low, else x; then high where that is > high. NaN stays NaN.

        Either bound may be infinite; with low > high all numbers become high.
        """

    @staticmethod
    def clip_backward(dy: Input, x: Input, y: Input, low: float, high: float, dx: Output) -> None:
        """dx = 0 where x <= low or x >= high, else dy: at the bounds as `relu` and ReLU6 have it."""

    @staticmethod
    def hard_sigmoid(x: Input, alpha: float, beta: float, y: Output) -> None:
        """y = max(0, min(1, alpha x + beta)); NaN stays NaN."""

    @staticmethod
    def hard_sigmoid_backward(dy: Input, x: Input, y: Input, alpha: float, beta: float, dx: Output) -> None:
        """dx = 0 where y <= 0 or y >= 1, else alpha dy."""

    @staticmethod
    def hard_swish(x: Input, y: Output) -> None:
        """y = x max(0, min(6, x + 3)) / 6. Howard et al. 2019."""

    @staticmethod
    def hard_swish_backward(dy: Input, x: Input, y: Input, dx: Output) -> None:
        """dx = 0 where x <= −3, dy where x >= 3, else dy (x / 3 + 1 / 2)."""

    @staticmethod
    def mish(x: Input, y: Output) -> None:
        """y = x tanh(log(1 + eˣ)), without overflow. Misra 2019."""

    @staticmethod
    def mish_backward(dy: Input, x: Input, y: Input, dx: Output) -> None:
        """dx = dy (t + x σ(x) (1 − t²)), t = tanh(log(1 + eˣ))."""

    @staticmethod
    def selu(x: Input, alpha: float, gamma: float, y: Output) -> None:
        """y = gamma x where x > 0, else gamma alpha (eˣ − 1). Klambauer et al. 2017."""

    @staticmethod
    def selu_backward(dy: Input, x: Input, y: Input, alpha: float, gamma: float, dx: Output) -> None:
        """dx = gamma dy where x > 0, else dy (y + gamma alpha)."""

    @staticmethod
    def celu(x: Input, alpha: float, y: Output) -> None:
        """y = x where x > 0, else alpha (e^(x / alpha) − 1), alpha > 0. Barron 2017."""

    @staticmethod
    def celu_backward(dy: Input, x: Input, y: Input, alpha: float, dx: Output) -> None:
        """dx = dy where x > 0, else dy (1 + y / alpha)."""

    @staticmethod
    def gelu_tanh(x: Input, y: Output) -> None:
        """y = x (1 + tanh u) / 2 with u = √(2/π) (x + 0.044715 x³): `gelu`, approximated. Hendrycks and Gimpel 2016."""

    @staticmethod
    def gelu_tanh_backward(dy: Input, x: Input, y: Input, dx: Output) -> None:
        """dx = dy (s + 2 x s (1 − s) √(2/π) (1 + 3 · 0.044715 x²)), s = (1 + tanh u) / 2 = σ(2u)."""

    @staticmethod
    def softsign(x: Input, y: Output) -> None:
        """y = x / (1 + |x|)."""

    @staticmethod
    def softsign_backward(dy: Input, x: Input, y: Input, dx: Output) -> None:
        """dx = dy / (1 + |x|)²."""

    @staticmethod
    def thresholded_relu(x: Input, alpha: float, y: Output) -> None:
        """y = 0 where x <= alpha, else x; NaN stays NaN. Konda et al. 2015."""

    @staticmethod
    def thresholded_relu_backward(dy: Input, x: Input, y: Input, alpha: float, dx: Output) -> None:
        """dx = 0 where x <= alpha, else dy."""

    @staticmethod
    def prelu(x: Input, slope: Input, y: Output) -> None:
        """y = x where x > 0, else slope x. x (N, ..., C), slope (C,), or (1,) for all channels. He et al. 2015."""

    @staticmethod
    def prelu_backward(
        dy: Input, x: Input, slope: Input, d: ChannelDims, scratch: Scratch, dx: Output | None, dslope: Output
    ) -> None:
        """dx = dy where x > 0, else slope dy; dslope = Σ dy min(x, 0), by channel or over all.

        `d` has as many channels as there are slopes.
        """

    @staticmethod
    def dropout(x: Input, rate: float, seed: int, step: int, y: Output, mask: Output) -> None:
        """y = x / (1 − rate) where mask, else 0; each element is kept with probability 1 − rate.

        mask (bool, x's shape) comes from a counter, so that it depends on nothing but (seed, step, flat index i).
        With mix the finaliser of SplitMix64 and g its increment, in 64-bit arithmetic that wraps:
        key = mix(mix(seed) + (step + 1) g), mask[i] = mix(key + (i + 1) g) >> 32 >= ⌊rate · 2³²⌋,
        mix(z): z = (z ^ z >> 30) m₁; z = (z ^ z >> 27) m₂; z ^ z >> 31.
        """

    @staticmethod
    def dropout_backward(dy: Input, mask: Input, rate: float, dx: Output) -> None:
        """dx = dy / (1 − rate) where mask, else 0."""

    # Functions, elementwise, any shape ---------------------------------------------------------------------
    # Outside of a function's domain y is what IEEE 754 says: NaN, or the infinity of a pole. No warning is given.

    @staticmethod
    def exp(x: Input, y: Output) -> None:
        """y = eˣ."""

    @staticmethod
    def exp_backward(dy: Input, x: Input, y: Input, dx: Output) -> None:
        """dx = dy y."""

    @staticmethod
    def log(x: Input, y: Output) -> None:
        """y = log x, the natural logarithm."""

    @staticmethod
    def log_backward(dy: Input, x: Input, y: Input, dx: Output) -> None:
        """dx = dy / x."""

    @staticmethod
    def sqrt(x: Input, y: Output) -> None:
        """y = √x."""

    @staticmethod
    def sqrt_backward(dy: Input, x: Input, y: Input, dx: Output) -> None:
        """dx = dy / (2 y)."""

    @staticmethod
    def absolute(x: Input, y: Output) -> None:
        """y = |x|."""

    @staticmethod
    def absolute_backward(dy: Input, x: Input, y: Input, dx: Output) -> None:
        """dx = dy where x > 0, −dy where x < 0, 0 where x = 0; NaN where x is."""

    @staticmethod
    def negative(x: Input, y: Output) -> None:
        """y = −x."""

    @staticmethod
    def negative_backward(dy: Input, x: Input, y: Input, dx: Output) -> None:
        """dx = −dy."""

    @staticmethod
    def reciprocal(x: Input, y: Output) -> None:
        """y = 1 / x."""

    @staticmethod
    def reciprocal_backward(dy: Input, x: Input, y: Input, dx: Output) -> None:
        """dx = −dy y²."""

    @staticmethod
    def power(x: Input, exponent: float, y: Output) -> None:
        """y = x^exponent: NaN where x < 0 and the exponent is no whole number, 1 everywhere for the exponent 0."""

    @staticmethod
    def power_backward(dy: Input, x: Input, y: Input, exponent: float, dx: Output) -> None:
        """dx = dy exponent x^(exponent − 1), and 0 for the exponent 0."""

    @staticmethod
    def erf(x: Input, y: Output) -> None:
        """y = 2/√π ∫₀ˣ e^(−t²) dt, the error function."""

    @staticmethod
    def erf_backward(dy: Input, x: Input, y: Input, dx: Output) -> None:
        """dx = dy 2/√π e^(−x²)."""

    @staticmethod
    def round_to_bfloat16(x: Input, y: Output) -> None:
        """y = the bfloat16 number next to x, in the dtype of the arrays; of two as near the one whose last bit is 0.

        bfloat16 has float32's sign and exponent and the first 7 of its 23 bits behind the point. From 2¹²⁷ (2 − 2⁻⁸) on
        y is infinite, NaN stays NaN, and numbers below the smallest normal one are rounded as any other. float64 is
        rounded to float32 first. The product of two such numbers is exact in float32 unless it leaves its range.
        IEEE 754-2019, 4.3.1.
        """

    # Outputs and losses ------------------------------------------------------------------------------------

    @staticmethod
    def softmax(x: Input, y: Output) -> None:
        """y = eˣ / Σ eˣ over the last axis, each row's maximum subtracted first. x (N, ..., C)."""

    @staticmethod
    def softmax_backward(dy: Input, x: Input, y: Input, dx: Output) -> None:
        """dx = y (dy − Σ dy y), sums over the last axis."""

    @staticmethod
    def log_softmax(x: Input, y: Output) -> None:
        """y = x − log Σ eˣ over the last axis, each row's maximum subtracted first."""

    @staticmethod
    def log_softmax_backward(dy: Input, x: Input, y: Input, dx: Output) -> None:
        """dx = dy − eʸ Σ dy, sums over the last axis."""

    @staticmethod
    def softmax_cross_entropy(
        logits: Input,
        labels: Input,
        smoothing: float,
        d: ChannelDims,
        scratch: Scratch,
        loss: Output,
        dlogits: Output,
    ) -> None:
        """loss = −mean over the batch of Σ_c t_c log softmax(logits)_c, and its gradient (softmax − t) / N.

        logits (N, C), labels (N,) int64 in [0, C), loss (). The target t is (1 − smoothing) onehot + smoothing / C:
        Szegedy et al. 2016. A label outside of [0, C) is no error here, where labels may change under a plan that runs:
        its row of the gradient is NaN, and so is the loss.
        """

    @staticmethod
    def mse(
        prediction: Input, target: Input, d: ChannelDims, scratch: Scratch, loss: Output, dprediction: Output
    ) -> None:
        """loss = mean of (prediction − target)² over all elements, dprediction = 2 (prediction − target) / elements."""

    # Losses by weight ---------------------------------------------------------------------------------------
    # A sample's loss is the mean over its elements, and `weights` (N,), none below 0, weigh it:
    # loss = Σ_n weights_n loss_n / Σ_n weights_n, and its gradient. With weights None all weigh 1. A sample that
    # weighs 0 takes no part, whatever it holds: its row of the gradient is 0. Where none weighs anything, so is all.

    @staticmethod
    def weighted_cross_entropy(
        logits: Input,
        labels: Input,
        weights: Input,
        smoothing: float,
        d: ChannelDims,
        scratch: Scratch,
        loss: Output,
        dlogits: Output,
    ) -> None:
        """loss_n as in `softmax_cross_entropy`, whose rule for labels outside of [0, C) is for those that weigh."""

    @staticmethod
    def soft_cross_entropy(
        logits: Input,
        target: Input,
        weights: Input | None,
        d: ChannelDims,
        scratch: Scratch,
        loss: Output,
        dlogits: Output,
    ) -> None:
        """loss_n = −Σ_c target_nc log softmax(logits_n)_c, gradient softmax(logits_n) Σ_c target_nc − target_n.

        logits and target (N, C). A class whose target is 0 adds nothing to the loss, be its logit −infinity.
        """

    @staticmethod
    def binary_cross_entropy(
        logits: Input,
        target: Input,
        weights: Input | None,
        d: ChannelDims,
        scratch: Scratch,
        loss: Output,
        dlogits: Output,
    ) -> None:
        """−t log σ(x) − (1 − t) log(1 − σ(x)) of each logit x and target t, gradient σ(x) − t; σ(x) = 1 / (1 + e⁻ˣ).

        Computed as max(x, 0) − x t + log(1 + e^−|x|), which is finite for every finite logit.
        """

    @staticmethod
    def huber(
        prediction: Input,
        target: Input,
        weights: Input | None,
        threshold: float,
        d: ChannelDims,
        scratch: Scratch,
        loss: Output,
        dprediction: Output,
    ) -> None:
        """e² / 2 of each e = prediction − target with |e| <= threshold, threshold (|e| − threshold / 2) beyond.

        Huber 1964.
        """

    @staticmethod
    def mae(
        prediction: Input,
        target: Input,
        weights: Input | None,
        d: ChannelDims,
        scratch: Scratch,
        loss: Output,
        dprediction: Output,
    ) -> None:
        """|prediction − target| of each element, gradient the difference's sign, which is 0 of 0."""

    @staticmethod
    def weighted_mse(
        prediction: Input,
        target: Input,
        weights: Input,
        d: ChannelDims,
        scratch: Scratch,
        loss: Output,
        dprediction: Output,
    ) -> None:
        """(prediction − target)² of each element."""

    # Arithmetic of two arrays ------------------------------------------------------------------------------
    # Shapes broadcast as NumPy's do: aligned at the last axis, and an axis of size 1, or one that is not there, is
    # repeated. An array's gradient is summed over the places where it was repeated.

    @staticmethod
    def add(a: Input, b: Input, y: Output) -> None:
        """y = a + b, broadcast."""

    @staticmethod
    def add_backward(dy: Input, d: BroadcastDims, scratch: Scratch, da: Output | None, db: Output | None) -> None:
        """da = Σ dy, db = Σ dy."""

    @staticmethod
    def subtract(a: Input, b: Input, y: Output) -> None:
        """y = a − b, broadcast."""

    @staticmethod
    def subtract_backward(dy: Input, d: BroadcastDims, scratch: Scratch, da: Output | None, db: Output | None) -> None:
        """da = Σ dy, db = −Σ dy."""

    @staticmethod
    def multiply(a: Input, b: Input, y: Output) -> None:
        """y = a b, broadcast."""

    @staticmethod
    def multiply_backward(
        dy: Input, a: Input, b: Input, d: BroadcastDims, scratch: Scratch, da: Output | None, db: Output | None
    ) -> None:
        """da = Σ dy b, db = Σ dy a."""

    @staticmethod
    def divide(a: Input, b: Input, y: Output) -> None:
        """y = a / b, broadcast; infinite or NaN where b is zero, as floats have it."""

    @staticmethod
    def divide_backward(
        dy: Input, a: Input, b: Input, d: BroadcastDims, scratch: Scratch, da: Output | None, db: Output | None
    ) -> None:
        """da = Σ dy / b, db = −(Σ dy a) / b / b."""

    @staticmethod
    def raise_to_power(a: Input, b: Input, y: Output) -> None:
        """y = a^b, broadcast, as IEEE 754 has it: NaN where a < 0 and b is no whole number, 1 wherever b is 0."""

    @staticmethod
    def raise_to_power_backward(
        dy: Input, a: Input, b: Input, d: BroadcastDims, scratch: Scratch, da: Output | None, db: Output | None
    ) -> None:
        """da = Σ dy b a^(b − 1), with 0 where b is 0; db = Σ dy a^b log a, with 0 where a is 0 and b is not below.

        db is NaN where a < 0.
        """

    @staticmethod
    def mean(x: Input, d: AxisDims, y: Output) -> None:
        """y = the mean of x over one axis, or over some that lie side by side.

        x holds (N, before, size, after) elements, y (N, before, after).
        """

    @staticmethod
    def mean_backward(dy: Input, d: AxisDims, dx: Output) -> None:
        """dx = dy / size at every place of the axis."""

    # Joining, cutting and moving ---------------------------------------------------------------------------

    @staticmethod
    def concat(a: Input, b: Input, third: Input | None, fourth: Input | None, y: Output) -> None:
        """y = two, three or four arrays side by side along the last axis; None stands for no array."""

    @staticmethod
    def concat_backward(dy: Input, da: Output, db: Output) -> None:
        """da, db = the two parts of dy along the last axis."""

    @staticmethod
    def slice(x: Input, d: SliceDims, y: Output) -> None:
        """y[n, i, k, j] = x[n, i, start + k·step, j] for k < kept.

        x holds (N, before, size, after) elements, y (N, before, kept, after). step may be negative, not 0.
        """

    @staticmethod
    def slice_backward(dy: Input, d: SliceDims, dx: Output) -> None:
        """dx = dy at the places that y was taken from, zero elsewhere."""

    @staticmethod
    def transpose(x: Input, axes: tuple[int, ...], y: Output) -> None:
        """y = x with its axes in another order: axis i of y is axis axes[i] of x."""

    @staticmethod
    def pad2d(x: Input, d: Pad2dDims, mode: str, value: float, y: Output) -> None:
        """y[n, p, q, c] = x[n, p − top, q − left, c].

        Places outside x: mode "constant" has the value there, "edge" the nearest pixel, "reflect" the one as far inside
        the outermost pixel. A negative padding crops.
        """

    @staticmethod
    def pad2d_backward(dy: Input, d: Pad2dDims, mode: str, dx: Output) -> None:
        """dx = each dy added at the pixel that it was taken from."""

    @staticmethod
    def upsample2d(x: Input, d: Upsample2dDims, y: Output) -> None:
        """y[n, p, q, c] = x[n, ⌊p / factor_h⌋, ⌊q / factor_w⌋, c]: every pixel factor_h · factor_w times."""

    @staticmethod
    def upsample2d_backward(dy: Input, d: Upsample2dDims, dx: Output) -> None:
        """dx = the sum of dy over a pixel's copies."""

    # Augmentation ------------------------------------------------------------------------------------------

    @staticmethod
    def uniform(indices: Input, seed: int, step: int, u: Output) -> None:
        """u[n] = random numbers in [−1, 1] of sample indices[n], which depend on (seed, step, index) and their place j.

        indices (N,) int64, at least 0; u (N, ...). In the terms of `dropout`, with key its key of (seed, step):
        sample = mix(key + (indices[n] + 1) g), and u[n, j] at the flat place j is the upper half of
        mix(sample + (j + 1) g) as a signed 32-bit integer, divided by 2³¹, and rounded to the dtype.
        """

    @staticmethod
    def smooth2d(x: Input, weights: Input, d: ImageDims, scratch: Scratch, y: Output) -> None:
        """y[n, h, w, c] = Σ weights[|h − k|] weights[|w − l|] x[n, k, l, c], over |h − k|, |w − l| <= R.

        x, y (N, H, W, C), weights (R + 1,): one half of a symmetric filter, its middle first. Places outside x count
        as zero. Columns are filtered first, their sums then along the rows.
        """

    @staticmethod
    def warp(
        x: Input, matrix: Input, field: Input | None, fill: float, d: ImageDims, scratch: Scratch, y: Output
    ) -> None:
        """y[n, h, w, c] = x[n, r, s, c] by bilinear interpolation, at the place (r, s) that the output is fetched from.

        x, y (N, H, W, C). With the centre (h₀, w₀) = ((H − 1) / 2, (W − 1) / 2) and A = matrix[n], of (N, 2, 3),
        (r, s) = (h₀, w₀) + A (h − h₀, w − w₀, 1) + field[n, h, w], in float64. field (N, H, W, 2) or None, for zero.
        Pixels outside x have the value fill, and where r is not in [−1, H] or s not in [−1, W] so has y. With
        (a, b) = (r, s) − (i, j), (i, j) = ⌊(r, s)⌋, and all four products taken, zeros too,
        y = (1 − a) [(1 − b) x[i, j] + b x[i, j + 1]] + a [(1 − b) x[i + 1, j] + b x[i + 1, j + 1]].
        y is NaN where r or s is.
        """

    # Optimizers, in place over flat vectors ----------------------------------------------------------------
    # Weight decay, coupled: g + weight_decay p takes the gradient's place everywhere. Decoupled (Loshchilov and
    # Hutter 2019): p loses learning_rate · weight_decay · p, and the gradient is left alone. State that has
    # decayed below the smallest normal number may be set to zero: denormals are slow and move nothing.

    @staticmethod
    def sgd(
        p: InPlace,
        g: Input,
        v: InPlace | None,
        learning_rate: float,
        momentum: float,
        nesterov: bool,
        weight_decay: float,
        decoupled: bool,
    ) -> None:
        """v = momentum v + g; p −= learning_rate v, or learning_rate (g + momentum v) with Nesterov.

        With v None (momentum must be 0): p −= learning_rate g. Sutskever et al. 2013 in the form of PyTorch.
        """

    @staticmethod
    def rmsprop(
        p: InPlace,
        g: Input,
        v: InPlace,
        learning_rate: float,
        rho: float,
        eps: float,
        weight_decay: float,
        decoupled: bool,
    ) -> None:
        """v = rho v + (1 − rho) g²; p −= learning_rate g / (√v + eps). Tieleman and Hinton 2012."""

    @staticmethod
    def adam(
        p: InPlace,
        g: Input,
        m: InPlace,
        v: InPlace,
        step: int,
        learning_rate: float,
        beta1: float,
        beta2: float,
        eps: float,
        weight_decay: float,
        decoupled: bool,
    ) -> None:
        """m = β₁ m + (1 − β₁) g; v = β₂ v + (1 − β₂) g²; p −= learning_rate m̂ / (√v̂ + eps).

        m̂ = m / (1 − β₁ᵗ), v̂ = v / (1 − β₂ᵗ), where t = step counts from 1: the first update has t = 1 both in the
        moments and in their correction. Kingma and Ba 2015; decoupled decay makes it AdamW.
        """

    @staticmethod
    def clip_norm(g: InPlace, limit: float, d: FlatDims, scratch: Scratch) -> None:
        """g *= min(1, limit / (‖g‖ + 10⁻⁶)), ‖g‖ the Euclidean norm of the whole vector, summed in float64.

        All of it is NaN where any of it is, and NaN or 0 where any is infinite. Pascanu et al. 2013, in PyTorch's form.
        """


class Fused(Protocol):
    """Kernels that a backend may have beside the contract: each does the work of several in one go.

    They stand in plans alone, where `models.rewrite` puts them in place of the steps that are their definition; a
    backend without them runs those. Pool windows behind another kernel lie side by side, without padding. Where a
    maximum is taken before the normalisation (`peak`), it is the window's maximum in channels with gamma > 0, its
    minimum where gamma < 0, its first value where gamma = 0; argmax is the place of that.
    """

    # Training ----------------------------------------------------------------------------------------------

    @staticmethod
    def batchnorm_relu_maxpool2d(
        x: Input,
        gamma: Input,
        beta: Input,
        eps: float,
        d: Pool2dDims,
        scratch: Scratch,
        mean: Output,
        inv_std: Output,
        var: Output,
        peak: Output,
        y: Output,
        argmax: Output,
    ) -> None:
        """`batchnorm`, `relu`, `maxpool2d`: peak by window of x, y = relu(gamma (peak − mean) inv_std + beta)."""

    @staticmethod
    def batchnorm_relu_maxpool2d_backward(
        dy: Input,
        x: Input,
        gamma: Input,
        beta: Input,
        mean: Input,
        inv_std: Input,
        peak: Input,
        argmax: Input,
        d: Pool2dDims,
        scratch: Scratch,
        dx: Output | None,
        dgamma: Output,
        dbeta: Output,
    ) -> None:
        """`maxpool2d_backward`, `relu_backward`, `batchnorm_backward`: dgamma and dbeta are sums over windows alone."""

    @staticmethod
    def conv2d_batchnorm_relu_maxpool2d(
        x: Input,
        w: Input,
        b: Input | None,
        gamma: Input,
        beta: Input,
        eps: float,
        pool: Pool2dDims,
        d: Conv2dDims,
        scratch: Scratch,
        z: Output,
        mean: Output,
        inv_std: Output,
        var: Output,
        peak: Output,
        y: Output,
        argmax: Output,
    ) -> None:
        """`conv2d` to z, its statistics taken on the way, and `batchnorm_relu_maxpool2d` of z. One group."""

    @staticmethod
    def conv2d_batchnorm_relu_maxpool2d_backward(
        dy: Input,
        x: Input,
        w: Input,
        z: Input,
        gamma: Input,
        beta: Input,
        mean: Input,
        inv_std: Input,
        peak: Input,
        argmax: Input,
        pool: Pool2dDims,
        d: Conv2dDims,
        scratch: Scratch,
        dx: Output | None,
        dw: Output,
        db: Output | None,
        dgamma: Output,
        dbeta: Output,
    ) -> None:
        """`batchnorm_relu_maxpool2d_backward` to dz, and `conv2d_backward` of dz.

        db is zero: the batch's mean takes any bias out again.
        """

    @staticmethod
    def batchnorm_relu(
        x: Input,
        gamma: Input,
        beta: Input,
        residual: Input | None,
        eps: float,
        d: ChannelDims,
        scratch: Scratch,
        y: Output,
        mean: Output,
        inv_std: Output,
        var: Output,
    ) -> None:
        """`batchnorm`, `add` of the residual if there is one, `relu`."""

    @staticmethod
    def batchnorm_relu_backward(
        dy: Input,
        more: Input | None,
        x: Input,
        y: Input | None,
        gamma: Input,
        beta: Input,
        mean: Input,
        inv_std: Input,
        d: ChannelDims,
        scratch: Scratch,
        dresidual: Output | None,
        dx: Output | None,
        dgamma: Output,
        dbeta: Output,
    ) -> None:
        """`add` of dy and `more`, if there is more, `relu_backward`, `batchnorm_backward`.

        y is from `batchnorm_relu`; dresidual is what passes the ReLU, the residual's gradient. Without a residual both
        are None, and the sign of y follows from x.
        """

    @staticmethod
    def linear_relu(x: Input, w: Input, b: Input | None, d: LinearDims, scratch: Scratch, y: Output) -> None:
        """`linear`, `relu`."""

    @staticmethod
    def linear_relu_backward(
        dy: Input,
        y: Input,
        x: Input,
        w: Input,
        d: LinearDims,
        scratch: Scratch,
        dx: Output | None,
        dw: Output,
        db: Output | None,
    ) -> None:
        """`relu_backward`, `linear_backward`, with y from `linear_relu`."""

    # Inference: what depends on parameters alone is done once, and again when they have changed -------------

    @staticmethod
    def conv2d_fold(
        w: Input,
        b: Input | None,
        gamma: Input | None,
        beta: Input | None,
        mean: Input | None,
        var: Input | None,
        eps: float,
        d: Conv2dDims,
        packed: Output,
        bias: Output,
    ) -> None:
        """The filters times gamma / √(var + eps), in the order in which `conv2d_folded` reads them, and the bias
        (b − mean) gamma / √(var + eps) + beta (F,). Without gamma there is no normalisation.

        The size of packed is the kernel's `FoldSize`.
        """

    @staticmethod
    def conv2d_folded(
        x: Input,
        packed: Input,
        bias: Input,
        residual: Input | None,
        relu: bool,
        pool: Pool2dDims,
        d: Conv2dDims,
        scratch: Scratch,
        y: Output,
    ) -> None:
        """`conv2d`, `batchnorm_inference`, `add` of a residual, `relu` if wanted, `maxpool2d`, of the folded filters.

        Windows of 1 by 1 stand for no pooling; with more than one group, or a residual, there is none. Without a
        residual, y may be some of the channels of a larger array. A backend may add pixels, and
        taps of a filter, before it multiplies them (`tiles.winograd`): an infinity among the pixels of an output may
        come out as NaN, and so may every output of a filter that is not finite, or pixels within a factor of four of
        the largest float. What is no pixel of an output has no part in it.
        """

    @staticmethod
    def maxpool2d_inference(x: Input, d: Pool2dDims, y: Output) -> None:
        """The y of `maxpool2d`, whatever the windows; it may be some of the channels of a larger array."""

    @staticmethod
    def linear_fold(w: Input, b: Input | None, d: LinearDims, packed: Output, bias: Output) -> None:
        """The weights in the order in which `linear_folded` reads them, and the bias, zeros for None.

        The size of packed is the kernel's `FoldSize`.
        """

    @staticmethod
    def linear_folded(
        x: Input, packed: Input, bias: Input, relu: bool, d: LinearDims, scratch: Scratch, y: Output
    ) -> None:
        """`linear`, and `relu` if wanted, of the folded weights."""

    # bfloat16: contractions that round their operands themselves, and sum in float32; of float32 arrays alone. A
    # backend may take numbers below 2⁻¹²⁶, be they factors or sums, for zeros of their sign.

    @staticmethod
    def linear_bfloat16(x: Input, w: Input, b: Input | None, d: LinearDims, scratch: Scratch, y: Output) -> None:
        """`round_to_bfloat16` of x and w, `linear`."""

    @staticmethod
    def linear_backward_bfloat16(
        dy: Input, x: Input, w: Input, d: LinearDims, scratch: Scratch, dx: Output | None, dw: Output
    ) -> None:
        """`round_to_bfloat16` of dy, x and w, `linear_backward` without db."""

    @staticmethod
    def linear_fold_bfloat16(w: Input, b: Input | None, d: LinearDims, packed: Output, bias: Output) -> None:
        """`linear_fold` for `linear_folded_bfloat16`, of w rounded."""

    @staticmethod
    def linear_folded_bfloat16(
        x: Input, packed: Input, bias: Input, relu: bool, d: LinearDims, scratch: Scratch, y: Output
    ) -> None:
        """`round_to_bfloat16` of x, `linear`, and `relu` if wanted, of the folded weights."""

    @staticmethod
    def conv2d_bfloat16(x: Input, w: Input, b: Input | None, d: Conv2dDims, scratch: Scratch, y: Output) -> None:
        """`round_to_bfloat16` of x and w, `conv2d`. One group."""

    @staticmethod
    def conv2d_backward_bfloat16(
        dy: Input, x: Input, w: Input, d: Conv2dDims, scratch: Scratch, dx: Output | None, dw: Output
    ) -> None:
        """`round_to_bfloat16` of dy, x and w, `conv2d_backward` without db. One group."""

    @staticmethod
    def conv2d_fold_bfloat16(
        w: Input,
        b: Input | None,
        gamma: Input | None,
        beta: Input | None,
        mean: Input | None,
        var: Input | None,
        eps: float,
        d: Conv2dDims,
        packed: Output,
        scale: Output,
        bias: Output,
    ) -> None:
        """w rounded, in the order in which `conv2d_folded_bfloat16` reads it; scale = gamma / √(var + eps) and the bias
        (b − mean) scale + beta (F,), 1 and b without gamma. One group.

        The size of packed is that of `conv2d_fold`.
        """

    @staticmethod
    def conv2d_folded_bfloat16(
        x: Input,
        packed: Input,
        scale: Input,
        bias: Input,
        residual: Input | None,
        relu: bool,
        pool: Pool2dDims,
        d: Conv2dDims,
        scratch: Scratch,
        y: Output,
    ) -> None:
        """`round_to_bfloat16` of x, `conv2d` times the scale plus the bias, `add` of a residual, `relu` if wanted,
        `maxpool2d`, of the folded filters.

        Windows as in `conv2d_folded`; with a residual there are none.
        """


class Batches(Protocol):
    """What stands around a plan's kernels when it runs over a whole data set: reading batches, keeping results.

    Of a data set and an order of its samples, `batch` counts batches of the size that the outputs have.
    """

    @staticmethod
    def gather(x: Input, order: Input, batch: int, levels: Input | None, y: Output) -> None:
        """y[i] = x[order[batch · n + i]] for i < n = len(y), contiguous arrays of one dtype, order int64.

        With levels (256,) of y's dtype, x is uint8 and y[i] = levels[x[..]]: normalised as it is read.
        """

    @staticmethod
    def keep(value: Input, batch: int, values: InPlace) -> None:
        """values[batch] = value, which has no axes."""

    @staticmethod
    def count_correct(output: Input, labels: Input, batch: int, counts: InPlace) -> None:
        """counts[batch] = how many rows of output (N, C) have their first maximum, or their first NaN, at the label."""


class ScratchSize(Protocol):
    """`<kernel>_scratch`, which a backend has beside every kernel with a `scratch` parameter."""

    def __call__(self, d: Any, n: int, /) -> int:
        """Elements of scratch for n samples of dims d."""


class FoldSize(Protocol):
    """`<kernel>_fold_size`, which a backend has beside every `<kernel>_fold`."""

    def __call__(self, d: Any, /) -> int:
        """Elements of packed parameters of dims d."""


@dataclass(frozen=True)
class Kernel:
    """A kernel written outside this package: its definition in NumPy and, if there is one, its Numba twin.

    Both are fill functions with the same parameters, annotated with `Input`, `Output`, `InPlace`, `Scratch` or plain
    types. With a `scratch` parameter they have dims `d`, and scratch(backend, d, n) gives the elements it needs.

    shapes: the axes of every array, in the words of `kernels.rules`, such as "x (N, ..., C), gain (C), y (N, ..., C)",
    or "x (any)" where they cannot be told. A plan holds every call to them when it is made. A twin needs them (else
    ValueError): compiled code writes wherever it is told.
    """

    numpy: Callable[..., None]
    numba: Callable[..., None] | None = None
    scratch: Callable[[str, Any, int], int] | None = None
    shapes: str = ""

    def __post_init__(self) -> None:
        if not callable(self.numpy):
            raise TypeError(f"Kernel: numpy is {self.numpy!r}, expected a fill function")
        if self.numba is not None and not callable(self.numba):
            raise TypeError(f"Kernel: numba is {self.numba!r}, expected a fill function or None")
        if self.numba is not None and self.numba is not self.numpy and not self.shapes:
            raise ValueError(
                f"Kernel: {self.name} has a twin and no shapes, expected the axes of its arrays, such as "
                "shapes='x y (N, ..., C), gain (C)': compiled code looks at no bounds"
            )

    @property
    def name(self) -> str:
        """The definition's name."""
        return self.numpy.__name__

    def on(self, backend: str) -> Callable[..., None]:
        """The implementation for a backend; ValueError where there is none."""
        function: Callable[..., None] | None = getattr(self, backend, None)
        if function is None:
            raise ValueError(f"kernel {self.name} has no {backend} implementation")
        return function

    def scratch_size(self, backend: str, d: Any, n: int) -> int:
        """Elements of scratch that n samples of dims d need."""
        return 0 if self.scratch is None else self.scratch(backend, d, n)


@dataclass(frozen=True)
class Scalar:
    """A number that a sequence of calls is given anew at each run, in the place of an argument.

    It allows no arithmetic: a kernel that takes one passes it on, untouched, to compiled code.
    """

    name: str
    type: type[int] | type[float]


class Program(Protocol):
    """A sequence of calls that runs as one."""

    def compile(self) -> None:
        """Prepare to run, if that takes long: what several programs need is prepared sooner for their sum."""

    def run(
        self,
        rounds: int,
        scalars: Mapping[str, Sequence[float] | np.ndarray],
        given: Sequence[tuple[np.ndarray, np.ndarray]] = (),
    ) -> None:
        """All calls, `rounds` times over. Scalars have a value a round, by name.

        given: arrays that the calls only read, each with what it is to hold. That is copied in, or read where it lies.
        """

    def times(self, scalars: Mapping[str, Sequence[float] | np.ndarray]) -> np.ndarray | None:
        """All calls once: the seconds of each, (calls,). None where the system has no clock for it."""

    def __add__(self, other: Self) -> Self:
        """The calls of both, one after the other."""


class Programs(Protocol):
    """What a backend has that makes programs."""

    @staticmethod
    def record(calls: Iterable[tuple[Callable[..., None], Sequence[Any]]]) -> Program | None:
        """Fill functions with their arguments, some of them a `Scalar`, as one program.

        None where a function does more than to call the backend's kernels. The arrays have to stay where they are.
        """


@cache
def roles(kernel: str | Kernel) -> dict[str, str]:
    """Parameter -> "input", "output", "in place", "scratch" or "attribute", in the order of the call.

    kernel: a name of `Backend`, `Fused` or `Batches`, else ValueError; or a kernel written elsewhere.
    """
    function = declaration(kernel)
    hints = get_type_hints(function, include_extras=True)
    return {name: _role(hints.get(name)) for name in inspect.signature(function).parameters}


def _role(hint: object) -> str:
    options = get_args(hint) if get_origin(hint) is Union or isinstance(hint, type(int | None)) else (hint,)
    for option in options:
        if get_origin(option) is Annotated:
            return str(get_args(option)[1])
    return "attribute"


def declaration(kernel: str | Kernel) -> Callable[..., None]:
    """The function whose signature is the kernel's; errors as `roles` has them."""
    if isinstance(kernel, Kernel):
        return kernel.numpy
    if not isinstance(kernel, str):
        raise TypeError(f"kernel is a {type(kernel).__name__}, expected a name or a kernels.Kernel")
    known: dict[str, Callable[..., None]] = {
        name: getattr(protocol, name) for protocol in (Backend, Fused, Batches) for name in kernel_names(protocol)
    }
    if kernel not in known:
        import difflib

        close = " or ".join(map(repr, difflib.get_close_matches(kernel, known)))
        hint = f"did you mean {close}?" if close else "kernels.kernel_names() lists those of the contract"
        raise ValueError(f"unknown kernel {kernel!r}; {hint}")
    return known[kernel]


def kernel_names(protocol: type = Backend) -> list[str]:
    """The name of every kernel of the contract.

    Args:
        protocol: `Backend`, or another that names kernels: `Fused` or `Batches`.

    Returns:
        Its kernels' names in the order of its source, in a new list.

    >>> kernel_names()[:4]
    ['linear', 'linear_backward', 'conv2d', 'conv2d_backward']
    """
    return [name for name, value in vars(protocol).items() if isinstance(value, staticmethod)]
