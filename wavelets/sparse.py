"""Sparse codes: thresholds, iterative soft thresholding, and its unrolled form with learned matrices."""

from __future__ import annotations

from typing import Any

import numpy as np

from autodiff import getval
from hcnn_core.backend import Array
from hcnn_core.typing import NumpyArray
from wavelets.transform import plain

__all__ = ["hard_threshold", "ista", "learn_dictionary", "lista", "soft_threshold", "sparse_loss"]

RIDGE = 1e-3
"""Added to the diagonal of the codes' Gram matrix, in units of its mean, so that atoms used alike do no harm."""


def soft_threshold(x: Array, tau: Any) -> Array:
    """Return sign(x) max(abs(x) - tau, 0): the proximal map of tau abs(x).

    J. Tanner, Theories of Deep Learning, lecture 11, whose formula has the wrong sign for x < -tau: it is x + tau. The
    sign of a complex number is x / abs(x): its modulus shrinks and its phase stays.

    Parameters
    ----------
    x : array
        Real or complex, NumPy's, CuPy's or traced.
    tau : float or array
        Threshold, not negative. An array has the dtype of abs(x) and broadcasts to its shape.

    Returns
    -------
    array
        Of the shape and dtype of x; of integers float64.

    Raises
    ------
    ValueError
        If `tau` is a negative number.
    """
    x, tau = _floating(x), _threshold(tau)
    if np.iscomplexobj(x):
        size = np.abs(x)
        return x * (np.maximum(size - tau, 0) / np.where(size == 0, 1, size))
    return np.maximum(x - tau, 0) + np.minimum(x + tau, 0)


def hard_threshold(x: Array, tau: Any) -> Array:
    """Return x where abs(x) > tau, and 0 elsewhere; arguments, result and errors are those of `soft_threshold`.

    J. Tanner, Theories of Deep Learning, lecture 11, whose formula has the wrong sign for x < -tau: it is x. The
    derivative with respect to `tau` is taken for 0.
    """
    x, tau = _floating(x), _threshold(tau)
    return np.where(np.abs(getval(x)) > getval(tau), x, np.zeros_like(getval(x)))


def sparse_loss(x: Array, code: Array, dictionary: Array, penalty: float) -> Array:
    """Return the squared residual over two plus the penalty times the l1 norm, for each signal.

    Slide 31 of S. Mallat, Multiscale Sparse Models in Deep Convolutional Networks, for a gamma of twice the
    penalty. The residual is x - code D'.

    Parameters
    ----------
    x : array, shape (N, d)
        Signals, real or complex.
    code : array, shape (N, m)
        Their codes.
    dictionary : array, shape (d, m)
        D; its columns are the atoms.
    penalty : float
        Weight of the l1 norm.

    Returns
    -------
    array, shape (N,)
        The loss, real.
    """
    x, code, dictionary = map(_floating, (x, code, dictionary))
    residual = x - code @ dictionary.T
    return np.sum(np.real(residual * np.conj(residual)), axis=-1) / 2 + penalty * np.sum(np.abs(code), axis=-1)


def ista(x: Array, dictionary: Array, penalty: float, *, iterations: int, step: float | None = None) -> Array:
    """Minimise `sparse_loss`, which has the other arguments, over the codes by iterative soft thresholding, from 0.

    a <- soft_threshold(a + step (x - a D') conj(D), step penalty). All arrays may be NumPy's, CuPy's or traced.

    Parameters
    ----------
    iterations : int
        How often to threshold, at least once.
    step : float, optional
        At most 1 over the squared spectral norm of D, for the loss to fall at each iteration; that by default.

    Returns
    -------
    array, shape (N, m)
        Codes.

    Raises
    ------
    ValueError
        If the shapes do not match, the penalty is negative, another number is not positive, or D is 0.
    """
    x, dictionary = _with_dictionary(x, dictionary)
    if step is None:
        norm = float(np.linalg.norm(getval(dictionary), 2))
        if not norm:
            raise ValueError("the dictionary is 0, and there is no longest step; give one")
        step = 1 / norm**2
    if step <= 0:
        raise ValueError(f"step is {step}; it must be positive")
    if penalty < 0:
        raise ValueError(f"penalty is {penalty}; it must be at least 0")
    step = float(step)  # a number of NumPy's would make float32 float64
    return lista(x, dictionary, -step * np.conj(dictionary).T, step * penalty, iterations=iterations)


def lista(x: Array, dictionary: Array, encoder: Array, threshold: Any, *, iterations: int) -> Array:
    """Return codes by an unrolled network: LISTA with the dictionary and an encoder of its own.

    a <- soft_threshold(a + (a D' - x) W_e', threshold), from 0: slide 31 of S. Mallat, Multiscale Sparse Models in Deep
    Convolutional Networks (K. Gregor, Y. LeCun, Learning fast approximations of sparse coding, 2010). With the encoder
    W_e = -step conj(D)' and the threshold step * penalty it is `ista`, which has the other arguments, the result and
    the errors. It is differentiable in all its arrays.

    Parameters
    ----------
    encoder : array, shape (m, d)
        W_e.
    threshold : float or array
        Threshold, one for all codes or (m,); not negative.
    """
    (x, dictionary), encoder = _with_dictionary(x, dictionary), _floating(encoder)
    expected = tuple(np.shape(dictionary))[::-1]
    if tuple(np.shape(encoder)) != expected:
        raise ValueError(f"encoder has shape {tuple(np.shape(encoder))}; this dictionary wants {expected}")
    if iterations < 1:
        raise ValueError(f"iterations is {iterations}; it must be at least 1")
    code = soft_threshold(-x @ encoder.T, threshold)  # the first, from 0
    for _ in range(iterations - 1):
        code = soft_threshold(code + (code @ dictionary.T - x) @ encoder.T, threshold)
    return code


def learn_dictionary(
    x: NumpyArray[Any], start: NumpyArray[Any], penalty: float, *, passes: int, iterations: int = 30
) -> tuple[NumpyArray[Any], list[float]]:
    """Minimise `sparse_loss` over codes and atoms in turn: `ista`, then least squares (method of optimal directions).

    Parameters
    ----------
    x : numpy.ndarray, shape (N, d)
        Signals, real or complex.
    start : numpy.ndarray, shape (d, m)
        Where the dictionary begins, such as signals scaled to norm 1; its columns are not 0.
    penalty : float
        Weight of the l1 norm, not negative.
    passes : int
        How often both are done, at least once.
    iterations : int, optional
        Of `ista` in each pass.

    Returns
    -------
    dictionary : numpy.ndarray, shape (d, m)
        Its columns, the atoms, have norm 1. One that no code uses stays as it is.
    losses : list of float
        Mean of `sparse_loss` in each pass, before its least squares. Atoms are scaled to norm 1 after these, so it may
        rise.

    Raises
    ------
    ValueError
        If the shapes do not match, or a number is out of range.
    """
    if passes < 1:
        raise ValueError(f"passes is {passes}; it must be at least 1")
    x, start = plain(x), plain(start)
    dictionary, losses = start.astype(np.result_type(x, start, np.float32)), []
    for _ in range(passes):
        code = ista(x, dictionary, penalty, iterations=iterations)
        losses.append(float(sparse_loss(x, code, dictionary, penalty).mean()))
        used = code.any(axis=0)
        if used.any():
            code = code[:, used]
            adjoint = code.conj().T
            gram = adjoint @ code
            gram += RIDGE * np.trace(gram) / len(gram) * np.eye(len(gram), dtype=gram.dtype)
            atoms = np.linalg.solve(gram, adjoint @ x).T
            dictionary[:, used] = atoms / np.linalg.norm(atoms, axis=0)
    return dictionary, losses


def _threshold(tau: Any) -> Any:
    """Return an array, or a number that is not negative and changes no dtype."""
    if not isinstance(tau, float | int | np.number):
        return plain(tau)
    if not tau >= 0:
        raise ValueError(f"the threshold is {tau}; it must be at least 0")
    return float(tau)


def _floating(x: Any) -> Any:
    """Return an array in a floating dtype: integers would overflow."""
    x = plain(x)
    return x.astype(np.float64) if getval(x).dtype.kind in "biu" else x


def _with_dictionary(x: Array, dictionary: Array) -> tuple[Array, Array]:
    if np.ndim(x) != 2 or np.ndim(dictionary) != 2 or np.shape(x)[1] != np.shape(dictionary)[0]:
        raise ValueError(
            f"x has shape {tuple(np.shape(x))} and the dictionary {tuple(np.shape(dictionary))}; "
            "expected (N, d) and (d, m)"
        )
    return _floating(x), _floating(dictionary)
