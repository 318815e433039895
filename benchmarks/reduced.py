"""Write CIFAR-10's training images at a smaller size: `python -m benchmarks.reduced SIZE IMAGES DATA_DIR FILE.npz`.

Each pixel is a mean over its area. After the file's name, a number of octaves asks for the standardised scattering
coefficients of these images, as the preset `scattering` has them, in the place of pixels. The file is a data set for
`--dataset`. What it calls test images are ten training images, so that nothing can read the test set through it.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from train.data import load_dataset
from train.data.augmentation import resize
from train.networks.scattering import ScatteringLayer


def reduced(images: np.ndarray[Any, Any], size: int) -> np.ndarray[Any, Any]:
    """Return images (N, size, size, C), uint8."""
    small: np.ndarray[Any, Any] = np.rint(resize(images.astype(np.float32), size)).astype(np.uint8)
    return small


def scattered(images: np.ndarray[Any, Any], octaves: int) -> np.ndarray[Any, Any]:
    """Return scattering coefficients (N, n / 2^J, n / 2^J, C * P), float32, of images with standardised channels."""
    x = images.astype(np.float32)
    x = (x - x.mean((0, 1, 2))) / x.std((0, 1, 2))
    layer = ScatteringLayer(octaves, images.shape[1:], "zero", "float32")
    return np.concatenate([layer.apply({}, part) for part in np.array_split(x, -(-len(x) // 100))])


def main(size: str, count: str, data_dir: str, target: str, octaves: str = "0") -> None:
    """Write the file."""
    data = load_dataset("cifar10", data_dir)
    images, labels = data.train_images[: int(count)], data.train_labels[: int(count)]
    small = reduced(images, int(size))
    if int(octaves):
        small = scattered(small, int(octaves))
    parts = {"x_train": small, "y_train": labels, "x_test": small[:10], "y_test": labels[:10]}
    np.savez(target, **parts, space_axes=np.array(2), class_names=np.array(data.class_names))


if __name__ == "__main__":
    main(*sys.argv[1:])
