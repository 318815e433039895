"""Negative log-likelihood of a softmax, the loss of section 4.2 of arXiv:1703.04140."""

from __future__ import annotations

from hcnn_core._backend import Array, array_namespace, require_real


def log_softmax(x: Array, /) -> Array:
    """Logarithm of the softmax along the last axis.

    Parameters
    ----------
    x : array, shape (..., classes)
        Logits, float32 or float64.

    Returns
    -------
    array
        Log-probabilities, shape and dtype of x; finite for every finite x.

    Raises
    ------
    TypeError
        If the dtype is integer or complex.
    """
    xp = array_namespace(x)
    x = require_real(xp, "x", x)
    shifted = x - xp.max(x, axis=-1, keepdims=True)
    return shifted - xp.log(xp.sum(xp.exp(shifted), axis=-1, keepdims=True))


def cross_entropy(logits: Array, labels: Array, /, *, label_smoothing: float = 0.0) -> Array:
    """Mean negative log-likelihood of the labels under the softmax of the logits, in nats.

    Parameters
    ----------
    logits : array, shape (N, classes)
        float32 or float64.
    labels : array of integers, shape (N,)
        From 0 to classes - 1.
    label_smoothing : float, optional
        Part of the target, in [0, 1), spread evenly over all classes.

    Returns
    -------
    array
        The loss, 0-dimensional.

    Raises
    ------
    TypeError
        If the logits are not real floating, or the arrays are of two libraries.
    ValueError
        If shapes do not fit or the smoothing is out of range.
    """
    return -(log_softmax(logits) * targets(logits, labels, label_smoothing)).sum() / logits.shape[0]


def targets(logits: Array, labels: Array, label_smoothing: float = 0.0) -> Array:
    """Target distribution of each image, (N, classes), in the dtype of the logits."""
    xp = array_namespace(logits, labels)
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise ValueError(f"logits have shape {logits.shape}, labels {labels.shape}; give (N, classes) and (N,)")
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing is {label_smoothing}; it lies in [0, 1)")
    classes = logits.shape[1]
    hit = xp.asarray(labels[:, None] == xp.arange(classes)[None, :])
    return xp.astype(hit, logits.dtype) * (1 - label_smoothing) + label_smoothing / classes
