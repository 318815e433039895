"""Weighted sums of many arrays at once: a step of gradient descent, running averages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from hcnn_core._engines import planner
from hcnn_core.backend import Array, array_namespace

__all__ = ["Term", "weighted_sums"]


class Term(NamedTuple):
    """``(weight + rate * scalar) * array``, where there is a scalar, else ``weight * array``.

    Parameters
    ----------
    array : array
        float32 or float64.
    weight : float
        Its weight, or the constant part of it.
    rate : float, optional
        The factor of the scalar.
    scalar : array, optional
        A number that is known on the device alone: an array without axes, of the dtype of `array`.
    """

    array: Array
    weight: float
    rate: float = 0.0
    scalar: Array | None = None


def weighted_sums(sums: Sequence[Sequence[Term]], /, *, out: Sequence[Array] | None = None, where: Any = True) -> Any:
    """Return a sum of terms for each of several results.

    Parameters
    ----------
    sums : sequence of sequence of Term
        The terms of each result, one to three, all of one shape; all arrays of one dtype and library.
    out : sequence of array, optional
        Arrays that results are written to, one for each sum and of its terms' shapes; new arrays if not given. One may
        be a term of its own sum, but of no other.
    where : bool or array without axes, optional
        Whether `out` is changed at all.

    Returns
    -------
    list of array
        A result for each sum. For CuPy, one kernel computes up to 32 of them.

    Raises
    ------
    ValueError
        If a sum has no term or more than three, its terms, or `out`, differ in shape, or `out` has another length.
    """
    if out is not None and len(out) != len(sums):
        raise ValueError(f"out has {len(out)} arrays for {len(sums)} sums; give one for each")
    for number, terms in enumerate(sums):
        shapes = {term.array.shape for term in terms} | ({out[number].shape} if out else set())
        if not 1 <= len(terms) <= planner.MOST_TERMS or len(shapes) != 1:
            raise ValueError(
                f"sum {number} has {len(terms)} terms, with its result of shapes {sorted(shapes)}; "
                f"give one to {planner.MOST_TERMS} of one shape"
            )
    if not sums:
        return []
    xp = array_namespace(*(term.array for terms in sums for term in terms))
    return planner.weighted_sums(sums[0][0].array)(xp, sums, out, where)
