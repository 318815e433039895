"""Precision of the products in float32 convolutions on a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["precision"]

PRECISIONS = "float32", "tf32"

WITHDRAWN = {"tf32x3": "three products of TensorFloat-32 were withdrawn: by count they took longer than 'float32'"}
"""Names that older runs may have, and why they are refused."""

_chosen = ContextVar("precision", default="float32")


@contextmanager
def precision(name: str) -> Iterator[None]:
    """Choose the precision of products in float32 convolutions on a GPU, within a ``with`` block.

    With "tf32", convolutions of float32 CuPy arrays and their adjoints use tensor cores where that promises
    to be faster: one channel with filters along attributes, or summed channels. Everything else stays in float32. NumPy
    arrays and other dtypes are not affected.

    Parameters
    ----------
    name : {"float32", "tf32"}
        ``"float32"`` is the default. ``"tf32"`` rounds operands to TensorFloat-32, which has ten fraction bits, and
        sums in float32; an infinite operand then gives NaN also in results that do not read it.

    Yields
    ------
    None
        Nothing. The previous precision holds again after the block.

    Raises
    ------
    ValueError
        If the name is neither.

    Examples
    --------
    >>> with precision("tf32"):
    ...     y = convolve(x, w, (1, 2), boundary="zero")  # doctest: +SKIP
    """
    if name not in PRECISIONS:
        reason = f" ({WITHDRAWN[name]})" if name in WITHDRAWN else ""
        raise ValueError(f"precision is {name!r}{reason}; choose {' or '.join(map(repr, PRECISIONS))}")
    before = _chosen.set(name)
    try:
        yield
    finally:
        _chosen.reset(before)


def uses_tf32(dtype: str) -> bool:
    """Return whether products of arrays of this dtype may be made by tensor cores."""
    return dtype == "float32" and _chosen.get() == "tf32"
