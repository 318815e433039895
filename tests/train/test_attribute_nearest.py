"""The nearest arrays against brute force, with ties and with products that round."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from train.attributes import nearest as module
from train.attributes.nearest import distances_of_random_pairs, nearest


def brute_force(queries: Any, database: Any, count: int, exclude: Any = None) -> tuple[Any, Any]:
    distances, indices = [], []
    for row, query in enumerate(queries):
        all_distances = [float(np.linalg.norm(query.astype(float) - x.astype(float))) for x in database]
        order = [i for i in sorted(range(len(database)), key=lambda i: (all_distances[i], i))]
        order = [i for i in order if exclude is None or i != exclude[row]][:count]
        indices.append(order)
        distances.append([all_distances[i] for i in order])
    return np.asarray(distances), np.asarray(indices)


@given(
    # few integers, so that many distances are equal
    database=arrays.arrays(np.float32, st.tuples(st.integers(4, 200), st.just(3)), elements=st.integers(-2, 2)),
    queries=arrays.arrays(np.float32, st.tuples(st.integers(0, 9), st.just(3)), elements=st.integers(-2, 2)),
    count=st.integers(1, 3),
    offset=st.sampled_from([0, 1000]),
)
def test_nearest_is_brute_force(database: Any, queries: Any, count: int, offset: int) -> None:
    database, queries = database + np.float32(offset), queries + np.float32(offset)
    distances, indices = nearest(queries, database, count)
    expected = brute_force(queries, database, count)
    if len(queries):
        assert np.array_equal(indices, expected[1]) and np.allclose(distances, expected[0])


@pytest.mark.parametrize(("offset", "halves"), [(0.0, 1), (100.0, 1), (100.0, -1)])
def test_arrays_that_rounding_confuses(monkeypatch: pytest.MonkeyPatch, offset: float, halves: int) -> None:
    """Their differences are small beside them; beside their distance from their mean too where two halves differ."""
    rng = np.random.default_rng(0)
    database = (offset + rng.standard_normal((1, 40)) + 1e-4 * rng.standard_normal((300, 40))).astype(np.float32)
    database[1::2] *= halves
    queries = database[:50] + np.float32(1e-4) * rng.standard_normal((50, 40)).astype(np.float32)
    monkeypatch.setattr(module, "QUERIES", 16)
    own = np.where(np.arange(50) % 2, np.arange(50), -1)
    for count in (4, 1):
        distances, indices = nearest(queries, database, count, exclude=own)
        expected = brute_force(queries, database, count, own)
        assert np.array_equal(indices, expected[1]) and np.allclose(distances, expected[0], rtol=1e-12)
    products = (queries**2).sum(1)[:, None] - 2 * queries @ database.T + (database**2).sum(1)
    products[np.flatnonzero(own >= 0), own[own >= 0]] = np.inf
    if offset:  # products alone would have been wrong
        assert not np.array_equal(products.argmin(axis=1), expected[1][:, 0])


@pytest.mark.parametrize(
    ("dtype", "exponent"), [("float32", e) for e in (-140, -73, 63, 127)] + [("float64", e) for e in (-1000, -535, 511)]
)
def test_sizes_do_not_matter(dtype: str, exponent: int) -> None:
    """Squares of such numbers overflow or vanish."""
    rng = np.random.default_rng(0)
    queries, database = (np.ldexp(rng.uniform(-1, 1, (n, 5)).astype(dtype), exponent) for n in (20, 400))
    distances, indices = nearest(queries, database, 3)
    expected = brute_force(np.ldexp(queries.astype(float), -exponent), np.ldexp(database.astype(float), -exponent), 3)
    assert np.array_equal(indices, expected[1])
    np.testing.assert_allclose(np.ldexp(distances, -exponent), expected[0], rtol=1e-12)


def test_what_is_left_out_of_few_is_not_found() -> None:
    """As many are asked for as there are groups of arrays, and more."""
    database = np.arange(5.0)[:, None]
    _, indices = nearest(database[:2], database, 4, exclude=np.asarray([0, -1]))
    assert indices.tolist() == [[1, 2, 3, 4], [1, 0, 2, 3]]


def test_random_pairs_are_of_different_arrays() -> None:
    database = np.asarray([[0.0], [3.0]])
    assert (distances_of_random_pairs(database, np.random.default_rng(0), 50) == 3).all()
