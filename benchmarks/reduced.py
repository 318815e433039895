"""Write CIFAR-10's training images at a smaller size: `python -m benchmarks.reduced SIZE IMAGES DATA_DIR FILE.npz`.

Each pixel is a mean over its area. The file is a data set for `--dataset`. What it calls test images are ten training
images, so that nothing can read the test set through it.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from train.data.augmentation import resize
from train.data.cifar import load_dataset


def reduced(images: np.ndarray[Any, Any], size: int) -> np.ndarray[Any, Any]:
    """Return images (N, size, size, C), uint8."""
    small: np.ndarray[Any, Any] = np.rint(resize(images.astype(np.float32), size)).astype(np.uint8)
    return small


def main(size: str, count: str, data_dir: str, target: str) -> None:
    """Write the file."""
    data = load_dataset("cifar10", data_dir)
    images, labels = data.train_images[: int(count)], data.train_labels[: int(count)]
    small = reduced(images, int(size))
    arrays = {"x_train": small, "y_train": labels, "x_test": small[:10], "y_test": labels[:10]}
    np.savez(target, **arrays, class_names=np.array(data.class_names))


if __name__ == "__main__":
    main(*sys.argv[1:])
