"""How Sphinx builds these pages; `python -m docs` runs it."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

HERE = Path(__file__).parent
ROOT = HERE.parent
PACKAGES = ("kernels", "data", "models", "twinkernels")

# Pages, API and notebooks alike are about this checkout, whatever is installed.
sys.path.insert(0, str(ROOT))
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
os.environ.setdefault("IPYTHONDIR", str(HERE / "_build" / "ipython"))  # nobody's own settings

from twinkernels import __version__  # noqa: E402  (needs the path)

project = "twinkernels"
copyright = "twinkernels developers, BSD-3-Clause"
release = __version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "docs.docstrings", "docs.formulas"]
exclude_patterns = ["_build", "**.ipynb_checkpoints"]

# Pages ---------------------------------------------------------------------------------------------------------

myst_enable_extensions = ["dollarmath", "fieldlist"]
myst_heading_anchors = 3

INCLUDED = {
    "changelog": "CHANGELOG.md",
    "contributing": "CONTRIBUTING.md",
    "benchmarks": "benchmarks/README.md",
    "examples": "examples/README.md",
    "results": "benchmarks/RESULTS.md",
    "promises": "README.md#what-you-can-rely-on",
}
"""Pages that are files elsewhere, or a section of one: a page of this name stands in for each."""

LINK = re.compile(r"(?<=\]\()([^)#:\s]+)(#[^)\s]+)?(?=\))")


def include(app: Sphinx, docname: str, source: list[str]) -> None:
    """A page's text, from elsewhere if it is of those; links for its place in the repository lead to pages."""
    page = Path(app.env.doc2path(docname))
    original, _, section = INCLUDED.get(docname, "").partition("#")
    path = ROOT / original if original else page
    if path.suffix not in (".md", ".ipynb"):
        return
    app.env.note_dependency(str(path))
    text = _section(path.read_text(encoding="utf-8"), section)
    source[0] = LINK.sub(lambda link: _link(path.parent / link[1], link[2] or "", page.parent) or link[0], text)


def _section(text: str, anchor: str) -> str:
    """The section of a page with this anchor, as a page; all of it for no anchor."""
    for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:] if anchor else ():
        if part.partition("\n")[0].lower().replace(" ", "-") == anchor:
            return f"# {part}"
    return text


def _link(target: Path, anchor: str, folder: Path) -> str | None:
    """The link from a page's folder to what a link in the repository leads to; None if that is no file."""
    target = Path(os.path.normpath(target))
    if not target.is_file():
        return None
    name = target.relative_to(ROOT).as_posix()
    pages = {original: page for page, original in INCLUDED.items()} | {"README.md": "index"}
    for whole, rest in ((name + anchor, ""), (name, anchor)):
        if whole in pages:
            return Path(os.path.relpath(HERE / f"{pages[whole]}.md", folder)).as_posix() + rest
    return Path(os.path.relpath(target, folder)).as_posix() + anchor


# Notebooks -----------------------------------------------------------------------------------------------------


def sources_hash() -> str:
    """Changes when the code that notebooks run does."""
    digest = hashlib.sha256()
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


_executed = HERE / "_build" / "notebooks" / sources_hash()
for outdated in _executed.parent.glob("*"):
    if outdated != _executed:
        shutil.rmtree(outdated)

nb_execution_mode = "cache"
nb_execution_cache_path = str(_executed)
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_execution_in_temp = True
nb_execution_show_tb = True
nb_merge_streams = True
nb_render_markdown_format = "myst"

# API -----------------------------------------------------------------------------------------------------------

default_role = "py:obj"
add_module_names = False
python_maximum_signature_line_length = 88
autodoc_class_signature = "mixed"
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_inherit_docstrings = False
autodoc_preserve_defaults = True
autodoc_type_aliases = {name: name for name in ("Input", "InPlace", "Output", "Scratch")}


# Look ----------------------------------------------------------------------------------------------------------

html_theme = "furo"
html_title = "twinkernels"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = ["offline.js"]
html_math_renderer = "mathml"
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = True
html_theme_options = {"navigation_with_keys": True}
pygments_style = "default"
pygments_dark_style = "monokai"


def setup(app: Sphinx) -> None:
    app.connect("source-read", include)
