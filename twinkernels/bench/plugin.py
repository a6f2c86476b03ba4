"""`pytest --twins FILE`: the cases of a file as tests. Loaded by every pytest beside which the package is installed."""

from __future__ import annotations

import types
from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option."""
    parser.getgroup("twinkernels").addoption(
        "--twins",
        action="append",
        default=[],
        metavar="FILE",
        help="a file of twins and cases: a test for each case, contestant and check; may be repeated",
    )


def pytest_configure(config: pytest.Config) -> None:
    """The files are collected beside what the command line names, and alone where it names nothing."""
    files = [file for file in config.getoption("twins") if file not in config.args]
    if files:
        named = config.args if config.args_source is pytest.Config.ArgsSource.ARGS else []
        config.args = [*named, *files]


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """The tests of one of these files in the place of those that its names make."""
    base = parent.config.invocation_params.dir
    if module_path in [(base / file).resolve() for file in parent.config.getoption("twins")]:
        return TwinsModule.from_parent(parent, path=module_path)
    return None


class TwinsModule(pytest.Module):
    """A file of twins and cases."""

    def _getobj(self) -> types.ModuleType:
        from .declare import FileError, read
        from .testing import tests

        module = types.ModuleType(self.path.stem)
        module.__file__ = str(self.path)
        try:
            cases = read(self.path)
        except (FileError, OSError) as error:
            raise self.CollectError(str(error)) from None
        module.test_twins, module.test_speed = tests(cases)  # type: ignore[attr-defined]
        return module
