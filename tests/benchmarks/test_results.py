"""What is made of the peers' figures: the kept file, the page, the README's block, the pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import kept, results, text
from benchmarks.text import replace

TEXT = "# A project\n\nWhat it is.\n\n<!-- results -->\nold\n<!-- /results -->\n\n```python\n1 + 1\n```\n"


def measured(peer: str, variant: str, milliseconds: list[float], **more: Any) -> dict[str, Any]:
    return {
        "peer": peer,
        "variant": variant,
        "status": "measured",
        "reason": "",
        "step_seconds": 9.0,
        "ours_over_peer": 9.0,
        "first_step_seconds": 1.23456789,
        "peak_bytes": 200_000_000,
        "deviation": 1e-7,
        "notes": [],
        "versions": {peer: "1.2"},
        "rounds": [{"median": ms / 1e3, "min": ms / 1e3, "steps": 5} for ms in milliseconds],
        "ratios": [],
        **more,
    }


def absent(peer: str, variant: str, reason: str) -> dict[str, Any]:
    return measured(peer, variant, [], status="unavailable", reason=reason, first_step_seconds=0.0, peak_bytes=0)


def run(task: str, batch_sizes: list[int], **machine: Any) -> dict[str, Any]:
    """As `benchmarks.peers` writes it. PyTorch's best setting takes twice, half and four times as long as ours."""
    cases = []
    for batch_size in batch_sizes:
        found = [
            measured("twinkernels", "numba", [1.0, 4.0, 1.0]),
            measured("twinkernels", "numpy", [10.0, 40.0, 10.0], deviation=0.0),
            measured("twinkernels", "numba bfloat16", [0.25, 1.0, 0.25]),
            measured("torch", "eager", [9.0, 9.0, 9.0]),
            measured("torch", "tuned", [2.0, 2.0, 4.0], deviation=0.02, notes=["a remark"]),
            absent("jax", "jit", "jax is not installed for /home/somebody/venv/bin/python"),
        ]
        if task == "infer":
            found.append(measured("onnxruntime", "session", [0.5, 2.0, 0.5], versions={"onnxruntime": "1.31"}))
        cases.append({"network": "cnn-bn", "task": task, "batch_size": batch_size, "results": found})
    return {
        "machine": {
            "cpu": "A CPU, family 1",
            "machine": "x86_64",
            "cores": 2,
            "threads": 2,
            "system": "Linux-6.18.44-somehost-x86_64-with-glibc2.36",
            "python": "3.11.7",
            "load_before": 0.1,
            "date": "2026-11-21T02:58:00+0000",
            "commit": "0123456789ab+",
            **machine,
        },
        "options": {
            "peers": ["torch", "jax", "keras", "sklearn", "onnxruntime", "openvino"],
            "networks": ["cnn-bn"],
            "batch_sizes": None,
            "train": task == "train",
            "infer": task == "infer",
            "rounds": 3,
            "steps": None,
            "turn_seconds": 0.3,
            "threads": 2,
            "seed": 0,
            "limit_seconds": 300.0,
            "python": "/home/somebody/venv/bin/python",
            "install": False,
            "json": "/home/somebody/run.json",
        },
        "installed_bytes": {"twinkernels": {"numpy": 70_000_000, "numba": 30_000_000}, "torch": {"torch": 754_000_000}},
        "cases": cases,
    }


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """A run of training and one of inference."""
    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    paths[0].write_text(json.dumps(run("train", [64, 128])))
    paths[1].write_text(json.dumps(run("infer", [1, 64], commit="fedcba987654")))
    return paths


@pytest.fixture
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "draw_all", lambda *arguments: None)


def line(text: str, *words: str) -> str:
    """The first line that has all the words."""
    return next(line for line in text.splitlines() if all(word in line for word in words))


@pytest.mark.usefixtures("without_pictures")
def test_the_page_and_the_readme_say_what_was_measured(files, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(TEXT)
    assert results.main([*map(str, files), "--out", str(tmp_path / "out"), "--readme", str(readme)]) == 0

    page = (tmp_path / "out" / "RESULTS.md").read_text()
    # Median step 1 ms, 64 images; the ratios within rounds are 2, 0.5 and 4, whatever the file said.
    assert line(page, "**twinkernels**", "64,000", "128,000")
    assert line(page, "PyTorch", "32,000 (2.00×)", "64,000 (2.00×)")
    assert (
        line(page, "| 64 |", "PyTorch tuned") == "| 64 | PyTorch tuned | 32,000 | 2.00 | 2.00× (0.50 – 4.00) | 2e-02 |"
    )
    assert line(page, "ONNX Runtime", "0.50×")
    assert line(page, "| CPU") == "| CPU | A CPU, family 1 (x86_64) |"
    assert line(page, "| commit") == "| commit | 0123456789ab with changes, fedcba987654 |"
    assert line(page, "| system") == "| system | Linux 6.18 |"
    assert "PyTorch (training cnn-bn; inference cnn-bn): a remark." in page
    assert "PyTorch tuned deviates from the NumPy twin by up to 2e-02" in page
    assert "unavailable: jax is not installed for python." in page
    assert "benchmarks.peers --install --networks cnn-bn --train --rounds 3 --threads 2 --json run1.json" in page
    assert "benchmarks.results run1.json run2.json" in page

    text = readme.read_text()
    before, _, rest = TEXT.partition("old")
    assert text.startswith(before)
    assert text.endswith(rest)
    assert "\nold\n" not in text
    assert "](out/results/overview.png)" in text
    assert "](out/RESULTS.md)" in text
    assert (
        line(text, "Training")
        == "| Training `cnn-bn`, batch 128, images/s | 128,000 | **512,000** | 12,800 | 64,000 | – |"
    )
    inference = "| Inference `cnn-bn`, batch 64, images/s | 64,000 | **256,000** | 6,400 | 32,000 | 128,000 |"
    assert line(text, "Inference") == inference
    assert line(text, "One image") == "| One image through `cnn-bn`, µs | 1,000 | **250** | 10,000 | 2,000 | 500 |"
    assert line(text, "Installed") == "| Installed with all it requires, MB | **100** | **100** | **100** | 754 | – |"
    assert "twinkernels in bfloat16" in text


@pytest.mark.usefixtures("without_pictures")
def test_the_kept_file_has_no_paths_and_makes_the_same_again(files, tmp_path):
    out = tmp_path / "out"
    results.make(files, out, None)
    written = {name: (out / name).read_text() for name in ("RESULTS.md", "results/peers.json")}
    for content in written.values():
        assert "somebody" not in content
        assert "somehost" not in content
    results.make([], out, None)
    assert {name: (out / name).read_text() for name in written} == written


@pytest.mark.usefixtures("without_pictures")
def test_the_later_run_of_a_case_counts(tmp_path):
    first, second = run("train", [64, 128]), run("train", [64])
    second["cases"][0]["results"][0]["rounds"] = [{"median": 0.5, "min": 0.5}] * 3
    merged = results.merge([results.trimmed(first), results.trimmed(second)])
    speeds = {
        case.batch_size: results.libraries(case)["twinkernels"].images_per_second for case in results.cases(merged)
    }
    assert speeds == {64: 128, 128: 128_000}
    assert [len(each["cases"]) for each in merged] == [1, 1]
    assert len(results.merge([results.trimmed(run("train", [64])), results.trimmed(second)])) == 1


def test_without_the_fast_backend_there_are_no_ratios():
    slow = run("train", [64])
    slow["cases"][0]["results"][0] = measured("twinkernels", "numba", [], status="failed", reason="it did")
    (case,) = results.cases([results.trimmed(slow)])
    assert [result.ours_over_peer for result in results.measured(case)] == [None] * 4
    assert list(results.libraries(case)) == [results.ROUNDED, "PyTorch", "NumPy twin"]
    assert "×" not in results.summary([case])


@pytest.mark.usefixtures("without_pictures")
def test_further_sections_come_from_files(files, tmp_path):
    out = tmp_path / "out"
    results.make(files, out, None)
    assert "Share of the limit" not in (out / "RESULTS.md").read_text()
    (out / "results" / "shares.txt").write_text("\none thread  89.1%\n  relu | 3\n")
    (out / "results" / "calibration.txt").write_text("0 of 100 runs raised a false alarm: 0.0%\n")
    results.make([], out, None)
    page = (out / "RESULTS.md").read_text()
    assert "```text\none thread  89.1%\n  relu | 3\n```" in page
    assert page.index("## Share of the limit") < page.index("## False alarms") < page.index("```text\n0 of 100 runs")


@pytest.mark.usefixtures("without_pictures")
def test_ranks_are_a_section_beside_pytorchs(files, tmp_path):
    out = tmp_path / "out"
    results.make(files, out, None)
    about = {"machine": run("train", [64])["machine"], "batch_size": 512, "rounds": 3}
    times = {"one process": [4000, 4000, 8000], "ranks": [4000, 5000, 8000], "PyTorch DDP": [8000, 20000, 24000]}
    path = out / "results" / "ranks.json"
    kept.write(path, [about | {"microseconds": {"cnn-bn": times}}])
    results.make([], out, None)
    page = (out / "RESULTS.md").read_text()
    assert "## Several processes" in page
    assert line(page, "2 ranks of one thread") == (
        "| 2 ranks of one thread, shared memory | 5.00 | 1.00× (0.800 – 1.00) |  |"
    )
    assert line(page, "gloo").endswith("| 20.00 | 0.33× (0.200 – 0.500) | 3.00× (2.00 – 4.00) |")
    assert "A CPU, family 1, 2 cores, 2026-11-21, load before 0.10. Batches of 512, 3 rounds." in page
    path.write_text('{"runs": [{"rounds": 3, "microseconds": {"cnn-bn": {"ranks": [1]}}}]}')
    with pytest.raises(ValueError, match=r"ranks\.json is not a file of benchmarks\.peers\.ranks: .*rounds differ"):
        results.make([], out, None)


@pytest.mark.usefixtures("without_pictures")
def test_mistakes_are_named_before_anything_is_written(files, tmp_path, capsys):
    def refused(*arguments: object) -> str:
        with pytest.raises(SystemExit) as end:
            results.main([*map(str, arguments), "--out", str(tmp_path / "out")])
        assert end.value.code == 2
        assert not (tmp_path / "out").exists()
        return capsys.readouterr().err

    other = tmp_path / "other.json"
    other.write_text(json.dumps(run("train", [64], cpu="Another")))
    assert "runs differ in cpu: 'A CPU, family 1', 'Another'" in refused(files[0], other)
    readme = tmp_path / "README.md"
    readme.write_text(TEXT.replace("<!-- /results -->", ""))
    assert "expected <!-- results --> and <!-- /results --> once each" in refused(files[0], "--readme", readme)
    readme.write_text("not JSON")
    assert "README.md is not a file of benchmarks.peers" in refused(readme)
    assert "missing.json" in refused(tmp_path / "missing.json")
    other.write_text("[]")
    assert "other.json is not a file of benchmarks.peers" in refused(other)
    assert "peers.json" in refused()


def test_numbers_have_three_digits():
    assert [text.number(value) for value in (0.04142, 1, 56.78, 19_512)] == ["0.0414", "1.00", "56.8", "19,500"]
    assert [text.short(value) for value in (850, 19_512, 999_900, 2_345_678)] == ["850", "19.5k", "1.00M", "2.35M"]
    assert [text.times(value) for value in (0.714, 9.949, 9.951, 58.6)] == ["0.71×", "9.95×", "10×", "59×"]


def test_pictures_are_drawn_for_what_was_measured(files, tmp_path):
    pytest.importorskip("matplotlib", reason="pictures need the extra bench")
    for name, chosen, expected in (
        ("both", files, {"overview", "training", "inference", "latency", "costs"}),
        ("train", files[:1], {"overview", "training", "costs"}),
    ):
        results.make(chosen, tmp_path / name, None)
        pictures = list((tmp_path / name / "results").glob("*.png"))
        assert {path.stem for path in pictures} == expected
        for path in pictures:
            assert path.read_bytes().startswith(b"\x89PNG")
            assert path.stat().st_size < 60_000
        page = (tmp_path / name / "RESULTS.md").read_text()
        assert all((f"results/{each}.png" in page) == (each in expected) for each in ("training", "latency", "costs"))


def test_the_readme_has_a_place_for_the_block():
    page = (results.HERE.parent / "README.md").read_text(encoding="utf-8")
    inside = "a figure"
    assert inside in replace(page, results.MARKER, inside)
    assert page.index("<!-- /results -->") < page.index("```")
