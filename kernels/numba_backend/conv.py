"""Convolutions as tile contractions. Formulas and shapes: `kernels.interface`.

Forward, and the gradient of the input, are the same operation, `correlate`: the latter slides the flipped filters over
dy, and where the forward has a stride it has a divisor. Each output position meets exactly the taps whose source
exists, so padding costs nothing. The rows of a tile are images, since those share the taps of a position; small
batches take neighbouring positions with equal taps instead.

The gradient of the filters has (kh, kw, c) taps as rows and sums over images and positions. Chunks of images have sums
of their own, added in order: the result does not depend on the number of threads.

Depthwise convolutions multiply vectors of channels by vectors of weights, which is no contraction.
"""

from math import gcd
from typing import NamedTuple

from numpy import int64

from kernels.numba_backend.contract import (
    FULL,
    HALF,
    NARROW,
    ONE,
    contract,
    pack_columns,
    pack_rows,
    panel_size,
    panel_width,
    rows_times_panel,
    sum_rows,
)
from kernels.numba_backend.jit import Flat, kernel, prange, region, separate
from kernels.numba_backend.tile import REGISTERS, VECTOR_BYTES, Shape, flat, lanes, tile_add_to, tile_rows, tile_zeros
from kernels.shapes import Conv2dDims


class Axis(NamedTuple):
    """One axis of a correlation: output o meets source (o stride - pad + tap dilation) / divisor, where that is whole.

    The real taps of an output are `tap_step` apart, their sources `source_step`. Outputs from `inner` to `inner_end`
    meet every tap.
    """

    sources: int
    outputs: int
    taps: int
    stride: int
    pad: int
    dilation: int
    divisor: int
    tap_step: int
    source_step: int
    inner: int
    inner_end: int


class Correlation(NamedTuple):
    """What slides over what: the axes, and the channels of source and output, all together and in one of the groups."""

    h: Axis
    w: Axis
    source: int
    output: int
    group_source: int
    group_output: int
    groups: int


@region
def axis(sources, outputs, taps, stride, pad, dilation, divisor):
    """The `Axis` of these sizes."""
    common = gcd(divisor, dilation)
    inner, inner_end = outputs, outputs
    if divisor == 1:
        inner = -(-pad // stride)
        inner_end = min((sources - 1 + pad - (taps - 1) * dilation) // stride + 1, outputs)
    return Axis(
        sources, outputs, taps, stride, pad, dilation, divisor, divisor // common, dilation // common, inner, inner_end
    )


@region
def correlation(d, flipped):
    """Forward: source x, output y. Flipped: source dy, output dx, taps counted from the last."""
    one = int64(1)
    if flipped:
        h = axis(d.oh, d.h, d.kh, one, (d.kh - 1) * d.dilation_h - d.pad_h, d.dilation_h, d.stride_h)
        w = axis(d.ow, d.w, d.kw, one, (d.kw - 1) * d.dilation_w - d.pad_w, d.dilation_w, d.stride_w)
        return Correlation(h, w, d.f, d.c, d.f // d.groups, d.c // d.groups, d.groups)
    h = axis(d.h, d.oh, d.kh, d.stride_h, d.pad_h, d.dilation_h, one)
    w = axis(d.w, d.ow, d.kw, d.stride_w, d.pad_w, d.dilation_w, one)
    return Correlation(h, w, d.c, d.f, d.c // d.groups, d.f // d.groups, d.groups)


@region
def real_taps(axis, output):
    """The taps of an output whose source exists: (first tap, its source, number)."""
    if axis.inner <= output < axis.inner_end:  # without the divisions below, which cost as much as a small tile
        return 0, output * axis.stride - axis.pad, axis.taps
    tap = 0
    while tap < axis.tap_step and (output * axis.stride - axis.pad + tap * axis.dilation) % axis.divisor != 0:
        tap += 1
    if tap == axis.tap_step:
        return 0, 0, 0
    source = (output * axis.stride - axis.pad + tap * axis.dilation) // axis.divisor
    if source < 0:
        skipped = -(source // axis.source_step)
        source += skipped * axis.source_step
        tap += skipped * axis.tap_step
    if tap >= axis.taps or source >= axis.sources:
        return 0, 0, 0
    number = min((axis.taps - 1 - tap) // axis.tap_step, (axis.sources - 1 - source) // axis.source_step) + 1
    return tap, source, number


# --- Correlation ----------------------------------------------------------------------------------------------------


@region
def panel_count(columns, like):
    """Panels that hold so many columns."""
    return -(-columns // (2 * lanes(like)))


@separate
def pack_filters(w: Flat, d: Conv2dDims, flipped: bool, packed: Flat) -> None:
    """Pack the filters w (taps, channels in a group, all filters) into panels.

    A panel is [tap][channel][some filters], or `flipped`: [last tap first][filter][some channels].
    """
    c, taps = correlation(d, flipped), d.kh * d.kw
    panels, size = panel_count(c.group_output, w), panel_size(taps * c.group_source, w)
    for p in range(c.groups * panels):
        group, column = p // panels, p % panels * 2 * lanes(w)
        width, left = panel_width(column, c.group_output, w), c.group_output - column
        if flipped:
            for tap in range(taps):
                start = ((taps - 1 - tap) * c.group_output + column) * c.source + group * c.group_source
                to = p * size + tap * c.group_source * width
                pack_columns(w, start, c.source, c.group_source, left, width, packed, to)
        else:
            start = group * c.group_output + column
            pack_rows(w, start, c.output, taps * c.group_source, left, width, packed, p * size)


@region
def images_together(d, n, flipped, like):
    """How many images are the rows of tiles: those of a full tile, or 1 where a batch is too small for half of one."""
    full, half = tile_rows(FULL), tile_rows(HALF)
    if (d.c if flipped else d.f) // d.groups <= lanes(like):
        full, half = tile_rows(NARROW), tile_rows(FULL)
    return full if n >= half else 1


@separate
def correlate_row(x: Flat, n: int, item: int, d: Conv2dDims, flipped: bool, packed: Flat, bias: Flat, y: Flat) -> None:
    """Row after row of block after block of images: output row number `item`, in every channel."""
    c = correlation(d, flipped)
    h, w = c.h, c.w
    row, together = item % h.outputs, images_together(d, n, flipped, y)
    first = item // h.outputs * together
    if together > 1:
        first = min(first, n - together // 2)  # a short last block takes in images that are done already
    images = min(together, n - first)
    x_image, y_image = h.sources * w.sources * c.source, h.outputs * w.outputs * c.output
    tap_h, source_h, number_h = real_taps(h, row)
    size, panels = panel_size(h.taps * w.taps * c.group_source, y), panel_count(c.group_output, y)
    for p in range(c.groups * panels):
        group, column = p // panels, p % panels * 2 * lanes(y)
        width, left = panel_width(column, c.group_output, y), c.group_output - column
        channel = group * c.group_output + column
        rows_are_images = images > 1
        for image in range(first, first + 1 if rows_are_images else first + images):
            output = 0
            while output < w.outputs:
                tap_w, source_w, number_w = real_taps(w, output)
                count, next_output, x_row, y_row = images, output + 1, x_image, y_image
                if not rows_are_images:
                    if w.inner <= output < w.inner_end:
                        next_output = w.inner_end
                    count, x_row, y_row = next_output - output, w.stride * c.source, c.output
                along_w, run = number_w, c.group_source
                if c.groups == 1 and w.tap_step == 1 and w.source_step == 1:  # all real (kw, c) lie in one run
                    along_w, run = 1, number_w * c.group_source
                nest = (
                    number_h, h.source_step * w.sources * c.source, h.tap_step * w.taps * c.group_source * width,
                    along_w, w.source_step * c.source, w.tap_step * c.group_source * width,
                    run, 1, width,
                )  # fmt: skip
                xo = image * x_image + (source_h * w.sources + source_w) * c.source + group * c.group_source
                bo = p * size + (tap_h * w.taps + tap_w) * c.group_source * width
                yo = image * y_image + (row * w.outputs + output) * c.output + channel
                rows_times_panel(count, x, xo, x_row, packed, bo, width, nest, bias, channel, left, y, yo, y_row)
                output = next_output


@region
def row_count(d, n, flipped, like):
    """Rows for `correlate_row`."""
    return -(-n // images_together(d, n, flipped, like)) * (d.h if flipped else d.oh)


def packed_size(taps: int, group_source: int, group_output: int, groups: int) -> int:
    """Elements of scratch for all packed filters, in either dtype."""
    widest = VECTOR_BYTES // 4
    return groups * (taps * group_source + widest) * (group_output + 2 * widest)


# --- Gradient of the filters ----------------------------------------------------------------------------------------

# Few channels give few rows side by side; with 5 or 3 of them, rows of several kh make one tile.
SIDE5, SIDE3 = Shape(25 if REGISTERS == 32 else 10, 1, 5), Shape(9, 1, 3)
_PIXELS = 128  # positions summed in registers before the sums go to memory; their part of dy stays in the first cache
_CHUNKS = 16


@region
def add_tile(shape, x, xo, row, group, dy, do, nest, first, dw, wo, w_row, columns):
    """dw rows += `contract`, but not the rows before `first`."""
    tile = contract(tile_zeros(shape, dw), x, xo, row, group, dy, do, nest)
    tile_add_to(tile, dw, wo, w_row, first, columns)


@region
def add_rows(count, x, xo, dy, do, width, nest, dw, wo, w_row, columns):
    """dw[wo + r w_row + i] += `contract`, for r < count rows side by side in x and i < columns of a panel."""
    r = 0
    while r < count:
        left = count - r
        if width == lanes(dw) and left > tile_rows(FULL) and count >= tile_rows(NARROW):
            at = min(r, count - tile_rows(NARROW))
            add_tile(NARROW, x, xo + at, 1, 0, dy, do, nest, r - at, dw, wo + at * w_row, w_row, columns)
            r = at + tile_rows(NARROW)
        elif left > tile_rows(HALF) and count >= tile_rows(FULL):
            at = min(r, count - tile_rows(FULL))
            add_tile(FULL, x, xo + at, 1, 0, dy, do, nest, r - at, dw, wo + at * w_row, w_row, columns)
            r = at + tile_rows(FULL)
        elif count >= tile_rows(HALF):
            at = min(r, count - tile_rows(HALF))
            add_tile(HALF, x, xo + at, 1, 0, dy, do, nest, r - at, dw, wo + at * w_row, w_row, columns)
            r = at + tile_rows(HALF)
        else:
            add_tile(ONE, x, xo + r, 1, 0, dy, do, nest, r - r, dw, wo + r * w_row, w_row, columns)
            r += 1


@separate
def add_panel(x: Flat, xo: int, dy: Flat, do: int, dy_image: int, pixel: int, images: int, low: int, high: int, d: Conv2dDims, group: int, column: int, width: int, dw: Flat, wo: int) -> None:
    """Add the part of output rows `low` to `high` of `images` images to the columns of one panel of dw.

    x starts at the first of the images, dy at its row `low`, in the panel's first column; its pixels lie `pixel` apart.
    """
    row, f = d.w * d.c, d.f
    in_group, left = d.c // d.groups, d.f // d.groups - column
    columns = wo + group * (d.f // d.groups) + column
    side_by_side = joined(d)
    square = square_rows(d)
    if square > 0 and width == lanes(dw):
        nest = (
            images, d.h * row, dy_image, high - low, d.stride_h * row, d.ow * pixel, d.ow, d.stride_w * d.c, pixel
        )  # fmt: skip
        kh = 0
        while kh < d.kh:
            at = min(kh, d.kh - square)
            ao, to = xo + (low * d.stride_h + at * d.dilation_h) * row, columns + at * d.kw * d.c * f
            skip = (kh - at) * d.kw * d.c
            if d.kw * d.c == 5:
                add_tile(SIDE5, x, ao, 1, d.dilation_h * row, dy, do, nest, skip, dw, to, f, left)
            else:
                add_tile(SIDE3, x, ao, 1, d.dilation_h * row, dy, do, nest, skip, dw, to, f, left)
            kh = at + square
        return
    for kh in range(d.kh):
        first, end = real_outputs(d.h, d.stride_h, d.pad_h - kh * d.dilation_h, low, high)
        for kw in range(1 if side_by_side else d.kw):
            left_end, right_end = real_outputs(d.w, d.stride_w, d.pad_w - kw * d.dilation_w, 0, d.ow)
            if side_by_side:
                left_end, right_end = 0, d.ow
            nest = (
                images, d.h * row, dy_image, end - first, d.stride_h * row, d.ow * pixel,
                right_end - left_end, d.stride_w * d.c, pixel,
            )  # fmt: skip
            ih, iw = first * d.stride_h - d.pad_h + kh * d.dilation_h, left_end * d.stride_w - d.pad_w + kw * d.dilation_w
            ao = xo + ih * row + iw * d.c + group * in_group
            bo = do + ((first - low) * d.ow + left_end) * pixel
            to = columns + (kh * d.kw + kw) * in_group * f
            rows = d.kw * d.c if side_by_side else in_group
            if end <= first or right_end <= left_end:
                continue
            add_rows(rows, x, ao, dy, bo, width, nest, dw, to, f, left)


@region
def real_outputs(sources, stride, before, low, high):
    """Outputs o from `low` to `high` whose source o stride - before exists."""
    return max(low, -(-before // stride)), min(high, (sources - 1 + before) // stride + 1)


@region
def joined(d):
    """Whether all taps of one kh read neighbouring elements at every output."""
    return d.groups == 1 and d.dilation_w == 1 and d.pad_w == 0


@region
def square_rows(d):
    """How many kh share a tile, 0 if none do."""
    if not joined(d) or d.pad_h > 0:
        return 0
    if d.kw * d.c == 5 and d.kh >= tile_rows(SIDE5) // 5:
        return tile_rows(SIDE5) // 5
    return 3 if d.kw * d.c == 3 and d.kh >= 3 else 0


def _needs_padding(d):
    """Whether a copy of each image with its border of zeros is faster than taps clipped one channel count at a time."""
    return d.pad_h + d.pad_w > 0 and d.groups == 1 and d.dilation_w == 1 and d.c < 8


def _chunk_layout(d, pad):
    """Where a chunk's scratch keeps the sums of dy, a packed part of dy and a padded image, after dw; and its size."""
    sums = d.kh * d.kw * (d.c // d.groups) * d.f
    packed = (sums + d.f + 15) // 16 * 16
    padded = packed + (_PIXELS + d.ow) * 2 * (VECTOR_BYTES // 4)
    size = padded
    if pad:
        size += ((d.h + 2 * d.pad_h) * (d.w + 2 * d.pad_w) * d.c + 15) // 16 * 16
    return sums, packed, padded, size


needs_padding, chunk_layout = region(_needs_padding), region(_chunk_layout)


@separate
def copy_padded(x: Flat, xo: int, d: Conv2dDims, out: Flat, oo: int) -> None:
    """An image with its border of zeros."""
    row = (d.w + 2 * d.pad_w) * d.c
    for i in range(oo, oo + (d.h + 2 * d.pad_h) * row):
        out[i] = 0
    for h in range(d.h):
        to = oo + (h + d.pad_h) * row + d.pad_w * d.c
        for i in range(d.w * d.c):
            out[to + i] = x[xo + h * d.w * d.c + i]


@separate
def sum_chunk(x: Flat, dy: Flat, d: Conv2dDims, first: int, end: int, sums_wanted: bool, scratch: Flat, start: int) -> None:
    """dw, and the sums of dy, of images `first` to `end`, at `start` of scratch."""
    sums, packed, padded, size = chunk_layout(d, needs_padding(d))
    for i in range(start, start + sums):
        scratch[i] = 0
    packed, padded = start + packed, start + padded
    pad = needs_padding(d)
    e = d
    if pad:
        none = d.pad_h - d.pad_h
        e = Conv2dDims(
            d.h + 2 * d.pad_h, d.w + 2 * d.pad_w, d.c, d.kh, d.kw, d.f, d.stride_h, d.stride_w, none, none,
            d.dilation_h, d.dilation_w, d.groups, d.oh, d.ow,
        )  # fmt: skip
    rows = min(d.oh, -(-_PIXELS // d.ow))
    together = max(1, _PIXELS // (d.oh * d.ow)) if rows == d.oh and not pad else 1
    filters = d.f // d.groups
    square = square_rows(e) > 0
    step = lanes(dy) if square else 2 * lanes(dy)
    for image in range(first, end, together):
        images = min(together, end - image)
        if pad:
            copy_padded(x, image * d.h * d.w * d.c, d, scratch, padded)
        for low in range(0, d.oh, rows):
            high = min(low + rows, d.oh)
            at, dy_image = (image * d.oh + low) * d.ow * d.f, d.oh * d.ow * d.f
            for group in range(d.groups):
                for column in range(0, filters, step):
                    width = min(step, panel_width(column, filters, dy))
                    b, bo, b_image, pixel = dy, at, dy_image, d.f
                    if d.groups > 1 or width != filters or (width < 2 * lanes(dy) and not square):
                        b, bo, b_image, pixel = scratch, packed, (high - low) * d.ow * width, width
                        for i in range(images):
                            pack_rows(
                                dy, at + i * dy_image + group * filters + column, d.f, (high - low) * d.ow,
                                min(width, filters - column), width, scratch, packed + i * b_image,
                            )  # fmt: skip
                    if pad:
                        add_panel(
                            scratch, padded, b, bo, b_image, pixel, images, low, high, e, group, column, width,
                            scratch, start,
                        )  # fmt: skip
                    else:
                        add_panel(
                            x, image * d.h * d.w * d.c, b, bo, b_image, pixel, images, low, high, e, group, column,
                            width, scratch, start,
                        )  # fmt: skip
    if sums_wanted:
        pixels = d.oh * d.ow
        for column in range(0, d.f, 2 * lanes(dy)):
            to = start + sums + column
            sum_rows(dy, first * pixels * d.f + column, d.f, (end - first) * pixels, d.f - column, scratch, to)


@separate
def add_chunks_part(scratch: Flat, start: int, size: int, chunks: int, total: Flat, first: int, end: int) -> None:
    for i in range(first, end):
        total[i] = scratch[start + i]
    for chunk in range(1, chunks):
        for i in range(first, end):
            total[i] += scratch[start + chunk * size + i]


# --- Depthwise ------------------------------------------------------------------------------------------------------


@region
def is_depthwise(d):
    """Whether every channel has one filter of its own."""
    return d.groups == d.c and d.f == d.c


@separate
def depthwise_row(x: Flat, item: int, d: Conv2dDims, flipped: bool, filters: Flat, bias: Flat, y: Flat) -> None:
    """`correlate_row` of a single image with one filter a channel."""
    c = correlation(d, flipped)
    h, w, channels = c.h, c.w, d.c
    image, row = item // h.outputs, item % h.outputs
    tap_h, source_h, number_h = real_taps(h, row)
    for output in range(w.outputs):
        tap_w, source_w, number_w = real_taps(w, output)
        yo = ((image * h.outputs + row) * w.outputs + output) * channels
        for k in range(channels):
            y[yo + k] = bias[k] if bias.size else 0
        for i in range(number_h):
            for j in range(number_w):
                tap = (tap_h + i * h.tap_step) * w.taps + tap_w + j * w.tap_step
                wo = (h.taps * w.taps - 1 - tap if flipped else tap) * channels
                ih, iw = source_h + i * h.source_step, source_w + j * w.source_step
                xo = ((image * h.sources + ih) * w.sources + iw) * channels
                for k in range(channels):
                    y[yo + k] += x[xo + k] * filters[wo + k]


@separate
def sum_depthwise_chunk(x: Flat, dy: Flat, d: Conv2dDims, first: int, end: int, sums_wanted: bool, scratch: Flat, start: int) -> None:
    """`sum_chunk` with one filter a channel."""
    c, sums = correlation(d, False), d.kh * d.kw * d.c
    for i in range(start, start + sums + d.c):
        scratch[i] = 0
    for image in range(first, end):
        for oh in range(d.oh):
            tap_h, source_h, number_h = real_taps(c.h, oh)
            for ow in range(d.ow):
                tap_w, source_w, number_w = real_taps(c.w, ow)
                do = ((image * d.oh + oh) * d.ow + ow) * d.c
                for i in range(number_h):
                    for j in range(number_w):
                        xo = ((image * d.h + source_h + i * d.dilation_h) * d.w + source_w + j * d.dilation_w) * d.c
                        wo = start + ((tap_h + i) * d.kw + tap_w + j) * d.c
                        for k in range(d.c):
                            scratch[wo + k] += x[xo + k] * dy[do + k]
                if sums_wanted:
                    for k in range(d.c):
                        scratch[start + sums + k] += dy[do + k]


# --- Kernels --------------------------------------------------------------------------------------------------------


def conv2d_scratch(d: Conv2dDims, n: int) -> int:
    """Elements of scratch that `conv2d` needs."""
    return packed_size(d.kh * d.kw, d.c // d.groups, d.f // d.groups, d.groups)


def conv2d_backward_scratch(d: Conv2dDims, n: int) -> int:
    """Elements of scratch that `conv2d_backward` needs."""
    packed = packed_size(d.kh * d.kw, d.f // d.groups, d.c // d.groups, d.groups)
    return packed + min(n, _CHUNKS) * _chunk_layout(d, _needs_padding(d))[-1]


@kernel(optional={"b": 1})
def conv2d(x, w, b, d, scratch, y):
    """y = x * w + b."""
    n = x.shape[0]
    x_flat, w_flat, y_flat = flat(x), flat(w), flat(y)
    if is_depthwise(d):
        rows = n * d.oh
    else:
        pack_filters(w_flat, d, False, scratch)
        rows = row_count(d, n, False, y)
    for item in prange(rows):
        if is_depthwise(d):
            depthwise_row(x_flat, item, d, False, w_flat, b, y_flat)
        else:
            correlate_row(x_flat, n, item, d, False, scratch, b, y_flat)


@kernel(optional={"dx": 4, "db": 1})
def conv2d_backward(dy, x, w, d, scratch, dx, dw, db):
    """dx, dw and db = the sum of dy over images and positions."""
    n, none = x.shape[0], scratch[:0]
    x_flat, w_flat, dy_flat = flat(x), flat(w), flat(dy)
    dx_flat, dw_flat = flat(dx), flat(dw)
    sums, packed, padded, size = chunk_layout(d, needs_padding(d))
    chunks = min(n, _CHUNKS)
    for c in prange(chunks):
        chunk = int64(c)  # prange counts unsigned, and unsigned with signed makes floats
        first, end = chunk * n // chunks, (chunk + 1) * n // chunks
        if is_depthwise(d):
            sum_depthwise_chunk(x_flat, dy_flat, d, first, end, db.size > 0, scratch, chunk * size)
        else:
            sum_chunk(x_flat, dy_flat, d, first, end, db.size > 0, scratch, chunk * size)
    if db.size:
        add_chunks_part(scratch, sums, size, chunks, db, 0, db.size)
    rows = 0
    filters = scratch[chunks * size :]
    if dx.size:
        if is_depthwise(d):
            rows = n * d.h
        else:
            pack_filters(w_flat, d, True, filters)
            rows = row_count(d, n, True, dx)
    for item in prange(_CHUNKS + rows):
        part = int64(item)
        if part < _CHUNKS:
            add_chunks_part(
                scratch, 0, size, chunks, dw_flat, part * dw.size // _CHUNKS, (part + 1) * dw.size // _CHUNKS
            )
        elif is_depthwise(d):
            depthwise_row(dy_flat, part - _CHUNKS, d, True, w_flat, none, dx_flat)
        else:
            correlate_row(dy_flat, n, part - _CHUNKS, d, True, filters, none, dx_flat)
