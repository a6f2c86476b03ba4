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
from kernels import Backend, Kernels
from kernels.interface import Fused, roles

from ..support import naive

MODULES = ("linear", "conv", "pool", "norm", "activation", "loss", "optim", "combine", "augment")
BACKENDS = {name: kernels.get(name).backend for name in kernels.names()} | {"naive": naive}
WITH_SCRATCH = [name for name in kernels.kernel_names() if "scratch" in roles(name)]


def parameters(function: Any) -> list[str]:
    return list(inspect.signature(getattr(function, "py_func", function)).parameters)


@pytest.mark.parametrize("kernel", kernels.kernel_names())
@pytest.mark.parametrize("backend", BACKENDS)
def test_parameters_are_the_contracts(backend: str, kernel: str) -> None:
    assert parameters(getattr(BACKENDS[backend], kernel)) == parameters(getattr(Backend, kernel))


@pytest.mark.parametrize("kernel", WITH_SCRATCH)
@pytest.mark.parametrize("backend", BACKENDS)
def test_scratch_has_its_size(backend: str, kernel: str) -> None:
    size = getattr(BACKENDS[backend], f"{kernel}_scratch")
    assert [name.strip("_") for name in parameters(size)] == ["d", "n"]
    assert "d" in roles(kernel)


@pytest.mark.parametrize("backend", kernels.names())
def test_no_backend_has_a_scratch_that_nobody_asks_for(backend: str) -> None:
    sizes = {name for name in vars(BACKENDS[backend]) if name.endswith("_scratch")}
    fused = {name for name in fused_kernels(backend) if "scratch" in roles(name)}
    assert sizes == {f"{kernel}_scratch" for kernel in {*WITH_SCRATCH, *fused}}


def fused_kernels(backend: str) -> list[str]:
    """Those that the backend has."""
    names = [name for name, value in vars(Fused).items() if isinstance(value, staticmethod)]
    return [name for name in names if hasattr(BACKENDS[backend], name)]


def test_numba_has_every_fused_kernel_and_numpy_none() -> None:
    names = [name for name, value in vars(Fused).items() if isinstance(value, staticmethod)]
    assert fused_kernels("numba") == names
    assert names
    assert fused_kernels("numpy") == []


@pytest.mark.parametrize("kernel", fused_kernels("numba"))
def test_fused_kernels_have_the_contracts_parameters(kernel: str) -> None:
    assert parameters(getattr(BACKENDS["numba"], kernel)) == parameters(getattr(Fused, kernel))


def homes(backend: str) -> dict[str, str]:
    """Kernel -> the module of the backend that defines it."""
    package = BACKENDS[backend].__name__
    modules: dict[str, ModuleType] = {name: importlib.import_module(f"{package}.{name}") for name in MODULES}
    return {
        kernel: next(
            name
            for name, module in modules.items()
            if getattr(vars(module).get(kernel), "__module__", None) == module.__name__
        )
        for kernel in kernels.kernel_names()
    }


def test_a_kernel_lives_in_the_same_module_of_every_backend() -> None:
    first, *others = (homes(backend) for backend in kernels.names())
    assert set(first.values()) == set(MODULES)
    for other in others:
        assert other == first


def test_the_facade_has_every_kernel() -> None:
    methods = {name for name in vars(Kernels) if not name.startswith("_")}
    assert methods == {*kernels.kernel_names(), "adamw", "compiles", "function", "program", "scratch_size"}


def test_roles_follow_the_contract() -> None:
    for kernel in kernels.kernel_names():
        of = roles(kernel)
        assert set(of.values()) <= {"input", "output", "in place", "scratch", "attribute"}
        assert {"output", "in place"} & set(of.values()), f"{kernel} fills nothing"
        assert (of.get("scratch") == "scratch") == (kernel in WITH_SCRATCH)
        assert list(of) == parameters(getattr(Backend, kernel))
        for name, role in of.items():
            if name.startswith("d") and len(name) > 1 and name not in ("dy", "decoupled"):
                assert role == "output", f"{kernel}: {name}"


def test_names() -> None:
    assert kernels.names() == ["numpy", "numba"]
    assert len(kernels.kernel_names()) == len(set(kernels.kernel_names())) == 51


@pytest.mark.parametrize("module", [kernels, benchmarks.suite.cases], ids=lambda module: module.__name__)
def test_the_examples_in_docstrings_run(module: ModuleType) -> None:
    failed, attempted = doctest.testmod(module)
    assert attempted > 0
    assert failed == 0
