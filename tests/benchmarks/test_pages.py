"""Every generated page is what its command makes of the kept figures."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import budgets, pages, results
from benchmarks.text import replace
from twinkernels import study


@pytest.fixture
def apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Path]:
    """Texts are written to copies of the pages; the paths of the copies."""
    copies = {name: tmp_path / getattr(pages, name).name for name in ("README", "DETERMINISM", "FIGURES", "BENCH")}
    for name, copy in copies.items():
        copy.write_bytes(getattr(pages, name).read_bytes())
        monkeypatch.setattr(pages, name, copy)
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    kept = tmp_path / "results"
    kept.mkdir()
    for path in (results.HERE / "results").iterdir():
        if path.suffix in (".json", ".txt"):
            (kept / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(results, "HERE", tmp_path)
    return list(copies.values())


def test_every_page_is_what_the_command_writes() -> None:
    assert [str(path.relative_to(pages.ROOT)) for path in pages.stale()] == []


def test_every_picture_is_there() -> None:
    _, charts = pages.texts()
    assert charts
    assert all((results.HERE / "results" / f"{name}.png").exists() for name in charts)


def test_a_stale_page_is_named_and_then_written(apart, tmp_path, capsys, monkeypatch):
    drawn: list[Path] = []
    monkeypatch.setattr(results, "draw_all", lambda folder, charts: drawn.extend(folder / name for name in charts))
    assert pages.main([]) == 0
    page = tmp_path / "RESULTS.md"
    assert "## Recipes" in page.read_text(encoding="utf-8")
    assert tmp_path / "results" / "overview" in drawn
    assert pages.main(["--check"]) == 0
    for path in (*apart, page):
        before = path.read_text(encoding="utf-8")
        capsys.readouterr()
        block = {"README.md": "results", "bench.md": "differences"}.get(path.name, "budgets")
        start, mark, rest = before.partition(f"<!-- {block} -->")
        path.write_text(f"{start}{mark}\nNobody wrote this.{rest}", encoding="utf-8")
        assert pages.main(["--check"]) == 1
        assert capsys.readouterr().out == f"{path.name} is not what python -m benchmarks.pages writes\n"
        assert pages.main([]) == 0
        assert path.read_text(encoding="utf-8") == before


def test_a_block_is_found_wherever_it_stands() -> None:
    text = "a\n<!-- b -->\nold\n<!-- /b -->\nc\n"
    assert replace(f"# New\n\n{text}", "b", "new") == "# New\n\na\n<!-- b -->\nnew\n<!-- /b -->\nc\n"
    for wrong in ("", text * 2, text.replace("<!-- /b -->", ""), "<!-- /b -->" + text):
        with pytest.raises(ValueError, match="expected <!-- b --> and <!-- /b --> once each"):
            replace(wrong, "b", "new")


def test_the_budgets_say_equal_where_there_are_no_floats(tmp_path: Path) -> None:
    seen = [
        budgets.Seen("relu", "float32", 1, 0.0, 0.25, 0.051),
        budgets.Seen("conv2d", "float64", 400, 0.5, 1.5, 0.4),
        budgets.Seen("count", "float32", None, 0.0, 0.0, 0.0),
    ]
    path = tmp_path / "budgets.json"
    budgets.keep(path, {"machine": "m", "vector_bits": 256, "numpy": "2.0", "numba": "0.61"}, seen)
    assert budgets.read(path)[1] == seen
    rows = budgets.text(path).splitlines()[2:]
    assert rows[0] == "| relu | float32 | 4 e + 4 | 0.00 | 0.25 | 6 % |"
    assert rows[1] == "| conv2d | float64 | 8 (1 + √n), n ≤ 400 | 0.50 | 1.50 | 40 % |"
    assert rows[2] == "| count | float32 | equal |  |  |  |"
    assert rows[-1] == "Seen on m, 256 bits a vector, with NumPy 2.0 and Numba 0.61."


def test_a_study_is_written_from_its_storage(apart: list[Path], tmp_path: Path) -> None:
    pytest.importorskip("optuna", reason="studies need the extra study")
    study.run(tmp_path / "study.db", "strokes", backend="numpy", epochs=2, most=0)
    page = pages.write_study(tmp_path / "study.db")
    assert page == tmp_path / "study.md"
    assert "Every training takes 2 epochs" in page.read_text(encoding="utf-8")


def test_a_study_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match=r"no\.db is no file"):
        pages.write_study(tmp_path / "no.db")
    with pytest.raises(SystemExit) as end:
        pages.main(["--check", "--study", str(tmp_path / "no.db")])
    assert end.value.code == 2
    assert "--check takes no --study" in capsys.readouterr().err
