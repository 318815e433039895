"""Batches that several processes share: each has a shard, and moments are those of the whole batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from hcnn_core.backend import array_namespace

__all__ = ["Shard"]


class Shard(NamedTuple):
    """The part of a batch that this process has; other processes have the rest.

    All processes call the same functions in the same order, each with its own shard.

    Parameters
    ----------
    share : float
        Fraction of the batch's samples that this process has, from 0 to 1. All shares add up to 1. A shard of share 0
        takes part in every sum and changes none, if its data are finite.
    all_reduce : callable
        Takes an array of float64 and returns its sum over all processes, which is the same on each.
    """

    share: float
    all_reduce: Callable[[Any], Any]

    def mean(self, *arrays: Any) -> Any:
        """Return means over the whole batch from means over each shard, in one message.

        Parameters
        ----------
        *arrays : array, shape (T,) or (rows, T)
            Means over this shard; converted to float64.

        Returns
        -------
        array, shape (rows, T)
            Their rows, one below the other, in float64.
        """
        return self.all_reduce(self.share * _rows(*arrays))

    def sum(self, *arrays: Any) -> Any:
        """Return sums over all processes, in one message, as `mean` returns means."""
        return self.all_reduce(_rows(*arrays))


def _rows(*arrays: Any) -> Any:
    """Return the arrays, as matrices of float64, one below the other."""
    xp = array_namespace(*arrays)
    rows = [xp.astype(xp.reshape(a, (-1, a.shape[-1])), xp.float64) for a in arrays]
    return xp.concat(rows, axis=0)
