"""The gate goes red when a kernel is slow or wrong, and stays green otherwise."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import kernels
from benchmarks import paired
from benchmarks.suite import cases, common
from kernels import Kernels
from kernels.interface import roles
from twinkernels.bench import elsewhere, errors, gate, timing

NUMPY = kernels.get("numpy")
CASE = "relu/small"


@pytest.fixture(autouse=True)
def awake_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """NumPy's relu of a few numbers has no threads to be woken: nine tenths of the time went into that."""
    monkeypatch.setattr(timing, "_WAKING", 1e-3)


def altered(kernel: str, alter: Callable[..., None]) -> Kernels:
    """NumPy's kernels but one, after which `alter` is called with its arguments."""
    original = NUMPY.function(kernel)

    def changed(*arguments: Any) -> None:
        original(*arguments)
        alter(*arguments)

    names = {name: getattr(NUMPY.backend, name) for name in dir(NUMPY.backend) if not name.startswith("_")}
    return Kernels("altered", SimpleNamespace(**{**names, kernel: changed}))


def judge(twin: Kernels, case_id: str = CASE, floor: float = 1.0) -> gate.Verdict:
    return paired.judge([case_id], (NUMPY, twin), {"any": {case_id: floor}}, "any", pairs=30)


def test_equal_backends_pass() -> None:
    verdict = judge(NUMPY)
    assert verdict.passed
    assert verdict.outcomes[0].share == 0.0


def test_a_slowed_kernel_fails() -> None:
    verdict = judge(altered("relu", lambda *arguments: time.sleep(1e-3)))
    assert not verdict.passed
    assert "speed-up" in verdict.outcomes[0].failures[0]


def test_a_kernel_short_of_its_floor_fails() -> None:
    assert not judge(NUMPY, floor=100.0).passed


@pytest.mark.parametrize(
    "case_id",
    [f"{kernel}/small" for kernel in ("linear", "conv2d", "maxpool2d", "batchnorm", "gelu")]
    + ["adam/first-step", "softmax_cross_entropy/small", "conv2d_backward/cnn-bn-conv1-b128", "linear_backward/small"],
)
def test_a_result_off_by_a_ten_thousandth_fails(case_id: str) -> None:
    call = common.record(cases.get(case_id))
    position = list(call.arguments).index(next(iter(call.arrays("output", "in place"))))

    def perturb(*arguments: Any) -> None:
        arguments[position][...] *= np.float32(1 + 1e-4)

    assert paired.share(case_id, NUMPY) <= 1.0
    assert paired.share(case_id, altered(call.kernel, perturb)) > 1.0
    if case_id == "linear/small":
        verdict = judge(altered(call.kernel, perturb), case_id)
        assert not verdict.passed
        assert any("budget" in failure for failure in verdict.outcomes[0].failures)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_a_result_that_is_no_number_fails(wrong: float) -> None:
    assert paired.share(CASE, altered("relu", lambda x, y: y.fill(wrong))) > 1.0


@pytest.mark.parametrize("case_id", ["relu/small", "linear/small", "batchnorm/image", "predict/mlp-rmsprop-b1"])
def test_one_nan_in_the_middle_fails(case_id: str) -> None:
    kernel = "linear" if case_id.startswith("predict") else case_id.split("/")[0]
    position = list(roles(kernel)).index("y")

    def plant(*arguments: Any) -> None:
        y = arguments[position]
        y.flat[y.size // 2] = np.nan

    wrong = altered(kernel, plant)
    assert paired.share(case_id, wrong) == np.inf
    assert gate.Outcome(case_id, timing.Interval(2.0, 2.1, 2.2), 1.0, np.nan, 2e-6, 1e-6).failures
    if not case_id.startswith("predict"):
        found = errors.accuracy(common.record(cases.get(case_id)), wrong, NUMPY)
        assert found.error == found.share == np.inf


@pytest.mark.parametrize("case_id", ["step/mlp-rmsprop-b64", "predict/mlp-rmsprop-b1"])
def test_networks_are_held_to_a_budget_too(case_id: str) -> None:
    assert case_id in paired.ids()
    assert paired.share(case_id, NUMPY) <= 1.0
    perturbed = altered("linear", lambda x, w, b, d, scratch, y: np.multiply(y, np.float32(1 + 1e-4), out=y))
    assert paired.share(case_id, perturbed) > 1.0


def test_every_bench_case_is_in_the_gate_once() -> None:
    assert {case.id for case in cases.select(tag="bench")} <= set(paired.ids())
    assert len(paired.ids()) == len(set(paired.ids()))


def test_floors_of_an_unknown_kind_of_cpu_are_conservative() -> None:
    floors = {"any": {"a": 1.5}, "mine": {"a": 3.0}}
    assert gate.floor_of("a", floors, "mine") == 3.0
    assert gate.floor_of("a", floors, "theirs") == 1.5
    assert gate.floor_of("b", floors, "theirs") == gate.CONSERVATIVE


def test_the_floors_that_are_kept_name_cases() -> None:
    floors = gate.read_floors(paired.FLOORS)
    assert "any" in floors
    for kind, kept in floors.items():
        assert set(kept) <= set(paired.ids()), kind
        assert all(floor > 0 for floor in kept.values()), kind


def test_recorded_floors_are_the_low_ends(tmp_path: Any) -> None:
    path = tmp_path / "floors.json"
    path.write_text('{"any": {"relu/small": 1.0}}')
    outcome = gate.Outcome("relu/small", timing.Interval(3.479, 3.6, 3.7), 1.0, 0.5, 2.0, 1.0)
    gate.record_floors([outcome], "mine", path)
    assert json.loads(path.read_text()) == {"any": {"relu/small": 1.0}, "mine": {"relu/small": 3.4}}


def test_numpy_that_is_slower_beside_numba_fails() -> None:
    def outcome(*disturbance: float) -> gate.Outcome:
        speedup = timing.Interval(2.0, 2.1, 2.2)
        return gate.Outcome(CASE, speedup, 1.0, 0.5, 2e-6, 1e-6, timing.Interval(*disturbance))

    def verdict(*disturbance: float) -> gate.Verdict:
        return gate.Verdict([outcome(1.0, 1.1, 1.2)], timing.Interval(*disturbance))

    assert not outcome(1.2, 1.3, 1.4).failures
    assert outcome(2.1, 2.5, 2.9).failures
    assert not outcome(0.9, 2.5, 7.0).failures
    assert verdict(0.9, 1.0, 1.1).passed
    assert not verdict(1.26, 1.3, 1.4).passed
    assert verdict(0.9, 1.3, 1.4).passed


def test_a_verdict_tells_the_median_disturbance() -> None:
    measured = {
        "a": timing.Interval(1.0, 2.0, 9.0),
        "b": timing.Interval(3.0, 4.0, 5.0),
        "c": timing.Interval(2.0, 6.0, 7.0),
    }

    def race(case_id: str, seed: int) -> gate.Outcome:
        return gate.Outcome(case_id, timing.Interval(1.0, 1.0, 1.0), 1.0, 0.0, 1.0, 1.0, measured[case_id])

    assert gate.gate(["a", "b", "c"], race).disturbance == (2.0, 4.0, 7.0)


def outcome_of(case_id: str, high: float, twin: float = 1e-3) -> gate.Outcome:
    """An outcome whose floor is 1 and whose interval ends there."""
    return gate.Outcome(case_id, timing.Interval(high / 2, high / 2, high), 1.0, 0.0, 1e-3, twin)


def test_a_case_that_failed_once_is_tried_again_after_the_others() -> None:
    order: list[tuple[str, int]] = []

    def race(case_id: str, attempt: int) -> gate.Outcome:
        order.append((case_id, attempt))
        return outcome_of(case_id, 0.1 if (case_id, attempt) == ("b", 0) or case_id == "c" else 2.0)

    outcomes = gate.settled(["a", "b", "c", "d"], race)
    assert order == [("a", 0), ("b", 0), ("c", 0), ("d", 0), ("b", 1), ("c", 1), ("c", 2)]
    assert [bool(outcome.failures) for outcome in outcomes] == [False, False, True, False]


def test_a_short_call_may_lose_half_of_its_floor_and_others_a_quarter() -> None:
    assert not outcome_of("relu/small", 0.6, twin=50e-6).failures
    assert outcome_of("relu/small", 0.4, twin=50e-6).failures
    assert outcome_of("relu/small", 0.6, twin=150e-6).failures
    assert not outcome_of("relu/small", 0.8, twin=150e-6).failures


def test_numpy_alone_runs_without_numba() -> None:
    with paired.alone() as alone:
        assert 0.0 < alone.sampler(CASE)() < 1.0


def test_numpy_alone_rests_before_it_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks cannot see that its threads still spin, and they would do so beside the next sample."""
    done: list[str] = []
    asked = iter([CASE])

    def receive() -> str:
        for case_id in asked:
            return case_id
        raise EOFError

    monkeypatch.setattr(elsewhere, "Sampler", lambda call: lambda: (done.append("sample"), 0.0)[1])
    monkeypatch.setattr(timing, "quiet", lambda: done.append("rest"))
    connection: Any = SimpleNamespace(recv=receive, send=lambda seconds: done.append("answer"))
    elsewhere.serve(connection, paired.prepare_numpy, kernels.get_threads(), without="")
    assert done == ["sample", "rest", "answer"]


def test_the_interval_holds_the_median() -> None:
    rng = np.random.default_rng(1)
    slow, fast = np.exp(rng.normal(np.log(2.0), 0.1, 200)), np.exp(rng.normal(0.0, 0.1, 200))
    low, median, high = timing.ratio(slow, fast)
    assert low < median < high
    assert low < 2.0 < high
    assert high / low < 1.2
    assert timing.ratio(slow, fast) == timing.ratio(slow, fast)


def test_calibration_counts_alarms(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    assert paired.calibrate([CASE], NUMPY, runs=2, pairs=30, show=lambda line: lines.append(str(line))) == 0.0
    assert "0 of 2 runs" in lines[-2]
    monkeypatch.setattr(gate, "MARGIN", 100.0)
    monkeypatch.setattr(gate, "SHORT_MARGIN", 100.0)
    assert paired.calibrate([CASE], NUMPY, runs=1, pairs=30, show=lambda line: None) == 1.0


def test_either_backend_is_calibrated(capsys: pytest.CaptureFixture[str]) -> None:
    assert paired.main(["--calibrate", "1", "--backend", "numba", "--cases", "sgd/mlp-512"]) == 0
    assert "0 of 1 runs" in capsys.readouterr().out


def test_a_disturbance_while_calibrating_is_an_alarm(monkeypatch: pytest.MonkeyPatch) -> None:
    with paired.alone() as alone:
        monkeypatch.setattr(gate, "CASE_DISTURBED", np.inf)
        assert paired.calibrate([CASE], NUMPY, 1, 30, alone, lambda line: None) == 0.0
        monkeypatch.setattr(gate, "CASE_DISTURBED", 0.0)
        assert paired.calibrate([CASE], NUMPY, 1, 30, alone, lambda line: None) == 1.0


def test_mistakes_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        (["--pairs", "10"], "at least 30"),
        (["--cases", "nonesuch"], "no case contains"),
        (["--calibrate", "0"], "at least 1"),
        (["--backend", "numba"], "for --calibrate alone"),
    ):
        with pytest.raises(SystemExit) as end:
            paired.main(arguments)
        assert end.value.code == 2
        assert message in capsys.readouterr().err
