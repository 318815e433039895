"""Training on several processes: what the ranks of an MPI run tell each other.

The images of each batch are split over the ranks. Moments, gradients and losses are summed over them, so that every
rank holds the same weights and takes the steps that one process would take on the whole batch, to rounding.

`join` returns the ranks of the run that this process belongs to. Where no launcher of MPI started it, that is one rank,
and mpi4py is not imported.
"""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np

from autodiff import tree_leaves, tree_map, tree_structure, tree_unflatten
from hcnn_core.backend import Array, array_namespace, nccl_is_available, nccl_sums, to_numpy, use_device
from hcnn_core.shards import Shard
from train.extras import install_command
from train.ranks.watch import Watch, start

__all__ = ["DistributedError", "Ranks", "join", "launched"]

Result = TypeVar("Result")

SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")
"""Variables in which launchers say how many processes they started: Open MPI; MPICH, Intel MPI and Slurm; MVAPICH."""

RANKS = ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "MV2_COMM_WORLD_RANK", "PMIX_RANK")
"""Variables in which they say which of these a process is; the last is set by any launcher with PMIx, such as srun."""


class DistributedError(RuntimeError):
    """Ranks that cannot train together; the message is one line."""


class Ranks:
    """The processes that share each batch; this one is number `rank` of `size`. By default there is one."""

    def __init__(self, comm: Any = None) -> None:
        self.comm = comm
        self.rank, self.size = (0, 1) if comm is None else (int(comm.Get_rank()), int(comm.Get_size()))
        self.host = platform.node()
        self.hosts = self.gather(self.host)
        self.local_rank = self.hosts[: self.rank].count(self.host)
        self.stop = 0  # a signal that this rank has received before a step; after it, one that any rank has
        self.watch: Watch | None = None
        self._watcher: Any = None
        self._on_device: Callable[[Array], Array] | None = None
        self._steps = 0

    @property
    def writes(self) -> bool:
        """Whether this rank writes files and speaks to the user."""
        return self.rank == 0

    @property
    def local_size(self) -> int:
        """Ranks on this host."""
        return self.hosts.count(self.host)

    def share_of(self, count: int) -> slice:
        """Return which of a batch's images are this rank's: contiguous, as many as others have or one less."""
        return slice(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def shard(self, share: float) -> Shard:
        """Return this rank's part of a batch, as moments want it."""
        return Shard(share, self.all_reduce)

    def all_reduce(self, array: Array) -> Array:
        """Return the sum of an array over all ranks, the same bits on each."""
        with self._waiting():
            if self._on_device is not None:
                return self._on_device(array)
            host = np.ascontiguousarray(to_numpy(array))
            total = np.empty_like(host)
            self.comm.Allreduce(host, total)
        xp = array_namespace(array)
        return total if xp is np else xp.asarray(total)

    @contextlib.contextmanager
    def _waiting(self) -> Iterator[None]:
        """Let the watching process know that this rank waits for others; not in the first step, which compiles."""
        if self.watch is None or not self._steps:
            yield
            return
        self.watch.exchanges += 1
        self.watch.waiting = True
        try:
            yield
        finally:
            self.watch.waiting = False

    def part_of(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Return what this rank's step is told of a batch, with its "share" of the batch's images."""
        if self.size == 1:
            return inputs
        count = len(inputs["index"])
        part = self.share_of(count)
        share = (part.stop - part.start) / count
        part = part if share else slice(1)
        mine: dict[str, Any] = tree_map(lambda array: array[part] if array.ndim else array, inputs)
        return mine | {"share": np.asarray(share)}

    def begin_step(self, where: str, received: list[int]) -> None:
        """Say that a step begins, and whether this rank has received a signal to stop."""
        self.stop = received[0] if received else 0
        if self.watch is not None:
            self.watch.at(where)

    def asked_to_stop(self, received: list[int]) -> int:
        """Return the signal that all ranks are to stop for; 0 for none."""
        return self.stop if self.size > 1 else (received or [0])[0]

    def first_to_fail(self, failed: str, unlike: str) -> str:
        """Return what failed first of what ranks say failed, with the rank and its host."""
        everyone = self.gather(failed)
        rank = next((rank for rank, text in enumerate(everyone) if text != unlike), 0)
        return failed if self.size == 1 else f"{everyone[rank]} on rank {rank} ({self.hosts[rank]})"

    def sum_step(self, gradients: Any, loss: Array, correct: Array) -> tuple[Any, Array, Array]:
        """Return gradients, loss and number of images classified right, summed over all ranks in one message.

        The same message tells every rank whether one of them is to stop.
        """
        leaves = tree_leaves(gradients)
        xp, dtype = array_namespace(*leaves), leaves[0].dtype
        last = xp.stack([xp.astype(loss, dtype), xp.astype(correct, dtype), xp.asarray(bool(self.stop), dtype=dtype)])
        total = self.all_reduce(xp.concat([*(xp.reshape(leaf, (-1,)) for leaf in leaves), last]))
        found, begin = [], 0
        for leaf in leaves:
            found.append(xp.reshape(total[begin : begin + leaf.size], leaf.shape))
            begin += leaf.size
        self._steps += 1
        with self._waiting():  # a GPU still sums here
            asked = float(total[-1])
        if asked:
            self.stop = max(self.gather(self.stop))
        return tree_unflatten(tree_structure(gradients), found), total[-3], xp.astype(total[-2], correct.dtype)

    def gather(self, value: Result) -> list[Result]:
        """Return what each rank gives, in the order of ranks."""
        return [value] if self.comm is None else list(self.comm.allgather(value))

    def from_first(self, make: Callable[[], Result]) -> Result:
        """Return what rank 0 makes; an error there is raised on every rank."""
        if self.comm is None:
            return make()
        error: BaseException | None = None
        value: Any = None
        if self.rank == 0:
            try:
                value = make()
            except Exception as raised:
                error = raised
        value, error = self.comm.bcast((value, error))
        if error is not None:
            raise self.agreed(error)
        return value

    def agree(self, action: Callable[[], Result]) -> Result:
        """Return what an action returns; an error on any rank is raised on all, that of the lowest rank.

        Where it is not an error of all ranks, its message names the one.
        """
        if self.comm is None:
            return action()
        error: BaseException | None = None
        value: Any = None
        try:
            value = action()
        except Exception as raised:
            error = raised
        errors = self.gather(error)
        for rank, first in enumerate(errors):
            if first is not None:
                if None in errors:
                    first.args = (f"{first} (rank {rank} on {self.hosts[rank]})", *first.args[1:])
                raise self.agreed(first)
        return value

    @staticmethod
    def agreed(error: BaseException) -> BaseException:
        """Mark an error as one that every rank raises, so that rank 0 alone speaks of it."""
        error.agreed = True  # type: ignore[attr-defined]
        return error

    def require_same(self, properties: Mapping[str, Any]) -> None:
        """Raise DistributedError, on every rank, if ranks differ in what must be the same."""
        everyone = self.gather(dict(properties))
        for rank, other in enumerate(everyone):
            for name in sorted(everyone[0].keys() | other.keys()):
                mine, theirs = (d.get(name, "none") for d in (everyone[0], other))
                if mine != theirs:
                    raise self.agreed(
                        DistributedError(
                            f"ranks differ in {name}: {mine} on rank 0 ({self.hosts[0]}), {theirs} on rank {rank} "
                            f"({self.hosts[rank]}); start all with the same command, packages and data"
                        )
                    )

    def require_same_bits(self, tree: Any, what: str) -> None:
        """Raise DistributedError, on every rank, unless arrays are the same on all, bit for bit."""
        if self.size > 1:
            found = [zlib.crc32(np.ascontiguousarray(to_numpy(leaf)).tobytes()) for leaf in tree_leaves(tree)]
            self.require_same({what: zlib.crc32(repr(found).encode())})

    def be_watched(self, module: str) -> None:
        """Let a process on rank 0's host end the run, with one line, when a rank dies or hangs.

        Where a rank cannot reach that host, one line on standard error says so, and the run is not watched.
        """
        if self.size == 1:
            return

        def begin() -> Any:
            patience = os.environ.get("HCNN_PATIENCE", "1")
            if not patience.replace(".", "", 1).isdecimal() or not float(patience) > 0:
                raise DistributedError(f"HCNN_PATIENCE is {patience!r}; give seconds, more than 0")
            self._watcher, *reached_by = start(module, len(set(self.hosts)) == 1)
            return reached_by

        address, key = self.from_first(begin)
        refused = ""
        try:
            self.watch = Watch(address, key, self.rank, module)
        except OSError as error:
            refused = f"rank {self.rank} on {self.host} cannot reach {address[0]}, port {address[1]} ({error})"
        found = [text for text in self.gather(refused) if text]
        if found:
            self.leave()
            if self.writes:
                print(f"{module}: ranks that hang will not be noticed: {found[0]}", file=sys.stderr)

    def leave(self) -> None:
        """End being watched: this rank ends well, or with an error that all ranks know."""
        if self.watch is not None:
            self.watch.close()
            self.watch = None
        if self._watcher is not None:
            self._watcher.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._watcher.wait(5)
            self._watcher.stdout.close()
            self._watcher = None

    def fail(self, text: str, status: int) -> None:
        """End every rank for an error that only this one knows."""
        if self.watch is not None:
            self.watch.fail(text, status)
        print(f"rank {self.rank} on {self.host}: {text}", file=sys.stderr, flush=True)  # nobody else is there to say it
        self.comm.Abort(status)

    def use_devices(self, xp: Any) -> None:
        """Give each rank of a host a GPU of its own, and sum by NCCL where there are enough."""
        if xp is np or self.comm is None:
            return
        everyone = self.gather((self.host, use_device(self.local_rank), nccl_is_available()))
        if len({(host, device) for host, device, _ in everyone}) == self.size and all(nccl for *_, nccl in everyone):
            self._on_device = nccl_sums(self.rank, self.size, self.comm.bcast)


def launch_rank() -> int:
    """Return this process's rank as its launcher says; 0 where none says so."""
    return next((int(os.environ[name]) for name in RANKS if os.environ.get(name, "").isdecimal()), 0)


def launched() -> int:
    """Return how many processes a launcher of MPI says it started; 0 where there is none, or one."""
    for name in SIZES:
        if os.environ.get(name, "").isdecimal():
            return int(os.environ[name]) if os.environ[name] != "1" else 0
    return 2 if any(name in os.environ for name in RANKS) else 0


def join() -> Ranks:
    """Return the ranks of the run that this process belongs to."""
    count = launched()
    if not count:
        return Ranks()
    try:
        import mpi4py

        mpi4py.rc.thread_level = "serialized"
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise DistributedError(
            f"a launcher of MPI started this process, but MPI cannot be used ({' '.join(str(error).split())}): "
            f"{install_command('mpi')}, besides an MPI, or start one process without the launcher"
        ) from error
    comm = MPI.COMM_WORLD
    said = next((name for name in SIZES if name in os.environ), "")
    if said and comm.Get_size() != count:
        library = MPI.Get_library_version().split(",")[0].split("\n")[0].strip()
        raise DistributedError(
            f"the launcher started {count} processes, but mpi4py uses {library}, which sees {comm.Get_size()}: "
            "start them with the mpirun of that MPI"
        )
    return Ranks(comm if comm.Get_size() > 1 else None)


def share_processors(ranks: Ranks) -> None:
    """Set HCNN_NUM_THREADS, unless the user has set it, to this rank's share of the processors it may use."""
    if {"HCNN_NUM_THREADS", "OMP_NUM_THREADS"} & set(os.environ):
        return
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    everyone = ranks.gather((ranks.host, frozenset(allowed)))
    sharing = sum(host == ranks.host and bool(allowed & theirs) for host, theirs in everyone)
    os.environ["HCNN_NUM_THREADS"] = str(max(1, len(allowed) // sharing))
