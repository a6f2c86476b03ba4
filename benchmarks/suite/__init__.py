"""The asv suite and the table of cases that it shares with the tests."""

import importlib
import os
import sys
import types
from importlib.util import find_spec
from pathlib import Path

if "ASV_ENV_DIR" in os.environ:  # before numba is loaded: commits share no compiled kernels
    os.environ.setdefault("NUMBA_CACHE_DIR", os.path.join(os.environ["ASV_ENV_DIR"], "numba-cache"))

for _package, _module in ("kernels", "accuracy"), ("twinkernels", "bench"):
    # A commit from before there was one is measured by that of the commit that has this file.
    if find_spec(_package) is None:
        sys.modules[_package] = types.ModuleType(_package)
        sys.modules[_package].__path__ = []
    if find_spec(f"{_package}.{_module}") is None:
        importlib.import_module(_package).__path__.append(str(Path(__file__).parents[2] / _package))
