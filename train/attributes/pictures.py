"""Pictures of the explorer's measurements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from train.attributes.translations import Agreement, Matches
from train.pages import as_png, new_figure, own_style

if TYPE_CHECKING:
    from train.attributes.study import Layers, Study

CELL, GAP, TEXT = 64, 10, 15
"""Pixels of an image, of the gap between two, and of a line of text."""

COLOURS = {"trained": "tab:blue", "random order": "tab:orange", "untrained": "tab:gray"}
NAMES = {"trained": "this network", "random order": "axis in random order", "untrained": "untrained"}


def limits(matches: Matches) -> tuple[float, float]:
    """Return the values that are black and white in the arrays of a depth."""
    low, high = np.quantile(matches.arrays, (0.01, 0.99))
    return float(low), float(high if high > low else low + 1)


@own_style()
def strips(study: Study, lines: Sequence[tuple[int, int]]) -> bytes:
    """Draw images and arrays as Figures 3 and 4 of arXiv:1703.04140 do.

    Each line is a row of images above a row of arrays: the image x, then the image found for each translation. Below
    are the class, which is red where it is not that of x, and the distance, with the part of random pairs that are as
    close. A distance above the threshold is grey.
    """
    from matplotlib.figure import Figure

    names, train, labels = study.dataset.class_names, study.dataset, study.labels()
    steps = max(study.matches[j].indices.shape[1] for _, j in lines)
    arrays = max(study.matches[j].arrays.shape[1] * _zoom(study.matches[j].arrays.shape[1:]) for _, j in lines)
    tall = CELL + TEXT + min(arrays, CELL) + 2 * TEXT + GAP
    width, height = 60 + (steps + 1) * (CELL + GAP), len(lines) * tall + TEXT
    canvas = np.full((height, width, 3), 255, np.uint8)
    texts: list[tuple[int, int, str, str]] = []
    for line, (row, j) in enumerate(lines):
        matches, top = study.matches[j], line * tall + TEXT
        low, high = limits(matches)
        query = matches.queries[row]
        name = names[labels[query]]
        cells: list[tuple[str, Any, Any, str, str, str, str]] = [
            ("x", study.images()[query], matches.arrays[row], name, "black", "", "black")
        ]
        for tau in range(matches.indices.shape[1]):
            index, distance = matches.indices[row, tau, 0], matches.distances[row, tau, 0]
            label = names[train.train_labels[index]]
            close = 100 * (matches.random <= distance).mean()
            cells.append(
                (
                    f"τ = {tau}",
                    train.train_images[index],
                    matches.found_arrays[row, tau],
                    label,
                    "black" if label == name else "#b00020",
                    f"{distance:.3g} ({close:.3g} %)",
                    "black" if distance <= matches.threshold else "#777777",
                )
            )
        texts.append((4, top + CELL // 2, f"j = {j}", "black"))
        for place, (head, image, array, label, colour, distance, shade) in enumerate(cells):
            left = 60 + place * (CELL + GAP)
            _put(canvas, image, top, left)
            grey = np.rint(255 * np.clip((array - low) / (high - low), 0, 1)).astype(np.uint8)
            under = top + CELL + TEXT
            bottom = _put(canvas, np.repeat(grey[:, :, None], 3, axis=2), under, left)
            texts.append((left, top + CELL + TEXT - 4, label, colour))
            texts.append((left, bottom + TEXT - 3, distance, shade))
            if line == 0:
                texts.append((left, TEXT - 4, head, "black"))
    figure = Figure(figsize=(width / 100, height / 100), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(canvas, interpolation="nearest", extent=(0, width, height, 0), aspect="auto")
    axes.set_axis_off()
    for x, y, text, colour in texts:
        axes.text(x, y, text, color=colour, fontsize=6.5, parse_math=False)
    return as_png(figure, 100)


def _put(canvas: np.ndarray[Any, Any], image: np.ndarray[Any, Any], top: int, left: int) -> int:
    """Put a picture on the canvas, enlarged to a cell; returns where it ends."""
    zoom = _zoom(image.shape[:2])
    large = image.repeat(zoom, axis=0).repeat(zoom, axis=1)[:CELL, :CELL]
    canvas[top : top + large.shape[0], left : left + large.shape[1]] = large
    return int(top + large.shape[0])


def _zoom(shape: tuple[int, ...]) -> int:
    """Return the factor by which a picture is enlarged to fill a cell."""
    return max(1, CELL // max(shape))


@own_style()
def agreement_chart(agreements: Mapping[str, Mapping[int, Agreement]]) -> bytes:
    """Draw the probability of the same class against tau, a plot for each depth."""
    depths = list(agreements["trained"])
    columns = min(5, len(depths))
    rows = -(-len(depths) // columns)
    figure = new_figure(2.1 * columns + 0.6, 1.9 * rows + 0.7)
    plots = np.atleast_2d(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False))
    for plot, j in zip(plots.flat, depths, strict=False):
        for kind, of_depth in agreements.items():
            agreement = of_depth[j]
            low, high = agreement.interval
            tau = np.arange(len(agreement.share))
            plot.plot(tau, 100 * agreement.share, marker=".", color=COLOURS[kind], label=NAMES[kind], linewidth=1)
            plot.fill_between(tau, 100 * low, 100 * high, color=COLOURS[kind], alpha=0.25, linewidth=0)
        plot.set_title(f"depth $j = {j}$", fontsize=9)
        plot.grid(alpha=0.3)
        plot.tick_params(labelsize=8)
    plots.flat[0].set_ylim(bottom=0)  # shared by all, so after all are drawn
    for plot in list(plots.flat)[len(depths) :]:
        plot.set_axis_off()
    figure.supxlabel("translation τ [samples]; 95 % bootstrap intervals", fontsize=9)
    figure.supylabel("same class [%]", fontsize=9)
    handles, names = plots.flat[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=3, fontsize=8, frameon=False)
    return as_png(figure, 120)


@own_style()
def layers_chart(layers: Layers) -> bytes:
    """Draw ratios of distances and accuracies of probes over depth."""
    figure = new_figure(10, 3.4)
    left, middle, right = figure.subplots(1, 3)
    depths = np.arange(layers.pairs.within.shape[1])
    kinds = (("this network", layers.pairs, "-"), ("untrained", layers.untrained_pairs, ":"))
    for name, pairs, style in kinds:
        for label, ratios, colour in zip(("within", "between"), pairs.ratios, ("tab:green", "tab:red"), strict=True):
            middle_ratio = np.median(ratios, axis=0)
            left.plot(depths[1:], middle_ratio, style, color=colour, label=f"{label}, {name}", marker=".")
            if style == "-":
                low, high = np.quantile(ratios, (0.25, 0.75), axis=0)
                left.fill_between(depths[1:], low, high, color=colour, alpha=0.2, linewidth=0)
        middle.plot(depths, pairs.separation, style, color="tab:blue", label=name, marker=".")
    left.set_title("distance after a layer / before (median, quartiles)", fontsize=9)
    middle.set_title("mean distance between classes / within", fontsize=9)
    for name, probes, style in (("", layers.probes, "-"), (", untrained", layers.untrained_probes, ":")):
        for index, (label, colour) in enumerate((("nearest neighbour", "tab:purple"), ("linear", "tab:olive"))):
            right.plot(depths, [100 * p[index] for p in probes], style, color=colour, label=label + name, marker=".")
    right.set_title("accuracy from a depth, test images [%]", fontsize=9)
    left.set_yscale("log")
    for plot in (left, middle, right):
        plot.set_xlabel("depth $j$", fontsize=9)
        plot.grid(alpha=0.3)
        plot.tick_params(which="both", labelsize=8)
        plot.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=2)
    return as_png(figure, 120)
