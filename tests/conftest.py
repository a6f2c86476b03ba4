"""What all tests share: the backends, and hypothesis's settings."""

from __future__ import annotations

import hypothesis
import pytest

import kernels

hypothesis.settings.register_profile("twinkernels", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("twinkernels")


@pytest.fixture(scope="session", params=kernels.names())
def k(request: pytest.FixtureRequest) -> kernels.Kernels:
    """The kernels of each backend in turn."""
    return kernels.get(request.param)
