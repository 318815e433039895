"""The page of a run, report.html: curve, confusion, the most wrong images, first filters, settings, machine, times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hcnn_core.backend import to_numpy
from train.config import Config, make_config, resolved
from train.data import Images, MappedImages
from train.data.dataset import MOST_COLOURS
from train.networks.network import Network
from train.pages import Picture, Table, image_png, in_words, new_figure, own_style, png, render, svg
from train.recipes.tasks import TASKS, Names, Task
from train.runs.augmented import augmented
from train.runs.plot import draw_panel
from train.runs.run import Interrupted, Run, RunError, best_epoch
from train.runs.training import evaluate
from train.storage.files import write_atomically

MOST_WRONG = 24
"""Images that are shown."""

MOST_NUMBERED = 20
"""Classes up to which the confusion is a table."""

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Classified:
    """Images and the network's outputs for them."""

    part: str  # which images: "test" or "held-out"
    images: Any  # pixels
    labels: Array  # their classes
    logits: Array  # what the network said

    @property
    def probabilities(self) -> Array:
        """The softmax of the logits, in double precision."""
        return np.asarray(TASKS["classes"].probabilities(self.logits.astype(np.float64)))

    @property
    def confusion(self) -> Array:
        """How many images of class i (row) were taken for class j (column)."""
        return TASKS["classes"].confusion(self.logits, self.labels)

    @property
    def shares(self) -> Array:
        """Each number of `confusion` as a share of its class."""
        counts = self.confusion
        return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)

    @property
    def are_pictures(self) -> bool:
        """Whether its images can be shown: bytes along two axes, grey or in colours."""
        return self.images.dtype == np.uint8 and self.images.ndim == 4 and self.images.shape[3] <= 4

    @property
    def right(self) -> str:
        """The number of images classified right, in words."""
        confusion = self.confusion
        return f"{np.trace(confusion)} of {confusion.sum()} are right"

    def most_wrong(self, count: int) -> list[int]:
        """Return the images taken for another class whose own class has the least probability."""
        of_label = self.probabilities[np.arange(len(self.labels)), self.labels]
        wrong = np.flatnonzero(self.logits.argmax(axis=1) != self.labels)
        return [int(i) for i in wrong[np.argsort(of_label[wrong], kind="stable")][:count]]


def page(
    name: str,
    config: Config,
    machine: Mapping[str, Any],
    records: Sequence[Mapping[str, Any]],
    class_names: Sequence[str],
    filters: Array | None,  # (channels, s, s, K)
    classified: Classified | None,
    seen: bytes | None = None,  # a PNG file of images as training sees them
    task: Task = TASKS["classes"],  # of labels and numbers `class_names` are their names
) -> str:
    """Return the report of a run."""
    few = len(class_names) <= MOST_NUMBERED
    return render(
        "run.html",
        name=name,
        results=_results(records, task),
        curves=_curves(records, task),
        kind=task.name,
        targets=_targets(records, class_names, task),
        part=classified.part if classified else None,
        count=len(classified.labels) if classified else 0,
        confusion=_confusion(classified) if classified and few else None,
        confusion_picture=_confusion_picture(classified, class_names) if classified and not few else None,
        class_names=class_names,
        right=classified.right if classified else "",
        wrong=_wrong(classified, class_names) if classified and classified.are_pictures else None,
        filters=[] if filters is None else [_filter_picture(filters[..., k], k) for k in range(filters.shape[-1])],
        separate=filters is not None and filters.shape[0] != 3,
        seen=seen and Picture(seen, "Training images, augmented"),
        times=_times(records),
        preset=config.preset,
        changed=_changed(config, task),
        settings=vars(config),
        machine=dict(machine),
    )


@own_style()
def _curves(records: Sequence[Mapping[str, Any]], task: Task) -> list[Picture]:
    """Loss and score over epochs, a picture each, which stay legible on a telephone."""
    pictures = []
    if any("train_loss" in record for record in records):
        for key in task.panels(records):
            figure = new_figure(4.6, 3.4)
            axes = figure.subplots()
            draw_panel(axes, records, key, task)
            if axes.lines:
                axes.legend(fontsize=9, framealpha=0)
            title = "loss" if key == "loss" else task.title
            pictures.append(Picture(svg(figure), f"{title[0].upper()}{title[1:]} over epochs"))
    return pictures


def _changed(config: Config, task: Task) -> Table:
    """Return the settings that differ from the preset's, both resolved for the same data."""
    here, preset = (vars(resolved(each, (1,), task.takes, "a run")) for each in (config, make_config(config.preset)))
    lines = [(name, in_words(value), in_words(preset[name])) for name, value in here.items() if value != preset[name]]
    return Table(("setting", "here", f"preset {config.preset}"), lines, "settings that differ from the preset's")


def _confusion(classified: Classified) -> list[list[tuple[int, str]]]:
    """Return how many images of each class (row) were taken for each (column), as counts and shares of the class."""
    rows = zip(classified.confusion, classified.shares, strict=True)
    return [[(int(n), f"{100 * share:.0f}%") for n, share in zip(*row, strict=True)] for row in rows]


def _results(records: Sequence[Mapping[str, Any]], task: Task) -> Table:
    """Return the last epoch, the best on held-out images, and the test."""
    epochs = [record for record in records if "train_loss" in record]
    lines = []
    if epochs:
        lines.append(_result(epochs[-1], "train", "training images, augmented", task))
    held_out = [record for record in epochs if "validation_loss" in record]
    if held_out:
        lines.append(_result(held_out[-1], "validation", "held-out images", task))
        best = next((record for record in held_out if record["epoch"] == best_epoch(held_out)), held_out[-1])
        if best is not held_out[-1]:
            lines.append(_result(best, "validation", "held-out images, best epoch", task))
    for record in [record for record in records if "test_loss" in record][-1:]:
        lines.append(_result(record, "test", "test images", task))
        if "test_accuracy_of_views" in record:
            views = f"{100 * record['test_accuracy_of_views']:.2f} %"
            lines.append(("test images, mean of views", str(record["epoch"]), views, ""))
    return Table(("images", "epoch", task.title, task.panels(records)["loss"][0].replace("\n", " ")), lines, "results")


def _result(record: Mapping[str, Any], part: str, name: str, task: Task) -> tuple[str, str, str, str]:
    score = record.get(f"{part}_{task.score}")
    shown = "" if score is None else task.shown(score)
    return name, str(record["epoch"]), shown, f"{record[f'{part}_loss']:.4f}"


def _targets(records: Sequence[Mapping[str, Any]], names: Sequence[str], task: Task) -> tuple[str, Table] | None:
    """Return which images, and the figures of each target on them: test images if tested, else held-out images.

    None if there are neither, and for classes.
    """
    last = max((record["epoch"] for record in records), default=0)
    tested = [record for record in records if "test_loss" in record and record["epoch"] == last]
    part, chosen = ("test", tested) if tested else ("validation", [r for r in records if "validation_loss" in r])
    if not (task.each and chosen):
        return None
    titles, scales, forms = zip(*task.each.values(), strict=True)
    values = [[chosen[-1].get(f"{part}_{key}_{k}") for key in task.each] for k in range(len(names))]
    lines = [
        (name, *("all the same" if v is None else f.format(s * v) for v, s, f in zip(row, scales, forms, strict=True)))
        for name, row in zip(names, values, strict=True)
    ]
    if len(names) > 1 and (whole := chosen[-1].get(f"{part}_all_right")) is not None:
        lines.append(("all of an image", f"{100 * whole:.2f} %"))
    return "test" if tested else "held-out", Table((task.name[:-1], *titles), lines, task.name)


def _times(records: Sequence[Mapping[str, Any]]) -> Table:
    """Seconds of each stage, over all epochs."""
    epochs = [record for record in records if "train_loss" in record]
    first = sum(record.get("first_step_seconds", 0) for record in epochs)
    seconds = {
        "first steps of processes, which compile kernels or load them": first,
        "all other training steps": sum(record["seconds"] for record in epochs) - first,
        "evaluation on held-out images": sum(record.get("evaluation_seconds", 0) for record in epochs),
        "evaluation on test images": sum(r.get("seconds", 0) for r in records if "test_loss" in r),
    }
    whole = sum(seconds.values()) or 1.0
    lines = [(name, f"{value:.1f} s", f"{100 * value / whole:.1f} %") for name, value in seconds.items() if value]
    return Table(("stage", "time", "share"), lines, "time by stage")


def _wrong(classified: Classified, names: Sequence[str]) -> list[dict[str, Any]]:
    probabilities, images = classified.probabilities, []
    for i in classified.most_wrong(MOST_WRONG):
        label = int(classified.labels[i])
        likely = [int(c) for c in np.argsort(-probabilities[i], kind="stable")[:3]]
        (image,) = np.asarray(classified.images[i : i + 1])  # which may still be in a file
        images.append(
            {
                "picture": Picture(image_png(image), f"Image {i}: {names[label]}, taken for {names[likely[0]]}"),
                "index": i,
                "own": (names[label], _percent(probabilities[i, label])),
                "said": [(names[c], _percent(probabilities[i, c])) for c in likely],
            }
        )
    return images


def _percent(probability: float) -> str:
    return f"{100 * probability:.2g} %" if probability < 0.01 else f"{100 * probability:.1f} %"


def _filter_picture(w: Array, k: int) -> Picture:
    """One filter (C, s, s): colours where there are three, else its channels side by side; 0 is the middle grey."""
    scaled = 0.5 + 0.5 * w / (float(np.abs(w).max()) or 1.0)
    pixels = np.moveaxis(scaled, 0, 2) if len(w) == 3 else np.concatenate(list(scaled), axis=1)
    return Picture(png(pixels), f"Filter {k}")


@own_style()
def _confusion_picture(classified: Classified, names: Sequence[str]) -> Picture:
    shares = classified.shares
    figure = new_figure(11.6, 10.8)
    axes = figure.subplots()
    blue = np.broadcast_to((0.12, 0.47, 0.71, 1.0), (*shares.shape, 4)).copy()
    blue[..., 3] = shares  # on a light page or a dark one
    axes.imshow(blue)
    shown = [_cut(name.encode(errors="replace").decode()) for name in names]
    axes.set_xticks(range(len(names)), shown, rotation=90, fontsize=4, parse_math=False)
    axes.set_yticks(range(len(names)), shown, fontsize=4, parse_math=False)
    axes.set_xlabel("taken for")
    axes.set_ylabel("true class")
    return Picture(svg(figure), f"Confusion matrix: {classified.right}")


def _cut(name: str) -> str:
    return name if len(name) <= 18 else f"{name[:17]}…"


def classified(part: str, network: Network, parameters: Any, moments: Any, data: Images) -> Classified:
    """Evaluate images that a report shows."""
    result = evaluate(network, parameters, moments, data)
    images = data.images if isinstance(data.images, MappedImages) else to_numpy(data.images)
    return Classified(part, images, to_numpy(data.labels), result.logits)


def write_report(
    run: Run, network: Network, names: Names, weights: Any, shown: Classified | None, seen: Images | None, task: Task
) -> str:
    """Write report.html, and return its path; some of the images that it was trained on are shown augmented."""
    arrays = (of_layer["w"] for of_layer in weights.values() if "w" in of_layer)
    of_channels = [w for w in arrays if w.ndim == 4 and w.shape[0] <= MOST_COLOURS]
    filters = to_numpy(of_channels[0]) if of_channels else None
    name, again = run.path.resolve().name, f"python -m hcnn report {run.path} writes it"
    try:
        mapped = None if seen is None else augmented(network.config, seen)
        text = page(name, network.config, run.machine(), run.read_metrics(), names, filters, shown, mapped, task)
        write_atomically(run.report_path, text.encode())
    except KeyboardInterrupt as error:
        raise Interrupted(
            f"interrupted while {run.report_path} was written; all else of the run is saved; {again}"
        ) from error
    except Exception as error:  # whatever fonts, back ends and other people's metrics do
        reason = f"{type(error).__name__}: {error}" if isinstance(error, LookupError) else error
        saved = f"all else of the run is saved; once that is mended, {again}"
        raise RunError(f"cannot write {run.report_path}: {reason}; {saved}") from error
    return str(run.report_path)
