"""Operators that are right, operators that are wrong, and by how much."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from hcnn_core import convolve, convolve_vjp_x
from tests.core.oracle import NDArray, noise

REAL = ("float32", "float64")


def excess(assertion: Callable[..., None], *arguments: Any, **options: Any) -> float:
    """The error in units of the bound, as the one line of the failure says it."""
    with pytest.raises(AssertionError) as caught:
        assertion(*arguments, **options)
    line = str(caught.value)
    pattern = r": off by (\S+)[^\n]* instead of [^\n]*, where rounding explains (\S+) \([\w .-]+(; noise [^\n]*)?\)\Z"
    found = re.search(pattern, line)
    assert found, line
    return float(found[1]) / float(found[2])


def changed(op: Callable[[Any], Any], *, at: tuple[int, ...], by: float) -> Callable[[Any], Any]:
    """An operator with one element changed."""

    def other(x: Any) -> Any:
        y = np.array(op(x))
        y[at] += by
        return y

    return other


def periodic(w: NDArray) -> tuple[Callable[[NDArray], Any], Callable[[NDArray], Any]]:
    """The convolution of periodic signals with w, and its transpose."""
    return (
        lambda x: convolve(x, w, 0, boundary="periodic"),
        lambda y: convolve_vjp_x(y, y.shape, w, 0, boundary="periodic"),
    )


SHAPE = (2, 8, 8)


FILTER = noise(1, (3, 4), "float64")


def filtered(x: NDArray, **options: Any) -> Any:
    options = {"axes": (1, 2), "boundary": "periodic", **options}
    return convolve(x, FILTER.astype(x.dtype), **options)


def transposed(y: NDArray, **options: Any) -> Any:
    options = {"axes": (1, 2), "boundary": "periodic", **options}
    return convolve_vjp_x(y, SHAPE, FILTER.astype(y.dtype), **options)
