"""Minimisation with gradients of the tape."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from autodiff import grad, tree_leaves, tree_map, tree_structure, tree_unflatten, value_and_grad
from hcnn_core.typing import NumpyArray
from hcnn_core.updates import adamw_update

__all__ = ["adam", "lbfgs", "momentum"]


def lbfgs(
    fun: Callable[[Any], Any], start: NumpyArray[Any], *, iterations: int, memory: int = 20
) -> tuple[NumpyArray[Any], float]:
    """Minimise a function of one array by L-BFGS, with gradients of the tape.

    Parameters
    ----------
    fun : callable
        From an array, traced or not, to a real scalar.
    start : numpy.ndarray
        Where to begin. The function gets arrays of its shape and dtype.
    iterations : int
        How many iterations to take at most. It also stops where no step in the direction found lowers the value, and
        after ten times as many calls of the function.
    memory : int, optional
        How many past steps approximate the second derivatives.

    Returns
    -------
    x : numpy.ndarray
        Of the shape and dtype of `start`.
    value : float
        ``fun(x)``.

    Raises
    ------
    TypeError
        If `start` is not of dtype float32 or float64, or `fun` returns no real scalar.
    ValueError
        If `iterations` or `memory` is below 1.
    """
    from scipy import optimize  # slow to import, and training does without

    if start.dtype not in (np.float32, np.float64):
        raise TypeError(f"start has dtype {start.dtype}; L-BFGS takes float32 or float64")
    if min(iterations, memory) < 1:
        raise ValueError(f"iterations is {iterations} and memory {memory}; both must be at least 1")
    gradient = value_and_grad(fun)

    def evaluate(v: Any) -> tuple[float, Any]:
        value, g = gradient(v.reshape(start.shape).astype(start.dtype))
        return float(value), g.astype(np.float64).ravel()  # what SciPy computes with

    # SciPy's own tolerances are absolute, so a small function would be left where it begins
    options = {"maxiter": iterations, "maxcor": memory, "maxfun": 10 * iterations, "ftol": 0, "gtol": 0}
    result = optimize.minimize(evaluate, start.ravel(), jac=True, method="L-BFGS-B", options=options)
    return result.x.reshape(start.shape).astype(start.dtype), float(result.fun)


def adam(
    loss: Callable[[Any, Any], Any],
    parameters: Any,
    batches: Sequence[Any],
    *,
    rate: float,
    decays: tuple[float, float] = (0.9, 0.99),
) -> Any:
    """Minimise a loss over batches by Adam (arXiv:1412.6980, algorithm 1), with a rate that falls linearly to 0.

    Parameters
    ----------
    loss : callable
        From parameters and a batch to a real scalar.
    parameters : pytree of array
        Where to begin; none is changed.
    batches : sequence
        One for each step.
    rate : float
        Of the first step.
    decays : tuple of float, optional
        Parts of the running means of the gradient and of its square that are kept at each step, from 0 to below 1.

    Returns
    -------
    pytree of array
        Parameters after the last step, of the structure and dtypes given.

    Raises
    ------
    TypeError
        If a leaf is not of a real floating dtype, or `loss` returns no real scalar.
    ValueError
        If a decay is out of range.
    """
    if not all(0 <= decay < 1 for decay in decays):
        raise ValueError(f"decays is {decays}; both must be at least 0 and below 1")
    _require_no_complex(parameters)
    gradient = value_and_grad(loss)
    leaves, structure = tree_leaves(parameters), tree_structure(parameters)
    first, second = ([np.zeros_like(leaf) for leaf in leaves] for _ in range(2))
    for i, batch in enumerate(batches):
        step = rate * (1 - i / len(batches))
        for k, g in enumerate(tree_leaves(gradient(tree_unflatten(structure, leaves), batch)[1])):
            operands = leaves[k], g, first[k], second[k]
            leaves[k], first[k], second[k] = adamw_update(*operands, rate=step, step=i + 1, betas=decays)
    return tree_unflatten(structure, leaves)


def momentum(
    loss: Callable[[Any, Any], Any], parameters: Any, batches: Sequence[Any], *, rate: float, keep: float = 0.9
) -> Any:
    """Minimise a loss over batches by gradient descent with momentum; all but `keep` is as in `adam`.

    The velocity is ``v = keep v - rate gradient``, and parameters move by it (B. T. Polyak, 1964).

    Parameters
    ----------
    keep : float, optional
        Part of the velocity that is kept, from 0 to below 1; ValueError if it is out of range.
    """
    if not 0 <= keep < 1:
        raise ValueError(f"keep is {keep}; it must be at least 0 and below 1")
    _require_no_complex(parameters)
    rate, keep = float(rate), float(keep)  # NumPy's numbers would make float32 float64
    gradient = grad(loss)
    velocity = tree_map(np.zeros_like, parameters)
    for i, batch in enumerate(batches):
        step = rate * (1 - i / len(batches))
        gradients = gradient(parameters, batch)
        velocity = tree_map(lambda v, g, step=step: keep * v - step * g, velocity, gradients)
        parameters = tree_map(np.add, parameters, velocity)
    return parameters


def _require_no_complex(parameters: Any) -> None:
    """Raise TypeError for complex leaves, whose gradient on the tape is the conjugate of the way up."""
    for leaf in tree_leaves(parameters):
        if (dtype := np.dtype(getattr(leaf, "dtype", type(leaf)))).kind == "c":
            raise TypeError(f"a parameter has dtype {dtype}; give real ones, such as its real and imaginary part")
