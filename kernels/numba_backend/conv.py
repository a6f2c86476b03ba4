"""Convolutions as tile contractions. Formulas and shapes: `kernels.interface`.

Forward, and the gradient of the input, are the same operation, `correlate_rows`: the latter slides the flipped
filters over dy, and where the forward has a stride it has a divisor. Each output position meets exactly the taps whose
source exists, so padding costs nothing. The rows of a tile are images, since those share the taps of a position; small
batches and images of a single channel take neighbouring positions with equal taps instead.

The gradient of the filters, `sum_chunk`, has (kh, kw, c) taps as rows and sums over images and positions. Chunks of
images have sums of their own, added in order: the result does not depend on the number of threads.

Depthwise convolutions multiply vectors of channels by vectors of weights, which is no contraction.
"""

from math import gcd
from typing import NamedTuple

from numpy import int64

from ..shapes import Conv2dDims
from .compiler.jit import Flat, kernel, prange, region, separate
from .tiles.gemm import (
    FULL,
    HALF,
    NARROW,
    ONE,
    SHORT,
    contract,
    few,
    pack_columns,
    pack_rows,
    panel_size,
    panel_width,
    product,
    rows_side_by_side,
    rows_times_panel,
    sum_rows,
)
from .tiles.tile import (
    REGISTERS,
    VECTOR_BYTES,
    TileShape,
    flat,
    given,
    lanes,
    tile_add_to,
    tile_load_partial,
    tile_multiply_add,
    tile_rows,
    tile_store_partial,
    tile_zeros,
)


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
    one = int64(1)  # not the literal: both branches must have one type
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
def pack_filters(w: Flat, d: Conv2dDims, flipped: bool, packed: Flat, po: int) -> None:
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
                to = po + p * size + tap * c.group_source * width
                pack_columns(w, start, c.source, c.group_source, left, width, packed, to)
        else:
            start = group * c.group_output + column
            pack_rows(w, start, c.output, taps * c.group_source, left, width, packed, po + p * size)


@region
def is_plane(d, like):
    """Whether `correlate_plane` takes the positions that meet all taps of a row."""
    w = axis(d.w, d.ow, d.kw, d.stride_w, d.pad_w, d.dilation_w, int64(1))
    unit = d.c == 1 and d.stride_w == 1 and d.dilation_w == 1
    return unit and d.f <= lanes(like) and w.inner_end - w.inner >= tile_rows(SHORT)


@region
def images_together(d, n, flipped, like):
    """How many images are the rows of tiles: those of a full tile, or 1 where positions are.

    They are in batches too small for half a tile, and in images of a single channel, whose neighbouring positions read
    neighbouring pixels.
    """
    narrow = (d.c if flipped else d.f) // d.groups <= lanes(like)
    if not flipped and is_plane(d, like):
        return 1
    if narrow and n >= tile_rows(NARROW):
        return tile_rows(NARROW)
    return tile_rows(FULL) if n >= tile_rows(HALF) else 1


@region
def interleaved_size(d, n, flipped, like):
    """Elements of one block of `interleave`, 0 where images are read as they are."""
    if images_together(d, n, flipped, like) < tile_rows(NARROW):
        return 0
    return ((d.oh * d.ow * d.f if flipped else d.h * d.w * d.c) + lanes(like)) * interleaved_width(like)


@region
def interleaved_width(like):
    """Images side by side in a block, in whole vectors."""
    return -(-tile_rows(NARROW) // lanes(like)) * lanes(like)


@separate
def interleave(x: Flat, n: int, image: int, block: int, size: int, out: Flat, start: int) -> None:
    """Copy a block of images of `image` elements so that the same element of all of them lies side by side.

    A narrow tile loads as many elements of x as it multiplies; out of one cache line it does so at full speed, out of
    16 images at half, and slower yet where these lie a multiple of 4 KiB apart.
    """
    first = min(block * tile_rows(NARROW), n - tile_rows(NARROW))
    width = interleaved_width(x)
    pack_columns(x, first * image, image, image, tile_rows(NARROW), width, out, start + block * size)


@separate
def correlate_plane(
    x: Flat, xo: int, low: int, high: int, d: Conv2dDims, packed: Flat, po: int, bias: Flat, relu: bool, y: Flat,
    yo: int, y_image: int,
) -> None:  # fmt: skip
    """What `correlate_rows` does, for images of a single channel and the positions that meet all taps of a row.

    Their tiles have neighbouring pixels as rows, and so little to do that what surrounds them counts.
    """
    c = correlation(d, False)
    first, count, row_step = c.w.inner, c.w.inner_end - c.w.inner, d.dilation_h * d.w
    for item in range(low, high):
        image, row = item // d.oh, item % d.oh
        tap, source, number = real_taps(c.h, row)
        ao, bo = xo + (image * d.h + source) * d.w + first - d.pad_w, po + tap * d.kw * lanes(y)
        to = yo + image * y_image + (row * d.ow + first) * d.f
        if d.kw == 5:
            rows_side_by_side(count, x, ao, row_step, packed, bo, number, 5, bias, d.f, relu, y, to, d.f)
        elif d.kw == 3:
            rows_side_by_side(count, x, ao, row_step, packed, bo, number, 3, bias, d.f, relu, y, to, d.f)
        else:
            rows_side_by_side(count, x, ao, row_step, packed, bo, number, d.kw, bias, d.f, relu, y, to, d.f)


@separate
def correlate_rows(
    x: Flat, xo: int, block_size: int, n: int, low: int, high: int, d: Conv2dDims, flipped: bool, packed: Flat,
    po: int, bias: Flat, relu: bool, y: Flat, yo: int, y_image: int,
) -> None:  # fmt: skip
    """Output rows number `low` to `high`, counted through every block of images, in every channel, with `relu` or not.

    y[i, oh, ow, f] = bias[f] + the sum over the real taps (kh, kw) and c of x[i, ih, iw, c] * packed[kh, kw, c, f].
    x begins at `xo`, in `interleave`d blocks if their size is not 0; the packed filters begin at `po`; y begins at `yo`
    and its images lie `y_image` apart.
    """
    c = correlation(d, flipped)
    h, w = c.h, c.w
    x_image, together = h.sources * w.sources * c.source, images_together(d, n, flipped, y)
    size, panels = panel_size(h.taps * w.taps * c.group_source, y), panel_count(c.group_output, y)
    plane = not flipped and is_plane(d, y)
    if plane:
        correlate_plane(x, xo, low, high, d, packed, po, bias, relu, y, yo, y_image)
    for item in range(low, low if plane and w.inner_end - w.inner == w.outputs else high):
        block, row = item // h.outputs, item % h.outputs
        first = first_image(block, together, n, block_size)
        if block_size > 0:
            xs, unit = xo + block * block_size, interleaved_width(y)
        else:
            xs, unit = xo + first * x_image, 1
        images = min(together, n - first)
        tap_h, source_h, number_h = real_taps(h, row)
        for p in range(c.groups * panels):
            group, column = p // panels, p % panels * 2 * lanes(y)
            width, left = panel_width(column, c.group_output, y), c.group_output - column
            channel = group * c.group_output + column
            output = 0
            while output < w.outputs:
                if plane and output == w.inner:
                    output = w.inner_end
                    continue
                tap_w, source_w, number_w = real_taps(w, output)
                alike = w.inner_end - output if w.inner <= output < w.inner_end else 1  # outputs with these same taps
                along_w, run = number_w, c.group_source
                if c.groups == 1 and w.tap_step == 1 and w.source_step == 1:  # all real (kw, c) lie in one run
                    along_w, run = 1, number_w * c.group_source
                nest = (
                    number_h, h.source_step * w.sources * c.source * unit, h.tap_step * w.taps * c.group_source * width,
                    along_w, w.source_step * c.source * unit, w.tap_step * c.group_source * width,
                    run, unit, width,
                )  # fmt: skip
                ao = xs + ((source_h * w.sources + source_w) * c.source + group * c.group_source) * unit
                bo = po + p * size + (tap_h * w.taps + tap_w) * c.group_source * width
                yp = yo + first * y_image + (row * w.outputs + output) * c.output + channel
                next_x, next_y = w.stride * c.source * unit, c.output
                count, x_row, y_row, steps = images, x_image, y_image, alike
                if together == 1:
                    count, x_row, y_row, steps = alike, next_x, next_y, 1
                for o in range(steps):
                    at, to = ao + o * next_x, yp + o * next_y
                    if block_size > 0:
                        product(NARROW, x, at, 1, packed, bo, nest, bias, channel, left, relu, y, to, y_image)
                    else:
                        rows_times_panel(
                            count, x, at, x_row, packed, bo, width, nest, bias, channel, left, relu, y, to, y_row
                        )
                output += alike


@region
def first_image(block, together, n, block_size):
    """The first image of a block; the last block may take in images that are done already, to be high enough."""
    first = block * together
    if block_size > 0:
        return min(first, n - together)
    return min(first, n - together // 2) if together > 1 else first


@region
def row_count(d, n, flipped, like):
    """Rows for `correlate_rows`."""
    return -(-n // images_together(d, n, flipped, like)) * (d.h if flipped else d.oh)


def packed_size(taps: int, group_source: int, group_output: int, groups: int) -> int:
    """Elements of all packed filters, in either dtype."""
    widest = VECTOR_BYTES // 4
    return groups * (taps * group_source + widest) * (group_output + 2 * widest)


def filters_size(d: Conv2dDims) -> int:
    """`packed_size` of a forward convolution."""
    return packed_size(d.kh * d.kw, d.c // d.groups, d.f // d.groups, d.groups)


def correlation_scratch(taps: int, group_source: int, group_output: int, groups: int, image: int, n: int) -> int:
    """Elements of scratch for all packed filters and interleaved images of `image` elements, in either dtype."""
    widest, most = VECTOR_BYTES // 4, tile_rows(NARROW)
    packed = packed_size(taps, group_source, group_output, groups)
    if group_output > widest or n < most:
        return packed
    return packed + -(-n // most) * (most + widest) * (image + widest)


# --- Gradient of the filters ----------------------------------------------------------------------------------------

# Few channels give few rows side by side; with 5 or 3 of them, rows of several kh make one tile.
SIDE5, SIDE3 = TileShape(25 if REGISTERS == 32 else 10, 1, 5), TileShape(9, 1, 3)
SEVEN = TileShape(7, 2, 7)  # 21 rows, those of 7x7 filters over colours, are no multiple of 8
_PIXELS = 128  # positions summed in registers before the sums go to memory; their part of dy stays in the first cache
CHUNKS = 16
ITEMS = 128  # shares of rows: enough to even out among threads, few enough that each is worth its start


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
        elif count % tile_rows(SEVEN) == 0 and count % tile_rows(FULL) != 0 and width > lanes(dw):
            add_tile(SEVEN, x, xo + r, 1, 0, dy, do, nest, r - r, dw, wo + r * w_row, w_row, columns)
            r += tile_rows(SEVEN)
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
def add_panel(
    x: Flat, xo: int, dy: Flat, do: int, dy_image: int, pixel: int, images: int, low: int, high: int, d: Conv2dDims,
    group: int, column: int, width: int, dw: Flat, wo: int,
) -> None:  # fmt: skip
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
            ih = first * d.stride_h - d.pad_h + kh * d.dilation_h
            iw = left_end * d.stride_w - d.pad_w + kw * d.dilation_w
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


def _images_summed(d, pad):
    """How many small images `sum_chunk` takes at once."""
    return 1 if pad else max(1, _PIXELS // (d.oh * d.ow))


images_summed = region(_images_summed)


def most_images_summed(d: Conv2dDims) -> int:
    """`images_summed`, for Python."""
    return int(_images_summed(d, _needs_padding(d)))


@region
def chunk_size(d):
    """Elements of a chunk's scratch."""
    return chunk_layout(d, needs_padding(d))[3]


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
def sum_chunk(
    x: Flat, dy: Flat, do: int, d: Conv2dDims, first: int, end: int, begin: bool, sums_wanted: bool, scratch: Flat,
    start: int,
) -> None:  # fmt: skip
    """Add the part of images `first` to `end` to dw at `start` of scratch, which begins at zero; and sum dy.

    The dy of image 0 lies, or would lie, at `do`.
    """
    sums, packed, padded, _ = chunk_layout(d, needs_padding(d))
    for i in range(start, start + sums if begin else start):
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
    rows, together = min(d.oh, -(-_PIXELS // d.ow)), images_summed(d, pad)
    filters = d.f // d.groups
    square = square_rows(e) > 0
    step = lanes(dy) if square else 2 * lanes(dy)
    for image in range(first, end, together):
        images = min(together, end - image)
        if pad:
            copy_padded(x, image * d.h * d.w * d.c, d, scratch, padded)
        for low in range(0, d.oh, rows):
            high = min(low + rows, d.oh)
            at, dy_image = do + (image * d.oh + low) * d.ow * d.f, d.oh * d.ow * d.f
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
            sum_rows(dy, do + first * pixels * d.f + column, d.f, (end - first) * pixels, d.f - column, scratch, to)


@separate
def add_chunks(scratch: Flat, start: int, size: int, chunks: int, total: Flat, first: int, end: int) -> None:
    """total[i] = the sum over the chunks, in their order, of scratch[start + chunk size + i], for first <= i < end."""
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
    """`correlate_rows` of a row of a single image with one filter a channel."""
    c = correlation(d, flipped)
    h, w, channels = c.h, c.w, d.c
    image, row = item // h.outputs, item % h.outputs
    tap_h, source_h, number_h = real_taps(h, row)
    for output in range(w.outputs):
        tap_w, source_w, number_w = real_taps(w, output)
        yo = (item * w.outputs + output) * channels
        for column in range(0, channels, 2 * lanes(y)):
            left = channels - column
            tile = tile_load_partial(ONE, bias, column, 0, left) if given(bias) else tile_zeros(ONE, y)
            for i in range(number_h):
                for j in range(number_w):
                    tap = (tap_h + i * h.tap_step) * w.taps + tap_w + j * w.tap_step
                    wo = (h.taps * w.taps - 1 - tap if flipped else tap) * channels + column
                    ih, iw = source_h + i * h.source_step, source_w + j * w.source_step
                    xo = ((image * h.sources + ih) * w.sources + iw) * channels + column
                    values = tile_load_partial(ONE, x, xo, 0, left)
                    tile = tile_multiply_add(tile, values, tile_load_partial(ONE, filters, wo, 0, left))
            tile_store_partial(tile, y, yo + column, 0, left)


@separate
def sum_depthwise_chunk(
    x: Flat, dy: Flat, d: Conv2dDims, first: int, end: int, sums_wanted: bool, scratch: Flat, start: int
) -> None:
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
    return correlation_scratch(d.kh * d.kw, d.c // d.groups, d.f // d.groups, d.groups, d.h * d.w * d.c, n)


def conv2d_backward_scratch(d: Conv2dDims, n: int) -> int:
    """Elements of scratch that `conv2d_backward` needs."""
    correlation = correlation_scratch(d.kh * d.kw, d.f // d.groups, d.c // d.groups, d.groups, d.oh * d.ow * d.f, n)
    return correlation + min(n, CHUNKS) * _chunk_layout(d, _needs_padding(d))[-1]


@region
def share(rows, item, items):
    """Rows of an item, shared out evenly: (first, end)."""
    return item * rows // items, (item + 1) * rows // items


def small(n: int, d: Conv2dDims, weights: int) -> bool:
    """Whether a convolution of n images is faster without threads."""
    return few(n * d.oh * d.ow * weights, weights)


@kernel(optional={"b": 1}, small=lambda x, w, b, d, *_: small(len(x), d, w.size))
def conv2d(x, w, b, d, scratch, y):
    """y = x * w + b."""
    n, y_image = x.shape[0], d.oh * d.ow * d.f
    depthwise, size, rows, filters = is_depthwise(d), 0, n * d.oh, 0
    if not depthwise:
        rows, size = row_count(d, n, False, y), interleaved_size(d, n, False, y)
        filters = rows // d.oh * size
        pack_filters(flat(w), d, False, flat(scratch), filters)
        if size > 0:
            for block in prange(rows // d.oh):
                interleave(flat(x), n, d.h * d.w * d.c, block, size, flat(scratch), 0)
    items = min(rows, ITEMS)
    for i in prange(items):
        low, high = share(rows, int64(i), items)  # prange counts unsigned, and unsigned with signed makes floats
        if depthwise:
            for row in range(low, high):
                depthwise_row(flat(x), row, d, False, flat(w), flat(b), flat(y))
        elif size > 0:
            correlate_rows(
                flat(scratch),
                0,
                size,
                n,
                low,
                high,
                d,
                False,
                flat(scratch),
                filters,
                flat(b),
                False,
                flat(y),
                0,
                y_image,
            )
        else:
            correlate_rows(
                flat(x), 0, size, n, low, high, d, False, flat(scratch), filters, flat(b), False, flat(y), 0, y_image
            )


@kernel(optional={"dx": 4, "db": 1}, small=lambda dy, x, w, d, *_: small(len(x), d, w.size))
def conv2d_backward(dy, x, w, d, scratch, dx, dw, db):
    """dx, dw and db = the sum of dy over images and positions."""
    n, none, dx_image = x.shape[0], scratch[:0], d.h * d.w * d.c
    sums, _, _, chunk_size = chunk_layout(d, needs_padding(d))
    chunks, depthwise = min(n, CHUNKS), is_depthwise(d)
    images = chunks * chunk_size
    rows, size, blocks, filters = 0, 0, 0, 0
    if dx.size:
        rows = n * d.h
        if not depthwise:
            rows, size = row_count(d, n, True, dx), interleaved_size(d, n, True, dx)
            if size > 0:
                blocks = rows // d.h
            filters = images + blocks * size
            pack_filters(flat(w), d, True, flat(scratch), filters)
    for c in prange(chunks):
        chunk = int64(c)
        first, end = share(n, chunk, chunks)
        if depthwise:
            sum_depthwise_chunk(flat(x), flat(dy), d, first, end, db.size > 0, flat(scratch), chunk * chunk_size)
        else:
            sum_chunk(flat(x), flat(dy), 0, d, first, end, True, db.size > 0, flat(scratch), chunk * chunk_size)
        first, end = share(blocks, chunk, chunks)
        for block in range(first, end):
            interleave(flat(dy), n, d.oh * d.ow * d.f, block, size, flat(scratch), images)
    if db.size:
        add_chunks(flat(scratch), sums, chunk_size, chunks, flat(db), 0, db.size)
    items = max(min(rows, ITEMS), CHUNKS)
    for i in prange(items):
        item = int64(i)  # each with its share of dw, so that every thread gets as much of either
        first, end = share(dw.size, item, items)
        add_chunks(flat(scratch), 0, chunk_size, chunks, flat(dw), first, end)
        low, high = share(rows, item, items)
        if depthwise:
            for row in range(low, high):
                depthwise_row(flat(dy), row, d, True, flat(w), flat(none), flat(dx))
        elif size > 0:
            correlate_rows(
                flat(scratch), images, size, n, low, high, d, True, flat(scratch), filters, flat(none), False,
                flat(dx), 0, dx_image,
            )  # fmt: skip
        else:
            correlate_rows(
                flat(dy),
                0,
                size,
                n,
                low,
                high,
                d,
                True,
                flat(scratch),
                filters,
                flat(none),
                False,
                flat(dx),
                0,
                dx_image,
            )
