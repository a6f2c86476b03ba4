"""Libraries of machine code: one a kernel, optimised once, and the same out of the compiler and out of the cache."""

from __future__ import annotations

from typing import Any

import llvmlite.binding as llvm
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder

__all__ = ["DisjointPart", "Part", "Whole"]

_SHARED = (llvm.Linkage.linkonce_odr, llvm.Linkage.weak_odr)


class _WholeLibrary(JITCodeLibrary):
    """Code that calls its own copies of what it is linked with.

    A part that several kernels are linked with is a weak symbol in each. A process that has compiled one kernel and
    loaded another from the cache would call one copy from both, and the optimiser may have left the copies different:
    with another product of a sum in a multiply-add.
    """

    def _optimize_functions(self, module: Any) -> None:
        """Nothing: the passes over the whole module, once it is linked, do the same again."""
        module.data_layout = self._codegen._data_layout

    def _optimize_final_module(self) -> None:
        super()._optimize_final_module()
        for function in self._final_module.functions:  # not sooner: a private function would be inlined otherwise
            if not function.is_declaration and function.linkage in _SHARED:
                function.linkage = llvm.Linkage.internal


class _PartLibrary(JITCodeLibrary):
    """Code to be linked with, never run where it is: Numba would optimise it here, turn it into machine code, and
    optimise it again wherever it is linked."""

    def _optimize_functions(self, module: Any) -> None:
        module.data_layout = self._codegen._data_layout

    def _optimize_final_module(self) -> None:
        """Nothing."""

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._finalized = True

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
    """Numba's pipeline, for what is called from Python or by address."""

    def define_pipelines(self) -> list[Any]:
        self.state.library = _WholeLibrary(self.state.targetctx.codegen(), self.state.func_id.func_qualname)
        self.state.library.enable_object_caching()
        return [DefaultPassBuilder.define_nopython_pipeline(self.state)]


class Part(CompilerBase):
    """Numba's pipeline, for what is linked with that."""

    def define_pipelines(self) -> list[Any]:
        self.state.library = _PartLibrary(self.state.targetctx.codegen(), self.state.func_id.func_qualname)
        self.state.flags.no_cpython_wrapper = self.state.flags.no_cfunc_wrapper = True
        return [DefaultPassBuilder.define_nopython_pipeline(self.state)]


class DisjointPart(Part):
    """`Part` for functions whose arguments share no memory."""

    def define_pipelines(self) -> list[Any]:
        self.state.flags.noalias = True
        return super().define_pipelines()
