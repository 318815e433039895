"""Constant operands, kept for the way back as they were at the call."""

from __future__ import annotations

from typing import Any

import numpy as np

from hcnn_core.backend import library_of, on_host, refuse_notes

FIXED = frozenset({bool, int, float, complex, str, slice, type(None), type(...)})
PLAIN = FIXED | {tuple, list, np.ndarray}
"""Types of operands that cannot change, and of operands that need no conversion."""

ON_HOST = ("jax", "jaxlib", "torch")
"""Libraries whose arrays NumPy takes without a copy."""

CONTAINERS = ("dask", "pandas", "polars", "xarray")
"""Libraries whose operations follow labels, or are lazy."""

COPIED = 1 << 16
"""Arrays of at most this many bytes are copied; larger ones leave a fingerprint."""

ROW = 1024
"""Words of 8 bytes whose weighted sum is an entry of a fingerprint."""

WEIGHTS = 2 * np.random.default_rng(0).integers(1 << 62, size=ROW, dtype=np.uint64) + np.uint64(1)
"""Odd, so that no change of a single word is lost in sums modulo 2^64."""

Watched = tuple[np.ndarray[Any, Any], bytes]
"""An array that may not change, and its fingerprint."""


def is_array(x: Any) -> bool:
    """Return whether x is an array of NumPy's, CuPy's or an array-API library; a quantity with a unit is none."""
    return isinstance(x, np.ndarray | np.generic) or library_of(x) in ("autodiff", "cupy") or _has_namespace(x)


def _has_namespace(x: Any) -> bool:
    """Return whether x is an array by the array API."""
    return hasattr(x, "__array_namespace__") and hasattr(x, "dtype")


def is_foreign(x: Any) -> bool:
    """Whether x is an array of a library whose own operations would lose the gradient, or go by labels."""
    if type(x) in PLAIN or isinstance(x, np.ndarray | np.generic):
        return False
    library = library_of(x)
    if library in (*ON_HOST, *CONTAINERS):
        return True
    is_native = library in ("autodiff", "cupy")  # arrays of CuPy have an `__array__`, which raises
    return hasattr(x, "__array__") and not hasattr(x, "__array_namespace__") and not is_native


def plain_array(x: Any) -> Any:
    """Return an operand; of a foreign library, as an array of NumPy's: positions decide, not labels."""
    if type(x) in PLAIN:
        return x
    refuse_notes(x)
    if is_foreign(x):
        return on_host(x) if library_of(x) in ON_HOST else np.asarray(x)
    if library_of(x) == "scipy" and hasattr(x, "toarray"):
        raise TypeError(f"{type(x).__name__} of scipy.sparse has no derivative here: pass x.toarray()")
    return x


def kept(x: Any, watched: list[Watched]) -> Any:
    """Return a constant operand as the way back should find it: a copy, or an array that is watched.

    Lists and tuples are followed. Arrays of libraries but NumPy are kept as they are.
    """
    kind = type(x)
    if kind is list or kind is tuple:
        return kind(x if FIXED.issuperset(map(type, x)) else [kept(item, watched) for item in x])
    if kind is np.ndarray or isinstance(x, np.ndarray):
        if x.nbytes <= COPIED:
            return x.copy("K")
        watch(x, watched)
    return x


def watch(x: np.ndarray[Any, Any], watched: list[Watched]) -> None:
    """Note the fingerprint of an array, if anybody can write to it."""
    base = x if x.base is None else x.base
    lasting = not base.flags.writeable if isinstance(base, np.ndarray) else isinstance(base, bytes)
    if not x.dtype.hasobject and (x.flags.writeable or not lasting):
        watched.append((x, _fingerprint(x)))


def require_unchanged(watched: list[Watched], name: str) -> None:
    """ValueError if an array has changed since it was watched."""
    for x, fingerprint in watched:
        if _fingerprint(x) != fingerprint:
            raise ValueError(
                f"an array of shape {x.shape} was changed after {name} had used it, so its gradient would be wrong: "
                "pass a copy, x.copy(), or make a new array instead of changing it"
            )


def _fingerprint(x: np.ndarray[Any, Any]) -> bytes:
    """Weighted sums of all words in the order of memory; any single change shows, and so do exchanges."""
    if x.nbytes <= 8 * ROW:
        return x.tobytes("A")
    x = x[tuple(slice(None) if stride else slice(1) for stride in x.strides)]  # what is broadcast once
    ordered = x.transpose(sorted(range(x.ndim), key=lambda axis: -abs(x.strides[axis])))
    flat = np.ascontiguousarray(ordered).reshape(-1).view(np.uint8)
    whole = flat.size // (8 * ROW) * 8 * ROW
    tail = np.zeros(8 * ROW, np.uint8)
    tail[: flat.size - whole] = flat[whole:]
    rows = (flat[:whole].view(np.uint64).reshape(-1, ROW), tail.view(np.uint64)[None])
    return b"".join(np.einsum("ij,j->i", part, WEIGHTS).tobytes() for part in rows)  # @ takes longer
