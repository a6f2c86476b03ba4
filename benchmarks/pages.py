"""Writes every page, table and picture that follows from kept figures. Run: python -m benchmarks.pages

Nothing is measured here: `benchmarks.peers`, `benchmarks.recipes`, `tests.support.budgets` and `twinkernels study` do
that, and keep what they find. Of results/*.json this makes RESULTS.md with its pictures, the README's block, the table
in docs/determinism.md, and the figures that `twinkernels list` shows; of differences.py the table in docs/bench.md; and
of a study's storage docs/study.md with its pictures. With --check nothing is written, and the exit status is 1 if a
text is not what would be; pictures are not compared, since each version of Matplotlib draws its own.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from twinkernels.recipes import FIGURES

from . import budgets, differences, recipes, results
from .text import replace

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DETERMINISM = ROOT / "docs" / "determinism.md"
BENCH = ROOT / "docs" / "bench.md"


def texts() -> tuple[dict[Path, str], dict[str, results.Chart]]:
    """Every text by its path, and the charts of RESULTS.md by name."""
    made, charts = results.texts(results.kept(results.HERE), results.HERE, README)
    made[FIGURES] = recipes.published(recipes.read(recipes.KEPT))
    made[DETERMINISM] = replace(DETERMINISM.read_text(encoding="utf-8"), "budgets", budgets.text())
    made[BENCH] = replace(BENCH.read_text(encoding="utf-8"), "differences", differences.text())
    return made, charts


def stale() -> list[Path]:
    """The texts that are not what `write` would make of them."""
    made, _ = texts()
    return [path for path, text in made.items() if not path.exists() or path.read_text(encoding="utf-8") != text]


def write() -> list[Path]:
    """Write every text and picture; the paths."""
    made, charts = texts()
    for path, text in made.items():
        path.write_text(text, encoding="utf-8")
    folder = results.HERE / "results"
    results.draw_all(folder, charts)
    return [*made, *(folder / f"{name}.png" for name in charts)]


def write_study(storage: Path) -> Path:
    """Write docs/study.md and its pictures, of all trainings that the storage holds; the page's path."""
    from twinkernels import study
    from twinkernels.study import page

    if not storage.is_file():
        raise ValueError(f"--study {storage} is no file, expected the storage that `twinkernels study` has kept")
    return page.write(study.run(storage, most=0), DETERMINISM.parent)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write, or with --check compare; 1 if a page is stale."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser("python -m benchmarks.pages", description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 1 if a text is stale")
    parser.add_argument("--study", type=Path, metavar="FILE", help="a study's storage: write its page as well")
    options = parser.parse_args(arguments)
    if options.check and options.study:
        parser.error("--check takes no --study: its page is compared with nothing")
    try:
        if options.check:
            found = stale()
            for path in found:
                print(f"{path.relative_to(ROOT)} is not what python -m benchmarks.pages writes")
            return int(bool(found))
        written = write()
        if options.study:
            written.append(write_study(options.study))
    except (OSError, ValueError) as error:
        parser.error(str(error))
    for path in written:
        print(path.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
