"""Numbers, tables and paragraphs as the pages have them."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Sequence


def digits(value: float) -> float:
    """Five significant digits: more than any timing has."""
    return float(f"{value:.5g}")


def number(value: float) -> str:
    """Three significant digits, with thousands' commas."""
    value = float(f"{value:.3g}")
    return f"{value:,.0f}" if value >= 100 else f"{value:#.3g}"


def short(value: float) -> str:
    """Three significant digits, as 19.5k."""
    value = float(f"{value:.3g}")
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:#.3g}".rstrip(".") + letter
    return number(value).rstrip(".")


def times(ratio: float | None) -> str:
    """How many times as fast ours is."""
    return "" if ratio is None else f"{ratio:.2f}×" if ratio < 9.95 else f"{ratio:.0f}×"


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """A Markdown table; all columns but the first ones are aligned right."""
    rule = ["---" if column < left else "---:" for column in range(len(headings))]
    return "\n".join("| " + " | ".join(row) + " |" for row in (headings, rule, *rows))


def prose(text: str) -> str:
    """A paragraph, as wide as the others of this repository."""
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


def bullet(text: str) -> str:
    """An entry of a list."""
    return textwrap.fill(
        text, 120, initial_indent="- ", subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )


def span(values: Sequence[float], form: Callable[[float], str]) -> str:
    """Least to greatest, or the one value."""
    least, greatest = form(min(values)), form(max(values))
    return least if least == greatest else f"{least} – {greatest}"


def replace(text: str, marker: str, inside: str) -> str:
    """The text with what stands between <!-- marker --> and <!-- /marker --> replaced, wherever that is."""
    opening, closing = f"<!-- {marker} -->", f"<!-- /{marker} -->"
    before, found, rest = text.partition(opening)
    _, ended, after = rest.partition(closing)
    if not (found and ended) or any(mark in part for mark in (opening, closing) for part in (before, after)):
        raise ValueError(f"expected {opening} and {closing} once each, in this order")
    return f"{before}{opening}\n{inside}\n{closing}{after}"
