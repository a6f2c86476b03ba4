"""What the README says one can rely on: each promise is the name of a test, here or where its subject is tested."""

from __future__ import annotations

import math
import re
from collections import Counter

import numpy as np
import pytest

from fuzz.__main__ import CORPUS
from fuzz.targets import answer, seeds
from kernels import Kernels
from models import Adam, AdamW, Constant, Linear, MeanSquaredError, Optimizer, Sequential, Trainer

from ..support.processes import ROOT, run


def promises() -> list[str]:
    """What is printed bold in the README's list, as names of tests."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.split("\n## What you can rely on\n")[1].split("\n## ")[0]
    assert all("**" in point for point in section.split("\n- ")[1:]), "a point without a promise"
    return [
        "test_" + re.sub(r"\W+", "_", bold).strip("_").lower()
        for bold in re.findall(r"\*\*(.+?)\*\*", section, re.DOTALL)
    ]


def names() -> Counter[str]:
    """The names of all tests, with the number of each."""
    texts = (path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    return Counter(name for text in texts for name in re.findall(r"^def (\w+)\(", text, re.MULTILINE))


def test_every_promise_has_a_test_of_its_name() -> None:
    expected, found = promises(), names()
    assert len(expected) >= 15
    assert {name: found[name] for name in expected} == dict.fromkeys(expected, 1)


def test_in_max_pooling_the_first_maximum_wins(k: Kernels) -> None:
    """And NaN propagates, and padding never wins."""
    ties = np.array([[1, 3, 3], [3, 3, 0], [3, 3, 3]], np.float32).reshape(1, 3, 3, 1)
    y, argmax = k.maxpool2d(ties, size=3)
    dx = k.maxpool2d_backward(np.ones_like(y), argmax, ties.shape, size=3)
    assert np.flatnonzero(dx).tolist() == [1]

    bad = ties.copy()
    bad[0, 2, 0] = math.nan
    y, argmax = k.maxpool2d(bad, size=3)
    assert np.isnan(y).all()
    dx = k.maxpool2d_backward(np.ones_like(y), argmax, ties.shape, size=3)
    assert np.flatnonzero(dx).tolist() == [6]

    for value in -5.0, -math.inf:
        low = np.full((1, 2, 2, 1), value, np.float32)
        y, argmax = k.maxpool2d(low, size=3, stride=1, padding=1)
        assert (y == value).all()
        dx = k.maxpool2d_backward(np.ones_like(y), argmax, low.shape, size=3, stride=1, padding=1)
        assert dx.ravel().tolist() == [4, 0, 0, 0]


def test_weight_decay_is_coupled_in_adam_and_decoupled_in_adamw(k: Kernels) -> None:
    def step(optimizer: Optimizer) -> float:
        """A weight of 2 after one step, whose gradient without decay is 2."""
        model = Sequential([Linear(1, bias=False, init=Constant(2.0))], (1,), k.name, dtype=np.float64)
        Trainer(model, optimizer, MeanSquaredError(), batch_size=1).step(np.ones((1, 1)), np.ones((1, 1)))
        return float(model.parameters()["0.w"][0, 0])

    rate, decay = 0.1, 0.5
    assert step(Adam(rate, eps=3.0)) == pytest.approx(2 - rate * 2 / (2 + 3), rel=1e-12)
    assert step(Adam(rate, eps=3.0, weight_decay=decay)) == pytest.approx(2 - rate * 3 / (3 + 3), rel=1e-12)
    decoupled = 2 - rate * 2 / (2 + 3) - rate * decay * 2
    assert step(AdamW(rate, eps=3.0, weight_decay=decay)) == pytest.approx(decoupled, rel=1e-12)


LOADED = """
import sys
from pathlib import Path
from fuzz.targets import answer, seeds

contents = [*seeds("model"), *(path.read_bytes() for path in sorted(Path({corpus!r}).iterdir()))]
for content in contents:  # what is imported late is imported now
    answer("model", content)
seen = set()
EXECUTING = ("compile", "exec", "import", "marshal", "pickle", "os.system", "os.exec", "os.posix_spawn", "subprocess")
sys.addaudithook(lambda event, arguments: seen.add(event) if event.startswith(EXECUTING) else None)
for content in contents:
    answer("model", content)
print(len(contents), *sorted(seen))
exec("1")
print(*sorted(seen))
"""


def test_model_files_are_data() -> None:
    """Nothing in one is executed, and a damaged one is refused."""
    count, control = run(LOADED.format(corpus=str(CORPUS / "model")))
    assert count.isdigit()
    assert control == "compile exec"
    (content, *_) = seeds("model")
    assert answer("model", content) == ""
    for at in range(0, len(content), 97):
        assert answer("model", content[:at])
    for code in b"c__builtin__\neval\n(S'1'\ntR.", b"\x80\x04.":  # pickles
        assert answer("model", code)
