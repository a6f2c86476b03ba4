"""Files of twins and cases: what is read, what is refused with one line, and what the commands make of them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from twinkernels.bench import FileError, gate, measure, memory, read, timing, twins
from twinkernels.bench.declare import Case

from ..program.conftest import Called

Run = Callable[..., Called]

HEAD = """
import numpy as np
from twinkernels.bench import case, twins

def relu(x):
    return np.maximum(x, 0)

def other(x):
    return x * (x > 0)
"""

GOOD = (
    HEAD
    + """
k = twins(numpy=relu, other=other)

@case(k, "small", flops=lambda x: x.size)
def small(draw):
    return {"x": draw.normal(200, 300)}
"""
)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    def written(text: str) -> Path:
        path = tmp_path / "own.py"
        path.write_text(text)
        return path

    return written


# Reading ---------------------------------------------------------------------------------------------------------


def test_a_file_names_its_kernels_by_their_variables(write: Callable[[str], Path]) -> None:
    assert [case.id for case in read(write(GOOD))] == ["k/small"]
    named = GOOD.replace("numpy=relu", "name='rectify', numpy=relu")
    assert [case.id for case in read(write(named))] == ["rectify/small"]


def test_cases_may_come_from_loops_and_other_modules(write: Callable[[str], Path], tmp_path: Path) -> None:
    (tmp_path / "own_cases.py").write_text(GOOD)
    loop = "for n in (4, 8):\n    case(j, f'n{n}')(lambda draw, n=n: [draw.normal(n)])\n"
    path = write(HEAD + "from own_cases import small\nj = twins(numpy=relu)\n" + loop)
    try:
        for _ in range(2):  # the second time from a module that is loaded
            found = read(path)
            assert sorted(case.id for case in found) == ["j/n4", "j/n8", "k/small"]
        assert found[-1].arguments()["x"].shape == (8,)
    finally:
        sys.modules.pop("own_cases", None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "own.py has no twins and no case: expected twins(...) and functions under @case(...)"),
        (HEAD + "k = twins(numpy=relu)", "own.py has twins, but no case: expected"),
        (GOOD.replace("case(k,", "case('k',"), "own.py, line 13: case 'small': expected twins(...), got 'k'"),
        (GOOD.replace("case(k,", "case(unknown,"), "own.py, line 13: NameError: name 'unknown' is not defined"),
        ("def", "own.py, line 1: SyntaxError: invalid syntax"),
        (HEAD + "twins()", "twins() has no functions, expected numpy=function"),
        (HEAD + "twins(numpy=3)", "twins: numpy is 3, expected a function or 'module:function'"),
        (HEAD + "twins(numpy=relu, takes='nan nonsense')", "twins: takes has 'nonsense', expected of nan, inf"),
        (GOOD.replace('"small",', '"small", dtypes="float16",'), "dtypes has 'float16', expected of float32, float64"),
        (GOOD.replace('"small",', '"small", sizes={"n": 3},'), "sizes has n=3, expected (least, most)"),
        (GOOD + "case(k, 'small')(small)", "own.py has two cases k/small"),
    ],
)
def test_a_bad_file_is_refused_with_one_line(write: Callable[[str], Path], run: Run, text: str, message: str) -> None:
    path = write(text)
    with pytest.raises(FileError) as raised:
        read(path)
    assert message in str(raised.value)
    for command in "check", "bench":
        status, out, err = run(command, path)
        assert (status, out, len(err)) == (2, [], 1)
        assert message in err[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD.replace("return {", "return 3, {"), "relu does not take what the case gives: too many positional"),
        (GOOD.replace("draw.normal(200, 300)", "draw.nonsense()"), "the case raises AttributeError: 'Draw' object"),
        (GOOD.replace("np.maximum(x, 0)", "np.maximum(z, 0)"), "the definition relu raises NameError: name 'z'"),
        (GOOD.replace("x * (x > 0)", "x, x"), "other gives 2 arrays"),
    ],
)
def test_a_case_that_no_twin_could_pass_is_refused_with_one_line(
    write: Callable[[str], Path],
    run: Run,
    text: str,
    message: str,
) -> None:
    path = write(text)
    for command in "check", "bench":
        status, _, err = run(command, path, *(["--seconds", "0"] if command == "bench" else []))
        assert (status, len(err)) == (2, 1)
        assert err[0].startswith("twinkernels: k/small: ")
        assert message in err[0]


def test_no_file(run: Run, tmp_path: Path) -> None:
    assert run("check", tmp_path / "none.py")[::2] == (2, [f"twinkernels: {tmp_path / 'none.py'}: No such file"])


# twinkernels check -----------------------------------------------------------------------------------------------


def test_check_says_what_holds(write: Callable[[str], Path], run: Run) -> None:
    status, out, err = run("check", write(GOOD))
    assert (status, err) == (0, [])
    assert [line.split("  ")[:2] for line in out[:-1]] == [
        ["k/small numpy float32", "ok"],
        ["k/small other float32", "ok"],
    ]
    assert out[-1] == "2 of 2 hold"
    status, out, _ = run("check", write(GOOD.replace("other=other", "other=other, torch='no_such_package:relu'")))
    assert (status, out[-2:]) == (
        0,
        ["k/small torch float32  left out: No module named 'no_such_package'", "2 of 2 hold, 1 left out"],
    )


def test_check_says_what_does_not(write: Callable[[str], Path], run: Run) -> None:
    status, out, err = run("check", write(GOOD.replace("(x > 0)", "(x > 0) * np.float32(1.0001)")), "--cases", "small")
    assert (status, err) == (1, [])
    assert out[1] == "k/small other float32  FAILED"
    assert out[2].startswith("    agreement: result[")
    assert out[3].startswith("        smallest input: x (1, 1) float32 [")
    assert out[-1] == "1 of 2 hold"


def test_cases_are_chosen_by_text(write: Callable[[str], Path], run: Run) -> None:
    for command in "check", "bench":
        assert run(command, write(GOOD), "--cases", "large")[::2] == (
            2,
            ["twinkernels: no case has large in its id"],
        )


# twinkernels bench -----------------------------------------------------------------------------------------------

QUICK = ("--rounds", "9", "--seconds", "0")


def test_bench_prints_keeps_and_draws(write: Callable[[str], Path], run: Run, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="pictures need the extra plots")
    kept, picture = tmp_path / "out.json", tmp_path / "out.png"
    status, out, _ = run("bench", write(GOOD), *QUICK, "--json", kept, "--picture", picture)
    assert status == 0
    assert out[1].split()[:3] == ["case", "contestant", "µs"]
    assert [line.split()[:2] for line in out[2:4]] == [["k/small", "numpy"], ["k/small", "other"]]
    figures = json.loads(kept.read_text())
    assert set(figures) == {"machine", "lines"}
    definition, other = figures["lines"]
    assert definition["speedup"] is None
    assert other["speedup"] == sorted(other["speedup"])
    assert (other["flops"], other["bytes"]) == (60_000, 2 * 240_000)
    assert other["seconds"] > 0 < other["first"]
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_bench_names_what_is_wrong(write: Callable[[str], Path], run: Run) -> None:
    status, out, _ = run("bench", write(GOOD.replace("(x > 0)", "(x > 0) * np.float32(1.0001)")), *QUICK)
    assert status == 1
    assert out[-1].startswith("FAILED k/small other: the error takes 210 times its budget")


def test_bench_against_figures_that_were_kept(write: Callable[[str], Path], run: Run, tmp_path: Path) -> None:
    kept = tmp_path / "old.json"
    line = {"case": "k/small", "contestant": "other", "dtype": "float32"}
    for before, status in (0.001, 0), (1000.0, 1):
        kept.write_text(json.dumps({"lines": [{**line, "speedup": [before] * 3}]}))
        found, out, _ = run("bench", write(GOOD), *QUICK, "--against", kept)
        assert found == status
        assert (" it was 1000.00 [1000.00, 1000.00]" in out[-1]) == bool(status)
    kept.write_text("{}")
    assert run("bench", write(GOOD), *QUICK, "--against", kept)[::2] == (
        2,
        [f"twinkernels: {kept} is no file that twinkernels bench --json has written"],
    )


SLOW = GOOD.replace("def other(x):\n", "def other(x):\n    import time; time.sleep(0.005)\n")


def test_bench_against_a_revision(write: Callable[[str], Path], run: Run, tmp_path: Path) -> None:
    if shutil.which("git") is None:
        pytest.skip("revisions are git's")
    path = write(GOOD)
    for arguments in (
        ("init", "-q"),
        ("add", "own.py"),
        ("-c", "user.name=n", "-c", "user.email=e", "commit", "-qm", "one"),
    ):
        subprocess.run(["git", "-C", str(tmp_path), *arguments], check=True)
    path.write_text(SLOW)
    status, out, err = run("bench", path, *QUICK, "--against", "HEAD")
    assert (status, err) == (1, [])
    assert out[1].endswith("older / this")
    assert out[-1].startswith("FAILED k/small other: the older one takes 0.")
    status, _, err = run("bench", path, *QUICK, "--against", "nonsense")
    assert (status, len(err)) == (2, 1)
    assert err[0].startswith("twinkernels: --against nonsense: ")


def test_a_twin_slower_than_recorded_fails_the_gate(write: Callable[[str], Path], run: Run, tmp_path: Path) -> None:
    path = write(GOOD)
    status, out, err = run("bench", path, "--record", "--rounds", "9")
    assert (status, err) == (0, [])
    floors = json.loads((tmp_path / "own.floors.json").read_text())
    ((kind, kept),) = floors.items()
    assert set(kept) <= {"k/small other"}  # none where this moment was too noisy
    assert kind in out[0]
    (tmp_path / "own.floors.json").write_text(json.dumps({kind: {"k/small other": 0.01}}))
    assert run("bench", path, "--gate", "--rounds", "9")[0] == 0
    (tmp_path / "own.floors.json").write_text(json.dumps({kind: {"k/small other": 1000.0}}))
    status, out, _ = run("bench", path, "--gate", "--rounds", "9")
    assert status == 1
    assert any("is below 0.8 x its floor 1000" in line for line in out)


def test_a_wrong_twin_fails_the_gate_and_gets_no_floor(write: Callable[[str], Path], run: Run, tmp_path: Path) -> None:
    path = write(GOOD.replace("(x > 0)", "(x > 0) * np.float32(1.0001)"))
    assert run("bench", path, "--record", "--rounds", "9")[0] == 1
    assert "k/small other" not in (tmp_path / "own.floors.json").read_text()
    assert run("bench", path, "--gate", "--rounds", "9")[0] == 1


def test_twins_are_raced_against_themselves(write: Callable[[str], Path], run: Run) -> None:
    status, out, _ = run("bench", write(GOOD), "--calibrate", "2", "--rounds", "9")
    assert status == 0
    assert "0 of 2 runs raised a false alarm: 0.0%" in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--record", "--gate"], "--record, --gate and --calibrate are three, expected one of them"),
        (["--gate", "--json", "a.json"], "--json, --picture and --against belong to figures"),
        (["--rounds", "3"], "'--rounds'.*9"),
    ],
)
def test_options_that_do_not_go_together(
    write: Callable[[str], Path],
    run: Run,
    options: list[str],
    message: str,
) -> None:
    status, _, err = run("bench", write(GOOD), *options)
    assert status == 2
    assert re.search(message, " ".join(err))


def test_a_twin_of_one_and_a_half_times_its_recorded_time_is_beyond_the_gate_however_short_its_call() -> None:
    def outcome(speedup: float, spread: float, lenient: bool) -> gate.Outcome:
        interval = timing.Interval(speedup / spread, speedup, speedup * spread)
        return gate.Outcome("k", interval, 3.0, 0.1, 3e-5, 1e-5, lenient=lenient)

    assert outcome(3.0 / 1.5, 1.1, lenient=False).failures
    assert not outcome(3.0 / 1.5, 1.1, lenient=True).failures  # the package's own, on any machine of a kind
    assert not outcome(3.0 / 1.2, 1.1, lenient=False).failures


def test_what_is_in_place_is_given_back_before_each_sample() -> None:
    def double(p: np.ndarray) -> None:
        p *= 2

    kernel = twins(numpy=double, in_place="p")
    case = Case(kernel, "case", lambda draw: {"p": np.ones(3, np.float32)})
    call, restore = measure.bound(case, case.call(), double)
    assert restore is not None
    begun: list[float] = []

    def noted() -> None:
        restore()
        begun.append(float(call.args[0][0]))  # type: ignore[attr-defined]

    with np.errstate(over="ignore"):
        sampler = timing.Sampler(call, noted)
        sampler()
        sampler()
    assert begun == [1.0, 1.0]


def test_memory_is_what_a_call_takes_beside_its_arguments() -> None:
    x = np.ones(1 << 20, np.float32)
    found = memory.peak(lambda: np.exp(x) + np.exp(x)), memory.peak(lambda: np.exp(x, out=x))
    if None in found:
        pytest.skip("this system does not tell what a call takes")
    two, none = found
    assert 1.9 * x.nbytes < two < 4 * x.nbytes  # pages are not counted to the last
    assert none < x.nbytes / 4
