"""Contractions of bfloat16 numbers, rounded here, in pairs. What each kernel computes: `kernels.interface.Fused`.

A pair takes the place of one float32: what is summed over lies in pairs, and is half as long. A linear layer and a
convolution sum over channels, so that neighbours make a pair of the left factor, and of the right one numbers of
neighbouring rows. The gradient of weights sums over images: pairs are of two images, and 32 images lie side by side as
rows of the left factor. `pairs_times_panel` is all of the arithmetic, by the matrix unit or by vectors.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy import int64

from ..shapes import Conv2dDims, LinearDims
from .compiler.jit import Flat, inline, kernel, prange, separate
from .fused import pool_maxima
from .tiles.amx import amx_begin, amx_end, amx_load, amx_multiply, amx_store, amx_zero, sums_buffer
from .tiles.chunks import load, share, store
from .tiles.correlate import correlation, real_taps
from .tiles.elementary import bfloat16_pair
from .tiles.filter_gradient import CHUNKS, add_chunks, real_outputs
from .tiles.gemm import Loop, Nest, contract, few, panel_count, panel_width
from .tiles.places import Maps, Panel, Part, Place, Rows
from .tiles.tile import (
    BFLOAT16_UNIT,
    REGISTERS,
    VECTOR_BYTES,
    TileShape,
    flat,
    given,
    lanes,
    nothing,
    tile_add,
    tile_load,
    tile_load_transposed,
    tile_multiply,
    tile_pairs,
    tile_pairs_beside,
    tile_rows,
    tile_store,
    tile_transpose,
    tile_vectors,
    tile_where_positive,
    tile_zeros,
)

_LINEAR = [f"linear{name}" for name in ("", "_backward", "_fold", "_folded")]
_CONV2D = [f"conv2d{name}" for name in ("", "_backward", "_fold", "_folded")]
_TAKEN = {"amx": [*_LINEAR, *_CONV2D], "avx512": _LINEAR}
"""The kernels of each unit that are faster than float32's: vectors read rows of images from too many pages."""

__all__: list[str] = []
for _kernel in _TAKEN.get(BFLOAT16_UNIT, []):
    __all__ += [f"{_kernel}_bfloat16", *([] if _kernel.endswith("_fold") else [f"{_kernel}_bfloat16_scratch"])]

CODE_VARIES_WITH = BFLOAT16_UNIT
"""What the machine code of this module depends on, beside the sources and the vectors' length."""

_ONE, _PAIR = TileShape(1, 1, 1), TileShape(1, 2, 1)
_LANES = VECTOR_BYTES // 4
_SQUARE = TileShape(_LANES, 1, _LANES)
_BLOCK = 32  # rows whose sums are in hand, and images side by side
_STEP = 16  # pairs that are multiplied in one go
_ITEMS = 32  # shares, so that they are even


def always() -> bool:
    """These are rare."""
    return True


@inline
def padded_pairs(numbers):
    """Pairs for so many numbers, zeros behind them: a multiple of a step that is as long as can be."""
    pairs = (numbers + 1) // 2
    steps = -(-pairs // _STEP)
    return -(-pairs // steps) * steps


@inline
def step_of(run):
    """The longest step that such a run is a multiple of."""
    step = max(min(run, _STEP), 1)
    while run % step != 0:
        step -= 1
    return step


@inline
def panel_elements(pairs):
    """Elements of a packed panel of so many pairs, with what tiles reach beyond it."""
    return (pairs + _LANES) * 2 * _LANES


# --- Rounding to pairs ----------------------------------------------------------------------------------------------


@separate
def pair_rows(x: Rows, rows: int, columns: int, out: Rows) -> None:
    """out[r, i] = (x[r, 2i], x[r, 2i + 1]), zeros beyond the columns up to the next row of `out`."""
    vector = lanes(x.memory)
    for r in range(rows):
        at, to = x.start + r * x.apart, out.start + r * out.apart
        for i in range(0, out.apart, vector):
            left = columns - 2 * i
            low = load(_ONE, x.memory, at + 2 * i, 0, max(left, 0))
            high = load(_ONE, x.memory, at + 2 * i + vector, 0, max(left - vector, 0))
            store(_ONE, tile_pairs_beside(low, high), out.memory, to + i, 0, out.apart - i)


@separate
def pair_pixels(x: Place, pixels: int, channels: int, out: Place) -> None:
    """The channels of pixels in pairs, `padded_pairs` of them each."""
    vector, pairs = lanes(x.memory), padded_pairs(channels)
    if channels == 2 * pairs:  # pixels go on in one another
        pair_rows(Rows(x.memory, x.start, 0), 1, pixels * channels, Rows(out.memory, out.start, pixels * pairs))
    elif channels == 1:
        for i in range(0, pixels, vector):
            value = load(_ONE, x.memory, x.start + i, 0, pixels - i)
            store(_ONE, tile_pairs(value, tile_zeros(_ONE, x.memory)), out.memory, out.start + i, 0, pixels - i)
    else:
        pair_rows(Rows(x.memory, x.start, channels), pixels, channels, Rows(out.memory, out.start, pairs))


@separate
def pack_pairs(b: Rows, rows: int, columns: int, pairs: int, out: Panel) -> None:
    """out[r, i] = (b[2r, i], b[2r + 1, i]), zeros beyond the rows and columns, up to row number `pairs`."""
    vector = lanes(b.memory)
    for r in range(pairs):
        for i in range(0, out.width, vector):
            at, left = b.start + 2 * r * b.apart + i, max(columns - i, 0)
            first = load(_ONE, b.memory, at, 0, left if 2 * r < rows else 0)
            second = load(_ONE, b.memory, at + b.apart, 0, left if 2 * r + 1 < rows else 0)
            tile_store(tile_pairs(first, second), out.memory, out.start + r * out.width + i, 0)


@separate
def pack_transposed(b: Rows, rows: int, columns: int, pairs: int, out: Panel) -> None:
    """out[r, i] = (b[i, 2r], b[i, 2r + 1]), zeros beyond: `pack_pairs` of the transpose.

    Writes up to a vector's length of rows too many.
    """
    vector = lanes(b.memory)
    for i in range(0, out.width, vector):
        for r in range(0, pairs, vector):
            at, left = b.start + i * b.apart + 2 * r, rows - 2 * r
            if columns - i >= vector and left >= 2 * vector:
                low, high = (
                    tile_load(_SQUARE, b.memory, at, b.apart),
                    tile_load(_SQUARE, b.memory, at + vector, b.apart),
                )
                tile = tile_pairs_beside(low, high)
                tile_store(tile_transpose(tile), out.memory, out.start + r * out.width + i, out.width)
            else:
                for k in range(vector):
                    for j in range(vector):
                        inside = i + j < columns
                        first = b.memory[at + j * b.apart + 2 * k] if inside and 2 * k < left else 0
                        second = b.memory[at + j * b.apart + 2 * k + 1] if inside and 2 * k + 1 < left else 0
                        to = out.start + (r + k) * out.width + i + j
                        out.memory[to] = bfloat16_pair(np.float32(first), np.float32(second))


@separate
def pair_images(x: Rows, images: int, size: int, first: int, end: int, out: Place) -> None:
    """out[p, e] = (x[2p, e], x[2p + 1, e]), for elements `first` to `end` of `size`, zeros beyond the images."""
    vector = lanes(x.memory)
    for p in range(_STEP):
        at, to = x.start + 2 * p * x.apart, out.start + p * size
        for e in range(first, end, vector):
            left = end - e
            one = load(_ONE, x.memory, at + e, 0, left if 2 * p < images else 0)
            other = load(_ONE, x.memory, at + x.apart + e, 0, left if 2 * p + 1 < images else 0)
            store(_ONE, tile_pairs(one, other), out.memory, to + e, 0, left)


@separate
def interleave_pairs(x: Rows, images: int, first: int, end: int, out: Place) -> None:
    """out[e, p] = (x[2p, e], x[2p + 1, e]) for elements `first` to `end`, zeros beyond the images."""
    vector, memory, two = lanes(x.memory), x.memory, 2 * x.apart
    for e in range(first, end, vector):
        for p in range(0, _STEP, vector):
            at, left = x.start + 2 * p * x.apart + e, images - 2 * p
            if end - e >= vector and left >= 2 * vector:
                tile = tile_pairs(tile_load(_SQUARE, memory, at, two), tile_load(_SQUARE, memory, at + x.apart, two))
                tile_store(tile_transpose(tile), out.memory, out.start + e * _STEP + p, _STEP)
            else:
                one = tile_load_transposed(memory, at, two, (left + 1) // 2, end - e)
                other = tile_load_transposed(memory, at + x.apart, two, left // 2, end - e)
                tile_store(tile_pairs(one, other), out.memory, out.start + e * _STEP + p, _STEP)


# --- Products -------------------------------------------------------------------------------------------------------


class Finish(NamedTuple):
    """What becomes of a panel's sums: they go on from bias[column:], or are multiplied by scale[column:] before it
    comes to them; then `added` comes, at the same places as y, each unless it is empty, and 0 for what is negative,
    with `relu`; the first `columns` columns are stored, or, with `more`, added to what is stored."""

    scale: Flat
    bias: Flat
    added: Flat
    column: int
    columns: int
    relu: bool
    more: bool


@inline
def plainly(memory, column, columns):
    """Sums that are stored as they are."""
    none = nothing(memory)
    return Finish(none, none, none, column, columns, False, False)


class Again(NamedTuple):
    """How often a product is repeated, and how far each goes on in the left factor and in y."""

    number: int
    a: int
    y: int


@inline
def first_sums(finish, out):
    """One row of what sums go on from."""
    tile = tile_zeros(_PAIR, out)
    if given(finish.bias) and not given(finish.scale):
        tile = load(_PAIR, finish.bias, finish.column, 0, finish.columns)
    tile_store(tile, out, 0, 0)


@separate
def finish_rows(sums: Flat, rows: int, finish: Finish, y: Rows) -> None:
    """The `Finish` of sums, two vectors a row."""
    apart, columns = 2 * lanes(sums), finish.columns
    for r in range(rows):
        tile, to = tile_load(_PAIR, sums, r * apart, 0), y.start + r * y.apart
        if given(finish.scale):
            tile = tile_multiply(tile, load(_PAIR, finish.scale, finish.column, 0, columns))
            tile = tile_add(tile, load(_PAIR, finish.bias, finish.column, 0, columns))
        if given(finish.added):
            tile = tile_add(tile, load(_PAIR, finish.added, to, 0, columns))
        if finish.more:
            tile = tile_add(tile, load(_PAIR, y.memory, to, 0, columns))
        if finish.relu:
            tile = tile_where_positive(tile, tile)
        store(_PAIR, tile, y.memory, to, 0, columns)


if BFLOAT16_UNIT == "amx":
    _SHORT_NARROW, _SHORT_WIDE = TileShape(1, 1, 1), TileShape(1, 2, 1)
    _TALL_NARROW, _TALL_WIDE = TileShape(2, 1, 2), TileShape(2, 2, 2)

    @inline
    def multiply_tiles(shape, rows, a, b, nest, finish, y, again):
        """`multiply_block` of one number of tiles."""
        outer, inner, run = nest.outer, nest.inner, nest.run
        step, columns = step_of(run.rounds), tile_vectors(shape) * _LANES
        sums, from_ = sums_buffer(y.memory), sums_buffer(y.memory)
        changed = given(finish.scale) or given(finish.added) or finish.relu or finish.more
        straight = not changed and finish.columns >= columns
        first_sums(finish, from_)
        amx_begin(shape, rows, step)
        for time in range(again.number):
            start, to = a.start + time * again.a, y.start + time * again.y
            if given(finish.bias):
                amx_load(shape, from_, 0)
            else:
                amx_zero(shape)
            for o in range(outer.rounds):
                for i in range(inner.rounds):
                    at, bt = start + o * outer.a + i * inner.a, b.start + o * outer.b + i * inner.b
                    for k in range(0, run.rounds, step):
                        amx_multiply(shape, a.memory, at + k, a.apart, b.memory, bt + k * run.b, run.b)
            if straight:
                amx_store(shape, y.memory, to, y.apart)
            else:
                amx_store(shape, sums, 0, int64(_BLOCK))
                finish_rows(sums, rows, finish, Rows(y.memory, to, y.apart))
        amx_end(shape)

    @separate
    def multiply_block(rows: int, a: Rows, b: Panel, nest: Nest, finish: Finish, y: Rows, again: Again) -> None:
        """y[r, :] = `contract` of pairs and its `Finish`, for up to 32 rows, again and again; the run goes on by one in
        `a`. b is two vectors wide, or the finish's columns are those of one."""
        if rows > _BLOCK // 2:
            if finish.columns > _LANES:
                multiply_tiles(_TALL_WIDE, rows, a, b, nest, finish, y, again)
            else:
                multiply_tiles(_TALL_NARROW, rows, a, b, nest, finish, y, again)
        elif finish.columns > _LANES:
            multiply_tiles(_SHORT_WIDE, rows, a, b, nest, finish, y, again)
        else:
            multiply_tiles(_SHORT_NARROW, rows, a, b, nest, finish, y, again)

else:
    _ROWS = 8 if REGISTERS == 32 else 4  # of 16 registers some hold halves of pairs
    _FULL, _SINGLE = TileShape(_ROWS, 2, _ROWS, pairs=True), TileShape(1, 2, 1, pairs=True)

    @separate
    def multiply_block(rows: int, a: Rows, b: Panel, nest: Nest, finish: Finish, y: Rows, again: Again) -> None:
        """y[r, :] = `contract` of pairs and its `Finish`, for up to 32 rows, again and again. b is two vectors wide, or
        the finish's columns are those of one."""
        sums, from_, apart = sums_buffer(y.memory), sums_buffer(y.memory), 2 * lanes(y.memory)
        first_sums(finish, from_)
        for time in range(again.number):
            source, r = Rows(a.memory, a.start + time * again.a, a.apart), 0
            while r < rows:
                if rows - r >= tile_rows(_FULL):
                    tile_store(contract(tile_load(_FULL, from_, 0, 0), r, source, 0, b, nest), sums, r * apart, apart)
                    r += tile_rows(_FULL)
                else:
                    tile_store(contract(tile_load(_SINGLE, from_, 0, 0), r, source, 0, b, nest), sums, r * apart, apart)
                    r += 1
            finish_rows(sums, rows, finish, Rows(y.memory, y.start + time * again.y, y.apart))


@inline
def pairs_times_panel(count, a, b, nest, finish, y):
    """`multiply_block` for r < count."""
    whole = count // _BLOCK
    end = whole * _BLOCK
    if whole > 0:
        multiply_block(int64(_BLOCK), a, b, nest, finish, y, Again(whole, _BLOCK * a.apart, _BLOCK * y.apart))
    if count > end:
        source, to = Rows(a.memory, a.start + end * a.apart, a.apart), Rows(y.memory, y.start + end * y.apart, y.apart)
        multiply_block(count - end, source, b, nest, finish, to, Again(1, 0, 0))


@inline
def groups_of(panels, units):
    """In how many groups panels are shared out beside so many shares of rows."""
    return min(panels, max(1, -(-_ITEMS // units)))


@inline
def rows_shared(n):
    """Shares of n rows."""
    return min(-(-n // _BLOCK), _ITEMS)


@separate
def multiply_rows_of_pairs(item: int, rows: Rows, n: int, packed: Place, columns: int, finish: Finish, y: Rows) -> None:
    """One item of rows_shared(n) · groups: some of the rows, in some panels; pairs of a row lie one after the other."""
    vector, once = lanes(y.memory), Loop(1, 0, 0)
    pairs, panels, shares = rows.apart, panel_count(columns, lanes(y.memory)), rows_shared(n)
    groups = groups_of(panels, shares)
    low, high = share(-(-n // _BLOCK), item // groups, shares)
    low, high = low * _BLOCK, min(high * _BLOCK, n)
    first, end = share(panels, item % groups, groups)
    for p in range(first, end):
        column = p * 2 * vector
        width = panel_width(column, columns, vector)
        panel = Panel(packed.memory, packed.start + p * panel_elements(pairs), width)
        nest = Nest(once, once, Loop(pairs, 1, width))
        own = Finish(finish.scale, finish.bias, finish.added, column, columns - column, finish.relu, finish.more)
        source, to = (
            Rows(rows.memory, rows.start + low * pairs, pairs),
            Rows(y.memory, y.start + low * y.apart + column, y.apart),
        )
        pairs_times_panel(high - low, source, panel, nest, own, to)


# --- Linear ---------------------------------------------------------------------------------------------------------


@inline
def packed_size(k, m):
    """Elements of packed weights."""
    return panel_count(m, _LANES) * panel_elements(padded_pairs(k))


@kernel(optional={"b": 1}, small=always)
def linear_fold_bfloat16(w, b, d, packed, bias):
    vector, pairs, zero = lanes(w), padded_pairs(d.k), np.float32(0)
    for m in range(d.m):
        bias[m] = b[m] if b.size else zero
    for p in range(panel_count(d.m, vector)):
        column, start = p * 2 * vector, p * panel_elements(pairs)
        panel = Panel(flat(packed), start, panel_width(column, d.m, vector))
        pack_pairs(Rows(flat(w), column, d.m), d.k, d.m - column, pairs, panel)


def linear_folded_bfloat16_scratch(d: LinearDims, n: int) -> int:
    """The rows in pairs."""
    return int(n * padded_pairs(d.k)) + _LANES


@kernel(small=lambda x, packed: few(len(x) * packed.size // 8, packed.size // 2))
def linear_folded_bfloat16(x, packed, bias, relu, d, scratch, y):
    n, pairs, none = x.shape[0], padded_pairs(d.k), flat(scratch[:0])
    items = min(n, _ITEMS)
    for item in prange(items):
        low, high = share(n, item, items)
        to = Rows(flat(scratch), low * pairs, pairs)
        pair_rows(Rows(flat(x), low * d.k, d.k), high - low, d.k, to)
    shares = rows_shared(n)
    finish, rows = Finish(none, flat(bias), none, 0, d.m, relu, False), Rows(flat(scratch), 0, pairs)
    for item in prange(shares * groups_of(panel_count(d.m, lanes(y)), shares)):
        multiply_rows_of_pairs(item, rows, n, Place(flat(packed), 0), d.m, finish, Rows(flat(y), 0, d.m))


def linear_bfloat16_scratch(d: LinearDims, n: int) -> int:
    """The rows in pairs, and the weights."""
    return int(n * padded_pairs(d.k) + packed_size(d.k, d.m)) + _LANES


@kernel(optional={"b": 1}, small=lambda x, w: few(len(x) * w.size // 8, w.size))
def linear_bfloat16(x, w, b, d, scratch, y):
    n, pairs, none, vector = x.shape[0], padded_pairs(d.k), flat(scratch[:0]), lanes(y)
    panels, shares, weights = panel_count(d.m, lanes(y)), rows_shared(n), n * pairs + vector
    for p in prange(panels):
        column = p * 2 * vector
        panel = Panel(flat(scratch), weights + p * panel_elements(pairs), panel_width(column, d.m, vector))
        pack_pairs(Rows(flat(w), column, d.m), d.k, d.m - column, pairs, panel)
        low, high = share(n, p, panels)
        to = Rows(flat(scratch), low * pairs, pairs)
        pair_rows(Rows(flat(x), low * d.k, d.k), high - low, d.k, to)
    finish, rows = Finish(none, flat(b), none, 0, d.m, False, False), Rows(flat(scratch), 0, pairs)
    for item in prange(shares * groups_of(panels, shares)):
        multiply_rows_of_pairs(item, rows, n, Place(flat(scratch), weights), d.m, finish, Rows(flat(y), 0, d.m))


class GradientLayout(NamedTuple):
    """Scratch of a gradient: dy in pairs of neighbours, the packed weights, x and dy in pairs of images."""

    weights: int
    x: int
    dy: int
    end: int


@inline
def linear_layout(d, n):
    """The layout for n rows."""
    blocks = -(-n // _BLOCK)
    weights = n * padded_pairs(d.m) + _LANES
    x = weights + packed_size(d.m, d.k)
    dy = x + blocks * d.k * _STEP + _LANES * _STEP
    return GradientLayout(weights, x, dy, dy + blocks * d.m * _STEP + 2 * _LANES)


def linear_backward_bfloat16_scratch(d: LinearDims, n: int) -> int:
    """The operands in pairs."""
    return int(linear_layout(d, n).end)


@kernel(optional={"dx": 2}, small=lambda x, w: few(len(x) * w.size // 4, w.size))
def linear_backward_bfloat16(dy, x, w, d, scratch, dx, dw):
    n, vector, once = x.shape[0], lanes(dw), Loop(1, 0, 0)
    layout, blocks, pairs = linear_layout(d, n), -(-x.shape[0] // _BLOCK), padded_pairs(d.m)
    for block in prange(blocks):
        first = block * _BLOCK
        images = min(_BLOCK, n - first)
        of_dy = Rows(flat(dy), first * d.m, d.m)
        if dx.size:
            pair_rows(of_dy, images, d.m, Rows(flat(scratch), first * pairs, pairs))
        pair_images(of_dy, images, d.m, 0, d.m, Place(flat(scratch), layout.dy + block * d.m * _STEP))
        to = Place(flat(scratch), layout.x + block * d.k * _STEP)
        interleave_pairs(Rows(flat(x), first * d.k, d.k), images, 0, d.k, to)
    panels = panel_count(d.m, vector)
    if dx.size:
        for p in prange(panel_count(d.k, vector)):
            column = p * 2 * vector
            panel = Panel(flat(scratch), layout.weights + p * panel_elements(pairs), panel_width(column, d.k, vector))
            pack_transposed(Rows(flat(w), column * d.m, d.m), d.m, d.k - column, pairs, panel)
        shares, rows = rows_shared(n), Rows(flat(scratch), 0, pairs)
        finish = plainly(flat(dx), 0, d.k)
        for item in prange(shares * groups_of(panel_count(d.k, vector), shares)):
            packed = Place(flat(scratch), layout.weights)
            multiply_rows_of_pairs(item, rows, n, packed, d.k, finish, Rows(flat(dx), 0, d.k))
    units = -(-d.k // _BLOCK)
    for unit in prange(units):
        first = unit * _BLOCK
        rows = Rows(flat(scratch), layout.x + first * _STEP, int64(_STEP))
        for p in range(panels):
            column = p * 2 * vector
            panel = Panel(flat(scratch), layout.dy + column, d.m)
            nest = Nest(Loop(blocks, d.k * _STEP, d.m * _STEP), once, Loop(int64(_STEP), 1, d.m))
            to = Rows(flat(dw), first * d.m + column, d.m)
            pairs_times_panel(min(_BLOCK, d.k - first), rows, panel, nest, plainly(flat(dw), column, d.m - column), to)


# --- Convolutions, of one group -------------------------------------------------------------------------------------


class PairedImages(NamedTuple):
    """What filters slide over: `number` images whose pixels are `pixel` pairs, of which `together` are the rows of a
    product; where that is one image, rows are positions of it."""

    memory: Flat
    start: int
    number: int
    together: int
    pixel: int


@inline
def paired_images(memory, start, n, channels):
    """The n images from `start` on, pixels of so many channels in pairs."""
    together = _BLOCK if n >= _BLOCK // 2 else 1
    return PairedImages(memory, start, n, together, padded_pairs(channels))


@inline
def packed_filters_size(d, flipped):
    """Elements of packed filters."""
    source, output = (d.f, d.c) if flipped else (d.c, d.f)
    return panel_count(output, _LANES) * panel_elements(d.kh * d.kw * padded_pairs(source))


@separate
def pack_filter_panel(w: Flat, d: Conv2dDims, flipped: bool, p: int, packed: Place) -> None:
    """Panel number p of the filters w: [tap][pair of channels][some filters], or `flipped`: [last tap first][pair of
    filters][some channels]."""
    vector, taps = lanes(w), d.kh * d.kw
    source, output = (d.f, d.c) if flipped else (d.c, d.f)
    pairs, column = padded_pairs(source), p * 2 * vector
    width, start = panel_width(column, output, vector), packed.start + p * panel_elements(taps * pairs)
    for tap in range(taps):
        out = Panel(packed.memory, start + tap * pairs * width, width)
        if flipped:
            rows = Rows(w, ((taps - 1 - tap) * d.c + column) * d.f, d.f)
            pack_transposed(rows, d.f, d.c - column, pairs, out)
        else:
            pack_pairs(Rows(w, tap * d.c * d.f + column, d.f), d.c, d.f - column, pairs, out)


@separate
def correlate_pairs(
    x: PairedImages, low: int, high: int, d: Conv2dDims, flipped: bool, packed: Place, finish: Finish, y: Maps
) -> None:
    """`correlate.correlate_rows` of pairs: output rows number `low` to `high`, counted through blocks of images."""
    c, once, vector = correlation(d, flipped), Loop(1, 0, 0), lanes(y.memory)
    h, w, pixel = c.h, c.w, x.pixel
    x_image, size = h.sources * w.sources * pixel, panel_elements(h.taps * w.taps * pixel)
    for item in range(low, high):
        first, row = item // h.outputs * x.together, item % h.outputs
        images = min(x.together, x.number - first)
        tap_h, source_h, number_h = real_taps(h, row)
        for p in range(panel_count(c.output, vector)):
            column = p * 2 * vector
            width = panel_width(column, c.output, vector)
            own = Finish(finish.scale, finish.bias, finish.added, column, c.output - column, finish.relu, finish.more)
            down = Loop(number_h, h.source_step * w.sources * pixel, h.tap_step * w.taps * pixel * width)
            output = 0
            while output < w.outputs:
                tap_w, source_w, number_w = real_taps(w, output)
                alike = w.inner_end - output if w.inner <= output < w.inner_end else 1  # outputs with these same taps
                nest = Nest(
                    down, Loop(number_w, w.source_step * pixel, w.tap_step * pixel * width), Loop(pixel, 1, width)
                )
                if w.tap_step == 1 and w.source_step == 1:  # all real taps of a row lie in one run
                    nest = Nest(down, once, Loop(number_w * pixel, 1, width))
                at = x.start + first * x_image + (source_h * w.sources + source_w) * pixel
                to = y.start + first * y.apart + (row * w.outputs + output) * y.pixel + column
                start = packed.start + p * size + (tap_h * w.taps + tap_w) * pixel * width
                panel, across = Panel(packed.memory, start, width), w.stride * pixel
                if x.together == 1:
                    rows, target = Rows(x.memory, at, across), Rows(y.memory, to, y.pixel)
                    pairs_times_panel(alike, rows, panel, nest, own, target)
                else:
                    rows, target = Rows(x.memory, at, x_image), Rows(y.memory, to, y.apart)
                    multiply_block(images, rows, panel, nest, own, target, Again(alike, across, y.pixel))
                output += alike


@inline
def pair_all_pixels(x, pixels, channels, scratch, start):
    """`pair_pixels` of so many, shared out."""
    items = min(pixels, _ITEMS)
    for item in prange(items):
        low, high = share(pixels, item, items)
        source, to = Place(flat(x), low * channels), Place(flat(scratch), start + low * padded_pairs(channels))
        pair_pixels(source, high - low, channels, to)


def conv2d_bfloat16_scratch(d: Conv2dDims, n: int) -> int:
    """The images in pairs, and the filters."""
    return int(n * d.h * d.w * padded_pairs(d.c) + packed_filters_size(d, False)) + _LANES


@kernel(optional={"b": 1}, small=lambda x, w, d: few(len(x) * d.oh * d.ow * w.size // 8, w.size))
def conv2d_bfloat16(x, w, b, d, scratch, y):
    n, none = x.shape[0], flat(scratch[:0])
    filters = n * d.h * d.w * padded_pairs(d.c) + lanes(y)
    for p in prange(panel_count(d.f, lanes(y))):
        pack_filter_panel(flat(w), d, False, p, Place(flat(scratch), filters))
    pair_all_pixels(x, n * d.h * d.w, d.c, scratch, 0)
    images = paired_images(flat(scratch), 0, n, d.c)
    rows = -(-n // images.together) * d.oh
    items = min(rows, 4 * _ITEMS)
    finish, maps = Finish(none, flat(b), none, 0, d.f, False, False), Maps(flat(y), 0, d.oh * d.ow * d.f, d.f)
    for item in prange(items):
        low, high = share(rows, item, items)
        correlate_pairs(images, low, high, d, False, Place(flat(scratch), filters), finish, maps)


_BAND = 3 << 16  # elements of a band of x and dy in pairs, 768 KiB: a part of a second cache


class Bands(NamedTuple):
    """How the gradient of filters is cut: bands of so many output rows of 32 images, shared out to chunks. Of a chunk's
    scratch the sums of dw come first, then a band of x in pairs of images, then one of dy, then its end."""

    rows: int
    number: int
    chunks: int
    x: int
    dy: int
    end: int


@inline
def bands_of(d, n):
    """The cut for n images."""
    blocks, dy_row, x_row = -(-n // _BLOCK), d.ow * d.f * _STEP, d.w * d.c * _STEP
    rows = max(1, min(_BAND // (dy_row + d.stride_h * x_row), -(-blocks * d.oh // CHUNKS)))
    number = -(-d.oh // rows)
    seen = min(d.h, (rows - 1) * d.stride_h + (d.kh - 1) * d.dilation_h + 1)
    x = (d.kh * d.kw * d.c * d.f + _LANES - 1) // _LANES * _LANES
    dy = x + seen * x_row + _LANES * _STEP
    return Bands(rows, number, min(blocks * number, CHUNKS), x, dy, dy + rows * dy_row + 2 * _LANES)


@inline
def is_joined(d):
    """Whether all taps of a row exist at every output, one beside the other."""
    return d.pad_w == 0 and d.dilation_w == 1 and (d.ow - 1) * d.stride_w + d.kw <= d.w


@separate
def sum_band(x: Rows, dy: Rows, images: int, top: int, bottom: int, d: Conv2dDims, begin: bool, chunk: Place) -> None:
    """Add what output rows `top` to `bottom` of up to 32 images give to a chunk's dw, which begins here if it does."""
    memory, vector, row, bands = chunk.memory, lanes(chunk.memory), d.ow * d.f, bands_of(d, _BLOCK)
    lowest = max(0, top * d.stride_h - d.pad_h)
    highest = min(d.h, (bottom - 1) * d.stride_h - d.pad_h + (d.kh - 1) * d.dilation_h + 1)
    size, at_x = (bottom - top) * row, chunk.start + bands.x
    at_dy = at_x + max(0, highest - lowest) * d.w * d.c * _STEP + _LANES * _STEP
    if highest > lowest:
        of_x = Rows(x.memory, x.start + lowest * d.w * d.c, x.apart)
        interleave_pairs(of_x, images, 0, (highest - lowest) * d.w * d.c, Place(memory, at_x))
    pair_images(Rows(dy.memory, dy.start + top * row, dy.apart), images, size, 0, size, Place(memory, at_dy))
    # Rows of a product are neighbouring channels, or those of a whole row of taps where these see as many positions.
    joined = is_joined(d)
    across, run = (1, d.kw * d.c) if joined else (d.kw, d.c)
    for tap in range(d.kh * across):
        kh, kw = tap // across, tap % across
        before_h, before_w = d.pad_h - kh * d.dilation_h, d.pad_w - kw * d.dilation_w
        upper, lower = real_outputs(d.h, d.stride_h, before_h, top, bottom)
        left, right = real_outputs(d.w, d.stride_w, before_w, 0, d.ow)
        upper, left = min(upper, lower), min(left, right)
        at = ((upper * d.stride_h - before_h - lowest) * d.w + left * d.stride_w - before_w) * d.c
        nest = Nest(
            Loop(lower - upper, d.stride_h * d.w * d.c * _STEP, row),
            Loop(right - left, d.stride_w * d.c * _STEP, d.f),
            Loop(int64(_STEP), 1, size),
        )
        for first in range(0, run, _BLOCK):
            rows = Rows(memory, at_x + (at + first) * _STEP, int64(_STEP))
            for p in range(panel_count(d.f, vector)):
                column = p * 2 * vector
                panel = Panel(memory, at_dy + (upper - top) * row + left * d.f + column, size)
                to = Rows(memory, chunk.start + ((kh * d.kw + kw) * d.c + first) * d.f + column, d.f)
                none = nothing(memory)
                finish = Finish(none, none, none, column, d.f - column, False, not begin)
                multiply_block(min(_BLOCK, run - first), rows, panel, nest, finish, to, Again(1, 0, 0))


class ConvolutionLayout(NamedTuple):
    """Scratch of a convolution's gradients: dy in pairs of channels and the flipped filters, and chunks."""

    filters: int
    chunks: int
    end: int


@inline
def gradient_layout(d, n):
    """The layout for n images."""
    filters = n * d.oh * d.ow * padded_pairs(d.f) + _LANES
    chunks, bands = filters + packed_filters_size(d, True), bands_of(d, n)
    return ConvolutionLayout(filters, chunks, chunks + bands.chunks * bands.end)


def conv2d_backward_bfloat16_scratch(d: Conv2dDims, n: int) -> int:
    """The operands in pairs, and chunks."""
    return int(gradient_layout(d, n).end)


@kernel(optional={"dx": 4}, small=lambda x, w, d: few(len(x) * d.oh * d.ow * w.size // 4, w.size))
def conv2d_backward_bfloat16(dy, x, w, d, scratch, dx, dw):
    n, layout, bands = x.shape[0], gradient_layout(d, x.shape[0]), bands_of(d, x.shape[0])
    x_image, dy_image, units = d.h * d.w * d.c, d.oh * d.ow * d.f, -(-x.shape[0] // _BLOCK) * bands.number
    for i in prange(bands.chunks):
        low, high = share(units, i, bands.chunks)
        chunk = Place(flat(scratch), layout.chunks + i * bands.end)
        for unit in range(low, high):
            first, top = unit // bands.number * _BLOCK, unit % bands.number * bands.rows
            of_x, of_dy = Rows(flat(x), first * x_image, x_image), Rows(flat(dy), first * dy_image, dy_image)
            bottom = min(top + bands.rows, d.oh)
            sum_band(of_x, of_dy, min(_BLOCK, n - first), top, bottom, d, unit == low, chunk)
    if dx.size:
        for p in prange(panel_count(d.c, lanes(dw))):
            pack_filter_panel(flat(w), d, True, p, Place(flat(scratch), layout.filters))
        pair_all_pixels(dy, n * d.oh * d.ow, d.f, scratch, 0)
    images = paired_images(flat(scratch), 0, n, d.f)
    rows = -(-n // images.together) * d.h if dx.size else 0
    items = max(min(rows, 4 * _ITEMS), CHUNKS)
    for item in prange(items):
        first, end = share(dw.size, item, items)
        add_chunks(Place(flat(scratch), layout.chunks), bands.end, bands.chunks, flat(dw), first, end)
        low, high = share(rows, item, items)
        packed, maps = Place(flat(scratch), layout.filters), Maps(flat(dx), 0, x_image, d.c)
        correlate_pairs(images, low, high, d, True, packed, plainly(flat(dx), 0, d.c), maps)


@kernel(optional={"b": 1, "gamma": 1, "beta": 1, "mean": 1, "var": 1}, small=always)
def conv2d_fold_bfloat16(w, b, gamma, beta, mean, var, eps, d, packed, scale, bias):
    for f in range(d.f):
        scale[f], bias[f] = np.float32(1), b[f] if b.size else np.float32(0)
        if gamma.size:
            scale[f] = gamma[f] / np.sqrt(var[f] + eps)
            bias[f] = (bias[f] - mean[f]) * scale[f] + beta[f]
    for p in range(panel_count(d.f, lanes(w))):
        pack_filter_panel(flat(w), d, False, p, Place(flat(packed), 0))


@inline
def buffer_size(d, pool, together):
    """Elements of the rows that one row of windows pools, of so many images."""
    return (together * pool.kh * d.ow * d.f + _LANES - 1) // _LANES * _LANES


def conv2d_folded_bfloat16_scratch(d: Conv2dDims, n: int) -> int:
    """The images in pairs, and the rows of windows that each share has in hand, of windows as high as the image."""
    together = _BLOCK if n >= _BLOCK // 2 else 1
    rows = (together * d.oh * d.ow * d.f + _LANES - 1) // _LANES * _LANES
    return int(n * d.h * d.w * padded_pairs(d.c)) + _LANES + _ITEMS * rows


@kernel(optional={"residual": 4}, small=lambda x, packed, d: few(len(x) * d.oh * d.ow * packed.size // 8, packed.size))
def conv2d_folded_bfloat16(x, packed, scale, bias, residual, relu, pool, d, scratch, y):
    n, pooled = x.shape[0], pool.kh * pool.kw > 1
    pair_all_pixels(x, n * d.h * d.w, d.c, scratch, 0)
    images = paired_images(flat(scratch), 0, n, d.c)
    blocks, finish = -(-n // images.together), Finish(flat(scale), flat(bias), flat(residual), 0, d.f, relu, False)
    units, y_image, row = blocks * pool.oh, pool.oh * pool.ow * d.f, d.ow * d.f
    buffers, z_image = n * d.h * d.w * images.pixel + lanes(y), pool.kh * row
    items = min(units, _ITEMS)
    for item in prange(items):
        low, high = share(units, item, items)
        filters = Place(flat(packed), 0)
        if pooled:
            to = buffers + item * buffer_size(d, pool, images.together)
            for unit in range(low, high):
                first, p = unit // pool.oh * images.together, unit % pool.oh
                begin = unit // pool.oh * d.oh + p * pool.kh
                origin = to - first * z_image - p * z_image  # where row 0 of image 0 would be
                maps = Maps(flat(scratch), origin, z_image, d.f)
                correlate_pairs(images, begin, begin + pool.kh, d, False, filters, finish, maps)
                part = Part(min(images.together, n - first), p, p + 1)
                pool_maxima(Rows(flat(scratch), to, z_image), pool, part, Rows(flat(y), first * y_image, d.f))
        else:
            correlate_pairs(images, low, high, d, False, filters, finish, Maps(flat(y), 0, y_image, d.f))
