"""Settings: the base of layers, optimizers, losses, schedules and initialisers, which are frozen dataclasses."""

from __future__ import annotations

from kernels import shapes


class Settings:
    """What a user configures. A field that is given as NumPy's number is kept as Python's.

    NumPy's would decide the precision of what it meets later, and no file could hold it.
    """

    def __post_init__(self) -> None:
        for name in getattr(self, "__dataclass_fields__", ()):
            object.__setattr__(self, name, shapes.plain(getattr(self, name)))
