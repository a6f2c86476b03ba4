"""Libraries of machine code: one a kernel, optimised once, and the same out of the compiler and out of the cache."""

from __future__ import annotations

from typing import Any

import llvmlite.binding as llvm
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase
from numba.core.compiler_machinery import CompilerPass, PassManager
from numba.core.postproc import PostProcessor
from numba.core.typed_passes import (
    AnnotateTypes,
    IRLegalization,
    NativeLowering,
    NoPythonBackend,
    NopythonTypeInference,
    PreLowerStripPhis,
)
from numba.core.untyped_passes import (
    DeadBranchPrune,
    FixupArgs,
    GenericRewrites,
    IRProcessing,
    ReconstructSSA,
    RewriteSemanticConstants,
    TranslateByteCode,
)

__all__ = ["DisjointPart", "Part", "Whole"]

_SHARED = (llvm.Linkage.linkonce_odr, llvm.Linkage.weak_odr)


class _WholeLibrary(JITCodeLibrary):
    """Code that calls its own copies of what it is linked with.

    A part that several kernels are linked with is a weak symbol in each. A process that has compiled one kernel and
    loaded another from the cache would call one copy from both, and the optimiser may have left the copies different:
    with another product of a sum in a multiply-add.
    """

    def _optimize_final_module(self) -> None:
        super()._optimize_final_module()
        for function in self._final_module.functions:  # not sooner: a private function would be inlined otherwise
            if not function.is_declaration and function.linkage in _SHARED:
                function.linkage = llvm.Linkage.internal


class _PartLibrary(JITCodeLibrary):
    """Code to be linked with, never run where it is: simplified function by function, as without that loops over
    exponentials become no vectors, but not optimised as a whole and not turned into machine code, as Numba would."""

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


_PASSES: tuple[type[CompilerPass], ...] = (
    *(TranslateByteCode, FixupArgs, IRProcessing, RewriteSemanticConstants, DeadBranchPrune, GenericRewrites),
    *(ReconstructSSA, NopythonTypeInference, PreLowerStripPhis, IRLegalization, AnnotateTypes),
    *(NativeLowering, NoPythonBackend),
)
"""Of Numba's some 25, those that our functions need: no closures, no generators, no array expressions."""


class _Passes(PassManager):
    def _runPass(self, index: int, compiler_pass: Any, state: Any) -> None:
        """Without the checks of the passes themselves, which take as long as most of them."""
        compiler_pass.analysis = self._analysis
        if compiler_pass.run_pass(state) and isinstance(compiler_pass, ReconstructSSA):
            PostProcessor(state.func_ir).run()


class Whole(CompilerBase):
    """What is called from Python or by address."""

    library: type[JITCodeLibrary] = _WholeLibrary

    def define_pipelines(self) -> list[Any]:
        """Numba's hook: the passes, and before them where the code goes."""
        self.state.library = self.library(self.state.targetctx.codegen(), self.state.func_id.func_qualname)
        self.state.library.enable_object_caching()
        passes = _Passes("twinkernels")
        for each in _PASSES:
            passes.add_pass(each, each.__name__)
        passes.finalize()
        return [passes]


class Part(Whole):
    """What is linked with that."""

    library = _PartLibrary

    def define_pipelines(self) -> list[Any]:
        """Without an entrance from Python or C."""
        self.state.flags.no_cpython_wrapper = self.state.flags.no_cfunc_wrapper = True
        return super().define_pipelines()


class DisjointPart(Part):
    """`Part` for functions whose arguments share no memory."""

    def define_pipelines(self) -> list[Any]:
        """With a word to the optimiser."""
        self.state.flags.noalias = True
        return super().define_pipelines()
