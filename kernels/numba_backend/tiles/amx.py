"""The processor's matrix unit, AMX-BF16: tiles that it keeps beside the vector registers.

Eight tiles of at most 16 rows of 64 bytes: four sum up, two hold rows of the left factor, two columns of the right
one. Together they multiply up to 32 rows by 32 columns, at most 16 pairs of bfloat16 numbers a step::

    amx_begin(shape, rows, pairs)             # the tiles' sizes: some 300 cycles
    amx_zero(shape)                           # or amx_load
    for k in range(0, n, pairs):
        amx_multiply(shape, a, ao + k, a_stride, b, bo + k * b_stride, b_stride)
    amx_store(shape, y, yo, y_stride)         # y[yo + r y_stride + i] for r < rows and i < 16 or 32
    amx_end(shape)

A shape of one row has up to 16 rows, one of two up to 32 and more than 16; a shape of one vector has 16 columns, one of
two 32. Offsets and strides count elements of float32, which a pair takes the place of. The tiles belong to the thread,
and what is called between begin and end must not use them. Numbers below 2⁻¹²⁶ are zeros to the unit (Intel 64 and
IA-32 Architectures Software Developer's Manual, TDPBF16PS). All but `sums_buffer` exists in compiled code alone, where
`tile.BFLOAT16_UNIT` is "amx".
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import lower_builtin, type_callable

from .tile import TileShape

ROWS = 16
"""Rows of a tile, its columns, and its pairs."""

_LEFT, _RIGHT = 4, 6  # numbers of the factors' tiles, behind the sums
_INT8, _INT64 = ir.IntType(8), ir.IntType(64)


class _Tiles:
    """What the operations share: one instruction, an address, the numbers of tiles."""

    def __init__(self, context: Any, builder: ir.IRBuilder, shape: TileShape) -> None:
        self.context, self.builder = context, builder
        self.rows, self.columns = range(shape.rows), range(shape.vectors)

    def do(self, instruction: str, *operands: ir.Value | int) -> None:
        values = [ir.Constant(_INT8, operand) if isinstance(operand, int) else operand for operand in operands]
        kind = ir.FunctionType(ir.VoidType(), [value.type for value in values])
        function = cgutils.get_or_insert_function(self.builder.module, kind, f"llvm.x86.{instruction}")
        self.builder.call(function, values)

    def address(self, memory: ir.Value, offset: ir.Value, row: int, stride: ir.Value, column: int) -> ir.Value:
        """Of tile number (row, column) of those that begin at an offset, rows being a stride apart."""
        down = self.builder.mul(stride, self.index(row * ROWS))
        offset = self.builder.add(offset, self.builder.add(down, self.index(column * ROWS)))
        return self.builder.bitcast(self.builder.gep(memory, [offset]), _INT8.as_pointer())

    def index(self, value: int) -> ir.Value:
        return ir.Constant(_INT64, value)

    def bytes(self, elements: ir.Value) -> ir.Value:
        return self.builder.mul(elements, self.index(4))

    def sums(self, row: int, column: int) -> int:
        return 2 * row + column


def _operation(function: Callable[..., None]) -> Callable[..., Any]:
    """Give a function of a shape and of arrays and integers its compiled form."""

    @type_callable(function)
    def _typer(context: Any) -> Callable[..., types.Type]:
        def typer(*arguments: types.Type) -> types.Type:
            return types.void

        typer.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
        return typer

    def register(emit: Callable[..., None]) -> Callable[..., None]:
        @lower_builtin(function, types.VarArg(types.Any))
        def _lower(context: Any, builder: ir.IRBuilder, signature: Any, values: tuple[ir.Value, ...]) -> ir.Value:
            integers = [isinstance(type_, types.Integer) for type_ in signature.args[1:]]
            arguments = [
                context.cast(builder, value, type_, types.int64) if integer else value
                for integer, type_, value in zip(integers, signature.args[1:], values[1:], strict=True)
            ]
            emit(_Tiles(context, builder, signature.args[0].shape), *arguments)
            return context.get_dummy_value()

        return emit

    return register


def amx_begin(shape: TileShape, rows: int, pairs: int) -> None:
    """Tiles of so many rows in all and pairs a step."""
    raise NotImplementedError


@_operation(amx_begin)
def _(tiles: _Tiles, rows: ir.Value, pairs: ir.Value) -> None:
    builder, whole = tiles.builder, tiles.index(ROWS)
    first = builder.select(builder.icmp_signed("<", rows, whole), rows, whole)
    second = builder.sub(rows, first)

    def packed(bits: int, *values: ir.Value) -> ir.Value:
        word = tiles.index(0)
        for place, value in enumerate(values):
            word = builder.or_(word, builder.shl(value, tiles.index(bits * place)))
        return word

    # The layout of LDTILECFG's operand: palette 1, bytes of a row of each tile from byte 16 on, its rows from 48 on;
    # both are 0 for a tile that is not there.
    height, width, none = [first, second], tiles.bytes(whole), tiles.index(0)
    bytes_, rows_ = [none] * 8, [none] * 8
    for row in tiles.rows:
        bytes_[_LEFT + row], rows_[_LEFT + row] = tiles.bytes(pairs), height[row]
        for column in tiles.columns:
            bytes_[tiles.sums(row, column)], rows_[tiles.sums(row, column)] = width, height[row]
            bytes_[_RIGHT + column], rows_[_RIGHT + column] = width, pairs
    words = [none] * 8
    words[0] = tiles.index(1)
    words[2], words[3], words[6] = packed(16, *bytes_[:4]), packed(16, *bytes_[4:]), packed(8, *rows_)
    layout = cgutils.alloca_once(builder, ir.ArrayType(_INT64, 8))
    for place, word in enumerate(words):
        builder.store(word, builder.gep(layout, [tiles.index(0), tiles.index(place)]))
    tiles.do("ldtilecfg", builder.bitcast(layout, _INT8.as_pointer()))


def amx_zero(shape: TileShape) -> None:
    """sums[r, i] = 0."""
    raise NotImplementedError


@_operation(amx_zero)
def _(tiles: _Tiles) -> None:
    for row in tiles.rows:
        for column in tiles.columns:
            tiles.do("tilezero", tiles.sums(row, column))


def amx_load(shape: TileShape, b: np.ndarray, bo: int) -> None:
    """sums[r, i] = b[bo + i]."""
    raise NotImplementedError


@_operation(amx_load)
def _(tiles: _Tiles, b: Any, bo: Any) -> None:
    none = tiles.index(0)
    for row in tiles.rows:
        for column in tiles.columns:
            tiles.do("tileloadd64", tiles.sums(row, column), tiles.address(b, bo, 0, none, column), none)


def amx_multiply(
    shape: TileShape, a: np.ndarray, ao: int, a_stride: int, b: np.ndarray, bo: int, b_stride: int
) -> None:
    """sums[r, i] += the sum over the step's pairs k of a[ao + r a_stride + k] · b[bo + k b_stride + i]."""
    raise NotImplementedError


@_operation(amx_multiply)
def _(tiles: _Tiles, a: Any, ao: Any, a_stride: Any, b: Any, bo: Any, b_stride: Any) -> None:
    for row in tiles.rows:
        tiles.do("tileloadd64", _LEFT + row, tiles.address(a, ao, row, a_stride, 0), tiles.bytes(a_stride))
        for column in tiles.columns:
            if row == 0:
                right = tiles.address(b, bo, 0, b_stride, column)
                tiles.do("tileloadd64", _RIGHT + column, right, tiles.bytes(b_stride))
            tiles.do("tdpbf16ps", tiles.sums(row, column), _LEFT + row, _RIGHT + column)


def amx_store(shape: TileShape, y: np.ndarray, yo: int, y_stride: int) -> None:
    """y[yo + r y_stride + i] = sums[r, i]."""
    raise NotImplementedError


@_operation(amx_store)
def _(tiles: _Tiles, y: Any, yo: Any, y_stride: Any) -> None:
    for row in tiles.rows:
        for column in tiles.columns:
            place = tiles.address(y, yo, row, y_stride, column)
            tiles.do("tilestored64", tiles.sums(row, column), place, tiles.bytes(y_stride))


def amx_end(shape: TileShape) -> None:
    """The tiles go back to their first state, which costs nothing to keep where threads take turns."""
    raise NotImplementedError


@_operation(amx_end)
def _(tiles: _Tiles) -> None:
    tiles.do("tilerelease")


def sums_buffer(like: np.ndarray) -> np.ndarray:
    """Memory on the stack for 32 by 32 sums."""
    return np.empty(4 * ROWS * ROWS, like.dtype)


@type_callable(sums_buffer)
def _(context: Any) -> Callable[..., types.Type]:
    return lambda like: like


@lower_builtin(sums_buffer, types.CPointer)
def _(context: Any, builder: ir.IRBuilder, signature: Any, values: tuple[ir.Value, ...]) -> ir.Value:
    memory = cgutils.alloca_once(builder, ir.ArrayType(values[0].type.pointee, 4 * ROWS * ROWS))
    memory.align = 64
    return builder.bitcast(memory, values[0].type)
