"""The comparison with other libraries: the protocol between parent and workers, and what is made of the times."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

import kernels
import models
from benchmarks.peers import __main__ as command
from benchmarks.peers import measure, networks, report
from benchmarks.peers.install import pinned
from benchmarks.peers.installed import sizes
from benchmarks.peers.measure import Result, Worker, WorkerError
from benchmarks.peers.variants import DISTRIBUTIONS, OURS, REFERENCE, VARIANTS, Variant
from benchmarks.peers.workers import ours

FAKE = """
import os, sys, time
from benchmarks.peers.networks import Peer, Unavailable

def prepare(case):
    if case.variant == "missing":
        import no_such_library
    if case.variant == "reluctant":
        raise Unavailable("needs a compiler, and there is none on PATH")
    if case.variant == "broken":
        raise ValueError("shapes do not fit")
    if case.variant == "crashes":
        print("last words", file=sys.stderr, flush=True)
        os._exit(3)
    if case.variant == "hangs":
        time.sleep(60)
    print("libraries print what they like")
    calls = 0

    def call(x, y):
        nonlocal calls
        calls += 1
        if case.variant == "dies" and calls > 60:
            os._exit(4)
        assert x.shape == (case.batch_size, 28, 28, 1) and y.shape == (case.batch_size,)
        time.sleep(0.002)
        return float(x[0, 0, 0, 0]) + (0.5 if case.variant == "other" else 0.0)

    return Peer(call, {"fake": "1.0"}, ("a note",), comparable=case.variant != "slow")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds the module of a library that only sleeps, and the arrays of a case: batch i is filled with i + 1."""
    folder = tmp_path_factory.mktemp("peers")
    (folder / "fake_library.py").write_text(FAKE)
    x = np.ones((networks.BATCHES, 2, *networks.IMAGE), np.float32)
    x *= np.arange(1, networks.BATCHES + 1).reshape(-1, 1, 1, 1, 1)
    networks.save(folder / "arrays.npz", networks.NETWORKS["mlp-512"], x, np.zeros((networks.BATCHES, 2), np.int64))
    return folder


def variant(folder: Path, name: str, peer: str = "fake") -> Variant:
    return Variant(peer, name, "fake_library", environment={"PYTHONPATH": str(folder)})


def request(folder: Path, threads: int = 1) -> dict[str, object]:
    return measure.request(networks.NETWORKS["mlp-512"], "train", 2, threads, folder / "arrays.npz")


def start(folder: Path, name: str, limit_seconds: float = 60.0) -> Worker:
    return Worker(variant(folder, name), request(folder), sys.executable, limit_seconds)


# The protocol ------------------------------------------------------------------------------------------------


def test_a_worker_answers_each_turn_with_its_step_times(folder: Path):
    worker = start(folder, "quick")
    try:
        assert worker.ready["versions"] == {"fake": "1.0"}
        assert worker.ready["outputs"] == [[1.0], [2.0], [3.0], [4.0], [5.0]]
        assert worker.ready["step_seconds"] >= 0.002
        for steps in (3, 7):
            seconds = worker.ask("turn", steps=steps)["seconds"]
            assert len(seconds) == steps
            assert min(seconds) >= 0.002
        assert worker.ask("usage")["peak_bytes"] > 1_000_000
    finally:
        worker.close()
    assert worker.process.returncode is not None


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="this system cannot stop a process")
def test_a_worker_is_frozen_outside_its_turn(folder: Path):
    stat = Path("/proc/self/stat")
    if not stat.exists():
        pytest.skip("this system has no /proc that tells a process's state")
    worker = start(folder, "quick")
    try:
        for _ in range(2):
            # The signal may take a moment to arrive.
            for _ in range(1000):
                if Path(f"/proc/{worker.process.pid}/stat").read_text().split(")")[1].split()[0] == "T":
                    break
            else:
                pytest.fail("the worker is not stopped")
            worker.ask("turn", steps=1)
    finally:
        worker.close()


@pytest.mark.parametrize(
    ("name", "unavailable", "reason"),
    [
        ("missing", True, f"no_such_library is not installed for {sys.executable}"),
        ("reluctant", True, "needs a compiler, and there is none on PATH"),
        ("broken", False, "ValueError: shapes do not fit"),
        ("crashes", False, "fake crashes: ended with status 3; last words"),
    ],
)
def test_a_worker_that_cannot_start_says_why(folder: Path, name: str, unavailable: bool, reason: str):
    with pytest.raises(WorkerError) as error:
        start(folder, name)
    assert str(error.value) == reason
    assert error.value.unavailable == unavailable


def test_a_worker_that_hangs_is_ended(folder: Path):
    with pytest.raises(WorkerError, match=r"fake hangs: no answer within 1 s; it wrote nothing"):
        start(folder, "hangs", limit_seconds=1.0)


def test_rounds_go_on_without_those_who_fail(folder: Path):
    said: list[str] = []
    results = measure.measure(
        [
            variant(folder, REFERENCE, peer=OURS),
            *(variant(folder, name) for name in ("slow", "other", "missing", "dies")),
        ],
        {OURS: sys.executable, "": sys.executable},
        request(folder),
        rounds=3,
        steps=4,
        turn_seconds=0.1,
        say=said.append,
    )
    by_name = {result.variant: result for result in results}
    assert {name: result.status for name, result in by_name.items()} == {
        "numpy": "measured",
        "slow": "measured",
        "other": "measured",
        "missing": "unavailable",
        "dies": "failed",
    }
    slow = by_name["slow"]
    assert [turn["steps"] for turn in slow.rounds] == [4, 4, 4]
    assert slow.ratios == [
        turn["median"] / ours["median"] for turn, ours in zip(slow.rounds, by_name["numpy"].rounds, strict=True)
    ]
    assert slow.images_per_second == 2 / slow.step_seconds
    assert slow.first_step_seconds > 0
    assert by_name["numpy"].deviation == 0
    assert by_name["other"].deviation == pytest.approx(0.5 / 5)
    assert slow.deviation is None
    assert len(said) == 2
    json.dumps([measure.as_json(result) for result in results])


def test_a_deviation_of_what_is_no_number_is_infinite() -> None:
    flat = [[1.0, 2.0, 4.0]]
    assert measure.deviation(flat, flat) == 0
    for wrong in (np.nan, np.inf):
        assert measure.deviation([[1.0, wrong, 4.0]], flat) == np.inf
        assert measure.deviation(flat, [[1.0, wrong, 4.0]]) == np.inf


# The maths ---------------------------------------------------------------------------------------------------


def measured(peer: str, name: str, medians: list[float]) -> Result:
    rounds = [{"median": median, "min": median / 2, "steps": 5} for median in medians]
    return Result(peer, name, rounds=rounds)


def example() -> list[Result]:
    """A machine that is four times slower in the second round; ours is always twice as fast as torch eager."""
    results = [
        measured(OURS, "numba", [0.001, 0.004, 0.002]),
        measured(OURS, "numpy", [0.010, 0.040, 0.020]),
        measured("torch", "eager", [0.002, 0.008, 0.004]),
        measured("torch", "tuned", [0.0015, 0.006, 0.003]),
        Result("jax", "jit", "unavailable", "jax is not installed for python"),
    ]
    measure.summarise(results, batch_size=64)
    return results


def test_ratios_are_taken_within_rounds():
    numba, numpy, eager, tuned, jax = example()
    assert eager.ratios == [2.0, 2.0, 2.0]
    assert eager.ours_over_peer == 2.0
    assert eager.ours_over_peer_by_min == 2.0
    assert tuned.ours_over_peer == pytest.approx(1.5)
    assert numpy.ours_over_peer == pytest.approx(10)
    assert numba.ours_over_peer == 1.0
    assert (eager.step_seconds, eager.min_seconds, eager.images_per_second) == (0.004, 0.001, 16_000)
    assert jax.ours_over_peer is None
    assert measure.best(example(), "torch").variant == "tuned"
    assert measure.best(example(), "jax") is None


def test_ratios_need_one_of_ours():
    results = [measured("torch", "eager", [0.002])]
    measure.summarise(results, batch_size=64)
    assert results[0].ours_over_peer is None
    assert "torch eager" in report.text("title", results)


def test_deviation_is_relative_to_the_reference():
    assert measure.deviation([[2.0], [1.5]], [[2.0], [1.0]]) == 0.25


def test_the_table_shows_who_is_missing_and_who_is_fastest():
    results = example()
    results[2].notes.append("a note")
    lines = report.text("training cnn-bn, batch 64", results).splitlines()
    assert lines[0] == "training cnn-bn, batch 64; ours: numba"
    assert lines[1].split() == " ".join(report.HEADINGS).split()
    assert [line.split("  ")[0] for line in lines[2:6]] == [
        "twinkernels numba",
        "torch tuned",
        "torch eager",
        "twinkernels numpy",
    ]
    assert lines[3].split()[2:8] == ["21,333", "3.000", "0.750", "1.50x", "1.50-1.50", "1.50x"]
    assert lines[6:] == [
        "ours over the best of torch (tuned): 1.50x",
        "torch eager: a note",
        "jax jit unavailable: jax is not installed for python",
    ]


# What is compared --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cnn-bn", "mlp-512"])
def test_the_networks_are_those_of_the_zoo(name: str):
    assert ours.layers(networks.NETWORKS[name]) == models.NETWORKS[name]()


@pytest.mark.parametrize("network", networks.NETWORKS.values(), ids=lambda network: network.name)
def test_ours_trains_and_predicts_from_the_shared_weights(network: networks.Network):
    x, y = command.batches(8)
    weights = networks.initial_weights(network)
    before = kernels.get_threads()
    try:
        cases = [networks.Case(network, task, "numpy", 8, 1, weights, x, y) for task in ("train", "infer")]
        step, predict = (ours.prepare(case).call for case in cases)
    finally:
        kernels.set_threads(before)
    logits = predict(x[0], y[0])
    assert logits.shape == (8, 10)
    # Without batch-norm, whose statistics differ between training and inference, the two agree before the first step.
    if not network.filters:
        shifted = logits - logits.max(axis=1, keepdims=True)
        loss = (np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(8), y[0]]).mean()
        assert step(x[0], y[0]) == pytest.approx(loss, rel=1e-5)
    first = step(x[0], y[0])
    for _ in range(20):
        last = step(x[0], y[0])
    assert last < first


def test_saved_arrays_come_back(tmp_path: Path):
    network = networks.NETWORKS["cnn-bn"]
    x, y = command.batches(2)
    networks.save(tmp_path / "arrays.npz", network, x, y)
    weights, x2, y2 = networks.load(tmp_path / "arrays.npz", network)
    assert [w.shape for w in (*weights.convolutions, *weights.linear)] == [(5, 5, 1, 16), (5, 5, 16, 32), (512, 10)]
    assert np.array_equal(x, x2)
    assert np.array_equal(y, y2)
    assert (x.dtype, y.dtype) == (np.float32, np.int64)


# The command -------------------------------------------------------------------------------------------------


def test_every_variant_has_a_module_and_every_peer_pinned_versions():
    for v in VARIANTS:
        assert (measure.ROOT / Path(*v.module.split("."))).with_suffix(".py").is_file()
    assert {v.peer for v in VARIANTS} == {OURS, *DISTRIBUTIONS}
    for distributions in DISTRIBUTIONS.values():
        assert all("==" in line for line in pinned(distributions))


def test_options_choose_the_variants():
    options = command.parse(["--peers", "torch,sklearn", "--variants", "eager,tuned", "--ours", "numpy"])
    assert [v.label for v in command.chosen(options, "cnn-bn", "train")] == [
        "twinkernels numpy",
        "torch eager",
        "torch tuned",
    ]
    options = command.parse(["--peers", "sklearn,onnxruntime", "--ours", "numba"])
    assert [v.label for v in command.chosen(options, "cnn-bn", "train")] == ["twinkernels numba"]
    assert [v.peer for v in command.chosen(options, "mlp-512", "infer")] == [OURS, "sklearn", "onnxruntime"]


def test_an_unknown_peer_is_refused(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as end:
        command.parse(["--peers", "torch,caffe"])
    assert end.value.code == 2
    assert "caffe; expected some of torch, jax" in capsys.readouterr().err


def test_a_whole_run_without_any_peer_installed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(
        command, "VARIANTS", (variant(folder, REFERENCE, peer=OURS), variant(folder, "missing", peer="torch"))
    )
    file = tmp_path / "peers.json"
    arguments = (
        f"--ours numpy --networks mlp-512 --batch-sizes 2 --train --rounds 2 --steps 2 --threads 1 --json {file}"
    )
    assert command.main([*arguments.split(), "--peers", "torch", "--python", sys.executable]) == 0
    shown = capsys.readouterr().out
    assert "training mlp-512, batch 2, threads 1; ours: numpy" in shown
    assert f"torch missing unavailable: no_such_library is not installed for {sys.executable}" in shown
    found = json.loads(file.read_text())
    assert found["machine"]["threads"] == 1
    (case,) = found["cases"]
    assert [result["status"] for result in case["results"]] == ["measured", "unavailable"]
    assert len(case["results"][0]["rounds"]) == 2


def test_installed_sizes_follow_requirements():
    found = sizes(["threadpoolctl", "no-such-distribution", "Rich"])
    assert {"threadpoolctl", "rich", "pygments"} <= set(found)
    assert all(size > 10_000 for size in found.values())
