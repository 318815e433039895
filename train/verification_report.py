"""What `train.covariance` measured, as a table for a terminal, as JSON, as pictures, and as one page."""

from __future__ import annotations

import base64
import html
import io
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from hcnn_core.testing.assertions import ROUNDINGS
from train.covariance import KINDS, Row, largest

__all__ = ["as_json", "error_maps", "page", "summary_table"]

SPACE = ("u1", "u2")
ATTRIBUTES = ("v_j", "v_{j-1}", "v_{j-2}")
AXES = (*SPACE, *reversed(ATTRIBUTES))

MEASUREMENTS = ("strides", "kind", "largest", "mean", "class", "bound", "verdict")
LINE_HEADER = ("j", "axis", "shifts", *MEASUREMENTS)
ROW_HEADER = ("statement", "j", "axis", "shift", *MEASUREMENTS)
TOTALS_HEADER = ("must hold", "hold", "fail", "undecided", "largest error", "measured only", "largest change")

AXIS = re.compile(r"\b([uv])_?(\{[^{}]*\}|[j12]\b)")
"""u1, v_j or v_{j-1}, as `train.covariance.axes` names them."""

UNCHECKED = {
    "zero": "not checked at zero boundaries: outputs between the windows, and translations of values that leave",
}
"""What no statement says of a boundary; part of the verdict."""

COLOURS = "viridis"
MARKS: dict[str, tuple[float, dict[str, Any]]] = {
    "holds": (0.3, {"marker": "o", "color": "white", "markeredgecolor": "white"}),
    "FAILS": (0.6, {"marker": "x", "color": "red"}),
    "undecided": (0.6, {"marker": "+", "color": "red"}),
}
"""Of cells that must not change: size in cells, and style."""

LOWEST_COLOURS = 1e-17, 1e-6
"""Between which the colours begin: below there is nothing to tell apart, and 1e-6 is rounding in float32."""

TITLE = "Proposition 3.1 on a network: what translations change"

EXPLANATION = f"""<p>Proposition 3.1 of <a href="https://arxiv.org/abs/1703.04140">arXiv:1703.04140</a> says that
translating x<sub>j</sub>, the output of layer j (x<sub>0</sub>: the images), along space u or along an attribute v
leaves x<sub>J</sub>, the logits, as they are; the step of its induction says that it translates x<sub>j+1</sub>. The
proposition has periodic boundaries and no strides. At a zero boundary each layer is compared besides with Eq. (3), (4)
or (8) written out, at windows along each axis that include both ends: a bias or a normalisation that depends on the
position shows there, and an array that is not extended by zeros. With strides a translation must reach every layer as
a whole number of samples until its axis is summed, and at a zero boundary nothing but zeros may leave. Hence the kinds
below: the first three must hold, and how much the others change is measured. An error is the largest change of a value
relative to the largest value. It holds if every example's error is within its bound, what rounding explains:
2 · {ROUNDINGS} · stages · (R + eps · max |y|), where two results y are compared, each after a number of stages (two a
layer) whose sums are wrong by some {ROUNDINGS} roundings, and R is how far white noise of standard deviation eps · |x|
in x moves the value it moves most (<code>hcnn_core.testing</code> derives it). A bound above a tenth of the largest
value, or of zero, leaves a row undecided. Tables show the largest bound, and under "class" the share of images that are
given another class.</p>
<dl>
<dt>exact</dt><dd>must hold: periodic boundary, a multiple of the strides still to come</dd>
<dt>inside</dt><dd>must hold: zero boundary, only zeros leave and no stride is to come</dd>
<dt>written out</dt><dd>must hold: zero boundary, a layer at windows along an axis</dd>
<dt>aliased</dt><dd>measured: periodic boundary, not a multiple of the strides still to come</dd>
<dt>boundary</dt><dd>measured: zero boundary, values leave</dd>
</dl>"""

CAPTION = """A cell is one translation of one array, its colour the largest error of all examples. Cells with a dot must
not change, and are dark where they do not; a red cross marks one that does. Cells without a mark may change. Blank ones
were not measured: there is no such axis, or it is shorter."""

STYLE = """:root { color-scheme: light dark;
  --text: #1a1a1a; --back: #fff; --line: #ccc; --good: #176930; --bad: #b00020 }
@media (prefers-color-scheme: dark) {
  :root { --text: #e6e6e6; --back: #161616; --line: #444; --good: #7bd88f; --bad: #ff7b86 }
}
body { font: 16px/1.5 system-ui, sans-serif; color: var(--text); background: var(--back); max-width: 70rem;
  margin: 2rem auto; padding: 0 1rem }
h1, h2 { line-height: 1.2 }
a { color: inherit }
.verdict { font-size: 1.3rem; font-weight: bold }
.holds { color: var(--good) }
.fails { color: var(--bad); font-weight: bold }
dt { float: left; clear: left; width: 7rem; font-weight: bold }
dd { margin-left: 7rem }
figure { margin: 1rem 0 }
img { max-width: 100%; height: auto; background: #fff }
figcaption { max-width: 60rem }
summary { cursor: pointer; margin: .5rem 0 }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums }
th, td { text-align: left; vertical-align: top; padding: .15rem .7rem .15rem 0; border-bottom: 1px solid var(--line) }
td { overflow-wrap: anywhere }
.scroll { overflow-x: auto; white-space: nowrap }
.scroll td { overflow-wrap: normal }
sub { line-height: 0 }"""

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{style}
</style>
</head>
<body>
{body}
</body>
</html>
"""

Table = tuple[tuple[str, ...], list[tuple[str, ...]]]


def summary_table(rows: Sequence[Row]) -> str:
    """Return the measurements as a text table of at most 120 columns.

    Parameters
    ----------
    rows : sequence of Row
        What was measured.

    Returns
    -------
    str
        Per boundary and mode a block with a line per depth, axis and kind, and one with a line per single layer; at
        the end a line per boundary that counts what holds.

    Raises
    ------
    ValueError
        If there is no row, or one without a measurement or of an unknown axis.
    """
    _require_measurements(rows)
    blocks = []
    for boundary, mode in _cases(rows):
        case = _select(rows, boundary, mode)
        name = f"{boundary} boundary, {mode} mode, {_examples(case)}"
        for title, (header, cells) in (
            ("x_j translated, change of x_J", _invariance_table(case)),
            ("x_j translated by a stride, x_{j+1} by one sample", _layer_table(case, "covariance")),
            ("x_{j+1} and the layer written out, at windows along each axis", _layer_table(case, "definition")),
        ):
            if cells:
                blocks.append([f"{title}: {name}", *_aligned(header, cells)])
    verdicts = []
    for boundary in dict.fromkeys(row.boundary for row in rows):
        verdict = f"{boundary}: {_in_words(_select(rows, boundary))}"
        verdicts += [f"{verdict};", f"  {UNCHECKED[boundary]}"] if boundary in UNCHECKED else [verdict]
    blocks.append(verdicts)
    return "\n\n".join("\n".join(lines) for lines in blocks)


def as_json(rows: Sequence[Row], description: Mapping[str, Any]) -> str:
    """Return the measurements as JSON that strict parsers read, one row a line.

    Parameters
    ----------
    rows : sequence of Row
        What was measured.
    description : mapping
        What it was measured on: command, network, versions and the like. Values that JSON does not know become text.

    Returns
    -------
    str
        An object of "description", "totals" and "rows"; rows have their fields, must_hold, verdict, largest and mean.
        Numbers that are not finite are the texts NaN, Infinity and -Infinity.

    Raises
    ------
    ValueError
        If there is no row, or one without a measurement or of an unknown axis.
    """
    _require_measurements(rows)
    derived = ("must_hold", "verdict", "largest", "mean")
    records = [asdict(row) | {name: getattr(row, name) for name in derived} for row in rows]
    head = {"description": description, "totals": _totals(rows)}
    parts = [f" {json.dumps(key)}: {_dumps(value, indent=1)}" for key, value in head.items()]
    parts.append(' "rows": [\n' + ",\n".join(f"  {_dumps(record)}" for record in records) + "\n ]")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def error_maps(rows: Sequence[Row], boundary: str, mode: str) -> bytes:
    """Draw how much x_J changes with the depth and the translation, one map per axis.

    Parameters
    ----------
    rows : sequence of Row
        What was measured. The colours span all of them, so that pictures of different modes compare.
    boundary, mode : str
        Which of them to draw; translations inside a zero boundary have no cell.

    Returns
    -------
    bytes
        A PNG file.

    Raises
    ------
    ValueError
        If there is no such row, or one without a measurement or of an unknown axis.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    _require_measurements(rows)
    mapped = [row for row in rows if _is_mapped(row)]
    drawn = _select(mapped, boundary, mode)
    if not drawn:
        there = ", ".join(f"{b} {m}" for b, m in _cases(mapped)) or "nothing"
        raise ValueError(f"no map of boundary {boundary!r} in mode {mode!r} was measured; there is {there}")
    columns = {axis: max((row.shift for row in drawn if row.axis == axis), default=0) for axis in reversed(AXES)}
    lines = [axes for group in (ATTRIBUTES, SPACE) if (axes := [axis for axis in group if columns[axis]])]
    depths = 1 + max(row.j for row in drawn)

    # in inches, so that cells of all maps are equal
    wide = min(0.24, *(6 / sum(columns[axis] for axis in axes) for axes in lines))
    high = min(0.24, 5 / depths)
    slots = {axis: max(wide * columns[axis], 1.2) + 0.45 for axis in columns}
    left, right, top, below = 0.55, 0.95, 0.8, 0.7
    width = left + max(5, *(sum(slots[axis] for axis in axes) for axes in lines)) + right - 0.2
    height = top + max(2, len(lines) * (high * depths + below))
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)

    def place(x: float, y: float, w: float, h: float) -> Any:
        return figure.add_axes((x / width, 1 - (y + h) / height, w / width, h / height))

    norm = LogNorm(_smallest_decade(mapped), 1)
    for i, axes in enumerate(lines):
        x = left
        for axis in axes:
            plot = place(x, top + i * (high * depths + below), wide * columns[axis], high * depths)
            _draw_map(plot, [row for row in drawn if row.axis == axis], (depths, columns[axis]), norm, (high, wide))
            plot.set_xlabel(f"translation along\n{_mathematical(axis)} [samples]", fontsize=9)
            plot.set_ylabel("layer $j$" if axis == axes[0] else "", fontsize=9)
            x += slots[axis]
    scale = place(width - right, top, 0.16, height - top - below)
    figure.colorbar(ScalarMappable(norm, COLOURS), cax=scale, extend="both", extendfrac=0.12 / (height - top - below))
    scale.set_ylabel("largest relative change of $x_J$", fontsize=9)
    scale.tick_params(labelsize=8)
    title = f"$x_j$ translated, change of $x_J$: {boundary} boundary, {mode} mode, {_examples(drawn)}"
    figure.text(left / width, 1 - 0.15 / height, title, fontsize=10, va="top")
    _draw_legend(figure, {row.verdict for row in drawn}, (left / width, 1 - 0.38 / height))
    picture = io.BytesIO()
    figure.savefig(picture, dpi=150, format="png")
    return picture.getvalue()


def page(rows: Sequence[Row], description: Mapping[str, Any]) -> str:
    """Return the measurements as one HTML file that needs neither network nor scripts.

    Parameters
    ----------
    rows : sequence of Row
        What was measured.
    description : mapping
        What it was measured on, as `as_json` takes it.

    Returns
    -------
    str
        The verdict, what it means, what was measured, pictures and tables.

    Raises
    ------
    ValueError
        If there is no row, or one without a measurement or of an unknown axis.
    """
    _require_measurements(rows)
    totals = _totals(rows)
    failing = sorted((row for row in rows if row.verdict == "FAILS"), key=lambda row: row.statement)  # layers first
    claim = _claim(totals)
    colour = "fails" if failing else "holds" if totals["must_hold"] else ""
    unchecked = "".join(f"; {text}" for name, text in UNCHECKED.items() if _select(rows, name))
    verdict = f'<p class="verdict {colour}">{claim[0].upper()}{claim[1:]}{unchecked}.</p>'
    body = [f"<h1>{TITLE}</h1>", verdict, EXPLANATION]
    if failing:
        lines = [(row.boundary, row.mode, *_row_cells(row)) for row in failing]
        body += ["<h2>What fails</h2>", _html_table(("boundary", "mode", *ROW_HEADER), lines)]
    body += ["<h2>Totals</h2>", _html_table(*_totals_table(rows))]
    if description:
        body += ["<h2>What was measured</h2>", _html_description(description)]
    for boundary, mode in _cases(rows):
        case, name = _select(rows, boundary, mode), html.escape(f"{boundary} boundary, {mode} mode")
        body.append(f"<h2>{name[:1].upper()}{name[1:]}</h2>")
        if any(map(_is_mapped, case)):
            alt = f"Change of the logits over layer and translation, a map per axis: {_in_words(case)}."
            body.append(_html_picture(error_maps(rows, boundary, mode), alt))
        for title, (header, cells) in (
            ("Translations of x<sub>j</sub> and the change of x<sub>J</sub>, by kind", _invariance_table(case)),
            (
                "Single layers: x<sub>j</sub> translated by one stride, x<sub>j+1</sub> by one sample; largest error",
                _layer_table(case, "covariance"),
            ),
            (
                "Single layers: x<sub>j+1</sub> and the layer written out, at windows along each axis; largest error",
                _layer_table(case, "definition"),
            ),
            (f"All {len(case)} statements", (ROW_HEADER, [_row_cells(row) for row in case])),
        ):
            if cells:
                body.append(f"<details>\n<summary>{title}</summary>\n{_html_table(header, cells)}\n</details>")
    text = PAGE.format(title=TITLE, style=STYLE, body="\n".join(body))
    return text.encode("utf-8", "replace").decode("utf-8")  # arguments of a command may hold bytes that are no text


def _require_measurements(rows: Sequence[Row]) -> None:
    """Raise ValueError unless there are rows, each of an axis that has a place here, with an error and its bound."""
    if not rows:
        raise ValueError("there are no rows to report; measure at least one translation")
    for row in rows:
        if row.axis not in AXES:
            raise ValueError(f"axis {row.axis!r} of a row is unknown; axes are {', '.join(AXES)}")
        if not row.errors or len(row.errors) != len(row.bounds):
            raise ValueError(
                f"the row of {row.statement}, j={row.j}, {row.axis}, shift={row.shift} has {len(row.errors)} errors "
                f"and {len(row.bounds)} bounds; give one of each per example, and an example"
            )


def _cases(rows: Iterable[Row]) -> list[tuple[str, str]]:
    """Boundaries and modes, in the order they come in."""
    return list(dict.fromkeys((row.boundary, row.mode) for row in rows))


def _select(rows: Iterable[Row], boundary: str, mode: str | None = None) -> list[Row]:
    """The rows of a boundary, of one mode or of all."""
    return [row for row in rows if row.boundary == boundary and mode in (None, row.mode)]


def _is_mapped(row: Row) -> bool:
    """Whether a row has a cell in a map; another translation of the same axis has the cell of "inside"."""
    return row.statement == "invariance" and row.kind != "inside"


def _examples(rows: Iterable[Row]) -> str:
    """How many examples rows have: "2 examples"."""
    counts = sorted({len(row.errors) for row in rows})
    return " to ".join(map(str, counts[:: max(1, len(counts) - 1)])) + (" example" if counts == [1] else " examples")


def _totals(rows: Sequence[Row]) -> dict[str, int | float | None]:
    """Counts of statements by verdict, and the largest error of those that must hold and of the others."""
    must_hold = [row for row in rows if row.must_hold]
    measured = [row for row in rows if not row.must_hold]
    verdicts = [row.verdict for row in must_hold]
    return {
        "must_hold": len(must_hold),
        "hold": verdicts.count("holds"),
        "fail": verdicts.count("FAILS"),
        "undecided": verdicts.count("undecided"),
        "largest_error": largest(row.largest for row in must_hold) if must_hold else None,
        "measured": len(measured),
        "largest_change": largest(row.largest for row in measured) if measured else None,
    }


def _claim(totals: Mapping[str, int | float | None]) -> str:
    """The verdict in words."""
    must_hold, fail, undecided = totals["must_hold"], totals["fail"], totals["undecided"]
    if not must_hold:
        return "no statement here must hold"
    if fail:
        return f"{fail} of {must_hold} statements that must hold FAIL"
    if undecided:
        return f"{undecided} of {must_hold} statements that must hold are undecided"
    return f"all {must_hold} statements that must hold hold"


def _in_words(rows: Sequence[Row]) -> str:
    """Verdict, counts and largest errors in one line."""
    totals = _totals(rows)
    error = f", largest error {_number(totals['largest_error'])}" if totals["must_hold"] else ""
    change = f"; {totals['measured']} measured, largest change {_number(totals['largest_change'])}"
    return _claim(totals) + error + (change if totals["measured"] else "")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1e}"


def _compact(numbers: Iterable[int]) -> str:
    """Numbers in one cell: "4 8 12", "1 2 3 5 .. 15", or "-" for none."""
    shown = [*map(str, numbers)]
    return " ".join([*shown[:4], "..", shown[-1]] if len(shown) > 6 else shown) or "-"


def _measurements(row: Row) -> tuple[str, ...]:
    """The cells under MEASUREMENTS."""
    strides = _compact(stride for stride in row.strides if stride > 1)
    changed = f"{100 * math.fsum(row.changed) / len(row.changed):.0f} %" if row.changed else "-"
    bound = _number(largest(row.bounds)) if row.must_hold else "-"
    return (strides, row.kind, _number(row.largest), _number(row.mean), changed, bound, row.verdict)


def _row_cells(row: Row) -> tuple[str, ...]:
    """The cells under ROW_HEADER."""
    return (row.statement, str(row.j), row.axis, str(row.shift), *_measurements(row))


def _totals_table(rows: Sequence[Row]) -> Table:
    """A line of counts per boundary and mode."""
    cells = []
    for case in _cases(rows):
        totals = _totals(_select(rows, *case)).values()
        cells.append((*case, *(str(n) if isinstance(n, int) else _number(n) for n in totals)))
    return ("boundary", "mode", *TOTALS_HEADER), cells


def _invariance_table(case: Sequence[Row]) -> Table:
    """A line per depth, axis and kind."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in case:
        if row.statement == "invariance":
            key = (row.j, AXES.index(row.axis), KINDS.index(row.kind), row.strides)
            groups.setdefault(key, []).append(row)
    cells = []
    for _, group in sorted(groups.items()):
        shifts = _compact(sorted({row.shift for row in group}))
        cells.append((str(group[0].j), group[0].axis, shifts, *_measurements(group[0].merged(group[1:]))))
    return LINE_HEADER, cells


def _layer_table(case: Sequence[Row], statement: str) -> Table:
    """A line per layer: the largest error along each axis, the largest bound, and which axes fail."""
    rows = [row for row in case if row.statement == statement]
    axes = sorted({row.axis for row in rows}, key=AXES.index)
    cells = []
    for j in sorted({row.j for row in rows}):
        layer = [row for row in rows if row.j == j]
        errors = {axis: largest(row.largest for row in layer if row.axis == axis) for axis in {r.axis for r in layer}}
        failing = dict.fromkeys(row.axis for row in layer if row.verdict == "FAILS")
        bound = _number(largest(bound for row in layer for bound in row.bounds))
        verdict = "FAILS: " + " ".join(failing) if failing else layer[0].verdict
        cells.append((str(j), *(_number(errors.get(axis)) for axis in axes), bound, verdict))
    return ("j", *axes, "bound", "verdict"), cells


def _aligned(header: Sequence[str], cells: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a text table."""
    lines = [header, *cells]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines]


def _plain(value: Any) -> Any:
    """What strict JSON can say of a value."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def _dumps(value: Any, indent: int | None = None) -> str:
    text = json.dumps(_plain(value), allow_nan=False, indent=indent)
    return text.replace("\n", "\n" + " " * (indent or 0))


def _text(value: Any) -> str:
    """A value of the description in words."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_text(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_text, value))
    return str(value)


def _html_axes(text: str) -> str:
    """Escaped text with v_{j-1} as v<sub>j-1</sub>."""
    return AXIS.sub(lambda m: f"{m[1]}<sub>{m[2].strip('{}')}</sub>", html.escape(text))


def _html_table(header: Sequence[str], cells: Iterable[Sequence[str]]) -> str:
    lines = ['<div class="scroll">\n<table>\n<thead>']
    lines.append("<tr>" + "".join(f'<th scope="col">{_html_axes(name)}</th>' for name in header) + "</tr>")
    lines.append("</thead>\n<tbody>")
    for line in cells:
        tags = ('<td class="fails">' if cell.startswith("FAILS") else "<td>" for cell in line)
        lines.append("<tr>" + "".join(f"{t}{_html_axes(c)}</td>" for t, c in zip(tags, line, strict=True)) + "</tr>")
    return "\n".join([*lines, "</tbody>\n</table>\n</div>"])


def _html_description(description: Mapping[str, Any]) -> str:
    lines = [
        f'<tr><th scope="row">{html.escape(str(name))}</th><td>{html.escape(_text(value))}</td></tr>'
        for name, value in description.items()
    ]
    return "\n".join(["<table>\n<tbody>", *lines, "</tbody>\n</table>"])


def _html_picture(picture: bytes, alt: str) -> str:
    data = base64.b64encode(picture).decode("ascii")
    return (
        f'<figure>\n<img src="data:image/png;base64,{data}" alt="{alt}">\n<figcaption>{CAPTION}</figcaption>\n</figure>'
    )


def _mathematical(axis: str) -> str:
    """The name of an axis as matplotlib sets it."""
    return AXIS.sub(lambda m: f"${m[1]}_{{{m[2].strip('{}')}}}$", axis)


def _smallest_decade(rows: Iterable[Row]) -> float:
    """The power of ten at or below the smallest error that is not 0, where the colours begin."""
    smallest = min((row.largest for row in rows if row.largest > 0), default=math.inf)
    return float(10.0 ** math.floor(math.log10(np.clip(smallest, *LOWEST_COLOURS))))


def _draw_map(plot: Any, rows: Iterable[Row], shape: tuple[int, int], norm: Any, cell: tuple[float, float]) -> None:
    """Fill the cells of one axis, and mark those that must not change."""
    errors = np.full(shape, np.nan)
    marks: dict[str, list[tuple[int, int]]] = {verdict: [] for verdict in (*MARKS, "measured")}
    for row in rows:
        where = row.j, row.shift - 1
        errors[where] = np.fmax(errors[where], np.inf if math.isnan(row.largest) else row.largest)
        marks[row.verdict].append((row.shift, row.j))
    edges = np.arange(shape[1] + 1) + 0.5, np.arange(shape[0] + 1) - 0.5
    shown = np.ma.masked_invalid(np.clip(errors, norm.vmin, norm.vmax))
    plot.pcolormesh(*edges, shown, norm=norm, cmap=COLOURS, edgecolors="white", linewidth=2 * min(cell))
    for verdict in MARKS:
        if marks[verdict]:
            plot.plot(*zip(*marks[verdict], strict=True), **_mark(verdict, 72 * min(cell)))
    plot.invert_yaxis()
    row_step, column_step = (
        2 ** math.ceil(math.log2(max(1, 0.1 * len(str(n)) / size))) for n, size in zip(shape, cell, strict=True)
    )
    plot.set_yticks(range(0, shape[0], row_step))
    plot.set_xticks(range(column_step, shape[1] + 1, column_step))
    plot.tick_params(labelsize=8, length=2)
    plot.spines[:].set_color("0.6")


def _mark(verdict: str, cell: float) -> dict[str, Any]:
    """How matplotlib marks a cell of that many points."""
    scale, style = MARKS[verdict]
    return {"linestyle": "", "markersize": scale * cell, "markeredgewidth": 0.1 * cell, **style}


def _draw_legend(figure: Any, verdicts: Iterable[str], corner: tuple[float, float]) -> None:
    """Say what the cells are that are there, and what a blank one is."""
    from matplotlib import colormaps
    from matplotlib.lines import Line2D

    def cell(colour: Any, edge: Any) -> Line2D:
        return Line2D([], [], linestyle="", marker="s", markersize=11, color=colour, markeredgecolor=edge)

    def marked(verdict: str) -> tuple[Line2D, ...]:
        colour = colormaps[COLOURS](0.1 if verdict == "holds" else 0.95)
        return (cell(colour, colour), *([Line2D([], [], **_mark(verdict, 12))] if verdict in MARKS else []))

    meanings = {
        "holds": "must not change, does not",
        "FAILS": "must not change, but does",
        "undecided": "must not change, undecided",
        "measured": "may change",
    }
    entries = [(marked(verdict), meaning) for verdict, meaning in meanings.items() if verdict in verdicts]
    entries.append(((cell("white", "0.6"),), "not measured"))
    figure.legend(
        *zip(*entries, strict=True),
        loc="upper left",
        bbox_to_anchor=corner,
        borderpad=0,
        borderaxespad=0,
        ncols=len(entries),
        columnspacing=1.5,
        handlelength=1.2,
        fontsize=9,
        frameon=False,
    )
