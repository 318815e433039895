"""Weighted sums of many arrays: values, where they are written, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hcnn_core.updates import Term, weighted_sums
from tests.core.oracle import eps, noise

SHAPES = [(), (1,), (5,), (3, 4), (300, 7), (0, 3)] * 12


def terms_of(dtype: str) -> tuple[list[list[Term]], list[Any]]:
    """Sums of one to three terms, with scalars and without, of arrays in several layouts; and what they are."""
    rate = np.asarray(0.3, dtype)
    sums, expected = [], []
    for number, shape in enumerate(SHAPES):
        a, b, c = (noise(number + k, shape, dtype) for k in range(3))
        b = np.asfortranarray(b) if b.ndim else b
        terms = [Term(a, 0.5), Term(b, 1.0, -2.0, rate), Term(c, 0.0, 1.0, rate)][: number % 3 + 1]
        wide = [
            np.asarray(t.array, float) * (t.weight + t.rate * (0 if t.scalar is None else float(rate))) for t in terms
        ]
        sums.append(terms)
        expected.append(sum(wide))
    return sums, expected


def check(found: Any, expected: Any, dtype: str) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.shape == np.shape(other) and one.dtype == dtype
        assert np.abs(one - other).max(initial=0) <= 20 * eps(dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("by", ["the library", "a kernel"])
def test_values(dtype: str, by: str, request: pytest.FixtureRequest) -> None:
    if by == "a kernel":
        request.getfixturevalue("kernels_on_host")
    sums, expected = terms_of(dtype)
    check(weighted_sums(sums), expected, dtype)
    for where in (True, np.asarray(True), np.asarray(False)):
        out = [np.full(np.shape(e), 7, dtype) for e in expected]
        if where is True:
            out[3] = np.asfortranarray(out[3])
        found = weighted_sums(sums, out=out, where=where)
        assert all(one is other for one, other in zip(found, out, strict=True))
        check(out, expected if where else [np.full(np.shape(e), 7.0) for e in expected], dtype)


def test_a_term_that_is_its_own_sum_is_not_the_result() -> None:
    array = np.ones(3)
    assert weighted_sums([[Term(array, 1.0)]])[0] is not array
    assert weighted_sums([[Term(array, 1.0)]], out=[array])[0] is array


def test_weights_of_numpys_do_not_change_the_dtype() -> None:
    array, half = np.ones(3, np.float32), np.float64(0.5)
    (found,) = weighted_sums([[Term(array, half), Term(array, half, half, np.asarray(2, np.float32))]])
    assert found.dtype == "float32" and np.array_equal(found, np.full(3, 2.0))


def test_nothing_to_do() -> None:
    assert weighted_sums([]) == []


@pytest.mark.parametrize(
    ("sums", "out"),
    [
        ([[]], None),
        ([[Term(np.zeros(3), 1.0)] * 4], None),
        ([[Term(np.zeros(3), 1.0), Term(np.zeros(1), 1.0)]], None),
        ([[Term(np.zeros(3), 1.0)]], [np.zeros(4)]),
    ],
)
def test_what_does_not_fit_is_refused(sums: Any, out: Any) -> None:
    with pytest.raises(ValueError, match=r"sum 0 has .* give one to 3 of one shape") as caught:
        weighted_sums(sums, out=out)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_an_array_for_each_sum_is_asked_for(count: int) -> None:
    sums = [[Term(np.zeros(3), 1.0)]] * 2
    with pytest.raises(ValueError, match=f"out has {count} arrays for 2 sums; give one for each"):
        weighted_sums(sums, out=[np.zeros(3)] * count)
