"""What a fit has come to: the record of its epochs, and where it stands."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import NoneType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

T = TypeVar("T")

MAX_COUNT = 2**53
"""Of steps and epochs: what a float still holds."""

MAX_EPOCHS = 40_000
"""Of a fit that is kept, so that its history fits into what a reader takes."""


@dataclass(frozen=True)
class Epoch:
    """Record of one epoch. Loss and accuracy are means over its batches, seen while training.

    skipped: batches whose loss or gradients were not finite, and that changed nothing.
    """

    epoch: int
    step: int
    loss: float
    accuracy: float
    validation_loss: float | None
    validation_accuracy: float | None
    learning_rate: float
    seconds: float
    skipped: int = 0

    def __str__(self) -> str:
        line = f"epoch {self.epoch:3}  loss {self.loss:.4f}  accuracy {self.accuracy:.4f}"
        if self.validation_accuracy is not None:
            line += f"  validation {self.validation_accuracy:.4f}"
        return f"{line}  {self.seconds:.1f} s"

    @classmethod
    def checked(cls, fields: Mapping[str, Any]) -> Epoch:
        """The record with these fields as they came out of a file; TypeError or ValueError if it cannot be one."""
        types = {"int": (int,), "float": (int, float), "float | None": (int, float, NoneType)}
        epoch = cls(**fields)
        for name, value in vars(epoch).items():
            kind = str(cls.__dataclass_fields__[name].type)
            if isinstance(value, bool) or not isinstance(value, types[kind]):
                raise ValueError(f"an epoch's {name} is {value!r}, expected {kind}")
            if isinstance(value, int) and not 0 <= value <= MAX_COUNT:
                raise ValueError(f"an epoch's {name} is {value}, expected at least 0 and at most {MAX_COUNT}")
            if name.endswith("accuracy") and value is not None and not (0 <= value <= 1 or math.isnan(value)):
                raise ValueError(f"an epoch's {name} is {value}, expected a share")
        return epoch


class _Column(Generic[T]):
    """A field of the epochs as a list."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, history: History | None, owner: type | None = None) -> list[T]:
        if history is None:
            raise AttributeError(f"{self._name} is a history's own")
        return [getattr(epoch, self._name) for epoch in history.epochs]


@dataclass
class History:
    """The epochs of a fit; `history.loss` and the other fields give one list each."""

    epochs: list[Epoch] = field(default_factory=list)

    epoch = _Column[int]()
    step = _Column[int]()
    loss = _Column[float]()
    accuracy = _Column[float]()
    validation_loss = _Column[float | None]()
    validation_accuracy = _Column[float | None]()
    learning_rate = _Column[float]()
    seconds = _Column[float]()
    skipped = _Column[int]()

    def _repr_html_(self) -> str:
        names = [name for name in Epoch.__dataclass_fields__ if any(value is not None for value in getattr(self, name))]
        head = "".join(f"<th>{name.replace('_', ' ')}</th>" for name in names)
        rows = [[getattr(epoch, name) for name in names] for epoch in self.epochs]
        shown = [[f"{v:,}" if isinstance(v, int) else "" if v is None else f"{v:.4g}" for v in row] for row in rows]
        body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in shown)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    if not TYPE_CHECKING:  # to type checkers, any name would be one

        def __getattr__(self, name):
            fields = ", ".join(Epoch.__dataclass_fields__)
            raise AttributeError(f"History has no {name!r}; expected one of {fields}")


@dataclass
class Progress:
    """Where a fit stands: batches done of the fit and of the running epoch, and that epoch's sums over samples.

    Order of samples, dropout and learning rate follow from these numbers and the model's seed, so that a fit can go on
    from here.
    """

    done: int = 0
    position: int = 0
    samples: int = 0
    loss_sum: float = 0.0
    accuracy_sum: float = 0.0
    skipped: int = 0
    seconds: float = 0.0
    history: History = field(default_factory=History)

    def add(self, loss: float, accuracy: float, samples: int) -> None:
        """One more batch, with the mean loss and accuracy of its samples."""
        self.done += 1
        self.position += 1
        self.samples += samples
        self.loss_sum += loss * samples
        self.accuracy_sum += accuracy * samples

    def skip(self) -> None:
        """One more batch, which was left out."""
        self.done += 1
        self.position += 1
        self.skipped += 1
