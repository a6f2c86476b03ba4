"""An environment of its own for the peers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from .measure import environment_python
from .variants import DISTRIBUTIONS

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
# On Linux PyPI's torch brings several gigabytes of CUDA; this index has it without.
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"


def pinned(distributions: Iterable[str], requirements: Path = REQUIREMENTS) -> list[str]:
    """The lines `name==version` of the distributions."""
    lines = [line.strip() for line in requirements.read_text().splitlines()]
    versions = {line.split("==")[0]: line for line in lines if line and not line.startswith("#")}
    return [versions[name] for name in distributions]


def install(peers: Sequence[str], say: Callable[[str], None]) -> Path:
    """Make the environment if need be, and install what the peers need; returns its interpreter.

    A peer that cannot be installed is reported and left out; measuring will then say that it is missing.
    """
    python = environment_python()
    if not python.exists():
        say(f"making an environment in {python.parents[1]}")
        subprocess.run([sys.executable, "-m", "venv", str(python.parents[1])], check=True)
    for peer in (peer for peer in DISTRIBUTIONS if peer in peers):
        lines = pinned(DISTRIBUTIONS[peer])
        say(f"installing {' '.join(lines)}")
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        attempts = [[*pip, *lines]]
        if peer == "torch":
            attempts.insert(0, [*pip, "--retries", "0", "--index-url", TORCH_CPU_INDEX, *lines])
        for attempt in attempts:
            done = subprocess.run(attempt, capture_output=True, text=True)
            if done.returncode == 0:
                break
        else:
            errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or [done.stderr]
            say(f"{peer} could not be installed: {errors[-1].strip()}")
    return python
