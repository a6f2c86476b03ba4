"""What NumPy and Numba do differently on the same line, and the page that tells."""

from __future__ import annotations

import re
from pathlib import Path

import numba
import numpy as np
import pytest

from benchmarks.differences import ROWS, VERSIONS, Row, outcome
from twinkernels.bench import check, read

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "bench.md").read_text(encoding="utf-8")
EXAMPLE = ROOT / "examples" / "standardise" / "standardise.py"
SOURCE = EXAMPLE.read_text(encoding="utf-8")

pytestmark = pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="Numba compiles nothing here")


def older() -> bool:
    def numbers(text: str) -> list[int]:
        return [int(part) for part in text.split(".")[:2]]

    return any(
        numbers(module.__version__) < numbers(VERSIONS[name]) for name, module in (("numpy", np), ("numba", numba))
    )


@pytest.mark.skipif(older(), reason="the table is that of newer versions of NumPy and Numba")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.code.splitlines()[-1].strip())
def test_both_do_what_the_table_says(row: Row) -> None:
    function = row.function()
    assert outcome(function, row.arguments()) == row.numpy
    assert outcome(numba.njit(function), row.arguments()) == row.numba
    if row.parallel:
        assert outcome(numba.njit(parallel=True)(function), row.arguments()) == row.parallel
    assert row.numba != row.numpy or row.parallel or "the same" in row.why


# The page that goes from a function to its twin ------------------------------------------------------------------

CHANGE = re.compile(r"```diff\n(.*?)```\n+```text\n(.*?)```", re.DOTALL)
CHANGES = CHANGE.findall(PAGE)


def test_the_page_shows_the_file() -> None:
    assert f"```python\n{SOURCE}```" in PAGE
    assert [checked for checked in check(read(EXAMPLE)) if checked.faults] == []


def test_the_page_has_the_mistakes_that_people_make() -> None:
    assert len(CHANGES) >= 7


@pytest.mark.parametrize(("change", "shown"), CHANGES, ids=[shown.split("\n")[1].strip()[:40] for _, shown in CHANGES])
def test_each_mistake_on_the_page_is_found(change: str, shown: str, tmp_path: Path, new_memory: None) -> None:
    text = SOURCE
    for removed, added in re.findall(r"((?:^-.*\n)+)((?:^\+.*\n)*)", change, re.MULTILINE):
        old, new = (re.sub(r"^[-+]", "", part, flags=re.MULTILINE) for part in (removed, added))
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    path = tmp_path / "mistaken.py"
    path.write_text(text)
    title, first = shown.splitlines()[:2]
    kind = first.strip().split(":")[0]
    # Threads race where they overlap: on a busy machine in one of several attempts, and each check may show it first.
    kinds, attempts = ({"bits", "agreement", "outputs"}, 20) if kind == "bits" else ({kind}, 1)
    cases = [case for case in read(path) if title.startswith(case.id)]
    wrong = next((checked for _ in range(attempts) for checked in check(cases) if checked.faults), None)
    assert wrong is not None
    assert str(wrong).splitlines()[0] == title
    assert kinds & {fault.check for fault in wrong.faults}
