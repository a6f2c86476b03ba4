"""The twins have one face: the same kernels, parameters and modules in every backend."""

from __future__ import annotations

import doctest
import importlib
import inspect
from types import ModuleType
from typing import Any

import pytest

import benchmarks.suite.cases
import kernels
import kernels.interface
import kernels.ops
import kernels.threads
from kernels import Backend, Kernels
from kernels.interface import Batches, FoldSize, Fused, Programs, ScratchSize, kernel_names, roles
from kernels.numba_backend import pairs
from kernels.numba_backend.tiles.tile import BFLOAT16_UNIT

from ..support import naive
from ..support.every import every

MODULES = (
    "linear",
    "conv",
    "pool",
    "norm",
    "activation",
    "loss",
    "optim",
    "combine",
    "unary",
    "shape",
    "augment",
    "batches",
    "precision",
)
PAIRS = [kernel for kernel in kernel_names(Fused) if kernel.endswith("_bfloat16")]
"""Kernels that Numba's backend has where the processor multiplies bfloat16 numbers, which `pairs` says."""
LACKING = [kernel for kernel in PAIRS if kernel not in pairs.__all__]
BACKENDS = {name: kernels.get(name).backend for name in kernels.names()} | {"naive": naive}
FILLED: dict[str, tuple[type, ...]] = {
    "numpy": (Backend, Batches),
    "numba": (Backend, Batches, Fused),
    "naive": (Backend,),
}
"""The protocols whose kernels each backend has, all of them."""
SIGNATURES = [
    (backend, protocol, kernel)
    for backend, protocols in FILLED.items()
    for protocol in protocols
    for kernel in kernel_names(protocol)
    if kernel not in LACKING
]
ALL = list(dict.fromkeys(kernel for _, _, kernel in SIGNATURES))


def parameters(function: Any) -> list[str]:
    return list(inspect.signature(getattr(function, "py_func", function)).parameters)


def names(backend: str) -> list[str]:
    """The kernels of a backend's protocols."""
    return [kernel for name, _, kernel in SIGNATURES if name == backend]


def sizes(backend: str) -> dict[str, type]:
    """Each function of a size that belongs to a backend's kernels, and its protocol."""
    scratch = {f"{kernel}_scratch": ScratchSize for kernel in names(backend) if "scratch" in roles(kernel)}
    return scratch | {f"{kernel}_size": FoldSize for kernel in names(backend) if kernel.endswith("_fold")}


def public(module: ModuleType) -> set[str]:
    return {name for name, value in vars(module).items() if not (name.startswith("_") or inspect.ismodule(value))}


@pytest.mark.parametrize("kernel", ALL)
def test_parameters_are_the_contracts(kernel: str) -> None:
    def check(backend: str, protocol: type) -> None:
        assert parameters(getattr(BACKENDS[backend], kernel)) == parameters(getattr(protocol, kernel))

    every(((backend, protocol) for backend, protocol, name in SIGNATURES if name == kernel), check)


def test_pairs_have_the_contracts_parameters_on_any_processor() -> None:
    for kernel in PAIRS:
        assert parameters(getattr(pairs, kernel)) == parameters(getattr(Fused, kernel))
        if not kernel.endswith("fold_bfloat16"):
            assert parameters(getattr(pairs, f"{kernel}_scratch")) == parameters(ScratchSize.__call__)[1:]
    assert ({name.removesuffix("_scratch") for name in pairs.__all__} == set(PAIRS)) == (BFLOAT16_UNIT == "amx")
    assert bool(pairs.__all__) == bool(BFLOAT16_UNIT)


@pytest.mark.parametrize("backend", BACKENDS)
def test_sizes_have_the_contracts_parameters(backend: str) -> None:
    for name, protocol in sizes(backend).items():
        own = [parameter.strip("_") for parameter in parameters(getattr(BACKENDS[backend], name))]
        assert own == parameters(protocol.__call__)[1:], name


def test_a_kernel_with_scratch_has_dims() -> None:
    for kernel in ALL:
        assert "scratch" not in roles(kernel) or roles(kernel)["d"] == "attribute"


@pytest.mark.parametrize("backend", kernels.names())
def test_a_backend_exports_its_kernels_and_nothing_stray(backend: str) -> None:
    programs = set(kernel_names(Programs)) if kernels.get(backend).compiles else set()
    assert public(BACKENDS[backend]) == {*names(backend), *sizes(backend), *programs}


def test_numba_makes_programs_and_numpy_none() -> None:
    assert parameters(BACKENDS["numba"].record) == parameters(Programs.record)
    assert [name for name in kernels.names() if kernels.get(name).compiles] == ["numba"]


def test_numpy_has_no_fused_kernel() -> None:
    assert [kernel for kernel in kernel_names(Fused) if kernels.get("numpy").has(kernel)] == []


def homes(backend: str) -> dict[str, str]:
    """Name -> the module of the backend that exports it, and defines it too."""
    package = BACKENDS[backend].__name__
    found: dict[str, str] = {}
    for module in (importlib.import_module(f"{package}.{name}") for name in MODULES):
        for name in module.__all__:
            assert getattr(module, name).__module__ == module.__name__
            assert name not in found
            found[name] = module.__name__.rpartition(".")[2]
    return found


def test_a_kernel_lives_in_the_same_module_of_every_backend() -> None:
    first, *others = (homes(backend) for backend in kernels.names())
    assert set(first.values()) == set(MODULES)
    for other in others:
        assert other == first


BESIDE = {"compiles", "fold_size", "function", "has", "program", "scratch_size"}
"""What the facade has that is no kernel."""


def test_the_facade_has_every_kernel() -> None:
    methods = {name for name in vars(Kernels) if not name.startswith("_")}
    assert methods == {*kernel_names(), "adamw", *BESIDE}


def test_roles_follow_the_contract() -> None:
    for kernel in (kernel for kernel in ALL if kernel not in LACKING):
        of = roles(kernel)
        assert set(of.values()) <= {"input", "output", "in place", "scratch", "attribute"}
        assert {"output", "in place"} & set(of.values()), f"{kernel} fills nothing"
        assert ("scratch" in of) == ("scratch" in of.values()) == any(f"{kernel}_scratch" in sizes(b) for b in FILLED)
        assert list(of) == parameters(getattr(BACKENDS["numba"], kernel))
        for name, role in of.items():
            if name.startswith("d") and len(name) > 1 and name not in ("dy", "decoupled"):
                assert role == "output", f"{kernel}: {name}"


def test_names() -> None:
    assert kernels.names() == ["numpy", "numba"]
    assert len(ALL) == len(set(ALL)), "one name for two kernels"
    assert kernels.kernel_names() == kernel_names(Backend) == [name for name in vars(Backend) if name in ALL]


EXAMPLES = (kernels, kernels.ops, kernels.threads, kernels.interface, benchmarks.suite.cases)


@pytest.mark.parametrize("module", EXAMPLES, ids=lambda module: module.__name__)
def test_the_examples_in_docstrings_run(module: ModuleType) -> None:
    failed, attempted = doctest.testmod(module)
    assert attempted > 0
    assert failed == 0
