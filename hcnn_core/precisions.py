"""How exactly a GPU multiplies in float32 convolutions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["precision"]

PASSES = {"float32": 0, "tf32x3": 3, "tf32": 1}
"""Products of TensorFloat-32 that make up one, 0 where none are used."""

PRECISIONS = tuple(PASSES)

_chosen = ContextVar("precision", default="float32")


@contextmanager
def precision(name: str) -> Iterator[None]:
    """Choose what products of float32 convolutions on a GPU may be, within a ``with`` block.

    Convolutions of CuPy's float32 arrays and their adjoints multiply filters with samples, or with spectra, on tensor
    cores if asked to; the DFTs, and all else, stay in float32. NumPy arrays, and other dtypes, are not affected.

    Parameters
    ----------
    name : {"float32", "tf32x3", "tf32"}
        ``"float32"``, the default, is float32. ``"tf32"`` rounds operands to TensorFloat-32, ten bits after the point,
        and sums in float32. ``"tf32x3"`` splits each operand into two of these, for three products whose errors are
        about those of float32; infinite operands make NaN.

    Yields
    ------
    None
        What was chosen before holds again afterwards.

    Raises
    ------
    ValueError
        If the name is another.

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
    """Products of TensorFloat-32 for one of a dtype's; 0 for none."""
    return PASSES[_chosen.get()] if dtype == "float32" else 0
