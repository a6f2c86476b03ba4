"""What NumPy and Numba make of the same line, where that is not the same: the table in docs/bench.md.

A test runs every row on both, and fails when a version of either changes it.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .text import table

VERSIONS = {"numpy": "2.4.6", "numba": "0.68.1"}
"""With which the rows were seen last."""

HEADINGS = ("line", "given", "NumPy", "Numba", "why it matters")


class Row(NamedTuple):
    """A line of code on arguments, and what both make of it. code: an expression, or statements that fill y.

    parallel: what Numba makes of it under parallel=True, where that is something else again.
    """

    code: str
    given: str
    numpy: str
    numba: str
    why: str
    parallel: str = ""

    def function(self) -> Callable[..., Any]:
        """The line as a function of what is given."""
        names = ", ".join(self.arguments())
        last = self.code.splitlines()[-1]
        body = self.code if "=" in last.split("(")[0] or last.startswith(" ") else f"return {self.code}"
        source = f"def line({names}):\n{textwrap.indent(body, '    ')}"
        source += "" if body.startswith("return") else "\n    return y"
        names_: dict[str, Any] = {"np": np, "prange": _range()}
        exec(source, names_)
        function: Callable[..., Any] = names_["line"]
        return function

    def arguments(self) -> dict[str, Any]:
        """What is given, anew."""
        names: dict[str, Any] = {"np": np}
        exec(self.given, names)
        return {name: value for name, value in names.items() if name not in ("np", "__builtins__")}


def _range() -> Any:
    """Numba's prange, which is a range outside compiled code."""
    from numba import prange

    return prange


F32 = "x = np.array([1, 2, 4], np.float32)"

ROWS = (
    Row(
        "x * 2.0",
        F32,
        "[2.0, 4.0, 8.0] float32",
        "[2.0, 4.0, 8.0] float64",
        "twice the memory, half the speed, in everything that follows",
    ),
    Row("x[0] * 2.0", F32, "2.0 float32", "2.0 float64", "one literal is enough: write `np.float32(2.0)`"),
    Row("x[0] * 2", F32, "2.0 float32", "2.0 float64", "a whole number is no better"),
    Row("x[0] / len(x)", F32, "0.33333334 float32", "0.3333333333333333 float64", "nor is a length"),
    Row("np.where(x > 1, x, 0.0)", F32, "[0.0, 2.0, 4.0] float32", "[0.0, 2.0, 4.0] float64", "as `x * 2.0`"),
    Row("x * 2", "x = np.array([1, 2], np.int32)", "[2, 4] int32", "[2, 4] int64", "as with floats"),
    Row("x[0] + x[1]", "x = np.array([200, 100], np.uint8)", "44 uint8", "300 uint64", "bytes do not wrap"),
    Row(
        "x[0] - x[1]",
        "x = np.array([1, 2], np.uint8)",
        "255 uint8",
        "18446744073709551615 uint64",
        "and a difference is no small number",
    ),
    Row(
        "x[0] + i[0]",
        "x, i = np.array([1], np.uint64), np.array([2], np.int64)",
        "3.0 float64",
        "3 int64",
        "here it is NumPy that leaves the whole numbers",
    ),
    Row(
        "x.mean()",
        "x = np.full(2**20, 1001, np.float32)",
        "1001.0 float32",
        "1010.65454 float32",
        "NumPy adds in pairs, Numba one after the other, in float32 both",
    ),
    Row(
        "x.var()",
        "x = np.array([1, 2, 4], np.float32) + 4096",
        "1.5555557 float32",
        "1.5555555820465088 float64",
        "the squares are float64",
    ),
    Row("np.sign(x)", "x = np.array([0, 5, 255], np.uint8)", "[0, 1, 1] uint8", "[0, 1, 255] uint8", "-1 for 255"),
    Row("np.sign(x)", "x = np.array([-0.0])", "[0.0] float64", "[-0.0] float64", "1 / y has another sign"),
    Row(
        "np.clip(x, np.nan, 2.0)",
        "x = np.array([0.0, 5.0])",
        "[nan, nan] float64",
        "[0.0, 2.0] float64",
        "a bound that is no number bounds nothing",
    ),
    Row(
        "x.max()",
        "x = np.array([1.0, np.nan, 2.0])",
        "nan float64",
        "nan float64",
        "the reduction loses NaN, which nothing says",
        parallel="2.0 float64",
    ),
    Row(
        "np.median(x)",
        "x = np.array([3.0, np.nan, 1.0])",
        "nan float64",
        "nan float64",
        "the same, and in older versions of Numba it was not",
    ),
    Row("np.median(x)", F32, "2.0 float32", "2.0 float64", "a median is no longer what was counted"),
    Row(
        "np.round(x, 2)",
        "x = np.array([1.005, 2.675], np.float32)",
        "[1.0, 2.68] float32",
        "[1.0, 2.67] float32",
        "NumPy rounds 267.5, which is a tie in float32, Numba what x really is",
    ),
    Row(
        "x[0] / x[1]",
        "x = np.array([1.0, 0.0])",
        "inf float64",
        "ZeroDivisionError",
        '`error_model="numpy"` is NumPy\'s way',
    ),
    Row(
        "y = np.empty(1)\nfor i in prange(1):\n    y[i] = 1 / x[i]",
        "x = np.array([0.0])",
        "[inf] float64",
        "ZeroDivisionError",
        "the same loop does either, as it is compiled",
        parallel="[inf] float64",
    ),
    Row("x[0] // x[1]", "x = np.array([1, 0])", "0 int64", "ZeroDivisionError", "as with floats"),
    Row(
        "y = np.empty(2)\nfor i in prange(2):\n    y[i] = -i",
        "x = 0",
        "[0.0, -1.0] float64",
        "[0.0, -1.0] float64",
        "the index of a parallel loop has no sign",
        parallel="[0.0, 1.8446744073709552e+19] float64",
    ),
    Row("x[0] ** x[1]", "x = np.array([2, -1])", "ValueError", "0 int64", "½ is no whole number"),
    Row("np.exp(x)", "x = np.array([1], np.int8)", "[2.719] float16", "[2.7182817] float32", "NumPy has three digits"),
    Row(
        "x[4]",
        "x = np.arange(8.0)[:4]",
        "IndexError",
        "4.0 float64",
        "it is read, and written, beside x",
    ),
    Row(
        "np.dot(x, x.astype(np.float64))",
        F32,
        "21.0 float64",
        "TypingError",
        "dtypes do not mix in products of matrices",
    ),
)


def outcome(function: Callable[..., Any], arguments: dict[str, Any]) -> str:
    """What a function makes of arguments, in words: values and dtype, or the error's name."""
    try:
        with np.errstate(all="ignore"):
            value = function(*arguments.values())
    except Exception as error:
        return type(error).__name__
    signatures = getattr(function, "nopython_signatures", None)
    dtype = value.dtype if isinstance(value, (np.ndarray, np.generic)) else None
    if signatures and not isinstance(value, np.ndarray):
        dtype = np.dtype(str(signatures[0].return_type))
        value = dtype.type(value)
    if isinstance(value, np.ndarray):
        shown = np.array2string(
            value, separator=", ", formatter={"float_kind": str, "int_kind": str}, max_line_width=999
        )
        return f"{shown} {dtype}"
    return f"{value!s} {dtype}"


def text() -> str:
    """The table."""
    rows = []
    for row in ROWS:
        line = " ".join(part.strip() for part in row.code.splitlines() if not part.startswith("y = "))
        numba = row.numba + (f"; with `parallel=True` {row.parallel}" if row.parallel else "")
        rows.append([f"`{line}`", f"`{row.given}`", row.numpy, numba, row.why])
    versions = f"NumPy {VERSIONS['numpy']} and Numba {VERSIONS['numba']}"
    return f"{table(HEADINGS, rows, left=5)}\n\nSeen with {versions}. Each row is a test that runs both."
