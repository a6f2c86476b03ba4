"""The cache on disk: cold, warm, elsewhere, unwritable, of other sources, torn, and filled by two processes at once."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ..support.processes import BRIEF, PRELUDE, ROOT, Process, forked


def _program(*kernels: str) -> str:
    """Calls these kernels; prints whether they agree with NumPy, and how many of them and in all it compiled."""
    return f"""
{PRELUDE}
import numpy as np
import kernels

x = np.linspace(-2, 2, 40_000, dtype=np.float32).reshape(200, 200)
more = {{"meannorm_inference": [x[0], x[1]], "power": [3.0]}}
right = []
for name in {kernels}:
    expected, got = (getattr(kernels.get(backend), name)(x, *more.get(name, [])) for backend in kernels.names())
    right.append(np.allclose(got, expected, rtol=1e-4, atol=1e-2))
print(all(right))
print(sum(name.lstrip("_") in {kernels} for name in compiled), len(compiled))
"""


PROGRAM = _program("relu")
LINKED = _program("relu", "meannorm_inference")  # which is linked with code that has a place of its own in the cache

WARM = ["True", "0 0"]


def run(program: str, root: Path = ROOT, **environment: object) -> list[str]:
    """The lines of a program's output."""
    return forked(program, root, **environment)[0]


@pytest.fixture
def blocked(tmp_path: Path) -> Path:
    """A folder that nobody can make, not even root: the path to it leads through a file."""
    file = tmp_path / "file"
    file.touch()
    return file / "folder"


def compiled(lines: list[str]) -> int:
    """How many of the program's kernels were compiled, after asserting that they were right."""
    assert lines[0] == "True"
    return int(lines[1].split()[0])


def folders(directory: Path) -> list[Path]:
    return [path for path in directory.iterdir() if path.is_dir()] if directory.exists() else []


def test_cold_then_warm_where_the_variable_says(tmp_path: Path) -> None:
    cache, home = tmp_path / "cache", tmp_path / "home"
    assert compiled(run(LINKED, NUMBA_CACHE_DIR=cache, HOME=home, XDG_CACHE_HOME=None)) == 2
    assert len(folders(cache)) == 1
    assert any(folders(cache)[0].iterdir())
    assert not home.exists()
    before = {path: path.stat().st_mtime_ns for path in cache.rglob("*")}
    assert run(LINKED, NUMBA_CACHE_DIR=cache) == WARM
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*")} == before


def test_a_warm_start_loads_nothing_that_only_compiling_needs(tmp_path: Path) -> None:
    program = _program("meannorm_inference", "power")  # linked with others, and one that asks for memory
    asked = "import sys; print('numba.np.linalg' in sys.modules)"
    run(program, NUMBA_CACHE_DIR=tmp_path)
    *warm, loaded = Process(BRIEF + program + asked, NUMBA_CACHE_DIR=tmp_path).result()[0]
    assert (warm, loaded) == (WARM, "False")


def test_a_kernel_compiled_by_a_call_serves_recorded_programs_too(tmp_path: Path) -> None:
    recorded = f"""
{PRELUDE}
import numpy as np
import kernels
from kernels.numba_backend import activation
from kernels.numba_backend.compiler import program

x, y = np.linspace(-2, 2, 40_000, dtype=np.float32), np.empty(40_000, np.float32)
program.record([(activation.relu, (x, y))]).run(1, {{}})
print(np.array_equal(y, np.maximum(x, 0)))
print("relu" in compiled, len(compiled))
"""
    assert compiled(run(PROGRAM, NUMBA_CACHE_DIR=tmp_path)) == 1
    first, second = run(recorded, NUMBA_CACHE_DIR=tmp_path)
    assert (first, second.split()[0]) == ("True", "False")


def test_a_cold_cache_says_what_is_compiled_and_a_warm_one_nothing(tmp_path: Path) -> None:
    def errors(verbose: int | None) -> str:
        return forked(PROGRAM, NUMBA_CACHE_DIR=tmp_path / "loud", TWINKERNELS_VERBOSE=verbose)[1]

    lines = errors(1).splitlines()
    assert len(lines) == 1
    assert "compiling relu for float32" in lines[0]
    assert errors(1) == ""
    for verbose in (0, None):
        assert forked(PROGRAM, NUMBA_CACHE_DIR=tmp_path / f"quiet{verbose}", TWINKERNELS_VERBOSE=verbose)[1] == ""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems keep caches elsewhere")
@pytest.mark.parametrize("variable", ["XDG_CACHE_HOME", "HOME"])
def test_without_the_variable_it_is_in_the_users_cache(tmp_path: Path, variable: str) -> None:
    environment = {"NUMBA_CACHE_DIR": None, "XDG_CACHE_HOME": None, "HOME": tmp_path / "home", variable: tmp_path}
    assert compiled(run(PROGRAM, **environment)) == 1
    cache = tmp_path / ("twinkernels" if variable == "XDG_CACHE_HOME" else ".cache/twinkernels")
    assert len(folders(cache)) == 1
    assert run(PROGRAM, **environment) == WARM


@pytest.mark.skipif(os.name != "posix", reason="other systems find the user's folder without HOME")
def test_a_process_without_home_works() -> None:
    assert run(PROGRAM, HOME=None, XDG_CACHE_HOME=None, NUMBA_CACHE_DIR=None)[0] == "True"


def test_a_cache_that_cannot_be_written_is_no_error(blocked: Path) -> None:
    for _ in range(2):
        assert compiled(run(PROGRAM, NUMBA_CACHE_DIR=blocked)) == 1
    environment = {"NUMBA_CACHE_DIR": None, "HOME": blocked, "XDG_CACHE_HOME": None, "LOCALAPPDATA": blocked}
    assert compiled(run(PROGRAM, **environment)) == 1


@pytest.mark.skipif(getattr(os, "geteuid", lambda: 1)() == 0, reason="root may write to read-only folders")
def test_a_read_only_cache_is_no_error(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    cache.chmod(0o555)
    assert compiled(run(PROGRAM, NUMBA_CACHE_DIR=cache)) == 1
    cache.chmod(0o755)
    assert compiled(run(PROGRAM, NUMBA_CACHE_DIR=cache)) == 1
    for path in [cache, *cache.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    assert run(PROGRAM, NUMBA_CACHE_DIR=cache) == WARM
    for path in [cache, *cache.rglob("*")]:
        path.chmod(0o755)


# The sources ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def install(tmp_path: Path) -> Path:
    """A folder with a copy of the kernels."""
    shutil.copytree(ROOT / "kernels", tmp_path / "install/kernels", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "install"


def test_a_read_only_install_stays_as_it_was(install: Path, blocked: Path, tmp_path: Path) -> None:
    paths = sorted([install, *install.rglob("*")])
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)  # root would write all the same: hence the comparison below
    try:
        assert compiled(run(PROGRAM, install, NUMBA_CACHE_DIR=blocked)) == 1
        assert compiled(run(PROGRAM, install, NUMBA_CACHE_DIR=tmp_path / "cache")) == 1
        assert run(PROGRAM, install, NUMBA_CACHE_DIR=tmp_path / "cache") == WARM
        assert sorted([install, *install.rglob("*")]) == paths
    finally:
        for path in paths:
            path.chmod(0o755)


@pytest.mark.parametrize(
    ("file", "change", "kernel"),
    [
        ("polynomials.py", "EXP_32 = tuple(3 * c for c in EXP_32)", "tanh"),
        ("interface.py", "SPLITMIX64 = tuple(c + 2 for c in SPLITMIX64)", "dropout"),
        ("numba_backend/tiles/elementary.py", "LOG2_E = 2.5", "tanh"),
    ],
)
def test_a_change_of_a_helper_shows(install: Path, tmp_path: Path, file: str, change: str, kernel: str) -> None:
    program = f"""
import numpy as np, kernels
from kernels import interface, polynomials
y = kernels.get("numba").{kernel}(np.linspace(-2, 2, 100, dtype=np.float32))
print(np.asarray(y[0] if isinstance(y, tuple) else y).tobytes().hex())
"""
    shared, fresh = tmp_path / "shared", tmp_path / "fresh"
    before = run(program, install, NUMBA_CACHE_DIR=shared)
    path = install / "kernels" / file
    text = path.read_text(encoding="utf-8")
    name = change.split(" =")[0]
    end = text.index("\n\n", text.index(f"\n{name}"))  # before the constants' first use
    path.write_text(f"{text[:end]}\n{change}\n{text[end:]}", encoding="utf-8")
    expected = run(program, install, NUMBA_CACHE_DIR=fresh)
    assert expected != before, "the change makes no difference"
    assert run(program, install, NUMBA_CACHE_DIR=shared) == expected


def test_every_source_counts(install: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However deep it lies: code in the cache that was made from other sources would run without a word."""
    from kernels.numba_backend.compiler import cache

    package = install / "kernels"
    monkeypatch.setattr(cache, "__file__", str(package / "numba_backend/compiler/cache.py"))
    assert cache._sources_hash() == cache._sources_hash()
    files = list(package.rglob("*.py"))
    assert {"conv.py", "tile.py", "jit.py", "interface.py"} <= {file.name for file in files}
    for file in files:
        before = cache._sources_hash()
        file.write_text(file.read_text(encoding="utf-8") + "\n", encoding="utf-8")
        assert cache._sources_hash() != before, f"{file.relative_to(package)} does not count"
    before = cache._sources_hash()
    (package / "numba_backend" / "tiles" / "further").mkdir()
    (package / "numba_backend" / "tiles" / "further" / "new.py").touch()
    assert cache._sources_hash() != before, "a new folder's file does not count"


@pytest.mark.parametrize(
    ("module", "name", "value"),
    [
        ("numba", "__version__", "0.0"),
        ("llvmlite", "__version__", "0.0"),
        ("numba.config", "OPT", 1),
        ("numba.config", "LOOP_VECTORIZE", 0),
        ("numba.config", "SLP_VECTORIZE", 1),
        ("numba.config", "DEBUGINFO_DEFAULT", 1),
        ("numba.config", "BOUNDSCHECK", 1),
    ],
)
def test_versions_and_options_of_the_compiler_count(
    monkeypatch: pytest.MonkeyPatch, module: str, name: str, value: object
) -> None:
    from kernels.numba_backend.compiler import cache

    before = cache._sources_hash()
    monkeypatch.setattr(f"{module}.{name}", value)
    assert cache._sources_hash() != before


# Damage --------------------------------------------------------------------------------------------------------------


def _empty(data: bytes) -> bytes:
    return b""


def _torn(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _garbage(data: bytes) -> bytes:
    return b"\x00garbage\xff" * (len(data) // 9 + 1)


def _a_bit(data: bytes) -> bytes:
    """Of the machine code, which unpickles as before."""
    at = len(data) // 2
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize("damage", [_empty, _torn, _garbage, _a_bit], ids=lambda damage: damage.__name__[1:])
def test_a_damaged_cache_is_compiled_anew(tmp_path: Path, damage: Callable[[bytes], bytes], warm_cache: Path) -> None:
    cache = tmp_path / "cache"
    shutil.copytree(warm_cache, cache)
    files = [path for path in cache.rglob("*") if path.is_file()]
    assert len(files) >= 1
    for file in files:
        file.write_bytes(damage(file.read_bytes()))
    assert compiled(run(PROGRAM, NUMBA_CACHE_DIR=cache)) == 1
    assert run(PROGRAM, NUMBA_CACHE_DIR=cache) == WARM, "the damage was not mended"


@pytest.fixture(scope="module")
def warm_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cache = tmp_path_factory.mktemp("warm") / "cache"
    assert compiled(run(PROGRAM, NUMBA_CACHE_DIR=cache)) == 1
    return cache


def test_a_folder_in_a_files_place_is_no_error(tmp_path: Path, warm_cache: Path) -> None:
    cache = tmp_path / "cache"
    shutil.copytree(warm_cache, cache)
    for file in [path for path in cache.rglob("*") if path.is_file()]:
        file.unlink()
        file.mkdir()
    assert compiled(run(PROGRAM, NUMBA_CACHE_DIR=cache)) == 1


def test_caches_that_were_filled_apart_can_be_laid_together(tmp_path: Path) -> None:
    """As two processes do that fill one at once: code for one dtype is never found in the place of that for another."""
    numbers = 'print(kernels.get("numba").softplus(np.arange(-2, 3, dtype=np.{dtype})).tolist())'
    programs = [f"import numpy as np, kernels\n{numbers.format(dtype=dtype)}" for dtype in ("float64", "float32")]
    expected = [run(program, NUMBA_CACHE_DIR=tmp_path / str(i)) for i, program in enumerate(programs)]
    shutil.copytree(tmp_path / "0", tmp_path / "both")
    (place,) = (tmp_path / "both").iterdir()
    for code in (tmp_path / "1").rglob("*.nbc"):
        shutil.copy(code, place)
    assert [run(program, NUMBA_CACHE_DIR=tmp_path / "both") for program in programs] == expected
    assert len([*(tmp_path / "both").rglob("*softplus*.nbc")]) == 2, "something was compiled again"


def test_processes_may_fill_one_cache_at_once(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    for process in [Process(BRIEF + LINKED, NUMBA_CACHE_DIR=cache) for _ in range(2)]:
        assert process.result()[0][0] == "True"
    assert run(LINKED, NUMBA_CACHE_DIR=cache) == WARM
