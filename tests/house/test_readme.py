"""The README is true: its code runs as written, and its commands and links exist."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

import kernels
from twinkernels import cli

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[tuple[int, str]]:
    """(line number, text) of each block in a language."""
    text = README.read_text(encoding="utf-8")
    return [(text.count("\n", 0, block.start(2)), block[2]) for block in FENCE.finditer(text) if block[1] == language]


def test_names_and_arguments_on_this_page_work_as_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "readme"}
    found = blocks("python")
    assert len(found) >= 8
    for line, text in found:
        # Padded, so that a traceback shows the README's own line numbers.
        exec(compile("\n" * line + text, str(README), "exec"), names)
    printed = capsys.readouterr().out
    assert "conv2d: w has 3 input channels, x has 1" in printed
    assert "conv2d_backward" in printed
    assert float(printed.split()[0]) > 0.8

    x = np.random.default_rng(0).normal(size=(3, 4, 5))
    for backend in kernels.names():
        y = x * 0
        names["SCALE"].on(backend)(x, x[0, 0].copy(), y)
        assert (y == x * x[0, 0]).all()


def test_shell_blocks_use_commands_and_options_that_exist(capsys):
    lines = [line for _, text in blocks("sh") for line in text.splitlines()]
    calls = [shlex.split(line, comments=True) for line in lines if line.startswith("twinkernels ")]
    commands = {"list", "train", "evaluate", "predict", "draw", "profile", "report", "explore", "study"}
    assert {call[1] for call in calls} == commands
    for call in calls:
        with pytest.raises(SystemExit) as end:
            cli.main([call[1], "--help"])
        assert end.value.code == 0
        shown = capsys.readouterr().out
        assert [word for word in call if word.startswith("--") and word not in shown] == []


def test_the_commands_at_the_top_install_train_and_test():
    first, second = [text.strip() for _, text in blocks("sh")][:2]
    assert first == "python -m venv .venv && .venv/bin/pip install . && .venv/bin/twinkernels train cnn-bn"
    assert (
        second
        == "python -m venv .venv && .venv/bin/pip install '.[test]' && .venv/bin/python -m pytest -n 2 --dist worksteal"
    )


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        assert (ROOT / path).is_file(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in [heading.lower().replace(" ", "-") for heading in headings], target
