"""How the compiled kernels are written: calls that fit on a line, of functions whose arguments one can keep in mind."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path

from kernels import interface

from ..support.processes import ROOT

FEW = 10


def functions(folder: Path) -> Iterator[tuple[str, int]]:
    """(name, number of positional parameters) of every function below a folder."""
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                yield node.name, len(node.args.posonlyargs + node.args.args)


def fixed() -> dict[str, int]:
    """The parameters of each kernel of the contract, which nobody below chooses."""
    protocols = (interface.Backend, interface.Fused)
    found = [(name, value) for protocol in protocols for name, value in vars(protocol).items() if name[0] != "_"]
    return {name: len(inspect.signature(value).parameters) for name, value in found if callable(value)}


def test_no_function_takes_more_than_ten_arguments_but_kernels_of_the_contract() -> None:
    kernels = fixed()
    seen = dict(functions(ROOT / "kernels" / "numba_backend"))
    assert {"conv2d", "correlate_rows", "contract", "tile_fma"} <= seen.keys()
    many = {name: number for name, number in seen.items() if number > max(FEW, kernels.get(name.lstrip("_"), 0))}
    assert many == {}


def test_one_style_of_calls() -> None:
    for path in sorted((ROOT / "kernels").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        assert "# fmt: " not in text, f"{path.relative_to(ROOT)} keeps the formatter away"
