"""HTML pages in one file, from Jinja2 templates: no request leaves the page, and it can be read and printed from disk.

A page's template extends base.html, which brings style, dark and light colours, and a header. It fills the blocks
`title`, `nav`, `body`, and if it needs them `style` and `script`. macros.html shows the values of this module:
`{% from "macros.html" import picture, table, facts, scale %}`.
"""

from __future__ import annotations

import base64
import functools
import html
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["AXIS", "Picture", "Scale", "Table", "axes_as_html", "image_png", "png", "render"]

AXIS = re.compile(r"\b([uv])_?(\{[^{}]*\}|[j12]\b)")
"""u1, v_j or v_{j-1}."""


@dataclass(frozen=True)
class Picture:
    """A picture that is part of its page.

    Parameters
    ----------
    png : bytes
        A PNG file.
    alt : str
        What a reader who does not see it should know.
    caption : str, optional
        Below the picture.
    """

    png: bytes
    alt: str
    caption: str = ""

    @property
    def uri(self) -> str:
        """The picture as a data URI."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode("ascii")


@dataclass(frozen=True)
class Scale:
    """The legend of a colour scale.

    Parameters
    ----------
    label : str
        What the colours show, with its unit.
    colours : sequence of str
        CSS colours at equal distances, from the lowest value to the highest.
    ticks : sequence of str
        Values at equal distances, the first and the last at the ends; at least two.
    """

    label: str
    colours: Sequence[str]
    ticks: Sequence[str]

    @classmethod
    def of(cls, colormap: str, label: str, ticks: Sequence[str]) -> Scale:
        """Return the legend of one of matplotlib's colour maps.

        Parameters
        ----------
        colormap : str
            Its name.
        label : str
            What the colours show, with its unit.
        ticks : sequence of str
            Values at equal distances, the first and the last at the ends.

        Returns
        -------
        Scale
            The legend.
        """
        from matplotlib import colormaps
        from matplotlib.colors import to_hex

        return cls(label, [to_hex(colormaps[colormap](t)) for t in np.linspace(0, 1, 17)], ticks)


@dataclass(frozen=True)
class Table:
    """A table.

    Parameters
    ----------
    header : sequence of str
        Names of the columns.
    lines : sequence of sequence of str
        Cells; those that begin with FAILS are marked.
    label : str, optional
        What the table shows.
    """

    header: Sequence[str]
    lines: Sequence[Sequence[str]]
    label: str = ""


def png(pixels: np.ndarray[Any, Any], *, colormap: str = "gray", low: float = 0.0, high: float = 1.0) -> bytes:
    """Return an array as a PNG file, one pixel per entry.

    Parameters
    ----------
    pixels : ndarray, shape (rows, columns, 3) or (rows, columns)
        RGB: uint8, or floats from 0 to 1, which are cut. Or numbers to be coloured.
    colormap : str, optional
        Name of one of matplotlib's colour maps, for numbers.
    low, high : float, optional
        The numbers that have its first and its last colour.

    Returns
    -------
    bytes
        The file.
    """
    from matplotlib.image import imsave

    if pixels.ndim == 3 and pixels.dtype != np.uint8:
        pixels = np.rint(255 * np.clip(pixels, 0, 1)).astype(np.uint8)
    stream = io.BytesIO()
    metadata: dict[str, Any] = {"Software": None}  # a new version of matplotlib does not change the file
    imsave(stream, pixels, vmin=low, vmax=high, cmap=colormap, format="png", metadata=metadata)
    return stream.getvalue()


def image_png(image: np.ndarray[Any, Any]) -> bytes:
    """Return an image of a data set as a PNG file.

    Parameters
    ----------
    image : ndarray of uint8, shape (rows, columns, channels)
        With 1 to 4 channels. Three or four are shown as RGB; of one or two, the first is shown in grey.

    Returns
    -------
    bytes
        The file.
    """
    return png(image[..., :3] if image.shape[2] >= 3 else image[..., 0] / 255)


def axes_as_html(text: object) -> str:
    """Return text as HTML, with v_{j-1} as v with a lower index.

    Parameters
    ----------
    text : object
        Its str is escaped.

    Returns
    -------
    str
        Safe HTML.
    """
    from markupsafe import Markup

    return Markup(AXIS.sub(lambda m: f"{m[1]}<sub>{m[2].strip('{}')}</sub>", html.escape(str(text))))


def in_words(value: Any) -> str:
    """A value of a description as text: mappings and lists in a line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {in_words(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(in_words, value))
    return str(value)


def render(template: str, **values: Any) -> str:
    """Return a page.

    Parameters
    ----------
    template : str
        Name of a template of this folder.
    **values : value
        What it shows. Text is escaped; a name that the template needs and is not given is an error.

    Returns
    -------
    str
        One HTML file that needs nothing else.

    Raises
    ------
    jinja2.UndefinedError
        If a value is missing.
    """
    text: str = _environment().get_template(template).render(values)
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
