"""Precision of the products in float32 convolutions on a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["precision"]

PASSES = {"float32": 0, "tf32x3": 3, "tf32": 1}
"""Number of TensorFloat-32 products per float32 product; 0 means plain float32."""

PRECISIONS = tuple(PASSES)

_chosen = ContextVar("precision", default="float32")


@contextmanager
def precision(name: str) -> Iterator[None]:
    """Choose the precision of products in float32 convolutions on a GPU, within a ``with`` block.

    With "tf32" or "tf32x3", convolutions of float32 CuPy arrays and their adjoints use tensor cores where that promises
    to be faster: one channel with filters along attributes, or summed channels. Everything else stays in float32. NumPy
    arrays and other dtypes are not affected.

    Parameters
    ----------
    name : {"float32", "tf32x3", "tf32"}
        ``"float32"`` is the default. ``"tf32"`` rounds operands to TensorFloat-32, which has ten fraction bits, and
        sums in float32. ``"tf32x3"`` splits each operand into two TensorFloat-32 numbers and takes three products. Its
        errors are about those of float32. In both, an infinite operand gives NaN also in results that do not read it.

    Yields
    ------
    None
        Nothing. The previous precision holds again after the block.

    Raises
    ------
    ValueError
        If the name is none of the three.

    Examples
    --------
    >>> with precision("tf32x3"):
    ...     y = convolve(x, w, (1, 2), boundary="zero")  # doctest: +SKIP
    """
    if name not in PASSES:
        raise ValueError(f"precision is {name!r}; choose {' or '.join(map(repr, PASSES))}")
    before = _chosen.set(name)
    try:
        yield
    finally:
        _chosen.reset(before)


def passes(dtype: str) -> int:
    """Return the number of TensorFloat-32 products per product of this dtype; 0 means none are used."""
    return PASSES[_chosen.get()] if dtype == "float32" else 0
