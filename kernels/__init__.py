"""Neural-network kernels, each in NumPy (the definition) and in Numba (the fast twin), behind one interface.

>>> import numpy as np
>>> import kernels
>>> k = kernels.get("numpy")
>>> k.relu(np.array([-1.0, 2.0]))
array([0., 2.])
"""

from __future__ import annotations

import importlib
from functools import cache

from .interface import Backend, InPlace, Input, Kernel, Output, Scratch, kernel_names
from .ops import Kernels
from .threads import get_threads, set_threads

__all__ = [
    "Backend",
    "InPlace",
    "Input",
    "Kernel",
    "Kernels",
    "Output",
    "Scratch",
    "get",
    "get_threads",
    "kernel_names",
    "names",
    "set_threads",
]

_BACKENDS = {"numpy": "kernels.numpy_backend", "numba": "kernels.numba_backend"}


def names() -> list[str]:
    """The backends' names, the definition's first.

    Returns:
        Names that `get` takes, in a new list.

    >>> names()
    ['numpy', 'numba']
    """
    return list(_BACKENDS)


@cache
def _load(name: str) -> Kernels:
    return Kernels(name, importlib.import_module(_BACKENDS[name]))


def get(name: str) -> Kernels:
    """The kernels of one backend. The first call for "numba" loads Numba, which takes a second.

    Args:
        name: "numpy", the definition, or "numba", its fast twin.

    Returns:
        The backend's `Kernels`; the same object at every call.

    Raises:
        ValueError: name is not in `names()`.

    >>> get("numpy")
    <Kernels numpy>
    """
    if not isinstance(name, str) or name not in _BACKENDS:
        raise ValueError(f"unknown backend {name!r}; expected one of {', '.join(names())}")
    return _load(name)
