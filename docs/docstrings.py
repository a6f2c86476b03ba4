"""Docstrings as they are written here, for autodoc.

They are plain text: nothing in them is markup but `names`, bullets, indented code and the sections Args, Returns and
Raises. A line such as `rate: share of the elements` is about the parameter of that name, where there is one.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from docutils import nodes

if TYPE_CHECKING:
    from sphinx.addnodes import pending_xref
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

PACKAGES = ("kernels", "data", "models", "twinkernels")
DEFINED = ("class", "exception", "function", "data")
SECTIONS = {"Args": "Arguments", "Returns": "Returns", "Raises": "Raises"}

MARKUP = re.compile(r"(``.+?``|`.+?`)", re.DOTALL)
QUOTED = re.compile(r"^`(?!`)(?!\w[\w.]*`$)(.*)`$", re.DOTALL)
SPECIAL = re.compile(r"[|*\\]|(?<=\w)_(?!\w)")
BULLET = re.compile(r"^(\s*)\\\*(?= )", re.MULTILINE)
RAISES = re.compile(r"(?:(?<=[.;]\s)|^)(?=Raises \w+)")
NAMES = re.compile(r"(?:^|(?<=[.;]\s))((?:\w+, )*\w+):\s", re.MULTILINE)
ALIAS = re.compile(r"TypeAliasForwardRef\('(\w+)'\)")
ITEM = re.compile(r"^(?=\S)", re.MULTILINE)


def translate(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """A docstring as reStructuredText that says the same."""
    parameters = known(obj)
    paragraphs: list[str] = []
    for paragraph in re.split(r"\n\s*\n", "\n".join(lines).strip()):
        heading, _, rest = paragraph.partition("\n")
        if heading.rstrip(":") in SECTIONS and heading.endswith(":"):
            paragraphs.append(section(SECTIONS[heading[:-1]], escaped(inspect.cleandoc(rest))))
        elif paragraph.startswith(">>>"):
            paragraphs.append(paragraph)
        elif paragraph.startswith(" "):
            paragraphs += ["::", paragraph]
        else:
            for sentences in RAISES.split(escaped(paragraph)):
                paragraphs += described(sentences, parameters)
    lines[:] = "\n\n".join(paragraphs).split("\n")


def known(obj: Any) -> set[str]:
    """The names of an object's parameters, or of a class's fields."""
    try:
        parameters = set(inspect.signature(obj).parameters)
    except (TypeError, ValueError):
        parameters = set()
    return (parameters | set(getattr(obj, "__dataclass_fields__", ()))) - {"self"}


def escaped(text: str) -> str:
    """The text without what reStructuredText would take for markup, bullets aside."""
    parts = MARKUP.split(text)
    parts[::2] = [BULLET.sub(r"\1*", SPECIAL.sub(r"\\\g<0>", part)) for part in parts[::2]]
    parts[1::2] = [QUOTED.sub(r"``\1``", part) for part in parts[1::2]]  # no name of an object
    return "".join(parts)


def described(text: str, parameters: set[str]) -> Iterator[str]:
    """A paragraph; where it describes parameters (`x, y: a batch.`), these as a section of their own."""
    starts = [match for match in NAMES.finditer(text) if parameters.issuperset(match[1].split(", "))]
    if not starts:
        yield text
        return
    if before := text[: starts[0].start()].strip():
        yield before
    ends = [match.start() for match in starts[1:]] + [len(text)]
    items = (" ".join(text[match.start() : end].split()) for match, end in zip(starts, ends, strict=True))
    yield section(SECTIONS["Args"], "\n".join(items))


def section(title: str, text: str) -> str:
    """A field of an item for each name, or of the text alone."""
    items = [" ".join(item.split()) for item in ITEM.split(text) if item.strip()]
    named = [re.match(r"((?:[\w.\\]+, )*[\w.\\]+): (.*)", item) for item in items]
    if all(named):
        body = "\n".join(f"   * **{match[1]}** – {match[2]}" for match in named if match)
    else:
        body = "   " + " ".join(items)
    return f":{title}:\n{body}"


def sign(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, arguments: str | None, returned: str | None
) -> tuple[str | None, str | None] | None:
    """Nobody calls a Protocol, and its functions fill arrays; an alias in a union is shown as one alone is."""
    if getattr(obj, "_is_protocol", False):
        return "", None
    return arguments and ALIAS.sub(r"\1", arguments), returned if returned != "None" else None


def resolve(app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.Element) -> nodes.Node | None:
    """Names by which users know what is defined elsewhere (`models.layers.Linear`, or `Linear`, for `models.Linear`).

    What belongs to other libraries or has no place in the API stays text, as does what is quoted and no name at all.
    """
    if node.get("refdomain") != "py":
        return None
    target, objects = str(node["reftarget"]), env.domains.python_domain.objects
    package, last = target.partition(".")[0], target.rpartition(".")[2]
    named = [name for name, entry in objects.items() if name.endswith(f".{last}") and entry.objtype in DEFINED]
    for root in dict.fromkeys((package, *PACKAGES)):
        if found := [name for name in named if name.startswith(f"{root}.")]:
            entry = objects[found[0]]
            link = app.builder.get_relative_uri(node["refdoc"], entry.docname)
            reference = nodes.reference("", "", internal=True, refuri=f"{link}#{entry.node_id}", reftitle=found[0])
            reference.append(content)
            return reference
    return content


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", translate)
    app.connect("autodoc-process-signature", sign)
    app.connect("missing-reference", resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
