"""One row of each program that a claim rests on, at a small size: what a mistake in it would change.

    OPENBLAS_NUM_THREADS=1 HCNN_NUM_THREADS=1 python -m benchmarks.rows     # records benchmarks/results/rows.json

`tests/test_rows.py` computes them again. Figures are of fifty steps or one epoch, so they say nothing of what the
programs find; they say that the programs still compute the same.
"""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import attention, circles, hue, planted, shifts, signals, sound, symmetries, volumes
from benchmarks.machine import describe_machine
from train import Dataset, fit, load_dataset, make_config
from train.runs.shipped import open_network
from train.runs.training import restore

RECORD = Path(__file__).parent / "results" / "rows.json"
STEPS = 50
Row = dict[str, float]


def of_symmetries() -> Row:
    arm, rng = symmetries.ARMS["smooth"]._replace(steps=STEPS), np.random.default_rng(0)
    hidden = [symmetries.Circle.draw(arm, rng)]
    (found,) = symmetries.measure(symmetries.train(hidden, arm, rng), hidden, arm, rng)
    return {"accuracy": found["accuracy"], "share": found["share"], "random": found["random_mean"]}


def of_circles() -> Row:
    arm, order = circles.ARMS["other order"]._replace(steps=STEPS), np.random.default_rng(0)
    rngs = [np.random.default_rng(k) for k in range(2)]
    hidden = [symmetries.Circle.draw(arm, rng) for rng in rngs]
    row = circles.measure(arm, "other order", hidden, rngs, *circles.train(arm, hidden, rngs, order))[0]
    return {key: row[key] for key in ("accuracy", "along", "share", "decoys", "reflections", "order-free", "recovered")}


def of_planted(task: planted.Task, name: str) -> Row:
    rng = np.random.default_rng(0)
    found = dict(planted.measure(task, planted.train(task, task.arms[name], rng), task.arms[name], rng))
    return {key: found[key] for key in ("accuracy", "unseen", "x_1 v_1 share", "x_2 v_1 random median")}


def of_attention() -> Row:
    sample = load_dataset("sample")
    few = Dataset("few", sample.class_names, sample.train_images[:1000], sample.train_labels[:1000],
                  sample.test_images[:100], sample.test_labels[:100])  # fmt: skip
    settings = attention.STUDENT | attention.ARMS["attention, 10"] | {"epochs": 1, "test": True}
    with tempfile.TemporaryDirectory() as folder:
        network = fit(make_config("hcnn-fast", settings), few, out=f"{folder}/run")
    return {"test_loss": network.figures["test_loss"], "accuracy": attention.accuracy_at(network, few, attention.SIZE)}


def of_signals() -> Row:
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    x = np.sin(np.arange(40) * (0.2 + 0.1 * y[:, None]) + rng.uniform(0, 6, (60, 1)))[..., None].astype(np.float32)
    parts = Dataset("tones", ("low", "middle", "high"), x[:40], y[:40], x[40:], y[40:])
    return signals.figures(parts, {"epochs": 2, "seed": 0})


def of_shifts() -> Row:
    sample, (path, checkpoint, _) = load_dataset("sample"), open_network("hcnn-fast")
    opened = restore(path, checkpoint, checkpoint.config, np)
    found = shifts.losses(*opened, checkpoint, sample.test_images[:100], sample.test_labels[:100])
    return {f"{how} {k}": figure for how, figures in found.items() for k, figure in enumerate(figures)}


def of_volumes() -> Row:
    x, y = volumes.draw(60, seed=0)
    return volumes.train_one(x[20:], y[20:], x[:20], y[:20], {"epochs": 1})


ROWS: dict[str, Callable[[], Row]] = {
    "symmetries": of_symmetries,
    "circles": of_circles,
    "hue": lambda: of_planted(hue.task(STEPS), "half"),
    "sound": lambda: of_planted(sound.task(STEPS), "intervals"),
    "attention": of_attention,
    "signals": of_signals,
    "shifts": of_shifts,
    "volumes": of_volumes,
}


def main() -> None:
    rows: dict[str, Any] = {name: compute() for name, compute in ROWS.items()}
    RECORD.write_text(json.dumps({**rows, "machine": describe_machine()}, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
