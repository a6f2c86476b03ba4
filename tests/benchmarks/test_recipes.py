"""`python -m benchmarks.recipes`: what it trains, keeps, shows and refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import data
from benchmarks import recipes as benchmark
from data import strokes
from twinkernels import recipes, runs
from twinkernels.recipes import RECIPES

MACHINE = {"cpu": "A CPU", "machine": "x86_64", "cores": 2, "threads": 2, "system": "Linux 6.1", "python": "3.11"}
FACTS = MACHINE | {"load_before": 0.1, "date": "2026-11-21T02:58:00+0000", "commit": None}
CNN, NOBIAS = RECIPES["cnn-bn"], RECIPES["mlp-nobias"]
SHORT = replace(NOBIAS, iterations=1_000)


def run(recipe: Any, backend: str, seed: int, accuracy: float, seconds: float) -> dict[str, Any]:
    return {
        "recipe": recipe.name,
        "settings": benchmark.settings(recipe),
        "backend": backend,
        "seed": seed,
        "machine": FACTS,
        "accuracy": accuracy,
        "seconds": seconds,
    }


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[Any, ...]]:
    """Nothing is trained, but noted; the accuracy is 0.99 on Numba and 0.985 on NumPy, the time 2 and 9 seconds."""
    calls: list[tuple[Any, ...]] = []

    def train(recipe: Any, source: str, backend: str, seed: int, threads: int, precision: str) -> tuple[float, float]:
        if precision == "bfloat16":
            return 0.9896, 1.0
        calls.append((recipe.name, recipe.length, backend, seed))
        return (0.99, 2.0) if backend == "numba" else (0.985, 9.0)

    monkeypatch.setattr(benchmark, "train_apart", train)
    monkeypatch.setattr(benchmark, "machine", lambda threads: FACTS)
    monkeypatch.setattr(data, "load", lambda source: None)
    monkeypatch.setattr(benchmark, "KEPT", tmp_path / benchmark.KEPT.name)
    return calls


def test_both_backends_take_turns_and_all_is_kept(trained, tmp_path, capsys):
    shipped = recipes.FIGURES.read_bytes()
    assert benchmark.main(["cnn-bn", "--seeds", "2"]) == 1
    assert [call[2:] for call in trained] == [("numba", 0), ("numpy", 0), ("numba", 1), ("numpy", 1)]
    out, err = capsys.readouterr()
    assert "cnn-bn, 3 epochs, numpy: 0.9850 is below its floor, 0.9885" in err
    assert "numba: 0.9900 is below" not in err
    row = "| `cnn-bn` | 3 epochs | 0.9885 | 0.9885 | 0.9900 (0.9900 – 0.9900) | 0.9850 (0.9850 – 0.9850) "
    row += "| 2.00 | 9.00 | 4.50× |"
    assert row in out
    assert [path.name for path in tmp_path.iterdir()] == ["recipes.json"]
    assert recipes.FIGURES.read_bytes() == shipped, "measuring writes nothing into the package"
    assert json.loads(benchmark.published(benchmark.read(benchmark.KEPT))) == {
        "cnn-bn": {"numba": 0.99, "numpy": 0.985}
    }
    assert benchmark.main(["cnn-bn", "--backend", "numba", "--seeds", "1"]) == 1  # what is kept of NumPy still counts


def test_only_what_is_missing_is_trained(trained, monkeypatch):
    benchmark.main(["mlp-nobias", "--seeds", "1", "--backend", "numba"])
    assert trained == [("mlp-nobias", "1,000 iterations", "numba", 0), ("mlp-nobias", "10,000 iterations", "numba", 0)]
    trained.clear()
    benchmark.main(["mlp-nobias", "--seeds", "2", "--backend", "numba", "--only-missing"])
    assert [call[3] for call in trained] == [1, 1]
    trained.clear()
    changed = replace(NOBIAS, batch_size=64)
    monkeypatch.setitem(RECIPES, "mlp-nobias", changed)
    benchmark.main(["mlp-nobias", "--seeds", "2", "--backend", "numba", "--only-missing"])
    assert [call[1] for call in trained] == ["10,000 iterations"] * 2
    kept = benchmark.read(benchmark.KEPT)
    assert len(kept) == 4, "runs of the recipe as it was are left out"


def test_a_run_again_takes_the_place_of_the_one_before(tmp_path):
    path = tmp_path / "kept.json"
    for share in (0.98, 0.99):
        for seed in (1, 0):
            benchmark.keep(path, run(CNN, "numba", seed, share, 2.0))
    assert [found["accuracy"] for found in benchmark.of(benchmark.read(path), CNN, "numba")] == [0.99, 0.99]


def test_figures_are_means_over_seeds_and_speed_ups_medians_of_pairs():
    runs = [run(CNN, "numba", seed, 0.99 + 0.001 * seed, 2.0) for seed in range(3)]
    runs += [run(CNN, "numpy", seed, 0.98, seconds) for seed, seconds in ((2, 8.0), (1, 6.0))]
    assert benchmark.figures(runs) == {"cnn-bn": {"numba": 0.991, "numpy": 0.98}}
    text = benchmark.report(runs, [CNN])
    assert "| 0.9910 (0.9900 – 0.9920) | 0.9800 (0.9800 – 0.9800) | 2.00 | 7.00 | 3.50× |" in text
    assert "A CPU, 2 threads, float32, 2026-11-21." in text
    alone = benchmark.report([runs[0] | {"machine": FACTS | {"threads": 1}}], [CNN])
    assert "A CPU, 1 thread, float32, 2026-11-21." in alone
    alone = benchmark.report(runs[:1], [CNN, SHORT])
    assert "| 0.9900 | – | 2.00 | – | – |" in alone
    assert "| 1,000 iterations |" in alone


def test_bfloat16_stands_beside_the_same_seeds_in_float32(trained, capsys):
    chosen = ["cnn-bn", "--backend", "numba"]
    benchmark.main([*chosen, "--seeds", "3"])
    assert "bfloat16" not in capsys.readouterr().out
    benchmark.main([*chosen, "--seeds", "2", "--precision", "bfloat16"])
    benchmark.main([*chosen, "--seeds", "1"])
    out = capsys.readouterr().out
    assert "| `cnn-bn` | 3 epochs | Numba | 2 | 1.000 | 1.040 | +0.040 | +0.04 to +0.04 |" in out
    kept = benchmark.read(benchmark.KEPT)
    assert sorted((run["seed"], run.get("precision")) for run in kept if "precision" in run) == [
        (0, "bfloat16"),
        (1, "bfloat16"),
    ]
    assert len(benchmark.of(kept, CNN, "numba")) == 3
    assert json.loads(benchmark.published(kept)) == {"cnn-bn": {"numba": 0.99}}


def test_both_lengths_of_mlp_nobias_are_shown_with_their_floors():
    assert [(row.length, row.floor) for row in benchmark.rows() if row.name == "mlp-nobias"] == [
        ("1,000 iterations", 0.90),
        ("10,000 iterations", 0.95),
    ]
    assert benchmark.missed([run(SHORT, "numpy", 0, 0.91, 1.0)], benchmark.rows()) == []
    assert len(benchmark.missed([run(SHORT, "numpy", 0, 0.89, 1.0)], benchmark.rows())) == 1


def test_a_recipe_that_numpy_does_not_train_says_why(trained, monkeypatch, capsys):
    monkeypatch.setitem(benchmark.NUMBA_ALONE, "cnn-bn", "it would take long")
    assert benchmark.main(["cnn-bn", "--seeds", "1"]) == 0
    assert [call[2] for call in trained] == ["numba"]
    assert "- `cnn-bn` is trained on Numba alone: it would take long." in capsys.readouterr().out


def test_another_file_leaves_what_is_committed_alone(trained, tmp_path):
    benchmark.main(["mlp-512", "--seeds", "1", "--json", str(tmp_path / "mine.json")])
    assert [path.name for path in tmp_path.iterdir()] == ["mine.json"]


@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_a_training_is_what_the_recipe_gives(backend, tmp_path, monkeypatch):
    digits = data.Dataset(*(data.Split(*split) for split in strokes.load(train=640, test=100)))
    monkeypatch.setattr(data, "load", lambda source: digits)
    recipe = replace(CNN, epochs=1, batch_size=64, validation=0.1)
    accuracy, seconds = benchmark.train(recipe, "here", backend, 3, 1)
    assert accuracy == runs.run(recipe, digits, backend=backend, seed=3).test.accuracy
    assert seconds > 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["lenet"], "unknown recipe 'lenet'"),
        (["--seeds", "0"], "--seeds is 0, expected at least 1"),
        (["--threads", "-1"], "--threads is -1, expected at least 1"),
        (["--data", "strokes"], "floors are for MNIST"),
        (["--json", "other.json"], "other.json holds figures of another machine (cpu 'Another', here 'A CPU')"),
        (["--json", "bad.json"], "bad.json is not a file of benchmarks.recipes"),
    ],
)
def test_mistakes_end_with_status_2_before_training(trained, tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    other = run(CNN, "numba", 0, 0.99, 1.0) | {"machine": FACTS | {"cpu": "Another"}}
    Path("other.json").write_text(json.dumps({"runs": [other]}))
    Path("bad.json").write_text("[]")
    with pytest.raises(SystemExit) as end:
        benchmark.main(arguments)
    assert end.value.code == 2
    assert words in capsys.readouterr().err
    assert trained == []
