"""Every kernel of the contract compiled by Numba: equal to its NumPy twin, and close to the machine's limit.

The twins lie in files of NumPy's names, and blocks of layers in `fused`. `tiles` is the ground under them: contractions
in vector registers, and how work is cut. `compiler` makes machine code of it: one decorator, a cache, threads.

From a convolution down to a multiply-add::

    conv2d              conv.py             packs the filters and shares the output rows out among threads
    correlate_rows      tiles/correlate.py  for every output position, finds the taps whose source exists
    rows_times_panel    tiles/gemm.py       covers any number of rows with tiles of three heights
    product             tiles/gemm.py       one tile: begins with the bias, ends with ReLU and store
    contract            tiles/gemm.py       three loops over what a tile sums up
    tile_fma            tiles/tile.py       one step of all the tile's sums, in registers: NumPy, and LLVM IR below it

The gradient of its input takes the same way with flipped filters, that of its filters another from the second step
on: `sum_chunk`, `add_panel`, `add_rows` and `add_tile` of tiles/filter_gradient.py. A linear layer enters at `matmul`
and `multiply_columns` or `multiply_rows`, in tiles/gemm.py, and goes on with `matrix_times_panel`. With one filter a
channel nothing is summed over channels: tiles/depthwise.py. Of bfloat16 numbers a contraction enters at pairs.py, and
has `multiply_block` there in the place of the last four steps: tiles/amx.py, where the processor has a matrix unit.
"""

# What each module exports stands in its __all__.
# ruff: noqa: F403

from .activation import *
from .augment import *
from .batches import *
from .combine import *
from .compiler.program import record as record
from .conv import *
from .fused import *
from .linear import *
from .loss import *
from .norm import *
from .optim import *
from .pairs import *
from .pool import *
from .precision import *
from .shape import *
from .unary import *
