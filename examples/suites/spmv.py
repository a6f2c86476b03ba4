import numpy as np
from pairs import spmv_numba, spmv_numpy

from twinkernels.bench import case, twins

spmv = twins(numpy=spmv_numpy, numba=spmv_numba)


@case(spmv, "rows-of-8", dtypes="float64", flops=lambda starts, columns, values, x: 2 * values.size)
def rows_of_8(draw):
    starts, columns = np.arange(0, 8 * 2000 + 1, 8), draw.labels(8 * 2000, 2000)
    return {"starts": starts, "columns": columns, "values": draw.normal(8 * 2000), "x": draw.normal(2000)}
