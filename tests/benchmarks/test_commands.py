"""Every module that can be run says so when it is asked for help, and does nothing else."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ..support.processes import BRIEF

ROOT = Path(__file__).parents[2]

# In one process, which loads what they share once. Of a module that another one has imported runpy warns.
ASK = """
import contextlib, io, runpy, sys, warnings
warnings.simplefilter("ignore")
for name in sys.argv[1:]:
    said, status = io.StringIO(), "none"
    sys.argv = [name, "--help"]
    with contextlib.redirect_stdout(said):
        try:
            runpy.run_module(name, run_name="__main__", alter_sys=True)
        except SystemExit as end:
            status = end.code
    text = said.getvalue().strip()
    print(name, status, text.lower().startswith("usage: "), text.lower().count("usage: "))
"""


def runnable() -> list[str]:
    """The modules outside the tests themselves that do something when they are run."""
    found = []
    for package in ("benchmarks", "fuzz", "twinkernels", "tests/support"):
        for path in sorted((ROOT / package).rglob("*.py")):
            if any(part.startswith(".") for part in path.relative_to(ROOT).parts):
                continue  # environments that asv has made
            body = ast.parse(path.read_text(encoding="utf-8")).body
            guarded = any(
                isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'" for node in body
            )
            if guarded or path.name == "__main__.py":
                name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
                found.append(name.removesuffix(".__main__"))
    return found


def test_help_is_all_that_it_gives(tmp_path: Path) -> None:
    names = runnable()
    assert {"benchmarks.limit", "benchmarks.peers", "fuzz", "twinkernels", "twinkernels.draw.train"} <= set(names)
    done = subprocess.run(
        [sys.executable, "-c", BRIEF + ASK, *names],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{name} 0 True 1" for name in names]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--benchmark-compare"], "--benchmark-compare compares nothing without times: expected --benchmark-enable"),
        (["--benchmark-compare-fail=median:25%"], "--benchmark-compare-fail compares nothing without times"),
        (["--benchmark-enable", "--benchmark-compare-fail=median:25%"], "expected --benchmark-compare beside it"),
        (["--benchmark-enable", "--benchmark-compare", "--benchmark-compare-fail=median:25%"], "by --benchmark-enable"),
    ],
)
def test_a_comparison_of_nothing_is_refused(options: list[str], words: str, tmp_path: Path) -> None:
    pytest.importorskip("pytest_benchmark", reason="times are taken by the extra bench")
    where = ["-p", "no:cacheprovider", "--benchmark-storage", f"file://{tmp_path}"]
    command = [sys.executable, "-m", "pytest", *where, "benchmarks/test_speed_models.py", "-k", "nothing", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 4, done.stdout
    assert words in done.stderr
    assert "INTERNALERROR" not in done.stdout + done.stderr
