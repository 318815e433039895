"""Calibration: how well a network's confidence predicts how often it is right."""

from __future__ import annotations

from typing import Any

import numpy as np

from hcnn_core import log_softmax


def tempered_loss(logits: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> float:
    """Return the cross-entropy after one temperature, which was fitted on other images.

    The temperature divides all logits (N, C) (C. Guo et al., arXiv:1706.04599). It is fitted on one half of the images
    and used on the other, and the reverse, so the loss, in nats, is of images that have not chosen it. Both halves get
    the same number of each class, to one image; ValueError of fewer than two images.
    """
    from scipy.optimize import minimize_scalar

    if len(labels) < 2:
        raise ValueError(f"{len(labels)} image(s) cannot be split in halves: give at least two")
    order = np.argsort(labels, kind="stable")
    halves = [(logits[part].astype(np.float64), labels[part]) for part in (order[::2], order[1::2])]

    def fitted(half: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]) -> float:
        minimum = minimize_scalar(lambda log: _loss(half[0] / np.exp(log), half[1]), bounds=(-4, 4), method="bounded")
        return float(np.exp(minimum.x))

    losses = [_loss(z / fitted(other), truth) for (z, truth), other in zip(halves, halves[::-1], strict=True)]
    return float(np.average(losses, weights=[len(truth) for _, truth in halves]))


def calibration_error(logits: np.ndarray[Any, Any], labels: np.ndarray[Any, Any], bins: int = 15) -> float:
    """Return the expected calibration error of the largest probability.

    Images are put into bins of equal width by the probability of the class that is predicted. The error is the mean
    over images of the difference, in their bin, between the mean of these probabilities and the share of right ones
    (arXiv:1706.04599, Eq. (3)). It is 0 where confidence says how often the network is right, and at most 1.
    """
    confidence = np.exp(log_softmax(logits.astype(np.float64)).max(axis=1))
    right = logits.argmax(axis=1) == labels
    places = np.minimum((confidence * bins).astype(int), bins - 1)
    return float(np.abs(np.bincount(places, weights=confidence - right, minlength=bins)).sum() / len(labels))


def _loss(z: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> float:
    return float(-log_softmax(z)[np.arange(len(labels)), labels].mean())
