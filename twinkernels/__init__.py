"""The program: every command, and what it shows. It stands on three packages, which know nothing of it.

`kernels` computes, `data` reads, `models` builds and trains; `from twinkernels import models` names them too.

>>> from twinkernels import kernels
>>> kernels.names()
['numpy', 'numba']
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing is not imported here, since the command's first moments pass while it is
if TYPE_CHECKING:
    from types import ModuleType

    import data as data
    import kernels as kernels
    import models as models

__version__ = "0.1.0"

_PACKAGES = ("data", "kernels", "models")


def __getattr__(name: str) -> ModuleType:
    if name in _PACKAGES:
        import importlib

        return importlib.import_module(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PACKAGES])
