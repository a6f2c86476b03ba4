"""One HTML page that holds all it shows: text, tables, and figures as SVG that follow the reader's light or dark."""

from __future__ import annotations

import io
import os
import re
import zlib
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from .. import plots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Light and dark for every colour that figures use; an image is inverted and its hues turned back.
_COLOURS = {
    plots.INK: ("ink", "#e6e9ee"),
    plots.MUTED: ("muted", "#9aa4b2"),
    plots.FAINT: ("faint", "#333a45"),
    plots.PAPER: ("paper", "#14171c"),
    plots.BLUE: ("blue", "#56a9e0"),
    plots.ORANGE: ("orange", "#f0833a"),
    plots.GREEN: ("green", "#2fc296"),
    plots.PURPLE: ("purple", "#d68bb5"),
    plots.YELLOW: ("yellow", "#e3b341"),
    plots.SKY: ("sky", "#2f6f9f"),
}

_STYLE = """
:root { color-scheme: light dark; %s }
@media (prefers-color-scheme: dark) {
  :root { %s }
  svg image { filter: invert(1) hue-rotate(180deg) }
}
* { box-sizing: border-box }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 ui-sans-serif, system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
main { max-width: 1020px; margin: 0 auto; padding: 56px 28px 96px }
h1 { font-size: 38px; line-height: 1.15; letter-spacing: -.02em; margin: 0 }
h2 { font-size: 23px; letter-spacing: -.01em; margin: 0 0 6px; padding-top: 22px; border-top: 1px solid var(--faint) }
p { max-width: 68ch; margin: 0 0 14px }
.lead { font-size: 18px; color: var(--muted); margin: 10px 0 0 }
.facts { display: flex; flex-wrap: wrap; gap: 18px 44px; margin: 34px 0 0; padding: 0 }
.facts div { min-width: 90px; display: flex; flex-direction: column-reverse; justify-content: flex-end }
.facts dd { margin: 0; font-size: 29px; font-weight: 650; letter-spacing: -.02em; font-variant-numeric: tabular-nums }
.facts dt { color: var(--muted); font-size: 14px }
section { margin-top: 52px }
figure { margin: 22px 0 0 }
figure + figure, .beside + figure { margin-top: 46px }
figure + .beside { margin-top: 24px }
figcaption { color: var(--muted); font-size: 14.5px; max-width: 76ch; margin-top: 10px }
figure svg { display: block; width: 100%%; height: auto; overflow: visible }
figure svg text { font-family: inherit !important }
.panels > div { display: grid; gap: 28px 32px }
.panels > div { grid-template-columns: repeat(auto-fit, minmax(min(100%%, var(--least)), 1fr)) }
.beside { display: grid; grid-template-columns: minmax(0, auto) minmax(260px, 1fr); gap: 40px; align-items: start }
@media (max-width: 720px) {
  main { padding: 32px 16px 64px }
  .beside { grid-template-columns: minmax(0, 1fr) }
  .wide div {
    overflow-x: auto;
    background:
      linear-gradient(90deg, var(--paper) 40%%, transparent) 0 0 / 36px 100%% no-repeat local,
      linear-gradient(-90deg, var(--paper) 40%%, transparent) 100%% 0 / 36px 100%% no-repeat local,
      linear-gradient(90deg, var(--faint), transparent) 0 0 / 14px 100%% no-repeat scroll,
      linear-gradient(-90deg, var(--faint), transparent) 100%% 0 / 14px 100%% no-repeat scroll;
  }
  .wide svg { min-width: 680px }
}
table { border-collapse: collapse; font-size: 14.5px; margin-top: 22px; width: 100%% }
th, td { text-align: left; padding: 6px 0; border-bottom: 1px solid var(--faint); vertical-align: top }
th { font-weight: 400; color: var(--muted); padding-right: 24px; white-space: nowrap }
td { font-variant-numeric: tabular-nums; overflow-wrap: anywhere }
@media print { main { max-width: none; padding: 0 } figure, tr { break-inside: avoid } }
"""


def check_target(path: Path) -> None:
    """Raise ValueError where no page can be written, or none be drawn: before the work, not after it."""
    plots.figure_class()
    if not path.parent.is_dir() or path.is_dir() or not os.access(path.parent, os.W_OK):
        raise ValueError(f"cannot write the page {path}; expected a file in a folder that exists and can be written to")


def picture(figure: Figure, caption: str, natural: bool = False) -> str:
    """A figure with its caption; as wide as the page, or of its natural width at most."""
    attributes = f'style="max-width:{96 * figure.get_figwidth():.0f}px"' if natural else 'class="wide"'
    return f"<figure {attributes}><div>{svg(figure, caption)}</div><figcaption>{escape(caption)}</figcaption></figure>"


def panels(figures: Sequence[Figure], caption: str, least: int) -> str:
    """Figures side by side under one caption; below one another where they would be narrower than `least` pixels."""
    drawn = "".join(svg(figure, f"{caption} ({at} of {len(figures)})") for at, figure in enumerate(figures, start=1))
    style = f"--least: {least}px"
    return (
        f'<figure class="panels" style="{style}"><div>{drawn}</div><figcaption>{escape(caption)}</figcaption></figure>'
    )


def svg(figure: Figure, description: str) -> str:
    """A figure as an inline SVG element, in the page's fonts and with its colours as variables."""
    import matplotlib

    buffer = io.StringIO()
    options = {"svg.fonttype": "none", "svg.hashsalt": "twinkernels", "image.composite_image": False}
    with matplotlib.rc_context(options):  # type: ignore[arg-type]
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    text = re.sub(r"<style.*?</style>|<defs>\s*</defs>|<!--.*?-->", "", text[text.index("<svg") :], flags=re.DOTALL)
    start = re.search(r'viewBox="[^"]*"', text)
    assert start is not None
    text = f'<svg {start[0]} role="img" aria-label="{escape(description)}">{text[text.index(">") + 1 :]}'
    for colour, (name, _) in _COLOURS.items():
        text = text.replace(colour, f"var(--{name})")
    # Names hold for the whole page, and two figures may use the same.
    return re.sub(r'(\bid="|url\(#|href="#)', rf"\1f{zlib.crc32(text.encode()):x}-", text)


def section(heading: str, *parts: str) -> str:
    """A part of the page under its heading."""
    return f"<section><h2>{escape(heading)}</h2>{''.join(parts)}</section>"


def paragraph(text: str) -> str:
    """A paragraph of plain text."""
    return f"<p>{escape(text)}</p>"


def beside(*parts: str) -> str:
    """Parts side by side, where the page is wide enough."""
    return f'<div class="beside">{"".join(f"<div>{part}</div>" for part in parts)}</div>'


def table(rows: Mapping[str, object]) -> str:
    """Names with their values."""
    lines = (f"<tr><th>{escape(name)}</th><td>{escape(str(value))}</td></tr>" for name, value in rows.items())
    return f"<table>{''.join(lines)}</table>"


def page(title: str, lead: str, facts: Mapping[str, str], sections: Sequence[str]) -> str:
    """The whole page. facts: the few figures that matter most, by their names."""
    light = "; ".join(f"--{name}: {colour}" for colour, (name, _) in _COLOURS.items())
    dark = "; ".join(f"--{name}: {colour}" for name, colour in _COLOURS.values())
    shown = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts.items())
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{_STYLE % (light, dark)}</style>
</head>
<body><main>
<header><h1>{escape(title)}</h1><p class="lead">{escape(lead)}</p><dl class="facts">{shown}</dl></header>
{chr(10).join(sections)}
</main></body>
</html>
"""
