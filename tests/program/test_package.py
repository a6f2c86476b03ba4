"""The package `twinkernels`: it has a version, names the three below it, and loads nothing until asked."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

import data
import kernels
import models
import twinkernels

ROOT = Path(__file__).parents[2]


def printed(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_version_is_the_distributions() -> None:
    try:
        installed = importlib.metadata.version("twinkernels")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("no distribution is installed, this is a plain checkout")
    assert installed == twinkernels.__version__


def test_it_names_the_packages_that_it_stands_on() -> None:
    assert (twinkernels.data, twinkernels.kernels, twinkernels.models) == (data, kernels, models)
    assert {"data", "kernels", "models", "__version__"} <= set(dir(twinkernels))
    program = "from twinkernels import data, kernels, models; print(data.__name__, kernels.__name__, models.__name__)"
    assert printed(program) == "data kernels models"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'twinkernels' has no attribute 'layers'"):
        twinkernels.layers  # noqa: B018
    assert not hasattr(twinkernels, "_layers")


def test_importing_it_loads_none_of_the_packages() -> None:
    program = "import sys, twinkernels; print(*{'data', 'kernels', 'models', 'numpy', 'typer'} & set(sys.modules))"
    assert printed(program) == ""


def test_the_command_starts_without_what_it_may_not_need() -> None:
    heavy = ("numba", "scipy", "matplotlib", "optuna", "sqlalchemy", "starlette", "uvicorn", "PIL", "pooch", "requests")
    assert printed(f"import sys, twinkernels.cli; print(*sorted(set({heavy!r}) & set(sys.modules)))") == ""
