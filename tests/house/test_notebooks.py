"""The notebooks run from top to bottom, and show what they promise.

`python -m docs` runs them as well. Where it has just done so, TWINKERNELS_NOTEBOOKS may name the folder in which it
keeps what came of it: these tests then look at that, and run what is not there.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data import strokes

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "docs").glob("*.ipynb"))


DRAWN = """
def drawn():
    import numpy as np
    from data import strokes
    with np.load({file!r}) as kept:
        splits = (kept["x"], kept["y"]), (kept["xt"], kept["yt"])
    strokes.load = lambda: splits
drawn()
del drawn
"""
"""What the kernel runs before each notebook: its digits are drawn already, a second's work."""

BRIEFLY = """
def briefly():
    import functools
    import kernels.limits
    import twinkernels.profile
    kernels.limits.SIZES = kernels.limits.SIZES[:3]
    kernels.limits.measure = functools.partial(kernels.limits.measure, repetitions=1)
    twinkernels.profile.profile = functools.partial(twinkernels.profile.profile, seconds=0.05)
    twinkernels.profile._ROUNDS = 1
briefly()
del briefly
"""
"""What it runs before a notebook that takes times, seconds for each: none is looked at here."""


def read(path: Path) -> Any:
    nbformat = pytest.importorskip("nbformat", reason="notebooks need the extra test")
    return nbformat.read(path, as_version=4)


def outputs(cells: list[Any]) -> tuple[str, int]:
    """The text that the cells print, and the number of figures that they show."""
    made = [output for cell in cells for output in cell.get("outputs", [])]
    text = "".join(output.text for output in made if output.output_type == "stream")
    return text, sum("image/svg+xml" in output.get("data", {}) for output in made)


def kept(notebook: Any) -> Any:
    """The notebook as the build of the site has executed it, or None."""
    folder = os.environ.get("TWINKERNELS_NOTEBOOKS")
    if not folder:
        return None
    jupyter_cache = pytest.importorskip("jupyter_cache", reason="executed notebooks are kept by the extra docs")
    for sources in Path(folder).glob("*"):  # one for the sources that there were
        cache = jupyter_cache.get_cache(sources)
        try:
            return cache.get_cache_bundle(cache.match_cache_notebook(notebook).pk).nb
        except KeyError:
            continue
    return None


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Gives the cells of the notebook of this name, run in a process of its own; an error in one is an error here."""
    nbclient = pytest.importorskip("nbclient", reason="notebooks need the extra test")
    nbformat = pytest.importorskip("nbformat", reason="notebooks need the extra test")
    pytest.importorskip("ipykernel", reason="notebooks need the extra test")
    pytest.importorskip("matplotlib", reason="pictures need the extra plots")

    file = str(tmp_path_factory.mktemp("digits") / "drawn.npz")
    (x, y), (xt, yt) = strokes.load()
    np.savez(file, x=x[:12_000], y=y[:12_000], xt=xt[:1_500], yt=yt[:1_500])  # as many as what is promised takes

    def execute(name: str, before: str = "") -> list[Any]:
        notebook = read(ROOT / "docs" / f"{name}.ipynb")
        if (found := kept(notebook)) is not None:
            return list(found.cells)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYTHONPATH", str(ROOT))
            patch.setenv("IPYTHONDIR", str(tmp_path_factory.mktemp("ipython")))
            where = {"metadata": {"path": str(tmp_path_factory.mktemp(name))}}
            notebook.cells.insert(0, nbformat.v4.new_code_cell(DRAWN.format(file=file) + before))
            nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources=where).execute()
        return list(notebook.cells)

    return execute


def test_explore_beats_chance_with_means_alone(executed: Any) -> None:
    text, figures = outputs(executed("explore"))
    assert figures == 4
    assert 0.7 < float(text.split("nearest mean: ")[1].split()[0]) < 0.85


def test_train_learns(executed: Any) -> None:
    text, figures = outputs(executed("train"))
    assert figures == 6
    accuracies = [float(part.split()[0]) for part in text.split("test accuracy ")[1:]]
    assert len(accuracies) == 3
    assert min(accuracies) > 0.9


def test_backpropagation_lists_the_step_beside_its_formulas_and_its_cost(executed: Any) -> None:
    cells = executed("backpropagation", BRIEFLY)
    text, figures = outputs(cells)
    assert figures == 1
    assert "d1.w, d1.b = linear_backward(d1.y, input, 1.w)" in text
    assert "four gradients, no bit apart" in text
    small, plain, lines, plans, fused = (
        o.data["text/markdown"].splitlines()[2:]
        for c in cells
        for o in c.get("outputs", [])
        if "text/markdown" in o.get("data", {})
    )
    listing = text.split("steps, batch of 128, float32\n")[1]
    steps = [line for line in listing.partition("total")[0].splitlines() if " = " in line]
    assert len(small) == len(steps)
    assert len(plain) == len(lines) == 24
    assert len(fused) == 12
    assert [line.split(" | ")[1] for line in plans] == ["24", "24", "12"]
    before, after = (float(line.split(" | ")[2]) for line in plans[1:])
    assert after < before / 4


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_kept_without_outputs(path: Path) -> None:
    for cell in read(path).cells:
        assert not cell.get("outputs"), f"{path.name}: clear the outputs before committing"
        assert cell.get("execution_count") is None
