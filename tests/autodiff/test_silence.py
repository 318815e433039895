"""No wrong gradient in silence: what has no derivative is refused, and limits, ties and NaN give what they should."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from autodiff import (
    check_grads,
    checkpoint,
    elementwise_grad,
    grad,
    hessian,
    hessian_vector_product,
    jacobian,
    jvp,
    primitive,
    value_and_grad,
    vjp,
)

X = np.array([0.5, 1.5, 2.5])
NAN = np.array([1.0, np.nan, 3.0])


@pytest.mark.parametrize(
    ("call", "dtype"),
    [
        (np.argmax, "int64"),
        (lambda x: np.any(x > 1), "bool"),
        (lambda x: np.sum(x > 1), "int64"),
        (lambda x: 3, "int64"),
        (lambda x: True, "bool"),
        (lambda x: x[0].astype(int), "int64"),
    ],
)
def test_a_loss_that_is_no_float_is_refused(call: Any, dtype: str) -> None:
    for transform in (grad, value_and_grad):
        with pytest.raises(TypeError, match=f"grad needs a float, not {dtype}"):
            transform(call)(X)
    assert np.array_equal(grad(lambda x: 3.0)(X), np.zeros(3))


@pytest.mark.parametrize("function", [np.max, np.min, np.ptp, np.median, lambda x: np.quantile(x, 0.2)])
def test_extrema_of_nan_have_the_gradient_nan(function: Any) -> None:
    assert np.isnan(function(NAN))
    assert np.isnan(grad(function)(NAN)).any()
    assert not np.isnan(grad(function)(X)).any()


@pytest.mark.parametrize("function", [np.maximum, np.minimum])
def test_the_larger_of_nan_has_the_gradient_nan(function: Any) -> None:
    gx, gy = grad(lambda x, y: np.sum(function(x, y)), (0, 1))(NAN, np.array([np.nan, 2.0, 4.0]))
    assert np.isnan([gx[:2], gy[:2]]).all()
    assert not np.isnan([gx[2], gy[2]]).any()


def test_fmax_passes_nan_by() -> None:
    gx, gy = grad(lambda x, y: np.sum(np.fmax(x, y)), (0, 1))(NAN, np.full(3, 2.0))
    assert (gx.tolist(), gy.tolist()) == ([0, 0, 1], [1, 1, 0])


@pytest.mark.parametrize(
    ("array", "cure"),
    [
        (np.ones((1, 2)).view(np.matrix), r"numpy\.matrix: pass np\.asarray"),
        (np.ma.array([[1.0, 2.0]], mask=[[0, 1]]), "masked"),
    ],
)
def test_matrices_and_masked_arrays_are_refused(array: Any, cure: str) -> None:
    x = np.ones((1, 2))
    for call, argument in [
        (np.sum, array),
        (lambda x: np.sum(x * array), x),
        (lambda x: np.sum(np.multiply(array, x)), x),
        (lambda x: np.sum(array.T @ x), x),
        (lambda x: np.sum(np.where(x > 0, x, array)), x),
        (lambda x: np.sum(np.concatenate([x, array])), x),
    ]:
        with pytest.raises(TypeError, match=cure):
            grad(call)(argument)


def test_the_deviation_of_equal_elements_has_the_gradient_zero() -> None:
    for call in (np.std, lambda x: np.sum(np.std(x, axis=0))):
        for x in (np.array([3.0]), np.full(4, 0.5)):
            assert np.array_equal(grad(call)(x), np.zeros_like(x))
    assert np.array_equal(
        grad(lambda x: np.sum(np.std(x, 1)))(np.array([[2.0, 2.0], [1.0, 3.0]])), [[0, 0], [-0.5, 0.5]]
    )


@pytest.mark.parametrize("rank", [0, 1, 2, 3, 4])
def test_the_determinant_of_any_rank_has_the_adjugate_as_gradient(rank: int) -> None:
    rng = np.random.default_rng(rank)
    a = rng.integers(-3, 4, (4, rank)).astype(float) @ rng.integers(-3, 4, (rank, 4)).astype(float)
    rest = [[j for j in range(4) if j != i] for i in range(4)]
    cofactors = [[(-1) ** (i + j) * np.linalg.det(a[np.ix_(rest[i], rest[j])]) for j in range(4)] for i in range(4)]
    bound = 64 * np.finfo(float).eps * max(1.0, np.linalg.norm(a)) ** 3
    np.testing.assert_allclose(grad(np.linalg.det)(a), cofactors, rtol=0, atol=bound)
    check_grads(lambda a: grad(np.linalg.det)(a))(a) if rank > 1 else None  # of lower rank, it is zero


class Quantity:
    """A number with a unit, as libraries have them: a dtype and a shape, but no array."""

    def __init__(self, value: Any) -> None:
        self.value, self.dtype, self.shape, self.ndim = value, np.dtype(float), value.shape, value.ndim


DOORS: dict[str, Any] = {
    "grad": lambda f: grad(f)(X),
    "value_and_grad": lambda f: value_and_grad(f)(X),
    "has_aux": lambda f: grad(lambda x: (f(x), None), has_aux=True)(X),
    "vjp": lambda f: vjp(f, X)[1](1.0),
    "vjp of a tree": lambda f: vjp(lambda x: {"a": [x, f(x)]}, X),
    "jvp": lambda f: jvp(f, (X,), (X,)),
    "jacobian": lambda f: jacobian(f)(X),
    "hessian": lambda f: hessian(f)(X),
    "hessian_vector_product": lambda f: hessian_vector_product(f)(X, X),
    "elementwise_grad": lambda f: elementwise_grad(f)(X),
    "checkpoint": lambda f: grad(checkpoint(f))(X),
    "checkpoint of a tree": lambda f: vjp(checkpoint(lambda x: (x, f(x))), X),
    "primitive": lambda f: grad(primitive(f))(X),
    "check_grads": lambda f: check_grads(f)(X),
}


@pytest.mark.parametrize("door", DOORS)
def test_what_looks_like_an_array_is_refused_at_every_door(door: str) -> None:
    """Zeros came back: nothing on the tape leads to what such an object holds."""
    with pytest.raises(TypeError, match="returned Quantity"):
        DOORS[door](lambda x: Quantity(np.sum(x * x)))


@pytest.mark.parametrize("door", sorted(DOORS.keys() - {"primitive", "checkpoint of a tree"}))  # of plain arrays
def test_what_has_a_unit_is_no_argument(door: str) -> None:
    united = X.view(type("Named", (np.ndarray,), {"units": "m"}))
    with pytest.raises(TypeError, match="expected an array without a unit"):
        DOORS[door](lambda x: np.sum(x * united))


@pytest.mark.parametrize("unit", [False, True])
def test_directions_and_cotangents_have_no_mask_and_no_unit(unit: bool) -> None:
    class Metres(np.ndarray):  # type: ignore[type-arg]
        unit = "m"

    x, cube = np.ones(3), lambda x: np.sum(x**3)
    along: Any = x.view(Metres) if unit else np.ma.masked_array(x, [0, 1, 0])
    for call in (
        lambda v: vjp(lambda x: 2 * x, x)[1](v),
        lambda v: jvp(cube, (x,), (v,)),
        lambda v: hessian_vector_product(cube)(x, v),
        lambda v: vjp(lambda x: {"a": [x]}, x)[1]({"a": [v]}),
    ):
        call(x)
        with pytest.raises(TypeError, match="without a unit" if unit else "without a mask"):
            call(along)
