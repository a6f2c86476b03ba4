"""Layers and settings as JSON, read back for known classes alone; and text from files, made harmless."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

import numpy as np

from . import init, layers
from .settings import field_types

MAX_INTEGER = 2**31 - 1
MAX_MESSAGE = 300

KNOWN = {
    cls.__name__: cls
    for module in (layers, init)
    for cls in vars(module).values()
    if isinstance(cls, type) and dataclasses.is_dataclass(cls) and issubclass(cls, (layers.Layer, init.Initialiser))
}


class ModelFormatError(ValueError):
    """A file that is not a model of this package, or a damaged one."""


def encode(value: Any) -> Any:
    """A layer's configuration as JSON: dataclasses become {"type": name, field: value, ...}."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kept = (f for f in dataclasses.fields(value) if not _left_out(value, f))
        fields = {f.name: encode(getattr(value, f.name)) for f in kept}
        return {"type": type(value).__name__} | fields
    if isinstance(value, (tuple, list)):
        return [encode(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def _left_out(value: Any, field: dataclasses.Field[Any]) -> bool:
    return field.name in getattr(value, "later", ()) and getattr(value, field.name) == field.default


def decode(value: Any, known: dict[str, type]) -> Any:
    """The inverse of `encode`, for known classes alone."""
    if isinstance(value, list):
        return tuple(decode(item, known) for item in value)
    if not isinstance(value, dict):
        return value
    fields = dict(value)
    name = fields.pop("type", None)
    if name not in known:
        raise ModelFormatError(f"unknown layer {name!r}; pass its class in load(..., layers=[...])")
    return construct(known[name], fields, known)


def construct(cls: type, fields: Mapping[str, Any], known: dict[str, type]) -> Any:
    """A dataclass from its encoded fields, each of the type it is annotated with."""
    name = cls.__name__
    if set(fields) - {f.name for f in dataclasses.fields(cls)}:
        raise ModelFormatError(f"layer {name} has unknown fields {sorted(fields)}")
    decoded = {key: decode(item, known) for key, item in fields.items()}
    for key, item in decoded.items():
        if not _fits(item, field_types(cls).get(key)):
            raise ModelFormatError(f"{name}: {key} is {item!r}, expected {field_types(cls)[key]}")
    return cls(**decoded)


def _fits(value: Any, annotation: Any) -> bool:
    """Whether a decoded value is of a type; types that no layer of ours is annotated with fit anything."""
    if get_origin(annotation) in (Union, UnionType):
        return any(_fits(value, choice) for choice in get_args(annotation))
    if get_origin(annotation) is tuple:
        types = get_args(annotation)
        if types[1:] == (...,):
            types = types[:1] * len(value) if isinstance(value, tuple) else types
        return isinstance(value, tuple) and len(value) == len(types) and all(map(_fits, value, types))
    if annotation is int:
        return type(value) is int and abs(value) <= MAX_INTEGER
    if annotation is float:
        return type(value) is float or _fits(value, int)
    if annotation is bool:
        return isinstance(value, int)
    if annotation in (str, NoneType) or dataclasses.is_dataclass(annotation):
        return isinstance(value, annotation)
    return True


def printable(error: Exception) -> str:
    """The message without what could steer a terminal, and without a novel that the file brought."""
    return harmless(str(error)[:MAX_MESSAGE])


def harmless(text: str) -> str:
    """Text without what could steer a terminal, or what it could not be encoded for; spaces of any width stay."""
    import unicodedata

    return "".join(c if c.isprintable() or unicodedata.category(c) == "Zs" else "?" for c in text)
