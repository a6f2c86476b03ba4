"""Sums and factors by channel, over arrays of any number of channels.

Arrays are taken flat, and what belongs to a channel is repeated over a period, at least as long as a few vectors. A
strip is what a few registers hold of a period: a pass goes down the array strip by strip, with sums or factors in
registers. Sums are taken in chunks, by place in the period, folded to channels, and joined in float64 (Chan, Golub and
LeVeque 1983).
"""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import numpy as np

from ..compiler.jit import Flat, inline, separate
from .chunks import load, store
from .tile import (
    REGISTERS,
    VECTOR_BYTES,
    TileShape,
    given,
    lanes,
    tile_add,
    tile_multiply,
    tile_multiply_add,
    tile_subtract,
    tile_vectors,
    tile_where_positive,
)

# Four values a channel, for the gradient, fill half the registers.
STRIP, REST = TileShape(1, REGISTERS // 8, 1), TileShape(1, 1, 1)

WIDTH = REGISTERS // 8 * VECTOR_BYTES // 4
"""Elements of a strip of float32."""

SAMPLE = 512
"""Elements, about, whose mean stands for a chunk's; of eight positions at least."""

LEFT = 1 / 16
"""The least share of a sum of squares that may be left when the square of the sum is taken from it: four bits go."""


@cache
def period(channels: int) -> int:
    """A multiple of the channels: whole vectors that fill a strip; the channels alone if that would be far too long."""
    vectors = math.lcm(channels, VECTOR_BYTES // 4)
    return channels if vectors > 16 * WIDTH else -(-WIDTH // vectors) * vectors


@cache
def span(size: int, channels: int) -> int:
    """Elements of a chunk: whole periods, so many that it pays to fold them, and that there are few chunks to join."""
    periods = max(32, min(max(size // 32, 1 << 14), 1 << 16) // period(channels))
    return periods * period(channels)


def parts(size: int, channels: int) -> int:
    """The number of chunks."""
    return -(-size // span(size, channels))


@inline
def by_strip(work, start, stop, period, like, arguments):
    """work(shape, first, columns, places, *arguments) for the strips of start <= i < stop, which is whole positions.

    A strip is `columns` wide, begins at `first` of a period, and at `places` of the array. What it needs is passed as
    `flat` memory: threads that share an array would wait for each other to count its references.
    """
    width = tile_vectors(STRIP) * lanes(like)
    rest, whole = period // width * width, start + (stop - start) // period * period
    for first in range(0, rest, width):
        work(STRIP, first, width, range(start + first, whole, period), *arguments)
    for first in range(rest, period, lanes(like)):
        work(REST, first, period - first, range(start + first, whole, period), *arguments)
    for first in range(0, stop - whole, lanes(like)):
        work(REST, first, stop - whole - first, range(whole + first, stop, period), *arguments)


@inline
def clear(sums, at, size):
    """sums[at : at + size] = 0."""
    for i in range(at, at + size):
        sums[i] = 0


@inline
def fold(sums, at, period, channels):
    """Add the period at `at` up into its first `channels` elements, pairwise."""
    size = period
    while size > channels:
        half = size // channels // 2 * channels
        size -= half
        for i in range(at, at + half):
            sums[i] += sums[i + size]


@inline
def spread(values, at, period, channels):
    """Repeat the first `channels` elements from `at` on over the period."""
    for i in range(at + channels, at + period):
        values[i] = values[i - channels]


@inline
def strip_sums(shape, first, columns, places, x, sums, at):
    total = load(shape, sums, at + first, 0, columns)
    for i in places:
        total = tile_add(total, load(shape, x, i, 0, columns))
    store(shape, total, sums, at + first, 0, columns)


@separate
def add_up(x: Flat, start: int, stop: int, period: int, channels: int, sums: Flat, at: int) -> None:
    """sums[at:][:channels] = Σ x[start:stop]; a period there is written over."""
    clear(sums, at, period)
    by_strip(strip_sums, start, stop, period, x, (x, sums, at))
    fold(sums, at, period, channels)


@inline
def strip_squares(shape, first, columns, places, x, sums, at, squares, shift):
    total, total_squares = load(shape, sums, at + first, 0, columns), load(shape, sums, squares + first, 0, columns)
    shifts = load(shape, sums, shift + first, 0, columns)
    for i in places:
        difference = tile_subtract(load(shape, x, i, 0, columns), shifts)
        total = tile_add(total, difference)
        total_squares = tile_multiply_add(total_squares, difference, difference)
    store(shape, total, sums, at + first, 0, columns)
    store(shape, total_squares, sums, squares + first, 0, columns)


@inline
def add_up_offsets(x, start, stop, period, channels, sums, at):
    """The first two of the periods of `add_up_squares`, by the shifts at the beginning of the third."""
    squares, shift = at + period, at + 2 * period
    spread(sums, shift, period, channels)
    clear(sums, at, 2 * period)
    by_strip(strip_squares, start, stop, period, x, (x, sums, at, squares, shift))
    fold(sums, at, period, channels)
    fold(sums, squares, period, channels)


@separate
def add_up_squares(x: Flat, start: int, stop: int, period: int, channels: int, sums: Flat, at: int) -> None:
    """Three periods from `at` on: Σ (x − shift), Σ (x − shift)² and the shift of each channel, over x[start:stop].

    The shift is the mean over the first periods, which are seldom unlike the rest; then a second pass is saved, which
    costs a quarter of `batchnorm`. Where they are, so that less than LEFT would be left of Σ (x − shift)² and what is
    left would lose its digits, the chunk's own mean takes its place.
    """
    shift = at + 2 * period
    count = (stop - start) // channels
    sample = min(max(SAMPLE // period, -(-8 * channels // period)) * period, stop - start)
    add_up(x, start, start + sample, period, channels, sums, shift)
    for i in range(shift, shift + channels):
        sums[i] /= sample // channels
        if not abs(sums[i]) < np.inf:
            sums[i] = 0
    add_up_offsets(x, start, stop, period, channels, sums, at)
    far = False
    for i in range(at, at + channels):
        offset = sums[i] / count
        if sums[i] * offset > (1 - LEFT) * sums[i + period] and abs(sums[i + 2 * period] + offset) < np.inf:
            sums[i + 2 * period] += offset
            far = True
    if far:
        add_up_offsets(x, start, stop, period, channels, sums, at)


@inline
def strip_products(shape, first, columns, places, dy, x, mean, sums, at, products):
    total, total_products = load(shape, sums, at + first, 0, columns), load(shape, sums, products + first, 0, columns)
    means = load(shape, mean, first, 0, columns)
    for i in places:
        gradient = load(shape, dy, i, 0, columns)
        difference = tile_subtract(load(shape, x, i, 0, columns), means)
        total = tile_add(total, gradient)
        total_products = tile_multiply_add(total_products, gradient, difference)
    store(shape, total, sums, at + first, 0, columns)
    store(shape, total_products, sums, products + first, 0, columns)


@separate
def add_up_products(
    dy: Flat, x: Flat, start: int, stop: int, period: int, channels: int, mean: Flat, sums: Flat, at: int
) -> None:
    """Two periods from `at` on: Σ dy and Σ dy (x − mean) of each channel over start:stop; the mean fills a period."""
    products = at + period
    clear(sums, at, 2 * period)
    by_strip(strip_products, start, stop, period, x, (dy, x, mean, sums, at, products))
    fold(sums, at, period, channels)
    fold(sums, products, period, channels)


@inline
def strip_affine(shape, first, columns, places, x, period, factors, y):
    minus = load(shape, factors, first, 0, columns)
    times = load(shape, factors, period + first, 0, columns)
    plus = load(shape, factors, 2 * period + first, 0, columns)
    for i in places:
        difference = tile_subtract(load(shape, x, i, 0, columns), minus)
        store(shape, tile_multiply_add(plus, difference, times), y, i, 0, columns)


@separate
def affine(x: Flat, start: int, stop: int, period: int, factors: Flat, y: Flat) -> None:
    """y = (x − minus) times + plus over start:stop, the rows of `factors`."""
    by_strip(strip_affine, start, stop, period, x, (x, period, factors, y))


@inline
def strip_affine_relu(shape, first, columns, places, x, period, factors, residual, y):
    minus = load(shape, factors, first, 0, columns)
    times = load(shape, factors, period + first, 0, columns)
    plus = load(shape, factors, 2 * period + first, 0, columns)
    for i in places:
        difference = tile_subtract(load(shape, x, i, 0, columns), minus)
        value = tile_multiply_add(plus, difference, times)
        if given(residual):
            value = tile_add(value, load(shape, residual, i, 0, columns))
        store(shape, tile_where_positive(value, value), y, i, 0, columns)


@separate
def affine_relu(x: Flat, start: int, stop: int, period: int, factors: Flat, residual: Flat, y: Flat) -> None:
    """y = max(0, (x − minus) times + plus + residual) over start:stop, the rows of `factors`."""
    by_strip(strip_affine_relu, start, stop, period, x, (x, period, factors, residual, y))


class PastReLU(NamedTuple):
    """What the gradient past a ReLU is made of: dy, and more unless it is empty, where y is positive. Without y its
    sign is that of (x − mean) times + plus, the first rows of `factors`."""

    dy: Flat
    more: Flat
    x: Flat
    y: Flat
    factors: Flat


@inline
def past_relu(shape, source, i, columns, difference, times, plus):
    """The gradient at place i; `difference` is x − mean there."""
    gradient = load(shape, source.dy, i, 0, columns)
    if given(source.more):
        gradient = tile_add(gradient, load(shape, source.more, i, 0, columns))
    sign = tile_multiply_add(plus, difference, times)
    if given(source.y):
        sign = load(shape, source.y, i, 0, columns)
    return tile_where_positive(sign, gradient)


@inline
def strip_past_relu(shape, first, columns, places, source, period, sums, at, dz):
    total, products = load(shape, sums, at + first, 0, columns), load(shape, sums, at + period + first, 0, columns)
    minus = load(shape, source.factors, first, 0, columns)
    times = load(shape, source.factors, period + first, 0, columns)
    plus = load(shape, source.factors, 2 * period + first, 0, columns)
    for i in places:
        difference = tile_subtract(load(shape, source.x, i, 0, columns), minus)
        gradient = past_relu(shape, source, i, columns, difference, times, plus)
        total, products = tile_add(total, gradient), tile_multiply_add(products, gradient, difference)
        if given(dz):
            store(shape, gradient, dz, i, 0, columns)
    store(shape, total, sums, at + first, 0, columns)
    store(shape, products, sums, at + period + first, 0, columns)


@separate
def add_up_past_relu(
    source: PastReLU, start: int, stop: int, period: int, channels: int, sums: Flat, at: int, dz: Flat
) -> None:
    """dz = the gradient past the ReLU over start:stop, unless dz is empty; and two periods from `at` on: Σ dz and
    Σ dz (x − mean) of each channel."""
    clear(sums, at, 2 * period)
    by_strip(strip_past_relu, start, stop, period, source.x, (source, period, sums, at, dz))
    fold(sums, at, period, channels)
    fold(sums, at + period, period, channels)


@inline
def strip_relu_gradient(shape, first, columns, places, source, period, dz, dx):
    mean = load(shape, source.factors, first, 0, columns)
    scale = load(shape, source.factors, period + first, 0, columns)
    plus = load(shape, source.factors, 2 * period + first, 0, columns)
    slope = load(shape, source.factors, 3 * period + first, 0, columns)
    level = load(shape, source.factors, 4 * period + first, 0, columns)
    for i in places:
        difference = tile_subtract(load(shape, source.x, i, 0, columns), mean)
        if given(dz):
            gradient = load(shape, dz, i, 0, columns)
        else:
            gradient = past_relu(shape, source, i, columns, difference, scale, plus)
        gradient = tile_subtract(tile_subtract(gradient, level), tile_multiply(slope, difference))
        store(shape, tile_multiply(scale, gradient), dx, i, 0, columns)


@separate
def relu_gradient(source: PastReLU, start: int, stop: int, period: int, dz: Flat, dx: Flat) -> None:
    """dx = scale (dz − level − slope (x − mean)) over start:stop, with dz as `add_up_past_relu` left it, or made again
    where it is empty; rows of the factors: mean, scale, plus, slope, level."""
    by_strip(strip_relu_gradient, start, stop, period, source.x, (source, period, dz, dx))


@inline
def strip_gradient(shape, first, columns, places, dy, x, period, factors, dx):
    mean = load(shape, factors, first, 0, columns)
    slope = load(shape, factors, period + first, 0, columns)
    level = load(shape, factors, 2 * period + first, 0, columns)
    scale = load(shape, factors, 3 * period + first, 0, columns)
    for i in places:
        gradient = tile_subtract(load(shape, dy, i, 0, columns), level)
        difference = tile_subtract(load(shape, x, i, 0, columns), mean)
        gradient = tile_subtract(gradient, tile_multiply(slope, difference))
        store(shape, tile_multiply(scale, gradient), dx, i, 0, columns)


@separate
def input_gradient(dy: Flat, x: Flat, start: int, stop: int, period: int, factors: Flat, dx: Flat) -> None:
    """dx = scale (dy − level − slope (x − mean)) over start:stop; rows of `factors`: mean, slope, level, scale."""
    by_strip(strip_gradient, start, stop, period, x, (dy, x, period, factors, dx))


@inline
def bounds(c, length, size):
    """Where chunk c starts and stops."""
    start = c * length
    return start, min(start + length, size)


@inline
def joined(partial, k, channel):
    """The k-th sum of a channel over all chunks."""
    total = 0.0
    for c in range(partial.shape[0]):
        total += float(partial[c, k, channel])
    return total


@inline
def strip_group_gradient(shape, first, columns, places, dy, x, period, factors, dx):
    mean = load(shape, factors, first, 0, columns)
    slope = load(shape, factors, period + first, 0, columns)
    level = load(shape, factors, 2 * period + first, 0, columns)
    gamma = load(shape, factors, 3 * period + first, 0, columns)
    scale = load(shape, factors, 4 * period + first, 0, columns)
    for i in places:
        gradient = tile_subtract(tile_multiply(gamma, load(shape, dy, i, 0, columns)), level)
        difference = tile_subtract(load(shape, x, i, 0, columns), mean)
        gradient = tile_subtract(gradient, tile_multiply(slope, difference))
        store(shape, tile_multiply(scale, gradient), dx, i, 0, columns)


@separate
def group_gradient(dy: Flat, x: Flat, start: int, stop: int, period: int, factors: Flat, dx: Flat) -> None:
    """dx = scale (gamma dy − level − slope (x − mean)) over start:stop; `factors`: mean, slope, level, gamma, scale."""
    by_strip(strip_group_gradient, start, stop, period, x, (dy, x, period, factors, dx))
