"""Depthwise convolutions: every channel has one filter of its own.

Vectors of channels are multiplied by vectors of weights, which is no contraction: nothing is packed, and a tile holds
some neighbouring positions, so that weights are read once for all of them.
"""

from __future__ import annotations

from typing import NamedTuple

from ...shapes import Conv2dDims
from ..compiler.jit import Flat, inline, separate
from .chunks import load, store
from .correlate import correlation, real_taps
from .filter_gradient import sum_positions
from .gemm import HALF, ONE
from .places import Place, Rows
from .tile import (
    TAPS,
    given,
    lanes,
    tile_add,
    tile_multiply_add,
    tile_multiply_add_taps,
    tile_rows,
    tile_sum,
    tile_vectors,
    tile_where_positive,
    tile_zeros,
)

_CHANNELS = 128  # whose filters a near cache holds while they pass over a row
_BLOCK = 2048  # elements of dy, about, that a near cache holds beside their part of x


class Taps(NamedTuple):
    """The taps that positions meet on both axes: how many, and where the first lies in source and filters; and how far
    the next ones are on either axis."""

    rows: int
    columns: int
    source: int
    filter: int
    source_row: int
    source_column: int
    filter_row: int
    filter_column: int


@inline
def weighted(shape, x, apart, taps, filters, bias, relu, y, column, columns):
    """`columns` channels from `column` on of the tile's positions; y is the first one, and sources are `apart`."""
    whole = columns == tile_vectors(shape) * lanes(y.memory)
    tile = load(shape, bias, column, 0, columns) if given(bias) else tile_zeros(shape, y.memory)
    for i in range(taps.rows):
        xo, wo = taps.source + i * taps.source_row + column, taps.filter + i * taps.filter_row + column
        if whole and taps.columns == TAPS:
            tile = tile_multiply_add_taps(tile, x, xo, apart, taps.source_column, filters, wo, taps.filter_column)
        else:
            for j in range(taps.columns):
                sources = load(shape, x, xo + j * taps.source_column, apart, columns)
                tile = tile_multiply_add(tile, sources, load(shape, filters, wo + j * taps.filter_column, 0, columns))
    if relu:
        tile = tile_where_positive(tile, tile)
    store(shape, tile, y.memory, y.start + column, y.apart, columns)


@inline
def some_channels(shape, x, apart, taps, filters, bias, relu, y, low, channels):
    """`weighted` for _CHANNELS channels from `low` on, or those that are left.

    The last ones take in channels that are done already, where there are enough: masks cost as much as a tile or two.
    """
    step, high = tile_vectors(shape) * lanes(y.memory), min(low + _CHANNELS, channels)
    if channels >= step:
        for column in range(low, high, step):
            weighted(shape, x, apart, taps, filters, bias, relu, y, min(column, high - step), step)
    else:
        weighted(shape, x, apart, taps, filters, bias, relu, y, low, high - low)


@separate
def depthwise_row(
    x: Flat, item: int, d: Conv2dDims, flipped: bool, filters: Flat, bias: Flat, relu: bool, y: Rows
) -> None:
    """`correlate_rows` of a row of a single image with one filter a channel."""
    c = correlation(d, flipped)
    h, w, channels, many = c.h, c.w, d.c, tile_rows(HALF)
    image, row = item // h.outputs, item % h.outputs
    tap_h, source_h, number_h = real_taps(h, row)
    turn, last = (-1, h.taps * w.taps - 1) if flipped else (1, 0)
    for low in range(0, channels, _CHANNELS):
        output = 0
        while output < w.outputs:
            together = w.inner <= output < w.inner_end and max(w.inner, 0) + many <= w.inner_end
            if together:  # the last ones take in positions that are done already: they come out the same again
                output = min(output, w.inner_end - many)
            tap_w, source_w, number_w = real_taps(w, output)
            taps = Taps(
                number_h,
                number_w,
                ((image * h.sources + source_h) * w.sources + source_w) * channels,
                (last + turn * (tap_h * w.taps + tap_w)) * channels,
                h.source_step * w.sources * channels,
                w.source_step * channels,
                turn * h.tap_step * w.taps * channels,
                turn * w.tap_step * channels,
            )
            to = Rows(y.memory, y.start + (item * w.outputs + output) * y.apart, y.apart)
            if together:
                some_channels(HALF, x, w.stride * channels, taps, filters, bias, relu, to, low, channels)
                output += many
            else:
                some_channels(ONE, x, 0, taps, filters, bias, relu, to, low, channels)
                output += 1


@inline
def meeting(tap, stride, pad, dilation, sources, outputs):
    """The first output that meets a source with this tap, and the end of those that do."""
    offset = tap * dilation - pad
    first = max(0, -(offset // stride))
    return first, max(first, min(outputs, (sources - 1 - offset) // stride + 1))


@inline
def add_products(x, dy, d, rows, columns, sums, width):
    """sums[i] += the sum over rows and columns of x[.., i] dy[.., i], for i < width, from these places on."""
    many, few = tile_zeros(HALF, sums.memory), load(ONE, sums.memory, sums.start, 0, width)
    x_step, step = d.stride_w * d.c, tile_rows(HALF)
    together = columns // step * step
    for r in range(rows):
        xr, dr = x.start + r * d.stride_h * d.w * d.c, dy.start + r * d.ow * d.c
        for q in range(0, together, step):
            left = load(HALF, x.memory, xr + q * x_step, x_step, width)
            many = tile_multiply_add(many, left, load(HALF, dy.memory, dr + q * d.c, d.c, width))
        for q in range(together, columns):
            left = load(ONE, x.memory, xr + q * x_step, 0, width)
            few = tile_multiply_add(few, left, load(ONE, dy.memory, dr + q * d.c, 0, width))
    store(ONE, tile_add(few, tile_sum(many)), sums.memory, sums.start, 0, width)


@separate
def sum_depthwise_chunk(
    x: Flat, dy: Flat, d: Conv2dDims, first: int, end: int, sums_wanted: bool, chunk: Place
) -> None:
    """`sum_chunk` with one filter a channel."""
    sums, scratch, vectors = d.kh * d.kw * d.c, chunk.memory, 2 * lanes(chunk.memory)
    for i in range(chunk.start, chunk.start + sums):
        scratch[i] = 0
    whole, block = d.c // vectors * vectors, max(1, _BLOCK // (d.ow * d.c))
    for image in range(first, end):
        for top in range(0, d.oh, block):
            for i in range(d.kh):
                low, high = meeting(i, d.stride_h, d.pad_h, d.dilation_h, d.h, d.oh)
                low, high = max(low, top), min(high, top + block)
                ih = low * d.stride_h - d.pad_h + i * d.dilation_h
                for j in range(d.kw):
                    left, right = meeting(j, d.stride_w, d.pad_w, d.dilation_w, d.w, d.ow)
                    iw = left * d.stride_w - d.pad_w + j * d.dilation_w
                    xo = ((image * d.h + ih) * d.w + iw) * d.c
                    do = ((image * d.oh + low) * d.ow + left) * d.c
                    at, rows, columns = chunk.start + (i * d.kw + j) * d.c, high - low, right - left
                    for k in range(0, whole, vectors):
                        to = Place(scratch, at + k)
                        add_products(Place(x, xo + k), Place(dy, do + k), d, rows, columns, to, vectors)
                    if whole < d.c:
                        k = whole
                        to = Place(scratch, at + k)
                        add_products(Place(x, xo + k), Place(dy, do + k), d, rows, columns, to, d.c - k)
    if sums_wanted:
        image = d.oh * d.ow * d.c
        sum_positions(Rows(dy, first * image, d.c), (end - first) * d.oh * d.ow, Place(scratch, chunk.start + sums))
