"""Sums over the devices of several processes by NCCL."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hcnn_core.backend._arrays import Array
from hcnn_core.backend._device import address_of
from hcnn_core.backend._namespaces import dtype_name


def nccl_is_available() -> bool:
    """Whether CuPy finds NCCL, which sums arrays over the devices of several processes."""
    try:
        from cupy.cuda import nccl
    except ImportError:
        return False
    return bool(nccl.available)


def nccl_sums(rank: int, size: int, bcast: Callable[[Any], Any]) -> Callable[[Array], Array]:
    """Make a function that sums an array over the devices of `size` processes; `bcast` returns what rank 0 gives."""
    import cupy
    from cupy.cuda import nccl

    communicator = nccl.NcclCommunicator(size, bcast(nccl.get_unique_id() if rank == 0 else None), rank)
    kinds = {"float32": nccl.NCCL_FLOAT32, "float64": nccl.NCCL_FLOAT64}

    def all_reduce(array: Array) -> Array:
        array = cupy.ascontiguousarray(array)
        total = cupy.empty_like(array)
        kind, stream = kinds[dtype_name(array.dtype)], cupy.cuda.get_current_stream().ptr
        communicator.allReduce(address_of(array), address_of(total), array.size, kind, nccl.NCCL_SUM, stream)
        return total

    return all_reduce
