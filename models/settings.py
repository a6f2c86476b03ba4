"""Settings: the base of layers, optimizers, losses, schedules and initialisers, which are frozen dataclasses."""

from __future__ import annotations

import functools
from typing import Any, ClassVar, get_type_hints

from kernels import shapes


class Settings:
    """What a user configures. A field that is given as NumPy's number is kept as Python's.

    NumPy's would decide the precision of what it meets later, and no file could hold it. A field annotated with float
    is a finite number, one with bool True or False, or a ValueError says so.
    """

    unbounded: ClassVar[tuple[str, ...]] = ()
    """Fields that may be infinite."""

    def __post_init__(self) -> None:
        kind: type = type(self)
        for name, setting in getattr(self, "__dataclass_fields__", {}).items():
            value = shapes.plain(getattr(self, name))
            object.__setattr__(self, name, value)
            if value is None and setting.default is None:
                continue
            if (annotation := field_types(kind).get(name)) is float:
                shapes.number(kind.__name__, name, value, infinite=name in self.unbounded)
            elif annotation is bool:
                shapes.flag(kind.__name__, name, value)


@functools.cache
def field_types(cls: type) -> dict[str, Any]:
    """The types of a class's fields; none for a class of the user's, annotated with what only its type checker sees."""
    try:
        return get_type_hints(cls)
    except NameError:
        return {}
