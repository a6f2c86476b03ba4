"""The disk cache: machine code that every later process loads.

A file ends with the hash of the rest, without which nothing of it is loaded: what the disk has damaged can do anything.
Numba's own key sees a function but not its helpers or the tile's code, so the folder's name carries a hash of every
source that can change the machine code. A folder that cannot be written or read means compiling again, never an error.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType
from typing import Any, ClassVar

import llvmlite
import numba
import platformdirs
from numba import types
from numba.core import caching
from numba.core.registry import cpu_target

__all__ = ["DIRECTORY", "Cache", "cache_directory"]


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
    digest = hashlib.sha256(f"{numba.__version__} {llvmlite.__version__} {settings}".encode())
    for path in sorted(package.rglob("*.py")):
        with contextlib.suppress(OSError):
            digest.update(f"{path.relative_to(package).as_posix()}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


DIRECTORY = str(cache_directory())


class _Locator(caching._CacheLocator):
    """Points Numba at our folder, whose name already stands for the state of the sources."""

    def __init__(self, function: FunctionType) -> None:
        self._place = f"{function.__module__}.{function.__code__.co_firstlineno}"

    @classmethod
    def from_function(cls, function: FunctionType, _file: str) -> _Locator:
        return cls(function)

    def get_cache_path(self) -> str:
        return DIRECTORY

    def get_source_stamp(self) -> str:
        return DIRECTORY

    def get_disambiguator(self) -> str:
        return self._place


class _CacheImpl(caching.CompileResultCacheImpl):
    _locator_classes: ClassVar = [_Locator]


class _Files(caching.IndexDataCacheFile):
    """An index and the code it lists, in files that end with a hash of what comes before."""

    def _load_index(self) -> Any:
        with contextlib.suppress(FileNotFoundError):
            _check(self._index_path)
        return super()._load_index()

    def _load_data(self, name: str) -> Any:
        _check(self._data_path(name))
        return super()._load_data(name)

    @contextlib.contextmanager
    def _open_for_write(self, path: str) -> Iterator[io.BytesIO]:
        with super()._open_for_write(path) as file:
            content = io.BytesIO()
            yield content
            file.write(content.getvalue() + _hash(content.getvalue()))


def _hash(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def _check(path: str) -> None:
    """Raise ValueError for a file that is not as it was written."""
    content = Path(path).read_bytes()
    size = len(_hash(b""))
    if _hash(content[:-size]) != content[-size:]:
        raise ValueError(f"{path} is damaged")


class Cache(caching.FunctionCache):
    """Numba's cache, for which an unreadable or unwritable folder is an empty one.

    link: called with a function's argument types before its code is loaded, for the symbols that this refers to.
    """

    _impl_class = _CacheImpl

    def __init__(self, function: FunctionType, link: Callable[[tuple[types.Type, ...]], None]) -> None:
        super().__init__(function)
        self._cache_file = _Files(self.cache_path, self._impl.filename_base, self._impl.locator.get_source_stamp())
        self._link = link

    def holds(self, arguments: tuple[types.Type, ...]) -> bool:
        """Whether code for these argument types is listed; whether it is whole shows when it is loaded."""
        with contextlib.suppress(Exception):
            return self._index_key(arguments, cpu_target.target_context.codegen()) in self._cache_file._load_index()
        return False

    def is_writable(self) -> bool:
        """Whether what is compiled can be kept."""
        with contextlib.suppress(OSError):
            self._impl.locator.ensure_cache_path()
            return True
        return False

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        self._link(getattr(sig, "args", sig))
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # a torn file raises whatever unpickling happens to meet
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        with contextlib.suppress(OSError):
            try:
                super().save_overload(sig, data)
            except OSError:
                raise
            except Exception:  # a torn index: begin it anew
                self.flush()
                super().save_overload(sig, data)
