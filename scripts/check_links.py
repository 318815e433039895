#!/usr/bin/env python3
"""Check that links inside a built site lead to files and anchors that exist: ``check_links.py docs/_build/html``.

LinkChecker gives up root's privileges and then cannot read a clone in a private folder, so this is our own.
"""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """The links and the anchors of one HTML file."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = {""}
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src") and value:
                self.links.append(value)
            elif value and (name == "id" or (name == "name" and tag == "a")):
                self.anchors.add(value)


def broken_links(site: Path) -> list[str]:
    """One line for each link from a page of the site to a file or an anchor that does not exist."""
    pages = {path.resolve(): Page(path) for path in sorted(site.rglob("*.html")) if "_static" not in path.parts}
    broken = []
    for path, page in pages.items():
        for link in sorted(set(page.links)):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchor = unquote(parts.fragment)
            if not target.is_file():
                broken.append(f"{path.relative_to(site.resolve())}: {link}: no such file")
            elif target in pages and anchor not in pages[target].anchors:
                broken.append(f"{path.relative_to(site.resolve())}: {link}: no such anchor")
    return broken


def main() -> int:
    """Print what is broken; return 1 if anything is, or if there is no site, else 0."""
    if len(sys.argv) != 2 or not (site := Path(sys.argv[1])).joinpath("index.html").is_file():
        print("check_links.py takes one argument: a folder with index.html and the other pages of a site")
        return 1
    broken = broken_links(site)
    print("\n".join([*broken, f"{len(broken)} broken links"]))
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
