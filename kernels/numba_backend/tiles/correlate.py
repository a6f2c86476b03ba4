"""Correlation: filters slide over images, as tile contractions.

A convolution is one, and so is its gradient by the input, which slides the flipped filters over dy: where the forward
has a stride it has a divisor. Each output position meets exactly the taps whose source exists, so padding costs
nothing. The rows of a tile are images, since those share the taps of a position; small batches, images of a single
channel and rows that fill whole tiles take neighbouring positions with equal taps instead. Of no more filters than fit
into a vector these are the rows, and images the columns.
"""

from __future__ import annotations

from typing import NamedTuple

from numpy import int64

from ...shapes import Conv2dDims
from ..compiler.jit import Flat, inline, separate
from .gemm import (
    FULL,
    HALF,
    NARROW,
    SHORT,
    VECTOR,
    Epilogue,
    Loop,
    Nest,
    exchanged,
    few,
    is_two_halves,
    pack_columns,
    pack_rows,
    panel_count,
    panel_size,
    panel_width,
    product,
    rows_side_by_side,
    rows_times_panel,
)
from .places import Maps, Panel, Place, Rows
from .tile import (
    LANES,
    REGISTERS,
    TileShape,
    given,
    lanes,
    nothing,
    tile_fill,
    tile_load_transposed,
    tile_memory,
    tile_rows,
    tile_store,
    tile_store_partial,
    tile_where_positive,
)

_SQUARE = TileShape(LANES[0], 2, LANES[0])  # filters by images, of either dtype
_ALONG = REGISTERS == 16
"""Whether neighbouring outputs that meet every tap are the rows of tiles where they fill whole ones, in any batch.

Images of 64 KiB lie in the same sets of a cache: on Zen 3 convolutions of 32 x 32 x 16 take 7 % less so, of 8 x 8 x 64
3 %. Where lower tiles would be left over images are faster, by 6 % for 16 x 16 x 32. Not measured with 32 registers.
"""
ITEMS = 128  # shares of rows: enough to even out among threads, few enough that each is worth its start


def few_positions(n: int, d: Conv2dDims, weights: int) -> bool:
    """Whether a convolution of n images is faster without threads."""
    return few(n * d.oh * d.ow * weights, weights)


# --- Geometry -------------------------------------------------------------------------------------------------------


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


@inline
def greatest_divisor(a, b):
    """The greatest common divisor of two natural numbers. `math.gcd` is five times as much to compile."""
    while b != 0:
        a, b = b, a % b
    return a


@inline
def axis(sources, outputs, taps, stride, pad, dilation, divisor):
    """The `Axis` of these sizes."""
    common = greatest_divisor(divisor, dilation)
    inner, inner_end = outputs, outputs
    if divisor == 1:
        inner = -(-pad // stride)
        inner_end = min((sources - 1 + pad - (taps - 1) * dilation) // stride + 1, outputs)
    return Axis(
        sources, outputs, taps, stride, pad, dilation, divisor, divisor // common, dilation // common, inner, inner_end
    )


@inline
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


@inline
def real_taps(axis, output):
    """The taps of an output whose source exists: (first tap, its source, number)."""
    if axis.inner <= output < axis.inner_end:  # without the divisions below, which cost as much as a small tile
        return 0, output * axis.stride - axis.pad, axis.taps
    tap, looked_at = 0, min(axis.tap_step, axis.taps)  # the step may be far larger than the filter
    while tap < looked_at and (output * axis.stride - axis.pad + tap * axis.dilation) % axis.divisor != 0:
        tap += 1
    if tap == looked_at:
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


@inline
def is_depthwise(d):
    """Whether every channel has one filter of its own."""
    return d.groups == d.c and d.f == d.c


# --- What is read ---------------------------------------------------------------------------------------------------


class Images(NamedTuple):
    """What filters slide over: `number` images, of which `together` are the rows of tiles.

    They lie one after the other; or in blocks of `block` elements, each made by `interleave`, if that is not 0, and are
    the columns.
    """

    memory: Flat
    start: int
    number: int
    together: int
    block: int


class Filters(NamedTuple):
    """What slides: packed filters, their bias, unless it is empty, and whether a ReLU follows."""

    memory: Flat
    start: int
    bias: Flat
    relu: bool


class CorrelationLayout(NamedTuple):
    """How a batch is cut into blocks of `together` images, and where scratch holds what is packed for it.

    rows: output rows of all blocks. block: elements of an interleaved block, 0 where images are read as they are.
    interleaved, filters, end: where the blocks begin, the packed filters, and what comes next.
    """

    together: int
    blocks: int
    rows: int
    block: int
    interleaved: int
    filters: int
    end: int


@inline
def correlation_layout(d, n, flipped, start, vector):
    """The layout in scratch from `start` on, for n images and vectors of so many elements."""
    image, outputs, source, output = d.h * d.w * d.c, d.oh, d.c // d.groups, d.f // d.groups
    if flipped:
        image, outputs, source, output = d.oh * d.ow * d.f, d.h, output, source
    together = images_together(d, n, flipped, vector)
    blocks = -(-n // together)
    block = (image + vector) * together if is_narrow(d, n, flipped, vector) else 0
    filters = start + blocks * block
    end = filters + d.groups * panel_count(output, vector) * panel_size(d.kh * d.kw * source, vector)
    return CorrelationLayout(together, blocks, blocks * outputs, block, start, filters, end)


@inline
def images_together(d, n, flipped, vector):
    """How many images are the columns of tiles, one or two vectors; or the rows, those of a full tile, or 1 where
    positions are.

    Positions are in batches too small for half a tile, and in images of a single channel, whose neighbouring positions
    read neighbouring pixels.
    """
    if not flipped and is_plane(d, vector):
        return 1
    if is_narrow(d, n, flipped, vector):
        return 2 * vector if n >= 2 * vector else vector
    return tile_rows(FULL) if n >= tile_rows(HALF) else 1


@inline
def is_narrow(d, n, flipped, vector):
    """Whether filters are the rows of tiles, and images the columns: where a vector holds all of the filters.

    With images as rows each multiply-add would load a factor of its own. That halves the speed on Xeons, which load
    some four vectors in three cycles: Ice Lake 16 multiply-adds with 17 loads in 5.4 ns, with 10 in 2.9.
    """
    filters = (d.c if flipped else d.f) // d.groups
    return filters <= vector <= n and not (not flipped and is_plane(d, vector))


@inline
def is_plane(d, vector):
    """Whether `correlate_plane` takes the positions that meet all taps of a row."""
    unit = d.c == 1 and d.stride_w == 1 and d.dilation_w == 1
    inner = min(d.w + d.pad_w - d.kw + 1, d.ow) - d.pad_w  # as `axis` has it, with strides of 1
    return unit and d.f <= vector and inner >= tile_rows(SHORT)


@inline
def first_image(block, images):
    """The first image of a block; the last block may take in images that are done already, to be high enough."""
    first = block * images.together
    if images.block > 0:
        return min(first, images.number - images.together)
    return min(first, images.number - tile_rows(HALF)) if images.together > 1 else first


@inline
def images_of(x, scratch, n, layout):
    """The n images of x as `correlate_rows` reads them: in scratch, where they are interleaved."""
    if layout.block > 0:
        return Images(scratch, layout.interleaved, n, layout.together, layout.block)
    return Images(x.memory, x.start, n, layout.together, layout.block)


@separate
def interleave(x: Place, n: int, image: int, block: int, layout: CorrelationLayout, scratch: Flat) -> None:
    """Copy block number `block` of n images of `image` elements so that the same element of all lies side by side."""
    together = layout.together
    first = min(block * together, n - together)
    out = Panel(scratch, layout.interleaved + block * layout.block, together)
    pack_columns(Rows(x.memory, x.start + first * image, image), image, together, out)


@separate
def pack_filters(w: Flat, d: Conv2dDims, flipped: bool, packed: Place) -> None:
    """Pack the filters w (taps, channels in a group, all filters) into panels.

    A panel is [tap][channel][some filters], or `flipped`: [last tap first][filter][some channels].
    """
    c, taps, vector = correlation(d, flipped), d.kh * d.kw, lanes(w)
    panels, size = panel_count(c.group_output, vector), panel_size(taps * c.group_source, vector)
    for p in range(c.groups * panels):
        group, column = p // panels, p % panels * 2 * vector
        width, left = panel_width(column, c.group_output, vector), c.group_output - column
        start = packed.start + p * size
        if flipped:
            for tap in range(taps):
                at = ((taps - 1 - tap) * c.group_output + column) * c.source + group * c.group_source
                out = Panel(packed.memory, start + tap * c.group_source * width, width)
                pack_columns(Rows(w, at, c.source), c.group_source, left, out)
        else:
            rows = Rows(w, group * c.group_output + column, c.output)
            pack_rows(rows, taps * c.group_source, left, Panel(packed.memory, start, width))


# --- Correlation ----------------------------------------------------------------------------------------------------


@separate
def correlate_plane(x: Images, low: int, high: int, d: Conv2dDims, filters: Filters, y: Maps) -> None:
    """What `correlate_rows` does, for images of a single channel and the positions that meet all taps of a row.

    Their tiles have neighbouring pixels as rows, and so little to do that what surrounds them counts.
    """
    c, vector = correlation(d, False), lanes(y.memory)
    first, count = c.w.inner, c.w.inner_end - c.w.inner
    epilogue = Epilogue(filters.bias, 0, d.f, filters.relu, False, nothing(y.memory))
    for item in range(low, high):
        image, row = item // d.oh, item % d.oh
        tap, source, number = real_taps(c.h, row)
        pixels = Rows(x.memory, x.start + (image * d.h + source) * d.w + first - d.pad_w, d.dilation_h * d.w)
        panel = Panel(filters.memory, filters.start + tap * d.kw * vector, vector)
        target = Rows(y.memory, y.start + image * y.apart + (row * d.ow + first) * y.pixel, y.pixel)
        if d.kw == 5:
            rows_side_by_side(count, pixels, panel, number, 5, epilogue, target)
        elif d.kw == 3:
            rows_side_by_side(count, pixels, panel, number, 3, epilogue, target)
        else:
            rows_side_by_side(count, pixels, panel, number, d.kw, epilogue, target)


class Steps(NamedTuple):
    """Neighbouring outputs with the same taps: how many, and how far each goes on in the images and in y."""

    count: int
    x: int
    y: int


@separate
def narrow_products(a: Rows, b: Panel, nest: Nest, epilogue: Epilogue, y: Rows, steps: Steps) -> None:
    """`product` with its factors exchanged, for some outputs: y[i, :] = the `Epilogue` of the sums over the nest of
    filters a, whose elements lie side by side, times images b; image number i of the panel is row number i of y.

    Sums go on from the bias, as in `product`, so that they come out the same.
    """
    vector, filters = lanes(y.memory), epilogue.columns
    sums, begins = Rows(tile_memory(_SQUARE, y.memory), 0, b.width), given(epilogue.bias)
    rows = -(-filters // tile_rows(HALF)) * tile_rows(HALF)  # a panel of filters goes on with zeros
    whole = Epilogue(nothing(y.memory), 0, b.width, False, begins, nothing(y.memory))
    for step in range(steps.count):
        for f in range(rows if begins else 0):
            for i in range(0, b.width, vector):
                bias = epilogue.bias[epilogue.column + min(f, filters - 1)]
                tile_store(tile_fill(VECTOR, y.memory, bias), sums.memory, f * b.width + i, 0)
        images, f = Panel(b.memory, b.start + step * steps.x, b.width), 0
        while f < rows:
            if b.width == vector:
                if rows > tile_rows(SHORT):
                    product(NARROW, 0, a, images, nest, whole, sums)
                else:
                    product(SHORT, 0, a, images, nest, whole, sums)
                f = rows
            elif rows - f >= tile_rows(FULL) and not is_two_halves(rows - f, FULL):
                product(FULL, f, a, images, nest, whole, sums)
                f += tile_rows(FULL)
            else:
                product(HALF, f, a, images, nest, whole, sums)
                f += tile_rows(HALF)
        for i in range(0, b.width, vector):
            tile = tile_load_transposed(sums.memory, i, b.width, vector, vector)
            to = y.start + step * steps.y + i * y.apart
            if epilogue.relu:
                tile = tile_where_positive(tile, tile)
            if filters >= vector:
                tile_store(tile, y.memory, to, y.apart)
            else:
                tile_store_partial(tile, y.memory, to, y.apart, filters)


@inline
def correlate_row(x, item, c, p, plane, filters, y):
    """An output row in the channels of a panel; if `plane`, what `correlate_plane` leaves of it."""
    h, w = c.h, c.w
    x_image, vector = h.sources * w.sources * c.source, lanes(y.memory)
    size, panels = panel_size(h.taps * w.taps * c.group_source, vector), panel_count(c.group_output, vector)
    block, row = item // h.outputs, item % h.outputs
    first = first_image(block, x)
    if x.block > 0:
        xs, unit = x.start + block * x.block, x.together
    else:
        xs, unit = x.start + first * x_image, 1
    images = min(x.together, x.number - first)
    tap_h, source_h, number_h = real_taps(h, row)
    group, column = p // panels, p % panels * 2 * vector
    width, left = panel_width(column, c.group_output, vector), c.group_output - column
    channel = group * c.group_output + column
    epilogue = Epilogue(filters.bias, channel, left, filters.relu, False, nothing(y.memory))
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
        nest = Nest(
            Loop(
                number_h,
                h.source_step * w.sources * c.source * unit,
                h.tap_step * w.taps * c.group_source * width,
            ),
            Loop(along_w, w.source_step * c.source * unit, w.tap_step * c.group_source * width),
            Loop(run, unit, width),
        )
        ao = xs + ((source_h * w.sources + source_w) * c.source + group * c.group_source) * unit
        bo = filters.start + p * size + (tap_h * w.taps + tap_w) * c.group_source * width
        panel = Panel(filters.memory, bo, width)
        yo = y.start + first * y.apart + (row * w.outputs + output) * y.pixel + channel
        next_x, next_y = w.stride * c.source * unit, y.pixel
        if x.block > 0:
            rows, columns = Rows(panel.memory, bo, 1), Panel(x.memory, ao, x.together)
            steps = Steps(alike, next_x, next_y)
            narrow_products(rows, columns, exchanged(nest), epilogue, Rows(y.memory, yo, y.apart), steps)
        else:
            count, x_row, y_row, steps = images, x_image, y.apart, alike
            if x.together == 1 or (_ALONG and alike % tile_rows(FULL) == 0):
                count, x_row, y_row, steps, next_x, next_y = alike, next_x, next_y, images, x_image, y.apart
            for o in range(steps):
                rows, to = Rows(x.memory, ao + o * next_x, x_row), yo + o * next_y
                rows_times_panel(count, rows, panel, nest, epilogue, Rows(y.memory, to, y_row))
        output += alike


@separate
def correlate_rows(x: Images, low: int, high: int, d: Conv2dDims, flipped: bool, filters: Filters, y: Maps) -> None:
    """Output rows number `low` to `high`, counted through every block of images, in every channel; y are images.

    y[i, oh, ow, f] = bias[f] + the sum over the real taps (kh, kw) and c of x[i, ih, iw, c] * filters[kh, kw, c, f], or
    0 where that is negative, with a ReLU.
    """
    c = correlation(d, flipped)
    vector = lanes(y.memory)
    plane = not flipped and is_plane(d, vector)
    if plane:
        correlate_plane(x, low, high, d, filters, y)
    for item in range(low, low if plane and c.w.inner_end - c.w.inner == c.w.outputs else high):
        for p in range(c.groups * panel_count(c.group_output, vector)):
            correlate_row(x, item, c, p, plane, filters, y)


@separate
def correlate_panel(x: Images, rows: int, d: Conv2dDims, p: int, filters: Filters, y: Maps) -> None:
    """The first `rows` of `correlate_rows` for the channels of a panel alone, whose filters are read once for all."""
    c = correlation(d, False)
    for item in range(rows):
        correlate_row(x, item, c, p, False, filters, y)
