"""CUDA kernels for CuPy arrays: their sizes, how they are compiled, and how they are launched."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, lru_cache, wraps
from importlib.resources import files
from typing import Any, TypeVar

import numpy as np

from hcnn_core.backend import compile_cuda, with_shared_memory
from hcnn_core.backend import device_limits as device_limits

Method = TypeVar("Method", bound=Callable[..., Any])

LANES = 32
OPTIONS = ("-std=c++17",)

TILING = {
    "float32": {"THREADS": 128, "TALL": 16, "WIDE": 4, "DEPTH": 64, "G_TALL": 8, "X_TALL": 9},
    "float64": {"THREADS": 128, "TALL": 8, "WIDE": 2, "DEPTH": 32, "G_TALL": 4, "X_TALL": 4},
}
"""Sizes of `apply` and `correlate`, whose blocks have THREADS threads.

In `apply` a thread keeps the sums of TALL rows by WIDE positions in registers, and a block shares the factors of DEPTH
terms. In `correlate` a thread keeps G_TALL by X_TALL sums.
"""

MAP_TALL = 8
MAP_TILES = {"float32": (64, 32), "float64": (32,)}
"""Positions that a block maps at a time: the first number for which the device has enough shared memory."""

TENSOR_CAPABILITY = 8, 0
"""Least compute capability whose tensor cores multiply numbers of TensorFloat-32."""


def kept(method: Method) -> Method:
    """Keep what a method returns, by its arguments, as long as its object lives; nobody changes it."""

    @wraps(method)
    def known(self: Any, *arguments: Any) -> Any:
        values = vars(self).setdefault(f"{method.__name__} kept", {})
        if arguments not in values:
            values[arguments] = method(self, *arguments)
        return values[arguments]

    return known  # type: ignore[return-value]


@cache
def _text(name: str) -> str:
    return (files("hcnn_core._engines.cuda") / name).read_text("utf-8")


def source(dtype: str, sizes: Mapping[str, int]) -> str:
    """Return the kernels' text for one dtype and some sizes."""
    real, expm1 = ("float", "expm1f") if dtype == "float32" else ("double", "expm1")
    macros = {**sizes, "EXPM1": expm1, "PACK": 16 // np.dtype(dtype).itemsize}
    lines = [f"#define {name} {value}" for name, value in macros.items()]
    types = f"using real = {real};\nstruct __align__(16) pack {{ real value[PACK]; }};\n"
    texts = ("TENSOR_CORES", "tensor_kernels"), ("FILTERS", "implicit"), ("RESULTS", "summed"), ("SINGLE", "single")
    more = [f"{name}.cu" for macro, name in texts if macro in sizes]
    return "\n".join([*lines, types + _text("kernels.cu"), *map(_text, more)])


@lru_cache(maxsize=512)
def kernel(name: str, dtype: str, sizes: tuple[tuple[str, int], ...], shared: int = 0) -> Any:
    """Return a kernel ready to be launched: a callable of grid, block, arguments and bytes of shared memory."""
    compiled = compile_cuda(source(dtype, dict(sizes)), name, OPTIONS)
    return with_shared_memory(compiled, name, shared) if shared else compiled


def product_sizes(dtype: str, rows: int) -> dict[str, int]:
    """Return the sizes of `apply` and `correlate`: for few rows, tiles are less tall and wider."""
    tiling = TILING[dtype]
    tall, wide = tiling["TALL"], tiling["WIDE"]
    if rows <= tall // 2:
        tall, wide = tall // 2, 2 * wide
    return {**tiling, "TALL": tall, "WIDE": wide, "ROW_TILE": tall * min(2, -(-rows // tall))}


def shared_bytes_of_correlate(dtype: str) -> int:
    """Bytes of shared memory for the samples and cotangents that a block's warps take at a time."""
    tiling, size = TILING[dtype], np.dtype(dtype).itemsize
    rows = tiling["THREADS"] // LANES * (4 * tiling["G_TALL"] + 8 * tiling["X_TALL"])
    return rows * (LANES * size + 16)


def launch(
    name: str, dtype: str, sizes: Mapping[str, int], grid: tuple[int, ...], threads: int, arguments: tuple[Any, ...],
    shared: int = 0,
) -> None:  # fmt: skip
    """Run a kernel; arguments are arrays, None for a null pointer, and sizes as np.int32 or np.int64."""
    pointers = tuple([np.uintp(0) if value is None else value for value in arguments])
    kernel(name, dtype, tuple(sizes.items()), shared)(grid, (threads,), pointers, shared_mem=shared)
