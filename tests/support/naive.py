"""A third backend, of scalar loops over Python floats: the oracle that anyone can check against the contract.

Every formula of `kernels.interface.Backend` is written out element by element, in double precision and in the
order in which one reads it. Sums are exact (`math.fsum`), so that a disagreement is never the oracle's rounding.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np

from kernels.interface import kernel_names

INF = math.inf
WORD = (1 << 64) - 1


def _no_scratch(_d: object, _n: int) -> int:
    return 0


for _name in kernel_names():
    globals()[f"{_name}_scratch"] = _no_scratch


def total(terms: list[float]) -> float:
    """The sum of the terms, rounded once; NaN and infinities as plain addition has them."""
    plain = sum(terms)
    return math.fsum(terms) if math.isfinite(plain) or all(map(math.isfinite, terms)) else plain


def quotient(a: float, b: float) -> float:
    """a / b as IEEE 754 has it: no exception at b = 0."""
    if b != 0.0:
        return a / b
    return math.nan if a == 0.0 or math.isnan(a) else math.copysign(INF, a) * math.copysign(1.0, b)


def exponential(x: float) -> float:
    """eˣ, infinity beyond the largest float."""
    return math.exp(x) if x < 709.0 or math.isnan(x) else INF


def logarithm(x: float) -> float:
    """log x, minus infinity at 0, NaN below."""
    return math.log(x) if x > 0.0 else -INF if x == 0.0 else math.nan


def positive_power(a: float, b: float) -> float:
    """a ** b of a positive a; infinity beyond the largest float."""
    return exponential(b * math.log(a)) if 0.0 < a < INF else float(np.float64(a) ** b)


def larger(a: float, b: float) -> float:
    """The larger of two, NaN if one is."""
    return a if math.isnan(a) or a >= b else b


def rows(x: np.ndarray) -> list[tuple[int, ...]]:
    """Every index of all axes but the last."""
    return list(np.ndindex(x.shape[:-1]))


# Contractions --------------------------------------------------------------------------------------------------


def linear(x, w, b, d, scratch, y):
    for n in range(len(x)):
        for m in range(d.m):
            terms = [x.item(n, k) * w.item(k, m) for k in range(d.k)]
            y[n, m] = total([*terms, b.item(m)] if b is not None else terms)


def linear_backward(dy, x, w, d, scratch, dx, dw, db):
    samples = range(len(x))
    for n in samples:
        for k in range(d.k):
            if dx is not None:
                dx[n, k] = total([dy.item(n, m) * w.item(k, m) for m in range(d.m)])
    for k in range(d.k):
        for m in range(d.m):
            dw[k, m] = total([x.item(n, k) * dy.item(n, m) for n in samples])
    for m in range(d.m):
        if db is not None:
            db[m] = total([dy.item(n, m) for n in samples])


def _products(d) -> Iterator[tuple[int, ...]]:
    """(p, q, f, i, j, c, h, v, channel) of every product: y[p, q, f] takes x[h, v, channel] w[i, j, c, f]."""
    group_channels, group_filters = d.c // d.groups, d.f // d.groups
    for p in range(d.oh):
        for q in range(d.ow):
            for f in range(d.f):
                first = f // group_filters * group_channels
                for i in range(d.kh):
                    for j in range(d.kw):
                        h = p * d.stride_h - d.pad_h + i * d.dilation_h
                        v = q * d.stride_w - d.pad_w + j * d.dilation_w
                        if 0 <= h < d.h and 0 <= v < d.w:
                            for c in range(group_channels):
                                yield p, q, f, i, j, c, h, v, first + c


def _write_sums(out: np.ndarray, terms: dict[tuple[int, ...], list[float]]) -> None:
    for index in np.ndindex(out.shape):
        out[index] = total(terms.get(index, [0.0]))


def conv2d(x, w, b, d, scratch, y):
    terms = {index: [b.item(index[-1])] if b is not None else [] for index in np.ndindex(y.shape)}
    for p, q, f, i, j, c, h, v, channel in _products(d):
        for n in range(len(x)):
            terms[n, p, q, f].append(x.item(n, h, v, channel) * w.item(i, j, c, f))
    _write_sums(y, terms)


def conv2d_backward(dy, x, w, d, scratch, dx, dw, db):
    dx_terms, dw_terms, db_terms = {}, {}, {}
    for p, q, f, i, j, c, h, v, channel in _products(d):
        for n in range(len(x)):
            g = dy.item(n, p, q, f)
            dx_terms.setdefault((n, h, v, channel), []).append(g * w.item(i, j, c, f))
            dw_terms.setdefault((i, j, c, f), []).append(g * x.item(n, h, v, channel))
    for n, p, q, f in np.ndindex(dy.shape):
        db_terms.setdefault((f,), []).append(dy.item(n, p, q, f))
    for out, terms in (dx, dx_terms), (dw, dw_terms), (db, db_terms):
        if out is not None:
            _write_sums(out, terms)


def convtranspose2d(x, w, b, d, scratch, y):
    terms = {index: [b.item(index[-1])] if b is not None else [] for index in np.ndindex(y.shape)}
    for p, q, c, i, j, m, h, v, output in _products(d):
        for n in range(len(x)):
            terms[n, h, v, output].append(x.item(n, p, q, c) * w.item(i, j, m, c))
    _write_sums(y, terms)


def convtranspose2d_backward(dy, x, w, d, scratch, dx, dw, db):
    dx_terms, dw_terms, db_terms = {}, {}, {}
    for p, q, c, i, j, m, h, v, output in _products(d):
        for n in range(len(x)):
            g = dy.item(n, h, v, output)
            dx_terms.setdefault((n, p, q, c), []).append(g * w.item(i, j, m, c))
            dw_terms.setdefault((i, j, m, c), []).append(g * x.item(n, p, q, c))
    for n, h, v, output in np.ndindex(dy.shape):
        db_terms.setdefault((output,), []).append(dy.item(n, h, v, output))
    for out, terms in (dx, dx_terms), (dw, dw_terms), (db, db_terms):
        if out is not None:
            _write_sums(out, terms)


# Pooling -------------------------------------------------------------------------------------------------------


def _places(d, p: int, q: int) -> list[tuple[int, int, int]]:
    """(position in the window, h, v) of every place that output (p, q) covers, in row-major order."""
    return [
        (i * d.kw + j, p * d.stride_h - d.pad_h + i * d.dilation_h, q * d.stride_w - d.pad_w + j * d.dilation_w)
        for i in range(d.kh)
        for j in range(d.kw)
    ]


def _window(d, p: int, q: int) -> list[tuple[int, int, int]]:
    """Those of the places that are real pixels."""
    return [(position, h, v) for position, h, v in _places(d, p, q) if 0 <= h < d.h and 0 <= v < d.w]


def maxpool2d(x, d, y, argmax):
    for n, p, q, c in np.ndindex(y.shape):
        best = None
        for position, h, v in _window(d, p, q):
            value = x.item(n, h, v, c)
            if best is None or value > best or (math.isnan(value) and not math.isnan(best)):
                best, where = value, position
        y[n, p, q, c], argmax[n, p, q, c] = best, where


def maxpool2d_backward(dy, argmax, d, dx):
    terms = {}
    for n, p, q, c in np.ndindex(dy.shape):
        _, h, v = _places(d, p, q)[argmax.item(n, p, q, c)]
        terms.setdefault((n, h, v, c), []).append(dy.item(n, p, q, c))
    _write_sums(dx, terms)


def _divisor(d, count_include_pad: bool, p: int, q: int) -> int:
    if count_include_pad:
        return sum(h < d.h + d.end_h and v < d.w + d.end_w for _, h, v in _places(d, p, q))
    return len(_window(d, p, q))


def avgpool2d(x, d, count_include_pad, y):
    for n, p, q, c in np.ndindex(y.shape):
        values = [x.item(n, h, v, c) for _, h, v in _window(d, p, q)]
        y[n, p, q, c] = total(values) / _divisor(d, count_include_pad, p, q)


def avgpool2d_backward(dy, d, count_include_pad, dx):
    terms = {}
    for n, p, q, c in np.ndindex(dy.shape):
        part = dy.item(n, p, q, c) / _divisor(d, count_include_pad, p, q)
        for _, h, v in _window(d, p, q):
            terms.setdefault((n, h, v, c), []).append(part)
    _write_sums(dx, terms)


# Normalisation -------------------------------------------------------------------------------------------------


def _channel(x: np.ndarray, c: int) -> list[float]:
    return [x.item(*row, c) for row in rows(x)]


def batchnorm(x, gamma, beta, eps, d, scratch, y, mean, inv_std, var):
    for c in range(d.channels):
        values = _channel(x, c)
        m = len(values)
        centre = total(values) / m
        squares = total([(value - centre) * (value - centre) for value in values])
        scale = quotient(1.0, math.sqrt(squares / m + eps))
        mean[c], inv_std[c], var[c] = centre, scale, squares / max(m - 1, 1)
        for row in rows(x):
            y[(*row, c)] = gamma.item(c) * (x.item(*row, c) - centre) * scale + beta.item(c)


def batchnorm_backward(dy, x, gamma, mean, inv_std, d, scratch, dx, dgamma, dbeta):
    for c in range(d.channels):
        normal = {row: (x.item(*row, c) - mean.item(c)) * inv_std.item(c) for row in rows(x)}
        m = len(normal)
        sum_dy = total(_channel(dy, c))
        sum_dy_normal = total([dy.item(*row, c) * normal[row] for row in rows(x)])
        dbeta[c], dgamma[c] = sum_dy, sum_dy_normal
        for row in rows(x):
            if dx is not None:
                centred = dy.item(*row, c) - sum_dy / m - normal[row] * sum_dy_normal / m
                dx[(*row, c)] = gamma.item(c) * inv_std.item(c) * centred


def batchnorm_inference(x, gamma, beta, mean, var, eps, y):
    for c in range(x.shape[-1]):
        scale = quotient(1.0, math.sqrt(var.item(c) + eps))
        for row in rows(x):
            y[(*row, c)] = gamma.item(c) * (x.item(*row, c) - mean.item(c)) * scale + beta.item(c)


def batchnorm_inference_backward(dy, x, gamma, mean, var, eps, d, scratch, dx, dgamma, dbeta):
    for c in range(d.channels):
        scale = quotient(1.0, math.sqrt(var.item(c) + eps))
        dbeta[c] = total(_channel(dy, c))
        dgamma[c] = total([dy.item(*row, c) * (x.item(*row, c) - mean.item(c)) * scale for row in rows(x)])
        for row in rows(x):
            if dx is not None:
                dx[(*row, c)] = dy.item(*row, c) * gamma.item(c) * scale


def meannorm(x, beta, d, scratch, y, mean):
    for c in range(d.channels):
        values = _channel(x, c)
        mean[c] = centre = total(values) / len(values)
        for row in rows(x):
            y[(*row, c)] = x.item(*row, c) - centre + beta.item(c)


def meannorm_backward(dy, d, scratch, dx, dbeta):
    for c in range(d.channels):
        values = _channel(dy, c)
        dbeta[c] = gradient = total(values)
        for row in rows(dy):
            if dx is not None:
                dx[(*row, c)] = dy.item(*row, c) - gradient / len(values)


def meannorm_inference(x, beta, mean, y):
    for row in rows(x):
        for c in range(x.shape[-1]):
            y[(*row, c)] = x.item(*row, c) - mean.item(c) + beta.item(c)


def meannorm_inference_backward(dy, d, scratch, dx, dbeta):
    for c in range(d.channels):
        dbeta[c] = total(_channel(dy, c))
        for row in rows(dy):
            if dx is not None:
                dx[(*row, c)] = dy.item(*row, c)


def _standardised(values: list[float], eps: float) -> tuple[float, float]:
    """Mean and 1 / √(biased variance + eps)."""
    centre = total(values) / len(values)
    variance = total([(value - centre) * (value - centre) for value in values]) / len(values)
    return centre, quotient(1.0, math.sqrt(variance + eps))


def _normalise(members, x, gamma, beta, eps, y, mean, inv_std):
    """members: by statistic, the (index, channel) of what it is of."""
    for statistic, indices in members.items():
        mean[statistic], inv_std[statistic] = _standardised([x.item(i) for i, _ in indices], eps)
        for i, c in indices:
            y[i] = gamma.item(c) * (x.item(i) - mean.item(statistic)) * inv_std.item(statistic) + beta.item(c)


def _normalise_backward(members, dy, x, gamma, mean, inv_std, dx, dgamma, dbeta):
    gamma_terms, beta_terms = {}, {}
    for statistic, indices in members.items():
        centre, scale = mean.item(statistic), inv_std.item(statistic)
        for i, c in indices:
            beta_terms.setdefault((c,), []).append(dy.item(i))
            gamma_terms.setdefault((c,), []).append(dy.item(i) * (x.item(i) - centre) * scale)
        if dx is not None:
            g = [gamma.item(c) * dy.item(i) for i, c in indices]
            normal = [(x.item(i) - centre) * scale for i, _ in indices]
            mean_g = total(g) / len(g)
            slope = total([left * right for left, right in zip(g, normal, strict=True)]) / len(g)
            for (i, _), left, right in zip(indices, g, normal, strict=True):
                dx[i] = scale * (left - mean_g - right * slope)
    _write_sums(dgamma, gamma_terms)
    _write_sums(dbeta, beta_terms)


def _layers(n, d):
    places = itertools.product(range(n), range(d.positions))
    return {row: [((*row, c), c) for c in range(d.channels)] for row in places}


def layernorm(x, gamma, beta, eps, d, y, mean, inv_std):
    (x, y), (mean, inv_std) = _by_layer(d, x, y), _by_position(d, mean, inv_std)
    _normalise(_layers(len(x), d), x, gamma.reshape(-1), beta.reshape(-1), eps, y, mean, inv_std)


def layernorm_backward(dy, x, gamma, mean, inv_std, d, scratch, dx, dgamma, dbeta):
    (dy, x), (mean, inv_std) = _by_layer(d, dy, x), _by_position(d, mean, inv_std)
    dx = None if dx is None else dx.reshape(x.shape)
    vectors = dgamma.reshape(-1), dbeta.reshape(-1)
    _normalise_backward(_layers(len(x), d), dy, x, gamma.reshape(-1), mean, inv_std, dx, *vectors)


def _by_layer(d, *arrays):
    return tuple(array.reshape(len(array), d.positions, d.channels) for array in arrays)


def _by_position(d, *arrays):
    return tuple(array.reshape(len(array), d.positions) for array in arrays)


def _groups(n, d):
    size = d.channels // d.groups
    return {
        (i, g): [((i, p, c), c) for p in range(d.positions) for c in range(g * size, g * size + size)]
        for i, g in itertools.product(range(n), range(d.groups))
    }


def groupnorm(x, gamma, beta, eps, d, scratch, y, mean, inv_std):
    x, y = _by_layer(d, x, y)
    _normalise(_groups(len(x), d), x, gamma, beta, eps, y, mean, inv_std)


def groupnorm_backward(dy, x, gamma, mean, inv_std, d, scratch, dx, dgamma, dbeta):
    dy, x = _by_layer(d, dy, x)
    dx = None if dx is None else dx.reshape(x.shape)
    _normalise_backward(_groups(len(x), d), dy, x, gamma, mean, inv_std, dx, dgamma, dbeta)


def _window_of(c: int, size: int, channels: int) -> range:
    return range(max(c - (size - 1) // 2, 0), min(c + size // 2, channels - 1) + 1)


def local_response_norm(x, size, alpha, beta, bias, d, y, scale):
    for row in rows(x):
        for c in range(d.channels):
            squares = [x.item(*row, k) * x.item(*row, k) for k in _window_of(c, size, d.channels)]
            scale[(*row, c)] = bias + alpha / size * total(squares)
            y[(*row, c)] = x.item(*row, c) * positive_power(scale.item(*row, c), -beta)


def local_response_norm_backward(dy, x, scale, size, alpha, beta, d, scratch, dx):
    for row in rows(x):
        terms = {(k,): [] for k in range(d.channels)}
        for c in range(d.channels):
            for k in _window_of(c, size, d.channels):
                terms[k,].append(dy.item(*row, c) * x.item(*row, c) * positive_power(scale.item(*row, c), -beta - 1.0))
        for k in range(d.channels):
            own = dy.item(*row, k) * positive_power(scale.item(*row, k), -beta)
            dx[(*row, k)] = own - 2.0 * alpha * beta / size * x.item(*row, k) * total(terms[k,])


def ema_update(running, value, momentum):
    for i in np.ndindex(running.shape):
        running[i] = running.item(i) + momentum * (value.item(i) - running.item(i))


# Activations ---------------------------------------------------------------------------------------------------


def _sigmoid(x: float) -> float:
    return 1.0 / (1.0 + exponential(-x))


def _distribution(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2.0))


def _density(x: float) -> float:
    return exponential(-0.5 * x * x) / math.sqrt(2.0 * math.pi)


def relu(x, y):
    for i in np.ndindex(x.shape):
        y[i] = 0.0 if x.item(i) <= 0.0 else x.item(i)


def relu_backward(dy, x, y, dx):
    for i in np.ndindex(x.shape):
        dx[i] = 0.0 if x.item(i) <= 0.0 else dy.item(i)


def leaky_relu(x, negative_slope, y):
    for i in np.ndindex(x.shape):
        y[i] = x.item(i) if x.item(i) > 0.0 else negative_slope * x.item(i)


def leaky_relu_backward(dy, x, y, negative_slope, dx):
    for i in np.ndindex(x.shape):
        dx[i] = dy.item(i) if x.item(i) > 0.0 else negative_slope * dy.item(i)


def elu(x, alpha, y):
    for i in np.ndindex(x.shape):
        y[i] = x.item(i) if x.item(i) > 0.0 else alpha * math.expm1(x.item(i))


def elu_backward(dy, x, y, alpha, dx):
    for i in np.ndindex(x.shape):
        dx[i] = dy.item(i) if x.item(i) > 0.0 else dy.item(i) * (y.item(i) + alpha)


def gelu(x, y):
    for i in np.ndindex(x.shape):
        y[i] = x.item(i) * _distribution(x.item(i))


def gelu_backward(dy, x, y, dx):
    for i in np.ndindex(x.shape):
        dx[i] = dy.item(i) * (_distribution(x.item(i)) + x.item(i) * _density(x.item(i)))


def silu(x, y):
    for i in np.ndindex(x.shape):
        y[i] = x.item(i) * _sigmoid(x.item(i))


def silu_backward(dy, x, y, dx):
    for i in np.ndindex(x.shape):
        s = _sigmoid(x.item(i))
        dx[i] = dy.item(i) * s * (1.0 + x.item(i) * _sigmoid(-x.item(i)))


def sigmoid(x, y):
    for i in np.ndindex(x.shape):
        y[i] = _sigmoid(x.item(i))


def sigmoid_backward(dy, x, y, dx):
    for i in np.ndindex(x.shape):
        dx[i] = dy.item(i) * y.item(i) * (1.0 - y.item(i))


def tanh(x, y):
    for i in np.ndindex(x.shape):
        y[i] = math.tanh(x.item(i))


def tanh_backward(dy, x, y, dx):
    for i in np.ndindex(x.shape):
        dx[i] = dy.item(i) * (1.0 - y.item(i) * y.item(i))


def softplus(x, y):
    for i in np.ndindex(x.shape):
        y[i] = larger(x.item(i), 0.0) + math.log1p(exponential(-abs(x.item(i))))


def softplus_backward(dy, x, y, dx):
    for i in np.ndindex(x.shape):
        dx[i] = dy.item(i) * _sigmoid(x.item(i))


def clip(x, low, high, y):
    for i in np.ndindex(x.shape):
        above = low if x.item(i) <= low else x.item(i)
        y[i] = high if above > high else above


def clip_backward(dy, x, y, low, high, dx):
    for i in np.ndindex(x.shape):
        dx[i] = 0.0 if x.item(i) <= low or x.item(i) >= high else dy.item(i)


def hard_sigmoid(x, alpha, beta, y):
    for i in np.ndindex(x.shape):
        line = alpha * x.item(i) + beta
        y[i] = 0.0 if line <= 0.0 else 1.0 if line >= 1.0 else line


def hard_sigmoid_backward(dy, x, y, alpha, beta, dx):
    for i in np.ndindex(x.shape):
        dx[i] = 0.0 if y.item(i) <= 0.0 or y.item(i) >= 1.0 else alpha * dy.item(i)


def hard_swish(x, y):
    for i in np.ndindex(x.shape):
        line = x.item(i) + 3.0
        y[i] = x.item(i) * (0.0 if line <= 0.0 else 6.0 if line >= 6.0 else line) / 6.0


def hard_swish_backward(dy, x, y, dx):
    for i in np.ndindex(x.shape):
        middle = dy.item(i) * (x.item(i) / 3.0 + 0.5)
        dx[i] = 0.0 if x.item(i) <= -3.0 else dy.item(i) if x.item(i) >= 3.0 else middle


def _tanh_softplus(x: float) -> float:
    return math.tanh(larger(x, 0.0) + math.log1p(exponential(-abs(x))))


def mish(x, y):
    for i in np.ndindex(x.shape):
        y[i] = x.item(i) * _tanh_softplus(x.item(i))


def mish_backward(dy, x, y, dx):
    for i in np.ndindex(x.shape):
        t = _tanh_softplus(x.item(i))
        dx[i] = dy.item(i) * (t + x.item(i) * _sigmoid(x.item(i)) * (1.0 - t * t))


def selu(x, alpha, gamma, y):
    for i in np.ndindex(x.shape):
        y[i] = gamma * x.item(i) if x.item(i) > 0.0 else gamma * alpha * math.expm1(x.item(i))


def selu_backward(dy, x, y, alpha, gamma, dx):
    for i in np.ndindex(x.shape):
        dx[i] = gamma * dy.item(i) if x.item(i) > 0.0 else dy.item(i) * (y.item(i) + gamma * alpha)


def celu(x, alpha, y):
    for i in np.ndindex(x.shape):
        y[i] = x.item(i) if x.item(i) > 0.0 else alpha * math.expm1(x.item(i) / alpha)


def celu_backward(dy, x, y, alpha, dx):
    for i in np.ndindex(x.shape):
        dx[i] = dy.item(i) if x.item(i) > 0.0 else dy.item(i) * (1.0 + y.item(i) / alpha)


def _u(x: float) -> float:
    return math.sqrt(2.0 / math.pi) * (x + 0.044715 * x * x * x)


def gelu_tanh(x, y):
    for i in np.ndindex(x.shape):
        y[i] = x.item(i) * _sigmoid(2.0 * _u(x.item(i)))


def gelu_tanh_backward(dy, x, y, dx):
    for i in np.ndindex(x.shape):
        v = x.item(i)
        s, rest = _sigmoid(2.0 * _u(v)), _sigmoid(-2.0 * _u(v))
        slope = math.sqrt(2.0 / math.pi) * (1.0 + 3.0 * 0.044715 * v * v)
        dx[i] = dy.item(i) * (s + 2.0 * v * s * rest * slope)


def softsign(x, y):
    for i in np.ndindex(x.shape):
        y[i] = x.item(i) / (1.0 + abs(x.item(i)))


def softsign_backward(dy, x, y, dx):
    for i in np.ndindex(x.shape):
        dx[i] = dy.item(i) / (1.0 + abs(x.item(i))) / (1.0 + abs(x.item(i)))


def thresholded_relu(x, alpha, y):
    for i in np.ndindex(x.shape):
        y[i] = 0.0 if x.item(i) <= alpha else x.item(i)


def thresholded_relu_backward(dy, x, y, alpha, dx):
    for i in np.ndindex(x.shape):
        dx[i] = 0.0 if x.item(i) <= alpha else dy.item(i)


def prelu(x, slope, y):
    for row in rows(x):
        for c in range(x.shape[-1]):
            value = x.item(*row, c)
            y[(*row, c)] = value if value > 0.0 else slope.item(c % slope.size) * value


def prelu_backward(dy, x, slope, d, scratch, dx, dslope):
    terms = [[] for _ in range(slope.size)]
    for row in rows(x):
        for c in range(x.shape[-1]):
            value, gradient, which = x.item(*row, c), dy.item(*row, c), c % slope.size
            terms[which].append(gradient * (0.0 if value > 0.0 else value))
            if dx is not None:
                dx[(*row, c)] = gradient if value > 0.0 else slope.item(which) * gradient
    for c in range(slope.size):
        dslope[c] = total(terms[c])


def _mix(z: int) -> int:
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & WORD
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & WORD
    return z ^ (z >> 31)


def dropout(x, rate, seed, step, y, mask):
    g = 0x9E3779B97F4A7C15
    key = _mix((_mix(seed & WORD) + (step + 1) * g) & WORD)
    for flat, i in enumerate(np.ndindex(x.shape)):
        mask[i] = _mix((key + (flat + 1) * g) & WORD) >> 32 >= math.floor(rate * 2**32)
        y[i] = x.item(i) / (1.0 - rate) if mask.item(i) else 0.0


def dropout_backward(dy, mask, rate, dx):
    for i in np.ndindex(dy.shape):
        dx[i] = dy.item(i) / (1.0 - rate) if mask.item(i) else 0.0


# Functions -----------------------------------------------------------------------------------------------------


def _power(x: float, exponent: float) -> float:
    """x^exponent as IEEE 754 has it: no exception at a pole or out of the domain."""
    odd = exponent % 2.0 == 1.0
    try:
        return math.pow(x, exponent)
    except OverflowError:
        return -INF if x < 0.0 and odd else INF
    except ValueError:
        return math.nan if x != 0.0 else math.copysign(INF, x) if odd else INF


def exp(x, y):
    for i in np.ndindex(x.shape):
        y[i] = exponential(x.item(i))


def exp_backward(dy, x, y, dx):
    for i in np.ndindex(x.shape):
        dx[i] = dy.item(i) * y.item(i)


def log(x, y):
    for i in np.ndindex(x.shape):
        y[i] = logarithm(x.item(i))


def log_backward(dy, x, y, dx):
    for i in np.ndindex(x.shape):
        dx[i] = quotient(dy.item(i), x.item(i))


def sqrt(x, y):
    for i in np.ndindex(x.shape):
        y[i] = math.nan if x.item(i) < 0.0 else math.sqrt(x.item(i))


def sqrt_backward(dy, x, y, dx):
    for i in np.ndindex(x.shape):
        dx[i] = quotient(dy.item(i), 2.0 * y.item(i))


def absolute(x, y):
    for i in np.ndindex(x.shape):
        y[i] = abs(x.item(i))


def absolute_backward(dy, x, y, dx):
    for i in np.ndindex(x.shape):
        value = x.item(i)
        dx[i] = dy.item(i) * (value if math.isnan(value) else (value > 0.0) - (value < 0.0))


def negative(x, y):
    for i in np.ndindex(x.shape):
        y[i] = -x.item(i)


def negative_backward(dy, x, y, dx):
    for i in np.ndindex(x.shape):
        dx[i] = -dy.item(i)


def reciprocal(x, y):
    for i in np.ndindex(x.shape):
        y[i] = quotient(1.0, x.item(i))


def reciprocal_backward(dy, x, y, dx):
    for i in np.ndindex(x.shape):
        dx[i] = -dy.item(i) * y.item(i) * y.item(i)


def power(x, exponent, y):
    for i in np.ndindex(x.shape):
        y[i] = _power(x.item(i), exponent)


def power_backward(dy, x, y, exponent, dx):
    for i in np.ndindex(x.shape):
        dx[i] = dy.item(i) * exponent * _power(x.item(i), exponent - 1.0) if exponent else 0.0


def round_to_bfloat16(x, y):
    for i in np.ndindex(x.shape):
        value = float(np.float32(x.item(i)))
        if math.isfinite(value):
            # Multiples of the spacing that numbers of 8 significant bits, the last one 2**-133 at least, have here.
            spacing = 2.0 ** max(math.frexp(value)[1] - 8, -133)
            rounded = math.copysign(round(value / spacing) * spacing, value)
            value = math.copysign(math.inf, value) if abs(rounded) >= 2.0**128 else rounded
        y[i] = value


def erf(x, y):
    for i in np.ndindex(x.shape):
        y[i] = math.erf(x.item(i))


def erf_backward(dy, x, y, dx):
    for i in np.ndindex(x.shape):
        dx[i] = dy.item(i) * 2.0 / math.sqrt(math.pi) * exponential(-x.item(i) * x.item(i))


# Softmax and losses --------------------------------------------------------------------------------------------


def _log_softmax(values: list[float]) -> list[float]:
    top = values[0]
    for value in values:
        top = larger(top, value)
        top = value if math.isnan(value) else top
    log_sum = logarithm(total([exponential(value - top) for value in values]))
    return [value - top - log_sum for value in values]


def softmax(x, y):
    for row in rows(x):
        for c, log_y in enumerate(_log_softmax(x[row].tolist())):
            y[(*row, c)] = exponential(log_y)


def softmax_backward(dy, x, y, dx):
    for row in rows(y):
        inner = total([dy.item(*row, c) * y.item(*row, c) for c in range(y.shape[-1])])
        for c in range(y.shape[-1]):
            dx[(*row, c)] = y.item(*row, c) * (dy.item(*row, c) - inner)


def log_softmax(x, y):
    for row in rows(x):
        for c, log_y in enumerate(_log_softmax(x[row].tolist())):
            y[(*row, c)] = log_y


def log_softmax_backward(dy, x, y, dx):
    for row in rows(y):
        sum_dy = total(dy[row].tolist())
        for c in range(y.shape[-1]):
            dx[(*row, c)] = dy.item(*row, c) - exponential(y.item(*row, c)) * sum_dy


def softmax_cross_entropy(logits, labels, smoothing, d, scratch, loss, dlogits):
    n, classes = logits.shape
    losses = []
    for i in range(n):
        log_p = _log_softmax(logits[i].tolist())
        label = labels.item(i)
        for c in range(classes):
            target = (1.0 - smoothing) * (c == label) + smoothing / classes
            if not 0 <= label < classes:
                target = math.nan
            dlogits[i, c] = (exponential(log_p[c]) - target) / n
            if target:
                losses.append(-target * log_p[c])
    loss[()] = total(losses) / n


def mse(prediction, target, d, scratch, loss, dprediction):
    squares = []
    for i in np.ndindex(prediction.shape):
        difference = prediction.item(i) - target.item(i)
        squares.append(difference * difference)
        dprediction[i] = 2.0 * difference / prediction.size
    loss[()] = total(squares) / prediction.size


def _weighed(elements, slopes, weights, loss, gradient):
    """Means of each sample's elements, weighed: by (sample, place within it), its loss and its slope."""
    n = len(gradient)
    own = [1.0] * n if weights is None else weights.tolist()
    whole = total(own)
    losses = []
    for i in range(n):
        places = list(np.ndindex(gradient.shape[1:]))
        share = quotient(own[i], whole) if own[i] else 0.0
        for place in places:
            gradient[(i, *place)] = slopes((i, *place)) * share / len(places) if share else 0.0
            if share:
                losses.append(elements((i, *place)) * share / len(places))
    loss[()] = total(losses)


def weighted_cross_entropy(logits, labels, weights, smoothing, d, scratch, loss, dlogits):
    n, classes = logits.shape
    whole, losses = total(weights.tolist()), []
    for i in range(n):
        log_p, label = _log_softmax(logits[i].tolist()), labels.item(i)
        share = weights.item(i) / whole if weights.item(i) else 0.0
        for c in range(classes):
            target = (1.0 - smoothing) * (c == label) + smoothing / classes
            if not 0 <= label < classes:
                target = math.nan
            dlogits[i, c] = (exponential(log_p[c]) - target) * share if share else 0.0
            if target and share:
                losses.append(-target * log_p[c] * share)
    loss[()] = total(losses)


def soft_cross_entropy(logits, target, weights, d, scratch, loss, dlogits):
    n, classes = logits.shape
    own = [1.0] * n if weights is None else weights.tolist()
    whole, losses = total(own), []
    for i in range(n):
        log_p, t = _log_softmax(logits[i].tolist()), target[i].tolist()
        share = own[i] / whole if own[i] else 0.0
        for c in range(classes):
            dlogits[i, c] = (exponential(log_p[c]) * total(t) - t[c]) * share if share else 0.0
            if t[c] and share:
                losses.append(-t[c] * log_p[c] * share)
    loss[()] = total(losses)


def binary_cross_entropy(logits, target, weights, d, scratch, loss, dlogits):
    def element(at):
        x, t = logits.item(at), target.item(at)
        return max(x, 0.0) * (1.0 if x == x else math.nan) - x * t + math.log1p(exponential(-abs(x)))

    _weighed(element, lambda at: _sigmoid(logits.item(at)) - target.item(at), weights, loss, dlogits)


def huber(prediction, target, weights, threshold, d, scratch, loss, dprediction):
    def element(at):
        e = abs(prediction.item(at) - target.item(at))
        return e * e / 2.0 if e <= threshold else threshold * (e - threshold / 2.0)

    def slope(at):
        e = prediction.item(at) - target.item(at)
        return e if not abs(e) > threshold else math.copysign(threshold, e)

    _weighed(element, slope, weights, loss, dprediction)


def mae(prediction, target, weights, d, scratch, loss, dprediction):
    def slope(at):
        e = prediction.item(at) - target.item(at)
        return e if not abs(e) > 0.0 else math.copysign(1.0, e)

    _weighed(lambda at: abs(prediction.item(at) - target.item(at)), slope, weights, loss, dprediction)


def weighted_mse(prediction, target, weights, d, scratch, loss, dprediction):
    def element(at):
        e = prediction.item(at) - target.item(at)
        return e * e

    _weighed(element, lambda at: 2.0 * (prediction.item(at) - target.item(at)), weights, loss, dprediction)


# Arithmetic of two arrays --------------------------------------------------------------------------------------


def _source(index: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    """Where in an array of this shape the element lies that broadcasting brings to an index."""
    own = index[len(index) - len(shape) :]
    return tuple(0 if size == 1 else i for i, size in zip(own, shape, strict=True))


def _arithmetic(function, a, b, y):
    for i in np.ndindex(y.shape):
        y[i] = function(a.item(_source(i, a.shape)), b.item(_source(i, b.shape)))


def _gradient(function, dy, other, out):
    """out = Σ function(dy, other) over the places that an element of out was repeated at."""
    terms = {}
    for i in np.ndindex(dy.shape):
        value = function(dy.item(i), other.item(_source(i, other.shape)))
        terms.setdefault(_source(i, out.shape), []).append(value)
    _write_sums(out, terms)


def add(a, b, y):
    _arithmetic(lambda left, right: left + right, a, b, y)


def add_backward(dy, d, scratch, da, db):
    for out in (da, db):
        if out is not None:
            _gradient(lambda g, _: g, dy, dy, out)


def subtract(a, b, y):
    _arithmetic(lambda left, right: left - right, a, b, y)


def subtract_backward(dy, d, scratch, da, db):
    if da is not None:
        _gradient(lambda g, _: g, dy, dy, da)
    if db is not None:
        _gradient(lambda g, _: -g, dy, dy, db)


def multiply(a, b, y):
    _arithmetic(lambda left, right: left * right, a, b, y)


def multiply_backward(dy, a, b, d, scratch, da, db):
    for out, other in ((da, b), (db, a)):
        if out is not None:
            _gradient(lambda g, value: g * value, dy, other, out)


def divide(a, b, y):
    _arithmetic(quotient, a, b, y)


def divide_backward(dy, a, b, d, scratch, da, db):
    if da is not None:
        _gradient(quotient, dy, b, da)
    if db is not None:
        _gradient(lambda g, value: g * value, dy, a, db)
        for i in np.ndindex(b.shape):
            db[i] = -quotient(quotient(db.item(i), b.item(i)), b.item(i))


def raise_to_power(a, b, y):
    _arithmetic(_power, a, b, y)


def raise_to_power_backward(dy, a, b, d, scratch, da, db):
    slopes = np.empty(dy.shape)
    for out, slope in ((da, _slope_by_base), (db, _slope_by_exponent)):
        if out is not None:
            _arithmetic(slope, a, b, slopes)
            _gradient(lambda g, value: g * value, dy, slopes, out)


def _slope_by_base(a: float, b: float) -> float:
    return 0.0 if b == 0.0 else b * _power(a, b - 1.0)


def _slope_by_exponent(a: float, b: float) -> float:
    return 0.0 if a == 0.0 and b >= 0.0 else _power(a, b) * logarithm(a)


def mean(x, d, y):
    x, y = x.reshape(len(x), *d), y.reshape(len(x), d.before, d.after)
    for n, i, j in np.ndindex(y.shape):
        y[n, i, j] = total([x.item(n, i, k, j) for k in range(d.size)]) / d.size


def mean_backward(dy, d, dx):
    dy, dx = dy.reshape(len(dy), d.before, d.after), dx.reshape(len(dy), *d)
    for n, i, k, j in np.ndindex(dx.shape):
        dx[n, i, k, j] = dy.item(n, i, j) / d.size


# Joining, cutting and moving -----------------------------------------------------------------------------------


def concat(a, b, third, fourth, y):
    for row in rows(y):
        values = [value for part in (a, b, third, fourth) if part is not None for value in part[row].tolist()]
        for c, value in enumerate(values):
            y[(*row, c)] = value


def concat_backward(dy, da, db):
    for *row, c in np.ndindex(dy.shape):
        if c < da.shape[-1]:
            da[(*row, c)] = dy.item(*row, c)
        else:
            db[(*row, c - da.shape[-1])] = dy.item(*row, c)


def slice(x, d, y):
    x, y = x.reshape(len(x), d.before, d.size, d.after), y.reshape(len(x), d.before, d.kept, d.after)
    for n, i, k, j in np.ndindex(y.shape):
        y[n, i, k, j] = x.item(n, i, d.start + k * d.step, j)


def slice_backward(dy, d, dx):
    dy, dx = dy.reshape(len(dy), d.before, d.kept, d.after), dx.reshape(len(dy), d.before, d.size, d.after)
    for index in np.ndindex(dx.shape):
        dx[index] = 0.0
    for n, i, k, j in np.ndindex(dy.shape):
        dx[n, i, d.start + k * d.step, j] = dy.item(n, i, k, j)


def transpose(x, axes, y):
    for index in np.ndindex(x.shape):
        y[tuple(index[axis] for axis in axes)] = x.item(index)


def _inside(place: int, size: int, mode: str) -> int | None:
    """The place of x that a place stands for, None for none."""
    if mode == "reflect":
        while not 0 <= place < size:
            place = -place if place < 0 else 2 * (size - 1) - place
    if mode == "edge":
        return min(max(place, 0), size - 1)
    return place if 0 <= place < size else None


def pad2d(x, d, mode, value, y):
    for n, p, q, c in np.ndindex(y.shape):
        h, v = _inside(p - d.top, d.h, mode), _inside(q - d.left, d.w, mode)
        y[n, p, q, c] = value if h is None or v is None else x.item(n, h, v, c)


def pad2d_backward(dy, d, mode, dx):
    terms = {}
    for n, p, q, c in np.ndindex(dy.shape):
        h, v = _inside(p - d.top, d.h, mode), _inside(q - d.left, d.w, mode)
        if h is not None and v is not None:
            terms.setdefault((n, h, v, c), []).append(dy.item(n, p, q, c))
    _write_sums(dx, terms)


def upsample2d(x, d, y):
    for n, p, q, c in np.ndindex(y.shape):
        y[n, p, q, c] = x.item(n, p // d.factor_h, q // d.factor_w, c)


def upsample2d_backward(dy, d, dx):
    terms = {}
    for n, p, q, c in np.ndindex(dy.shape):
        terms.setdefault((n, p // d.factor_h, q // d.factor_w, c), []).append(dy.item(n, p, q, c))
    _write_sums(dx, terms)


# Augmentation --------------------------------------------------------------------------------------------------


def uniform(indices, seed, step, u):
    g = 0x9E3779B97F4A7C15
    key = _mix((_mix(seed & WORD) + (step + 1) * g) & WORD)
    for n in range(len(indices)):
        sample = _mix((key + (indices.item(n) + 1) * g) & WORD)
        for j, place in enumerate(np.ndindex(u.shape[1:])):
            upper = _mix((sample + (j + 1) * g) & WORD) >> 32
            u[(n, *place)] = (upper - (1 << 32) if upper >= 1 << 31 else upper) / 2**31


def smooth2d(x, weights, d, scratch, y):
    for n, h, w, c in np.ndindex(y.shape):
        y[n, h, w, c] = total(
            [
                weights.item(abs(h - k)) * weights.item(abs(w - v)) * x.item(n, k, v, c)
                for k in range(d.h)
                for v in range(d.w)
                if abs(h - k) < len(weights) and abs(w - v) < len(weights)
            ]
        )


def warp(x, matrix, field, fill, d, scratch, y):
    def pixel(n: int, i: int, j: int, c: int) -> float:
        return x.item(n, i, j, c) if 0 <= i < d.h and 0 <= j < d.w else fill

    for n, h, w, c in np.ndindex(y.shape):
        output = (h - (d.h - 1) / 2, w - (d.w - 1) / 2, 1.0)
        r, s = (sum(matrix.item(n, axis, k) * output[k] for k in range(3)) for axis in (0, 1))
        r += (d.h - 1) / 2 + (field.item(n, h, w, 0) if field is not None else 0.0)
        s += (d.w - 1) / 2 + (field.item(n, h, w, 1) if field is not None else 0.0)
        if math.isnan(r) or math.isnan(s):
            y[n, h, w, c] = math.nan
        elif not (-1 <= r <= d.h and -1 <= s <= d.w):
            y[n, h, w, c] = fill
        else:
            i, j = math.floor(r), math.floor(s)
            a, b = r - i, s - j
            above = (1 - b) * pixel(n, i, j, c) + b * pixel(n, i, j + 1, c)
            below = (1 - b) * pixel(n, i + 1, j, c) + b * pixel(n, i + 1, j + 1, c)
            y[n, h, w, c] = (1 - a) * above + a * below


# Optimizers ----------------------------------------------------------------------------------------------------


def _decayed(p: float, g: float, learning_rate: float, weight_decay: float, decoupled: bool) -> tuple[float, float]:
    """The parameter and the gradient that the rule proper sees."""
    if decoupled:
        return p - learning_rate * weight_decay * p, g
    return p, g + weight_decay * p


def sgd(p, g, v, learning_rate, momentum, nesterov, weight_decay, decoupled):
    for i in range(p.size):
        weight, slope = _decayed(p.item(i), g.item(i), learning_rate, weight_decay, decoupled)
        direction = slope
        if v is not None:
            v[i] = momentum * v.item(i) + slope
            direction = slope + momentum * v.item(i) if nesterov else v.item(i)
        p[i] = weight - learning_rate * direction


def rmsprop(p, g, v, learning_rate, rho, eps, weight_decay, decoupled):
    for i in range(p.size):
        weight, slope = _decayed(p.item(i), g.item(i), learning_rate, weight_decay, decoupled)
        v[i] = rho * v.item(i) + (1.0 - rho) * slope * slope
        p[i] = weight - learning_rate * quotient(slope, math.sqrt(v.item(i)) + eps)


def adam(p, g, m, v, step, learning_rate, beta1, beta2, eps, weight_decay, decoupled):
    for i in range(p.size):
        weight, slope = _decayed(p.item(i), g.item(i), learning_rate, weight_decay, decoupled)
        m[i] = beta1 * m.item(i) + (1.0 - beta1) * slope
        v[i] = beta2 * v.item(i) + (1.0 - beta2) * slope * slope
        m_hat = m.item(i) / (1.0 - beta1**step)
        v_hat = v.item(i) / (1.0 - beta2**step)
        p[i] = weight - learning_rate * quotient(m_hat, math.sqrt(v_hat) + eps)


def clip_norm(g, limit, d, scratch):
    norm = math.sqrt(total([x * x for x in g.tolist()])) + 1e-6
    if not norm <= limit:
        for i in range(g.size):
            g[i] = g.item(i) * (limit / norm)
