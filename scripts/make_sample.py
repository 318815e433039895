#!/usr/bin/env python3
"""Draw the embedded sample, 2,000 training and 500 test images, from the full CIFAR-10.

Classes are balanced. The draw ranks the images by the raw output of PCG64, which NumPy promises never
to change, so the same images come out with every version; the files are the same bit for bit
with the same liblzma.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from train.data import DataError, _sample, load_dataset

SEED = 2017
TRAIN_PER_CLASS, TEST_PER_CLASS = 200, 50
FULL_COUNTS = (50_000, 10_000)
SAMPLE_DIR = Path(__file__).resolve().parents[1] / "train" / "data" / "sample"


def draw(labels: NDArray[np.int64], per_class: int, bits: np.random.PCG64) -> NDArray[np.int64]:
    """Return the ascending indices of `per_class` images of each class."""
    order = np.argsort(bits.random_raw(len(labels)), kind="stable")
    return np.sort(np.concatenate([order[labels[order] == label][:per_class] for label in np.unique(labels)]))


def main() -> None:
    """Write the sample and its manifest."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("cifar_dir", type=Path, metavar="CIFAR_DIR", help="a folder that holds CIFAR-10")
    parser.add_argument("--out", type=Path, default=SAMPLE_DIR, help="where to write (default: train/data/sample)")
    arguments = parser.parse_args()
    try:
        full = load_dataset("cifar10", arguments.cifar_dir, download=False)
    except DataError as error:
        raise SystemExit(f"make_sample: {error}") from error
    counts = (len(full.train_labels), len(full.test_labels))
    if counts != FULL_COUNTS:
        raise SystemExit(f"make_sample: {arguments.cifar_dir} holds {counts} images; the draw is from {FULL_COUNTS}")

    bits = np.random.PCG64(SEED)
    train = draw(full.train_labels, TRAIN_PER_CLASS, bits)
    test = draw(full.test_labels, TEST_PER_CLASS, bits)
    images = np.concatenate([full.train_images[train], full.test_images[test]])
    labels = np.concatenate([full.train_labels[train], full.test_labels[test]])
    data = _sample.encode(images, labels)
    manifest = {
        "seed": SEED,
        "sha256": _sample.digest(images, labels),
        "train_indices": train.tolist(),
        "test_indices": test.tolist(),
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / _sample.DATA_FILE).write_bytes(data)
    lines = ",\n".join(f" {json.dumps(key)}: {json.dumps(value)}" for key, value in manifest.items())
    (arguments.out / _sample.MANIFEST_FILE).write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
    print(f"{len(train)} + {len(test)} images in {len(data)} bytes, SHA-256 {manifest['sha256']}")


if __name__ == "__main__":
    main()
