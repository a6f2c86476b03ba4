"""Libraries of machine code that are the same, bit for bit, out of the compiler and out of the cache."""

from __future__ import annotations

from typing import Any

import llvmlite.binding as llvm
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder

__all__ = ["WholePipeline"]

_SHARED = (llvm.Linkage.linkonce_odr, llvm.Linkage.weak_odr)


class _Library(JITCodeLibrary):
    """Code that calls its own copies of what it is linked with.

    Numba compiles the body of a ``prange`` loop as a library of its own and links a copy into the kernel's, where it is
    optimised again. Both are weak symbols: a process that had compiled called the first; one that had loaded, from the
    cache that keeps only the kernel's, called the second. They differed where the optimiser had chosen another product
    for a multiply-add.
    """

    def _optimize_final_module(self) -> None:
        super()._optimize_final_module()
        for function in self._final_module.functions:  # not sooner: a private function would be inlined otherwise
            if not function.is_declaration and function.linkage in _SHARED:
                function.linkage = llvm.Linkage.internal


class WholePipeline(CompilerBase):
    """Numba's pipeline, into such a library."""

    def define_pipelines(self) -> list[Any]:
        codegen = self.state.targetctx.codegen()
        self.state.library = _Library(codegen, self.state.func_id.func_qualname)
        self.state.library.enable_object_caching()
        return [DefaultPassBuilder.define_nopython_pipeline(self.state)]
