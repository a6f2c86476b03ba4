"""Settings: the base of layers, optimizers, losses, schedules and initialisers, which are frozen dataclasses."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, ClassVar, TypeVar, cast, dataclass_transform, get_type_hints

from kernels import shapes

_Class = TypeVar("_Class", bound="Settings")


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def settings(cls: type[_Class]) -> type[_Class]:
    """Decorator: `dataclass(frozen=True)` for `Settings`, which can be shown and compared as they are. Of some ninety
    classes Python would compile those methods one by one, which is a tenth of the time to import `models`."""
    return dataclasses.dataclass(frozen=True, eq=False, repr=False)(cls)


class Settings:
    """What a user configures. A field that is given as NumPy's number is kept as Python's.

    NumPy's would decide the precision of what it meets later, and no file could hold it. A field annotated with float
    is a finite number, one with bool True or False, or a ValueError says so.
    """

    unbounded: ClassVar[tuple[str, ...]] = ()
    """Fields that may be infinite."""

    later: ClassVar[tuple[str, ...]] = ()
    """Fields that earlier files do not state: at their default, files leave them out."""

    def __repr__(self) -> str:
        own = ((field.name, field.default, getattr(self, field.name)) for field in dataclasses.fields(cast(Any, self)))
        shown = [f"{name}={value!r}" for name, default, value in own if name not in self.later or value != default]
        return f"{type(self).__qualname__}({', '.join(shown)})"

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self) or not dataclasses.is_dataclass(self):
            return NotImplemented
        return self._compared() == other._compared()

    def __hash__(self) -> int:
        return hash(self._compared()) if dataclasses.is_dataclass(self) else object.__hash__(self)

    def _compared(self) -> tuple[Any, ...]:
        fields = dataclasses.fields(cast(Any, self))
        return tuple(getattr(self, field.name) for field in fields if field.compare)

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
