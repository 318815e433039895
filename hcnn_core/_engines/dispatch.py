"""Functions other than convolutions: the native one for an array's library, else the generic one.

A native module stands in the room of a library under the name of the generic one and defines the same functions. It
takes all arrays, or says in a function `suits` which ones.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from typing import Any

from hcnn_core._engines.generic.updates import MOST_TERMS as MOST_TERMS
from hcnn_core._tuning import current
from hcnn_core.backend import library_of

NATIVE = {
    "numpy": ("cpu", {"affine", "elementwise", "normalization", "patches"}),
    "cupy": ("cuda", {"affine", "filters", "loss", "matmul", "muon", "normalization", "patches", "sums", "updates"}),
}
"""The room of each library, and the native modules in it."""

OF_MANY = {"elementwise", "normalization"}
"""Modules of compiled kernels that take no less time than NumPy for few elements."""


def native(name: str, like: Any, *others: Any) -> Any:
    """The native module of this name, if it takes such an array and what else its `suits` asks for; or None."""
    room, names = NATIVE.get(library_of(like), ("", ()))
    if name not in names:
        return None
    if room == "cpu":
        if name in OF_MANY and like.size < current().elementwise_elements:
            return None  # before Numba is imported
        if not has_compiled_kernels():
            return None
    module = _module(room, name)
    suits = getattr(module, "suits", None)
    return module if suits is None or suits(like, *others) else None


def engine(name: str, like: Any, *others: Any) -> Any:
    """The same, or the generic module."""
    return native(name, like, *others) or _module("generic", name)


@lru_cache(maxsize=64)
def _module(room: str, name: str) -> Any:
    return import_module(f"hcnn_core._engines.{room}.{name}")


@lru_cache(maxsize=1)
def has_compiled_kernels() -> bool:
    """Whether compiled kernels can be used: Numba is there, compiles, and can cache what it compiles on disk."""
    try:
        from numba import config

        if config.DISABLE_JIT:  # type: ignore[attr-defined]  # by NUMBA_DISABLE_JIT, for coverage and debuggers
            return False
        from hcnn_core._engines.cpu import compile_log
        from hcnn_core._engines.cpu.kernels import gemm  # noqa: F401
    except (ImportError, RuntimeError):
        return False
    compile_log.install()
    return True
