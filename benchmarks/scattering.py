"""Scattering as a first stage, with few training images: `python -m benchmarks.scattering --data-dir DIR --out FOLDER`.

The preset `scattering`, the network alone (deeper, since it has more space to subsample) and a linear classifier on
scattering coefficients, each trained on the first 100, 500 and 1,000 images of CIFAR-10 with three seeds. The seed
decides initial weights, order and augmentation; the linear classifier has none of these. The settings were chosen with
500 training and 2,000 held-out images, the ridge of the linear classifier for each number of training images, on 2,000
that none of them is trained on. Accuracies are of the first 2,000 test images, by the last weights. ``--linear`` trains
the linear classifier alone, and keeps the other rows of results.json.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import describe_machine
from train import load
from train.data import load_dataset
from train.networks.linear import linear_accuracy
from wavelets import morlet_bank, scattering

EPOCHS = {100: 60, 500: 30, 1000: 20}
"""By the number of training images: more for fewer, since an epoch then has fewer steps."""

NETWORKS = {
    "scattering, HCNN": [],
    "HCNN alone": ["--scattering", "0", "--depth", "9", "--strided-layers", "3", "6"],
}
SEEDS = (0, 1, 2)
TESTED = 2000
HELD_OUT = slice(max(EPOCHS), max(EPOCHS) + 2000)
RIDGES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)


def linear(data: Any) -> list[dict[str, Any]]:
    """Accuracies of the linear classifier on scattering coefficients, with the ridges that held-out images choose."""
    bank = morlet_bank((40, 40), 2, dtype=np.float32)

    def features(images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return scattering(images.astype(np.float32) / 255, bank, (1, 2), boundary="reflect")

    train = features(data.train_images[: max(EPOCHS)])
    held_out = features(data.train_images[HELD_OUT]), data.train_labels[HELD_OUT]
    test = features(data.test_images[:TESTED]), data.test_labels[:TESTED]
    rows = []
    for size in EPOCHS:
        known = train[:size], data.train_labels[:size]
        trials = {ridge: linear_accuracy(*known, *held_out, ridge=ridge) for ridge in RIDGES}
        ridge = max(trials, key=lambda ridge: trials[ridge])
        accuracy = linear_accuracy(*known, *test, ridge=ridge)
        row = {"classifier": "scattering, linear", "images": size, "seed": None, "accuracy": accuracy}
        rows.append({**row, "ridge": ridge, "held out": trials})
    return rows


def trained(arguments: list[str], data: Any, out: Path) -> float:
    """Accuracy of a network after a run."""
    command = [sys.executable, "-m", "train.cifar", "--preset", "scattering", "--no-test", "--out", str(out)]
    subprocess.run([*command, *arguments], check=True, stdout=subprocess.DEVNULL)
    last = max(out.glob("epoch*.h5"))
    found = load(last).logits(data.test_images[:TESTED]).argmax(1)
    return float((found == data.test_labels[:TESTED]).mean())


def table(rows: list[dict[str, Any]]) -> str:
    """Mean and range over seeds, a line for each classifier."""
    sizes = sorted({row["images"] for row in rows})
    lines = [f"{'test accuracy, mean (range) over seeds':40s}" + "".join(f"{n:>22,}" for n in sizes)]
    for name in dict.fromkeys(row["classifier"] for row in rows):
        cells = []
        for n in sizes:
            found = [row["accuracy"] for row in rows if (row["classifier"], row["images"]) == (name, n)]
            cells.append(f"{statistics.mean(found):.1%} ({min(found):.1%}-{max(found):.1%})" if found else "")
        lines.append(f"{name:40s}" + "".join(f"{cell:>22s}" for cell in cells))
    return "\n".join(lines)


def main() -> None:
    """Run everything, writing after each run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", default="data", help="folder of CIFAR-10")
    parser.add_argument("--out", type=Path, required=True, help="folder for runs, results.json and results.txt")
    parser.add_argument("--linear", action="store_true", help="only the linear classifier; keep the other rows")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    data = load_dataset("cifar10", Path(options.data_dir))
    machine, rows = describe_machine(), linear(data)
    if options.linear:
        kept = json.loads((options.out / "results.json").read_text("utf-8"))
        machine = kept["machine"]
        rows += [row for row in kept["rows"] if row["classifier"] != "scattering, linear"]

    def write() -> None:
        text = json.dumps({"machine": machine, "epochs": EPOCHS, "rows": rows}, indent=1)
        (options.out / "results.json").write_text(text + "\n", "utf-8")
        (options.out / "results.txt").write_text(table(rows) + "\n", "utf-8")

    def record(**row: Any) -> None:
        rows.append(row)
        write()
        print(row, flush=True)

    write()
    print(*rows, sep="\n", flush=True)
    if options.linear:
        return
    for seed in SEEDS:
        for size, epochs in EPOCHS.items():
            for name, changes in NETWORKS.items():
                run = options.out / "runs" / f"{name.replace(', ', '-').replace(' ', '-')}-{size}-{seed}"
                given = {"--data-dir": options.data_dir, "--train-size": size, "--epochs": epochs, "--seed": seed}
                arguments = [str(part) for pair in given.items() for part in pair] + changes
                record(classifier=name, images=size, seed=seed, accuracy=trained(arguments, data, run))


if __name__ == "__main__":
    main()
