"""Plant a symmetry of colour in images, and see whether a network's attributes find it.

    OPENBLAS_NUM_THREADS=1 HCNN_NUM_THREADS=1 python -m benchmarks.hue --out benchmarks/results/hue

A grey patch of a photograph is tinted: its left half with the hue h, its right half with h + d. The circle of hues has
length 8. The class is d, from 0 to 7. Turning all hues by s moves no pixel and keeps the class. The network is
`hcnn-fast` with K = 8 and periodic attributes without strides, so an attribute has one sample for each turn.
results/symmetries/README.md has the protocol, planted.py what is measured.
"""

from functools import partial

import numpy as np

from benchmarks.planted import BATCH, TURNS, Arm, Array, Scene, Task, main
from train.config import make_config
from train.data import load_dataset
from train.networks.registry import build

SIZE = 16
ARMS = {
    "all hues": Arm(),
    "labels h": Arm(of_place=True),
    "v_1 shuffled": Arm(shuffled=True),
    "half": Arm(half=True),
    "untrained": Arm(steps=0),
}


def images(scene: Scene) -> Array:
    """Return colours (N, SIZE, SIZE, 3): the hues turn those of grey patches about the grey axis."""
    right = np.arange(SIZE) >= SIZE // 2
    hue = scene.place[:, None] + np.where(right, scene.distance[:, None], 0)  # (N, u2)
    phase = 2 * np.pi * (hue[..., None] / TURNS - np.arange(3) / 3)  # (N, u2, 3)
    tint = (1 + np.cos(phase)) / 2
    tinted: Array = 4 * (scene.rest[..., None] * tint[:, None] - 0.25)
    return tinted.astype(np.float32)


def draw(grey: tuple[Array, Array], new: bool, count: int, hues: int, rng: np.random.Generator) -> Scene:
    """Return patches, from 0 to 1, at random places of grey photographs (N, n, n), with hues from 0 to `hues`."""
    photographs = grey[new]
    chosen = rng.integers(len(photographs), size=count)
    top, left = rng.integers(photographs.shape[1] - SIZE + 1, size=(2, count))
    rows, columns = (first[:, None] + np.arange(SIZE) for first in (top, left))
    patches = photographs[chosen[:, None, None], rows[:, :, None], columns[:, None, :]]
    low, high = patches.min(axis=(1, 2), keepdims=True), patches.max(axis=(1, 2), keepdims=True)
    patches = 0.2 + 0.8 * (patches - low) / np.maximum(high - low, 1e-6)
    return Scene(patches, rng.uniform(0, hues, count), rng.integers(TURNS, size=count))


def task(steps: int) -> Task:
    """Return the task, with photographs of training images to train, and of test images to test."""
    settings = {
        "width": TURNS, "boundary": "attributes", "attribute_stride": 1, "depth": 6, "strided_layers": (2, 3),
        "image_sizes": (SIZE,), "batch_size": BATCH, "epochs": max(steps, 1), "validation_size": 0,
    }  # fmt: skip
    config = make_config("hcnn-fast", settings)
    sample = load_dataset("sample")
    grey = sample.train_images.mean(axis=3) / 255, sample.test_images.mean(axis=3) / 255
    others = ("labels h", "v_1 shuffled", "untrained")
    return Task(config, build(config, SIZE, TURNS), ARMS, others, partial(draw, grey), images)


if __name__ == "__main__":
    main(__doc__ or "", task, networks=10, steps=400)
