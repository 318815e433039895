"""Ranks that are threads of this process: what mpi4py's communicator does, without MPI."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from train.ranks.ranks import Ranks


class Communicator:
    """One rank's communicator: sums are taken in the order of ranks.

    With a lock, one rank at a time computes, and lets the others while it waits.
    """

    def __init__(
        self, rank: int, size: int, board: list[Any], barrier: threading.Barrier, lock: threading.Lock | None
    ) -> None:
        self.rank, self.size, self.board, self.barrier, self.lock = rank, size, board, barrier, lock
        self.messages: list[int] = []

    def wait(self) -> None:
        if self.lock:
            self.lock.release()
        try:
            self.barrier.wait(60)
        finally:
            if self.lock:
                self.lock.acquire()

    def Get_rank(self) -> int:
        return self.rank

    def Get_size(self) -> int:
        return self.size

    def allgather(self, value: Any) -> list[Any]:
        self.board[self.rank] = value
        self.wait()
        found = list(self.board)
        self.wait()
        return found

    def bcast(self, value: Any) -> Any:
        return self.allgather(value)[0]

    def Allreduce(self, array: Any, total: Any) -> None:
        self.messages.append(array.nbytes)
        total[...] = sum(self.allgather(array))


def on_ranks(size: int, work: Callable[[Ranks], Any], *, in_turn: bool = False) -> list[Any]:
    """What a function returns on each of several ranks; the first error that is not of a broken barrier is raised."""
    board: list[Any] = [None] * size
    barrier, lock = threading.Barrier(size), threading.Lock() if in_turn else None

    def run(rank: int) -> Any:
        try:
            with np.errstate(all="ignore"), lock or contextlib.nullcontext():
                return work(Ranks(Communicator(rank, size, board, barrier, lock)))
        except BaseException:
            barrier.abort()
            raise

    with ThreadPoolExecutor(size) as pool:
        futures = [pool.submit(run, rank) for rank in range(size)]
    errors = [error for f in futures if (error := f.exception()) is not None]
    errors.sort(key=lambda e: isinstance(e, threading.BrokenBarrierError))
    if errors:
        raise errors[0]
    return [f.result() for f in futures]
