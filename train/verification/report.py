"""The measurements of `train.verification.covariance` as a table for a terminal, JSON, pictures, and one page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import groupby
from typing import Any

import numpy as np

from hcnn_core.testing.assertions import ROUNDINGS
from train.pages import AXIS, Picture, Table, as_png, new_figure, own_style, render, strict_json
from train.verification.covariance import DECISIVE, ROW_KINDS, Row, largest

AXIS_NAMES = ("u1", "u2", "u3", "v_{j-2}", "v_{j-1}", "v_j")

MEASUREMENTS = ("strides", "kind", "largest", "mean", "class", "bound", "verdict")
LINE_HEADER = ("j", "axis", "shifts", *MEASUREMENTS)
ROW_HEADER = ("statement", "j", "axis", "shift", *MEASUREMENTS)

UNCHECKED = {"zero": "Not checked: at zero boundaries, outputs between windows and values pushed off the end"}
"""What is not checked at a boundary; part of the verdict."""

MARKS: dict[str, tuple[float, dict[str, Any]]] = {
    "holds": (0.3, {"marker": "o", "color": "white", "markeredgecolor": "black"}),
    "FAILS": (0.6, {"marker": "X", "color": "lime", "markeredgecolor": "black"}),
    "undecided": (0.6, {"marker": "P", "color": "lime", "markeredgecolor": "black"}),
}
"""Marks of cells that must not change, by verdict: size in cells, and style."""

LOWEST = 1e-17
"""Where the colours of rounding begin: below there is nothing to tell apart."""

CAPTION = """A cell is one translation of one array, its colour the largest error of all examples: blue as far as
rounding explains it, red beyond. Cells with a dot must not change; a cross marks one that does. Cells without a mark
may change. Blank ones were not measured: there is no such axis, or it is shorter."""


def summary_table(rows: Sequence[Row]) -> str:
    """Return the measurements as a text table of at most 120 columns."""
    blocks = []
    for boundary, mode in _cases(rows):
        case = _select(rows, boundary, mode)
        name = f"{boundary} boundary, {mode} mode, {_examples(case)}"
        blocks += [[f"{title}: {name}", table.text(str.ljust)] for title, table in _tables(case).items()]
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
    drawn = _select(_mapped(rows), boundary, mode)
    lengths = {axis: max((row.shift for row in drawn if row.axis == axis), default=0) for axis in reversed(AXIS_NAMES)}
    shifts = {axis: length for axis, length in lengths.items() if length}
    depths = 1 + max(row.j for row in drawn)
    cell = min(0.24, 12 / sum(shifts.values()), 5 / depths)  # inches
    width = max(7, cell * sum(shifts.values()) + 0.5 * len(shifts) + 1.5)
    figure = new_figure(width, max(3, cell * depths + 1.2))
    plots = figure.subplots(1, len(shifts), squeeze=False, sharey=True, width_ratios=list(shifts.values()))[0]
    edge = largest(bound for row in rows for bound in row.bounds)
    scale = LOWEST, float(np.clip(edge, 1e-16, DECISIVE)) if edge == edge else DECISIVE, 1.0
    for plot, (axis, length) in zip(plots, shifts.items(), strict=True):
        of_axis = [row for row in drawn if row.axis == axis]
        edges = np.arange(length + 1) + 0.5, np.arange(depths + 1) - 0.5
        shown = placed(errors_of(of_axis, depths, length), scale)
        cells = plot.pcolormesh(*edges, shown, vmin=0, vmax=1, cmap="RdBu_r", edgecolors="white", linewidth=2 * cell)
        for verdict, (size, style) in MARKS.items():
            marked = [(row.shift, row.j) for row in of_axis if row.verdict == verdict]
            if marked:
                plot.plot(*zip(*marked, strict=True), linestyle="", markersize=72 * cell * size, **style)
        symbol = AXIS.sub(lambda m: f"${m[1]}_{{{m[2].strip('{}')}}}$", axis)
        plot.set_xlabel(f"translation along\n{symbol} [samples]", fontsize=9)
        plot.tick_params(labelsize=8, length=2)
        for along in (plot.xaxis, plot.yaxis):
            along.get_major_locator().set_params(integer=True)
    plots[0].invert_yaxis()
    plots[0].set_ylabel("layer $j$", fontsize=9)
    bar = figure.colorbar(cells, ax=list(plots), ticks=(0, 0.5, 1))
    bar.set_ticklabels([f"{value:.0e}" for value in scale], fontsize=8)
    bar.set_label("change of $x_J$, relative", fontsize=9)
    title = f"$x_j$ translated, change of $x_J$: {boundary} boundary, {mode} mode, {_examples(drawn)}"
    figure.suptitle(title, fontsize=10)
    return as_png(figure, 150)


def errors_of(rows: Iterable[Row], depths: int, length: int) -> np.ndarray[Any, Any]:
    """Return the largest error of each depth and translation; infinity for NaN, and NaN where nothing is measured."""
    errors = np.full((depths, length), np.nan)
    for row in rows:
        where = row.j, row.shift - 1
        errors[where] = np.fmax(errors[where], np.inf if math.isnan(row.largest) else row.largest)
    return errors


def placed(errors: np.ndarray[Any, Any], scale: tuple[float, float, float]) -> np.ndarray[Any, Any]:
    """Return places in the colour map: below the middle what rounding explains, on two logarithmic scales."""
    return np.interp(np.log(np.clip(errors, scale[0], scale[2])), np.log(scale), (0, 0.5, 1))


def page(rows: Sequence[Row], description: Mapping[str, Any]) -> str:
    """Return the measurements as one HTML file that needs neither network nor scripts."""
    totals = _totals(rows)
    failing = sorted((row for row in rows if row.verdict == "FAILS"), key=lambda row: row.statement)  # layers first
    claim = _claim(totals)
    return render(
        "verify.html",
        verdict=claim[0].upper() + claim[1:],
        colour="fails" if failing else "holds" if totals["must_hold"] else "",
        unchecked=[text for name, text in UNCHECKED.items() if _select(rows, name)],
        failing=Table(("boundary", "mode", *ROW_HEADER), list(map(_row_cells, failing))),
        description=description,
        roundings=ROUNDINGS,
        cases=[_case(rows, *case) for case in _cases(rows)],
    )


def _case(rows: Sequence[Row], boundary: str, mode: str) -> dict[str, Any]:
    """Return what the page shows of a boundary and mode: its name, a picture, and tables by title."""
    case = _select(rows, boundary, mode)
    picture = None
    if _mapped(case):
        alt = f"Change of the logits over layer and translation, a map per axis: {_in_words(case)}."
        picture = Picture(error_maps(rows, boundary, mode), alt, CAPTION)
    held = any(row.must_hold for row in _mapped(case))
    named = {"boundary": boundary, "mode": mode, "said": _in_words(case)}
    return {**named, "picture": picture, "tables": _tables(case), "held": held}


def _tables(case: Sequence[Row]) -> dict[str, Table]:
    """Return the tables of a boundary and mode, by title; no empty one."""
    tables = {
        "x_j translated, change of x_J": _invariance_table(case),
        "x_j translated by a stride, x_{j+1} by one sample": _layer_table(case, "covariance"),
        "x_{j+1} and the layer written out, at windows along each axis": _layer_table(case, "definition"),
    }
    return {title: replace(table, label=title) for title, table in tables.items() if table.lines}


def _cases(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Boundaries and modes, first those of the boundary with most translations that must not change x_J."""
    cases = dict.fromkeys((row.boundary, row.mode) for row in rows)
    return sorted(cases, key=lambda case: -sum(row.must_hold for row in _mapped(_select(rows, case[0]))))


def _select(rows: Iterable[Row], boundary: str, mode: str | None = None) -> list[Row]:
    """Return the rows of a boundary, of one mode or of all."""
    return [row for row in rows if row.boundary == boundary and mode in (None, row.mode)]


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
    """Return the cells under boundary, mode and ROW_HEADER."""
    return (row.boundary, row.mode, row.statement, str(row.j), row.axis, str(row.shift), *_measurements(row))


def _invariance_table(case: Sequence[Row]) -> Table:
    """Make a table of a line for each depth, axis and kind."""

    def key(row: Row) -> tuple[Any, ...]:
        return row.j, AXIS_NAMES.index(row.axis), ROW_KINDS.index(row.kind), row.strides

    cells = []
    for _, group in groupby(sorted((row for row in case if row.statement == "invariance"), key=key), key):
        first, *others = group
        shifts = _compact(sorted({row.shift for row in (first, *others)}))
        cells.append((str(first.j), first.axis, shifts, *_measurements(first.merged(others))))
    return Table(LINE_HEADER, cells)


def _layer_table(case: Sequence[Row], statement: str) -> Table:
    """Make a table of layers: the largest error along each axis, the largest bound, and which axes fail."""
    rows = [row for row in case if row.statement == statement]
    axes = sorted({row.axis for row in rows}, key=AXIS_NAMES.index)
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
    """Return the rows with a cell in a map; another translation of the same axis has the cell of "inside"."""
    return [row for row in rows if row.statement == "invariance" and row.kind != "inside"]
