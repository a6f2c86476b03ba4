import numba
import numpy as np

from twinkernels.bench import case, twins


def standardise_numpy(x, decay):
    """Rows of mean 0 and deviation 1, cut off below 0, row i times exp(-i decay)."""
    centred = x - x.mean(axis=1, keepdims=True)
    deviation = np.sqrt(np.square(centred).mean(axis=1, keepdims=True))
    weight = np.exp(-np.arange(len(x)) * decay).astype(x.dtype)
    return np.maximum(centred / deviation, 0) * weight[:, np.newaxis]


@numba.njit(parallel=True, error_model="numpy", fastmath={"reassoc", "contract"}, cache=True)
def standardise_numba(x, decay):
    rows, columns = x.shape
    y = np.empty_like(x)
    zero, count = np.float32(0), np.float32(columns)
    for i in numba.prange(rows):
        mean, square = zero, zero
        for j in range(columns):
            mean += x[i, j]
        mean /= count
        for j in range(columns):
            square += (x[i, j] - mean) * (x[i, j] - mean)
        weight = np.float32(np.exp(-np.float32(i) * np.float32(decay))) / np.sqrt(square / count)
        for j in range(columns):
            value = (x[i, j] - mean) * weight
            y[i, j] = zero if value < zero else value
    return y


def largest_numpy(x):
    """Where each row is largest: the first of equals, and the first NaN before all."""
    return x.argmax(axis=1)


@numba.njit(error_model="numpy", cache=True)
def largest_numba(x):
    y = np.zeros(len(x), np.int64)
    for i in range(len(x)):
        for j in range(1, x.shape[1]):
            top = x[i, y[i]]
            if x[i, j] > top or (np.isnan(x[i, j]) and not np.isnan(top)):
                y[i] = j
    return y


standardise = twins(numpy=standardise_numpy, numba=standardise_numba, takes="nan one readonly")
largest = twins(numpy=largest_numpy, numba=largest_numba, takes="nan ties readonly")


@case(standardise, "rows")
def rows(draw):
    return {"x": draw.normal(256, 4096, mean=1000.0), "decay": 0.01}


@case(largest, "rows")
def short_rows(draw):
    return {"x": draw.normal(64, 32)}
