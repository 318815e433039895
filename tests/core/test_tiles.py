"""F(4, 3) in tiles against taps gathered beside each other: results, both cotangents, in chunks of any size."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hcnn_core._taps import GatheredTaps, Taps
from tests.core.oracle import assert_close

numba = pytest.importorskip("numba")

from hcnn_core import _compiled_tiles as tiles  # noqa: E402


@st.composite
def taps_in_tiles(draw: st.DrawFn) -> Taps:
    """One or two axes of any kind before the one that is cut into tiles."""
    others = range(draw(st.integers(1, 2)))
    lengths = [draw(st.integers(1, 7)) for _ in others] + [4 * draw(st.integers(1, 3))]
    stride = [draw(st.integers(1, 3)) for _ in others] + [1]
    return Taps(
        lengths=tuple(lengths),
        out_lengths=tuple(-(-n // r) for n, r in zip(lengths, stride, strict=True)),
        sizes=(*(draw(st.integers(1, 4)) for _ in others), 3),
        stride=tuple(stride),
        periodic=tuple(draw(st.booleans()) for _ in lengths),
        batch=draw(st.integers(16, 35)),
        tiled=True,
    )


VOLUME = Taps((3, 3, 8), (3, 3, 8), (2, 3, 3), (1, 1, 1), (True, False, True), 17, tiled=True)
"""Lines of its second axis that follow each other, before a gap."""


@given(
    taps=taps_in_tiles(),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 11)),
    one_filter=st.booleans(),
    dtype=st.sampled_from(["float32", "float64"]),
    at_once=st.sampled_from([1, 500, 1 << 19]),
    span=st.integers(1, 4),
    seed=st.integers(0, 9),
)
@example(taps=VOLUME, shape=(1, 2, 3), one_filter=False, dtype="float32", at_once=1 << 19, span=4, seed=0)
@example(taps=VOLUME, shape=(2, 2, 3), one_filter=True, dtype="float64", at_once=1, span=1, seed=0)
def test_tiles_are_the_products_with_taps_and_their_transposes(
    taps: Taps,
    shape: tuple[int, int, int],
    one_filter: bool,
    dtype: str,
    at_once: int,
    span: int,
    seed: int,
) -> None:
    assert tiles.TiledTaps.suits(taps)
    (count, columns, rows), rng = shape, np.random.default_rng(seed)
    x = rng.standard_normal((count, columns, *taps.lengths, taps.batch)).astype(dtype)
    g = rng.standard_normal((count, rows, *taps.out_lengths, taps.batch)).astype(dtype)
    filters = rng.standard_normal((1 if one_filter else count, rows, taps.count * columns)).astype(dtype)
    oracle, (wide_x, wide_g, wide) = GatheredTaps(taps), (a.astype(np.float64) for a in (x, g, filters))

    with mock.patch.multiple(tiles, TILES=at_once, SPAN=span):
        engine = tiles.TiledTaps(taps)
        assert_close(engine.apply(np, x, filters), oracle.apply(np, wide_x, wide), x, filters)
        both = engine.adjoints(g, x, filters)
        assert both[0].dtype == both[1].dtype == dtype
        assert_close(both[0], oracle.apply_transpose(np, wide_g, wide), g, filters)
        assert_close(both[1], oracle.correlate(np, wide_g, wide_x), g, x)
        for one, of_x, of_w in ((0, None, filters), (1, x, None)):
            alone = engine.adjoints(g, of_x, of_w)
            assert alone[1 - one] is None
            np.testing.assert_array_equal(alone[one], both[one])
