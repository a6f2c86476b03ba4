"""What tests of the program share: the command called in this process, and one thread to call it on."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

import kernels
from twinkernels import cli

Called = tuple[int, list[str], list[str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Called]:
    """Call the command; returns exit status, lines of standard output, lines of standard error."""

    def call(*arguments: object) -> Called:
        with pytest.raises(SystemExit) as end:
            cli.main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert isinstance(end.value.code, int)
        return end.value.code, out.splitlines(), err.splitlines()

    return call


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """For nets and batches this small more threads cost more than they save, and BLAS's sums depend on their number."""
    before = kernels.get_threads()
    kernels.set_threads(1)
    yield
    kernels.set_threads(before)
