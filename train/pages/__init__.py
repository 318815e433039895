"""HTML pages in one file, from Jinja2 templates: no request leaves the page, and it can be read and printed from disk.

A page's template extends base.html, which brings style, dark and light colours, and a header. It fills the blocks
`title`, `nav`, `body`, and if it needs them `style` and `script`. macros.html shows the values of this module:
`{% from "macros.html" import picture, table, facts, scale %}`.
"""

from __future__ import annotations

import base64
import contextlib
import csv
import functools
import html
import io
import json
import math
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from train.storage.files import harmless

AXIS = re.compile(r"\b([uvx])(?:_|(?<!x))(\{[^{}]*\}|[jJ12]\b)")
"""u1, v_j, v_{j-1}, x_j or x_{j+1}."""

INK = "svg{color:#1a1a1a}text{fill:currentColor}@media(prefers-color-scheme:dark){svg{color:#e6e6e6}}"
"""Colours of a drawing's lines and letters; those of base.css."""


@dataclass(frozen=True)
class Picture:
    """A picture that is part of its page."""

    data: bytes  # a PNG file, or an SVG file that `svg` made
    alt: str  # the text for readers who do not see it
    caption: str = ""  # below the picture

    @property
    def drawn(self) -> bool:
        """Whether it is an SVG file, which needs no background."""
        return self.data.startswith(b"<svg")

    @property
    def uri(self) -> str:
        """The picture as a data URI."""
        kind = "svg+xml" if self.drawn else "png"
        return f"data:image/{kind};base64," + base64.b64encode(self.data).decode("ascii")


@dataclass(frozen=True)
class Table:
    """A table: on a page, on a terminal, as CSV or Markdown, or as records for JSON."""

    header: Sequence[str]  # names of the columns
    lines: Sequence[Sequence[Any]]  # cells; as text strings, of which a page marks those that begin with FAILS
    label: str = ""  # what the table shows

    def records(self) -> list[dict[str, Any]]:
        """Return its lines by the names of columns."""
        return [dict(zip(self.header, line, strict=True)) for line in self.lines]

    def text(self, justify: Callable[[str, int], str] = str.rjust) -> str:
        """Return it for a terminal, each column aligned at its right by default."""
        rows = [self.header, *self.lines]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join("  ".join(map(justify, row, widths)).rstrip() for row in rows)

    def markdown(self) -> str:
        """Return it as Markdown."""
        rows = [self.header, ["---"] * len(self.header), *self.lines]
        return "\n".join(f"| {' | '.join(row)} |" for row in rows)

    def csv(self) -> bytes:
        """Return it as a CSV file, without commands of terminals or formulas in names that others gave.

        A cell that spreadsheets would take for a formula, and that is no number, begins with an apostrophe.
        """
        text = io.StringIO()
        rows = ([_as_text(cell) for cell in row] for row in (self.header, *self.lines))
        csv.writer(text, lineterminator="\n").writerows(rows)
        return harmless(text.getvalue()).encode(errors="backslashreplace")


def _as_text(cell: Any) -> Any:
    """Return a cell that spreadsheets do not take for a formula."""
    if not isinstance(cell, str) or not cell.startswith(("=", "+", "-", "@", "\t", "\r")):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell


def strict_json(content: Mapping[str, Any]) -> bytes:
    """Return a JSON file for strict parsers, a line for each item of an outer list; NaN and infinities are strings."""
    parts = []
    for key, value in _plain(content).items():
        if isinstance(value, list):
            text = "[\n" + ",\n".join(f"  {json.dumps(item)}" for item in value) + "\n ]"
        else:
            text = json.dumps(value, indent=1).replace("\n", "\n ")
        parts.append(f" {json.dumps(key)}: {text}")
    return ("{\n" + ",\n".join(parts) + "\n}\n").encode()


def _plain(value: Any) -> Any:
    """Return a value in a form that strict JSON has."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def prepare_matplotlib() -> None:
    """Import matplotlib, also where MPLBACKEND names a missing backend, as notebooks hand their own to programs.

    Pictures that go to files need no backend. A valid one is set, as matplotlib itself would.
    """
    if "matplotlib" in sys.modules:
        return
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    if backend:
        with contextlib.suppress(ValueError):
            matplotlib.rcParams["backend"] = backend


_style = threading.RLock()  # of all threads: the settings of matplotlib are the process's


@contextlib.contextmanager
def own_style() -> Iterator[None]:
    """Draw by matplotlib's defaults, whatever a matplotlibrc or the program has set, such as LaTeX for letters."""
    prepare_matplotlib()
    import matplotlib

    with _style, matplotlib.rc_context():
        matplotlib.rcdefaults()
        yield


def new_figure(width: float, height: float, title: str = "") -> Any:
    """Return a figure of matplotlib of a size in inches, whose parts keep clear of each other."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    if title:
        text = title.encode(errors="replace").decode()  # a path need not be text
        figure.suptitle(text, fontsize=10, parse_math=False)
    return figure


@own_style()
def png(pixels: np.ndarray[Any, Any], *, colormap: str = "gray", low: float = 0.0, high: float = 1.0) -> bytes:
    """Return an array as a PNG file, one pixel per entry."""
    from matplotlib.image import imsave

    if pixels.ndim == 3 and pixels.dtype != np.uint8:
        pixels = np.rint(255 * np.clip(pixels, 0, 1)).astype(np.uint8)
    stream = io.BytesIO()
    metadata: dict[str, Any] = {"Software": None}  # a new version of matplotlib does not change the file
    imsave(stream, pixels, vmin=low, vmax=high, cmap=colormap, format="png", metadata=metadata)
    return stream.getvalue()


def as_png(figure: Any, dpi: int) -> bytes:
    """Return a figure of matplotlib as a PNG file."""
    stream = io.BytesIO()
    figure.savefig(stream, dpi=dpi, format="png", metadata={"Software": None})
    return stream.getvalue()


def svg(figure: Any) -> bytes:
    """Return a figure of matplotlib as an SVG file whose black parts follow the reader's light or dark colours."""
    from matplotlib import rc_context

    stream = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "hcnn"}):  # letters stay text; the file repeats itself
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    drawing = text[text.index("<svg") :].replace("#000000", "currentColor")
    return drawing.replace(">", f"><style>{INK}</style>", 1).encode()


def image_png(image: np.ndarray[Any, Any]) -> bytes:
    """Return an image of a data set as a PNG file."""
    return png(image[..., :3] if image.shape[2] >= 3 else image[..., 0] / 255)


def axes_as_html(text: object) -> str:
    """Return text as HTML, with v_{j-1} and x_j as letters with lower indices."""
    from markupsafe import Markup

    return Markup(AXIS.sub(lambda m: f"{m[1]}<sub>{m[2].strip('{}')}</sub>", html.escape(str(text))))


def in_words(value: Any) -> str:
    """Return a value of a description as text: mappings and lists in a line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {in_words(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(in_words, value))
    return str(value)


def render(template: str, **values: Any) -> str:
    """Return a page."""
    text: str = harmless(_environment().get_template(template).render(values))
    return text.encode("utf-8", "replace").decode("utf-8")  # arguments of a command may hold bytes that are no text


@functools.cache
def _environment() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"axes": axes_as_html, "in_words": in_words}
    return environment
