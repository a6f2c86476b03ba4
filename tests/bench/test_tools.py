"""Files of twins in pytest and asv, and the examples."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from twinkernels.bench import check, read

from ..support.processes import BRIEF

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
SOFTPLUS = EXAMPLES / "softplus"
PLUGIN = "twinkernels.bench.plugin"

OWN = """
import numpy as np
from twinkernels.bench import case, twins

def relu(x):
    return np.maximum(x, 0)

def other(x):
    return np.maximum(x, 0) * np.float32({factor})

k = twins(numpy=relu, other=other, torch="no_such_package:relu")

@case(k, "small")
def small(draw):
    return {{"x": draw.normal(30, 20)}}
"""


def pytest_process(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """pytest in a folder, with no settings but its own. The plugin is named where the package is not installed."""
    named = [entry.name for entry in importlib.metadata.entry_points(group="pytest11")]
    command = [
        sys.executable,
        "-c",
        f"{BRIEF}import sys, pytest; sys.exit(pytest.console_main())",
        "-c",
        os.devnull,
        "--rootdir",
        str(folder),
        "-q",
        "-p",
        "no:cacheprovider",
    ]
    command += [] if PLUGIN in named else ["-p", PLUGIN]
    # A process of its own is no worker, for which pytest-benchmark takes whoever has xdist's variables.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    environment |= {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [*command, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def test_the_plugin_is_declared_by_its_module() -> None:
    assert f'"{PLUGIN}" = "{PLUGIN}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_the_plugin_loads_nothing_heavy() -> None:
    program = f"import sys, {PLUGIN}; print({{'numpy', 'numba', 'models', 'typer'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_pytest_has_a_test_for_each_case_contestant_and_check(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN.format(factor=1))
    (tmp_path / "test_more.py").write_text("def test_more(): pass")
    done = pytest_process(tmp_path, "--twins", "own.py", "-vv")
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.findall(r"own\.py::(\S+) (PASSED|SKIPPED)", done.stdout)
    names = [name for name, _ in found]
    assert "test_twins[k/small-numpy-float32-agreement]" in names
    assert "test_twins[k/small-other-float32-bits]" in names
    assert ("test_twins[k/small-torch-float32-bits]", "SKIPPED") in found
    assert ("test_speed[k/small-other-float32]", "PASSED") in found
    assert "test_more" not in done.stdout  # the files alone where nothing else is named


def test_pytest_collects_the_files_beside_what_is_named(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("x = 1")
    (tmp_path / "test_more.py").write_text("def test_more(): pass")
    done = pytest_process(tmp_path, "--twins", "own.py", "test_more.py", "--continue-on-collection-errors")
    assert done.returncode == 1
    assert "own.py has no twins and no case" in done.stdout
    assert "1 passed, 1 error" in done.stdout


def test_pytest_names_the_check_that_fails(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN.format(factor=1.0001))
    done = pytest_process(tmp_path, "--twins", "own.py")
    assert done.returncode == 1
    assert "FAILED own.py::test_twins[k/small-other-float32-agreement]" in done.stdout
    assert "839 ulp" in done.stdout
    assert "1.0001" not in done.stdout  # no traceback into what was called
    assert "bits]" not in done.stdout


# The examples ----------------------------------------------------------------------------------------------------


def test_the_example_checks_itself_by_pytest_with_contestants_side_by_side(tmp_path: Path) -> None:
    pytest.importorskip("pytest_benchmark", reason="groups are those of pytest-benchmark, of the extra bench")
    kept = tmp_path / "out.json"
    short = ("--benchmark-max-time=0.01", "--benchmark-min-rounds=1", f"--benchmark-json={kept}")
    done = pytest_process(SOFTPLUS, *short)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^\d+ passed", done.stdout, re.MULTILINE)
    assert kept.exists(), done.stdout + done.stderr
    groups = [(one["group"], one["params"]["contestant"]) for one in json.loads(kept.read_text())["benchmarks"]]
    both = ("numpy", "numba")
    assert groups == [(f"softplus/wide {dtype}", name) for dtype in ("float32", "float64") for name in both]


ASV = """
import sys
from asv_runner.discovery import disc_benchmarks
print(*sorted(benchmark.name for benchmark in disc_benchmarks(sys.argv[1])))
from speed import bench_softplus
suite = bench_softplus.Softplus()
print(suite.params, suite.param_names)
suite.setup("numba", "softplus/wide")
suite.time_call("numba", "softplus/wide")
print(suite.track_error("numba", "softplus/wide") < 3, suite.track_time_ratio("numba", "softplus/wide") > 0)
"""


def test_the_example_has_an_asv_suite() -> None:
    pytest.importorskip("asv_runner", reason="asv is of the extra bench")
    done = subprocess.run(
        [sys.executable, "-c", BRIEF + ASV, "speed"],
        cwd=SOFTPLUS,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        " ".join(f"bench_softplus.Softplus.{method}" for method in ("time_call", "track_error", "track_time_ratio")),
        "(['numpy', 'numba'], ['softplus/wide']) ('contestant', 'case')",
        "True True",
    ]


SUITES = sorted(path for path in (EXAMPLES / "suites").glob("*.py") if path.name != "pairs.py")


def test_fifteen_lines_are_enough_for_each_of_ten_kernels() -> None:
    assert len(SUITES) == 10
    for path in SUITES:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 15, path.name


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)
def test_kernels_of_other_peoples_suites_hold(path: Path) -> None:
    found = list(check(read(path)))
    assert {checked.contestant for checked in found} == {"numpy", "numba"}
    assert [checked for checked in found if checked.faults or checked.missing] == []
