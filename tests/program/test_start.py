"""What a start is made of: stages that add up, the same in a cold and a warm process."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

import kernels
from models import ReLU, Sequential
from twinkernels import cli, start


@pytest.mark.usefixtures("one_thread")  # with more another process may have compiled what is asked for here
def test_a_model_is_read_cold_and_warm(tmp_path: Path) -> None:
    if "numba" not in kernels.names():
        pytest.skip("there is no compiler here")
    file = tmp_path / "one.safetensors"
    Sequential([ReLU()], (4,), "numpy").save(file)
    began = time.perf_counter()
    measured = start.measure(str(file), batch_size=5)
    whole = time.perf_counter() - began
    assert list(measured.cold) == list(measured.warm)
    assert all(seconds >= 0 for seconds in (*measured.cold.values(), *measured.warm.values()))
    assert sum(measured.cold.values()) + sum(measured.warm.values()) < whole
    assert "relu" in measured.compiled
    assert sum(measured.compiled.values()) < measured.cold["first call"]
    lines = str(measured).splitlines()
    assert lines[0].startswith("one: process start to first result, batch of 5, ")
    assert "start to first result" in [line.rpartition("  ")[0].rpartition("  ")[0].strip() for line in lines]


def test_what_does_not_load_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "broken.safetensors"
    file.write_bytes(b"no model")
    with pytest.raises(SystemExit) as end:
        cli.main(["profile", str(file), "--start"])
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(file) in line
