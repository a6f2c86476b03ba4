"""Blocks of layers in one go. What each computes: `kernels.interface.Fused`.

A convolution's rows are pooled, and their moments taken, while they still lie in the first caches; backwards, the
gradient by the convolution's output exists for a few images at a time, between the kernel that makes it and the one
that reads it. Normalisation and ReLU then see the pooled map alone, a quarter of the elements or less.

Channels are one vector after the other: a vector's constants stay in registers for all positions. Sums are taken in
shares that depend on sizes alone, less a mean that was taken before, and joined in float64 (Chan, Golub and LeVeque
1983).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy import int64

from ..interface import Input, Output, Scratch
from ..shapes import ChannelDims, Conv2dDims, LinearDims, Pool2dDims
from .compiler.jit import Bytes, Constant, Flat, exact, inline, kernel, prange, separate
from .conv import conv2d_scratch
from .linear import few_rows, linear_backward_scratch, linear_gradients, linear_scratch
from .norm import batch_factors, batchnorm_backward_scratch, batchnorm_scratch, flattened, partial_sums
from .pool import along
from .tiles.chunks import SMALL, load, pixels, run, share, store
from .tiles.correlate import (
    ITEMS,
    CorrelationLayout,
    Filters,
    correlate_panel,
    correlate_rows,
    correlation,
    correlation_layout,
    few_positions,
    first_image,
    images_of,
    images_together,
    interleave,
    is_depthwise,
    pack_filters,
)
from .tiles.depthwise import depthwise_row
from .tiles.filter_gradient import CHUNKS, add_filter_chunks, chunk_layout, images_summed, sum_chunk
from .tiles.gemm import (
    FULL,
    NARROW,
    Epilogue,
    few,
    matmul,
    pack_panels,
    panel_count,
    panel_size,
    panel_width,
    panels_size,
    row_major,
)
from .tiles.packed import (
    Filling,
    Lines,
    Sight,
    compute_rows,
    is_gathered,
    move,
    multiply_places,
    packed_layout,
    packed_scratch,
    places_in_hand,
    rows_times_panels,
    slide_panel,
    slides,
)
from .tiles.places import Maps, Part, Place, Rows
from .tiles.strips import PastReLU, add_up_past_relu, affine_relu, bounds, joined, relu_gradient, spread
from .tiles.tile import (
    LANES,
    REGISTERS,
    TileShape,
    flat,
    lanes,
    tile_add,
    tile_fill,
    tile_load_integers,
    tile_load_partial,
    tile_multiply,
    tile_multiply_add,
    tile_rows,
    tile_sign,
    tile_store_integers,
    tile_subtract,
    tile_sum,
    tile_where_equal,
    tile_where_exceeds,
    tile_where_positive,
    tile_zeros,
)
from .tiles.winograd import Finish, Grid, is_winograd, transform_filters, winograd, winograd_scratch, winograd_size

__all__ = [
    "batchnorm_relu",
    "batchnorm_relu_backward",
    "batchnorm_relu_backward_scratch",
    "batchnorm_relu_maxpool2d",
    "batchnorm_relu_maxpool2d_backward",
    "batchnorm_relu_maxpool2d_backward_scratch",
    "batchnorm_relu_maxpool2d_scratch",
    "batchnorm_relu_scratch",
    "conv2d_batchnorm_relu_maxpool2d",
    "conv2d_batchnorm_relu_maxpool2d_backward",
    "conv2d_batchnorm_relu_maxpool2d_backward_scratch",
    "conv2d_batchnorm_relu_maxpool2d_scratch",
    "conv2d_fold",
    "conv2d_fold_size",
    "conv2d_folded",
    "conv2d_folded_scratch",
    "linear_fold",
    "linear_fold_size",
    "linear_folded",
    "linear_folded_scratch",
    "linear_relu",
    "linear_relu_backward",
    "linear_relu_backward_scratch",
    "linear_relu_scratch",
    "maxpool2d_inference",
]

LINE, STRIP = TileShape(1, 1, 1), TileShape(4, 1, 4)
_SHARES = 64  # of rows: each has moments of its own


@inline
def get(array, offset, left):
    """One vector, of which `left` elements are there."""
    return load(LINE, array, offset, 0, left)


@inline
def put(tile, array, offset, left):
    """Store one vector, of which `left` elements are there."""
    store(LINE, tile, array, offset, 0, left)


# --- Forward --------------------------------------------------------------------------------------------------------


@inline
def moment(value, shift, total, square):
    """The sums of offsets from the shift, and of their squares, with one more value."""
    offset = tile_subtract(value, shift)
    return tile_add(total, offset), tile_multiply_add(square, offset, offset)


@inline
def window(z, at, d, kh: Constant, kw: Constant, left, sign, shift):
    """One window of one vector of channels: (peak, its place, sum of offsets, sum of their squares)."""
    zeros = tile_zeros(LINE, z)
    peak, place = get(z, at, left), zeros
    best = tile_multiply(peak, sign)
    total, square = moment(peak, shift, zeros, zeros)
    for i in range(kh):
        for j in range(kw):
            if i + j > 0:
                value = get(z, at + (i * d.w + j) * d.c, left)
                total, square = moment(value, shift, total, square)
                signed = tile_multiply(value, sign)
                place = tile_where_exceeds(signed, best, tile_fill(LINE, z, i * kw + j), place)
                peak = tile_where_exceeds(signed, best, value, peak)
                best = tile_where_exceeds(signed, best, signed, best)
    return peak, place, total, square


class Moments(NamedTuple):
    """Of one vector of channels: a shift, the sum of offsets from it, and of their squares."""

    shift: Any
    total: Any
    square: Any


@inline
def mean_of_rows(z, start, apart, images, positions, channels, left):
    """About the mean of one vector of channels, over so many positions of each image: a shift. 0 where it overflows."""
    totals = tile_zeros(STRIP, z)
    total = tile_zeros(LINE, z)
    end = positions // tile_rows(STRIP) * tile_rows(STRIP)
    for image in range(images):
        at = start + image * apart
        for position in range(0, end, tile_rows(STRIP)):
            totals = tile_add(totals, load(STRIP, z, at + position * channels, channels, left))
        for position in range(end, positions):
            total = tile_add(total, get(z, at + position * channels, left))
    total = tile_add(total, tile_sum(totals))
    mean = tile_multiply(total, tile_fill(LINE, z, 1 / (images * positions)))
    nothing = tile_multiply(mean, tile_zeros(LINE, z))
    return tile_where_equal(nothing, tile_zeros(LINE, z), mean)


@exact
def moved(moments, count, offset):
    """The sums of `count` offsets and of their squares as they are from a shift that lies so far below."""
    twice = tile_add(moments.total, moments.total)
    by_count = tile_multiply(offset, count)
    square = tile_multiply_add(moments.square, offset, tile_add(twice, by_count))
    return tile_add(moments.total, by_count), square


@exact
def merged(moments, count, others, more, z):
    """The moments of `count` values and of `more` others, from a shift at the mean of all: nothing cancels.

    The sums make up for the shift's rounding, which another order of the arithmetic would take for zero.
    """
    number, of_others = tile_fill(LINE, z, count), tile_fill(LINE, z, more)
    share = tile_fill(LINE, z, more / (count + more))
    shift = tile_multiply_add(moments.shift, tile_subtract(others.shift, moments.shift), share)
    total, square = moved(moments, number, tile_subtract(moments.shift, shift))
    other_total, other_square = moved(others, of_others, tile_subtract(others.shift, shift))
    return Moments(shift, tile_add(total, other_total), tile_add(square, other_square))


class Pooled(NamedTuple):
    """Pooled maps: the peaks and their places in the windows, both from `start` on."""

    peak: Flat
    argmax: Bytes
    start: int


@separate
def pool_rows(z: Place, d: Pool2dDims, part: Part, gamma: Flat, count: int, moments: Place, pooled: Pooled) -> None:
    """A part's rows of windows.

    Adds to the moments: shift, sum of offsets from it and sum of their squares, by channel, of `count` positions so
    far. The part's own mean is taken first, in a pass over rows that the second finds in a cache. Any single element in
    its place, such as the first, may lie so far off that its square leaves no digit of the variance.
    """
    memory, sums = z.memory, moments.memory
    z_row = d.w * d.c
    first_row = part.low * d.kh
    rows = (d.h if part.high == d.oh else part.high * d.kh) - first_row
    positions = rows * d.w
    for column in range(0, d.c, lanes(memory)):
        left = d.c - column
        sign = tile_sign(get(gamma, column, left))
        at_shift = moments.start + column
        at_total, at_square = at_shift + d.c, at_shift + 2 * d.c
        start = z.start + first_row * z_row + column
        shift = mean_of_rows(memory, start, d.h * z_row, part.images, positions, d.c, left)
        total = square = tile_zeros(LINE, memory)
        for image in range(part.images):
            for p in range(part.low, part.high):
                at = z.start + (image * d.h + p * d.kh) * z_row + column
                to = pooled.start + (image * d.oh + p) * d.ow * d.c + column
                for q in range(d.ow):
                    if d.kh == 2 and d.kw == 2:
                        found, place, more, squares = window(memory, at + 2 * q * d.c, d, 2, 2, left, sign, shift)
                    else:
                        at_window = at + q * d.kw * d.c
                        found, place, more, squares = window(memory, at_window, d, d.kh, d.kw, left, sign, shift)
                    total, square = tile_add(total, more), tile_add(square, squares)
                    put(found, pooled.peak, to + q * d.c, left)
                    tile_store_integers(place, pooled.argmax, to + q * d.c, 0, left)
                end = d.h - p * d.kh if p == d.oh - 1 else d.kh
                for i in range(end):  # what no window covers
                    for j in range(d.ow * d.kw if i < d.kh else 0, d.w):
                        total, square = moment(get(memory, at + i * z_row + j * d.c, left), shift, total, square)
        if count > 0:
            before = Moments(get(sums, at_shift, left), get(sums, at_total, left), get(sums, at_square, left))
            own = Moments(shift, total, square)
            shift, total, square = merged(before, count, own, part.images * positions, memory)
        put(shift, sums, at_shift, left)
        put(total, sums, at_total, left)
        put(square, sums, at_square, left)


@inline
def join_moments(moments, slot, shares, eps, mean, inv_std, var):
    """The statistics of `batchnorm` from the shares' moments; their numbers of positions stand behind these."""
    channels = mean.size
    for channel in range(channels):
        total, count = 0.0, 0.0
        for i in range(shares):
            at = i * slot + channel
            number = float(moments[i * slot + 3 * channels])
            total += float(moments[at]) * number + float(moments[at + channels])
            count += number
        average, square = total / count, 0.0
        for i in range(shares):
            at = i * slot + channel
            number, offset = float(moments[i * slot + 3 * channels]), float(moments[at]) - average
            sums = float(moments[at + channels])
            square += float(moments[at + 2 * channels]) + offset * (2 * sums + offset * number)
        square = 0.0 if square < 0 else square
        mean[channel] = average
        inv_std[channel] = 1 / np.sqrt(square / count + eps)
        var[channel] = square / max(count - 1, 1)


@separate
def normalise_rows(
    peak: Flat, low: int, high: int, channels: int, mean: Flat, times: Place, beta: Flat, y: Flat
) -> None:
    """y = relu((peak - mean) times + beta) at positions `low` to `high`."""
    for column in range(0, channels, lanes(y)):
        left = channels - column
        minus, plus = get(mean, column, left), get(beta, column, left)
        scale = get(times.memory, times.start + column, left)
        for position in range(low, high):
            at = position * channels + column
            value = tile_multiply_add(plus, tile_subtract(get(peak, at, left), minus), scale)
            put(tile_where_positive(value, value), y, at, left)


@inline
def normalise_peaks(peak, gamma, beta, mean, inv_std, times, to, y):
    """y = relu(gamma (peak - mean) inv_std + beta); the factors are kept at `to`."""
    channels = mean.size
    positions = y.size // channels
    for channel in range(channels):
        times[to + channel] = gamma[channel] * inv_std[channel]
    shares = min(positions, _SHARES)
    for i in prange(shares):
        low, high = share(positions, i, shares)
        factors = Place(flat(times), to)
        normalise_rows(flat(peak), low, high, channels, flat(mean), factors, flat(beta), flat(y))


@inline
def slot_size(channels):
    """Elements of a share's moments, in whole cache lines."""
    return whole_lines(3 * channels + 1)


@inline
def whole_lines(size):
    """So many elements and up to 15 more: what follows begins a cache line of float32."""
    return (size + 15) // 16 * 16


def batchnorm_relu_maxpool2d_scratch(d: Pool2dDims, n: int) -> int:
    """Moments by share, and one factor a channel."""
    return _SHARES * slot_size(d.c) + d.c


@kernel(small=lambda x: x.size <= SMALL)
def batchnorm_relu_maxpool2d(x, gamma, beta, eps, d, scratch, mean, inv_std, var, peak, y, argmax):
    n, slot = x.shape[0], slot_size(d.c)
    units = n * d.oh
    shares = min(units, _SHARES)
    for i in prange(shares):
        low, high = share(units, i, shares)
        at, count = i * slot, 0
        while low < high:
            image, p = low // d.oh, low % d.oh
            end = min(d.oh, p + high - low)
            z, moments = Place(flat(x), image * d.h * d.w * d.c), Place(flat(scratch), at)
            pooled = Pooled(flat(peak), flat(argmax), image * d.oh * d.ow * d.c)
            pool_rows(z, d, Part(1, p, end), flat(gamma), count, moments, pooled)
            count += ((d.h if end == d.oh else end * d.kh) - p * d.kh) * d.w
            low += end - p
        scratch[at + 3 * d.c] = count
    join_moments(scratch, slot, shares, eps, mean, inv_std, var)
    normalise_peaks(peak, gamma, beta, mean, inv_std, scratch, _SHARES * slot, y)


def conv2d_batchnorm_relu_maxpool2d_scratch(d: Conv2dDims, n: int) -> int:
    """Moments by share, one factor a channel, and what the convolution needs."""
    return int((_SHARES + 1) * slot_size(d.f)) + conv2d_scratch(d, n)


@kernel(optional={"b": 1}, small=lambda x, w, d: few_positions(len(x), d, w.size))
def conv2d_batchnorm_relu_maxpool2d(
    x, w, b, gamma, beta, eps, pool, d, scratch, z, mean, inv_std, var, peak, y, argmax
):
    n, slot = x.shape[0], slot_size(d.f)
    z_image, peak_image = d.oh * d.ow * d.f, pool.oh * pool.ow * d.f
    factors = _SHARES * slot
    layout = correlation_layout(d, n, False, factors + slot, lanes(z))
    pack_filters(flat(w), d, False, Place(flat(scratch), layout.filters))
    if layout.block > 0:
        for block in prange(layout.blocks):
            interleave(Place(flat(x), 0), n, d.h * d.w * d.c, block, layout, flat(scratch))
    units = layout.blocks * pool.oh
    shares = min(units, _SHARES)
    for i in prange(shares):
        low, high = share(units, i, shares)
        at, count = i * slot, 0
        while low < high:
            block, p = low // pool.oh, low % pool.oh
            end = min(pool.oh, p + high - low)
            first_row = p * pool.kh
            end_row = d.oh if end == pool.oh else end * pool.kh
            source = images_of(Place(flat(x), 0), flat(scratch), n, layout)
            filters = Filters(flat(scratch), layout.filters, flat(b), False)
            rows = block * d.oh
            correlate_rows(source, rows + first_row, rows + end_row, d, False, filters, Maps(flat(z), 0, z_image, d.f))
            first = block * layout.together
            images = min(layout.together, n - first)
            moments, pooled = Place(flat(scratch), at), Pooled(flat(peak), flat(argmax), first * peak_image)
            part = Part(images, p, end)
            pool_rows(Place(flat(z), first * z_image), pool, part, flat(gamma), count, moments, pooled)
            count += images * (end_row - first_row) * d.ow
            low += end - p
        scratch[at + 3 * d.f] = count
    join_moments(scratch, slot, shares, eps, mean, inv_std, var)
    normalise_peaks(peak, gamma, beta, mean, inv_std, scratch, factors, y)


# --- Backward -------------------------------------------------------------------------------------------------------


@inline
def add_windows(dy, peak, minus, scale, plus, total, product):
    """The sums of dy past the ReLU, and of its products with the peaks' offsets from the mean, with a tile more."""
    offset = tile_subtract(peak, minus)
    gradient = tile_where_positive(tile_multiply_add(plus, offset, scale), dy)
    return tile_add(total, gradient), tile_multiply_add(product, gradient, offset)


@separate
def sum_windows(
    dy: Flat, peak: Flat, low: int, high: int, channels: int, mean: Flat, beta: Flat, factors: Place, sums: Place
) -> None:
    """The sums of `add_windows` over positions `low` to `high`, by channel."""
    for column in range(0, channels, lanes(dy)):
        left, times, to = channels - column, factors.start + column, sums.start + column
        minus, plus = tile_load_partial(STRIP, mean, column, 0, left), tile_load_partial(STRIP, beta, column, 0, left)
        scale = tile_load_partial(STRIP, factors.memory, times, 0, left)
        totals = products = tile_zeros(STRIP, dy)
        end = low + (high - low) // tile_rows(STRIP) * tile_rows(STRIP)
        for position in range(low, end, tile_rows(STRIP)):
            at = position * channels + column
            peaks = tile_load_partial(STRIP, peak, at, channels, left)
            gradients = tile_load_partial(STRIP, dy, at, channels, left)
            totals, products = add_windows(gradients, peaks, minus, scale, plus, totals, products)
        total, product = tile_sum(totals), tile_sum(products)
        minus1, plus1, scale1 = get(mean, column, left), get(beta, column, left), get(factors.memory, times, left)
        for position in range(end, high):
            at = position * channels + column
            value = tile_load_partial(LINE, peak, at, channels, left)
            gradient = tile_load_partial(LINE, dy, at, channels, left)
            total, product = add_windows(gradient, value, minus1, scale1, plus1, total, product)
        put(total, sums.memory, to, left)
        put(product, sums.memory, to + channels, left)


@inline
def window_sums(dy, peak, gamma, beta, mean, inv_std, count, scratch, dgamma, dbeta):
    """dgamma, dbeta, and what `expand_rows` needs, in scratch; `count` values of a channel were normalised together.

    With the gradient g past the ReLU: dbeta = the sum of g, dgamma = the sum of g (peak - mean) inv_std.
    """
    channels = mean.size
    positions, fo = dy.size // channels, factors_start(channels)
    for channel in range(channels):
        scratch[fo + channel] = gamma[channel] * inv_std[channel]
    shares = min(positions, _SHARES)
    for i in prange(shares):
        low, high = share(positions, i, shares)
        factors, sums = Place(flat(scratch), fo), Place(flat(scratch), i * 2 * channels)
        sum_windows(flat(dy), flat(peak), low, high, channels, flat(mean), flat(beta), factors, sums)
    for channel in range(channels):
        total, product = 0.0, 0.0
        for i in range(shares):
            total += float(scratch[2 * i * channels + channel])
            product += float(scratch[(2 * i + 1) * channels + channel])
        dbeta[channel], dgamma[channel] = total, product * inv_std[channel]
        scratch[fo + channels + channel] = -total / count
        scratch[fo + 2 * channels + channel] = -product * inv_std[channel] * inv_std[channel] / count


@inline
def factors_start(channels):
    """Where `window_sums` leaves the factors: behind two sums a share."""
    return 2 * _SHARES * channels


@inline
def sums_size(channels):
    """Elements of scratch that `window_sums` takes: the sums and three factors a channel."""
    return whole_lines(factors_start(channels) + 3 * channels)


class Slopes(NamedTuple):
    """One vector of channels: the mean, and the factors of the gradient by what was normalised."""

    minus: Any
    scale: Any
    level: Any
    slope: Any


@inline
def share_gradient(z, d, kh: Constant, kw: Constant, left, gradient, place, slopes, dz):
    """One window of `expand_rows`, which begins where z and dz do."""
    for i in range(kh):
        for j in range(kw):
            there = (i * d.w + j) * d.c
            offset = tile_subtract(get(z.memory, z.start + there, left), slopes.minus)
            own = tile_add(slopes.level, tile_where_equal(place, tile_fill(LINE, z.memory, i * kw + j), gradient))
            value = tile_multiply(tile_multiply_add(own, offset, slopes.slope), slopes.scale)
            put(value, dz.memory, dz.start + there, left)


@separate
def expand_rows(
    dy: Flat, z: Place, pooled: Pooled, d: Pool2dDims, part: Part, mean: Flat, beta: Flat, factors: Place, dz: Place
) -> None:
    """dz = scale (g where the window's peak is - level - slope (z - mean)), for a part's rows of windows.

    The factors are scale, -level and -slope.
    """
    z_row, memory = d.w * d.c, factors.memory
    for column in range(0, d.c, lanes(memory)):
        left, times = d.c - column, factors.start + column
        minus, plus = get(mean, column, left), get(beta, column, left)
        scale, level, slope = (
            get(memory, times, left),
            get(memory, times + d.c, left),
            get(memory, times + 2 * d.c, left),
        )
        slopes = Slopes(minus, scale, level, slope)
        for image in range(part.images):
            for p in range(part.low, part.high):
                at = (image * d.h + p * d.kh) * z_row + column
                row = pooled.start + (image * d.oh + p) * d.ow * d.c + column
                for q in range(d.ow):
                    here = row + q * d.c
                    value = tile_multiply_add(plus, tile_subtract(get(pooled.peak, here, left), minus), scale)
                    gradient = tile_where_positive(value, get(dy, here, left))
                    place = tile_load_integers(LINE, memory, pooled.argmax, here, 0, left)
                    if d.kh == 2 and d.kw == 2:
                        there = at + 2 * q * d.c
                        source, target = Place(z.memory, z.start + there), Place(dz.memory, dz.start + there)
                        share_gradient(source, d, 2, 2, left, gradient, place, slopes, target)
                    else:
                        there = at + q * d.kw * d.c
                        source, target = Place(z.memory, z.start + there), Place(dz.memory, dz.start + there)
                        share_gradient(source, d, d.kh, d.kw, left, gradient, place, slopes, target)
                end = d.h - p * d.kh if p == d.oh - 1 else d.kh
                for i in range(end):  # what no window covers
                    for j in range(d.ow * d.kw if i < d.kh else 0, d.w):
                        there = at + i * z_row + j * d.c
                        offset = tile_subtract(get(z.memory, z.start + there, left), minus)
                        value = tile_multiply(tile_multiply_add(level, offset, slope), scale)
                        put(value, dz.memory, dz.start + there, left)


def batchnorm_relu_maxpool2d_backward_scratch(d: Pool2dDims, n: int) -> int:
    """Sums by share, and three factors a channel."""
    return int(sums_size(d.c))


@kernel(optional={"dx": 4}, small=lambda x: x.size <= SMALL)
def batchnorm_relu_maxpool2d_backward(dy, x, gamma, beta, mean, inv_std, peak, argmax, d, scratch, dx, dgamma, dbeta):
    n = x.shape[0]
    window_sums(dy, peak, gamma, beta, mean, inv_std, x.size // d.c, scratch, dgamma, dbeta)
    units = n * d.oh if dx.size else 0
    shares = min(units, _SHARES)
    for i in prange(shares):
        low, high = share(units, i, shares)
        while low < high:
            image, p = low // d.oh, low % d.oh
            end = min(d.oh, p + high - low)
            at = image * d.h * d.w * d.c
            z, pooled = Place(flat(x), at), Pooled(flat(peak), flat(argmax), image * d.oh * d.ow * d.c)
            factors, dz = Place(flat(scratch), factors_start(d.c)), Place(flat(dx), at)
            expand_rows(flat(dy), z, pooled, d, Part(1, p, end), flat(mean), flat(beta), factors, dz)
            low += end - p


class BlockLayout(NamedTuple):
    """Scratch of a block's gradient, behind `sums_size`: chunks, and the gradient by the convolution's output, dz."""

    chunks: int
    dz: int
    end: int


@inline
def block_layout(d, n, wanted):
    """The layout for n images. dz is of all images if dx is `wanted`, else of those that a chunk has in hand."""
    chunks, start = min(n, CHUNKS), sums_size(d.f)
    dz = start + chunks * chunk_layout(d).size
    images = n if wanted else chunks * images_summed(d)
    return BlockLayout(start, dz, dz + whole_lines(images * d.oh * d.ow * d.f))


def conv2d_batchnorm_relu_maxpool2d_backward_scratch(d: Conv2dDims, n: int) -> int:
    """Sums, factors, chunks, the gradient by the convolution's output, and what the gradient of the input takes."""
    ends = [correlation_layout(d, n, True, block_layout(d, n, True).end, vector).end for vector in LANES]
    return int(max(block_layout(d, n, False).end, *ends))


@kernel(optional={"dx": 4, "db": 1}, small=lambda x, w, d: few_positions(len(x), d, w.size))
def conv2d_batchnorm_relu_maxpool2d_backward(
    dy, x, w, z, gamma, beta, mean, inv_std, peak, argmax, pool, d, scratch, dx, dw, db, dgamma, dbeta
):
    n, none = x.shape[0], scratch[:0]
    z_image, peak_image = d.oh * d.ow * d.f, pool.oh * pool.ow * d.f
    window_sums(dy, peak, gamma, beta, mean, inv_std, n * d.oh * d.ow, scratch, dgamma, dbeta)
    for i in range(db.size):
        db[i] = 0

    chunks, together = min(n, CHUNKS), images_summed(d)
    wanted, size = dx.size > 0, chunk_layout(d).size
    places = block_layout(d, n, wanted)
    layout = correlation_layout(d, n, True, places.end, lanes(dw))
    rows, blocks = 0, 0
    if wanted:
        rows = layout.rows
        if layout.block > 0:
            blocks = layout.blocks
        pack_filters(flat(w), d, True, Place(flat(scratch), layout.filters))
    for chunk in prange(chunks):
        first, end = share(n, chunk, chunks)
        factors, sums = Place(flat(scratch), factors_start(d.f)), Place(flat(scratch), places.chunks + chunk * size)
        for image in range(first, end, together):
            images = min(together, end - image)
            dz = Place(flat(scratch), places.dz + (image if wanted else chunk * together) * z_image)
            pooled, part = Pooled(flat(peak), flat(argmax), image * peak_image), Part(images, 0, pool.oh)
            source = Place(flat(z), image * z_image)
            expand_rows(flat(dy), source, pooled, pool, part, flat(mean), flat(beta), factors, dz)
            zeroth = Place(flat(scratch), dz.start - image * z_image)
            sum_chunk(flat(x), zeroth, d, image, image + images, image == first, False, sums)
    for block in prange(blocks):
        interleave(Place(flat(scratch), places.dz), n, z_image, block, layout, flat(scratch))
    items = max(min(rows, ITEMS), CHUNKS)
    for item in prange(items):
        first, end = share(dw.size, item, items)
        add_filter_chunks(Place(flat(scratch), places.chunks), size, chunks, d, flat(dw), first, end)
        low, high = share(rows, item, items)
        source = images_of(Place(flat(scratch), places.dz), flat(scratch), n, layout)
        filters = Filters(flat(scratch), layout.filters, flat(none), False)
        correlate_rows(source, low, high, d, True, filters, Maps(flat(dx), 0, d.h * d.w * d.c, d.c))


# --- Batch-norm, residual and ReLU ----------------------------------------------------------------------------------


batchnorm_relu_scratch, batchnorm_relu_backward_scratch = batchnorm_scratch, batchnorm_backward_scratch


@kernel(optional={"residual": 1})
def _batchnorm_relu(x, gamma, beta, residual, eps, length, partial, y, mean, inv_std, var):
    factors = batch_factors(x, gamma, beta, eps, length, partial, mean, inv_std, var)
    for c in prange(partial.shape[0]):
        start, stop = bounds(c, length, x.size)
        affine_relu(flat(x), start, stop, partial.shape[2], flat(factors), flat(residual), flat(y))


def batchnorm_relu(
    x: Input,
    gamma: Input,
    beta: Input,
    residual: Input | None,
    eps: float,
    d: ChannelDims,
    scratch: Scratch,
    y: Output,
    mean: Output,
    inv_std: Output,
    var: Output,
) -> None:
    given_, chunked = (x.reshape(-1), gamma, beta, flattened(residual)), partial_sums(3, scratch, x, d)
    run(_batchnorm_relu, x.size, *given_, eps, *chunked, y.reshape(-1), mean, inv_std, var)


@kernel(optional={"more": 1, "y": 1, "dresidual": 1, "dx": 1})
def _batchnorm_relu_backward(dy, more, x, y, gamma, beta, mean, inv_std, length, partial, dresidual, dx, dgamma, dbeta):
    channels, m = mean.size, x.size // mean.size
    parts, _, period = partial.shape
    factors = np.empty((5, period), x.dtype)
    for channel in range(channels):
        factors[0, channel] = mean[channel]
        factors[1, channel] = gamma[channel] * inv_std[channel]
        factors[2, channel] = beta[channel]
    for row in range(3):
        spread(flat(factors), row * period, period, channels)
    for c in prange(parts):
        start, stop = bounds(c, length, x.size)
        source = PastReLU(flat(dy), flat(more), flat(x), flat(y), flat(factors))
        add_up_past_relu(source, start, stop, period, channels, flat(partial), c * 2 * period, flat(dresidual))
    for channel in range(channels):
        dbeta[channel] = joined(partial, 0, channel)
        dgamma[channel] = joined(partial, 1, channel) * inv_std[channel]
        factors[3, channel] = inv_std[channel] * dgamma[channel] / m
        factors[4, channel] = dbeta[channel] / m
    if dx.size:
        for row in range(3, 5):
            spread(flat(factors), row * period, period, channels)
        for c in prange(parts):
            start, stop = bounds(c, length, x.size)
            source = PastReLU(flat(dy), flat(more), flat(x), flat(y), flat(factors))
            relu_gradient(source, start, stop, period, flat(dresidual), flat(dx))


def batchnorm_relu_backward(
    dy: Input,
    more: Input | None,
    x: Input,
    y: Input | None,
    gamma: Input,
    beta: Input,
    mean: Input,
    inv_std: Input,
    d: ChannelDims,
    scratch: Scratch,
    dresidual: Output | None,
    dx: Output | None,
    dgamma: Output,
    dbeta: Output,
) -> None:
    maps = dy.reshape(-1), flattened(more), x.reshape(-1), flattened(y)
    chunked = partial_sums(2, scratch, x, d)
    ends = flattened(dresidual), flattened(dx), dgamma, dbeta
    run(_batchnorm_relu_backward, x.size, *maps, gamma, beta, mean, inv_std, *chunked, *ends)


# --- Linear ---------------------------------------------------------------------------------------------------------


linear_relu_scratch = linear_scratch


@kernel(optional={"b": 1}, small=lambda x, w: few_rows(len(x), w.shape))
def linear_relu(x, w, b, d, scratch, y):
    left, right, none = row_major(x.shape[0], d.k), row_major(d.k, d.m), flat(scratch[:0])
    matmul(flat(x), left, flat(w), right, flat(b), True, none, flat(scratch), flat(y))


def linear_relu_backward_scratch(d: LinearDims, n: int) -> int:
    """The gradient past the ReLU, and what the products need."""
    return int(whole_lines(n * d.m)) + linear_backward_scratch(d, n)


@separate
def past_relu(dy: Flat, y: Flat, low: int, high: int, out: Flat) -> None:
    """out = dy where y is not 0 or less, else 0, for elements `low` to `high`."""
    for at in range(low, high, lanes(y)):
        left = high - at
        put(tile_where_positive(get(y, at, left), get(dy, at, left)), out, at, left)


@kernel(optional={"dx": 2, "db": 1}, small=lambda x, w: few_rows(2 * len(x), w.shape))
def linear_relu_backward(dy, y, x, w, d, scratch, dx, dw, db):
    shares = min(x.shape[0], _SHARES)
    for i in prange(shares):
        low, high = share(dy.size, i, shares)
        past_relu(flat(dy), flat(y), low, high, flat(scratch))
    linear_gradients(scratch, x, w, d, scratch[whole_lines(dy.size) :], dx, dw, db)


# --- Inference ------------------------------------------------------------------------------------------------------


def always() -> bool:
    """These are rare."""
    return True


def linear_fold_size(d: LinearDims) -> int:
    """Elements of packed weights."""
    return panels_size(row_major(d.k, d.m))


@kernel(optional={"b": 1}, small=always)
def linear_fold(w, b, d, packed, bias):
    for column in range(d.m):
        bias[column] = b[column] if b.size else bias.dtype.type(0)
    pack_panels(flat(w), row_major(d.k, d.m), flat(packed))


def linear_folded_scratch(d: LinearDims, n: int) -> int:
    """None."""
    return 0


@kernel(small=lambda x, packed: few(len(x) * packed.size, packed.size))
def linear_folded(x, packed, bias, relu, d, scratch, y):
    left, right, none = row_major(x.shape[0], d.k), row_major(d.k, d.m), flat(packed[:0])
    matmul(flat(x), left, none, right, flat(bias), relu, none, flat(packed), flat(y))


def conv2d_fold_size(d: Conv2dDims) -> int:
    """Elements of packed filters, in either dtype."""
    if is_winograd(d):
        return int(winograd_size(d))
    layouts = [correlation_layout(d, 1, False, 0, vector) for vector in LANES]
    return max(int(layout.end - layout.filters) for layout in layouts)


@kernel(optional={"b": 1, "gamma": 1, "beta": 1, "mean": 1, "var": 1}, small=always)
def conv2d_fold(w, b, gamma, beta, mean, var, eps, d, packed, bias):
    zero, depthwise, vector = bias.dtype.type(0), d.groups > 1 and is_depthwise(d), lanes(w)
    taps, filters = d.kh * d.kw * (d.c // d.groups), d.f // d.groups  # of a group
    panels, size, minimal = panel_count(filters, vector), panel_size(taps, vector), is_winograd(d)
    if depthwise:  # element by element: to compile the assignment of a slice takes longer than all the rest
        weights = flat(w)
        for i in range(w.size):
            packed[i] = weights[i]
    elif minimal:
        for i in range(packed.size):  # the columns that fill the last panel
            packed[i] = zero
    else:
        pack_filters(flat(w), d, False, Place(flat(packed), 0))
    for f in range(d.f):
        bias[f] = b[f] if b.size else zero
        scale = 1.0
        if gamma.size:
            scale = gamma[f] / np.sqrt(var[f] + eps)
            bias[f] = (bias[f] - mean[f]) * scale + beta[f]
        if minimal:
            transform_filters(w.reshape(-1), d, f, scale, packed)
        elif gamma.size:
            own = f % filters // (2 * vector) * 2 * vector  # where its panel begins
            width = panel_width(own, filters, vector)
            start = (f // filters * panels + own // (2 * vector)) * size + f % filters - own
            if depthwise:
                start, width = f, d.f
            for tap in range(taps):
                packed[start + tap * width] *= scale
    if is_slid(d, vector):
        for group in range(d.groups):
            slide_panel(flat(packed), group * panels * size, taps, filters, vector)


_BUFFER = 4096  # elements of a convolution's output in hand, 16 KiB of float32: a part of the first cache


def conv2d_folded_scratch(d: Conv2dDims, n: int) -> int:
    """What a convolution lays out for itself, and its output, or the rows of it that each share has in hand, where
    windows follow."""
    if is_winograd(d):
        return winograd_scratch(d, n)
    whole = n * d.oh * d.ow * d.f + 16
    if is_gathered(d):
        own = rows_in_hand(d) * d.ow * d.f + max(int(places_in_hand(d, vector)) for vector in LANES)
        return max(packed_scratch(d, n) + whole, pooled_parts(d, n) * own)
    together = max(int(images_together(d, n, False, vector)) for vector in LANES)
    rows = max(_BUFFER, together * d.oh * d.ow * d.f)
    return conv2d_scratch(d, n) + max(_SHARES * (rows + 16), whole)


@separate
def pool_maxima(z: Rows, d: Pool2dDims, part: Part, y: Rows) -> None:
    """A part's rows of windows. The first image of z begins with the first of these rows, y with the whole image, of
    which these are the pixels."""
    for column in range(0, d.c, lanes(y.memory)):
        left = d.c - column
        for image in range(part.images):
            for p in range(part.low, part.high):
                at = z.start + image * z.apart + (p - part.low) * d.kh * d.w * d.c + column
                to = y.start + (image * d.oh + p) * d.ow * y.apart + column
                for q in range(d.ow):
                    best = get(z.memory, at + q * d.kw * d.c, left)
                    for i in range(d.kh):
                        for j in range(d.kw):
                            value = get(z.memory, at + (i * d.w + q * d.kw + j) * d.c, left)
                            best = tile_where_exceeds(value, best, value, best)
                    put(best, y.memory, to + q * y.apart, left)


@inline
def window_peaks(shape, d, bounds, x, at, left):
    """The greatest of each window, of one vector of channels."""
    upper, lower, first, last, down, across, _ = bounds
    best = tile_fill(shape, x, -np.inf)
    for i in range(upper, lower):
        for j in range(first, last):
            value = load(shape, x, at + (i * down * d.w + j * across) * d.c, d.stride_w * d.c, left)
            best = tile_where_exceeds(value, best, value, best)
    return best


@inline
def peaks(shape, d, number, place, bounds, x, y):
    """The greatest of each window, for `pool.along`; x is the place of the images, y are pixels."""
    for c in range(0, d.c, lanes(y.memory)):
        at, to, vector = x.start + place * d.c + c, y.start + number * y.apart + c, lanes(y.memory)
        if d.c - c >= vector:  # without masks
            store(shape, window_peaks(shape, d, bounds, x.memory, at, vector), y.memory, to, y.apart, vector)
        else:
            store(shape, window_peaks(shape, d, bounds, x.memory, at, d.c - c), y.memory, to, y.apart, d.c - c)


@separate
def pool_windows(z: Place, d: Pool2dDims, low: int, high: int, y: Rows) -> None:
    """Rows number `low` to `high` of an image's windows, in whatever order they lie; z and y begin with the image."""
    for row in range(low, high):
        along(row, d, peaks, (z, y))


_MANY_PANELS = 8  # are shared out among threads
_HEAVY = 1 << 15  # elements of filters that a near cache does not hold beside a few rows, 128 KiB of float32


@inline
def is_pointwise(d):
    """Whether every place of the output sees the same place of the input alone."""
    plain = d.kh == 1 and d.kw == 1 and d.stride_h == 1 and d.stride_w == 1 and d.pad_h == 0 and d.pad_w == 0
    return plain and d.oh == d.h and d.ow == d.w


@inline
def is_slid(d, vector):
    """Whether the last panel of each group's filters is slid: where `multiply_group` alone reads them."""
    return d.groups > 1 and is_pointwise(d) and not is_depthwise(d) and slides(d.f // d.groups, vector)


@inline
def fold_depthwise(x, packed, bias, relu, d, y, pixel):
    """`conv2d_folded` with one filter a channel, without windows."""
    rows = x.shape[0] * d.oh
    items = min(rows, ITEMS)
    for i in prange(items):
        low, high = share(rows, i, items)
        for row in range(low, high):
            depthwise_row(flat(x), row, d, False, flat(packed), flat(bias), relu, Rows(flat(y), 0, pixel))


_PLACES = 4 * tile_rows(NARROW) if REGISTERS == 32 else 5 * tile_rows(NARROW)
"""Of an item: rows of whole tiles, and little enough that what a group leaves stays in a cache."""


@separate
def multiply_group(x: Flat, places: Part, d: Conv2dDims, group: int, filters: Filters, added: Flat, y: Rows) -> None:
    """The channels of a group at places number `places.low` to `places.high`, each of which sees itself alone."""
    vector, source, output, once = lanes(x), d.c // d.groups, d.f // d.groups, int64(1)
    panels, size = panel_count(output, vector), panel_size(source, vector)
    rows, lines = (
        Rows(x, places.low * d.c + group * source, d.c),
        Lines(once, places.high - places.low, 0 * once, 0 * once),
    )
    own = Filling(filters.memory, filters.start + group * panels * size, size, output, is_slid(d, vector))
    epilogue = Epilogue(filters.bias, group * output, output, filters.relu, False, added)
    to = Rows(y.memory, y.start + places.low * y.apart + group * output, y.apart)
    rows_times_panels(lines, rows, Sight(once, source, 0 * once), own, 0, panels, epilogue, to)


@inline
def fold_groups(x, packed, bias, residual, relu, d, y, pixel):
    """`conv2d_folded` over single places in groups, whose tiles rows of an image would not fill."""
    rows = x.shape[0] * d.h * d.w
    blocks = -(-rows // _PLACES)
    for item in prange(blocks * d.groups):
        low = item // d.groups * _PLACES
        places, filters = Part(1, low, min(low + _PLACES, rows)), Filters(flat(packed), 0, flat(bias), relu)
        multiply_group(flat(x), places, d, item % d.groups, filters, flat(residual), Rows(flat(y), 0, pixel))


@inline
def fold_places(x, packed, bias, residual, relu, pointwise, d, scratch, y, pixel):
    """`conv2d_folded` as a product of places and filters."""
    layout = packed_layout(d, x.shape[0], pointwise, lanes(y))
    epilogue = Epilogue(flat(bias), 0, d.f, relu, False, flat(residual))
    multiply_places(flat(x), d, layout, flat(packed), epilogue, flat(scratch), Rows(flat(y), 0, pixel))


_IN_HAND = 1 << 16  # elements of rows that wait to be pooled, 256 KiB of float32
_MOST_ROWS = 8  # of a window
_PARTS = 8  # of the windows: each begins with rows that the one before has computed as well


@inline
def rows_in_hand(d):
    """How many rows of a convolution's output wait to be pooled: so few that a near cache holds them."""
    return min(d.oh, max(_MOST_ROWS, _IN_HAND // (d.ow * d.f)))


@inline
def no_windows(pool):
    """Windows of a pixel each over the same images."""
    one, none = int64(1), int64(0)
    return Pool2dDims(pool.h, pool.w, pool.c, one, one, one, one, none, none, none, none, one, one, pool.h, pool.w)


@inline
def lies_apart(pool):
    """Whether windows lie side by side, inside the image, none of them with gaps."""
    inside = pool.pad_h == 0 and pool.pad_w == 0 and pool.end_h == 0 and pool.end_w == 0
    dense = pool.dilation_h == 1 and pool.dilation_w == 1
    return inside and dense and pool.stride_h == pool.kh and pool.stride_w == pool.kw


@inline
def pooled_parts(d, n):
    """In how many parts the windows of n images are gone through."""
    return max(1, min(n * d.oh, max(_PARTS, n)))


@inline
def fold_pooled(x, packed, bias, relu, pool, d, scratch, y, pixel):
    """`conv2d_folded` with windows, by rows of these: what they see stays in hand until the last one has seen it."""
    n, row, most, units = x.shape[0], d.ow * d.f, rows_in_hand(d), x.shape[0] * pool.oh
    layout, vector = packed_layout(d, int64(1), False, lanes(y)), lanes(y)
    filters = Filling(flat(packed), 0, panel_size(d.kh * d.kw * d.c, vector), d.f, False)
    epilogue = Epilogue(flat(bias), 0, d.f, relu, False, flat(packed[:0]))
    all_panels, parts = Part(1, 0, panel_count(d.f, vector)), min(units, pooled_parts(d, n))
    own = most * row + places_in_hand(d, vector)
    step = (most - (pool.kh - 1) * pool.dilation_h - 1) // pool.stride_h + 1  # rows of windows that those in hand make
    for item in prange(parts):
        low, high = share(units, item, parts)
        first, end = int64(0), int64(0)  # rows in hand
        at = item * own
        while low < high:
            image, p = low // pool.oh, low % pool.oh
            until = min(pool.oh, p + min(step, high - low))
            top = max(0, p * pool.stride_h - pool.pad_h)
            bottom = min(d.oh, (until - 1) * pool.stride_h - pool.pad_h + (pool.kh - 1) * pool.dilation_h + 1)
            kept = max(0, end - top) if p > 0 and end > 0 else 0
            move(flat(scratch), at + (top - first) * row, kept * row, at)
            first, end = top, bottom
            compute_rows(
                flat(x),
                d,
                layout,
                Part(image, top + kept, bottom),
                Place(flat(scratch), at + most * row),
                all_panels,
                filters,
                epilogue,
                Rows(flat(scratch), at - (image * d.oh + first) * row, d.f),
            )
            target = Rows(flat(y), image * pool.oh * pool.ow * pixel, pixel)
            pool_windows(Place(flat(scratch), at - first * row), pool, p, until, target)
            low += until - p


@inline
def fold_whole(z, pool, n, y, pixel):
    """The windows of whole images, whatever they are."""
    for row in prange(n * pool.oh):
        image, p = row // pool.oh, row % pool.oh
        target = Rows(flat(y), image * pool.oh * pool.ow * pixel, pixel)
        pool_windows(Place(flat(z), image * pool.h * pool.w * pool.c), pool, p, p + 1, target)


_WIDE_MAP = 1 << 16  # elements, 256 KiB of float32


@inline
def folded_layout(d, n, vector):
    """`correlation_layout`, but wide maps of few images are gone through along their rows: places of several images lie
    far apart, and other numbers of images than a tile's are covered badly."""
    w, layout = correlation(d, False).w, correlation_layout(d, n, False, 0, vector)
    if d.oh * d.ow * d.f >= _WIDE_MAP and w.inner_end - w.inner >= 4 * tile_rows(FULL):
        nothing, one = int64(0), int64(1)
        layout = CorrelationLayout(one, n, n * d.oh, nothing, nothing, nothing, nothing)
    return layout


@inline
def fold_correlate(x, packed, bias, relu, pool, d, heavy, scratch, y, pixel):
    """`conv2d_folded` as a correlation; with `heavy` filters they are shared out, each read once, in place of rows."""
    n = x.shape[0]
    layout = folded_layout(d, n, lanes(y))
    if layout.block > 0:
        for block in prange(layout.blocks):
            interleave(Place(flat(x), 0), n, d.h * d.w * d.c, block, layout, flat(scratch))
    row, together, pooled = d.ow * d.f, layout.together, pool.kh * pool.kw > 1
    # Rows of windows in hand at a time, and where their shares lie; without windows rows go straight to y.
    step = max(1, _BUFFER // (together * pool.kh * row)) if pooled else pool.oh
    z_image, y_image = step * pool.kh * row, pool.oh * pool.ow * pixel
    buffers, buffer = whole_lines(layout.filters), whole_lines(together * z_image)
    units, panels = layout.blocks * pool.oh, 0
    if heavy and layout.rows * packed.size > x.size * panel_count(d.f // d.groups, lanes(y)):
        units, panels = 0, d.groups * panel_count(d.f // d.groups, lanes(y))
    if panels > 0:
        for i in prange(panels):
            source = images_of(Place(flat(x), 0), flat(scratch), n, layout)
            filters = Filters(flat(packed), 0, flat(bias), relu)
            correlate_panel(source, layout.rows, d, i, filters, Maps(flat(y), 0, y_image, pixel))
    shares = min(units, _SHARES)
    for i in prange(shares):
        low, high = share(units, i, shares)
        while low < high:
            block, p = low // pool.oh, low % pool.oh
            end = min(pool.oh, p + min(step, high - low))
            first_row, end_row = block * d.oh + p * pool.kh, block * d.oh + end * pool.kh
            source = images_of(Place(flat(x), 0), flat(scratch), n, layout)
            filters = Filters(flat(packed), 0, flat(bias), relu)
            if pooled:
                first, to = first_image(block, source), buffers + i * buffer
                images = min(together, n - first)
                origin = to - first * z_image - p * pool.kh * row  # where row 0 of image 0 would be
                maps = Maps(flat(scratch), origin, z_image, d.f)
                correlate_rows(source, first_row, end_row, d, False, filters, maps)
                target = Rows(flat(y), first * y_image, pixel)
                pool_maxima(Rows(flat(scratch), to, z_image), pool, Part(images, p, end), target)
            else:
                correlate_rows(source, first_row, end_row, d, False, filters, Maps(flat(y), 0, y_image, pixel))
            low += end - p


@inline
def fold_winograd(x, packed, bias, residual, relu, pool, d, scratch, y, pixel):
    """`conv2d_folded` by minimal filtering. Windows other than 2 by 2 are pooled after it."""
    n, window, maps, apart, one = x.shape[0], pool.kh * pool.kw, y, pixel, int64(1)
    others = 0
    grid = Grid((d.oh + one) // 2, (d.ow + one) // 2, False)
    if pool.kh == 2 and pool.kw == 2 and lies_apart(pool):
        grid = Grid(pool.oh, pool.ow, True)
    elif window > 1:
        others, maps, apart = n, scratch[scratch.size - n * d.oh * d.ow * d.f :], d.f
    winograd(x, packed, Finish(flat(bias), flat(residual), relu, Rows(flat(maps), 0, apart)), grid, d, scratch)
    fold_whole(maps, pool, others, y, pixel)


@separate
def join(y: Flat, added: Flat, relu: bool, low: int, high: int) -> None:
    """y = relu(y + added), or without the ReLU, for elements `low` to `high`."""
    for at in range(low, high, lanes(y)):
        left = high - at
        value = tile_add(get(y, at, left), get(added, at, left))
        put(tile_where_positive(value, value) if relu else value, y, at, left)


@inline
def fit_in(pool, d, vector):
    """Whether windows are pooled while the rows that they see are in hand."""
    if is_gathered(d):
        return (pool.kh - 1) * pool.dilation_h < rows_in_hand(d)
    return lies_apart(pool) and not is_slid(d, vector)


@kernel(optional={"residual": 4}, small=lambda x, packed, d: few_positions(len(x), d, packed.size))
def _conv2d_folded(x, packed, bias, residual, relu, pool, d, scratch, y, pixel):
    panels, depthwise = d.groups * panel_count(d.f // d.groups, lanes(y)), d.groups > 1 and is_depthwise(d)
    heavy, joined, whole = packed.size > _HEAVY and panels >= _MANY_PANELS, 0, 0
    out, apart, windows = y, pixel, pool
    if pool.kh * pool.kw > 1 and not is_winograd(d) and not fit_in(pool, d, lanes(y)):
        whole, windows = x.shape[0], no_windows(pool)
        out, apart = scratch[scratch.size - whole * d.oh * d.ow * d.f :], d.f
    pooled = windows.kh * windows.kw > 1
    if is_winograd(d):
        fold_winograd(x, packed, bias, residual, relu, pool, d, scratch, y, pixel)
    elif pooled and is_gathered(d):
        fold_pooled(x, packed, bias, relu, pool, d, scratch, y, pixel)
    elif is_pointwise(d) and not pooled and not depthwise:
        if d.groups > 1:
            fold_groups(x, packed, bias, residual, relu, d, out, apart)
        else:
            fold_places(x, packed, bias, residual, relu, True, d, scratch, out, apart)
    elif is_gathered(d):
        fold_places(x, packed, bias, residual, relu, False, d, scratch, out, apart)
    else:
        joined, rectified = residual.size, relu and residual.size == 0
        if depthwise:
            fold_depthwise(x, packed, bias, rectified, d, out, apart)
        else:
            fold_correlate(x, packed, bias, rectified, windows, d, heavy and not pooled, scratch, out, apart)
    fold_whole(out, pool, whole, y, pixel)
    shares = min(joined, _SHARES)
    for i in prange(shares):
        low, high = share(joined, i, shares)
        join(flat(y), flat(residual), relu, low, high)


def conv2d_folded(
    x: Input,
    packed: Input,
    bias: Input,
    residual: Input | None,
    relu: bool,
    pool: Pool2dDims,
    d: Conv2dDims,
    scratch: Scratch,
    y: Output,
) -> None:
    _conv2d_folded(x, packed, bias, residual, relu, pool, d, scratch, *pixels(y))


@kernel
def _maxpool2d_inference(x, d, y, pixel):
    for row in prange(x.size // (d.h * d.w * d.c) * d.oh):
        along(row, d, peaks, (Place(flat(x), 0), Rows(flat(y), 0, pixel)))


def maxpool2d_inference(x: Input, d: Pool2dDims, y: Output) -> None:
    run(_maxpool2d_inference, x.size, x.reshape(-1), d, *pixels(y))
