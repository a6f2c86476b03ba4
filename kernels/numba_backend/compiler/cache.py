"""The disk cache: machine code that every later process loads.

A file ends with a hash, without which nothing of it is loaded: what the disk has damaged can do anything.
Numba's own key sees a function but not its helpers or the tile's code, so the folder's name carries a hash of every
source that can change the machine code. A folder that cannot be written or read means compiling again, never an error.

A wheel may bring such files along, a pack for each of some `LEVELS`. What is there, made of the same sources by the
same compiler, is read before the cache.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FunctionType
from typing import Any, ClassVar

import llvmlite
import llvmlite.binding as llvm
import numba
import platformdirs
from numba import types
from numba.core import caching
from numba.core.registry import cpu_target
from numba.core.runtime import _nrt_python

from ..tiles.tile import VECTOR_BYTES

__all__ = ["DIRECTORY", "LEVELS", "PACKS", "Cache", "cache_directory", "level"]

PACKS = Path(__file__).parents[1] / "packs"
"""Where a pack lies for each level that the package brought one for, in a folder of the level's name."""

_V3 = ("avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe", "popcnt", "sse4.2")

LEVELS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "x86_64": {"x86-64-v4": (*_V3, *(f"avx512{part}" for part in ("f", "bw", "cd", "dq", "vl"))), "x86-64-v3": _V3},
    "aarch64": {"generic": ()},
}
"""By architecture, the kinds of processor that packs are made for, the best first: LLVM's name, and what it takes."""


def cache_directory() -> Path:
    """Where compiled kernels are kept: under NUMBA_CACHE_DIR if set, else in the user's cache folder."""
    return Path(numba.config.CACHE_DIR or platformdirs.user_cache_dir("twinkernels")) / f"numba-{_sources_hash()}"


_SETTINGS = (
    *("OPT", "ENABLE_AVX", "LOOP_VECTORIZE", "SLP_VECTORIZE", "DISABLE_INTEL_SVML"),
    *("DEBUGINFO_DEFAULT", "BOUNDSCHECK", "DEBUG_NRT", "LLVM_REFPRUNE_PASS", "LLVM_REFPRUNE_FLAGS"),
)
"""Of Numba's own, those that change machine code. The processor and its features are in Numba's key."""


def _sources_hash() -> str:
    package = Path(__file__).parents[2]
    settings = [getattr(numba.config, name, None) for name in _SETTINGS]
    digest = hashlib.sha256(f"{numba.__version__} {llvmlite.__version__} {settings} {VECTOR_BYTES}".encode())
    for path in sorted(package.rglob("*.py")):
        with contextlib.suppress(OSError):
            digest.update(f"{path.relative_to(package).as_posix()}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


DIRECTORY = str(cache_directory())


def level(host: str | None = None, features: Mapping[str, bool] | None = None) -> str | None:
    """The best level that this processor has, or one with these features; None if it has none, or if Numba was told to
    compile for another one."""
    told = numba.config.CPU_NAME, numba.config.CPU_FEATURES
    levels = LEVELS.get(host or platform.machine().lower(), {})
    if told != (None, None):
        return told[0] if told[0] in levels and told[1] == "" else None
    has = llvm.get_host_cpu_features() if features is None else features
    return next((name for name, needed in levels.items() if all(has.get(one) for one in needed)), None)


@functools.cache
def _pack() -> Path | None:
    """The folder of the pack for this processor, if the package has one."""
    name = level()
    return PACKS / name if name is not None and (PACKS / name).is_dir() else None


class _Locator(caching._CacheLocator):
    """Points Numba at our folder, whose name already stands for the state of the sources."""

    def __init__(self, function: FunctionType) -> None:
        varies = function.__globals__.get("CODE_VARIES_WITH", "")
        self._place = f"{function.__module__}.{function.__code__.co_firstlineno}{varies}"

    @classmethod
    def from_function(cls, function: FunctionType, _file: str) -> _Locator:
        return cls(function)

    def get_cache_path(self) -> str:
        return DIRECTORY

    def get_source_stamp(self) -> str:
        return Path(DIRECTORY).name

    def get_disambiguator(self) -> str:
        return self._place


class _CacheImpl(caching.CompileResultCacheImpl):
    _locator_classes: ClassVar = [_Locator]


class _Files(caching.IndexDataCacheFile):
    """Code in a file for each key, whose name stands for it, and which ends with a hash of the key and the rest.

    Numba numbers files and keeps an index of them. Two processes that save at once may give the same number to code for
    float32 and to code for float64, and one is then found in the other's place: it answers, but wrongly.
    """

    def save(self, key: Any, data: Any) -> None:
        """Have code found under a key."""
        content = self._dump(data)
        with self._open_for_write(self._place(key)) as file:
            file.write(content + self._hash(key, content))

    def load(self, key: Any) -> Any:
        """The code of a key; None if there is none. Raises ValueError for a file that is not as it was written."""
        place = Path(self._place(key))
        if not place.exists():
            return None
        content, size = place.read_bytes(), hashlib.sha256().digest_size
        if self._hash(key, content[:-size]) != content[-size:]:
            raise ValueError(f"{place} is damaged")
        return self._load_data(place.name)

    def holds(self, key: Any) -> bool:
        """Whether there is a file for a key; whether it is whole shows when it is loaded."""
        return os.path.exists(self._place(key))

    def _place(self, key: Any) -> str:
        name = self._index_name.removesuffix(".nbi")
        return os.path.join(self._cache_path, f"{name}.{self._hash(key).hex()[:16]}.nbc")

    def _hash(self, key: Any, content: bytes = b"") -> bytes:
        return hashlib.sha256(f"{self._source_stamp} {key}".encode() + content).digest()


@functools.cache
def _bring_runtime() -> None:
    """Have what kept code calls of Numba's runtime found by name.

    Numba brings that along with all that it can compile, to load which takes longer than a network's kernels.
    """
    for name, address in _nrt_python.c_helpers.items():
        llvm.add_symbol(name if name.startswith("_") else f"NRT_{name}", address)


class _PackLocator(_Locator):
    def get_cache_path(self) -> str:
        return str(_pack())


class _PackImpl(caching.CompileResultCacheImpl):
    _locator_classes: ClassVar = [_PackLocator]


class _Pack(caching.FunctionCache):
    """What the package brought along for this processor's level; never written to."""

    _impl_class = _PackImpl

    def __init__(self, function: FunctionType) -> None:
        super().__init__(function)
        self._cache_file = _Files(self.cache_path, self._impl.filename_base, self._impl.locator.get_source_stamp())

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        types_, (triple, *_), hashes = super()._index_key(sig, codegen)
        return types_, (triple, level(), ""), hashes


class Cache(caching.FunctionCache):
    """Numba's cache, for which an unreadable or unwritable folder is an empty one.

    link: called with a function's argument types before its code is loaded, for the symbols that this refers to.
    """

    _impl_class = _CacheImpl

    def __init__(self, function: FunctionType, link: Callable[[tuple[types.Type, ...]], None]) -> None:
        super().__init__(function)
        self._cache_file = _Files(self.cache_path, self._impl.filename_base, self._impl.locator.get_source_stamp())
        self._function, self._link = function, link

    @functools.cached_property
    def _pack(self) -> _Pack | None:
        return None if _pack() is None else _Pack(self._function)

    def holds(self, arguments: tuple[types.Type, ...]) -> bool:
        """Whether there is code for these argument types; whether it is whole shows when it is loaded."""
        codegen = cpu_target.target_context.codegen()
        caches: list[_Pack | Cache] = [self] if self._pack is None else [self._pack, self]
        return any(cache._cache_file.holds(cache._index_key(arguments, codegen)) for cache in caches)

    def is_writable(self) -> bool:
        """Whether what is compiled can be kept."""
        with contextlib.suppress(OSError):
            self._impl.locator.ensure_cache_path()
            return True
        return False

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        self._link(getattr(sig, "args", sig))
        _bring_runtime()
        for cache in (self._pack, self):
            with contextlib.suppress(Exception):  # a torn file, or one of a numba that pickles otherwise
                if cache is not None and (found := cache._load_overload(sig, target_context)) is not None:
                    return found
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        with contextlib.suppress(OSError):
            super().save_overload(sig, data)
