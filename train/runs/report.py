"""The page of a run, report.html: curve, confusion, the most wrong images, first filters, settings, machine, times."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from train.config import Config
from train.pages import Picture, Table, image_png, png, render

__all__ = ["Classified", "page"]

MOST_WRONG = 24
"""Images that are shown."""

MOST_NUMBERED = 20
"""Classes up to which the picture of the confusion has its numbers."""

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Classified:
    """Images and what the network said of them."""

    part: str  # which images: "test" or "held-out"
    images: Any  # pixels
    labels: Array  # their classes
    logits: Array  # what the network said

    @property
    def probabilities(self) -> Array:
        """The softmax of the logits, in double precision."""
        shifted = self.logits.astype(np.float64) - self.logits.max(axis=1, keepdims=True)
        powers = np.exp(shifted)
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))

    @property
    def confusion(self) -> Array:
        """How many images of class i (row) were taken for class j (column)."""
        found = np.zeros((self.logits.shape[1],) * 2, np.int64)
        np.add.at(found, (self.labels, self.logits.argmax(axis=1)), 1)
        return found

    def most_wrong(self, count: int) -> list[int]:
        """Return the images taken for another class whose own class has the least probability."""
        own = self.probabilities[np.arange(len(self.labels)), self.labels]
        wrong = np.flatnonzero(self.logits.argmax(axis=1) != self.labels)
        return [int(i) for i in wrong[np.argsort(own[wrong], kind="stable")][:count]]


def page(
    name: str,
    config: Config,
    machine: Mapping[str, Any],
    records: Sequence[Mapping[str, Any]],
    class_names: Sequence[str],
    filters: Array | None,  # (channels, s, s, K)
    curve: bytes | None,
    classified: Classified | None,
) -> str:
    """Return the report of a run."""
    return render(
        "run.html",
        name=name,
        results=_results(records),
        curve=Picture(curve, "Loss and accuracy over epochs") if curve else None,
        part=classified.part if classified else None,
        count=len(classified.labels) if classified else 0,
        confusion=_confusion_picture(classified, class_names) if classified else None,
        wrong=_wrong(classified, class_names) if classified else [],
        filters=[] if filters is None else [_filter_picture(filters[..., k], k) for k in range(filters.shape[-1])],
        separate=filters is not None and filters.shape[0] != 3,
        times=_times(records),
        settings=vars(config),
        machine=dict(machine),
    )


def _results(records: Sequence[Mapping[str, Any]]) -> Table:
    """The last epoch, the best on held-out images, and the test."""
    epochs = [record for record in records if "train_loss" in record]
    lines = []
    if epochs:
        lines.append(_result(epochs[-1], "train", "training images, augmented"))
    held_out = [record for record in epochs if "validation_accuracy" in record]
    if held_out:
        lines.append(_result(held_out[-1], "validation", "held-out images"))
        best = max(held_out, key=lambda record: record["validation_accuracy"])
        if best is not held_out[-1]:
            lines.append(_result(best, "validation", "held-out images, best epoch"))
    for record in [record for record in records if "test_accuracy" in record][-1:]:
        lines.append(_result(record, "test", "test images"))
        if "test_accuracy_of_views" in record:
            views = f"{100 * record['test_accuracy_of_views']:.2f} %"
            lines.append(("test images, mean of six views", str(record["epoch"]), views, ""))
    return Table(("images", "epoch", "accuracy", "loss [nats]"), lines, "results")


def _result(record: Mapping[str, Any], part: str, name: str) -> tuple[str, str, str, str]:
    return name, str(record["epoch"]), f"{100 * record[f'{part}_accuracy']:.2f} %", f"{record[f'{part}_loss']:.4f}"


def _times(records: Sequence[Mapping[str, Any]]) -> Table:
    """Seconds of each stage, over all epochs."""
    epochs = [record for record in records if "train_loss" in record]
    first = sum(record.get("first_step_seconds", 0) for record in epochs)
    found = {
        "first steps of processes, which compile kernels or load them": first,
        "all other training steps": sum(record["seconds"] for record in epochs) - first,
        "evaluation on held-out images": sum(record.get("evaluation_seconds", 0) for record in epochs),
        "evaluation on test images": sum(r.get("seconds", 0) for r in records if "test_accuracy" in r),
    }
    whole = sum(found.values()) or 1.0
    lines = [(name, f"{value:.1f} s", f"{100 * value / whole:.1f} %") for name, value in found.items() if value]
    return Table(("stage", "time", "share"), lines, "time by stage")


def _wrong(classified: Classified, names: Sequence[str]) -> list[dict[str, Any]]:
    probabilities, found = classified.probabilities, []
    for i in classified.most_wrong(MOST_WRONG):
        label = int(classified.labels[i])
        likely = [int(c) for c in np.argsort(-probabilities[i], kind="stable")[:3]]
        (image,) = np.asarray(classified.images[i : i + 1])  # which may still be in a file
        found.append(
            {
                "picture": Picture(image_png(image), f"Image {i}: {names[label]}, taken for {names[likely[0]]}"),
                "index": i,
                "own": (names[label], _percent(probabilities[i, label])),
                "said": [(names[c], _percent(probabilities[i, c])) for c in likely],
            }
        )
    return found


def _percent(probability: float) -> str:
    return f"{100 * probability:.2g} %" if probability < 0.01 else f"{100 * probability:.1f} %"


def _filter_picture(w: Array, k: int) -> Picture:
    """One filter (C, s, s): colours where there are three, else its channels side by side; 0 is the middle grey."""
    scaled = 0.5 + 0.5 * w / (float(np.abs(w).max()) or 1.0)
    pixels = np.moveaxis(scaled, 0, 2) if len(w) == 3 else np.concatenate(list(scaled), axis=1)
    return Picture(png(pixels), f"Filter {k}")


def _confusion_picture(classified: Classified, names: Sequence[str]) -> Picture:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    counts = classified.confusion
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    few = len(names) <= MOST_NUMBERED
    side = 1.8 + (0.5 * len(names) if few else 9.0)
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    drawn = axes.imshow(100 * shares, cmap="Blues", vmin=0, vmax=100)
    figure.colorbar(drawn, ax=axes, shrink=0.8, label="share of the true class [%]")
    size, places = (9, range(len(names))) if few else (4, range(len(names)))
    shown = [_cut(name.encode(errors="replace").decode()) for name in names]
    axes.set_xticks(places, shown, rotation=90, fontsize=size, parse_math=False)
    axes.set_yticks(places, shown, fontsize=size, parse_math=False)
    axes.set_xlabel("taken for")
    axes.set_ylabel("true class")
    if few:
        for (row, column), number in np.ndenumerate(counts):
            if number:
                colour = "white" if shares[row, column] > 0.5 else "black"
                axes.text(column, row, str(number), ha="center", va="center", fontsize=8, color=colour)
    stream = io.BytesIO()
    figure.savefig(stream, dpi=120 if few else 160, format="png")
    accuracy = f"{np.trace(counts)} of {counts.sum()} are right"
    return Picture(stream.getvalue(), f"Confusion matrix: {accuracy}", f"{accuracy}.")


def _cut(name: str) -> str:
    return name if len(name) <= 18 else f"{name[:17]}…"
