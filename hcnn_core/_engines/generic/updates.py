"""Weighted sums of arrays, one after the other, in any namespace."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hcnn_core.backend import Array


def weighted_sums(xp: Any, sums: Sequence[Sequence[Any]], out: Sequence[Array] | None, where: Any) -> list[Array]:
    """Sum terms (array, weight, rate, scalar) for each result, written to `out` where the condition holds."""
    results = []
    for number, terms in enumerate(sums):
        addends = [
            array if (w, scalar) == (1, None) else _weight(w, rate, scalar) * array for array, w, rate, scalar in terms
        ]
        total = sum(addends[1:], start=addends[0])
        if out is None and total is terms[0][0]:
            total = xp.asarray(total, copy=True)
        if out is not None:
            held: Any = out[number]
            np.copyto(held, total, where=where)
            total = held
        results.append(total)
    return results


def _weight(weight: float, rate: float, scalar: Array | None) -> Any:
    """Return the factor of a term: weight + rate * scalar, without operations that change nothing."""
    weight, rate = float(weight), float(rate)  # NumPy's numbers would make float32 float64
    if scalar is None:
        return weight
    product = scalar if rate == 1 else rate * scalar
    return weight + product if weight else product
