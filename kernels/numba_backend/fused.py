"""Blocks of layers in one go. What each computes: `kernels.interface.Fused`.

A convolution's rows are pooled, and their moments taken, while they still lie in the first caches; backwards, the
gradient by the convolution's output exists for a few images at a time, between the kernel that makes it and the one
that reads it. Normalisation and ReLU then see the pooled map alone, a quarter of the elements or less.

Channels are one vector after the other: a vector's constants stay in registers for all positions. Sums are taken in
shares that depend on sizes alone, less a shift near the mean, and joined in float64 (Chan, Golub and LeVeque 1983).
"""

from __future__ import annotations

import numpy as np
from numpy import int64

from ..shapes import Conv2dDims, LinearDims, Pool2dDims
from .compiler.jit import Bytes, Flat, kernel, prange, region, separate
from .conv import (
    CHUNKS,
    ITEMS,
    add_chunks,
    chunk_size,
    conv2d_backward_scratch,
    conv2d_scratch,
    correlate_rows,
    filters_size,
    first_image,
    images_summed,
    images_together,
    interleave,
    interleaved_size,
    most_images_summed,
    needs_padding,
    pack_filters,
    row_count,
    share,
    small,
    sum_chunk,
)
from .linear import linear_backward_scratch, linear_gradients, linear_scratch
from .tiles.chunks import SMALL, load, store
from .tiles.gemm import (
    NARROW,
    few,
    matmul,
    matmul_scratch,
    multiply_panels,
    pack_panels,
    panel_size,
    panel_width,
)
from .tiles.tile import (
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

LINE, STRIP = TileShape(1, 1, 1), TileShape(4, 1, 4)
_SHARES = 64  # of rows: each has moments of its own


@region
def get(array, offset, left):
    """One vector, of which `left` elements are there."""
    return load(LINE, array, offset, 0, left)


@region
def put(tile, array, offset, left):
    """Store one vector, of which `left` elements are there."""
    store(LINE, tile, array, offset, 0, left)


# --- Forward --------------------------------------------------------------------------------------------------------


@region
def moment(value, shift, total, square):
    """The sums of offsets from the shift, and of their squares, with one more value."""
    offset = tile_subtract(value, shift)
    return tile_add(total, offset), tile_multiply_add(square, offset, offset)


@region
def window(z, at, d, kh, kw, left, sign, shift):
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


@separate
def pool_rows(
    z: Flat, zo: int, d: Pool2dDims, images: int, low: int, high: int, gamma: Flat, begin: bool, moments: Flat,
    mo: int, peak: Flat, argmax: Bytes, po: int,
) -> None:  # fmt: skip
    """Rows of windows `low` to `high` of images that lie at `zo` of z and at `po` of the pooled maps.

    Adds to the moments at `mo`: shift, sum of offsets from it and sum of their squares, by channel. The first call for
    a share begins them, and takes a first value for the shift.
    """
    z_row = d.w * d.c
    for column in range(0, d.c, lanes(z)):
        left = d.c - column
        sign = tile_sign(get(gamma, column, left))
        at_shift, at_total, at_square = mo + column, mo + d.c + column, mo + 2 * d.c + column
        total = square = tile_zeros(LINE, z)
        if begin:
            shift = get(z, zo + low * d.kh * z_row + column, left)
            put(shift, moments, at_shift, left)
        else:
            shift = get(moments, at_shift, left)
            total, square = get(moments, at_total, left), get(moments, at_square, left)
        for image in range(images):
            for p in range(low, high):
                at = zo + (image * d.h + p * d.kh) * z_row + column
                to = po + (image * d.oh + p) * d.ow * d.c + column
                for q in range(d.ow):
                    if d.kh == 2 and d.kw == 2:
                        found, place, sums, squares = window(z, at + 2 * q * d.c, d, 2, 2, left, sign, shift)
                    else:
                        found, place, sums, squares = window(z, at + q * d.kw * d.c, d, d.kh, d.kw, left, sign, shift)
                    total, square = tile_add(total, sums), tile_add(square, squares)
                    put(found, peak, to + q * d.c, left)
                    tile_store_integers(place, argmax, to + q * d.c, 0, left)
                end = d.h - p * d.kh if p == d.oh - 1 else d.kh
                for i in range(end):  # what no window covers
                    for j in range(d.ow * d.kw if i < d.kh else 0, d.w):
                        total, square = moment(get(z, at + i * z_row + j * d.c, left), shift, total, square)
        put(total, moments, at_total, left)
        put(square, moments, at_square, left)


@region
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
    peak: Flat, low: int, high: int, channels: int, mean: Flat, times: Flat, to: int, beta: Flat, y: Flat
) -> None:
    """y = relu((peak - mean) times + beta) at positions `low` to `high`."""
    for column in range(0, channels, lanes(y)):
        left = channels - column
        minus, scale, plus = get(mean, column, left), get(times, to + column, left), get(beta, column, left)
        for position in range(low, high):
            at = position * channels + column
            value = tile_multiply_add(plus, tile_subtract(get(peak, at, left), minus), scale)
            put(tile_where_positive(value, value), y, at, left)


@region
def normalise_peaks(peak, gamma, beta, mean, inv_std, times, to, y):
    """y = relu(gamma (peak - mean) inv_std + beta); the factors are kept at `to`."""
    channels = mean.size
    positions = y.size // channels
    for channel in range(channels):
        times[to + channel] = gamma[channel] * inv_std[channel]
    shares = min(positions, _SHARES)
    for i in prange(shares):
        low, high = share(positions, int64(i), shares)
        normalise_rows(flat(peak), low, high, channels, flat(mean), flat(times), to, flat(beta), flat(y))


def _slot_size(channels):
    """Elements of a share's moments, in whole cache lines."""
    return (3 * channels + 16) // 16 * 16


slot_size = region(_slot_size)


def batchnorm_relu_maxpool2d_scratch(d: Pool2dDims, n: int) -> int:
    """Moments by share, and one factor a channel."""
    return _SHARES * _slot_size(d.c) + d.c


@kernel(small=lambda x, *_: x.size <= SMALL)
def batchnorm_relu_maxpool2d(x, gamma, beta, eps, d, scratch, mean, inv_std, var, peak, y, argmax):
    n, slot = x.shape[0], slot_size(d.c)
    units = n * d.oh
    shares = min(units, _SHARES)
    for i in prange(shares):
        low, high = share(units, int64(i), shares)
        at, begin, count = int64(i) * slot, True, 0
        while low < high:
            image, p = low // d.oh, low % d.oh
            end = min(d.oh, p + high - low)
            pool_rows(
                flat(x), image * d.h * d.w * d.c, d, 1, p, end, flat(gamma), begin, flat(scratch), at, flat(peak),
                flat(argmax), image * d.oh * d.ow * d.c,
            )  # fmt: skip
            count += ((d.h if end == d.oh else end * d.kh) - p * d.kh) * d.w
            low, begin = low + end - p, False
        scratch[at + 3 * d.c] = count
    join_moments(scratch, slot, shares, eps, mean, inv_std, var)
    normalise_peaks(peak, gamma, beta, mean, inv_std, scratch, _SHARES * slot, y)


def conv2d_batchnorm_relu_maxpool2d_scratch(d: Conv2dDims, n: int) -> int:
    """Moments by share, one factor a channel, and what the convolution needs."""
    return _SHARES * _slot_size(d.f) + _slot_size(d.f) + conv2d_scratch(d, n)


@kernel(optional={"b": 1}, small=lambda x, w, b, gamma, beta, eps, pool, d, *_: small(len(x), d, w.size))
def conv2d_batchnorm_relu_maxpool2d(
    x, w, b, gamma, beta, eps, pool, d, scratch, z, mean, inv_std, var, peak, y, argmax
):
    n, slot = x.shape[0], slot_size(d.f)
    z_image, peak_image = d.oh * d.ow * d.f, pool.oh * pool.ow * d.f
    factors = _SHARES * slot
    start = factors + slot
    rows, size, together = row_count(d, n, False, z), interleaved_size(d, n, False, z), images_together(d, n, False, z)
    blocks = rows // d.oh
    filters = start + blocks * size
    pack_filters(flat(w), d, False, flat(scratch), filters)
    if size > 0:
        for block in prange(blocks):
            interleave(flat(x), n, d.h * d.w * d.c, block, size, flat(scratch), start)
    units = blocks * pool.oh
    shares = min(units, _SHARES)
    for i in prange(shares):
        low, high = share(units, int64(i), shares)
        at, begin, count = int64(i) * slot, True, 0
        while low < high:
            block, p = low // pool.oh, low % pool.oh
            end = min(pool.oh, p + high - low)
            first_row = p * pool.kh
            end_row = d.oh if end == pool.oh else end * pool.kh
            if size > 0:
                correlate_rows(
                    flat(scratch), start, size, n, block * d.oh + first_row, block * d.oh + end_row, d, False,
                    flat(scratch), filters, flat(b), False, flat(z), 0, z_image,
                )  # fmt: skip
            else:
                correlate_rows(
                    flat(x), 0, size, n, block * d.oh + first_row, block * d.oh + end_row, d, False, flat(scratch),
                    filters, flat(b), False, flat(z), 0, z_image,
                )  # fmt: skip
            first = block * together
            images = min(together, n - first)
            pool_rows(
                flat(z), first * z_image, pool, images, p, end, flat(gamma), begin, flat(scratch), at, flat(peak),
                flat(argmax), first * peak_image,
            )  # fmt: skip
            count += images * (end_row - first_row) * d.ow
            low, begin = low + end - p, False
        scratch[at + 3 * d.f] = count
    join_moments(scratch, slot, shares, eps, mean, inv_std, var)
    normalise_peaks(peak, gamma, beta, mean, inv_std, scratch, factors, y)


# --- Backward -------------------------------------------------------------------------------------------------------


@region
def add_windows(shape, dy, peak, at, channels, left, minus, scale, plus, total, product):
    """The sums of dy past the ReLU, and of its products with the peaks' offsets from the mean, with a few more rows."""
    offset = tile_subtract(tile_load_partial(shape, peak, at, channels, left), minus)
    gradient = tile_load_partial(shape, dy, at, channels, left)
    gradient = tile_where_positive(tile_multiply_add(plus, offset, scale), gradient)
    return tile_add(total, gradient), tile_multiply_add(product, gradient, offset)


@separate
def sum_windows(
    dy: Flat, peak: Flat, low: int, high: int, channels: int, mean: Flat, beta: Flat, factors: Flat, fo: int,
    sums: Flat, so: int,
) -> None:  # fmt: skip
    """The sums of `add_windows` over positions `low` to `high`, by channel."""
    for column in range(0, channels, lanes(dy)):
        left = channels - column
        minus, plus = tile_load_partial(STRIP, mean, column, 0, left), tile_load_partial(STRIP, beta, column, 0, left)
        scale = tile_load_partial(STRIP, factors, fo + column, 0, left)
        totals = products = tile_zeros(STRIP, dy)
        end = low + (high - low) // tile_rows(STRIP) * tile_rows(STRIP)
        for position in range(low, end, tile_rows(STRIP)):
            at = position * channels + column
            totals, products = add_windows(STRIP, dy, peak, at, channels, left, minus, scale, plus, totals, products)
        total, product = tile_sum(totals), tile_sum(products)
        minus1, plus1, scale1 = get(mean, column, left), get(beta, column, left), get(factors, fo + column, left)
        for position in range(end, high):
            at = position * channels + column
            total, product = add_windows(LINE, dy, peak, at, channels, left, minus1, scale1, plus1, total, product)
        put(total, sums, so + column, left)
        put(product, sums, so + channels + column, left)


@region
def window_sums(dy, peak, gamma, beta, mean, inv_std, count, factors, fo, sums, so, dgamma, dbeta):
    """dgamma, dbeta, and at `fo` what `expand_rows` needs; `count` is the number of values a channel was normalised by.

    With the gradient g past the ReLU: dbeta = the sum of g, dgamma = the sum of g (peak - mean) inv_std.
    """
    channels = mean.size
    positions = dy.size // channels
    for channel in range(channels):
        factors[fo + channel] = gamma[channel] * inv_std[channel]
    shares = min(positions, _SHARES)
    for i in prange(shares):
        low, high = share(positions, int64(i), shares)
        to = so + int64(i) * 2 * channels
        sum_windows(
            flat(dy), flat(peak), low, high, channels, flat(mean), flat(beta), flat(factors), fo, flat(sums), to
        )
    for channel in range(channels):
        total, product = 0.0, 0.0
        for i in range(shares):
            total += float(sums[so + 2 * i * channels + channel])
            product += float(sums[so + (2 * i + 1) * channels + channel])
        dbeta[channel], dgamma[channel] = total, product * inv_std[channel]
        factors[fo + channels + channel] = -total / count
        factors[fo + 2 * channels + channel] = -product * inv_std[channel] * inv_std[channel] / count


@region
def share_gradient(z, zo, d, kh, kw, q, left, gradient, place, minus, scale, level, slope, dz, do):
    """One window of `expand_rows`."""
    for i in range(kh):
        for j in range(kw):
            there = (i * d.w + q * kw + j) * d.c
            offset = tile_subtract(get(z, zo + there, left), minus)
            own = tile_add(level, tile_where_equal(place, tile_fill(LINE, z, i * kw + j), gradient))
            put(tile_multiply(tile_multiply_add(own, offset, slope), scale), dz, do + there, left)


@separate
def expand_rows(
    dy: Flat, z: Flat, zo: int, peak: Flat, argmax: Bytes, po: int, d: Pool2dDims, images: int, low: int, high: int,
    mean: Flat, beta: Flat, factors: Flat, fo: int, dz: Flat, do: int,
) -> None:  # fmt: skip
    """dz = scale (g where the window's peak is - level - slope (z - mean)), for rows of windows `low` to `high`.

    The images lie at `zo` of z, at `po` of the pooled maps and at `do` of dz; scale, -level and -slope at `fo`.
    """
    z_row = d.w * d.c
    for column in range(0, d.c, lanes(z)):
        left = d.c - column
        minus, plus = get(mean, column, left), get(beta, column, left)
        scale, level = get(factors, fo + column, left), get(factors, fo + d.c + column, left)
        slope = get(factors, fo + 2 * d.c + column, left)
        for image in range(images):
            for p in range(low, high):
                at = (image * d.h + p * d.kh) * z_row + column
                pooled = po + (image * d.oh + p) * d.ow * d.c + column
                for q in range(d.ow):
                    here = pooled + q * d.c
                    value = tile_multiply_add(plus, tile_subtract(get(peak, here, left), minus), scale)
                    gradient = tile_where_positive(value, get(dy, here, left))
                    place = tile_load_integers(LINE, z, argmax, here, 0, left)
                    if d.kh == 2 and d.kw == 2:
                        share_gradient(
                            z, zo + at, d, 2, 2, q, left, gradient, place, minus, scale, level, slope, dz, do + at
                        )
                    else:
                        share_gradient(
                            z, zo + at, d, d.kh, d.kw, q, left, gradient, place, minus, scale, level, slope, dz, do + at
                        )
                end = d.h - p * d.kh if p == d.oh - 1 else d.kh
                for i in range(end):  # what no window covers
                    for j in range(d.ow * d.kw if i < d.kh else 0, d.w):
                        there = at + i * z_row + j * d.c
                        offset = tile_subtract(get(z, zo + there, left), minus)
                        put(tile_multiply(tile_multiply_add(level, offset, slope), scale), dz, do + there, left)


def _sums_size(channels):
    return (2 * _SHARES * channels + 3 * channels + 15) // 16 * 16


sums_size = region(_sums_size)


def batchnorm_relu_maxpool2d_backward_scratch(d: Pool2dDims, n: int) -> int:
    """Sums by share, and three factors a channel."""
    return _sums_size(d.c)


@kernel(optional={"dx": 4}, small=lambda dy, x, *_: x.size <= SMALL)
def batchnorm_relu_maxpool2d_backward(dy, x, gamma, beta, mean, inv_std, peak, argmax, d, scratch, dx, dgamma, dbeta):
    n, count, factors = x.shape[0], x.size // d.c, 2 * _SHARES * d.c
    window_sums(dy, peak, gamma, beta, mean, inv_std, count, scratch, factors, scratch, 0, dgamma, dbeta)
    units = n * d.oh if dx.size else 0
    shares = min(units, _SHARES)
    for i in prange(shares):
        low, high = share(units, int64(i), shares)
        while low < high:
            image, p = low // d.oh, low % d.oh
            end = min(d.oh, p + high - low)
            at = image * d.h * d.w * d.c
            expand_rows(
                flat(dy), flat(x), at, flat(peak), flat(argmax), image * d.oh * d.ow * d.c, d, 1, p, end, flat(mean),
                flat(beta), flat(scratch), factors, flat(dx), at,
            )  # fmt: skip
            low += end - p


def conv2d_batchnorm_relu_maxpool2d_backward_scratch(d: Conv2dDims, n: int) -> int:
    """Sums, factors, the gradient by the convolution's output, and what the convolution needs."""
    images = max(n, min(n, CHUNKS) * most_images_summed(d))
    return _sums_size(d.f) + images * d.oh * d.ow * d.f + 16 + conv2d_backward_scratch(d, n)


@kernel(optional={"dx": 4, "db": 1}, small=lambda dy, x, w, *rest: small(len(x), rest[8], w.size))
def conv2d_batchnorm_relu_maxpool2d_backward(
    dy, x, w, z, gamma, beta, mean, inv_std, peak, argmax, pool, d, scratch, dx, dw, db, dgamma, dbeta
):
    n, none = x.shape[0], scratch[:0]
    z_image, peak_image, dx_image = d.oh * d.ow * d.f, pool.oh * pool.ow * d.f, d.h * d.w * d.c
    factors = 2 * _SHARES * d.f
    window_sums(dy, peak, gamma, beta, mean, inv_std, n * d.oh * d.ow, scratch, factors, scratch, 0, dgamma, dbeta)
    for i in range(db.size):
        db[i] = 0

    chunks, together = min(n, CHUNKS), images_summed(d, needs_padding(d))
    start, size = sums_size(d.f), chunk_size(d)
    dz = start + chunks * size  # of all images if dx is wanted, else of those that a chunk has in hand
    kept = n if dx.size else chunks * together
    rows, block_size, blocks, interleaved, filters = 0, 0, 0, 0, 0
    if dx.size:
        rows, block_size = row_count(d, n, True, dx), interleaved_size(d, n, True, dx)
        if block_size > 0:
            blocks = rows // d.h
        interleaved = dz + (kept * z_image + 15) // 16 * 16
        filters = interleaved + blocks * block_size
        pack_filters(flat(w), d, True, flat(scratch), filters)
    for c in prange(chunks):
        chunk = int64(c)
        first, end = share(n, chunk, chunks)
        for image in range(first, end, together):
            images = min(together, end - image)
            to = dz + (image if dx.size else chunk * together) * z_image
            expand_rows(
                flat(dy), flat(z), image * z_image, flat(peak), flat(argmax), image * peak_image, pool, images, 0,
                pool.oh, flat(mean), flat(beta), flat(scratch), factors, flat(scratch), to,
            )  # fmt: skip
            sum_chunk(
                flat(x), flat(scratch), to - image * z_image, d, image, image + images, image == first, False,
                flat(scratch), start + chunk * size,
            )  # fmt: skip
    for block in prange(blocks):
        interleave(flat(scratch[dz:]), n, z_image, block, block_size, flat(scratch), interleaved)
    items = max(min(rows, ITEMS), CHUNKS)
    for i in prange(items):
        item = int64(i)
        first, end = share(dw.size, item, items)
        add_chunks(flat(scratch), start, size, chunks, flat(dw), first, end)
        low, high = share(rows, item, items)
        if block_size > 0:
            correlate_rows(
                flat(scratch), interleaved, block_size, n, low, high, d, True, flat(scratch), filters, flat(none),
                False, flat(dx), 0, dx_image,
            )  # fmt: skip
        else:
            correlate_rows(
                flat(scratch), dz, block_size, n, low, high, d, True, flat(scratch), filters, flat(none), False,
                flat(dx), 0, dx_image,
            )  # fmt: skip


# --- Linear ---------------------------------------------------------------------------------------------------------


linear_relu_scratch = linear_scratch


@kernel(optional={"b": 1}, small=lambda x, w, *_: few(len(x) * w.size, w.size))
def linear_relu(x, w, b, d, scratch, y):
    matmul(x, d.k, 1, x.shape[0], w, d.m, 1, d.k, d.m, b, True, scratch[:0], scratch, y)


def linear_relu_backward_scratch(d: LinearDims, n: int) -> int:
    """The gradient past the ReLU, and what the products need."""
    return n * d.m + 16 + linear_backward_scratch(d, n)


@separate
def past_relu(dy: Flat, y: Flat, low: int, high: int, out: Flat) -> None:
    """out = dy where y is not 0 or less, else 0, for elements `low` to `high`."""
    for at in range(low, high, lanes(y)):
        left = high - at
        put(tile_where_positive(get(y, at, left), get(dy, at, left)), out, at, left)


@kernel(optional={"dx": 2, "db": 1}, small=lambda dy, y, x, w, *_: few(2 * len(x) * w.size, w.size))
def linear_relu_backward(dy, y, x, w, d, scratch, dx, dw, db):
    shares = min(x.shape[0], _SHARES)
    for i in prange(shares):
        low, high = share(dy.size, int64(i), shares)
        past_relu(flat(dy), flat(y), low, high, flat(scratch))
    linear_gradients(scratch, x, w, d, scratch[(dy.size + 15) // 16 * 16 :], dx, dw, db)


# --- Inference ------------------------------------------------------------------------------------------------------


def always(*_: object) -> bool:
    """These are rare."""
    return True


def linear_fold_size(d: LinearDims) -> int:
    """Elements of packed weights."""
    return matmul_scratch(d.k, d.m)


@kernel(optional={"b": 1}, small=always)
def linear_fold(w, b, d, packed, bias):
    none = packed[:0]
    for column in range(d.m):
        bias[column] = b[column] if b.size else bias.dtype.type(0)
    pack_panels(w, d.m, 1, d.k, d.m, none, packed)


def linear_folded_scratch(d: LinearDims, n: int) -> int:
    """None."""
    return 0


@kernel(small=lambda x, packed, *_: few(len(x) * packed.size, packed.size))
def linear_folded(x, packed, bias, relu, d, scratch, y):
    multiply_panels(x, d.k, 1, x.shape[0], packed, d.k, d.m, bias, relu, y)


def conv2d_fold_size(d: Conv2dDims) -> int:
    """Elements of packed filters."""
    return filters_size(d)


@kernel(optional={"b": 1, "gamma": 1, "beta": 1, "mean": 1, "var": 1}, small=always)
def conv2d_fold(w, b, gamma, beta, mean, var, eps, d, packed, bias):
    zero, taps = bias.dtype.type(0), d.kh * d.kw * d.c
    pack_filters(flat(w), d, False, flat(packed), 0)
    for f in range(d.f):
        bias[f] = b[f] if b.size else zero
        if gamma.size:
            scale = gamma[f] / np.sqrt(var[f] + eps)
            bias[f] = (bias[f] - mean[f]) * scale + beta[f]
            panel, column = f // (2 * lanes(w)), f // (2 * lanes(w)) * 2 * lanes(w)
            width, start = panel_width(column, d.f, w), panel * panel_size(taps, w) + f - column
            for tap in range(taps):
                packed[start + tap * width] *= scale


_BUFFER = 4096  # elements of a convolution's output in hand, 16 KiB of float32: a part of the first cache


def conv2d_folded_scratch(d: Conv2dDims, n: int) -> int:
    """Interleaved images, and the rows that each share has in hand: less than a block of images, or the buffer."""
    rows = max(_BUFFER, tile_rows(NARROW) * d.oh * d.ow * d.f)
    return conv2d_scratch(d, n) + _SHARES * (rows + 16)


@separate
def pool_maxima(
    z: Flat, zo: int, z_image: int, d: Pool2dDims, images: int, low: int, high: int, y: Flat, yo: int
) -> None:
    """Rows of windows `low` to `high`. Row `low` of the first image begins at `zo`, the pooled image at `yo`."""
    for column in range(0, d.c, lanes(y)):
        left = d.c - column
        for image in range(images):
            for p in range(low, high):
                at = zo + image * z_image + (p - low) * d.kh * d.w * d.c + column
                to = yo + (image * d.oh + p) * d.ow * d.c + column
                for q in range(d.ow):
                    best = get(z, at + q * d.kw * d.c, left)
                    for i in range(d.kh):
                        for j in range(d.kw):
                            value = get(z, at + (i * d.w + q * d.kw + j) * d.c, left)
                            best = tile_where_exceeds(value, best, value, best)
                    put(best, y, to + q * d.c, left)


@kernel(small=lambda x, packed, bias, relu, pool, d, *_: small(len(x), d, packed.size))
def conv2d_folded(x, packed, bias, relu, pool, d, scratch, y):
    n = x.shape[0]
    rows, size, together = row_count(d, n, False, y), interleaved_size(d, n, False, y), images_together(d, n, False, y)
    blocks = rows // d.oh
    if size > 0:
        for block in prange(blocks):
            interleave(flat(x), n, d.h * d.w * d.c, block, size, flat(scratch), 0)
    row = d.ow * d.f
    pooled = pool.kh * pool.kw > 1
    # Rows of windows in hand at a time, and where their shares lie; without windows rows go straight to y.
    step = max(1, _BUFFER // (together * pool.kh * row)) if pooled else pool.oh
    z_image = step * pool.kh * row if pooled else pool.oh * row
    buffers, buffer = (blocks * size + 15) // 16 * 16, (together * z_image + 15) // 16 * 16
    units = blocks * pool.oh
    shares = min(units, _SHARES)
    for i in prange(shares):
        low, high = share(units, int64(i), shares)
        while low < high:
            block, p = low // pool.oh, low % pool.oh
            end = min(pool.oh, p + min(step, high - low))
            first_row, end_row = block * d.oh + p * pool.kh, block * d.oh + end * pool.kh
            first = first_image(block, together, n, size)
            images = min(together, n - first)
            if pooled:
                to = buffers + int64(i) * buffer
                origin = to - first * z_image - p * pool.kh * row  # where row 0 of image 0 would be
                if size > 0:
                    correlate_rows(
                        flat(scratch), 0, size, n, first_row, end_row, d, False, flat(packed), 0, flat(bias), relu,
                        flat(scratch), origin, z_image,
                    )  # fmt: skip
                else:
                    correlate_rows(
                        flat(x), 0, size, n, first_row, end_row, d, False, flat(packed), 0, flat(bias), relu,
                        flat(scratch), origin, z_image,
                    )  # fmt: skip
                pool_maxima(flat(scratch), to, z_image, pool, images, p, end, flat(y), first * pool.oh * pool.ow * d.f)
            elif size > 0:
                correlate_rows(
                    flat(scratch), 0, size, n, first_row, end_row, d, False, flat(packed), 0, flat(bias), relu, flat(y),
                    0, z_image,
                )  # fmt: skip
            else:
                correlate_rows(
                    flat(x), 0, size, n, first_row, end_row, d, False, flat(packed), 0, flat(bias), relu, flat(y), 0,
                    z_image,
                )  # fmt: skip
            low += end - p
