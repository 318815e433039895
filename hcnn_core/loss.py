"""Negative log-likelihood of a softmax, the loss of section 4.2 of arXiv:1703.04140."""

from __future__ import annotations

from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from hcnn_core._engines.dispatch import native
from hcnn_core.backend import Array as EngineArray
from hcnn_core.backend import array_namespace, on_host, placement, require_real
from hcnn_core.typing import AnyArray, Array, NumpyArray, Scalar

__all__ = ["cross_entropy", "log_softmax"]


def log_softmax(x: AnyArray, /) -> AnyArray:
    """Logarithm of the softmax along the last axis.

    Parameters
    ----------
    x : array, shape (..., classes)
        Logits, float32 or float64.

    Returns
    -------
    array
        Log-probabilities, in the shape and dtype of x. They are finite where differences within x are.

    Raises
    ------
    TypeError
        If the dtype is integer or complex.
    ValueError
        If the last axis is empty or missing.
    """
    xp = array_namespace(x)
    logits = require_real(xp, "x", x)
    if logits.ndim == 0 or logits.shape[-1] == 0:
        raise ValueError(f"x has shape {logits.shape}; its last axis holds the classes, at least one")
    shifted = logits - xp.max(logits, axis=-1, keepdims=True)
    return shifted - xp.log(xp.sum(xp.exp(shifted), axis=-1, keepdims=True))


@overload
def cross_entropy(
    logits: NumpyArray[Scalar], labels: NDArray[np.integer[Any]], /, *, label_smoothing: float = 0.0
) -> NumpyArray[Scalar]: ...
@overload
def cross_entropy(logits: Array, labels: Array, /, *, label_smoothing: float = 0.0) -> Array: ...
def cross_entropy(logits: Array, labels: Array, /, *, label_smoothing: float = 0.0) -> Array:
    """Mean negative log-likelihood of the labels under the softmax of the logits, in nats.

    Parameters
    ----------
    logits : array, shape (N, classes)
        float32 or float64.
    labels : array of integers, shape (N,)
        From 0 to classes - 1.
    label_smoothing : float, optional
        Share of the target distribution, in [0, 1), that is spread evenly over all classes.

    Returns
    -------
    array
        The loss, 0-dimensional.

    Raises
    ------
    TypeError
        If the logits are not float32 or float64, the labels are not integers, or the arrays are of two libraries.
    ValueError
        If shapes do not fit, there is no image, or the smoothing or a label is out of range. On a GPU a label out of
        range makes the loss NaN instead, because checking it would wait for the device.
    """
    xp = array_namespace(logits, labels)
    target = targets(logits, labels, label_smoothing)
    return _mean_loss(xp, log_softmax(logits), target)


def cross_entropy_and_gradient(logits: Array, labels: Array, label_smoothing: float = 0.0) -> tuple[Array, Array]:
    """`cross_entropy`, and its gradient (N, classes)."""
    xp, logits, labels = _checked(logits, labels, label_smoothing)
    if at_once := native("loss", logits):
        return at_once.cross_entropy(xp, logits, labels, label_smoothing)
    logs, target = log_softmax(logits), targets(logits, labels, label_smoothing)
    return _mean_loss(xp, logs, target), (xp.exp(logs) - target) / target.shape[0]


def count_right(logits: Array, labels: Array) -> EngineArray:
    """Count the images whose largest logit, of (N, classes), is that of their label (N,); an integer array."""
    xp, logits, labels = _checked(logits, labels, 0.0)
    return xp.sum(xp.astype(xp.argmax(logits, axis=1) == labels, xp.int32))  # in the library's integers


def _mean_loss(xp: Any, logs: Array, target: Array) -> Array:
    """Return the mean over images; a class of probability 0 counts only where the target is not 0."""
    counts = xp.astype(target, xp.bool)  # NaN counts
    return -xp.sum(xp.where(counts, logs, xp.zeros_like(logs)) * target) / target.shape[0]


def targets(logits: Array, labels: Array, label_smoothing: float = 0.0) -> Array:
    """Target distribution of each image, (N, classes), in the dtype of the logits."""
    xp, logits, labels = _checked(logits, labels, label_smoothing)
    classes = logits.shape[1]
    index = xp.arange(classes, **placement(xp, logits))[None, :]
    hit = xp.astype(labels, index.dtype)[:, None] == index
    if xp is np and not hit.any(axis=1).all():
        wrong = labels[~hit.any(axis=1)][0]
        raise ValueError(f"labels hold {wrong}; with {classes} classes they are 0 to {classes - 1}")
    hit = xp.astype(hit, logits.dtype)
    hit = hit / xp.sum(hit, axis=1, keepdims=True)  # NaN where a label is out of range
    return hit * float(1 - label_smoothing) + float(label_smoothing / classes)


def _checked(logits: Array, labels: Any, label_smoothing: float) -> tuple[Any, EngineArray, EngineArray]:
    """Return the namespace and both arrays; TypeError or ValueError where they do not fit."""
    xp = array_namespace(logits, labels)
    logits, labels = require_real(xp, "logits", logits), xp.asarray(on_host(labels) if xp is np else labels)
    if not xp.isdtype(labels.dtype, "integral"):
        raise TypeError(f"labels have dtype {labels.dtype}; give integers")
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise ValueError(f"logits have shape {logits.shape}, labels {labels.shape}; give (N, classes) and (N,)")
    if not logits.shape[0]:
        raise ValueError(f"logits have shape {logits.shape}; the mean needs at least one image")
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing is {label_smoothing}; it lies in [0, 1)")
    return xp, logits, labels
