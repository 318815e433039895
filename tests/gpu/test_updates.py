"""Weighted sums of many arrays: values, where they are written, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hcnn_core import muon_update_all
from hcnn_core._engines.cuda import muon as _cuda_muon
from hcnn_core._engines.cuda import updates as _cuda_updates
from hcnn_core._tuning import tuned
from hcnn_core.updates import TINY, Term, weighted_sums
from tests.core.oracle import eps, noise, poisoned_memory, wide

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
@pytest.mark.usefixtures("by")
def test_values(dtype: str) -> None:
    sums, expected = terms_of(dtype)
    check(weighted_sums(sums), expected, dtype)
    for where in (True, np.asarray(True), np.asarray(False)):
        out = [np.full(np.shape(e), 7, dtype) for e in expected]
        if where is True:
            out[3] = np.asfortranarray(out[3])
        found = weighted_sums(sums, out=out, where=where)
        assert all(one is other for one, other in zip(found, out, strict=True))
        check(out, expected if where else [np.full(np.shape(e), 7.0) for e in expected], dtype)


def test_what_the_kernel_cannot_count_goes_another_way(
    kernels_on_host: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_cuda_updates, "MOST_ELEMENTS", 20)
    for size in (20, 21):
        kernels_on_host.clear()
        found = weighted_sums([[Term(np.ones(size, np.float32), 2.0)], [Term(np.ones(3, np.float32), 4.0)]])
        assert kernels_on_host == ["weigh"] * (size == 20)
        check(found, [np.full(size, 2.0), np.full(3, 4.0)], "float32")


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


MATRICES: list[tuple[tuple[int, ...], int | None]] = [
    ((5, 3, 16), None), ((32, 3, 3), 1), ((16,), None), ((7, 11, 90), 1), ((32, 32), None), ((), 0), ((1, 1), None),
    ((3, 3, 3, 20), None), ((2, 300, 4), 2), ((33, 40), None), ((0, 3), None),
]  # fmt: skip
"""Shapes of weights, and how many axes are rows. The last two go another way."""


def muon_written_out(w: Any, g: Any, v: Any, decay: float, rows: int | None, nesterov: bool) -> tuple[Any, Any]:
    """A step of rate 0.1 and momentum 0.9: the polynomial of singular values themselves, in double precision."""
    w, g, v = map(wide, (w, g, v))
    v = 0.9 * v + g
    ahead = 0.9 * v + g if nesterov else v
    matrix = ahead.reshape(int(np.prod(w.shape[: w.ndim - 1 if rows is None and w.ndim else rows or 0])), -1)
    left, s, right = np.linalg.svd(matrix, full_matrices=False)
    s = s / np.sqrt((s * s).sum() + TINY)
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return w - 0.1 * (((left * s) @ right).reshape(w.shape) + decay * w), v


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("nesterov", [False, True])
def test_muon_of_many_weights(kernels_on_host: list[str], dtype: str, nesterov: bool) -> None:
    """Tall and wide matrices, vectors, numbers, a gradient of zeros, gradients in another order; by several blocks."""
    weights, gradients, velocities = (
        [noise(40 * k + i, shape, dtype) for i, (shape, _) in enumerate(MATRICES)] for k in range(3)
    )
    gradients[0], velocities[0] = np.zeros_like(gradients[0]), np.zeros_like(velocities[0])
    gradients[1] = np.asfortranarray(gradients[1])
    decays, rows = [0.1 * i for i in range(len(MATRICES))], [row_axes for _, row_axes in MATRICES]
    options: dict[str, Any] = {"rate": 0.1, "momentum": 0.9, "nesterov": nesterov}
    with tuned(device_update_blocks=3, device_threads=64), poisoned_memory():
        found = muon_update_all(weights, gradients, velocities, **options, weight_decays=decays, row_axes=rows)
    own = [name for name in kernels_on_host if name != "multiply"]
    assert own == ["muon_grams", "muon_polynomials", "muon_moves"]
    for number, given in enumerate(zip(weights, gradients, velocities, decays, rows, strict=True)):
        if not weights[number].size:
            continue
        exact = muon_written_out(*given, nesterov=nesterov)
        for one, other in zip((found[0][number], found[1][number]), exact, strict=True):
            assert one.shape == other.shape and one.dtype == dtype
            # the polynomial multiplies singular values near 0, and their errors, by 3.4445 five times
            assert np.abs(one - other).max() <= 500 * eps(dtype) * (1 + np.abs(other).max())


def test_more_matrices_than_a_launch_holds(kernels_on_host: list[str]) -> None:
    """The rate as an array, as a recorded graph has it."""
    count = _cuda_muon.MOST_MATRICES + 1
    given = [[noise(count * k + i, (4, 3), "float64") for i in range(count)] for k in range(3)]
    weights = [_cuda_muon.Weight(w, g, v, 0.5, 1) for w, g, v in zip(*given, strict=True)]
    with poisoned_memory():
        found = _cuda_muon.muon(weights, np.asarray(0.1), 0.9, False, TINY)
    assert len(kernels_on_host) == 6
    for weight, one in zip(weights, found, strict=True):
        exact = muon_written_out(*weight[:3], 0.5, None, nesterov=False)
        assert max(np.abs(a - b).max() for a, b in zip(one, exact, strict=True)) <= 500 * eps("float64")


def test_muon_refuses_lists_of_other_lengths() -> None:
    with pytest.raises(ValueError, match=r"have lengths \(1, 1, 1, 1, 0\); give as many of each"):
        muon_update_all([np.zeros(3)], [np.zeros(3)], [np.zeros(3)], rate=0.1, weight_decays=[0.0], row_axes=[])
