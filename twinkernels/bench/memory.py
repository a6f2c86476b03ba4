"""How much memory a call takes beside its arguments."""

from __future__ import annotations

import contextlib
import ctypes
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .arrays import mallopt

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_MAPPED, _TRIMMED = -3, -1  # M_MMAP_THRESHOLD and M_TRIM_THRESHOLD of mallopt
_MOST = 1 << 25  # where glibc ends up by itself in a process that frees large arrays


def steady() -> None:
    """Have memory come and go as in a process that has run for long: what a first call asks for is free in the next."""
    set_option = mallopt()
    if set_option is not None:
        set_option(_MAPPED, _MOST)
        set_option(_TRIMMED, 2 * _MOST)


def peak(call: Callable[[], Any]) -> int | None:
    """Bytes by which the process grows while a call runs, in pages that it touches; None where it is not told.

    Each array of 64 KiB and more has pages of its own meanwhile, so that none hides in memory that was free before.
    """
    set_option = mallopt()
    if set_option is None or not _STATUS.exists():
        return None
    try:
        set_option(_MAPPED, 1 << 16)
        call()
        with contextlib.suppress(AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
        _CLEAR.write_text("5", encoding="ascii")  # the peak begins anew
        before = _kilobytes("VmRSS")
        call()
        return max(0, _kilobytes("VmHWM") - before) * 1024
    except OSError:  # a container that forbids it
        return None
    finally:
        steady()


def _kilobytes(name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB", _STATUS.read_text(encoding="ascii"), re.MULTILINE)
    if found is None:
        raise OSError(f"{_STATUS} has no {name}")
    return int(found[1])
