"""The register tile: a small matrix that compiled kernels keep in vector registers. LLVM IR is here and in `program`.

LLVM leaves the accumulators of a plain loop nest in memory, which costs a factor of twenty. A `Tile` is a value that
it cannot put there: `shape.rows` by `shape.vectors` hardware vectors of float32 or float64, each vector of as many
lanes as the processor has that Numba compiles for. Kernels loop over the one operation that does the work::

    tile = tile_zeros(shape, y)
    for k in range(n):
        tile = tile_fma(tile, a, ao + k, row_stride, 0, b, bo + k * m)    # tile[r, :] += a[...] * b[...]
    tile_store(tile, y, yo, y_stride)

Arrays are C-contiguous, of the tile's dtype and of any number of axes; offsets and strides count elements of their
flat memory and nothing is checked. Each function's NumPy body is its definition, and what runs under
NUMBA_DISABLE_JIT=1; below it stands the same thing as LLVM IR.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils, config, datamodel
from numba.core.codegen import get_host_cpu_features
from numba.core.imputils import lower_constant
from numba.extending import lower_builtin, models, register_model, type_callable, typeof_impl

from ...numpy_backend.precision import round_to_bfloat16

# --- The processor --------------------------------------------------------------------------------------------------


def _assembly(probe: str) -> str:
    """What the compiler makes of LLVM IR; it knows every CPU's name."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    name = config.CPU_NAME or llvm.get_host_cpu_name()
    features = get_host_cpu_features() if config.CPU_FEATURES is None else config.CPU_FEATURES
    machine = llvm.Target.from_default_triple().create_target_machine(cpu=name, features=features)
    return str(machine.emit_assembly(llvm.parse_assembly(probe)))


def _vector_unit() -> tuple[int, int]:
    """Bytes of a vector register and number of registers."""
    assembly = _assembly(
        "define <16 x float> @f(<16 x float> %x) {\n  %y = fadd <16 x float> %x, %x\n  ret <16 x float> %y\n}"
    )
    if "%zmm" in assembly:
        return 64, 32
    if "%ymm" in assembly:
        return 32, 16
    return 16, 16 if "%xmm" in assembly else 32


VECTOR_BYTES, REGISTERS = _vector_unit()

LANES = (VECTOR_BYTES // 4, VECTOR_BYTES // 8)
"""Elements of a vector of float32, and of float64."""


UNITS = ("amx", "avx512")
"""What multiplies bfloat16 numbers: the tiles of AMX-BF16 (`amx`), or vdpbf16ps of AVX512_BF16 (`avx512`)."""


def _bfloat16_unit() -> str:
    """The unit that TWINKERNELS_BFLOAT16 names, if the processor has it; the matrix unit unless told. Intel's vdpbf16ps
    is as fast as its multiply-add of float32, and no figure speaks for it on other processors yet."""
    asked = os.environ.get("TWINKERNELS_BFLOAT16", "amx")
    has = {"amx": _has_amx, "avx512": _has_vdpbf16ps}
    return asked if asked in has and has[asked]() else ""


def _knows_bfloat16() -> bool:
    """Whether vectors are AVX-512's, and the compiler is one for which the instructions have today's types."""
    return platform.machine().lower() in ("x86_64", "amd64") and VECTOR_BYTES == 64 and llvm.llvm_version_info[0] >= 20


def _has_vdpbf16ps() -> bool:
    """Whether the processor that code is for has AVX512_BF16."""
    if not _knows_bfloat16():
        return False
    probe = "define <16 x bfloat> @f(<16 x float> %x) {\n  %y = fptrunc <16 x float> %x to <16 x bfloat>\n"
    return "vcvtneps2bf16" in _assembly(probe + "  ret <16 x bfloat> %y\n}")


_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _XTILEDATA = 158, 0x1023, 18


def _has_amx() -> bool:
    """Whether this processor has AMX-BF16, and the kernel lets this process use it: its tiles are 8 KiB of state a
    thread, which Linux grants to those that ask (Documentation/arch/x86/xstate.rst)."""
    own = config.CPU_NAME is None and config.CPU_FEATURES is None and not config.DISABLE_JIT
    features = get_host_cpu_features().split(",") if own else []
    if not {"+amx-tile", "+amx-bf16", "+avx512bf16"} <= set(features) or not _knows_bfloat16():
        return False
    linux = sys.platform.startswith("linux")
    return linux and ctypes.CDLL(None).syscall(_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _XTILEDATA) == 0


BFLOAT16_UNIT = _bfloat16_unit()
"""What multiplies bfloat16 numbers here: one of `UNITS`, or "" where nothing does so faster than float32."""


@dataclass(frozen=True)
class TileShape:
    """Rows, vectors a row, and how many rows make a group: within it rows are one stride apart, groups another.

    With `pairs` what `tile_fma` multiplies are pairs of bfloat16 numbers, each in the place of a float32: the first is
    the lower half of its bits.
    """

    rows: int
    vectors: int
    group: int
    pairs: bool = False


class Tile:
    """The tile as a NumPy array, for plain Python."""

    def __init__(self, shape: TileShape, values: np.ndarray) -> None:
        self.shape = shape
        self.values = values


class ShapeType(types.Type):
    """Numba's type of one particular `TileShape`: it has no value at run time."""

    def __init__(self, shape: TileShape) -> None:
        self.shape = shape
        super().__init__(name=f"{shape}")


class TileType(types.Type):
    """Numba's type of a `Tile`: an LLVM array of vectors, which optimisation turns into registers."""

    def __init__(self, shape: TileShape, dtype: types.Float) -> None:
        self.shape, self.dtype = shape, dtype
        super().__init__(name=f"Tile[{shape}, {dtype}]")

    @property
    def lanes(self) -> int:
        return int(VECTOR_BYTES * 8 // self.dtype.bitwidth)

    @property
    def element(self) -> ir.Type:
        return ir.FloatType() if self.dtype == types.float32 else ir.DoubleType()

    @property
    def vector(self) -> ir.VectorType:
        return ir.VectorType(self.element, self.lanes)


@typeof_impl.register(TileShape)
def _(value: TileShape, context: Any) -> ShapeType:
    return ShapeType(value)


register_model(ShapeType)(models.OpaqueModel)


@lower_constant(ShapeType)
def _(context: Any, builder: ir.IRBuilder, type_: ShapeType, value: TileShape) -> ir.Value:
    return context.get_dummy_value()


@register_model(TileType)
class _TileModel(models.PrimitiveModel):
    def __init__(self, manager: datamodel.DataModelManager, type_: TileType) -> None:
        super().__init__(manager, type_, ir.ArrayType(type_.vector, type_.shape.rows * type_.shape.vectors))


# --- Writing IR -----------------------------------------------------------------------------------------------------


class _BFloat(ir.Type):
    """bfloat16, which llvmlite has no name for."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat)

    def __hash__(self) -> int:
        return hash(_BFloat)


_NEAREST, _SECOND = 3, 2  # the caches as `llvm.prefetch` counts them
LINE_OF_CACHE = 64  # bytes, on nearly all processors


def _fetch(builder: ir.IRBuilder, pointer: ir.Value, cache: int) -> None:
    """Have what lies there brought to a cache, to be read soon; nothing happens where there is no memory."""
    place, word = ir.IntType(8).as_pointer(), ir.IntType(32)
    kind = ir.FunctionType(ir.VoidType(), [place, word, word, word])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    to_read, of_data = 0, 1
    numbers = (ir.Constant(word, number) for number in (to_read, cache, of_data))
    builder.call(function, [builder.bitcast(pointer, place), *numbers])


class _Code:
    """What the operations below share: addresses, loads and stores of vectors, values of tiles."""

    def __init__(self, context: Any, builder: ir.IRBuilder, tile: TileType) -> None:
        self.context, self.builder, self.tile = context, builder, tile
        self.lanes, self.vectors, self.rows = tile.lanes, tile.shape.vectors, tile.shape.rows
        self.align = tile.dtype.bitwidth // 8  # the default, a whole vector, would fault

    def index(self, value: ir.Value | int) -> ir.Value:
        return ir.Constant(ir.IntType(64), value) if isinstance(value, int) else value

    def address(self, array: tuple[types.Type, ir.Value], offset: ir.Value) -> ir.Value:
        type_, value = array
        if isinstance(type_, types.Array):
            value = self.context.make_array(type_)(self.context, self.builder, value).data
        return self.builder.gep(value, [offset])

    def load_scalar(self, pointer: ir.Value) -> ir.Value:
        return self.builder.load(pointer, align=self.align)

    def load(self, pointer: ir.Value) -> ir.Value:
        return self.builder.load(self.builder.bitcast(pointer, self.tile.vector.as_pointer()), align=self.align)

    def load_partial(self, pointer: ir.Value, mask: ir.Value) -> ir.Value:
        vector = ir.VectorType(pointer.type.pointee, self.lanes)
        pointer, zeros = self.builder.bitcast(pointer, vector.as_pointer()), ir.Constant(vector, None)
        return self.call(f"llvm.masked.load.{self.suffix(vector)}.p0", vector, pointer, self.one(vector), mask, zeros)

    def store_partial(self, value: ir.Value, pointer: ir.Value, mask: ir.Value) -> None:
        vector, pointer = value.type, self.builder.bitcast(pointer, value.type.as_pointer())
        name = f"llvm.masked.store.{self.suffix(vector)}.p0"
        self.call(name, ir.VoidType(), value, pointer, self.one(vector), mask)

    def store(self, value: ir.Value, pointer: ir.Value) -> None:
        self.builder.store(value, self.builder.bitcast(pointer, value.type.as_pointer()), align=self.bytes(value.type))

    def shuffle(self, left: ir.Value, right: ir.Value, picks: list[int]) -> ir.Value:
        mask = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), picks)
        return self.builder.shuffle_vector(left, right, mask)

    def splat(self, scalar: ir.Value) -> ir.Value:
        undefined = ir.Constant(ir.VectorType(scalar.type, self.lanes), ir.Undefined)
        first = self.builder.insert_element(undefined, scalar, ir.Constant(ir.IntType(32), 0))
        return self.shuffle(first, undefined, [0] * self.lanes)

    def call(self, intrinsic: str, result: ir.Type, *args: ir.Value) -> ir.Value:
        kind = ir.FunctionType(result, [arg.type for arg in args])
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, kind, intrinsic), args)

    def multiply_add(self, left: ir.Value, right: ir.Value, sum_: ir.Value) -> ir.Value:
        return self.call(f"llvm.fmuladd.{self.suffix(self.tile.vector)}", self.tile.vector, left, right, sum_)

    def opaque(self, pointer: ir.Value) -> ir.Value:
        """The pointer, of which the compiler no longer knows where it comes from.

        Rows that are three apart at most are then addressed within one instruction. LLVM would rather add their
        distance up row by row, and its additions take turns with the multiply-adds: a tenth of the speed.
        """
        return self.builder.asm(ir.FunctionType(pointer.type, [pointer.type]), "", "=r,0", [pointer], False)

    def multiply_add_pairs(self, left: ir.Value, right: ir.Value, sum_: ir.Value) -> ir.Value:
        """`tile_fma` of vectors of pairs."""
        if BFLOAT16_UNIT:
            pairs = ir.VectorType(_BFloat(), 2 * self.lanes)
            left, right = (self.builder.bitcast(value, pairs) for value in (left, right))
            name = f"llvm.x86.avx512bf16.dpbf16ps.{8 * VECTOR_BYTES}"
            return self.call(name, self.tile.vector, sum_, left, right)
        for half in (self.second, self.first):
            sum_ = self.multiply_add(half(left), half(right), sum_)
        return sum_

    def rounded_pairs(self, one: ir.Value, other: ir.Value, order: list[int]) -> ir.Value:
        """Two vectors rounded to bfloat16, their elements in this order, the second vector's behind the first's."""
        if BFLOAT16_UNIT:
            half = ir.VectorType(_BFloat(), self.lanes)
            one, other = (self.builder.fptrunc(vector, half) for vector in (one, other))
            picks = ir.Constant(ir.VectorType(ir.IntType(32), 2 * self.lanes), order)
            return self.builder.bitcast(self.builder.shuffle_vector(one, other, picks), self.tile.vector)
        first, second = (self.shuffle(one, other, picks) for picks in (order[::2], order[1::2]))
        lower = self.builder.lshr(self.rounded_bits(first), self.word(16))
        pairs = self.builder.or_(lower, self.builder.and_(self.rounded_bits(second), self.word(0xFFFF0000)))
        return self.builder.bitcast(pairs, self.tile.vector)

    def rounded_bits(self, vector: ir.Value) -> ir.Value:
        """The bits of float32 numbers, of which the upper half is the bfloat16 number next to each."""
        builder, bits = self.builder, self.builder.bitcast(vector, self.word(0).type)
        last = builder.and_(builder.lshr(bits, self.word(16)), self.word(1))
        rounded = builder.add(bits, builder.add(last, self.word(0x7FFF)))
        number = builder.fcmp_ordered("ord", vector, vector)
        return builder.select(number, rounded, builder.or_(bits, self.word(0x400000)))

    def word(self, value: int) -> ir.Constant:
        """A vector of 32 bits a lane, all the same."""
        return ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), [value] * self.lanes)

    def first(self, pairs: ir.Value) -> ir.Value:
        """The first numbers of pairs, as float32."""
        bits = self.builder.bitcast(pairs, ir.VectorType(ir.IntType(32), self.lanes))
        return self.builder.bitcast(self.builder.shl(bits, ir.Constant(bits.type, [16] * self.lanes)), pairs.type)

    def second(self, pairs: ir.Value) -> ir.Value:
        """The second numbers of pairs, as float32."""
        bits = self.builder.bitcast(pairs, ir.VectorType(ir.IntType(32), self.lanes))
        upper = ir.Constant(bits.type, [0xFFFF0000] * self.lanes)
        return self.builder.bitcast(self.builder.and_(bits, upper), pairs.type)

    def bytes(self, vector: ir.VectorType) -> int:
        """Bytes of one element."""
        return int(vector.element.width // 8 if isinstance(vector.element, ir.IntType) else self.align)

    def one(self, vector: ir.VectorType) -> ir.Value:
        """The alignment of one element, as an argument."""
        return ir.Constant(ir.IntType(32), self.bytes(vector))

    def suffix(self, vector: ir.VectorType) -> str:
        """How intrinsics name the vector's type."""
        return f"v{self.lanes}{'i' if isinstance(vector.element, ir.IntType) else 'f'}{8 * self.bytes(vector)}"

    def mask(self, columns: ir.Value, vector: int) -> ir.Value:
        """Which lanes of a row's `vector` lie before column number `columns`."""
        first = vector * self.lanes
        numbers = ir.Constant(ir.VectorType(columns.type, self.lanes), list(range(first, first + self.lanes)))
        return self.builder.icmp_signed("<", numbers, self.splat(columns))

    def pack(self, vectors: list[ir.Value]) -> ir.Value:
        value = ir.Constant(ir.ArrayType(self.tile.vector, len(vectors)), ir.Undefined)
        for i, vector in enumerate(vectors):
            value = self.builder.insert_value(value, vector, i)
        return value

    def unpack(self, value: ir.Value) -> list[ir.Value]:
        return [self.builder.extract_value(value, i) for i in range(value.type.count)]


def _operation(function: Callable[..., Any], result: Callable[..., types.Type]) -> Callable[..., Any]:
    """Give a function its compiled form: `result(*argument types)` is its type, the decorated function emits IR."""

    @type_callable(function)
    def _typer(context: Any) -> Callable[..., types.Type]:
        return result

    def register(emit: Callable[..., ir.Value]) -> Callable[..., ir.Value]:
        @lower_builtin(function, types.VarArg(types.Any))
        def _lower(context: Any, builder: ir.IRBuilder, signature: Any, values: tuple[ir.Value, ...]) -> ir.Value:
            tiles = [t for t in (signature.return_type, *signature.args) if isinstance(t, TileType)]
            code = _Code(context, builder, tiles[0]) if tiles else None
            args = []
            for type_, value in zip(signature.args, values, strict=True):
                if isinstance(type_, types.Integer):
                    args.append(context.cast(builder, value, type_, types.int64))
                else:
                    args.append((type_, value) if isinstance(type_, types.Array | types.CPointer) else value)
            return emit(code, *args)

        return emit

    return register


def _rows(array: np.ndarray, offset: int, row_stride: int, rows: int, columns: int) -> np.ndarray:
    """View of `rows` by `columns` elements of an array's flat memory."""
    flat = array.reshape(-1)
    step = flat.itemsize
    return np.lib.stride_tricks.as_strided(flat[offset:], (rows, columns), (row_stride * step, step))


# --- Operations -----------------------------------------------------------------------------------------------------


def lanes(array: np.ndarray) -> int:
    """How many elements of the array's dtype a vector holds; a constant to the compiler."""
    return VECTOR_BYTES // array.itemsize


@type_callable(lanes)
def _(context: Any) -> Callable[..., types.Type]:
    return lambda array: types.intp


@lower_builtin(lanes, types.Array)
@lower_builtin(lanes, types.CPointer)
def _(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
    return ir.Constant(ir.IntType(64), VECTOR_BYTES * 8 // signature.args[0].dtype.bitwidth)


def flat(array: np.ndarray) -> np.ndarray:
    """The memory of a contiguous array as one axis; compiled, a pointer without a reference, null if it is empty."""
    return array.reshape(-1)


@type_callable(flat)
def _(context: Any) -> Callable[..., types.Type]:
    return lambda array: types.CPointer(array.dtype)


@lower_builtin(flat, types.Array)
def _(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
    array = context.make_array(signature.args[0])(context, builder, args[0])
    empty = builder.icmp_signed("==", array.nitems, ir.Constant(array.nitems.type, 0))
    return builder.select(empty, ir.Constant(array.data.type, None), array.data)


def reinterpret(number: Any) -> Any:
    """The bits of a float as an integer of its size, or the other way round."""
    kind = number.dtype.kind
    return number.view(f"{'i' if kind == 'f' else 'f'}{number.itemsize}")


_REINTERPRETED = {types.float32: types.int32, types.float64: types.int64}
_REINTERPRETED |= {integer: real for real, integer in _REINTERPRETED.items()}


@type_callable(reinterpret)
def _(context: Any) -> Callable[..., types.Type]:
    return lambda number: _REINTERPRETED[number]


@lower_builtin(reinterpret, types.Number)
def _(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
    return builder.bitcast(args[0], context.get_value_type(signature.return_type))


def given(memory: np.ndarray) -> bool:
    """Whether `flat` memory belongs to an argument that was given, rather than to an empty array."""
    return memory.size > 0


@type_callable(given)
def _(context: Any) -> Callable[..., types.Type]:
    return lambda memory: types.boolean


@lower_builtin(given, types.CPointer)
def _(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
    return builder.icmp_signed("!=", args[0], ir.Constant(args[0].type, None))


def nothing(memory: np.ndarray) -> np.ndarray:
    """`flat` memory of no array, where another's type is asked for."""
    return memory[:0]


@type_callable(nothing)
def _(context: Any) -> Callable[..., types.Type]:
    return lambda memory: memory


@lower_builtin(nothing, types.CPointer)
def _(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
    return ir.Constant(args[0].type, None)


def prefetch(memory: np.ndarray, offset: int) -> None:
    """Ask for the cache line of an element, which need not be there, to be brought to the second cache. Plain Python
    has no such wish."""


@type_callable(prefetch)
def _(context: Any) -> Callable[..., types.Type]:
    return lambda memory, offset: types.void


@lower_builtin(prefetch, types.CPointer, types.Integer)
def _(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
    place = builder.gep(args[0], [context.cast(builder, args[1], signature.args[1], types.int64)])
    _fetch(builder, place, _SECOND)
    return context.get_dummy_value()


def aligned(memory: np.ndarray) -> np.ndarray:
    """`flat` memory from where the first whole vector begins; less than a vector is left out."""
    return memory[-memory.ctypes.data % VECTOR_BYTES // memory.itemsize :]


@type_callable(aligned)
def _(context: Any) -> Callable[..., types.Type]:
    return lambda memory: memory


@lower_builtin(aligned, types.CPointer)
def _(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
    number = ir.IntType(64)
    end = builder.add(builder.ptrtoint(args[0], number), ir.Constant(number, VECTOR_BYTES - 1))
    return builder.inttoptr(builder.and_(end, ir.Constant(number, -VECTOR_BYTES)), args[0].type)


def tile_memory(shape: TileShape, like: np.ndarray) -> np.ndarray:
    """Memory for a tile, in the dtype of `like`, with nothing in it yet; compiled, it is on the stack, and the same
    whenever a function comes by."""
    return np.empty(shape.rows * shape.vectors * lanes(like), like.dtype)


@type_callable(tile_memory)
def _(context: Any) -> Callable[..., types.Type]:
    return lambda shape, like: like


@lower_builtin(tile_memory, ShapeType, types.CPointer)
def _(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
    shape, like = signature.args
    tile = TileType(shape.shape, like.dtype)
    with builder.goto_entry_block():
        memory = builder.alloca(tile.element, shape.shape.rows * shape.shape.vectors * tile.lanes)
    memory.align = VECTOR_BYTES
    return memory


def tile_rows(shape: TileShape) -> int:
    """The shape's number of rows; a constant to the compiler."""
    return shape.rows


@type_callable(tile_rows)
def _(context: Any) -> Callable[..., types.Type]:
    return lambda shape: types.intp


@lower_builtin(tile_rows, ShapeType)
def _(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
    return ir.Constant(ir.IntType(64), signature.args[0].shape.rows)


def tile_vectors(shape: TileShape) -> int:
    """The shape's number of vectors; a constant to the compiler."""
    return shape.vectors


@type_callable(tile_vectors)
def _(context: Any) -> Callable[..., types.Type]:
    return lambda shape: types.intp


@lower_builtin(tile_vectors, ShapeType)
def _(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
    return ir.Constant(ir.IntType(64), signature.args[0].shape.vectors)


def tile_zeros(shape: TileShape, like: np.ndarray) -> Tile:
    """A tile of zeros of the array's dtype."""
    return Tile(shape, np.zeros((shape.rows, shape.vectors * lanes(like)), like.dtype))


@_operation(tile_zeros, lambda shape, like: TileType(shape.shape, like.dtype))
def _(code: _Code, shape: ir.Value, like: Any) -> ir.Value:
    return ir.Constant(ir.ArrayType(code.tile.vector, code.rows * code.vectors), None)


def tile_load(shape: TileShape, array: np.ndarray, offset: int, row_stride: int) -> Tile:
    """tile[r, i] = array[offset + r row_stride + i]; a stride of 0 repeats one row."""
    return Tile(shape, _rows(array, offset, row_stride, shape.rows, shape.vectors * lanes(array)).copy())


@_operation(tile_load, lambda shape, array, offset, row_stride: TileType(shape.shape, array.dtype))
def _(code: _Code, shape: ir.Value, array: Any, offset: ir.Value, row_stride: ir.Value) -> ir.Value:
    pointer, vectors = code.address(array, offset), []
    for row in range(code.rows):
        start = code.builder.gep(pointer, [code.builder.mul(row_stride, code.index(row))])
        vectors += [code.load(code.builder.gep(start, [code.index(v * code.lanes)])) for v in range(code.vectors)]
    return code.pack(vectors)


def tile_load_partial(shape: TileShape, array: np.ndarray, offset: int, row_stride: int, columns: int) -> Tile:
    """`tile_load` of the first `columns` columns, zeros in the others, whose memory is not touched."""
    tile = tile_zeros(shape, array)
    columns = min(columns, tile.values.shape[1])
    tile.values[:, :columns] = _rows(array, offset, row_stride, shape.rows, columns)
    return tile


@_operation(tile_load_partial, lambda shape, array, offset, row_stride, columns: TileType(shape.shape, array.dtype))
def _(code: _Code, shape: Any, array: Any, offset: ir.Value, row_stride: ir.Value, columns: ir.Value) -> ir.Value:
    pointer, vectors = code.address(array, offset), []
    masks = [code.mask(columns, v) for v in range(code.vectors)]
    for row in range(code.rows):
        start = code.builder.gep(pointer, [code.builder.mul(row_stride, code.index(row))])
        for v in range(code.vectors):
            place = code.builder.gep(start, [code.index(v * code.lanes)])
            vectors.append(code.load_partial(place, masks[v]))
    return code.pack(vectors)


def tile_load_ahead(shape: TileShape, array: np.ndarray, offset: int, row_stride: int, ahead: int) -> Tile:
    """`tile_load`, which also has fetched what lies `ahead` elements further, be it beyond the array."""
    return tile_load(shape, array, offset, row_stride)


@_operation(tile_load_ahead, lambda shape, array, offset, row_stride, ahead: TileType(shape.shape, array.dtype))
def _(code: _Code, shape: Any, array: Any, offset: ir.Value, row_stride: ir.Value, ahead: ir.Value) -> ir.Value:
    pointer, vectors = code.address(array, offset), []
    for row in range(code.rows):
        start = code.builder.gep(pointer, [code.builder.mul(row_stride, code.index(row))])
        for v in range(code.vectors):
            place = code.builder.gep(start, [code.index(v * code.lanes)])
            _fetch(code.builder, code.builder.gep(place, [ahead]), _NEAREST)
            vectors.append(code.load(place))
    return code.pack(vectors)


def tile_store(tile: Tile, array: np.ndarray, offset: int, row_stride: int) -> None:
    """array[offset + r row_stride + i] = tile[r, i]."""
    _rows(array, offset, row_stride, *tile.values.shape)[:] = tile.values


@_operation(tile_store, lambda tile, array, offset, row_stride: types.void)
def _(code: _Code, tile: ir.Value, array: Any, offset: ir.Value, row_stride: ir.Value) -> ir.Value:
    pointer = code.address(array, offset)
    for i, vector in enumerate(code.unpack(tile)):
        row, v = divmod(i, code.vectors)
        start = code.builder.gep(pointer, [code.builder.mul(row_stride, code.index(row))])
        code.store(vector, code.builder.gep(start, [code.index(v * code.lanes)]))
    return code.context.get_dummy_value()


def tile_store_partial(tile: Tile, array: np.ndarray, offset: int, row_stride: int, columns: int) -> None:
    """`tile_store` of the first `columns` columns; the memory of the others is not touched."""
    columns = min(columns, tile.values.shape[1])
    _rows(array, offset, row_stride, tile.values.shape[0], columns)[:] = tile.values[:, :columns]


@_operation(tile_store_partial, lambda tile, array, offset, row_stride, columns: types.void)
def _(code: _Code, tile: Any, array: Any, offset: ir.Value, row_stride: ir.Value, columns: ir.Value) -> ir.Value:
    pointer, masks = code.address(array, offset), [code.mask(columns, v) for v in range(code.vectors)]
    for i, vector in enumerate(code.unpack(tile)):
        row, v = divmod(i, code.vectors)
        start = code.builder.gep(pointer, [code.builder.mul(row_stride, code.index(row))])
        place = code.builder.gep(start, [code.index(v * code.lanes)])
        code.store_partial(vector, place, masks[v])
    return code.context.get_dummy_value()


def tile_add_to(tile: Tile, array: np.ndarray, offset: int, row_stride: int, first: int, columns: int) -> None:
    """array[offset + r row_stride + i] += tile[r, i] for r >= first and i < columns.

    What lies at the tile's other places must be nobody else's at the time: zero may be added to it.
    """
    columns = min(columns, tile.values.shape[1])
    _rows(array, offset, row_stride, tile.values.shape[0], columns)[first:] += tile.values[first:, :columns]


@_operation(tile_add_to, lambda tile, array, offset, row_stride, first, columns: types.void)
def _(code: _Code, tile: Any, array: Any, offset: Any, row_stride: Any, first: Any, columns: Any) -> ir.Value:
    builder, pointer, word = code.builder, code.address(array, offset), ir.IntType(32)
    zeros, none, columns = ir.Constant(code.tile.vector, None), ir.Constant(word, 0), builder.trunc(columns, word)
    for i, vector in enumerate(code.unpack(tile)):
        row, v = divmod(i, code.vectors)
        start = builder.gep(pointer, [builder.mul(row_stride, code.index(row))])
        place = builder.gep(start, [code.index(v * code.lanes)])
        wanted = builder.icmp_signed("<=", first, code.index(row))
        mask = code.mask(builder.select(wanted, columns, none), v)
        if VECTOR_BYTES == 64:
            code.store_partial(builder.fadd(code.load_partial(place, mask), vector), place, mask)
        else:  # a store under a mask, even one of ones, takes an AVX2 processor twelve cycles
            code.store(builder.fadd(code.load(place), builder.select(mask, vector, zeros)), place)
    return code.context.get_dummy_value()


def tile_add(tile: Tile, other: Tile) -> Tile:
    """tile + other."""
    return Tile(tile.shape, tile.values + other.values)


@_operation(tile_add, lambda tile, other: tile)
def _(code: _Code, tile: ir.Value, other: ir.Value) -> ir.Value:
    pairs = zip(code.unpack(tile), code.unpack(other), strict=True)
    return code.pack([code.builder.fadd(left, right) for left, right in pairs])


def tile_multiply_add(tile: Tile, left: Tile, right: Tile) -> Tile:
    """tile + left * right, element by element."""
    return Tile(tile.shape, tile.values + left.values * right.values)


@_operation(tile_multiply_add, lambda tile, left, right: tile)
def _(code: _Code, tile: ir.Value, left: ir.Value, right: ir.Value) -> ir.Value:
    triples = zip(code.unpack(left), code.unpack(right), code.unpack(tile), strict=True)
    return code.pack([code.multiply_add(*triple) for triple in triples])


TAPS = 3
"""Of a row of filters, in one `tile_multiply_add_taps`."""


def tile_multiply_add_taps(
    tile: Tile, x: np.ndarray, xo: int, row_stride: int, tap_stride: int, w: np.ndarray, wo: int, filter_stride: int
) -> Tile:
    """`tile_multiply_add` of `TAPS` tiles of x, `tap_stride` apart, and as many rows of w, `filter_stride` apart."""
    for tap in range(TAPS):
        sources = tile_load(tile.shape, x, xo + tap * tap_stride, row_stride)
        tile = tile_multiply_add(tile, sources, tile_load(tile.shape, w, wo + tap * filter_stride, 0))
    return tile


@_operation(tile_multiply_add_taps, lambda tile, x, xo, row_stride, tap_stride, w, wo, filter_stride: tile)
def _(
    code: _Code, tile: Any, x: Any, xo: Any, row_stride: Any, tap_stride: Any, w: Any, wo: Any, filter_stride: Any
) -> ir.Value:
    builder, sums, rows = code.builder, code.unpack(tile), []
    pointer, weights = code.address(x, xo), code.address(w, wo)
    for row in range(code.rows):
        pointer = code.opaque(builder.gep(pointer, [row_stride])) if row else pointer
        rows.append(pointer)
    for tap in range(TAPS):
        first = builder.gep(weights, [builder.mul(filter_stride, code.index(tap))])
        shared = [code.load(builder.gep(first, [code.index(v * code.lanes)])) for v in range(code.vectors)]
        for row, start in enumerate(rows):
            place = builder.gep(start, [builder.mul(tap_stride, code.index(tap))])
            for v in range(code.vectors):
                at, value = row * code.vectors + v, code.load(builder.gep(place, [code.index(v * code.lanes)]))
                sums[at] = code.multiply_add(value, shared[v], sums[at])
    return code.pack(sums)


def tile_sum(tile: Tile) -> Tile:
    """The sum of the tile's rows, as a tile of one row."""
    return Tile(TileShape(1, tile.shape.vectors, 1), tile.values.sum(axis=0, keepdims=True, dtype=tile.values.dtype))


@_operation(tile_sum, lambda tile: TileType(TileShape(1, tile.shape.vectors, 1), tile.dtype))
def _(code: _Code, tile: ir.Value) -> ir.Value:
    vectors = code.unpack(tile)
    while len(vectors) > code.vectors:
        half = len(vectors) // code.vectors // 2 * code.vectors
        sums = [code.builder.fadd(left, right) for left, right in zip(vectors[:half], vectors[half:], strict=False)]
        vectors = sums + vectors[2 * half :]
    return code.pack(vectors)


def tile_transpose(tile: Tile) -> Tile:
    """Rows made columns, of a tile of as many rows as a vector has lanes; another as it is."""
    square = tile.values.shape[0] == tile.values.shape[1]
    return Tile(tile.shape, np.ascontiguousarray(tile.values.T)) if square else tile


@_operation(tile_transpose, lambda tile: tile)
def _(code: _Code, tile: ir.Value) -> ir.Value:
    """Each turn deals row i and row i + half out to one another; after log₂ of the rows, rows are columns."""
    vectors, half = code.unpack(tile), code.lanes // 2
    if len(vectors) != code.lanes:
        return tile
    pairs = [lane for i in range(code.lanes) for lane in (i, code.lanes + i)]
    for _ in range(half.bit_length()):
        vectors = [
            code.shuffle(vectors[i], vectors[half + i], part)
            for i in range(half)
            for part in (pairs[: code.lanes], pairs[code.lanes :])
        ]
    return code.pack(vectors)


def tile_deal(tile: Tile) -> Tile:
    """The elements of a tile's rows in turn, of 2, 4, .. rows of a vector: the first of each, the second of each."""
    return Tile(tile.shape, np.ascontiguousarray(tile.values.T).reshape(tile.values.shape))


@_operation(tile_deal, lambda tile: tile)
def _(code: _Code, tile: ir.Value) -> ir.Value:
    vectors, pairs = code.unpack(tile), [lane for i in range(code.lanes) for lane in (i, code.lanes + i)]
    half = len(vectors) // 2
    for _ in range(half.bit_length()):  # as `tile_transpose`
        vectors = [
            code.shuffle(vectors[i], vectors[half + i], part)
            for i in range(half)
            for part in (pairs[: code.lanes], pairs[code.lanes :])
        ]
    return code.pack(vectors)


def _pairs(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Numbers rounded to bfloat16, two in the place of one: the first is the lower half of its bits."""
    halves = np.empty((2, *first.shape), np.float32)
    for half, values in zip(halves, (first, second), strict=True):
        round_to_bfloat16(values, half)
    lower, upper = halves.view(np.uint32)
    pairs: np.ndarray = (lower >> 16) | (upper & 0xFFFF0000)
    return pairs.view(np.float32)


def tile_pairs(first: Tile, second: Tile) -> Tile:
    """(first[r, i], second[r, i]) as pairs of numbers rounded to bfloat16."""
    return Tile(first.shape, _pairs(first.values, second.values))


@_operation(tile_pairs, lambda first, second: first)
def _(code: _Code, first: ir.Value, second: ir.Value) -> ir.Value:
    order = [lane for i in range(code.lanes) for lane in (i, code.lanes + i)]
    together = zip(code.unpack(first), code.unpack(second), strict=True)
    return code.pack([code.rounded_pairs(one, other, order) for one, other in together])


def tile_pairs_beside(low: Tile, high: Tile) -> Tile:
    """Neighbours as pairs of numbers rounded to bfloat16: (z[r, 2i], z[r, 2i + 1]), z[r] being low[r] and then high[r].

    Tiles of one vector a row.
    """
    z = np.concatenate([low.values, high.values], axis=1)
    return Tile(low.shape, _pairs(z[:, ::2], z[:, 1::2]))


@_operation(tile_pairs_beside, lambda low, high: low)
def _(code: _Code, low: ir.Value, high: ir.Value) -> ir.Value:
    order = list(range(2 * code.lanes))
    together = zip(code.unpack(low), code.unpack(high), strict=True)
    return code.pack([code.rounded_pairs(one, other, order) for one, other in together])


def tile_fma(tile: Tile, a: np.ndarray, ao: int, row_stride: int, group_stride: int, b: np.ndarray, bo: int) -> Tile:
    """tile[r, i] += a[ao + (r % group) row_stride + (r // group) group_stride] * b[bo + i].

    One rounding where the processor has fused multiply-add, two where it has not. Of pairs the product of the second
    numbers is added first, then that of the first, as vdpbf16ps does.
    """
    rows = np.arange(tile.shape.rows)
    factors = a.reshape(-1)[ao + rows % tile.shape.group * row_stride + rows // tile.shape.group * group_stride]
    shared, values = b.reshape(-1)[bo : bo + tile.values.shape[1]], tile.values
    if not tile.shape.pairs:
        return Tile(tile.shape, values + factors[:, None] * shared)
    for half in (1, 0):
        left, right = (pairs.view(np.uint16)[half::2].astype(np.uint32) << 16 for pairs in (factors, shared.copy()))
        values = values + left.view(np.float32)[:, None] * right.view(np.float32)
    return Tile(tile.shape, values)


@_operation(tile_fma, lambda tile, a, ao, row_stride, group_stride, b, bo: tile)
def _(code: _Code, tile: Any, a: Any, ao: Any, row_stride: Any, group_stride: Any, b: Any, bo: Any) -> ir.Value:
    builder, group = code.builder, code.tile.shape.group
    pointer, shared, old, new = code.address(b, bo), [], code.unpack(tile), []
    for v in range(code.vectors):
        shared.append(code.load(builder.gep(pointer, [code.index(v * code.lanes)])))
    pointer = code.address(a, ao)
    for row in range(code.rows):
        place = builder.gep(pointer, [builder.mul(row_stride, code.index(row % group))])
        if row >= group:
            place = builder.gep(place, [builder.mul(group_stride, code.index(row // group))])
        factor = code.splat(code.load_scalar(place))
        multiply_add = code.multiply_add_pairs if code.tile.shape.pairs else code.multiply_add
        for v in range(code.vectors):
            sum_ = old[row * code.vectors + v]
            new.append(multiply_add(factor, shared[v], sum_))
    return code.pack(new)


STEPS = 4
"""Of `tile_fma` in one `tile_fma_steps`."""

AHEAD = 16
"""Rows of a panel that are on their way while one is used: the nearest cache does not hold all of them."""


def tile_fma_steps(tile: Tile, a: np.ndarray, ao: int, row_stride: int, b: np.ndarray, bo: int) -> Tile:
    """`tile_fma` for the next `STEPS` elements of each row of a, and as many rows of b that lie one after the other."""
    for k in range(STEPS):
        tile = tile_fma(tile, a, ao + k, row_stride, 0, b, bo + k * tile.values.shape[1])
    return tile


@_operation(tile_fma_steps, lambda tile, a, ao, row_stride, b, bo: tile)
def _(code: _Code, tile: Any, a: Any, ao: Any, row_stride: Any, b: Any, bo: Any) -> ir.Value:
    builder, sums, pointer, rows = code.builder, code.unpack(tile), code.address(a, ao), []
    for row in range(code.rows):
        if row and row % 3 == 0:
            pointer = code.opaque(builder.gep(pointer, [builder.mul(row_stride, code.index(3))]))
        rows.append(builder.gep(pointer, [builder.mul(row_stride, code.index(row % 3))]))
    pointer, width = code.address(b, bo), code.vectors * code.lanes
    for k in range(STEPS):
        places = [builder.gep(pointer, [code.index(k * width + v * code.lanes)]) for v in range(code.vectors)]
        shared = [code.load(place) for place in places]
        for place in places[:: LINE_OF_CACHE // VECTOR_BYTES or 1]:
            _fetch(builder, builder.gep(place, [code.index(AHEAD * width)]), _NEAREST)
        for row, start in enumerate(rows):
            factor = code.splat(code.load_scalar(builder.gep(start, [code.index(k)])))
            for v in range(code.vectors):
                at = row * code.vectors + v
                sums[at] = code.multiply_add(factor, shared[v], sums[at])
    return code.pack(sums)


def tile_load_transposed(array: np.ndarray, offset: int, row_stride: int, rows: int, columns: int) -> Tile:
    """tile[k, i] = array[offset + i row_stride + k] for i < rows and k < columns, else 0: square, one vector wide.

    Memory outside of these rows and columns is not touched.
    """
    n = lanes(array)
    tile = tile_zeros(TileShape(n, 1, n), array)
    rows, columns = min(rows, n), min(columns, n)
    tile.values[:columns, :rows] = _rows(array, offset, row_stride, rows, columns).T
    return tile


def _square(array: types.Array, offset: Any, row_stride: Any, rows: Any, columns: Any) -> TileType:
    n = VECTOR_BYTES * 8 // array.dtype.bitwidth
    return TileType(TileShape(n, 1, n), array.dtype)


@_operation(tile_load_transposed, _square)
def _(code: _Code, array: Any, offset: Any, row_stride: Any, rows: Any, columns: Any) -> ir.Value:
    builder, pointer, loaded = code.builder, code.address(array, offset), []
    starts = [builder.gep(pointer, [builder.mul(row_stride, code.index(row))]) for row in range(code.lanes)]
    full = builder.and_(*(builder.icmp_signed(">=", size, code.index(code.lanes)) for size in (rows, columns)))
    with builder.if_else(full) as branches:  # masks cost as much as the rest
        for branch, whole in zip(branches, (True, False), strict=True):
            with branch:
                if whole:
                    values = [code.load(start) for start in starts]
                else:
                    inside = [builder.icmp_signed("<", code.index(row), rows) for row in range(code.lanes)]
                    masks = [code.mask(builder.select(each, columns, code.index(0)), 0) for each in inside]
                    values = [code.load_partial(start, mask) for start, mask in zip(starts, masks, strict=True)]
                loaded.append((builder.block, values))
    vectors = []
    for row in range(code.lanes):
        vectors.append(builder.phi(code.tile.vector))
        for block, values in loaded:
            vectors[row].add_incoming(values[row], block)
    half = code.lanes
    while half > 1:  # swap the off-diagonal quarters of ever smaller blocks
        half //= 2
        first = [lane for lane in range(code.lanes) if lane % (2 * half) < half]
        low = [lane if lane in first else lane - half + code.lanes for lane in range(code.lanes)]
        high = [lane + half if lane in first else lane + code.lanes for lane in range(code.lanes)]
        for row in first:
            above, below = vectors[row], vectors[row + half]
            vectors[row], vectors[row + half] = code.shuffle(above, below, low), code.shuffle(above, below, high)
    return code.pack(vectors)


# --- Elementwise ----------------------------------------------------------------------------------------------------


def tile_fill(shape: TileShape, like: np.ndarray, value: float) -> Tile:
    """A tile of one number, in the array's dtype."""
    return Tile(shape, np.full((shape.rows, shape.vectors * lanes(like)), value, like.dtype))


@_operation(tile_fill, lambda shape, like, value: TileType(shape.shape, like.dtype))
def _(code: _Code, shape: ir.Value, like: Any, value: ir.Value) -> ir.Value:
    element = code.tile.element
    if isinstance(value.type, ir.IntType):
        value = code.builder.sitofp(value, element)
    elif value.type != element:
        value = (code.builder.fptrunc if element == ir.FloatType() else code.builder.fpext)(value, element)
    return code.pack([code.splat(value)] * (code.rows * code.vectors))


def tile_subtract(tile: Tile, other: Tile) -> Tile:
    """tile − other."""
    return Tile(tile.shape, tile.values - other.values)


@_operation(tile_subtract, lambda tile, other: tile)
def _(code: _Code, tile: ir.Value, other: ir.Value) -> ir.Value:
    pairs = zip(code.unpack(tile), code.unpack(other), strict=True)
    return code.pack([code.builder.fsub(left, right) for left, right in pairs])


def tile_multiply(tile: Tile, other: Tile) -> Tile:
    """tile * other, element by element."""
    return Tile(tile.shape, tile.values * other.values)


@_operation(tile_multiply, lambda tile, other: tile)
def _(code: _Code, tile: ir.Value, other: ir.Value) -> ir.Value:
    pairs = zip(code.unpack(tile), code.unpack(other), strict=True)
    return code.pack([code.builder.fmul(left, right) for left, right in pairs])


def tile_where_exceeds(value: Tile, best: Tile, yes: Tile, no: Tile) -> Tile:
    """`yes` where a value takes the lead, by being greater than the best or as the first NaN; else `no`."""
    exceeds = ~(value.values <= best.values) & (best.values == best.values)
    return Tile(yes.shape, np.where(exceeds, yes.values, no.values))


@_operation(tile_where_exceeds, lambda value, best, yes, no: yes)
def _(code: _Code, value: ir.Value, best: ir.Value, yes: ir.Value, no: ir.Value) -> ir.Value:
    builder, vectors = code.builder, []
    for challenger, leader, new, old in zip(*(code.unpack(tile) for tile in (value, best, yes, no)), strict=True):
        greater = builder.fcmp_unordered(">", challenger, leader)
        number = builder.fcmp_ordered("ord", leader, leader)
        vectors.append(builder.select(builder.and_(greater, number), new, old))
    return code.pack(vectors)


def tile_where_equal(left: Tile, right: Tile, yes: Tile) -> Tile:
    """`yes` where left == right, else 0."""
    return Tile(yes.shape, np.where(left.values == right.values, yes.values, yes.values.dtype.type(0)))


@_operation(tile_where_equal, lambda left, right, yes: yes)
def _(code: _Code, left: ir.Value, right: ir.Value, yes: ir.Value) -> ir.Value:
    zeros, vectors = ir.Constant(code.tile.vector, None), []
    for first, second, value in zip(*(code.unpack(tile) for tile in (left, right, yes)), strict=True):
        vectors.append(code.builder.select(code.builder.fcmp_ordered("==", first, second), value, zeros))
    return code.pack(vectors)


def tile_where_positive(value: Tile, new: Tile) -> Tile:
    """`new` unless the value is 0 or less, then 0."""
    return Tile(value.shape, np.where(value.values <= 0, value.values.dtype.type(0), new.values))


@_operation(tile_where_positive, lambda value, new: value)
def _(code: _Code, value: ir.Value, new: ir.Value) -> ir.Value:
    builder, zeros, chosen = code.builder, ir.Constant(code.tile.vector, None), []
    for v, n in zip(*map(code.unpack, (value, new)), strict=True):
        chosen.append(builder.select(builder.fcmp_ordered("<=", v, zeros), zeros, n))
    return code.pack(chosen)


def tile_sign(tile: Tile) -> Tile:
    """1 where an element is positive, -1 where it is negative, else 0."""
    return Tile(tile.shape, (tile.values > 0).astype(tile.values.dtype) - (tile.values < 0))


@_operation(tile_sign, lambda tile: tile)
def _(code: _Code, tile: ir.Value) -> ir.Value:
    builder, zeros = code.builder, ir.Constant(code.tile.vector, None)
    one, minus = (code.splat(ir.Constant(code.tile.element, number)) for number in (1, -1))
    signs = []
    for vector in code.unpack(tile):
        negative = builder.select(builder.fcmp_ordered("<", vector, zeros), minus, zeros)
        signs.append(builder.select(builder.fcmp_ordered(">", vector, zeros), one, negative))
    return code.pack(signs)


def tile_load_integers(
    shape: TileShape, like: np.ndarray, array: np.ndarray, offset: int, row_stride: int, columns: int
) -> Tile:
    """`tile_load_partial` of an array of integers, in the dtype of `like`."""
    tile = tile_zeros(shape, like)
    columns = min(columns, tile.values.shape[1])
    tile.values[:, :columns] = _rows(array, offset, row_stride, shape.rows, columns)
    return tile


@_operation(
    tile_load_integers, lambda shape, like, array, offset, row_stride, columns: TileType(shape.shape, like.dtype)
)
def _(code: _Code, shape: Any, like: Any, array: Any, offset: Any, row_stride: Any, columns: Any) -> ir.Value:
    pointer, vectors = code.address(array, offset), []
    masks = [code.mask(columns, v) for v in range(code.vectors)]
    convert = code.builder.sitofp if array[0].dtype.signed else code.builder.uitofp
    for row in range(code.rows):
        start = code.builder.gep(pointer, [code.builder.mul(row_stride, code.index(row))])
        for v in range(code.vectors):
            place = code.builder.gep(start, [code.index(v * code.lanes)])
            vectors.append(convert(code.load_partial(place, masks[v]), code.tile.vector))
    return code.pack(vectors)


def tile_store_integers(tile: Tile, array: np.ndarray, offset: int, row_stride: int, columns: int) -> None:
    """`tile_store_partial` of whole numbers to an array of integers."""
    columns = min(columns, tile.values.shape[1])
    _rows(array, offset, row_stride, tile.values.shape[0], columns)[:] = tile.values[:, :columns]


@_operation(tile_store_integers, lambda tile, array, offset, row_stride, columns: types.void)
def _(code: _Code, tile: Any, array: Any, offset: ir.Value, row_stride: ir.Value, columns: ir.Value) -> ir.Value:
    builder, pointer = code.builder, code.address(array, offset)
    integers = ir.VectorType(pointer.type.pointee, code.lanes)
    convert = builder.fptosi if array[0].dtype.signed else builder.fptoui
    full = builder.icmp_signed(">=", columns, code.index(code.vectors * code.lanes))
    with builder.if_else(full) as branches:  # AMD's narrowing stores are slow under a mask, even one of ones
        for branch, whole in zip(branches, (True, False), strict=True):
            with branch:
                for i, vector in enumerate(code.unpack(tile)):
                    row, v = divmod(i, code.vectors)
                    start = builder.gep(pointer, [builder.mul(row_stride, code.index(row))])
                    place = builder.gep(start, [code.index(v * code.lanes)])
                    if whole:
                        code.store(convert(vector, integers), place)
                    else:
                        code.store_partial(convert(vector, integers), place, code.mask(columns, v))
    return code.context.get_dummy_value()
