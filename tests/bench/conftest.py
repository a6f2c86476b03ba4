"""What tests of the bench share: the command, and the threads as they were."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import kernels

from ..program.conftest import run as run


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    before = kernels.get_threads()
    yield
    kernels.set_threads(before)
