"""Learning curves as pictures, of one run or of several."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from train.pages import as_png, new_figure, own_style
from train.recipes.tasks import TASKS, Task, task_of
from train.runs.run import Run, RunError
from train.storage.files import write_atomically

FEW = 40
"""Epochs up to which each has a marker; the one of a run of one epoch is all that there is to see."""


@own_style()
def plot_learning_curve(records: Sequence[dict[str, Any]], path: Path, title: str) -> None:
    """Draw loss and accuracy over epochs."""
    if not any("train_loss" in record for record in records):
        raise ValueError("no epoch is complete yet, so there is no learning curve to draw")
    figure = new_figure(9, 3.6, title)
    task = task_of(records)
    for axes, key in zip(figure.subplots(1, 2), task.panels(records), strict=True):
        draw_panel(axes, records, key, task)
    write_figure(figure, path)


def draw_panel(axes: Any, records: Sequence[Mapping[str, Any]], key: str, task: Task) -> None:
    """Draw the loss or the score of a run over epochs."""
    label, scale = task.panels(records)[key]
    epochs = [record for record in records if "train_loss" in record]
    test = next((record for record in reversed(records) if f"test_{key}" in record), None)
    for part, name, colour in (("train", "training, augmented", "tab:blue"), ("validation", "held out", "tab:orange")):
        wanted = f"{part}_{key}"
        # held-out images may be read after some epochs alone
        known = [record for record in epochs if part == "train" or wanted in record]
        if known and wanted in known[-1]:
            places, values = [record["epoch"] for record in known], [scale * record[wanted] for record in known]
            axes.plot(places, values, marker=_marker(epochs), markersize=3, color=colour, label=name)
    if test:
        value = scale * test[f"test_{key}"]
        shown = f"{value:.2f} %" if scale == 100 else f"{value:.3f}"
        axes.plot(test["epoch"], value, "*", markersize=10, color="tab:green", label=f"test: {shown}", clip_on=False)
    _label_axes(axes, label)
    if axes.lines:
        axes.legend(fontsize=8)


def _marker(epochs: Sequence[Any]) -> str | None:
    return "o" if len(epochs) < FEW else None


def _label_axes(axes: Any, label: str) -> None:
    axes.set_xlabel("epoch")
    axes.set_ylabel(label)
    axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    axes.grid(alpha=0.3)


@own_style()
def plot_runs(runs: Mapping[str, Sequence[dict[str, Any]]], path: Path) -> None:
    """Draw the loss and the score of several runs over epochs, two panels for each task."""
    if not any(runs.values()):
        raise ValueError("none of the runs has a complete epoch yet, so there is no learning curve to draw")
    dashed: dict[str, Any] = {"linestyle": "--", "markerfacecolor": "none"}
    parts = ("train", "training", dashed), ("validation", "held out", {"linestyle": "-"})
    by_task: dict[tuple[str, str], tuple[Task, list[tuple[str, str, Sequence[dict[str, Any]]]]]] = {}
    for index, (name, records) in enumerate(runs.items()):
        task = task_of(records)
        of_task = by_task.setdefault((task.name, task.measure), (task, []))
        of_task[1].append((f"C{index % 10}", literal(name), records))
    figure = new_figure(10, 4.5 * len(by_task))
    drawn = figure.subplots(len(by_task), 2, squeeze=False)
    for row, (_, (task, alike)) in zip(drawn, sorted(by_task.items()), strict=True):
        panels = task.panels([record for *_, records in alike for record in records])
        for axes, (key, (label, scale)) in zip(row, panels.items(), strict=True):
            for colour, name, records in alike:
                for part, said, look in parts:
                    known = [record for record in records if f"{part}_{key}" in record]
                    x, y = [r["epoch"] for r in known], [scale * r[f"{part}_{key}"] for r in known]
                    title = f"{name}, {said}" if known else None
                    axes.plot(x, y, label=title, color=colour, marker=_marker(known), linewidth=1, markersize=3, **look)
            _label_axes(axes, label)
        losses, scores = row
        (scores if scores.lines else losses).legend(fontsize=7)
    write_figure(figure, path)


def literal(name: str) -> str:
    """Return a name as matplotlib shows it letter for letter: without formulas, in legends though it begins with _."""
    text = name.encode(errors="replace").decode().replace("$", r"\$")
    return f"\u200b{text}" if text.startswith("_") else text


@own_style()
def plot_trials(
    varied: Mapping[str, Sequence[Any]], scores: Sequence[float], tasks: Sequence[Task], path: Path, title: str
) -> None:
    """Draw what trials reached over each setting in which they differ, in a row for each task."""
    differ = {name: values for name, values in varied.items() if len(set(map(str, values))) > 1}
    shown = differ or dict(list(varied.items())[:1])
    widths = [max(3.2, 0.25 * len(set(map(str, values)))) for values in shown.values()]
    rows = [task for task in TASKS.values() if task in tasks]
    figure = new_figure(1 + sum(widths), 3.8 * len(rows), title)
    panels = figure.subplots(len(rows), len(shown), sharey="row", squeeze=False, width_ratios=widths)
    for axes, (task, (name, values)) in zip(panels.flat, itertools.product(rows, shown.items()), strict=True):
        label, scale = task.panels(())[task.score]
        chosen = [i for i, of in enumerate(tasks) if of is task]
        numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
        places = list(values) if numeric else [literal(str(v)) for v in values]
        axes.plot([places[i] for i in chosen], [scale * scores[i] for i in chosen], "o", markersize=4, alpha=0.7)
        _fit_ticks(axes, places)
        axes.set_xlabel(name)
        axes.grid(alpha=0.3)
        axes.set_ylabel(f"held-out {label}" if name == next(iter(shown)) else "")
    write_figure(figure, path)


def _fit_ticks(axes: Any, places: Sequence[Any]) -> None:
    """Give an axis the scale and the ticks of its places, which are numbers or names."""
    if isinstance(places[0], str):
        axes.tick_params(axis="x", labelrotation=90 if max(map(len, places)) > 8 else 0)
    elif 0 < 20 * min(places) <= max(places):
        axes.set_xscale("log")
    elif all(isinstance(place, int) for place in places):
        axes.locator_params(axis="x", integer=True)


def write_figure(figure: Any, path: Path) -> None:
    """Write a picture as a PNG file."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", UserWarning)  # of a title in letters the font has not
        write_atomically(path, as_png(figure, 120))


def draw(run: Run) -> None:
    """Draw the learning curve of a run; RunError if that fails."""
    if not run.writes:
        return
    records = run.read_metrics()
    try:
        plot_learning_curve(records, run.picture_path, run.path.resolve().name)
    except Exception as error:  # whatever fonts, back ends and other people's metrics do
        raise RunError(f"cannot draw {run.picture_path}: {error}") from error
