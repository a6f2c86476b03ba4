"""How the compiled kernels are written: calls that fit on a line, of functions whose arguments one can keep in mind."""

from __future__ import annotations

import ast
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


def test_no_function_takes_more_than_ten_arguments_but_kernels_of_the_contract() -> None:
    """What is compiled for a kernel, by its name or by that with an underscore, takes what the contract gives it."""
    contract = vars(interface.Backend).keys() | vars(interface.Fused).keys()
    seen = dict(functions(ROOT / "kernels" / "numba_backend"))
    assert {"conv2d", "correlate_rows", "contract", "tile_fma"} <= seen.keys()
    assert {name: n for name, n in seen.items() if n > FEW and name.lstrip("_") not in contract} == {}


def test_one_style_of_calls() -> None:
    for path in sorted((ROOT / "kernels").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        assert "# fmt: " not in text, f"{path.relative_to(ROOT)} keeps the formatter away"
