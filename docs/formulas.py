"""Formulas on the pages.

TeX becomes MathML, which browsers draw without a script. Docstrings have their formulas in Unicode: variables are set
in italics, superscripts and subscripts as such.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import TYPE_CHECKING

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx import addnodes

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.writers.html5 import HTML5Translator

# TeX -----------------------------------------------------------------------------------------------------------


def inline(writer: HTML5Translator, node: nodes.Element) -> None:
    writer.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def block(writer: HTML5Translator, node: nodes.Element) -> None:
    writer.body.append(f'<div class="math">{tex2mathml(node.astext(), as_block=True)}</div>\n')
    raise nodes.SkipNode


# Docstrings ----------------------------------------------------------------------------------------------------

OPERATORS = "=+−-·/√Σ<>≤≥|^⌊⌋"
KNOWN = {"beta", "dilation", "eps", "gamma", "inv_std", "mean", "momentum", "pad", "rate", "stride", "var"}
SIZES = {"KH", "KW", "OH", "OW"}
RAISED = "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ˣʸᵀᵗ"
LOWERED = "₀₁₂₃₄₅₆₇₈₉ₙₖ"
UNTOUCHED = (addnodes.desc, nodes.FixedTextElement, nodes.literal, nodes.strong, addnodes.pending_xref)
TOKEN = re.compile(
    rf"(?P<word>[A-Za-zͰ-ΡΤ-Ͽ][A-Za-z0-9Ͱ-Ͽ_]*\u0302?)|(?P<raised>[{RAISED}]+)|(?P<lowered>[{LOWERED}]+)"
    r"|(?<=[Σ)])_(?P<index>[a-z])\b"
)
INDEXED = re.compile(r"([A-Za-zͰ-Ͽ])_([a-z0-9])$")


def typeset(app: Sphinx, doctree: nodes.document) -> None:
    """Variables, superscripts and subscripts in the text of docstrings."""
    for description in doctree.findall(addnodes.desc):
        if description.get("domain") != "py":
            continue
        names = {node.astext() for node in description.findall(addnodes.desc_sig_name)}
        for content in description.children:
            if isinstance(content, addnodes.desc_content):
                for text in list(_texts(content)):
                    text.parent.replace(text, list(_set(text.astext(), names)))


def _texts(node: nodes.Node) -> Iterator[nodes.Text]:
    for child in node.children:
        if isinstance(child, nodes.Text):
            yield child
        elif not isinstance(child, UNTOUCHED):
            yield from _texts(child)


def _set(text: str, names: set[str]) -> Iterator[nodes.Node]:
    end = 0
    for match in TOKEN.finditer(text):
        made = _made(match, text, names)
        if made:
            if match.start() > end:
                yield nodes.Text(text[end : match.start()])
            yield from made
            end = match.end()
    if end < len(text):
        yield nodes.Text(text[end:])


def _made(match: re.Match[str], text: str, names: set[str]) -> list[nodes.Node]:
    kind, word = match.lastgroup, match[0]
    if kind == "raised":
        return [nodes.superscript("", _normal(word))]
    if kind == "lowered":
        return [nodes.subscript("", _normal(word))]
    if kind == "index":
        return [nodes.subscript("", match["index"])]
    before, after = text[: match.start()].rstrip()[-1:], text[match.end() :].lstrip()[:1]
    touching = text[: match.start()][-1:], text[match.end() :][:1]
    if not _is_variable(word, touching, before, after, names if "=" in text else set()):
        return []
    if indexed := INDEXED.match(word):
        return [nodes.emphasis("", indexed[1], classes=["variable"]), nodes.subscript("", indexed[2])]
    return [nodes.emphasis("", word, classes=["variable"])]


def _is_variable(word: str, touching: tuple[str, str], before: str, after: str, names: set[str]) -> bool:
    if (touching[0] and touching[0] in "'’.$@") or touching[0].isalnum() or touching[1] == "-":
        return False
    computed = bool(before and before in OPERATORS) or bool(after and after in OPERATORS)
    letters = word.rstrip("\u0302")
    if letters in ("a", "A", "I"):
        return computed or (before in ("(", ",", "[") and after in (")", ",", "]"))
    if len(letters) == 1 or INDEXED.match(letters) or letters in SIZES:
        return True
    known = names | KNOWN
    gradient = letters[0] == "d" and (len(letters) == 2 or letters[1:] in known)
    return letters in known and (computed or "_" in letters or gradient)


def _normal(text: str) -> str:
    return unicodedata.normalize("NFKC", text)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    app.connect("doctree-read", typeset)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
