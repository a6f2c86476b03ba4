"""Layers: configuration, shape inference, and how each is written as kernel calls. No arrays, no backend.

A layer is a frozen dataclass. `lower` writes its forward calls into a plan and returns the output together with a
function that, given the output's gradient, writes the backward calls and returns the input's gradient. A layer of
your own subclasses `Layer` and does the same; docs/extend.md has a full example.

What each module exports stands in its __all__, and is a name of this package and of `models`.
"""

# ruff: noqa: F403

from .activation import *
from .arithmetic import *
from .base import *
from .convolution import *
from .linear import *
from .normalisation import *
from .pooling import *
from .shape import *
