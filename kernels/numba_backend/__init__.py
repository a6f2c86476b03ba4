"""Every kernel of the contract compiled by Numba: equal to its NumPy twin, and close to the machine's limit."""

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
from .pool import *
