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
and `multiply_panel`, in tiles/gemm.py, and goes on with `rows_times_panel`.
"""

from .activation import (
    dropout,
    dropout_backward,
    elu,
    elu_backward,
    gelu,
    gelu_backward,
    leaky_relu,
    leaky_relu_backward,
    relu,
    relu_backward,
    sigmoid,
    sigmoid_backward,
    silu,
    silu_backward,
    softplus,
    softplus_backward,
    tanh,
    tanh_backward,
)
from .augment import (
    smooth2d,
    smooth2d_scratch,
    uniform,
    warp,
    warp_scratch,
)
from .batches import (
    count_correct,
    gather,
    keep,
)
from .combine import (
    add,
    add_backward,
    concat,
    concat_backward,
)
from .compiler.program import record
from .conv import (
    conv2d,
    conv2d_backward,
    conv2d_backward_scratch,
    conv2d_scratch,
)
from .fused import (
    batchnorm_relu_maxpool2d,
    batchnorm_relu_maxpool2d_backward,
    batchnorm_relu_maxpool2d_backward_scratch,
    batchnorm_relu_maxpool2d_scratch,
    conv2d_batchnorm_relu_maxpool2d,
    conv2d_batchnorm_relu_maxpool2d_backward,
    conv2d_batchnorm_relu_maxpool2d_backward_scratch,
    conv2d_batchnorm_relu_maxpool2d_scratch,
    conv2d_fold,
    conv2d_fold_size,
    conv2d_folded,
    conv2d_folded_scratch,
    linear_fold,
    linear_fold_size,
    linear_folded,
    linear_folded_scratch,
    linear_relu,
    linear_relu_backward,
    linear_relu_backward_scratch,
    linear_relu_scratch,
)
from .linear import (
    linear,
    linear_backward,
    linear_backward_scratch,
    linear_scratch,
)
from .loss import (
    log_softmax,
    log_softmax_backward,
    mse,
    mse_scratch,
    softmax,
    softmax_backward,
    softmax_cross_entropy,
    softmax_cross_entropy_scratch,
)
from .norm import (
    batchnorm,
    batchnorm_backward,
    batchnorm_backward_scratch,
    batchnorm_inference,
    batchnorm_inference_backward,
    batchnorm_inference_backward_scratch,
    batchnorm_scratch,
    ema_update,
    meannorm,
    meannorm_backward,
    meannorm_backward_scratch,
    meannorm_inference,
    meannorm_inference_backward,
    meannorm_inference_backward_scratch,
    meannorm_scratch,
)
from .optim import (
    adam,
    rmsprop,
    sgd,
)
from .pool import (
    avgpool2d,
    avgpool2d_backward,
    maxpool2d,
    maxpool2d_backward,
)

__all__ = [
    "adam",
    "add",
    "add_backward",
    "avgpool2d",
    "avgpool2d_backward",
    "batchnorm",
    "batchnorm_backward",
    "batchnorm_backward_scratch",
    "batchnorm_inference",
    "batchnorm_inference_backward",
    "batchnorm_inference_backward_scratch",
    "batchnorm_relu_maxpool2d",
    "batchnorm_relu_maxpool2d_backward",
    "batchnorm_relu_maxpool2d_backward_scratch",
    "batchnorm_relu_maxpool2d_scratch",
    "batchnorm_scratch",
    "concat",
    "concat_backward",
    "conv2d",
    "conv2d_backward",
    "conv2d_backward_scratch",
    "conv2d_batchnorm_relu_maxpool2d",
    "conv2d_batchnorm_relu_maxpool2d_backward",
    "conv2d_batchnorm_relu_maxpool2d_backward_scratch",
    "conv2d_batchnorm_relu_maxpool2d_scratch",
    "conv2d_fold",
    "conv2d_fold_size",
    "conv2d_folded",
    "conv2d_folded_scratch",
    "conv2d_scratch",
    "count_correct",
    "dropout",
    "dropout_backward",
    "elu",
    "elu_backward",
    "ema_update",
    "gather",
    "gelu",
    "gelu_backward",
    "keep",
    "leaky_relu",
    "leaky_relu_backward",
    "linear",
    "linear_backward",
    "linear_backward_scratch",
    "linear_fold",
    "linear_fold_size",
    "linear_folded",
    "linear_folded_scratch",
    "linear_relu",
    "linear_relu_backward",
    "linear_relu_backward_scratch",
    "linear_relu_scratch",
    "linear_scratch",
    "log_softmax",
    "log_softmax_backward",
    "maxpool2d",
    "maxpool2d_backward",
    "meannorm",
    "meannorm_backward",
    "meannorm_backward_scratch",
    "meannorm_inference",
    "meannorm_inference_backward",
    "meannorm_inference_backward_scratch",
    "meannorm_scratch",
    "mse",
    "mse_scratch",
    "record",
    "relu",
    "relu_backward",
    "rmsprop",
    "sgd",
    "sigmoid",
    "sigmoid_backward",
    "silu",
    "silu_backward",
    "smooth2d",
    "smooth2d_scratch",
    "softmax",
    "softmax_backward",
    "softmax_cross_entropy",
    "softmax_cross_entropy_scratch",
    "softplus",
    "softplus_backward",
    "tanh",
    "tanh_backward",
    "uniform",
    "warp",
    "warp_scratch",
]
