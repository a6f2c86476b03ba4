"""help() is enough to call a kernel: every public function says what it takes, returns and raises, in the source."""

from __future__ import annotations

import ast
import inspect
import re

import pytest

import kernels
from kernels import Kernels
from kernels.interface import roles

from ..support.every import every

METHODS = {
    node.name: node
    for node in ast.walk(ast.parse(inspect.getsource(Kernels)))
    if isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and not node.decorator_list
}
FUNCTIONS = {
    name: node
    for name in ("get", "kernel_names", "names", "get_threads", "set_threads")
    for node in ast.parse(inspect.getsource(getattr(kernels, name))).body
    if isinstance(node, ast.FunctionDef)
}
ENTRY = re.compile(r"^    (\w+): ", re.MULTILINE)
PAIRS = ("size", "stride", "padding", "dilation")


def sections(node: ast.FunctionDef) -> dict[str, str]:
    """The parts of a docstring by their heading, "" for what stands before the first."""
    text = ast.get_docstring(node)
    assert text, f"{node.name} has no docstring in the source"
    head, *parts = re.split(r"^(Args|Returns|Raises):\n", text, flags=re.MULTILINE)
    return {"": head, **dict(zip(parts[::2], parts[1::2], strict=True))}


@pytest.mark.parametrize("node", [*METHODS.values(), *FUNCTIONS.values()], ids=lambda node: node.name)
def test_every_parameter_and_result_is_explained(node: ast.FunctionDef) -> None:
    parts = sections(node)
    assert re.match(r"^.{8,110}\S\.$", parts[""].split("\n")[0]), "no line that says what it does"
    parameters = [a.arg for a in node.args.args if a.arg != "self"]
    assert ENTRY.findall(parts.get("Args", "")) == parameters
    returned = ast.unparse(node.returns) if node.returns else ""
    assert ("Returns" in parts) == (returned != "None")
    # A colon in its first line would make a type of what stands before.
    assert ":" not in parts.get("Returns", "").split("\n")[0]


@pytest.mark.parametrize("kernel", [*kernels.kernel_names(), "adamw"])
def test_a_kernels_errors_arrays_and_pairs_are_explained(kernel: str) -> None:
    every([both_kinds_of_error, every_array_and_pair, nothing_unknown], lambda check: check(kernel))


def both_kinds_of_error(kernel: str) -> None:
    """Both kinds of error are explained."""
    assert ENTRY.findall(sections(METHODS[kernel])["Raises"]) == ["TypeError", "ValueError"]


def every_array_and_pair(kernel: str) -> None:
    """Every array has a shape, and every pair is said to be one."""
    node = METHODS[kernel]
    entries = re.split(ENTRY, sections(node)["Args"])
    explained = dict(zip(entries[1::2], entries[2::2], strict=True))
    for parameter in node.args.args[1:]:
        kind, text = ast.unparse(parameter.annotation) if parameter.annotation else "", explained[parameter.arg]
        if kind.startswith("Array"):
            assert re.search(r"\(.*\)|shape|the forward's|returned", text), f"{parameter.arg}: {text}"
        if kind.startswith("Pair"):
            assert "an int or an (h, w) pair" in text, f"{parameter.arg}: {text}"
        if kind.endswith("None"):
            assert "None" in text, f"{parameter.arg}: {text}"


def nothing_unknown(kernel: str) -> None:
    """Nothing is named that a caller does not know."""
    text = ast.get_docstring(METHODS[kernel]) or ""
    assert not re.search(r"\bd\.\w|\bscratch\b|_dtype\b", text)
    known = {*(a.arg for a in METHODS[kernel].args.args), *vars(kernels.Backend), *vars(kernels)}
    for name in re.findall(r"`([\w.]+)`", text):
        assert set(name.split(".")) <= {*known, "kernels"}, name


def test_updated_arguments_are_said_to_be() -> None:
    """Those that the contract updates, and no others."""
    for kernel in kernels.kernel_names():
        entries = re.split(ENTRY, sections(METHODS[kernel])["Args"])
        said = [name for name, text in zip(entries[1::2], entries[2::2], strict=True) if "updated in place" in text]
        of = roles(kernel)
        assert said == [name for name, role in of.items() if role == "in place"], kernel
