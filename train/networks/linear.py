"""A linear classifier by least squares, with which representations are compared."""

from __future__ import annotations

from typing import Any

import numpy as np

from hcnn_core.typing import NumpyArray

FLOOR = 1e-3
"""Added to the deviations of features, so that constant ones do no harm."""


def linear_accuracy(
    features: NumpyArray[Any],
    labels: NumpyArray[Any],
    test_features: NumpyArray[Any],
    test_labels: NumpyArray[Any],
    *,
    ridge: float = 0.1,
) -> float:
    """Return the accuracy of a linear classifier of features on a test set.

    Features are standardised by their means and deviations in training. Weights are those of least squares on class
    indicators, with a ridge, solved in the space of the training images: for few images with many features.
    """
    count, tested = len(features), len(test_features)
    if (len(labels), len(test_labels)) != (count, tested) or features.shape[1:] != test_features.shape[1:]:
        raise ValueError(
            f"features have shapes {features.shape} and {test_features.shape}, labels {labels.shape} and "
            f"{test_labels.shape}; expected (N, ...), (M, ...), (N,) and (M,)"
        )
    if not (count and tested and ridge > 0):
        raise ValueError(
            f"there are {count} training and {tested} test images, and ridge is {ridge}; all must be positive"
        )
    a, b = (np.reshape(f, (len(f), -1)) for f in (features, test_features))
    mean, deviation = a.mean(0), a.std(0) + FLOOR
    a, b = (a - mean) / deviation, (b - mean) / deviation
    gram = a @ a.T
    classes = int(labels.max()) + 1
    targets = np.eye(classes)[labels] - 1 / classes
    penalty = ridge * np.trace(gram) / count or 1.0  # any, where all features are constant
    weights = np.linalg.solve(gram + penalty * np.eye(count), targets)
    return float(((b @ (a.T @ weights)).argmax(1) == test_labels).mean())
