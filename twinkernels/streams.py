"""Standard streams that are all there, and errors of writing that say so. Imports nothing large: it comes first."""

from __future__ import annotations

import io
import os
import sys

STDOUT = "standard output"
"""What an OSError of writing there calls its file."""


class _Output(io.TextIOWrapper):
    """Text on standard output, whose errors name it: that of a full disk names no file."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            error.filename = STDOUT
            raise

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            error.filename = STDOUT
            raise


def prepare() -> None:
    """Put three open streams in place. Raises ValueError where standard output is closed.

    Files that are opened later would take the numbers of those that are closed, and be written to as streams.
    """
    if sys.stdin is None or sys.stdout is None or sys.stderr is None:
        while os.open(os.devnull, os.O_RDWR) < 2:
            pass
        if sys.stderr is None:
            sys.stderr = open(os.devnull, "w")  # noqa: SIM115
        if sys.stdout is None:
            raise ValueError(f"{STDOUT} is closed; > /dev/null throws away what is printed")
    if isinstance(sys.stdout, io.TextIOWrapper):
        like = {name: getattr(sys.stdout, name) for name in ("encoding", "errors", "line_buffering", "write_through")}
        sys.stdout = _Output(sys.stdout.detach(), newline="" if os.linesep == "\n" else None, **like)
        sys.__stdout__ = sys.stdout  # type: ignore[misc]  # the one of before can do nothing any more


def discard() -> None:
    """Have what is left to be written to standard output go nowhere, or the interpreter's end would try it again."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
