"""How figures are kept: as JSON that reads well in a diff, and with no word on where they were measured."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Run = dict[str, Any]

MACHINE = ("cpu", "machine", "cores", "threads", "system", "python", "load_before", "date", "commit")
"""What is kept of a machine's description."""


def told(machine: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a machine's description."""
    facts = {key: machine.get(key) for key in MACHINE}
    # The kernel's local suffix tells about the host and nothing about the figures.
    facts["system"] = re.sub(r"^(\w+)[- ](\d+(?:\.\d+)?).*", r"\1 \2", machine["system"])
    return facts


def write(path: Path, runs: Sequence[Run]) -> None:
    """The runs as JSON, a line for each innermost list or object, and for the rounds of a setting."""
    text = json.dumps({"runs": runs}, indent=1)
    text = re.sub(r"[\[{][^\[\]{}]*[\]}]", lambda group: " ".join(group[0].split()), text)
    text = re.sub(r'"rounds": \[[^\]]*\]', lambda group: " ".join(group[0].split()), text)
    path.write_text(text + "\n", encoding="utf-8")
