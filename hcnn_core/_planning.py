"""Whether estimates or measurements choose how a convolution is computed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import TypeAlias

from hcnn_core._environment import is_on, require_valid, value

PLANNINGS = ("estimate", "measure")


class Book:
    """What a block's file says, once it is read; another block of the same file reads it again."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.known: dict[str, dict[str, float]] | None = None


Planning: TypeAlias = str | Book

_chosen: ContextVar[Planning | None] = ContextVar("planning", default=None)


@contextmanager
def planning(name: str, *, file: str | os.PathLike[str] | None = None) -> Iterator[None]:
    """Choose how `method="auto"` chooses, within a ``with`` block.

    With "measure", the first call of a convolution runs each way to compute it that a cost model does not find far too
    slow, on the arrays of the call, and keeps the fastest: for its result, and for its derivatives when they are first
    asked for. The estimate's way is left only for one that is faster by more than the noise of its runs. That takes a
    second or two, or some ten calls of what takes longer, and what was never compiled is compiled. The process keeps to
    what it found, and so do later ones on this machine, by a text file in the user's cache folder (`wisdom`).

    Parameters
    ----------
    name : {"estimate", "measure"}
        ``"estimate"`` is the default, unless the environment variable ``HCNN_PLANNING`` says ``measure``. The model
        decides, and it decides alike in every process.
    file : str or path, optional
        With "measure": a text file that keeps what the block chooses. A later block chooses what the file says, in any
        process and on any machine, so that bits repeat. What it does not say is looked up or measured, and added;
        several processes may do so at once.

    Yields
    ------
    None
        Nothing. What was chosen before holds again after the block.

    Raises
    ------
    ValueError
        If the name is neither of the two, or if a file is given for "estimate". Of a call within the block, if it
        chooses and the file holds anything else, or was written by a later version, or is damaged: it stays as it is.
    OSError
        Of a call within the block, if it chooses and the file is no regular file, or cannot be read or written.

    See Also
    --------
    convolve : Its ``method="measure"`` measures one call's convolution.
    wisdom : What was measured.
    explain : The choices of one convolution.

    Notes
    -----
    Values differ by rounding errors at most. With ``HCNN_DETERMINISTIC=1`` in the environment estimates decide
    everywhere, so that bits repeat from run to run.

    The block holds for its thread and its task. Threads that PyTorch or JAX start for themselves, as PyTorch does for
    gradients on a GPU, are outside: there ``method="measure"`` or ``HCNN_PLANNING`` reaches them.

    Examples
    --------
    >>> import numpy as np
    >>> from hcnn_core import convolve
    >>> with planning("estimate"):
    ...     y = convolve(np.ones(4), np.ones(3), 0, boundary="zero")
    """
    if name not in PLANNINGS:
        raise ValueError(f"planning is {name!r}; choose {' or '.join(map(repr, PLANNINGS))}")
    if file is not None and name != "measure":
        raise ValueError(f"file keeps what planning('measure') chooses; planning is {name!r}")
    before = _chosen.set(name if file is None else Book(os.path.abspath(os.path.expanduser(file))))
    try:
        yield
    finally:
        _chosen.reset(before)


def current_planning() -> Planning:
    """The planning that applies here."""
    return _chosen.get() or _default()


@lru_cache(maxsize=1)
def _default() -> str:
    require_valid()
    return value("HCNN_PLANNING")


@lru_cache(maxsize=1)
def is_deterministic() -> bool:
    """Whether HCNN_DETERMINISTIC asks for the same bits in every run."""
    return is_on("HCNN_DETERMINISTIC")
