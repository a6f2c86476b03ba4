"""The entrance to a kernel from Python: what takes the objects of a call apart.

Numba's own checks each integer of a tuple and cleans up after it, and has an owner made for each array, by whom its
references are counted: of a small kernel that was half of the code. Here an error is looked for once, and arrays have
no owner; those who call hold them.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.callwrapper import PyCallWrapper

__all__ = ["Entrance"]


class Entrance(PyCallWrapper):
    """Numba's wrapper of compiled code for Python, for functions that return nothing."""

    def build_wrapper(self, api: Any, builder: ir.IRBuilder, closure: Any, args: Any, kws: Any) -> None:
        """The dispatcher has found the code by the types of these very objects: numbers and kinds are right."""
        values = [self._value(api, builder, t, api.tuple_getitem(args, i)) for i, t in enumerate(self.fndesc.argtypes)]
        with cgutils.if_unlikely(builder, cgutils.is_not_null(builder, api.err_occurred())):
            builder.ret(api.get_null_object())
        state = api.save_thread()
        # Not inlined, so that a call by address runs the same code.
        status, _ = self.context.call_conv.call_function(
            builder, self.func, self.fndesc.restype, self.fndesc.argtypes, values, attrs=("noinline",)
        )
        api.restore_thread(state)
        with builder.if_then(status.is_ok, likely=True):
            api.return_none()
        self.context.call_conv.raise_error(builder, api, status)
        builder.ret(api.get_null_object())

    def _value(self, api: Any, builder: ir.IRBuilder, type_: types.Type, given: ir.Value) -> ir.Value:
        if isinstance(type_, types.Array):
            array = self.context.make_array(type_)(self.context, builder)
            pointer = builder.bitcast(array._getpointer(), api.voidptr)
            kind = ir.FunctionType(ir.IntType(32), [api.pyobj, api.voidptr])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, "numba_adapt_ndarray"), [given, pointer])
            return array._getvalue()
        if isinstance(type_, types.BaseTuple):
            fields = [self._value(api, builder, t, api.tuple_getitem(given, i)) for i, t in enumerate(type_)]
            return self.context.make_tuple(builder, type_, fields)
        if type_ == types.int64:
            return api.long_as_longlong(given)
        if type_ == types.float64:
            return api.float_as_double(given)
        return api.to_native_value(type_, given).value
