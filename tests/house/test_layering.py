"""Imports point one way, and importing the packages costs little."""

from __future__ import annotations

import ast
import functools
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ALLOWED = {
    "kernels": set(),
    "data": {"kernels"},
    "models": {"kernels", "data"},
    "twinkernels": {"kernels", "data", "models"},
}
"""The four storeys, each with what it may import."""
OURS = {*ALLOWED, "benchmarks", "tests", "fuzz", "docs"}
PROGRAM = ("typer", "matplotlib", "optuna", "sqlalchemy", "starlette", "uvicorn")
"""What shows, asks or draws: the library imports none of it."""
HEAVY = ("numba", "scipy", "matplotlib", "onnx", "onnxruntime", "torch", "PIL", "starlette", "optuna")
RARE = ("concurrent.futures", "difflib", "hashlib", "html", "logging", "tempfile", "uuid", "zipfile")
"""What a file needs for one function alone, and would take a sixth of the time to import the library."""


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@functools.cache
def imported(path: Path) -> frozenset[str]:
    """Top-level names of everything that a file imports, at any depth of its code."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if node.level == 0:
                names.add(str(node.module).split(".")[0])
            else:
                depth = len(path.relative_to(ROOT).parts) - 1
                assert node.level <= depth, f"{path}: a relative import leaves its package"
    return frozenset(names)


def said(word: str) -> dict[Path, ast.Module]:
    """The files of the four storeys in whose text a word stands, parsed: code that says it is among them."""
    texts = {path: path.read_text(encoding="utf-8") for package in ALLOWED for path in sources(package)}
    return {path: ast.parse(text) for path, text in texts.items() if word in text}


@pytest.mark.parametrize("package", sorted(OURS))
def test_every_file_holds_something(package: str) -> None:
    """A source that was emptied by accident imports, runs, and does nothing."""
    empty = [path for path in sources(package) if path.name != "__init__.py" and not path.read_bytes().strip()]
    assert empty == []


@pytest.mark.parametrize("package", ALLOWED)
def test_arrows(package: str) -> None:
    assert sources(package), f"no sources of {package}"
    for path in sources(package):
        forbidden = imported(path) & (OURS - ALLOWED[package] - {package})
        assert not forbidden, f"{path.relative_to(ROOT)} imports {', '.join(sorted(forbidden))}"


@pytest.mark.parametrize("package", ["kernels", "data", "models"])
def test_only_the_program_shows(package: str) -> None:
    for path in sources(package):
        forbidden = imported(path) & set(PROGRAM)
        assert not forbidden, f"{path.relative_to(ROOT)} imports {', '.join(sorted(forbidden))}"


def test_one_file_imports_typer() -> None:
    found = [str(path.relative_to(ROOT)) for path in sources("twinkernels") if "typer" in imported(path)]
    assert found == ["twinkernels/cli.py"]


def test_the_cases_import_numpy_kernels_and_random_arrays_alone() -> None:
    third_party = imported(ROOT / "benchmarks/suite/cases.py") - set(sys.stdlib_module_names)
    assert third_party == {"numpy", "kernels", "twinkernels"}  # of the last its random arrays


def arrows(package: str) -> dict[str, set[str]]:
    """What each file of a package imports of it, at any depth of its code but where type checkers alone look."""

    class Runs(ast.NodeTransformer):
        def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
            self.generic_visit(node)
            return node.orelse if "TYPE_CHECKING" in ast.unparse(node.test) else node

    home = ROOT / package

    def module(parts: tuple[str, ...]) -> str:
        return ".".join(parts[:-1] if parts[-1] == "__init__" and parts[:-1] else parts)

    names = {module(path.relative_to(home).with_suffix("").parts) for path in sources(package)}
    found: dict[str, set[str]] = {name: set() for name in names}
    for path in sources(package):
        here = path.relative_to(ROOT)
        targets: list[list[str]] = []
        for node in ast.walk(Runs().visit(ast.parse(path.read_text(encoding="utf-8")))):
            if isinstance(node, ast.ImportFrom):
                start = list(here.parts[: len(here.parts) - node.level]) if node.level else []
                targets += [[*start, *(node.module or "").split("."), alias.name] for alias in node.names]
            elif isinstance(node, ast.Import):
                targets += [[*alias.name.split("."), ""] for alias in node.names]
        for first, *rest in ([part for part in target if part] for target in targets):
            if first == package:
                inside = [".".join(rest[:length]) for length in range(len(rest), 0, -1)]
                found[module(here.with_suffix("").parts[1:])].add(next(filter(names.__contains__, inside), "__init__"))
    return found


def test_no_circle_among_the_files_of_models() -> None:
    found = arrows("models")
    assert found["trainer"] >= {"fit", "graph", "execute", "nonfinite"}  # from . import nonfinite, among others
    assert "graph" not in found["saving"]  # in annotations alone
    graphlib.TopologicalSorter(found).prepare()  # raises CycleError


@pytest.mark.parametrize("name", ["plan", "builder", "lowering", "layout", "rewrite", "execute", "layers"])
def test_what_runs_knows_no_data_set(name: str) -> None:
    files = sources(f"models/{name}") or [ROOT / "models" / f"{name}.py"]
    assert not any("data" in imported(path) for path in files)


def test_one_file_writes_safetensors() -> None:
    """It writes memory as it lies, whatever its strides say: arrays are made ready in one place."""
    found = set()
    for path, tree in said("safetensors").items():
        for node in ast.walk(tree):
            named = [alias.name for alias in getattr(node, "names", ()) if isinstance(node, ast.ImportFrom)]
            if "safetensors" in (getattr(node, "module", None) or "") and any("save" in name for name in named):
                found.add(str(path.relative_to(ROOT)))
    assert found == {"models/saving.py"}


def test_numba_stays_in_its_backend() -> None:
    backend = ROOT / "kernels" / "numba_backend"
    for package in ALLOWED:
        for path in sources(package):
            if backend not in path.parents:
                assert "numba" not in imported(path), f"{path.relative_to(ROOT)} imports numba"


def test_one_file_says_njit() -> None:
    found = set()
    for path, tree in said("njit").items():
        names = {getattr(node, "id", getattr(node, "attr", None)) for node in ast.walk(tree)}
        names |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
        if "njit" in names:
            found.add(str(path.relative_to(ROOT)))
    assert found == {"kernels/numba_backend/compiler/jit.py"}


def test_the_numpy_backend_imports_numpy_alone() -> None:
    for path in sources("kernels/numpy_backend"):
        assert imported(path) - set(sys.stdlib_module_names) <= {"numpy"}, path.name


def test_importing_loads_nothing_heavy() -> None:
    program = f"""
import sys, numpy
before = set(sys.modules)
import kernels, models, data
print(*sorted((set(sys.modules) - before) & set({RARE!r})))
import twinkernels
print(*sorted(set(sys.modules) & set({HEAVY!r})))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "\n\n"


def test_the_numpy_backend_loads_no_numba() -> None:
    program = "import sys, kernels; kernels.get('numpy'); print('numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
