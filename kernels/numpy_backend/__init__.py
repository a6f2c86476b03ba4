"""Every kernel of the contract in plain NumPy: the definition that its Numba twin is held to."""

# What each module exports stands in its __all__.
# ruff: noqa: F403

from .activation import *
from .augment import *
from .batches import *
from .combine import *
from .conv import *
from .linear import *
from .loss import *
from .norm import *
from .optim import *
from .pool import *
from .precision import *
from .shape import *
from .unary import *
