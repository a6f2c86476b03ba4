"""Ten kernels of the kind that benchmark suites have, each in NumPy and in Numba, as somebody else might write them."""

import math

import numba
import numpy as np


def softmax_numpy(x):
    shifted = np.exp(x - np.max(x, axis=-1, keepdims=True))
    return shifted / np.sum(shifted, axis=-1, keepdims=True)


@numba.njit(parallel=True, cache=True)
def softmax_numba(x):
    y = np.empty_like(x)
    for i in numba.prange(x.shape[0]):
        for j in range(x.shape[1]):
            for k in range(x.shape[2]):
                largest = x[i, j, k].max()
                total = x.dtype.type(0)
                for m in range(x.shape[3]):
                    y[i, j, k, m] = np.exp(x[i, j, k, m] - largest)
                    total += y[i, j, k, m]
                for m in range(x.shape[3]):
                    y[i, j, k, m] /= total
    return y


def mlp_numpy(x, w1, b1, w2, b2):
    hidden = np.maximum(x @ w1 + b1, 0)
    return hidden @ w2 + b2


@numba.njit(cache=True)
def mlp_numba(x, w1, b1, w2, b2):
    hidden = np.dot(x, w1)
    for i in range(hidden.shape[0]):
        for j in range(hidden.shape[1]):
            value = hidden[i, j] + b1[j]
            hidden[i, j] = value if value > 0 else x.dtype.type(0)
    y = np.dot(hidden, w2)
    for i in range(y.shape[0]):
        for j in range(y.shape[1]):
            y[i, j] += b2[j]
    return y


def conv2d_numpy(x, w, b):
    size = w.shape[0]
    rows, columns = x.shape[1] - size + 1, x.shape[2] - size + 1
    y = np.empty((x.shape[0], rows, columns, w.shape[3]), x.dtype)
    for i in range(rows):
        for j in range(columns):
            patch = x[:, i : i + size, j : j + size, :, np.newaxis]
            y[:, i, j] = np.sum(patch * w[np.newaxis], axis=(1, 2, 3))
    return y + b


@numba.njit(parallel=True, cache=True)
def conv2d_numba(x, w, b):
    size = w.shape[0]
    rows, columns = x.shape[1] - size + 1, x.shape[2] - size + 1
    y = np.empty((x.shape[0], rows, columns, w.shape[3]), x.dtype)
    for i in numba.prange(rows):
        for n in range(x.shape[0]):
            for j in range(columns):
                for f in range(w.shape[3]):
                    y[n, i, j, f] = b[f]
                for p in range(size):
                    for q in range(size):
                        for c in range(x.shape[3]):
                            for f in range(w.shape[3]):
                                y[n, i, j, f] += x[n, i + p, j + q, c] * w[p, q, c, f]
    return y


def jacobi_numpy(steps, a, b):
    for _ in range(steps):
        b[1:-1, 1:-1] = 0.2 * (a[1:-1, 1:-1] + a[1:-1, :-2] + a[1:-1, 2:] + a[2:, 1:-1] + a[:-2, 1:-1])
        a[1:-1, 1:-1] = 0.2 * (b[1:-1, 1:-1] + b[1:-1, :-2] + b[1:-1, 2:] + b[2:, 1:-1] + b[:-2, 1:-1])


@numba.njit(parallel=True, cache=True)
def jacobi_numba(steps, a, b):
    for _ in range(steps):
        for i in numba.prange(1, a.shape[0] - 1):
            for j in range(1, a.shape[1] - 1):
                b[i, j] = 0.2 * (a[i, j] + a[i, j - 1] + a[i, j + 1] + a[i + 1, j] + a[i - 1, j])
        for i in numba.prange(1, a.shape[0] - 1):
            for j in range(1, a.shape[1] - 1):
                a[i, j] = 0.2 * (b[i, j] + b[i, j - 1] + b[i, j + 1] + b[i + 1, j] + b[i - 1, j])


def histogram_numpy(values, bins):
    return np.bincount(values, minlength=bins)


@numba.njit(cache=True)
def histogram_numba(values, bins):
    counts = np.zeros(bins, np.int64)
    for value in values:
        counts[value] += 1
    return counts


def pairwise_numpy(points):
    return np.sqrt(np.square(points[:, np.newaxis] - points[np.newaxis]).sum(axis=-1))


@numba.njit(parallel=True, cache=True)
def pairwise_numba(points):
    count, axes = points.shape
    distances = np.empty((count, count), points.dtype)
    for i in numba.prange(count):
        for j in range(count):
            square = points.dtype.type(0)
            for k in range(axes):
                difference = points[i, k] - points[j, k]
                square += difference * difference
            distances[i, j] = np.sqrt(square)
    return distances


def scan_numpy(x):
    return np.cumsum(x)


@numba.njit(cache=True)
def scan_numba(x):
    y = np.empty_like(x)
    total = x.dtype.type(0)
    for i in range(x.size):
        total += x[i]
        y[i] = total
    return y


def spmv_numpy(starts, columns, values, x):
    y = np.empty(starts.size - 1, values.dtype)
    for row in range(y.size):
        part = slice(starts[row], starts[row + 1])
        y[row] = values[part] @ x[columns[part]]
    return y


@numba.njit(parallel=True, cache=True)
def spmv_numba(starts, columns, values, x):
    y = np.empty(starts.size - 1, values.dtype)
    for row in numba.prange(y.size):
        total = values.dtype.type(0)
        for at in range(starts[row], starts[row + 1]):
            total += values[at] * x[columns[at]]
        y[row] = total
    return y


def cdf_numpy(z):
    k = 1 / (1 + 0.2316419 * np.abs(z))
    tail = np.exp(-0.5 * z * z) * 0.39894228
    tail *= k * (0.31938153 + k * (-0.356563782 + k * (1.781477937 + k * (-1.821255978 + k * 1.330274429))))
    return np.where(z > 0, 1 - tail, tail)


def black_scholes_numpy(price, strike, years, rate, volatility):
    spread = volatility * np.sqrt(years)
    d1 = (np.log(price / strike) + (rate + 0.5 * volatility * volatility) * years) / spread
    worth = strike * np.exp(-rate * years)
    call = price * cdf_numpy(d1) - worth * cdf_numpy(d1 - spread)
    return call, call - price + worth


@numba.njit(cache=True)
def cdf_numba(z):
    k = 1 / (1 + 0.2316419 * abs(z))
    tail = math.exp(-0.5 * z * z) * 0.39894228
    tail *= k * (0.31938153 + k * (-0.356563782 + k * (1.781477937 + k * (-1.821255978 + k * 1.330274429))))
    return 1 - tail if z > 0 else tail


@numba.njit(parallel=True, cache=True)
def black_scholes_numba(price, strike, years, rate, volatility):
    call, put = np.empty_like(price), np.empty_like(price)
    for i in numba.prange(price.size):
        spread = volatility * math.sqrt(years[i])
        d1 = (math.log(price[i] / strike[i]) + (rate + 0.5 * volatility * volatility) * years[i]) / spread
        worth = strike[i] * math.exp(-rate * years[i])
        call[i] = price[i] * cdf_numba(d1) - worth * cdf_numba(d1 - spread)
        put[i] = call[i] - price[i] + worth
    return call, put


def arc_distance_numpy(a, b, c, d):
    chord = np.sin((c - a) / 2) ** 2 + np.cos(a) * np.cos(c) * np.sin((d - b) / 2) ** 2
    return 2 * np.arctan2(np.sqrt(chord), np.sqrt(1 - chord))


@numba.njit(parallel=True, cache=True)
def arc_distance_numba(a, b, c, d):
    y = np.empty_like(a)
    for i in numba.prange(a.size):
        chord = math.sin((c[i] - a[i]) / 2) ** 2 + math.cos(a[i]) * math.cos(c[i]) * math.sin((d[i] - b[i]) / 2) ** 2
        y[i] = 2 * math.atan2(math.sqrt(chord), math.sqrt(1 - chord))
    return y
