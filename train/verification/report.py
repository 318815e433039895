"""What `train.verification.covariance` measured, as a table for a terminal, as JSON, as pictures, and as one page."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from hcnn_core.testing.assertions import ROUNDINGS
from train.pages import AXIS, Picture, Table, own_style, prepare_matplotlib, render, strict_json
from train.verification.covariance import DECISIVE, KINDS, Row, largest

SPACE = ("u1", "u2", "u3")
ATTRIBUTES = ("v_j", "v_{j-1}", "v_{j-2}")
AXES = (*SPACE, *reversed(ATTRIBUTES))

MEASUREMENTS = ("strides", "kind", "largest", "mean", "class", "bound", "verdict")
LINE_HEADER = ("j", "axis", "shifts", *MEASUREMENTS)
ROW_HEADER = ("statement", "j", "axis", "shift", *MEASUREMENTS)
TOTALS_HEADER = ("must hold", "hold", "fail", "undecided", "largest error", "measured only", "largest change")

UNCHECKED = {"zero": "Not checked: at zero boundaries, outputs between windows and values pushed off the end"}
"""What no statement says of a boundary; part of the verdict."""

COLOURS = "RdBu_r"
MARKS: dict[str, tuple[float, dict[str, Any]]] = {
    "holds": (0.3, {"marker": "o", "color": "white", "markeredgecolor": "white"}),
    "FAILS": (0.6, {"marker": "X", "color": "lime", "markeredgecolor": "black"}),
    "undecided": (0.6, {"marker": "P", "color": "lime", "markeredgecolor": "black"}),
}
"""Of cells that must not change: size in cells, and style."""

LOWEST = 1e-17
"""Where the colours of rounding begin: below there is nothing to tell apart."""

LOWEST_CHANGE = 1e-4
"""Where the colours of changes begin at the least, so that large ones differ."""

ROUNDING_COLOURS, CHANGE_COLOURS = (0.0, 0.4), (0.62, 1.0)
"""Parts of the colour map: blue for what rounding explains, red for what it does not; no colour between them."""

CAPTION = """A cell is one translation of one array, its colour the largest error of all examples: blue as far as
rounding explains it, red beyond. Cells with a dot must not change; a cross marks one that does. Cells without a mark
may change. Blank ones were not measured: there is no such axis, or it is shorter."""


def summary_table(rows: Sequence[Row]) -> str:
    """Return the measurements as a text table of at most 120 columns."""
    blocks = []
    for boundary, mode in _cases(rows):
        case = _select(rows, boundary, mode)
        name = f"{boundary} boundary, {mode} mode, {_examples(case)}"
        for title, table in (
            ("x_j translated, change of x_J", _invariance_table(case)),
            ("x_j translated by a stride, x_{j+1} by one sample", _layer_table(case, "covariance")),
            ("x_{j+1} and the layer written out, at windows along each axis", _layer_table(case, "definition")),
        ):
            if table.lines:
                blocks.append([f"{title}: {name}", table.text(str.ljust)])
    verdicts = []
    for boundary in dict.fromkeys(boundary for boundary, _ in _cases(rows)):
        verdict = f"{boundary}: {_in_words(_select(rows, boundary))}"
        verdicts += [f"{verdict}.", f"  {UNCHECKED[boundary]}"] if boundary in UNCHECKED else [verdict]
    blocks.append(verdicts)
    return "\n\n".join("\n".join(lines) for lines in blocks)


def as_json(rows: Sequence[Row], description: Mapping[str, Any]) -> bytes:
    """Return the measurements as JSON, one row a line."""
    derived = ("must_hold", "verdict", "largest", "mean")
    records = [asdict(row) | {name: getattr(row, name) for name in derived} for row in rows]
    return strict_json({"description": description, "totals": _totals(rows), "rows": records})


@own_style()
def error_maps(rows: Sequence[Row], boundary: str, mode: str) -> bytes:
    """Draw how much x_J changes with the depth and the translation, one map per axis."""
    prepare_matplotlib()
    from matplotlib.figure import Figure

    mapped = _mapped(rows)
    drawn = _select(mapped, boundary, mode)
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

    def place(x: float, y: float, w: float, h: float) -> Any:
        return figure.add_axes((x / width, 1 - (y + h) / height, w / width, h / height))

    norm = _Norm(mapped)
    for i, axes in enumerate(lines):
        x = left
        for axis in axes:
            plot = place(x, top + i * (high * depths + below), wide * columns[axis], high * depths)
            _draw_map(plot, [row for row in drawn if row.axis == axis], (depths, columns[axis]), norm, (high, wide))
            symbol = AXIS.sub(lambda m: f"${m[1]}_{{{m[2].strip('{}')}}}$", axis)
            plot.set_xlabel(f"translation along\n{symbol} [samples]", fontsize=9)
            plot.set_ylabel("layer $j$" if axis == axes[0] else "", fontsize=9)
            x += slots[axis]
    scale = place(width - right, top, 0.16, height - top - below)
    _draw_scale(scale, norm)
    title = f"$x_j$ translated, change of $x_J$: {boundary} boundary, {mode} mode, {_examples(drawn)}"
    figure.text(left / width, 1 - 0.15 / height, title, fontsize=10, va="top")
    _draw_legend(figure, {row.verdict for row in drawn}, (left / width, 1 - 0.38 / height))
    picture = io.BytesIO()
    figure.savefig(picture, dpi=150, format="png")
    return picture.getvalue()


def page(rows: Sequence[Row], description: Mapping[str, Any], images: Sequence[Picture] = ()) -> str:
    """Return the measurements as one HTML file that needs neither network nor scripts."""
    totals = _totals(rows)
    failing = sorted((row for row in rows if row.verdict == "FAILS"), key=lambda row: row.statement)  # layers first
    claim = _claim(totals)
    return render(
        "verify.html",
        verdict=claim[0].upper() + claim[1:],
        colour="fails" if failing else "holds" if totals["must_hold"] else "",
        unchecked=[text for name, text in UNCHECKED.items() if _select(rows, name)],
        failing=Table(
            ("boundary", "mode", *ROW_HEADER), [(row.boundary, row.mode, *_row_cells(row)) for row in failing]
        ),
        totals=_totals_table(rows),
        description=description,
        images=images,
        roundings=ROUNDINGS,
        cases=[_case(rows, *case) for case in _cases(rows)],
    )


def _case(rows: Sequence[Row], boundary: str, mode: str) -> dict[str, Any]:
    """Return what the page shows of a boundary and mode: its name, a picture, and tables by title."""
    case = _select(rows, boundary, mode)
    picture = None
    if any(map(_is_mapped, case)):
        alt = f"Change of the logits over layer and translation, a map per axis: {_in_words(case)}."
        picture = Picture(error_maps(rows, boundary, mode), alt, CAPTION)
    tables = {
        "Translations of x_j and the change of x_J, by kind": _invariance_table(case),
        "Single layers: x_j translated by one stride, x_{j+1} by one sample; largest error": _layer_table(
            case, "covariance"
        ),
        "Single layers: x_{j+1} and the layer written out, at windows along each axis; largest error": _layer_table(
            case, "definition"
        ),
        f"All {len(case)} statements": Table(ROW_HEADER, [_row_cells(row) for row in case]),
    }
    named = {title: replace(table, label=title) for title, table in tables.items() if table.lines}
    held = any(row.must_hold for row in _mapped(case))
    return {"boundary": boundary, "mode": mode, "picture": picture, "tables": named, "held": held}


def _cases(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Boundaries and modes, first those of the boundary with most translations that must not change x_J."""
    cases = dict.fromkeys((row.boundary, row.mode) for row in rows)
    return sorted(cases, key=lambda case: -sum(row.must_hold for row in _mapped(_select(rows, case[0]))))


def _select(rows: Iterable[Row], boundary: str, mode: str | None = None) -> list[Row]:
    """Return the rows of a boundary, of one mode or of all."""
    return [row for row in rows if row.boundary == boundary and mode in (None, row.mode)]


def _is_mapped(row: Row) -> bool:
    """Say whether a row has a cell in a map; another translation of the same axis has the cell of "inside"."""
    return row.statement == "invariance" and row.kind != "inside"


def _examples(rows: Iterable[Row]) -> str:
    """Say how many examples rows have: "2 examples"."""
    counts = sorted({len(row.errors) for row in rows})
    return " to ".join(map(str, counts[:: max(1, len(counts) - 1)])) + (" example" if counts == [1] else " examples")


def _totals(rows: Sequence[Row]) -> dict[str, int | float | None]:
    """Count statements by verdict, and find the largest error of those that must hold and of the others."""
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
    """Return the verdict in words."""
    must_hold, fail, undecided = totals["must_hold"], totals["fail"], totals["undecided"]
    if not must_hold:
        return "no check here is exact"
    if fail:
        return f"{fail} of {must_hold} checks FAILED"
    if undecided:
        return f"{undecided} of {must_hold} checks are undecided"
    return f"all {must_hold} checks passed"


def _in_words(rows: Sequence[Row]) -> str:
    """Verdict, counts and largest errors in one line."""
    totals = _totals(rows)
    error = f", largest error {_number(totals['largest_error'])}" if totals["must_hold"] else ""
    change = f"; {totals['measured']} others need not hold: largest change {_number(totals['largest_change'])}"
    return _claim(totals) + error + (change if totals["measured"] else "")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1e}"


def _compact(numbers: Iterable[int]) -> str:
    """Numbers in one cell: "4 8 12", "1 2 3 5 .. 15", or "-" for none."""
    shown = [*map(str, numbers)]
    return " ".join([*shown[:4], "..", shown[-1]] if len(shown) > 6 else shown) or "-"


def _measurements(row: Row) -> tuple[str, ...]:
    """Return the cells under MEASUREMENTS."""
    strides = _compact(stride for stride in row.strides if stride > 1)
    changed = f"{100 * math.fsum(row.changed) / len(row.changed):.0f} %" if row.changed else "-"
    bound = _number(largest(row.bounds)) if row.must_hold else "-"
    return (strides, row.kind, _number(row.largest), _number(row.mean), changed, bound, row.verdict)


def _row_cells(row: Row) -> tuple[str, ...]:
    """Return the cells under ROW_HEADER."""
    return (row.statement, str(row.j), row.axis, str(row.shift), *_measurements(row))


def _totals_table(rows: Sequence[Row]) -> Table:
    """Make a table of counts, a line for each boundary and mode."""
    cells = []
    for case in _cases(rows):
        totals = _totals(_select(rows, *case)).values()
        cells.append((*case, *(str(n) if isinstance(n, int) else _number(n) for n in totals)))
    return Table(("boundary", "mode", *TOTALS_HEADER), cells)


def _invariance_table(case: Sequence[Row]) -> Table:
    """Make a table of a line for each depth, axis and kind."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in case:
        if row.statement == "invariance":
            key = (row.j, AXES.index(row.axis), KINDS.index(row.kind), row.strides)
            groups.setdefault(key, []).append(row)
    cells = []
    for _, group in sorted(groups.items()):
        shifts = _compact(sorted({row.shift for row in group}))
        cells.append((str(group[0].j), group[0].axis, shifts, *_measurements(group[0].merged(group[1:]))))
    return Table(LINE_HEADER, cells)


def _layer_table(case: Sequence[Row], statement: str) -> Table:
    """Make a table of layers: the largest error along each axis, the largest bound, and which axes fail."""
    rows = [row for row in case if row.statement == statement]
    axes = sorted({row.axis for row in rows}, key=AXES.index)
    cells = []
    for j in sorted({row.j for row in rows}):
        layer = [row for row in rows if row.j == j]
        errors = {axis: largest(row.largest for row in layer if row.axis == axis) for axis in {r.axis for r in layer}}
        failing = dict.fromkeys(row.axis for row in layer if row.verdict == "FAILS")
        bound = _number(largest(bound for row in layer for bound in row.bounds))
        undecided = any(row.verdict == "undecided" for row in layer)
        verdict = "FAILS: " + " ".join(failing) if failing else "undecided" if undecided else layer[0].verdict
        cells.append((str(j), *(_number(errors.get(axis)) for axis in axes), bound, verdict))
    return Table(("j", *axes, "bound", "verdict"), cells)


def _mapped(rows: Iterable[Row]) -> list[Row]:
    return [row for row in rows if _is_mapped(row)]


class _Norm:
    """Places of errors in the colour map: on two logarithmic scales, up to what rounding explains and beyond it.

    What lies between the two holds no colour, so that differences of size show on either side.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        edge = largest(bound for row in rows for bound in row.bounds)
        self.edge = float(np.clip(edge, 1e-16, DECISIVE)) if edge == edge else DECISIVE
        errors = [row.largest for row in rows if math.isfinite(row.largest)]
        small = [error for error in errors if 0 < error <= self.edge]
        large = [error for error in errors if error > self.edge]
        lowest = min(small, default=self.edge / 10)
        self.rounding = float(np.clip(lowest, LOWEST, self.edge / 10)), self.edge
        smallest = min(large, default=self.edge)
        self.changes = float(np.clip(smallest, LOWEST_CHANGE, 0.1)), 1.0

    def __call__(self, errors: np.ma.MaskedArray[Any, Any]) -> np.ma.MaskedArray[Any, Any]:
        """Places in the colour map, from 0 to 1; what is not measured stays masked."""
        below, beyond = (
            self._place(errors, *scale) for scale in ((self.rounding, ROUNDING_COLOURS), (self.changes, CHANGE_COLOURS))
        )
        return np.ma.MaskedArray(np.where(errors.data <= self.edge, below, beyond), errors.mask)

    @staticmethod
    def _place(errors: np.ma.MaskedArray[Any, Any], ends: tuple[float, float], colours: tuple[float, float]) -> Any:
        low, high = np.log(ends)
        part = (np.log(np.clip(errors.data, *ends)) - low) / (high - low)
        return colours[0] + (colours[1] - colours[0]) * part


def _draw_map(plot: Any, rows: Iterable[Row], shape: tuple[int, int], norm: Any, cell: tuple[float, float]) -> None:
    """Fill the cells of one axis, and mark those that must not change."""
    errors = np.full(shape, np.nan)
    marks: dict[str, list[tuple[int, int]]] = {verdict: [] for verdict in (*MARKS, "measured")}
    for row in rows:
        where = row.j, row.shift - 1
        errors[where] = np.fmax(errors[where], np.inf if math.isnan(row.largest) else row.largest)
        marks[row.verdict].append((row.shift, row.j))
    edges = np.arange(shape[1] + 1) + 0.5, np.arange(shape[0] + 1) - 0.5
    shown = norm(np.ma.masked_where(np.isnan(errors), errors))
    plot.pcolormesh(*edges, shown, vmin=0, vmax=1, cmap=COLOURS, edgecolors="white", linewidth=2 * min(cell))
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


def _draw_scale(plot: Any, norm: _Norm) -> None:
    """Draw both colour scales, one above the other."""
    prepare_matplotlib()
    from matplotlib import colormaps

    places = [np.linspace(*colours, 64) for colours in (CHANGE_COLOURS, ROUNDING_COLOURS)]
    gap = np.ones((24, 4))
    column = [colormaps[COLOURS](part[::-1]) for part in places]
    plot.imshow(np.concatenate([column[0], gap, column[1]])[:, None], aspect="auto", extent=(0, 1, 152, 0))
    ticks = {}
    for top, ends in ((0, norm.changes), (88, norm.rounding)):
        for part, value in zip((64, 32, 0), np.geomspace(*ends, 3), strict=True):
            ticks[top + part] = f"{value:.0e}"
    plot.set_xticks([])
    plot.yaxis.tick_right()
    plot.set_yticks(list(ticks), list(ticks.values()), fontsize=8)
    plot.yaxis.set_label_position("right")
    plot.set_ylabel("rounding    |    change of $x_J$, relative", fontsize=9)
    plot.spines[:].set_visible(False)


def _mark(verdict: str, cell: float) -> dict[str, Any]:
    """Return how matplotlib marks a cell of that many points."""
    scale, style = MARKS[verdict]
    return {"linestyle": "", "markersize": scale * cell, "markeredgewidth": 0.1 * cell, **style}


def _draw_legend(figure: Any, verdicts: Iterable[str], corner: tuple[float, float]) -> None:
    """Say what the cells are that are there, and what a blank one is."""
    prepare_matplotlib()
    from matplotlib import colormaps
    from matplotlib.lines import Line2D

    def cell(colour: Any, edge: Any) -> Line2D:
        return Line2D([], [], linestyle="", marker="s", markersize=11, color=colour, markeredgecolor=edge)

    def marked(verdict: str) -> tuple[Line2D, ...]:
        colour = colormaps[COLOURS](0.1 if verdict == "holds" else 0.9)
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
