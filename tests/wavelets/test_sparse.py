"""Thresholds as proximal maps, ISTA against the conditions of a minimum, and LISTA as ISTA."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from autodiff import check_grads, grad
from tests.core.oracle import noise
from wavelets import hard_threshold, ista, learn_dictionary, lista, soft_threshold, sparse_loss


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_thresholds_are_their_cases(dtype: str) -> None:
    x = np.array([-3, -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 3], dtype)
    assert np.array_equal(soft_threshold(x, 1.0), np.array([-2, -0.5, 0, 0, 0, 0, 0, 0.5, 2], dtype))
    assert np.array_equal(hard_threshold(x, 1.0), np.array([-3, -1.5, 0, 0, 0, 0, 0, 1.5, 3], dtype))
    assert soft_threshold(x, 1.0).dtype == hard_threshold(x, 1.0).dtype == dtype
    assert np.array_equal(soft_threshold(x, np.array(0.0, dtype)), x)
    assert soft_threshold(x, np.float64(1)).dtype == hard_threshold(x, np.float64(1)).dtype == dtype
    assert soft_threshold(x, np.int64(1)).dtype == hard_threshold(x, np.int64(1)).dtype == dtype


def test_derivatives_of_thresholds() -> None:
    x = np.array([-3.0, -0.5, 0.5, 3.0])
    check_grads(lambda x, tau: soft_threshold(x, tau))(x, np.array([1.0, 1, 1, 1]))
    assert np.array_equal(grad(lambda x: np.sum(hard_threshold(x, 1.0) ** 2))(x), [-6, 0, 0, 6])


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_the_modulus_of_a_complex_number_shrinks_and_its_phase_stays(dtype: str) -> None:
    assert np.allclose(soft_threshold(np.array([3j, -2, 0.2 + 0.1j, 0]), 0.3), [2.7j, -1.7, 0, 0], rtol=1e-15)
    x = 3 * noise(0, (50,), dtype)
    for tau in (0.7, np.full(50, 0.7, x.real.dtype)):
        found = soft_threshold(x, tau)
        assert found.dtype == dtype
        expected = np.maximum(np.abs(x) - 0.7, 0) * np.exp(1j * np.angle(x))
        np.testing.assert_allclose(found, expected, rtol=0, atol=20 * np.finfo(dtype).eps)
    real = soft_threshold(x.real.astype(dtype), 0.7)
    np.testing.assert_allclose(real, soft_threshold(x.real, 0.7), rtol=0, atol=20 * np.finfo(dtype).eps)


def test_derivatives_of_complex_thresholds() -> None:
    x = np.array([3j, -2 + 1j, 0.2 + 0.1j, 0.1j])
    check_grads(lambda x, tau: soft_threshold(x, tau))(x, np.array([1.0, 1, 0.5, 0.3]))
    assert np.array_equal(grad(lambda x: np.sum(np.abs(soft_threshold(x, 0.5))))(np.zeros(2, complex)), [0, 0])


def problem(dtype: str = "float64") -> tuple[Any, Any]:
    dictionary = noise(0, (10, 16), dtype)
    return noise(1, (5, 10), dtype), dictionary / np.linalg.norm(dictionary, axis=0)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_ista_ends_where_the_subgradient_holds_zero(dtype: str) -> None:
    x, dictionary = problem(dtype)
    code = ista(x, dictionary, 0.3, iterations=4000)
    assert code.dtype == dtype
    correlation = (x - code @ dictionary.T) @ dictionary.conj()  # of the residual with each atom
    active = code != 0
    assert active.any() and not active.all()
    assert np.abs(correlation[active] - 0.3 * code[active] / np.abs(code[active])).max() < 1e-9
    assert np.abs(correlation[~active]).max() <= 0.3


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_the_loss_falls_with_the_step_and_not_with_a_larger_one(dtype: str) -> None:
    x, dictionary = problem(dtype)
    step = 1 / np.linalg.norm(dictionary, 2) ** 2

    def losses(step: float) -> Any:
        codes = [ista(x, dictionary, 0.3, iterations=k, step=step) for k in range(1, 30)]
        return np.diff([sparse_loss(x, code, dictionary, 0.3).sum() for code in codes])

    assert losses(step).max() <= 1e-12
    assert losses(3 * step).max() > 0
    assert np.array_equal(ista(x, dictionary, 0.3, iterations=7), ista(x, dictionary, 0.3, iterations=7, step=step))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_lista_with_the_transposed_dictionary_is_ista_exactly(dtype: str) -> None:
    """Against ISTA as its textbook formula, written in the network's order of operations."""
    x, dictionary = problem(dtype)
    eta, penalty = 0.2, 0.3
    code = np.zeros((5, 16), dtype)
    for _ in range(6):
        code = soft_threshold(code + (code @ dictionary.T - x) @ (-eta * dictionary.T).T, eta * penalty)
    found = lista(x, dictionary, -eta * dictionary.T, eta * penalty, iterations=6)
    assert found.dtype == dtype and np.array_equal(found, code)
    gradient = np.zeros((5, 16))
    for _ in range(6):
        v = gradient - eta * (gradient @ dictionary.T - x) @ dictionary
        gradient = np.sign(v) * np.maximum(np.abs(v) - eta * penalty, 0)
    assert np.abs(found - gradient).max() <= 100 * np.finfo(dtype).eps * np.abs(x).max()
    assert not np.array_equal(lista(x, dictionary, 1.01 * -eta * dictionary.T, eta * penalty, iterations=6), code)


def test_derivatives_of_the_unrolled_network() -> None:
    x, dictionary = problem()
    threshold = np.full(16, 0.05)
    check_grads(lambda x, d, e, t: lista(x, d, e, t, iterations=3), 1)(x, dictionary, -0.2 * dictionary.T, threshold)
    check_grads(lambda x, a, d: sparse_loss(x, a, d, 0.3), 1)(x, noise(2, (5, 16), "float64"), dictionary)
    x, dictionary = problem("complex128")
    check_grads(lambda x, d: ista(x, d, 0.05, iterations=3, step=0.2), 1)(x, dictionary)
    check_grads(lambda x, a, d: sparse_loss(x, a, d, 0.3), 1)(x, noise(2, (5, 16), "complex128"), dictionary)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "bool"])
def test_integers_are_signals_as_any(dtype: str) -> None:
    """Bytes of an image would turn round where they are negated, and -128 is its own absolute value."""
    x = np.array([[3, 0], [0, 4], [-128, 127]]).astype(dtype)
    assert np.array_equal(ista(x, np.eye(2), 0.5, iterations=3), ista(x.astype(float), np.eye(2), 0.5, iterations=3))
    code = np.ones((3, 2), dtype)
    assert np.array_equal(sparse_loss(x, code, np.eye(2), 1.0), sparse_loss(x.astype(float), code, np.eye(2), 1.0))
    signals, wide = np.full((3, 2), 200.0), np.full((2, 2), 100).astype(dtype)
    expected = sparse_loss(signals, code.astype(float), wide.astype(float), 1.0)
    assert np.array_equal(sparse_loss(signals, code, wide, 1.0), expected)
    for threshold in (soft_threshold, hard_threshold):
        assert np.array_equal(threshold(x, 5), threshold(x.astype(float), 5)) and threshold(x, 5).dtype == np.float64


@pytest.mark.parametrize(("dtype", "penalty"), [("float64", 0.3), ("complex128", 1.0)])
def test_a_pass_is_least_squares_on_the_codes_of_ista(dtype: str, penalty: float) -> None:
    x, dictionary = problem(dtype)
    learned, (loss,) = learn_dictionary(x, dictionary, penalty, passes=1, iterations=50)
    code = ista(x, dictionary, penalty, iterations=50)
    residual = np.abs(x - code @ dictionary.T)
    assert loss == pytest.approx(((residual**2).sum() / 2 + penalty * np.abs(code).sum()) / len(x))
    used = np.flatnonzero(np.abs(code).sum(0))
    assert 0 < len(used) < 16
    weak = np.sqrt(1e-3 * (np.abs(code) ** 2).sum() / len(used)) * np.eye(len(used))
    extended = np.concatenate([code[:, used], weak]), np.concatenate([x, np.zeros((len(used), 10))])
    atoms = np.linalg.lstsq(*extended)[0].T
    np.testing.assert_allclose(learned[:, used], atoms / np.linalg.norm(atoms, axis=0), atol=1e-9)
    rest = np.delete(np.arange(16), used)
    assert np.array_equal(learned[:, rest], dictionary[:, rest])
    assert np.array_equal(learn_dictionary(x, dictionary, 1e3, passes=1)[0], dictionary)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_dictionary_comes_nearer_to_the_one_that_made_the_signals(dtype: str) -> None:
    """Signals of two atoms each; the search begins at the atoms with some noise."""
    rng = np.random.default_rng(0)
    atoms = rng.standard_normal((12, 16))
    atoms /= np.linalg.norm(atoms, axis=0)
    code = rng.standard_normal((800, 16)) * (rng.random((800, 16)).argsort(1) < 2)
    start = (atoms + 0.15 * rng.standard_normal(atoms.shape)).astype(dtype)
    start /= np.linalg.norm(start, axis=0)
    learned, losses = learn_dictionary((code @ atoms.T).astype(dtype), start, 0.05, passes=6)
    assert learned.dtype == dtype and losses[-1] < losses[0]
    np.testing.assert_allclose(np.linalg.norm(learned, axis=0), 1, rtol=1e-5)
    before, after = ((d * atoms).sum(0) for d in (start, learned))
    assert after.mean() > before.mean() and after.min() > before.min()
