"""What the speed tests share, and plain words for what pytest-benchmark passes over or breaks on."""

from __future__ import annotations

import pytest

from twinkernels.bench import timing


def timed(config: pytest.Config) -> bool:
    """Whether times are taken; pyproject.toml says not, unless the command line does."""
    return bool(config.getoption("benchmark_enable") or not config.getoption("benchmark_disable"))


@pytest.fixture(scope="module", autouse=True)
def settled(request: pytest.FixtureRequest) -> None:
    """Pinned threads where times are taken; where not, what other tests set is left alone."""
    if timed(request.config):
        timing.settle()


def pytest_sessionstart(session: pytest.Session) -> None:
    """Refuse a comparison that would compare nothing: it would pass, or end in an INTERNALERROR."""
    option = session.config.getoption
    asked = [name for name in ("compare", "compare_fail") if option(f"benchmark_{name}")]
    if not asked:
        return
    name = f"--benchmark-{asked[0].replace('_', '-')}"
    if not timed(session.config):
        raise pytest.UsageError(f"{name} compares nothing without times: expected --benchmark-enable beside it")
    if not option("benchmark_compare"):
        raise pytest.UsageError(f"{name} says when a comparison fails: expected --benchmark-compare beside it")
    benchmarks = session.config._benchmarksession  # type: ignore[attr-defined]
    if not benchmarks.compared_mapping:
        raise pytest.UsageError(
            f"{name} finds nothing to compare with in {benchmarks.storage.path}: expected a run that was kept, by "
            "--benchmark-enable --benchmark-save NAME"
        )
