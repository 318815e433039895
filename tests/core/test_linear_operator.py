"""`linear_operator` as a matrix against the definition, its adjoint, and the solvers of SciPy and PyLops."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import scipy.sparse.linalg
from hypothesis import given

from hcnn_core import convolve, linear_operator
from tests.core.oracle import EXTENSIONS, Problem, assert_close, noise, problems, wide

FOUR = (4, 3, 5, 4)
"""Lengths of a signal with four axes."""


@given(problems(max_axes=4, boundaries=EXTENSIONS))
def test_it_is_the_convolution_and_its_adjoint_the_conjugate_transpose(problem: Problem) -> None:
    x, w, expected = problem.x, problem.w, problem.convolution()
    op = linear_operator(w, x.shape, problem.axes, **problem.options)
    assert (op.shape, op.dtype) == ((expected.size, x.size), w.dtype)
    assert (op.dims, op.dimsd) == (x.shape, expected.shape)
    assert_close((op @ x.ravel()).reshape(op.dimsd), expected, x, w)
    columns = np.stack([x.ravel(), -2 * x.ravel()], axis=1)
    assert_close(op @ columns, np.multiply.outer(expected.ravel(), [1, -2]), columns, w)

    v = noise(2, op.dimsd, str(op.dtype))
    back = problem.transpose_x(wide(v).conj()).conj()
    assert_close((op.H @ v.ravel()).reshape(op.dims), back, v, w)
    assert_close(op.rmatmat(np.stack([v.ravel()] * 2, axis=1))[:, 1].reshape(op.dims), back, v, w)


def test_other_dtypes_are_promoted_and_filters_copied() -> None:
    w = noise(0, (3,), "float32")
    op = linear_operator(w, [6], 0, boundary="zero")
    x = noise(1, (6,), "complex128")
    expected = convolve(x, w, 0, boundary="zero")
    np.testing.assert_array_equal(op @ x, expected)
    w[:] = 0
    np.testing.assert_array_equal(op @ x, expected)


@pytest.mark.parametrize("kind", ["int64", "uint8", "bool"])
def test_filters_of_integers_are_computed_in_double_precision(kind: str) -> None:
    w, x = np.array([1, 0, 3]).astype(kind), np.arange(6)
    op = linear_operator(w, [6], 0, boundary="zero")
    assert op.dtype == np.float64
    for found in (op @ x, op @ x.astype(float)):
        np.testing.assert_array_equal(found, convolve(x, w, 0, boundary="zero"))


def test_signals_without_samples() -> None:
    op = linear_operator(np.ones(3), (0, 4), 1, boundary="zero")
    assert (op @ np.zeros(0)).shape == (op.H @ np.zeros(0)).shape == (0,)
    assert (op @ np.zeros((0, 2))).shape == (0, 2)


@pytest.mark.parametrize("notes", ["mask", "unit"])
def test_a_mask_or_a_unit_is_refused_at_every_door(notes: str) -> None:
    op = linear_operator(np.ones(3) + 1j, (4,), 0, boundary="zero")
    united = np.ones(4).view(type("Quantity", (np.ndarray,), {"unit": "m"}))
    x = np.ma.masked_array(np.ones(4), [0, 1, 0, 0]) if notes == "mask" else united
    for of in (op, op.H, op.T, op.H.T):
        vectors = (of.dot, of.matvec, of.rmatvec, of.__call__, of.rdot, of.__matmul__, of.__rmatmul__)
        for product in (*vectors, lambda x, of=of: of @ x, lambda x, of=of: x @ of, lambda x, of=of: x * of):
            with pytest.raises(TypeError, match=f"expected an array without a {notes}"):
                product(x)
        for product in (of.matmat, of.rmatmat, of.dot):
            with pytest.raises(TypeError, match=f"expected an array without a {notes}"):
                product(x[:, None])


def test_the_transpose_and_the_adjoint_are_those_of_the_matrix() -> None:
    op = linear_operator(noise(0, (3,), "complex128"), (4,), 0, boundary="zero", stride=2)
    matrix, x = op @ np.eye(4), noise(1, (2, 4), "complex128")
    np.testing.assert_array_equal(op.H @ np.eye(2), matrix.conj().T)
    np.testing.assert_array_equal(op.T @ np.eye(2), matrix.T)
    np.testing.assert_array_equal(op.T.H @ np.eye(4), matrix.conj())
    np.testing.assert_allclose(x[:, :2] @ op, x[:, :2] @ matrix, rtol=0, atol=1e-14)
    assert op.H.dims == op.dimsd == (2,)


@pytest.mark.skipif(not hasattr(scipy.sparse.linalg.LinearOperator, "rdot"), reason="SciPy takes batches from 1.18 on")
@pytest.mark.parametrize("lead", [(4,), (2, 4), (0,), (2, 0)])  # of 4, so that rows could be taken for columns
def test_batches_of_rows_and_of_matrices(lead: tuple[int, ...]) -> None:
    op = linear_operator(noise(0, (3,), "complex128"), (4,), 0, boundary="zero")
    matrix, x = op @ np.eye(4), noise(1, (*lead, 4), "complex128")
    for of, dense in ((op, matrix), (op.H, matrix.conj().T)):
        np.testing.assert_allclose(of.matvec(x), x @ dense.T, rtol=0, atol=1e-14)
        np.testing.assert_allclose(of.rmatvec(x), x @ dense.conj(), rtol=0, atol=1e-14)
        np.testing.assert_allclose(of @ x.swapaxes(-1, -2), dense @ x.swapaxes(-1, -2), rtol=0, atol=1e-14)
        np.testing.assert_allclose(x @ of, x @ dense, rtol=0, atol=1e-14)


def test_pylops_takes_it_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUPY_PYLOPS", "0")
    pylops = pytest.importorskip("pylops")
    w = noise(0, (3, 2, 3, 3), "float64")
    w[1, 1, 1, 1] += 20.0  # so that the blur is easily inverted
    op = linear_operator(w, FOUR, (0, 1, 2, 3), boundary="periodic")
    assert pylops.utils.dottest(op)
    x = np.zeros(FOUR)
    x[1, 2, 3, 0], x[3, 0, 0, 2] = 3.0, -2.0
    y = op @ x.ravel()
    solved = pylops.cgls(op, y, niter=200, tol=1e-14)[0]
    np.testing.assert_allclose(solved.reshape(FOUR), x, rtol=0, atol=1e-9)
    sparse = pylops.optimization.sparsity.fista(pylops.aslinearoperator(op), y, niter=500, eps=1e-6, tol=0)[0]
    np.testing.assert_allclose(sparse.reshape(FOUR), x, rtol=0, atol=1e-4)
    assert pylops.aslinearoperator(op).dims == FOUR


@pytest.mark.parametrize("dtype", ["float32", "complex128"])
def test_an_operator_is_pickled_for_other_processes(dtype: str) -> None:
    w, x, g = noise(0, (3, 4), dtype), noise(1, (5 * 6 * 2,), dtype), noise(2, (3 * 6 * 2,), dtype)
    op = linear_operator(w, (5, 6, 2), (0, 1), boundary="zero", stride=(2, 1))
    other = pickle.loads(pickle.dumps(op))
    assert np.array_equal(other @ x, op @ x) and np.array_equal(other.H @ g, op.H @ g)
    assert np.array_equal(other @ np.stack([x, x], axis=1), op @ np.stack([x, x], axis=1))
    assert (other.shape, other.dtype, other.dims, other.dimsd) == (op.shape, op.dtype, op.dims, op.dimsd)
