"""What may be wrong with a built site: links and anchors that lead nowhere, and assets of other servers."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

FOREIGN_CSS = re.compile(r"""(?:url\(|@import)\s*["']?\s*((?:https?:)?//[^"')\s;]+)""")


class Page(HTMLParser):
    """What a page links to, loads, and can be linked to by."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value for name, value in attrs if value is not None}
        self.anchors.update(given[name] for name in ("id", "name") if name in given)
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag == "link" and "href" in given:
            self.loaded.append(given["href"])
        if tag != "a" and "src" in given:
            self.loaded.append(given["src"])
        for part in given.get("srcset", "").split(","):
            self.loaded.extend(part.split()[:1])
        self.loaded.extend(FOREIGN_CSS.findall(given.get("style", "")))


def complaints(site: Path) -> list[str]:
    """A line for everything that is wrong with the site in this folder."""
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    found = []
    for path, page in pages.items():
        name = path.relative_to(site)
        for target in page.loaded:
            parts = urlsplit(target)
            if parts.scheme not in ("", "data") or parts.netloc:
                found.append(f"{name}: loads {target} from another server")
        for target in page.links + page.loaded:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            file = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not file.is_file():
                found.append(f"{name}: {target} leads to no file")
            elif parts.fragment and file in pages and unquote(parts.fragment) not in pages[file].anchors:
                found.append(f"{name}: {target} leads to no anchor")
    for path in sorted(site.rglob("*.css")):
        for target in FOREIGN_CSS.findall(path.read_text(encoding="utf-8")):
            found.append(f"{path.relative_to(site)}: loads {target} from another server")
    return found
