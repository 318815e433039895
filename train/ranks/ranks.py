"""Training on several processes: each rank's part of a batch, and a step's sums over ranks.

The images of each batch are split over the ranks. Moments, gradients and losses are summed over them, so that every
rank holds the same weights and takes the steps that one process would take on the whole batch, to rounding.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from autodiff import tree_leaves, tree_map, tree_structure, tree_unflatten
from hcnn_core.backend import Array, array_namespace, to_numpy
from hcnn_core.shards import Shard
from train.ranks.agreement import Agreement, source_checksum
from train.ranks.communicator import world
from train.ranks.watch import Watch


class Ranks(Agreement):
    """The processes that share each batch; this one is number `rank` of `size`. By default there is one."""

    def __init__(self, comm: Any = None) -> None:
        super().__init__(comm)
        self.stop = 0  # a signal that this rank has received before a step; after it, one that any rank has
        self.watch = Watch(self)

    def shard(self, share: float) -> Shard:
        """Return this rank's part of a batch as a `Shard`, for moments."""
        return Shard(share, self.all_reduce)

    def part_of(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Return the inputs of this rank's step, with its "share" of the batch's images."""
        if self.size == 1:
            return inputs
        count = len(inputs["index"])
        # contiguous, as many as others have or one less
        part = slice(self.rank * count // self.size, (self.rank + 1) * count // self.size)
        share = (part.stop - part.start) / count
        part = part if share else slice(1)
        mine: dict[str, Any] = tree_map(lambda array: array[part] if array.ndim else array, inputs)
        return mine | {"share": np.asarray(share)}

    def begin_step(self, where: str, received: list[int]) -> None:
        """Say that a step begins, and whether this rank has received a signal to stop."""
        self.stop = received[0] if received else 0
        self.watch.at(where)

    def sum_step(
        self, gradients: Any, loss: Array, numbers: Mapping[str, Array], share: float, metrics: Mapping[str, Any]
    ) -> tuple[Any, Array, dict[str, Any]]:
        """Return gradients and loss summed over all ranks, and numbers merged as metrics say, in one message.

        The same message tells every rank whether one of them is to stop. A rank that has no share has no numbers.
        """
        leaves = tree_leaves(gradients)
        xp, dtype = array_namespace(*leaves), leaves[0].dtype
        terms = [xp.astype(value, dtype) for value in numbers.values()] + [xp.asarray(bool(share), dtype=dtype)]
        nothing = [xp.zeros((), dtype=dtype)] * len(terms)
        by_rank = [value for rank in range(self.size) for value in (terms if rank == self.rank else nothing)]
        last = xp.stack([xp.astype(loss, dtype), *by_rank, xp.asarray(bool(self.stop), dtype=dtype)])
        total = self.all_reduce(xp.concat([*(xp.reshape(leaf, (-1,)) for leaf in leaves), last]))
        summed, begin = [], 0
        for leaf in leaves:
            summed.append(xp.reshape(total[begin : begin + leaf.size], leaf.shape))
            begin += leaf.size
        self.counting = True
        with self.exchange():  # a GPU still sums here
            asked = float(total[-1])
        if asked:
            self.stop = max(self.gather(self.stop))
        values = to_numpy(total[begin + 1 : -1]).tolist()
        rows = [row for rank in range(self.size) if (row := values[rank * len(terms) : (rank + 1) * len(terms)])[-1]]
        merged = {
            name: functools.reduce(metrics[name].merge, column)
            for name, column in zip(numbers, zip(*rows, strict=True), strict=False)
        }
        return tree_unflatten(tree_structure(gradients), summed), total[begin], merged

    def asked_to_stop(self, received: list[int]) -> int:
        """Return the signal that all ranks are to stop for; 0 for none."""
        return self.stop if self.size > 1 else (received or [0])[0]

    def be_watched(self, module: str) -> None:
        """Let a process on rank 0's host end the run, with one line, when a rank dies or hangs."""
        if self.size > 1:
            self.watch.begin(module)

    def leave(self) -> None:
        """End being watched: this rank ends well, or with an error that all ranks know."""
        self.watch.end()

    def fail(self, text: str, status: int) -> None:
        """End every rank for an error that only this one knows."""
        self.watch.fail(text, status)
        print(f"rank {self.rank} on {self.host}: {text}", file=sys.stderr, flush=True)  # nobody else is there to say it
        self.comm.Abort(status)


def join() -> Ranks:
    """Return the ranks of the run that this process belongs to; DistributedError if they run different code."""
    ranks = Ranks(world())
    if ranks.size > 1:  # before anything that another version may exchange in another order
        ranks.require_same({"the code of hcnn": source_checksum()})
    return ranks


def share_processors(ranks: Ranks) -> None:
    """Set HCNN_NUM_THREADS, unless the user has set it, to this rank's share of the processors it may use."""
    if {"HCNN_NUM_THREADS", "OMP_NUM_THREADS"} & set(os.environ):
        return
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    everyone = ranks.gather((ranks.host, frozenset(allowed)))
    sharing = sum(host == ranks.host and bool(allowed & processors) for host, processors in everyone)
    os.environ["HCNN_NUM_THREADS"] = str(max(1, len(allowed) // sharing))
