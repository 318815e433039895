"""CIFAR-10 after ZCA whitening, as a data set: `--dataset benchmarks.whitened:zca`, from the folder `data`.

The covariance of all 3,072 values is that of the training images (those held out among them, without their labels).
The result is kept in eight bits, which adds about one percent of a value's standard deviation.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from train.data.cifar import load_dataset
from train.data.dataset import Dataset

REGULARIZATION = 0.1
"""Added to each eigenvalue of the covariance, of values from -1 to 1 about 0: as is usual for CIFAR-10."""


def zca() -> Dataset:
    """CIFAR-10, its images whitened: uint8, 32 grey levels to a standard deviation, 128 for the mean."""
    dataset = load_dataset("cifar10")
    count = len(dataset.train_images)
    flat = _contrast(dataset.train_images)
    mean = flat.mean(axis=0)
    variances, directions = np.linalg.eigh((flat - mean).T @ (flat - mean) / count)
    matrix = directions / np.sqrt(variances + REGULARIZATION) @ directions.T
    scale = 32 / np.std((flat - mean) @ matrix)

    def whiten(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        white = (_contrast(images) - mean) @ matrix
        return np.clip(np.rint(128 + scale * white), 0, 255).astype(np.uint8).reshape(images.shape)

    train, test = whiten(dataset.train_images), whiten(dataset.test_images)
    return dataclasses.replace(dataset, train_images=train, test_images=test)


def _contrast(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Each image with mean 0 and standard deviation 1, one row each; an even image is 0."""
    flat = images.reshape(len(images), -1).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    return flat / np.maximum(flat.std(axis=1, keepdims=True), 1)
