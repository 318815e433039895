"""The accuracy of networks that ship on each class: `python -m benchmarks.cards --data-dir DIR`.

Classifies the 10,000 test images of CIFAR-10 and writes benchmarks/results/cards.json, which the model cards
(train/weights/*.md) quote; prints the table of each card. Nothing is chosen by these figures.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from train import load, load_dataset
from train.runs.scores import part_right
from train.runs.shipped import list_networks

RESULTS = Path(__file__).parent / "results" / "cards.json"


def table(classes: Sequence[str], confusion: Sequence[Sequence[int]]) -> str:
    """The rows of a card: how much of each class is right, and the class that the rest is most often taken for."""
    lines = ["| class | right, with the 95 % interval | taken most for |", "| --- | --- | --- |"]
    for k, (name, row) in enumerate(zip(classes, confusion, strict=True)):
        count, other = max((n, -j) for j, n in enumerate(row) if j != k)
        lines.append(
            f"| {name} | {part_right(row[k], sum(row)).strip()} | {classes[-other]}, {100 * count / sum(row):.1f} % |"
        )
    right, count = (sum(values) for values in ((row[k] for k, row in enumerate(confusion)), map(sum, confusion)))
    return "\n".join([*lines, f"| all | {part_right(right, count).strip()} | |"])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data-dir", default="data", help="folder of CIFAR-10")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    dataset = load_dataset("cifar10", options.data_dir)
    found: dict[str, Any] = json.loads(options.out.read_text()) if options.out.exists() else {}
    for name in list_networks():
        network = load(name)
        predicted = np.argmax(network(dataset.test_images), axis=1)
        confusion = np.zeros((len(dataset.class_names),) * 2, int)
        np.add.at(confusion, (dataset.test_labels, predicted), 1)
        found[name] = {"classes": list(dataset.class_names), "confusion": confusion.tolist()}
        options.out.write_text(json.dumps(found, sort_keys=True) + "\n")
        print(f"{name}: {100 * np.trace(confusion) / confusion.sum():.2f} %", table(**found[name]), sep="\n\n")


if __name__ == "__main__":
    main()
