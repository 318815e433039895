"""autodiff.numpy and autodiff.scipy: SciPy's and NumPy's values, derivatives, and what is theirs unchanged."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy
import pytest
import scipy.special
import scipy.stats

import autodiff.numpy as np
import autodiff.scipy.special as special
from autodiff import check_grads, grad, jacobian, vjp
from autodiff.tape import Traced

RNG = numpy.random.default_rng(3)
X = RNG.standard_normal((3, 4))
EPS = float(numpy.finfo(float).eps)


def test_numpy_is_numpys() -> None:
    assert np.sin is numpy.sin
    assert np.linalg.inv is numpy.linalg.inv
    assert "cos" in dir(np)
    with pytest.raises(AttributeError):
        _ = np.no_such_function


def test_arrays_of_traced_values() -> None:
    for call in (
        lambda x: np.array([[x[0, 0], 1.0], [x[1, 1], x[0, 2] ** 2]]),
        lambda x: np.array([x, 2 * x]),
        lambda x: np.asarray((x[0], numpy.ones(4))),
        lambda x: np.array(x),
        lambda x: np.array([x[0, 0], 2], dtype=np.float32),
        lambda x: np.full((2, 3), x[0, 0]),
        lambda x: np.full((2, 3), x[0, 0], np.complex128),
    ):
        value, pull = vjp(call, X)
        numpy.testing.assert_array_equal(value, call(X))
        assert value.dtype == call(X).dtype
        assert pull(numpy.ones_like(value))[0].shape == X.shape
    check_grads(lambda x: np.array([[x[0, 0], 1.0], [x[1, 1], x[0, 2] ** 2]]))(X)
    assert type(np.array([1.0, 2.0])) is type(np.full(2, 1.0)) is numpy.ndarray
    assert numpy.array_equal(
        jacobian(lambda x: np.array([x[1], x[0] * x[1]]))(numpy.array([2.0, 3.0])), [[0, 1], [3, 2]]
    )


def test_a_list_takes_part_in_nested_derivatives() -> None:
    assert grad(grad(lambda x: np.sum(np.array([x, x**3, 1.0]))))(2.0) == 12


@pytest.mark.parametrize("axis", [None, 0, 1, (0, 1)])
def test_special_functions_of_several_elements(axis: Any) -> None:
    weights = RNG.uniform(0.5, 2, X.shape)
    for ours, theirs in (
        (special.logsumexp, scipy.special.logsumexp),
        (special.softmax, scipy.special.softmax),
        (special.log_softmax, scipy.special.log_softmax),
        (
            lambda x, axis: special.logsumexp(x, axis, weights, True),
            lambda x, axis: scipy.special.logsumexp(x, axis, weights, True),
        ),
    ):
        numpy.testing.assert_allclose(
            vjp(lambda x, f=ours: f(x, axis), X)[0], theirs(X, axis), rtol=16 * EPS, atol=16 * EPS
        )
        numpy.testing.assert_allclose(ours(X, axis), theirs(X, axis), rtol=16 * EPS, atol=16 * EPS)
        check_grads(lambda x, f=ours: f(x, axis))(X)


def test_logsumexp_of_what_overflows() -> None:
    x = numpy.array([1000.0, 1000.0])
    assert special.logsumexp(x) == scipy.special.logsumexp(x)
    assert numpy.array_equal(grad(special.logsumexp)(x), [0.5, 0.5])
    assert special.logsumexp(numpy.array([1.0, 2.0]), b=[1, -1], return_sign=True)[1] == -1


def test_polygamma_and_multigammaln() -> None:
    x = RNG.uniform(3, 5, 6)
    numpy.testing.assert_allclose(vjp(lambda x: special.polygamma(1, x), x)[0], scipy.special.polygamma(1, x))
    numpy.testing.assert_allclose(
        special.multigammaln(x, 3), [scipy.special.multigammaln(a, 3) for a in x], rtol=16 * EPS
    )
    check_grads(lambda x: special.polygamma(1, x))(x)
    check_grads(lambda x: special.multigammaln(x, 3))(x)


def test_ufuncs_of_scipy_work_as_they_are() -> None:
    assert special.erf is scipy.special.erf
    with pytest.raises(TypeError, match="has no derivative for argument 0"):
        grad(lambda n: scipy.special.jv(n, 1.5))(2.0)
    with pytest.raises(TypeError, match="sici has no derivative here"):
        grad(lambda x: scipy.special.sici(x)[0])(2.0)


def test_rules_of_scipy_are_loaded_when_they_are_needed() -> None:
    code = (
        "import sys, autodiff; assert 'scipy.special' not in sys.modules\n"
        "import scipy.special as sp, math\n"
        "assert autodiff.grad(sp.erf)(0.0) == 2 / math.sqrt(math.pi)"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_traced_values_come_from_lists_alone() -> None:
    seen: list[Any] = []
    grad(lambda x: (seen.append(np.array([1.0, numpy.sum(numpy.ones(2))])), np.sum(x))[1])(X)
    assert not isinstance(seen[0], Traced)
