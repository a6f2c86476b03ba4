"""What is installed is whole: every file of the four packages goes into the wheel.

`python -m tests.support.wheel` builds it, installs it elsewhere and runs its commands there.
"""

from __future__ import annotations

import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from twinkernels import recipes
from twinkernels.draw import SHIPPED

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
WHEEL = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
PACKAGES = ["data", "kernels", "models", "twinkernels"]


def git(*arguments: str, given: str = "") -> list[str]:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("which files belong to the project is known in a git checkout alone")
    done = subprocess.run(
        ["git", "-C", str(ROOT), *arguments], input=given, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_the_wheel_takes_the_packages_whole() -> None:
    assert list(WHEEL) == ["packages", "hooks"], "includes and excludes would need a test of their own"
    assert WHEEL["hooks"] == {"custom": {}}, "hatch_build.py adds packs, and nothing where none is asked for"
    assert sorted(WHEEL["packages"]) == PACKAGES
    assert not {"include", "exclude", "only-include", "artifacts"} & PROJECT["tool"]["hatch"]["build"].keys()


def test_nothing_in_the_packages_is_ignored() -> None:
    """Hatchling leaves out of a package what git would ignore, even where git tracks it."""
    tracked = git("ls-files", *PACKAGES)
    assert len(tracked) > 80
    assert git("check-ignore", "--no-index", "--stdin", given="\n".join(tracked)) == []


def test_what_is_read_beside_the_code_lies_in_a_package() -> None:
    page = ROOT / "twinkernels" / "draw" / "page"
    needed = {recipes.FIGURES, SHIPPED, *(ROOT / package / "py.typed" for package in PACKAGES)}
    needed |= {page / name for name in ("index.html", "style.css", "script.js", "icon.svg")}
    tracked = {ROOT / name for name in git("ls-files", *PACKAGES)}
    assert {path for path in tracked if path.suffix != ".py"} == needed
