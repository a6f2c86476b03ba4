"""Build the documentation site: `python -m docs`.

Notebooks are executed, on the data that need no network, and kept until the code that they run changes. Warnings are
errors, and so are a link or an anchor that leads nowhere and whatever a page would load from another server.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from .check import complaints

HERE = Path(__file__).parent


def main(arguments: Sequence[str] | None = None) -> int:
    """Run as a command; the exit status is 0, or 1 with what is wrong on standard error."""
    parser = argparse.ArgumentParser("python -m docs", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=HERE / "_build", metavar="DIR", help="default docs/_build")
    parser.add_argument("--fresh", action="store_true", help="read every page again, and run every notebook")
    options = parser.parse_args(arguments)
    try:
        from sphinx.cmd.build import main as sphinx_build
    except ImportError:
        parser.error("the site needs Sphinx and its extensions: pip install '.[docs]'")
    html = options.out / "html"
    strict = ["--fail-on-warning", "--keep-going", "--nitpicky"]
    again = ["--fresh-env", "--write-all", "--define", "nb_execution_mode=force"] if options.fresh else []
    status = sphinx_build([*strict, *again, "--quiet", "-d", str(options.out / "doctrees"), str(HERE), str(html)])
    if status:
        return 1
    found = complaints(html)
    print(*found, sep="\n", end="\n" if found else "", file=sys.stderr)
    print(f"{len(list(html.rglob('*.html')))} pages in {html / 'index.html'}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
