"""Libraries of machine code: one a kernel, optimised once, and the same out of the compiler and out of the cache."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import llvmlite.binding as llvm
import numba
from numba.core.codegen import CPUCodegen, JITCodeLibrary
from numba.core.compiler import CompilerBase

from .passes import passes

__all__ = ["DisjointPart", "Linked", "Part", "Straight", "Whole"]

_SHARED = (llvm.Linkage.linkonce_odr, llvm.Linkage.weak_odr)


_OF_A_MODULE = "llvm_module" in inspect.signature(CPUCodegen._function_pass_manager).parameters
"""Whether Numba's simplification is made for a module, as before it took to LLVM's new pass manager."""


def _simplify(module: Any, codegen: Any) -> None:
    """Numba's simplification function by function, without those that are only declared: half of them.

    At level 2: at 3 LLVM copies a loop for each condition that does not change in it, and then all the loops within.
    `add_panel` came to 5,400 instructions in place of 3,700, and was no faster.
    """
    level = min(2, int(numba.config.OPT))
    module.data_layout = codegen._data_layout
    defined = [function for function in module.functions if not function.is_declaration]
    if _OF_A_MODULE:
        with codegen._function_pass_manager(module, opt=level) as simplification:
            for function in defined:
                simplification.initialize()
                simplification.run(function)
                simplification.finalize()
    else:
        for function in defined:
            simplification, builder = codegen._function_pass_manager(opt=level)
            simplification.run(function, builder)


def _with_theirs(libraries: Iterable[Any]) -> list[Any]:
    """Libraries and those that they are linked with, each once and after all that call it: of what nobody has called
    yet the linker takes nothing."""
    found: dict[Any, None] = {}

    def add(library: Any) -> None:
        if library not in found:
            if isinstance(library, _PartLibrary):
                for each in reversed(library._linking_libraries):
                    add(each)
            found[library] = None

    for library in reversed(list(libraries)):
        add(library)
    return list(reversed(found))


class _WholeLibrary(JITCodeLibrary):
    """Code that calls its own copies of what it is linked with.

    A part that several kernels are linked with is a weak symbol in each. A process that has compiled one kernel and
    loaded another from the cache would call one copy from both, and the optimiser may have left the copies different:
    with another product of a sum in a multiply-add.
    """

    def _optimize_functions(self, module: Any) -> None:
        _simplify(module, self._codegen)

    def finalize(self) -> None:
        """Numba's, linked with all that what this calls is linked with."""
        self._linking_libraries: list[Any] = _with_theirs(self._linking_libraries)
        super().finalize()

    def _optimize_final_module(self) -> None:
        super()._optimize_final_module()
        for function in self._final_module.functions:  # not sooner: a private function would be inlined otherwise
            if not function.is_declaration and function.linkage in _SHARED:
                function.linkage = llvm.Linkage.internal

    def serialize_using_object_code(self) -> tuple[str, str, tuple[bytes, bytes]]:
        """Machine code, and in place of what it was made of, which nothing is linked with, no more than the names in
        it: to read the rest took half of a warm start's time on kernels."""
        names = [f.name for f in self.get_defined_functions() if f.linkage != llvm.Linkage.internal]
        stubs = llvm.parse_assembly("\n".join(f'define void @"{name}"() {{ ret void }}' for name in names))
        return self.name, "object", (self._get_compiled_object(), stubs.as_bitcode())


class Straight(JITCodeLibrary):
    """Code without anything to optimise, such as loads and a call."""

    def _optimize_functions(self, module: Any) -> None:
        """Nothing."""

    def _optimize_final_module(self) -> None:
        """Nothing."""


class _PartLibrary(JITCodeLibrary):
    """Code to be linked with, never run where it is: simplified function by function, as without that loops over
    exponentials become no vectors, but not optimised as a whole and not turned into machine code, as Numba would."""

    def _optimize_functions(self, module: Any) -> None:
        _simplify(module, self._codegen)

    def finalize(self) -> None:
        """Nothing: whoever is linked with this is linked with what it calls."""
        self._finalized = True

    def _get_module_for_linking(self) -> Any:
        for function in self._final_module.functions:
            if not function.is_declaration and function.linkage == llvm.Linkage.external:
                function.linkage = llvm.Linkage.linkonce_odr
        return self._final_module

    def get_pointer_to_function(self, name: str) -> int:
        """No address."""
        return 0

    @property
    def codegen(self) -> Any:
        """What `Context.get_executable` asks to place the environment of a function in memory, where this has none."""
        return self

    def set_env(self, name: str, environment: Any) -> None:
        """Nothing."""


class Whole(CompilerBase):
    """What is called from Python, or by address."""

    library: type[JITCodeLibrary] = _WholeLibrary

    def define_pipelines(self) -> list[Any]:
        """Numba's hook: the passes, and before them where the code goes. Nobody calls it from C."""
        self.state.flags.no_cfunc_wrapper = True
        self.state.library = self.library(self.state.targetctx.codegen(), self.state.func_id.func_qualname)
        self.state.library.enable_object_caching()
        return [passes()]


class Linked(Whole):
    """What other code calls by name."""

    def define_pipelines(self) -> list[Any]:
        """Without an entrance from Python."""
        self.state.flags.no_cpython_wrapper = True
        return super().define_pipelines()


class Part(Linked):
    """What becomes part of other code."""

    library = _PartLibrary


class DisjointPart(Part):
    """`Part` for functions whose arguments share no memory."""

    def define_pipelines(self) -> list[Any]:
        """With a word to the optimiser."""
        self.state.flags.noalias = True
        return super().define_pipelines()
