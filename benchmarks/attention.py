"""Soft targets and attention transfer beside training alone, on few images; docs/recipes.md has the protocol.

    python -m benchmarks.attention --data-dir data --out benchmarks/results/attention

Students see 5,000 of the images that the teacher, `hcnn-fast`, was trained on. They are tested on the 1,000 training
images that it held out; the test set is not read. A teacher of random weights is the control of attention.
"""

import argparse
import csv
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.machine import describe_machine
from benchmarks.planted import records
from train import fit, load, load_dataset, make_config
from train.data import Dataset, split_validation

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
STUDENT = {"width": 8, "epochs": 8, "image_sizes": [16], "validation_size": 0, "test": False}


def images(data: str, count: int) -> Dataset:
    """Training images that the teacher has seen, and, as test images, those that it held out."""
    whole, theirs = load_dataset("cifar10", data), load("hcnn-fast").checkpoint.config
    seen, held_out = split_validation(whole, theirs.held_out(len(whole.train_labels)), theirs.seed)
    seen = seen[np.random.default_rng(0).permutation(len(seen))[:count]]
    parts = [(whole.train_images[k], whole.train_labels[k]) for k in (seen, held_out)]
    return Dataset("held out by hcnn-fast", whole.class_names, *parts[0], *parts[1])


def compared(found: dict[tuple[str, int], float], arm: str, other: str, of: int) -> str:
    """A row on the differences of two arms over seeds, in points, with an interval corrected for several of them."""
    seeds = sorted({seed for name, seed in found if name == arm} & {seed for name, seed in found if name == other})
    differences = 100 * np.array([found[arm, seed] - found[other, seed] for seed in seeds])
    mean, error = differences.mean(), stats.sem(differences)
    low, high = mean + error * stats.t.ppf([0.025 / of, 1 - 0.025 / of], len(seeds) - 1)
    return f"| {arm} - {other} | {mean:+.2f} | {low:+.2f} to {high:+.2f} |"


def table(found: dict[tuple[str, int], float]) -> str:
    """Accuracies of the arms, and what is compared."""
    lines = ["| arm | networks | accuracy, % |", "| --- | --- | --- |"]
    for arm in ARMS:
        own = [100 * accuracy for (name, _), accuracy in found.items() if name == arm]
        lines.append(f"| {arm} | {len(own)} | {np.mean(own):.2f} ({min(own):.1f} to {max(own):.1f}) |")
    lines += ["", "| compared | points | interval |", "| --- | --- | --- |"]
    return "\n".join([*lines, *(compared(found, *pair, len(COMPARED)) for pair in COMPARED)]) + "\n"


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
                if (arm, seed) in accuracies(file):
                    continue
                settings = STUDENT | ARMS[arm] | {"seed": seed}
                if settings.get("teacher") == "random":
                    settings["teacher"] = f"{folder}/random"
                network = fit(make_config("hcnn-fast", settings), dataset, out=f"{folder}/{arm}-{seed}")
                accuracy = np.mean(network.logits(dataset.test_images).argmax(axis=1) == dataset.test_labels)
                with file.open("a", newline="") as target:
                    rows = csv.writer(target, lineterminator="\n")
                    rows.writerows(([] if target.tell() else [["arm", "seed", "accuracy"]]) + [[arm, seed, accuracy]])
                print(arm, seed, flush=True)
    text = table(accuracies(file))
    print(text)
    (options.out / "arms.md").write_text(f"{text}\n{describe_machine()}\n", "utf-8")


def accuracies(file: Path) -> dict[tuple[str, int], float]:
    """Of the networks that have ended."""
    return {(row["arm"], int(row["seed"])): float(row["accuracy"]) for row in records(file)}


if __name__ == "__main__":
    main()
