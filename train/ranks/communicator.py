"""Messages among the ranks of a run. The only file that imports mpi4py.

`world` returns the communicator of the run that this process belongs to. Where no launcher of MPI started it, there is
none, and mpi4py is not imported.
"""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np

from hcnn_core.backend import Array, array_namespace, nccl_is_available, nccl_sums, to_numpy, use_device
from train.extras import install_command

Value = TypeVar("Value")

SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")
"""Variables in which launchers say how many processes they started: Open MPI; MPICH, Intel MPI and Slurm; MVAPICH."""

RANKS = ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "MV2_COMM_WORLD_RANK", "PMIX_RANK")
"""Variables in which they say which of these a process is; the last is set by any launcher with PMIx, such as srun."""


class DistributedError(RuntimeError):
    """Ranks that cannot train together; the message is one line."""


class Communicator:
    """Messages among `size` ranks; this process is number `rank`. Without mpi4py's communicator there is one rank."""

    def __init__(self, comm: Any = None) -> None:
        self.comm = comm
        self.rank, self.size = (0, 1) if comm is None else (int(comm.Get_rank()), int(comm.Get_size()))
        self.host = platform.node()
        self.hosts = self.gather(self.host)
        self.local_rank = self.hosts[: self.rank].count(self.host)
        self.counting = False  # exchanges, once the first step, which compiles, is over
        self.exchanges = 0
        self.waiting = False  # in an exchange that is counted
        self._on_device: Callable[[Array], Array] | None = None

    @property
    def writes(self) -> bool:
        """Whether this rank writes files and prints."""
        return self.rank == 0

    @property
    def local_size(self) -> int:
        """Ranks on this host."""
        return self.hosts.count(self.host)

    def gather(self, value: Value) -> list[Value]:
        """Return every rank's value, in the order of ranks."""
        return [value] if self.comm is None else list(self.comm.allgather(value))

    def all_reduce(self, array: Array) -> Array:
        """Return the sum of an array over all ranks, the same bits on each."""
        with self.exchange():
            if self._on_device is not None:
                return self._on_device(array)
            host = np.ascontiguousarray(to_numpy(array))
            total = np.empty_like(host)
            self.comm.Allreduce(host, total)
        xp = array_namespace(array)
        return total if xp is np else xp.asarray(total)

    @contextlib.contextmanager
    def exchange(self) -> Iterator[None]:
        """Count an exchange, in which this rank waits for others."""
        if not self.counting:
            yield
            return
        self.exchanges += 1
        self.waiting = True
        try:
            yield
        finally:
            self.waiting = False

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


def world() -> Any:
    """Return mpi4py's communicator of all ranks; None where there is one process."""
    count = launched()
    if not count:
        return None
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
    return comm if comm.Get_size() > 1 else None
