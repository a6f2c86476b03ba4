"""Results as a plain table."""

from __future__ import annotations

from collections.abc import Sequence

from .measure import Result, best, our
from .variants import OURS

HEADINGS = ("", "images/s", "ms", "min ms", "ours is", "range", "by min", "first step s", "peak MB", "deviation")


def rows(results: Sequence[Result]) -> list[tuple[str, ...]]:
    """One row a variant that was measured, fastest first.

    "ours is" 2.00x: twice as fast, as the median over rounds of the ratio within a round; "range" holds its least and
    greatest, and "by min" the ratio of the shortest steps of the run, which hardly feel what else the machine does.
    """
    table: list[tuple[str, ...]] = []
    measured = [result for result in results if result.status == "measured" and result.rounds]
    for result in sorted(measured, key=lambda result: result.step_seconds):
        ratio, spread, by_min = "", "", ""
        if result.ours_over_peer is not None:
            ratio = f"{result.ours_over_peer:.2f}x"
            spread = f"{min(result.ratios):.2f}-{max(result.ratios):.2f}"
            by_min = f"{result.ours_over_peer_by_min:.2f}x"
        table.append(
            (
                result.label,
                f"{result.images_per_second:,.0f}",
                f"{result.step_seconds * 1e3:.3f}",
                f"{result.min_seconds * 1e3:.3f}",
                ratio,
                spread,
                by_min,
                f"{result.first_step_seconds:.2f}",
                f"{result.peak_bytes / 1e6:.0f}",
                "" if result.deviation is None else f"{result.deviation:.0e}",
            )
        )
    return table


def text(title: str, results: Sequence[Result]) -> str:
    """A case's table, what it says about each peer at its best, notes, and who is missing and why."""
    table = [HEADINGS, *rows(results)]
    widths = [max(len(row[i]) for row in table) for i in range(len(HEADINGS))]
    ours = our(results)
    lines = [title if ours is None else f"{title}; ours: {ours.variant}"]
    for row in table:
        cells = [row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]
        lines.append("  ".join(cells).rstrip())
    for peer in dict.fromkeys(result.peer for result in results if result.peer != OURS):
        fastest = best(results, peer)
        if fastest is not None and fastest.ours_over_peer is not None:
            lines.append(f"ours over the best of {peer} ({fastest.variant}): {fastest.ours_over_peer:.2f}x")
    for result in results:
        lines += [f"{result.label}: {note}" for note in result.notes]
        if result.status != "measured":
            lines.append(f"{result.label} {result.status}: {result.reason}")
    return "\n".join(lines)
