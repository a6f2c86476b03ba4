"""An environment of its own for the peers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from .measure import environment_python
from .variants import DISTRIBUTIONS

REQUIREMENTS = Path(__file__).with_name("requirements.txt")


def pinned(distributions: Iterable[str], requirements: Path = REQUIREMENTS) -> list[str]:
    """The lines `name==version` of the distributions."""
    lines = [line.strip() for line in requirements.read_text().splitlines()]
    versions = {line.split("==")[0]: line for line in lines if line and not line.startswith("#")}
    return [versions[name] for name in distributions]


def install(peers: Sequence[str], say: Callable[[str], None]) -> Path:
    """Make the environment if need be, and install what the peers need; returns its interpreter.

    A peer that cannot be installed is reported and left out; measuring will then say that it is missing. pip's own
    settings choose the package index: PyTorch's default build for Linux brings gigabytes of CUDA, its CPU build none.
    """
    python = environment_python()
    if not python.exists():
        say(f"making an environment in {python.parents[1]}")
        subprocess.run([sys.executable, "-m", "venv", str(python.parents[1])], check=True)
    for peer in (peer for peer in DISTRIBUTIONS if peer in peers):
        lines = pinned(DISTRIBUTIONS[peer])
        say(f"installing {' '.join(lines)}")
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        done = subprocess.run([*pip, *lines], capture_output=True, text=True)
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or [done.stderr]
            say(f"{peer} could not be installed: {errors[-1].strip()}")
    return python
