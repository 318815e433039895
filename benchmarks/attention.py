"""Soft targets and attention transfer beside training alone, on few images; docs/recipes.md has the protocol.

    python -m benchmarks.attention --data data --out benchmarks/results/attention

Students see 5,000 of the images that the teacher, `hcnn-fast`, was trained on, at 16 x 16 pixels; the teacher sees them
at its own 32 x 32. Students are tested on the 1,000 training images that it held out, at 16 x 16 as they were trained
and at 32 x 32; the test set is not read. A teacher of random weights is the control of attention.
"""

import argparse
import csv
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from autodiff import tree_map
from benchmarks.machine import describe_machine
from benchmarks.planted import records
from benchmarks.reduced import reduced
from train import Classifier, fit, load, load_dataset, make_config
from train.data import Dataset, split_validation
from train.networks.registry import build

ARMS: dict[str, dict[str, Any]] = {
    "alone": {},
    "soft targets": {"teacher": "hcnn-fast"},
    "attention, 1": {"teacher": "hcnn-fast", "teacher_share": 0.0, "attention_transfer": 1.0},
    "attention, 10": {"teacher": "hcnn-fast", "teacher_share": 0.0, "attention_transfer": 10.0},
    "random attention, 1": {"teacher": "random", "teacher_share": 0.0, "attention_transfer": 1.0},
    "random attention, 10": {"teacher": "random", "teacher_share": 0.0, "attention_transfer": 10.0},
}
COMPARED = [(arm, "alone") for arm in list(ARMS)[1:4]] + [
    (f"attention, {w}", f"random attention, {w}") for w in (1, 10)
]
SIZE, BATCH, BATCHES = 16, 50, 20
STUDENT = {"width": 8, "epochs": 8, "image_sizes": [SIZE], "validation_size": 0, "test": False}
Found = dict[tuple[str, int], float]


def images(data: str, count: int) -> Dataset:
    """Return training images that the teacher has seen, and, as test images, those that it held out."""
    whole, config = load_dataset("cifar10", data), load("hcnn-fast").checkpoint.config
    seen, held_out = split_validation(whole, config.held_out(len(whole.train_labels)), config.seed)
    seen = seen[np.random.default_rng(0).permutation(len(seen))[:count]]
    parts = [(whole.train_images[k], whole.train_labels[k]) for k in (seen, held_out)]
    return Dataset("held out by hcnn-fast", whole.class_names, *parts[0], *parts[1])


def accuracy_at(network: Classifier, dataset: Dataset, size: int) -> float:
    """Return the part of held-out images that is right at a size, with moments of training images of that size."""
    checkpoint = network.checkpoint
    weights, mean, std = checkpoint.state.evaluated, checkpoint.channel_mean, checkpoint.channel_std
    one = build(checkpoint.config, size, len(dataset.class_names), 3)

    def inputs(images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        x: np.ndarray[Any, Any] = ((reduced(images, size) - mean) / std).astype(np.float32)
        return x

    batches = np.split(dataset.train_images[: BATCH * BATCHES], BATCHES)
    moments = tree_map(lambda *of: sum(of) / BATCHES, *(one(weights, inputs(x))[1] for x in batches))
    right = [
        one(weights, inputs(x), moments)[0].argmax(axis=1) == y
        for x, y in zip(np.split(dataset.test_images, 10), np.split(dataset.test_labels, 10), strict=True)
    ]
    return float(np.mean(right))


def compared(accuracies: Found, arm: str, other: str, of: int) -> str:
    """Return a row on the differences of two arms over seeds, in points, with an interval corrected for several."""
    seeds = sorted({seed for name, seed in accuracies if name == arm} & {seed for a, seed in accuracies if a == other})
    differences = 100 * np.array([accuracies[arm, seed] - accuracies[other, seed] for seed in seeds])
    mean, error = differences.mean(), stats.sem(differences)
    low, high = mean + error * stats.t.ppf([0.025 / of, 1 - 0.025 / of], len(seeds) - 1)
    return f"| {arm} - {other} | {len(seeds)} | {mean:+.2f} | {low:+.2f} to {high:+.2f} |"


def table(accuracies: Found) -> str:
    """Return accuracies of the arms, and the comparisons, of the seeds that all arms have."""
    arms = {arm for arm, _ in accuracies}
    accuracies = {
        key: a for key, a in accuracies.items() if arms <= {arm for arm, seed in accuracies if seed == key[1]}
    }
    lines = ["| arm | networks | accuracy, % |", "| --- | --- | --- |"]
    for arm in dict.fromkeys(name for name, _ in accuracies):
        values = [100 * accuracy for (name, _), accuracy in accuracies.items() if name == arm]
        lines.append(f"| {arm} | {len(values)} | {np.mean(values):.2f} ({min(values):.1f} to {max(values):.1f}) |")
    lines += ["", "| compared | pairs | points | interval |", "| --- | --- | --- | --- |"]
    pairs = [(a, b) for a, b in COMPARED if sum(name == a for name, _ in accuracies) > 1]
    return "\n".join([*lines, *(compared(accuracies, *pair, len(COMPARED)) for pair in pairs)]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", default="data", metavar="DIR", help="folder with CIFAR-10 [data]")
    parser.add_argument("--images", type=int, default=5000, metavar="N", help="for training [5000]")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(6)), metavar="SEED", help="[0 to 5]")
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS), metavar="ARM", help="[all]")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the networks and the table")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    dataset, file = images(options.data, options.images), options.out / "networks.csv"
    with tempfile.TemporaryDirectory() as folder:
        still = {"epochs": 1, "learning_rate": 1e-12, "validation_size": 0, "test": False, "seed": 1000}
        fit(make_config("hcnn-fast", still), dataset, out=f"{folder}/random")  # for its moments; its weights stay
        for seed in options.seeds:
            for arm in options.arms:
                if (arm, seed) in accuracies(file, "at 16"):
                    continue
                settings = STUDENT | ARMS[arm] | {"seed": seed}
                if settings.get("teacher") == "random":
                    settings["teacher"] = f"{folder}/random"
                network = fit(make_config("hcnn-fast", settings), dataset, out=f"{folder}/{arm}-{seed}")
                row = [arm, seed, *(accuracy_at(network, dataset, size) for size in (SIZE, 32))]
                with file.open("a", newline="") as target:
                    rows = csv.writer(target, lineterminator="\n")
                    rows.writerows(([] if target.tell() else [["arm", "seed", "at 16", "at 32"]]) + [row])
                print(arm, seed, flush=True)
    text = "\n".join(f"{key} pixels\n\n{table(accuracies(file, key))}" for key in ("at 16", "at 32"))
    print(text)
    (options.out / "arms.md").write_text(f"{text}\n{describe_machine()}\n", "utf-8")


def accuracies(file: Path, size: str) -> Found:
    """Return accuracies of the networks that have ended, at a size."""
    return {(row["arm"], int(row["seed"])): float(row[size]) for row in records(file)}


if __name__ == "__main__":
    main()
