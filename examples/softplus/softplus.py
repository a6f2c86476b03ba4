"""Softplus, log(1 + eˣ), in NumPy and in Numba, and what holds the two equal: `twinkernels check softplus.py`."""

import numba
import numpy as np

from twinkernels.bench import case, twins


def softplus_numpy(x):
    return np.logaddexp(x, x.dtype.type(0))


@numba.njit(parallel=True, error_model="numpy", cache=True)
def softplus_numba(x):
    y = np.empty_like(x)
    rows, filled = x.reshape(len(x), -1), y.reshape(len(x), -1)
    zero, one = x.dtype.type(0), x.dtype.type(1)
    for i in numba.prange(rows.shape[0]):
        for j in range(rows.shape[1]):
            value = rows[i, j]
            above = zero if value < zero else value  # in this order, so that NaN stays
            filled[i, j] = above + np.log1p(one / np.exp(np.abs(value)))
    return y


softplus = twins(numpy=softplus_numpy, numba=softplus_numba, elementwise=True, takes="nan inf readonly")


@case(softplus, "wide", dtypes="float32 float64")
def wide(draw):
    return {"x": draw.normal(256, 1024)}


@case(softplus, "any", sizes={"rows": (0, 40), "columns": (1, 70)})
def any_size(draw, rows, columns):
    return {"x": draw.normal(rows, columns)}
