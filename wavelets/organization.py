"""Orders for the rows and columns of a matrix that come in none (R. R. Coifman, M. Gavish, 2011)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from hcnn_core.typing import NumpyArray
from wavelets.transform import plain

__all__ = ["organize"]


def organize(matrix: NumpyArray[Any], *, passes: int = 3) -> tuple[NumpyArray[Any], NumpyArray[Any]]:
    """Order the rows and the columns of a matrix so that neighbours are alike, each with the help of the other.

    It is the questionnaire of R. R. Coifman and M. Gavish, Harmonic analysis of digital data bases, 2011: who answers
    alike is put side by side, and so are questions that are answered alike. An order stands for a binary tree, whose
    folders are its halves, their halves and so on. The distance of two rows is that of their means over the folders of
    columns, all levels of the tree together; rows are then ordered by the second eigenvector of their affinities, and
    each half again by itself. Rows and columns take turns. The first distances are of the entries alone, so the order
    that the matrix comes in decides directions only, if the counts are powers of 2, whose halves are the same from
    both ends.

    Parameters
    ----------
    matrix : numpy.ndarray, shape (R, C)
        Real and finite; at least 2 rows and 2 columns.
    passes : int, optional
        How often rows and columns are ordered.

    Returns
    -------
    rows, columns : numpy.ndarray of int, shapes (R,) and (C,)
        ``matrix[rows][:, columns]`` is organised. An order and its reversal say the same.

    Raises
    ------
    ValueError
        If the matrix is not of this kind, or `passes` is below 1.
    """
    matrix = plain(matrix)
    if matrix.ndim != 2 or min(matrix.shape) < 2 or matrix.dtype.kind not in "fiub" or not np.isfinite(matrix).all():
        raise ValueError(
            f"matrix has shape {matrix.shape} and dtype {matrix.dtype}; give a finite real one with 2 rows and columns"
        )
    if passes < 1:
        raise ValueError(f"passes is {passes}; it must be at least 1")
    matrix = matrix.astype(np.float64)
    matrix /= np.abs(matrix).max() or 1  # so that no square is too large or too small
    rows = _order(matrix)
    columns = _order(_over_folders(matrix[rows].T))
    for _ in range(passes - 1):
        rows = _order(_over_folders(matrix[:, columns]))
        columns = _order(_over_folders(matrix[rows].T))
    return rows, columns


def _over_folders(vectors: NumpyArray[np.float64]) -> NumpyArray[np.float64]:
    """Means over the folders of all levels, whose squared distances add up to a mean over folders for each level."""
    count = vectors.shape[1]
    levels = []
    for level in range(math.ceil(math.log2(count)) + 1):
        folders = min(2**level, count)
        begins = [part[0] for part in np.array_split(np.arange(count), folders)]
        sizes = np.diff([*begins, count])
        levels.append(np.add.reduceat(vectors, begins, axis=1) / sizes / math.sqrt(folders))
    return np.concatenate(levels, axis=1)


def _order(vectors: NumpyArray[np.float64]) -> NumpyArray[Any]:
    """Return an order of vectors in which neighbours are near each other."""
    from scipy.spatial.distance import cdist  # slow to import, and training does without

    distances = cdist(vectors, vectors, "sqeuclidean")
    scale = np.median(distances[~np.eye(len(vectors), dtype=bool)]) or 1.0
    return _halved(np.exp(-distances / scale), np.arange(len(vectors)))


def _halved(affinity: NumpyArray[np.float64], members: NumpyArray[Any]) -> NumpyArray[Any]:
    """Members by the second eigenvector of their affinities, and each half of them again, in the direction given."""
    if len(members) < 3:
        return members
    near = affinity[np.ix_(members, members)]
    root = np.sqrt(near.sum(1))
    second = np.linalg.eigh(near / np.outer(root, root))[1][:, -2] / root
    if second @ (np.arange(len(members)) - (len(members) - 1) / 2) < 0:
        second = -second
    members = members[np.argsort(second, kind="stable")]
    half = (len(members) + 1) // 2
    return np.concatenate([_halved(affinity, members[:half]), _halved(affinity, members[half:])])
