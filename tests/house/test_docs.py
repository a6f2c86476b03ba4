"""The documentation site: what its build would refuse, and that the API's pages have every public name."""

from __future__ import annotations

import importlib
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from docs.check import complaints

ROOT = Path(__file__).parents[2]
API = ROOT / "docs" / "api"


def documented(page: Path) -> list[str]:
    """Names that a page of the API describes, in full."""
    text = page.read_text(encoding="utf-8")
    return re.findall(r"^(?:\.\. (?:auto(?!module)\w+|py:data)::| {12}) ([\w.]+)$", text, re.MULTILINE)


def resolved(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


@pytest.mark.parametrize("package", ["kernels", "data", "models"])
def test_every_public_name_is_in_the_api_once(package: str) -> None:
    found = [name for page in API.glob("*.rst") for name in documented(page)]
    assert len(found) == len(set(found)), "a name twice"
    module = importlib.import_module(package)
    described = [resolved(name) for name in found if name.startswith(package)]
    for name in module.__all__:
        value = getattr(module, name)
        assert f"{package}.{name}" in found or any(value is other for other in described), f"{package}.{name}"


def test_every_picture_is_in_the_api() -> None:
    found = [name.rpartition(".")[2] for name in documented(API / "twinkernels.rst") if ".plots." in name]
    listed = re.search(r"return matplotlib figures: (.*?)\.", (ROOT / "docs" / "pictures.md").read_text(), re.DOTALL)
    assert listed
    assert set(re.findall(r"`(\w+)`", listed[1])) == set(found) - {"mistakes"}


def test_the_site_is_in_no_wheel() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert not {"docs", "notebooks"} & set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
    assert "docs" in project["project"]["optional-dependencies"]


@pytest.mark.parametrize(
    ("page", "complaint"),
    [
        ('<a href="other.html#there">', None),
        ('<a href="#here" id="here">', None),
        ('<a href="https://example.org/">', None),
        ('<img src="data:image/png;base64,AAAA">', None),
        ('<a href="missing.html">', "page.html: missing.html leads to no file"),
        ('<a href="other.html#gone">', "page.html: other.html#gone leads to no anchor"),
        ('<a href="#gone">', "page.html: #gone leads to no anchor"),
        ('<img src="gone.png">', "page.html: gone.png leads to no file"),
        ('<script src="https://cdn.example/x.js">', "page.html: loads https://cdn.example/x.js from another server"),
        ('<link href="//cdn.example/x.css">', "page.html: loads //cdn.example/x.css from another server"),
        (
            "<p style=\"background: url('//a.example/x.png')\">",
            "page.html: loads //a.example/x.png from another server",
        ),
    ],
)
def test_dead_links_and_foreign_assets_are_found(tmp_path: Path, page: str, complaint: str | None) -> None:
    (tmp_path / "page.html").write_text(page)
    (tmp_path / "other.html").write_text('<p id="there">')
    assert complaints(tmp_path) == ([complaint] if complaint else [])


def test_a_stylesheet_that_loads_from_elsewhere_is_found(tmp_path: Path) -> None:
    (tmp_path / "own.css").write_text("a { background: url(own.png) } /* https://example.org */")
    (tmp_path / "foreign.css").write_text("@import 'https://fonts.example/x.css';")
    assert complaints(tmp_path) == ["foreign.css: loads https://fonts.example/x.css from another server"]


def translated(docstring: str, obj: Any) -> str:
    docstrings = pytest.importorskip("docs.docstrings", reason="the site needs the extra docs", exc_type=ImportError)
    lines = docstring.split("\n")
    docstrings.translate(None, "function", "name", obj, None, lines)
    return "\n".join(lines)


def scale(x: object, y: object, rate: float) -> None: ...


@pytest.mark.parametrize(
    ("docstring", "expected"),
    [
        ("y = |x| w_, with *x*.", r"y = \|x\| w\_, with \*x\*."),
        ("Reads `x`, not `x[...]`.", "Reads `x`, not ``x[...]``."),
        ("* one\n* two", "* one\n* two"),
        (">>> x_\n|1|", ">>> x_\n|1|"),
        ("Thus\n\n    x_ = |1|", "Thus\n\n::\n\n    x_ = |1|"),
        ("So it is: x, of course.", "So it is: x, of course."),
        (
            "What it does.\n\nx, y: a batch. rate: how\nmuch. Raises ValueError for none.",
            "What it does.\n\n:Arguments:\n   * **x, y** – a batch.\n   * **rate** – how much.\n\n"
            "Raises ValueError for none.",
        ),
        (
            "Args:\n    x: a batch\n        of two.\n    rate: how much.\n\nReturns:\n    The same.\n\n"
            "Raises:\n    ValueError: never.",
            ":Arguments:\n   * **x** – a batch of two.\n   * **rate** – how much.\n\n:Returns:\n   The same.\n\n"
            ":Raises:\n   * **ValueError** – never.",
        ),
    ],
)
def test_docstrings_are_plain_text(docstring: str, expected: str) -> None:
    assert translated(docstring, scale) == expected


def test_variables_are_set_as_such() -> None:
    formulas = pytest.importorskip("docs.formulas", reason="the site needs the extra docs", exc_type=ImportError)

    def typeset(text: str, *names: str) -> str:
        return "".join(
            node.astext() if node.__class__.__name__ == "Text" else f"<{node.tagname} {node.astext()}>"
            for node in formulas._set(text, set(names))
        )

    assert typeset("y = xᵀ w + b") == "<emphasis y> = <emphasis x><superscript T> <emphasis w> + <emphasis b>"
    assert typeset("A mean of a C-contiguous batch, kernel's x") == (
        "A mean of a C-contiguous batch, kernel's <emphasis x>"
    )
    assert typeset("y = gamma (x − mean), the mean") == (
        "<emphasis y> = <emphasis gamma> (<emphasis x> − <emphasis mean>), the mean"
    )
    assert typeset("dx = each dy where x > 0, its dtype", "dy", "dtype") == (
        "dx = each <emphasis dy> where <emphasis x> > 0, its dtype"
    )
    assert typeset("Σ_c t_c") == "Σ<subscript c> <emphasis t><subscript c>"
