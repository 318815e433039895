"""Strategies of filters, strides and settings of networks, small enough for tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from hcnn_core.testing.strategies import DTYPES, SEEDS, noise


def kernels(
    lengths: Sequence[int],
    *,
    out: tuple[int, ...] = (),
    channels: tuple[int, ...] = (),
    dtypes: str | Sequence[str] = DTYPES,
    max_size: int | None = None,
) -> st.SearchStrategy[Any]:
    """Filters for `convolve`, as often shorter than each axis as longer and as long; the smallest has one tap."""
    sizes = st.tuples(*(_sizes(n, 2 * n + 1 if max_size is None else max_size) for n in lengths))
    shapes = sizes.map(lambda taps: (*channels, *taps, *out))
    return st.builds(noise, SEEDS, shapes, st.sampled_from((dtypes,) if isinstance(dtypes, str) else dtypes))


def _sizes(n: int, most: int) -> st.SearchStrategy[int]:
    ranges = ((low, min(high, most)) for low, high in ((1, n - 1), (n, n), (n + 1, most)))
    return st.one_of([st.integers(low, high) for low, high in ranges if low <= high])


def strides(lengths: Sequence[int]) -> st.SearchStrategy[tuple[int, ...]]:
    """One divisor of each length."""
    return st.tuples(*(st.sampled_from([r for r in range(1, n + 1) if n % r == 0]) for n in lengths))


def networks(**fixed: Any) -> st.SearchStrategy[dict[str, Any]]:
    """Settings of hierarchical networks, for images of any size from 1 on; the smallest has the first of each."""
    settings_of = {
        "depth": st.integers(4, 7),
        "width": st.integers(1, 8),
        "factors": st.integers(1, 10),
        "space_kernel": st.integers(1, 4),
        "attribute_kernel": st.tuples(st.integers(1, 9), st.integers(1, 9)),
        "attribute_stride": st.integers(1, 3),
        "strided_layers": st.sets(st.integers(1, 6), max_size=3).map(lambda layers: tuple(sorted(layers))),
        "nonlinear_factors": st.booleans(),
        "boundary": st.sampled_from(("periodic", "zero", "attributes")),
        "reduction": st.sampled_from(("mean", "sum")),
        "normalization": st.sampled_from(("factors", "both")),
        "head": st.sampled_from(("mean", "sum", "dense")),
        "skip": st.sampled_from(("none", "aligned", "aligned-mean", "previous", "dense")),
        "blur": st.booleans(),
        "dtype": st.sampled_from(("float32", "float64")),
    }
    return st.fixed_dictionaries({**settings_of, **{name: st.just(value) for name, value in fixed.items()}})
