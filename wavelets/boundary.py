"""How complex the boundary between classes is, as labelled vectors see it."""

from __future__ import annotations

from typing import Any

import numpy as np

from hcnn_core.typing import NumpyArray
from wavelets.transform import plain

__all__ = ["local_support_vectors"]


def local_support_vectors(x: NumpyArray[Any], labels: NumpyArray[Any], neighbours: int) -> NumpyArray[Any]:
    """Return which vectors most of their nearest neighbours do not share a class with.

    E. Oyallon, Building a Regular Decision Boundary with Deep Networks, arXiv:1703.01775: a vector is a
    k-local support vector if more than half of its k nearest neighbours are of other classes. The fewer there are, the
    simpler the boundary is.

    Parameters
    ----------
    x : numpy.ndarray, shape (N, ...)
        Real; distances are Euclidean. Those below 1e-8 of the largest may be rounding.
    labels : numpy.ndarray of int, shape (N,)
        Their classes.
    neighbours : int
        The largest k, at least 1 and below N.

    Returns
    -------
    numpy.ndarray of bool, shape (N, neighbours)
        For k = 1, 2, ..., `neighbours`.

    Raises
    ------
    TypeError
        If x is complex.
    ValueError
        If the shapes do not match, `neighbours` is out of range, or x is not finite.
    """
    x = plain(x)
    if np.iscomplexobj(x):
        raise TypeError(f"x has dtype {x.dtype}; give a real array")
    count = len(x)
    if np.shape(labels) != (count,):
        raise ValueError(f"x has shape {x.shape} and labels {np.shape(labels)}; expected (N, ...) and (N,)")
    if not 1 <= neighbours < count:
        raise ValueError(f"neighbours is {neighbours}; it must be from 1 to {count - 1}, the number of other vectors")
    flat = np.reshape(x, (count, -1)).astype(np.float64)
    if not np.isfinite(flat).all():
        raise ValueError("x is not finite everywhere, and has no distances")
    flat = flat / (np.abs(flat).max() or 1)  # so that no square is too large or too small
    flat -= flat.mean(0)  # or squares of what all have in common take the digits
    norms = (flat**2).sum(1)
    distances = norms[:, None] + norms - 2 * flat @ flat.T
    np.fill_diagonal(distances, np.inf)
    nearest = np.argsort(distances, axis=1, kind="stable")[:, :neighbours]
    others = np.cumsum(labels[nearest] != np.asarray(labels)[:, None], axis=1)
    return np.asarray(2 * others > np.arange(1, neighbours + 1))
