"""Arrays whose axes lie so many elements apart: copies of them, and arithmetic of two.

A work is cut into blocks of two axes: columns, the last axis, and lines, the one before. Where they begin follows from
the axes before those. Steps count elements; a step of 0 repeats what is there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from numpy import int64

from ...shapes import MAX_AXES
from ..compiler.jit import Flat, inline, kernel, prange, separate, strict
from .chunks import CHUNK, chunk, chunks
from .tile import LANES, TileShape, flat, lanes, tile_deal, tile_load, tile_store, tile_transpose

Axes = tuple[int, ...]

AXES = MAX_AXES + 2
"""Of compiled code: those that an array has, and its lines and columns at least."""

NARROW = 256
"""Columns of a block that is transposed: with 16 lines a chunk, which lie in the first cache."""

ADD, SUBTRACT, MULTIPLY, DIVIDE = range(4)


def steps(shape: Sequence[int]) -> Axes:
    """Elements between neighbours along each axis of a contiguous array."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def repeated(shape: Axes, sizes: Axes) -> Axes:
    """The steps of an array that is broadcast to `sizes`."""
    own = (1,) * (len(sizes) - len(shape)) + shape
    return tuple(0 if size == 1 else step for size, step in zip(own, steps(own), strict=True))


@lru_cache(maxsize=4096)
def merged(sizes: Axes, *given: Axes) -> tuple[Axes, ...]:
    """Sizes and steps of arrays with as few axes as will do, and axes of size 1 before them, AXES in all."""
    axes: list[list[int]] = []
    for size, *own in zip(sizes, *given, strict=True):
        if size == 1:
            continue
        if axes and all(outer == size * inner for outer, inner in zip(axes[-1][1:], own, strict=True)):
            axes[-1] = [axes[-1][0] * size, *own]
        else:
            axes.append([size, *own])
    filled = [[1] + [0] * len(given)] * (AXES - len(axes)) + axes
    return tuple(zip(*filled, strict=True))


@lru_cache(maxsize=4096)
def moved(sizes: Axes, source: Axes, target: Axes) -> tuple[Axes, ...]:
    """`merged` for a copy: lines are the axis whose elements lie side by side in the source."""
    axes = list(zip(*merged(sizes, source, target), strict=True))
    apart = [abs(step) if size > 1 and step else math.inf for size, step, _ in axes]
    if 1 < apart[-1] < math.inf:
        axes.insert(AXES - 2, axes.pop(apart.index(min(apart[:-1]))))
    return tuple(zip(*axes, strict=True))


@inline
def place(row, sizes, apart):
    """Where a row begins, the rows being numbered over all axes but the last."""
    at = 0
    for axis in range(AXES - 2, -1, -1):
        if sizes[axis] > 1:
            at += row % sizes[axis] * apart[axis]
            row //= sizes[axis]
    return at


@inline
def cut(sizes, narrow):
    """(rows, height, width) of a work: its rows, and the rows and columns of a piece."""
    rows = 1
    for axis in range(AXES - 1):
        rows *= sizes[axis]
    width = min(sizes[AXES - 1], NARROW if narrow else CHUNK)
    return rows, max(1, CHUNK // width), width


@inline
def pieces(sizes, rows, height, width):
    """How many there are."""
    return (rows + height - 1) // height * ((sizes[AXES - 1] + width - 1) // width)


@inline
def piece(item, sizes, rows, height, width):
    """(first row, last row, first column, columns) of a piece."""
    across = (sizes[AXES - 1] + width - 1) // width
    first, column = item // across * height, item % across * width
    return first, min(first + height, rows), column, min(width, sizes[AXES - 1] - column)


# Copies -----------------------------------------------------------------------------------------------------------


class Copy(NamedTuple):
    """A block: lines and columns, and for either array where it begins and the steps of line and column."""

    lines: int
    columns: int
    source: int
    source_line: int
    source_column: int
    target: int
    target_line: int
    target_column: int


@inline
def zip_lines(x, block, ways, y):
    """A block whose few columns lie side by side in y: a number that the compiler knows makes vectors of it."""
    for line in range(block.lines):
        for i in range(ways):
            y[block.target + line * ways + i] = x[block.source + line + i * block.source_column]


@inline
def zip_four(x, block, y):
    """`zip_lines` of four columns and as many lines as a vector has elements or more: no line is left over."""
    for first in range(0, block.lines, lanes(x)):
        line = min(first, block.lines - lanes(x))  # the last vector takes in lines that are done already
        tile = tile_deal(tile_load(_FOUR, x, block.source + line, block.source_column))
        tile_store(tile, y, block.target + 4 * line, lanes(x))


_FOUR = TileShape(4, 1, 4)


@inline
def unzip_lines(x, block, ways, y):
    """A block of so few lines that they lie side by side in x."""
    for i in range(block.columns):
        for line in range(ways):
            y[block.target + line * block.target_line + i] = x[block.source + i * ways + line]


class Repeat(NamedTuple):
    """How often a block comes again, and how far the next one lies in source and target."""

    times: int
    source: int
    target: int


@inline
def next_block(block, again, number):
    """The block that lies so many after this one."""
    source, target = block.source + number * again.source, block.target + number * again.target
    lines, columns = (block.source_line, block.target_line), (block.source_column, block.target_column)
    return Copy(block.lines, block.columns, source, lines[0], columns[0], target, lines[1], columns[1])


@separate
def shuffle_blocks(x: Flat, block: Copy, again: Repeat, y: Flat) -> None:
    """`shuffle_block` of all that come again: to find where one lies takes as long as to deal out a small one."""
    for number in range(again.times):
        shuffle_block(x, next_block(block, again, number), y)


@inline
def shuffle_block(x, block, y):
    """y = x of one block in which two, three or four lines or columns are dealt out."""
    ways = block.columns if block.columns == block.target_line else 0
    if ways == 2:
        zip_lines(x, block, 2, y)
    elif ways == 3:
        zip_lines(x, block, 3, y)
    elif ways == 4 and block.lines >= lanes(x):
        zip_four(x, block, y)
    elif ways == 4:
        zip_lines(x, block, 4, y)
    elif block.source_column == 2:
        unzip_lines(x, block, 2, y)
    elif block.source_column == 3:
        unzip_lines(x, block, 3, y)
    else:
        unzip_lines(x, block, 4, y)


@inline
def few(ways):
    """Whether `shuffle_block` knows the number."""
    return 2 <= ways <= 4


@inline
def dealt(block):
    """Whether a block, whose lines lie side by side in x and columns in y, is one for `shuffle_block`."""
    zipped = few(block.target_line) and block.columns == block.target_line
    unzipped = few(block.source_column) and block.lines == block.source_column
    return zipped or unzipped


SINGLE, DOUBLE = (TileShape(width, 1, width) for width in LANES)


@inline
def turn_squares(shape, x, block, y):
    """y = x of a block whose lines lie side by side in x and whose columns in y, square by square."""
    width = lanes(x)
    lines, columns = block.lines // width * width, block.columns // width * width
    for line in range(0, lines, width):
        for i in range(0, columns, width):
            square = tile_load(shape, x, block.source + i * block.source_column + line, block.source_column)
            target = block.target + line * block.target_line + i
            tile_store(tile_transpose(square), y, target, block.target_line)
    for line in range(block.lines):
        for i in range(columns if line < lines else 0, block.columns):
            y[block.target + line * block.target_line + i] = x[block.source + line + i * block.source_column]


@separate
def turn_block(x: Flat, block: Copy, y: Flat) -> None:
    """`turn_squares`, of the shape that fits the dtype."""
    if lanes(x) == LANES[0]:
        turn_squares(SINGLE, x, block, y)
    else:
        turn_squares(DOUBLE, x, block, y)


@separate
def copy_block(x: Flat, block: Copy, divisor: int, y: Flat) -> None:
    """y = x / divisor of one block."""
    real = type(x[block.source])
    scale = real(1 / divisor)
    if block.source_column == 1 and block.target_column == 1:
        for line in range(block.lines):
            source, target = block.source + line * block.source_line, block.target + line * block.target_line
            if divisor == 1:
                for i in range(block.columns):
                    y[target + i] = x[source + i]
            else:
                for i in range(block.columns):
                    y[target + i] = x[source + i] * scale
    elif block.source_column == 0 and block.target_column == 1:
        for line in range(block.lines):
            target = block.target + line * block.target_line
            value = x[block.source + line * block.source_line] * scale
            for i in range(block.columns):
                y[target + i] = value
    else:
        for first in range(0, block.columns, 16):
            for line in range(block.lines):
                source = block.source + line * block.source_line + first * block.source_column
                target = block.target + line * block.target_line + first * block.target_column
                for i in range(min(16, block.columns - first)):
                    y[target + i * block.target_column] = x[source + i * block.source_column] * scale


@inline
def block_at(row, count, column, columns, source, x_steps, sizes, target, y_steps):
    """The block of so many lines and columns that begins in a row and column."""
    x_at = source + place(row, sizes, x_steps) + column * x_steps[AXES - 1]
    y_at = target + place(row, sizes, y_steps) + column * y_steps[AXES - 1]
    from_ = x_at, x_steps[AXES - 2], x_steps[AXES - 1]
    return Copy(count, columns, *from_, y_at, y_steps[AXES - 2], y_steps[AXES - 1])


@kernel
def copy(x, source, x_steps, sizes, divisor, y, target, y_steps):
    """y = x / divisor over axes of these sizes; source and target are where the first elements lie."""
    rows, height, width = cut(sizes, x_steps[AXES - 1] != 1 or y_steps[AXES - 1] != 1)
    lines = sizes[AXES - 2]
    for item in prange(pieces(sizes, rows, height, width)):
        row, last, column, columns = piece(item, sizes, rows, height, width)
        while row < last:
            count = min(lines - row % lines, last - row)
            block = block_at(row, count, column, columns, source, x_steps, sizes, target, y_steps)
            copy_block(flat(x), block, divisor, flat(y))
            row += count


def turns(x_steps: Axes, y_steps: Axes) -> bool:
    """Whether `turn` may take the place of `copy`: lines lie side by side in x, columns in y."""
    return (x_steps[-2], y_steps[-1]) == (1, 1)


@kernel
def turn(x, x_steps, sizes, y, y_steps):
    """y = x over axes of these sizes, of which `turns` is true."""
    rows, height, width = cut(sizes, True)
    lines = sizes[AXES - 2]
    for item in prange(pieces(sizes, rows, height, width)):
        row, last, column, columns = piece(item, sizes, rows, height, width)
        while row < last:
            count, times = min(lines - row % lines, last - row), int64(1)
            block = block_at(row, count, column, columns, 0, x_steps, sizes, 0, y_steps)
            if dealt(block):
                if count == lines:  # whole, as the next ones along this axis
                    times = min(sizes[AXES - 3] - row // lines % sizes[AXES - 3], (last - row) // lines)
                again = Repeat(times, x_steps[AXES - 3], y_steps[AXES - 3])
                shuffle_blocks(flat(x), block, again, flat(y))
            else:
                turn_block(flat(x), block, flat(y))
            row += times * count


# Arithmetic -------------------------------------------------------------------------------------------------------


class Operands(NamedTuple):
    """A block of a result: lines and columns, where it begins, and for either operand that and its steps."""

    lines: int
    columns: int
    at: int
    apart: int
    a: int
    a_line: int
    a_column: int
    b: int
    b_line: int
    b_column: int


@inline
def operands_at(row, last, column, columns, a_steps, b_steps, sizes):
    """The block of so many columns that begins in a row and column, with all lines before the row `last`."""
    lines, apart = sizes[AXES - 2], sizes[AXES - 1]
    count = min(lines - row % lines, last - row)
    a_at = place(row, sizes, a_steps) + column * a_steps[AXES - 1]
    b_at = place(row, sizes, b_steps) + column * b_steps[AXES - 1]
    left = a_at, a_steps[AXES - 2], a_steps[AXES - 1]
    right = b_at, b_steps[AXES - 2], b_steps[AXES - 1]
    return Operands(count, columns, row * apart + column, apart, *left, *right)


@strict
def plus(left, right):
    return left + right


@strict
def minus(left, right):
    return left - right


@strict
def times(left, right):
    return left * right


@strict
def over(left, right):
    return left / right


@strict
def by_line(function, a, b, block, y):
    """y = function(a, b) of one block: a's columns lie side by side, and b's as well or are one that is repeated."""
    for line in range(block.lines):
        at, left, right = block.at + line * block.apart, block.a + line * block.a_line, block.b + line * block.b_line
        if block.b_column == 1:
            for i in range(block.columns):
                y[at + i] = function(a[left + i], b[right + i])
        else:
            value = b[right]
            for i in range(block.columns):
                y[at + i] = function(a[left + i], value)


@strict
def by_value(function, a, b, block, y):
    """y = function(a, b) of one block, where each line has one value of a."""
    for line in range(block.lines):
        at, right = block.at + line * block.apart, block.b + line * block.b_line
        value = a[block.a + line * block.a_line]
        for i in range(block.columns):
            y[at + i] = function(value, b[right + i])


@separate(strict=True)
def combine_block(operation: int, a: Flat, b: Flat, block: Operands, y: Flat) -> None:
    """y = a operation b of one block. Of sums and products it is b that may be repeated along a line."""
    if operation == ADD:
        by_line(plus, a, b, block, y)
    elif operation == MULTIPLY:
        by_line(times, a, b, block, y)
    elif operation == SUBTRACT and block.a_column == 1:
        by_line(minus, a, b, block, y)
    elif operation == SUBTRACT:
        by_value(minus, a, b, block, y)
    elif block.a_column == 1:
        by_line(over, a, b, block, y)
    else:
        by_value(over, a, b, block, y)


@kernel(strict=True)
def combine_equal(operation, a, b, y):
    """y = a operation b, of arrays of one shape."""
    for c in prange(chunks(y)):
        left, right, ys = chunk(a, c), chunk(b, c), chunk(y, c)
        if operation == ADD:
            for i in range(ys.size):
                ys[i] = left[i] + right[i]
        elif operation == SUBTRACT:
            for i in range(ys.size):
                ys[i] = left[i] - right[i]
        elif operation == MULTIPLY:
            for i in range(ys.size):
                ys[i] = left[i] * right[i]
        else:
            for i in range(ys.size):
                ys[i] = left[i] / right[i]


@kernel(strict=True)
def combine(operation, a, a_steps, b, b_steps, sizes, y):
    """y = a operation b, over axes of these sizes."""
    rows, height, width = cut(sizes, False)
    for item in prange(pieces(sizes, rows, height, width)):
        row, last, column, columns = piece(item, sizes, rows, height, width)
        while row < last:
            block = operands_at(row, last, column, columns, a_steps, b_steps, sizes)
            combine_block(operation, flat(a), flat(b), block, flat(y))
            row += block.lines
