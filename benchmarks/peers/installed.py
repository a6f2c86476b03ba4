"""How much disk a library takes, with everything that it requires."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib import metadata


def sizes(roots: Iterable[str]) -> dict[str, int]:
    """Bytes of each installed distribution that the roots need, themselves included, extras left out."""
    found: dict[str, int] = {}
    waiting = list(roots)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in found:
            continue
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:  # for another platform, or optional
            continue
        found[name] = _bytes(distribution)
        for requirement in distribution.requires or ():
            if not re.search(r";.*\bextra\b", requirement):
                waiting.append(re.split(r"[^\w.-]", requirement, maxsplit=1)[0])
    return found


def _bytes(distribution: metadata.Distribution) -> int:
    total = 0
    for file in distribution.files or ():
        try:
            total += distribution.locate_file(file).stat().st_size  # type: ignore[attr-defined]
        except OSError:
            continue
    return total
