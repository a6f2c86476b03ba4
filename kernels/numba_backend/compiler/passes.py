"""From a function to LLVM IR: those of Numba's passes that our functions need, without what they do for others.

Two thirds of a cold start are Python, and most of that is Numba. What is left out here is what was measured to cost:
lifetimes of variables computed after each pass, debug information that nobody asked for, references counted to what has
none, and the types of `a + b` looked up anew at each plus.
"""

from __future__ import annotations

import functools
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.compiler_machinery import CompilerPass, PassManager, register_pass
from numba.core.ir_utils import build_definitions
from numba.core.lowering import Lower
from numba.core.rewrites import rewrite_registry
from numba.core.ssa import reconstruct_ssa
from numba.core.transforms import canonicalize_cfg
from numba.core.typed_passes import (
    AnnotateTypes,
    IRLegalization,
    NativeLowering,
    NoPythonBackend,
    NopythonTypeInference,
    PreLowerStripPhis,
)
from numba.core.types.functions import BaseFunction
from numba.core.untyped_passes import (
    DeadBranchPrune,
    FixupArgs,
    GenericRewrites,
    IRProcessing,
    ReconstructSSA,
    RewriteSemanticConstants,
    TranslateByteCode,
)

from .entrance import Entrance

__all__ = ["passes"]


@register_pass(mutates_CFG=True, analysis_only=False)
class _Canonical(IRProcessing):
    def run_pass(self, state: Any) -> bool:
        """Loops in the form that the other passes expect."""
        state.func_ir.blocks = canonicalize_cfg(state.func_ir.blocks)
        return True


@register_pass(mutates_CFG=True, analysis_only=False)
class _Rewrites(GenericRewrites):
    def run_pass(self, state: Any) -> bool:
        """Numba's rewrites, block by block, each until it finds no more."""
        blocks = state.func_ir.blocks
        for kind in rewrite_registry.rewrites["before-inference"]:
            rewrite, left = kind(state), list(blocks.items())
            while left:
                key, block = left.pop()
                if rewrite.match(state.func_ir, block, state.typemap, state.calltypes):
                    blocks[key] = rewrite.apply()
                    left.append((key, blocks[key]))
        return True


@register_pass(mutates_CFG=True, analysis_only=False)
class _SSA(ReconstructSSA):
    def run_pass(self, state: Any) -> bool:
        """One assignment a variable."""
        state.func_ir = reconstruct_ssa(state.func_ir)
        state.func_ir._definitions = build_definitions(state.func_ir.blocks)
        return True


@register_pass(mutates_CFG=True, analysis_only=False)
class _NoPhis(PreLowerStripPhis):
    def run_pass(self, state: Any) -> bool:
        """Phis as assignments again."""
        state.func_ir = self._strip_phi_nodes(state.func_ir)
        state.func_ir._definitions = build_definitions(state.func_ir.blocks)
        return True


class _Lower(Lower):
    """Values without references, which are all but arrays, are neither counted nor cleared when they are done with."""

    def _counted(self, type_: types.Type) -> bool:
        return _has_references(self.context, type_)

    def lower_block(self, block: Any) -> None:
        self.pre_block(block)
        for statement in block.body:
            self.loc = statement.loc
            self.lower_inst(statement)
        self.post_block(block)

    def alloca_lltype(self, name: str, lltype: Any, datamodel: Any = None) -> Any:
        if self._disable_sroa_like_opt:
            return super().alloca_lltype(name, lltype, datamodel)
        return cgutils.alloca_once(self.builder, lltype, name=name, zfill=False)

    def storevar(self, value: Any, name: str, argidx: int | None = None) -> None:
        if self._disable_sroa_like_opt:
            super().storevar(value, name, argidx)
            return
        type_ = self.typeof(name)
        self._alloca_var(name, type_)
        if name in self._singly_assigned_vars:
            self._blk_local_varmap[name] = value
            return
        if argidx is None and self._counted(type_):
            self.decref(type_, self.loadvar(name))
        self.builder.store(value, self.getvar(name))

    def delvar(self, name: str) -> None:
        if self._disable_sroa_like_opt or self._counted(self.typeof(name)):
            super().delvar(name)
        elif name not in self._blk_local_varmap:
            self._singly_assigned_vars.discard(name)  # deleted before it is set, in a loop

    def incref(self, typ: types.Type, val: Any) -> None:
        if self._counted(typ):
            super().incref(typ, val)

    def decref(self, typ: types.Type, val: Any) -> None:
        if self._counted(typ):
            super().decref(typ, val)

    def create_cpython_wrapper(self, release_gil: bool = False) -> None:
        module = self.context.create_module("wrapper")
        kind = self.context.call_conv.get_function_type(self.fndesc.restype, self.fndesc.argtypes)
        function = ir.Function(module, kind, self.fndesc.llvm_func_name)
        Entrance(self.context, module, function, self.fndesc, self.env, self.call_helper, release_gil).build()
        self.library.add_ir_module(module)


@functools.cache
def _has_references(context: Any, type_: types.Type) -> bool:
    return bool(context.data_model_manager[type_].contains_nrt_meminfo())


@register_pass(mutates_CFG=True, analysis_only=False)
class _Lowering(NativeLowering):
    @property
    def lowering_class(self) -> type[Lower]:
        return _Lower


@register_pass(mutates_CFG=True, analysis_only=False)
class _Types(NopythonTypeInference):
    def run_pass(self, state: Any) -> bool:
        """Types of all variables. Under the compiler's lock, for our functions alone: others find Numba as it is."""
        before = BaseFunction.get_call_type
        BaseFunction.get_call_type = _get_call_type  # type: ignore[method-assign]
        try:
            return bool(super().run_pass(state))
        finally:
            BaseFunction.get_call_type = before  # type: ignore[method-assign]


_PASSES: tuple[type[CompilerPass], ...] = (
    *(TranslateByteCode, FixupArgs, _Canonical, RewriteSemanticConstants, DeadBranchPrune, _Rewrites),
    *(_SSA, _Types, _NoPhis, IRLegalization, AnnotateTypes),
    *(_Lowering, NoPythonBackend),
)
"""Of Numba's some 25, those that our functions need: no closures, no generators, no array expressions."""


class _Passes(PassManager):
    def _runPass(self, index: int, compiler_pass: Any, state: Any) -> None:
        """Without the checks of the passes themselves, which take as long as most of them."""
        compiler_pass.analysis = self._analysis
        compiler_pass.run_pass(state)


def passes() -> PassManager:
    """The passes in their order."""
    manager = _Passes("twinkernels")
    for each in _PASSES:
        manager.add_pass(each, each.__name__)
    manager.finalize()
    return manager


# --- Types of calls, looked up once ---------------------------------------------------------------------------------

_call_types: dict[tuple[Any, ...], tuple[Any, Any, Any]] = {}
_look_up = BaseFunction.get_call_type


def _get_call_type(self: Any, context: Any, args: Any, kws: Any) -> Any:
    """`BaseFunction.get_call_type`, whose answer for numbers alone is always the same: an operator asks up to twenty
    templates, each for literals and for numbers."""
    if kws or not all(isinstance(each, types.Number | types.Boolean | types.Literal) for each in args):
        return _look_up(self, context, args, kws)
    key = id(self), id(context), tuple(args)  # a function type's own hash is that of all its templates
    if key not in _call_types:
        _call_types[key] = self, context, _look_up(self, context, args, kws)  # kept, so that no other has its id
    return _call_types[key][2]
