"""Principal components, and vectors whitened by them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from hcnn_core.backend import array_namespace
from hcnn_core.typing import NumpyArray

__all__ = ["Principal", "principal_components"]


class Principal(NamedTuple):
    """The principal components of vectors of d numbers, in ascending order of their variance.

    Parameters
    ----------
    mean : numpy.ndarray, shape (d,)
        Of the vectors.
    whiten : numpy.ndarray, shape (d, components)
        ``(x - mean) @ whiten`` has uncorrelated components of variance 1.
    unwhiten : numpy.ndarray, shape (components, d)
        Its right inverse; ``z @ unwhiten + mean`` is the nearest vector that has these components.
    """

    mean: NumpyArray[Any]
    whiten: NumpyArray[Any]
    unwhiten: NumpyArray[Any]


def principal_components(x: NumpyArray[Any], components: int) -> Principal:
    """Return the components of most variance.

    Parameters
    ----------
    x : numpy.ndarray, shape (N, d)
        Vectors, float32 or float64.
    components : int
        How many, at least 1 and at most the rank of their covariance.

    Returns
    -------
    Principal
        Their mean, and the maps to and from whitened components, of the dtype of x.

    Raises
    ------
    TypeError
        If x is not of dtype float32 or float64.
    ValueError
        If x has other axes, or its covariance a lower rank than `components`.
    """
    array_namespace(x)  # refuses masks
    if x.dtype not in (np.float32, np.float64):
        raise TypeError(f"x has dtype {x.dtype}; give float32 or float64")
    if x.ndim != 2 or len(x) < 2 or not x.shape[1]:
        raise ValueError(f"x has shape {x.shape}; give at least two vectors, (N, d)")
    size = float(np.abs(x).max()) or 1.0  # whose square might overflow or vanish
    scaled = np.divide(x, size, dtype=np.float64)
    values, vectors = np.linalg.eigh(np.cov(scaled, rowvar=False).reshape(x.shape[1], x.shape[1]))
    rank = int(np.sum(values > np.finfo(x.dtype).eps * x.shape[1] * values[-1]))
    if not 1 <= components <= rank:
        raise ValueError(f"components is {components}; the covariance of x has rank {rank}: give 1 to {rank}")
    deviations, vectors = size * np.sqrt(values[-components:]), vectors[:, -components:]
    mean = x.mean(0, dtype=np.float64)  # NumPy adds rows up one by one, which takes digits in single precision
    return Principal(*(a.astype(x.dtype) for a in (mean, vectors / deviations, (vectors * deviations).T)))
