"""README and documentation are true: their code runs as written, and their commands, options and links exist."""

from __future__ import annotations

import functools
import importlib.util
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import data
import kernels
from twinkernels import cli

ROOT = Path(__file__).parents[2]
PAGES = [name.relative_to(ROOT).as_posix() for name in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINKING = [
    *PAGES,
    "examples/README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "benchmarks/README.md",
    "benchmarks/RESULTS.md",
]


def text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[tuple[int, str]]:
    """(line number, text) of each block in a language."""
    whole = text(page)
    return [(whole.count("\n", 0, block.start(2)), block[2]) for block in FENCE.finditer(whole) if block[1] == language]


def trained(names: dict[str, Any], printed: str) -> None:
    assert float(printed.split()[-1]) > 0.8


def readme(names: dict[str, Any], printed: str) -> None:
    trained(names, printed)
    assert "conv2d_backward" in printed


def models(names: dict[str, Any], printed: str) -> None:
    assert "conv2d_backward" in printed
    trained(names, printed)
    assert len(names["digits"]) == 3


def mistake(names: dict[str, Any], printed: str) -> None:
    assert "conv2d: w has 3 input channels, x has 1" in printed


def twins(names: dict[str, Any], printed: str) -> None:
    assert "ZeroDivisionError: division by zero" in printed
    assert "0.y = scale(input, 0.gain)" in printed
    x = np.random.default_rng(0).normal(size=(3, 4, 5))
    for backend in kernels.names():
        y = x * 0
        names["SCALE"].on(backend)(x, x[0, 0].copy(), y)
        assert (y == x * x[0, 0]).all()


def exchanged(names: dict[str, Any], printed: str) -> None:
    assert "Conv2d(8, 3)" in printed
    assert {path.name for path in Path().iterdir()} == {"digits.weights.h5", "digits.pth"}


def distorted(names: dict[str, Any], printed: str) -> None:
    assert names["images"].shape == (128, 28, 28, 1)
    assert (names["distorted"] != names["train"].images[:64]).any()


def on_disk(names: dict[str, Any], printed: str) -> None:
    assert (names["trainer"].steps, names["trainer"].shards) == (10, 2)
    assert (names["on_disk"].steps, len(names["images"])) == (24, 3000)


def onnx_in_and_out(names: dict[str, Any], printed: str) -> None:
    assert names["shares"].sum(axis=1) == pytest.approx(1, rel=1e-5)
    assert "Conv2d(8, 5)" in printed
    assert printed.endswith("['N', 1, 28, 28]\n")


def recipe(names: dict[str, Any], printed: str) -> None:
    assert float(printed) > 0.5


def pictures(names: dict[str, Any], printed: str) -> None:
    assert {path.name for path in Path().iterdir()} == {"curves.svg", "network.png", "mistakes.svg"}


def suites(names: dict[str, Any], printed: str) -> None:
    assert names["standardise"].contestants.keys() == {"numpy", "numba"}
    assert [mark.name for mark in names["test_twins"].pytestmark] == ["parametrize"]
    assert names["Standardise"].params == (["numpy", "numba"], ["standardise/rows", "largest/rows"])


def estimators(names: dict[str, Any], printed: str) -> None:
    score, shown, difference = printed.strip().splitlines()
    assert float(score) > 0.8
    assert shown.startswith("['even' 'odd']")
    assert float(difference) < 1e-9


CHECKS: dict[str, Callable[[dict[str, Any], str], None]] = {
    "README.md": readme,
    "docs/bench.md": suites,
    "docs/command.md": recipe,
    "docs/data.md": distorted,
    "docs/distributed.md": on_disk,
    "docs/estimators.md": estimators,
    "docs/exchange.md": onnx_in_and_out,
    "docs/extend.md": twins,
    "docs/frameworks.md": exchanged,
    "docs/index.md": trained,
    "docs/kernels.md": mistake,
    "docs/models.md": models,
    "docs/pictures.md": pictures,
}
"""What the code of a page must have come to: given its names, and what it printed."""

NEEDED = {
    "docs/data.md": {"sklearn": "digits are scikit-learn's"},
    "docs/estimators.md": {"sklearn": "estimators need the extra sklearn"},
    "docs/exchange.md": {"onnx": "ONNX's files need the extra onnx"},
    "docs/frameworks.md": {"h5py": "Keras' files need the extra keras", "torch": "PyTorch's need the extra torch"},
    "docs/pictures.md": {"matplotlib": "pictures need the extra plots"},
}
"""What the code of a page imports beyond the package."""

BESIDE = {"docs/bench.md": ["examples/standardise/standardise.py"]}
"""Files that the code of a page finds in its folder."""

LOAD = functools.cache(data.load)


def test_every_page_with_code_is_run() -> None:
    found = {page: len(blocks(page, "python")) for page in PAGES}
    assert {page for page, count in found.items() if count} == CHECKS.keys()
    assert sum(found.values()) >= 8


@pytest.mark.parametrize("page", CHECKS)
def test_names_and_arguments_on_this_page_work_as_written(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for package, reason in NEEDED.get(page, {}).items():
        pytest.importorskip(package, reason=reason)
    for file in BESIDE.get(page, []):
        shutil.copy(ROOT / file, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(data, "load", LOAD)  # every page draws the same strokes
    names: dict[str, Any] = {"__name__": "page"}
    threads = kernels.get_threads()
    for line, code in blocks(page, "python"):
        # Padded, so that a traceback shows the page's own line numbers; nothing imported from __future__ is the page's.
        exec(compile("\n" * line + code, str(ROOT / page), "exec", dont_inherit=True), names)
    CHECKS[page](names, capsys.readouterr().out)
    kernels.set_threads(threads)


def test_shell_blocks_use_commands_and_options_that_exist(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [line for page in PAGES for _, block in blocks(page, "sh") for line in block.splitlines()]
    calls = [shlex.split(line, comments=True) for line in lines if line.startswith("twinkernels ")]
    commands = {"list", "train", "evaluate", "predict", "draw", "profile", "report", "explore", "study"}
    commands |= {"compile", "convert", "inspect", "check", "bench"}
    assert {call[1] for call in calls} == commands
    for call in calls:
        with pytest.raises(SystemExit) as end:
            cli.main([call[1], "--help"])
        assert end.value.code == 0
        shown = capsys.readouterr().out
        assert [word for word in call if word.startswith("--") and word not in shown] == []


@pytest.mark.parametrize("page", LINKING)
def test_modules_to_run_exist(page: str) -> None:
    tools = {"build", "pip", "pytest", "venv"}  # of others, not all of them required by the tests
    for module in set(re.findall(r"python -m ([\w.]+)", text(page))) - tools:
        found = importlib.util.find_spec(module)
        assert found, module
        if found.submodule_search_locations is not None:
            assert importlib.util.find_spec(f"{module}.__main__"), module


def test_the_commands_at_the_top_install_train_and_test() -> None:
    first, second = [block.strip() for _, block in blocks("README.md", "sh")][:2]
    assert first == "python -m venv .venv && .venv/bin/pip install . && .venv/bin/twinkernels train cnn-bn"
    install, run = ".venv/bin/pip install --no-compile '.[test]'", ".venv/bin/python -m pytest -n 2 --dist worksteal"
    assert second == f"python -m venv .venv && {install} && {run}"


@pytest.mark.parametrize("page", LINKING)
def test_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", FENCE.sub("", text(page))):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = ((ROOT / page).parent / path) if path else ROOT / page
        assert file.is_file() or (file.is_dir() and not anchor), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings], (
                target
            )
