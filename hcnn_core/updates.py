"""Steps of gradient descent as functions of arrays, with sums and products that a CUDA graph can record."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias, overload

import numpy as np

from hcnn_core._engines.dispatch import engine, native
from hcnn_core._tuning import MOST_TERMS
from hcnn_core.backend import AnyArray, Array, array_namespace, require_real
from hcnn_core.typing import Array as PublicArray
from hcnn_core.typing import NumpyArray, Scalar

Number: TypeAlias = Any
"""A number, or an array without axes: a number that is known on the device alone, as a CUDA graph takes it."""

LARGE = 1e15
"""Numbers up to this one have squares that can be added up in single precision."""

TINY = 1e-30
"""Added to the square of a norm, so that no gradient is no step."""


def sgd_update_all(
    weights: Sequence[AnyArray],
    gradients: Sequence[Array],
    velocities: Sequence[Array],
    /,
    *,
    rate: Number,
    momentum: float = 0.0,
    nesterov: bool = False,
    weight_decays: Sequence[float],
) -> tuple[list[AnyArray], list[AnyArray]]:
    """Take a step of stochastic gradient descent with momentum for several weights, with few kernels on a GPU.

    With ``pull = rate (gradient + weight_decay weight)``, a velocity becomes ``v = momentum velocity - pull``. The
    weight moves by v (B. T. Polyak, 1964), or with Nesterov's momentum by ``momentum v - pull`` (Y. Nesterov, 1983).

    Parameters
    ----------
    weights : sequence of array
        float32 or float64, any shapes, of one dtype and library.
    gradients, velocities : sequence of array
        Of the shapes of the weights. A velocity is zero before the first step.
    rate : float or array without axes
        Learning rate.
    momentum : float, optional
        Part of the velocity that is kept.
    nesterov : bool, optional
        Whether the momentum is Nesterov's.
    weight_decays : sequence of float
        Numbers that are added to the gradient for each unit of weight.

    Returns
    -------
    weights, velocities : list of array
        After the step, in the shapes and dtype of `weights`. No argument is changed.

    Raises
    ------
    TypeError
        If an array is integer or complex, or arrays of two libraries are mixed.
    ValueError
        If lengths or shapes differ, or the rate has axes.

    Notes
    -----
    Frameworks that keep the rate out of the velocity take other steps while the rate changes.
    """
    lengths = len(weights), len(gradients), len(velocities), len(weight_decays)
    if len(set(lengths)) > 1:
        raise ValueError(
            f"weights, gradients, velocities and weight_decays have lengths {lengths}; give as many of each"
        )
    operands = [
        (*_operands(w, gradient=g, velocity=v)[1:], float(decay))  # NumPy's numbers would make float32 float64
        for w, g, v, decay in zip(weights, gradients, velocities, weight_decays, strict=True)
    ]
    if weights and native("updates", weights[0]):
        return _sgd_at_once(operands, rate, momentum, nesterov)
    momentum, steps = float(momentum), []
    for w, g, v, decay in operands:
        pull = _number("rate", rate, w) * (g + (decay * w if decay else 0))
        v = momentum * v - pull
        steps.append((w + (momentum * v - pull if nesterov else v), v))
    return [w for w, _ in steps], [v for _, v in steps]


def _sgd_at_once(
    operands: Sequence[tuple[Array, Array, Array, float]], rate: Number, momentum: float, nesterov: bool
) -> Any:
    """Take the steps of `sgd_update_all` by one launch, from (weight, gradient, velocity, decay) of each weight."""
    rate = _number("rate", rate, operands[0][0])

    def term(array: Array, weight: float, times_rate: float) -> Term:
        if isinstance(rate, float):
            return Term(array, weight + times_rate * rate)
        return Term(array, weight, times_rate, rate)

    ahead = momentum if nesterov else 0.0
    of_v, of_g = momentum * (ahead if nesterov else 1.0), -(1.0 + ahead)  # factors in a weight's move
    velocities = [[term(v, momentum, 0), term(g, 0, -1), term(w, 0, -decay)] for w, g, v, decay in operands]
    weights = [[term(v, of_v, 0), term(g, 0, of_g), term(w, 1, of_g * decay)] for w, g, v, decay in operands]
    sums = weighted_sums(velocities + weights)
    return sums[len(operands) :], sums[: len(operands)]


def muon_update_all(
    weights: Sequence[AnyArray],
    gradients: Sequence[Array],
    velocities: Sequence[Array],
    /,
    *,
    rate: Number,
    momentum: float = 0.0,
    nesterov: bool = False,
    weight_decays: Sequence[float],
    row_axes: Sequence[int | None],
) -> tuple[list[AnyArray], list[AnyArray]]:
    """Take a step of Muon for several weights: momentum, whose singular values are brought near 1.

    A velocity becomes ``v = momentum velocity + gradient``. The weight moves by ``-rate (U + weight_decay weight)``,
    where U is close to the semi-orthogonal matrix nearest to v, or with Nesterov's momentum to
    ``momentum v + gradient``: the steepest descent among matrices of spectral norm 1 (arXiv:2409.20325).

    `row_axes` gives for each weight how many of its first axes are the rows of the matrix; the others are its columns.
    None means all but the last; ValueError if the weight has fewer axes. All else as in `sgd_update_all`.

    Notes
    -----
    Five Newton-Schulz iterations bring singular values to between 0.68 and 1.21, if they are at least 0.0015 of the
    root of the sum of their squares. Smaller ones become up to 485 times that part, so they stay below. The polynomial
    is that of https://kellerjordan.github.io/posts/muon: fast rather than exact. The sum has 1e-30 added, so that no
    singular value s becomes more than 485e15 s: U vanishes with v.

    Three kernels take the steps of up to 48 CuPy arrays whose matrices have at most 32 rows or at most 32 columns. They
    iterate on U^T U in double precision. Larger matrices are updated one by one.
    """
    lengths = len(weights), len(gradients), len(velocities), len(weight_decays), len(row_axes)
    if len(set(lengths)) > 1:
        raise ValueError(
            f"weights, gradients, velocities, weight_decays and row_axes have lengths {lengths}; give as many of each"
        )
    momentum = float(momentum)
    steps: list[Any] = [None] * len(weights)
    by_kernels: Any = None
    at_once: dict[int, Any] = {}
    operands = zip(weights, gradients, velocities, weight_decays, row_axes, strict=True)
    for number, (weight, gradient, velocity, decay, rows) in enumerate(operands):
        _, w, g, v = _operands(weight, gradient=gradient, velocity=velocity)
        decay, rows = float(decay), _row_axes(w, rows)
        if module := native("muon", w, rows):
            by_kernels = module
            at_once[number] = module.Weight(w, g, v, decay, rows)
            continue
        v = momentum * v + g
        ahead = momentum * v + g if nesterov else v
        direction = _semi_orthogonal(ahead, rows) + (decay * w if decay else 0)
        steps[number] = w - _number("rate", rate, w) * direction, v
    if at_once:
        muons = list(at_once.values())
        results = by_kernels.muon(muons, _number("rate", rate, muons[0].weight), momentum, nesterov, TINY)
        for number, result in zip(at_once, results, strict=True):
            steps[number] = result
    return [w for w, _ in steps], [v for _, v in steps]


def _row_axes(weight: Array, row_axes: int | None) -> int:
    """How many of a weight's first axes are rows of its matrix."""
    rows = max(0, weight.ndim - 1) if row_axes is None else row_axes
    if not 0 <= rows <= weight.ndim:
        raise ValueError(f"row_axes is {row_axes}; it must be from 0 to {weight.ndim}, the axes of the weight")
    return rows


def _semi_orthogonal(array: AnyArray, rows: int) -> AnyArray:
    """All singular values of an array, as a matrix, brought near 1 by Newton-Schulz iterations."""
    xp = array_namespace(array)
    matrix = xp.reshape(array, (math.prod(array.shape[:rows]), math.prod(array.shape[rows:])))
    wide = matrix.shape[0] < matrix.shape[1]
    u = matrix.T if wide else matrix
    if u.size:  # squares of larger numbers would overflow
        u = u * (LARGE / xp.maximum(xp.max(xp.abs(u)), LARGE))
    u = u / xp.sqrt(xp.sum(u * u) + TINY)
    for _ in range(5):
        gram = matmul(u.T, u)
        u = 3.4445 * u + matmul(u, 2.0315 * matmul(gram, gram) - 4.7750 * gram)
    return xp.reshape(u.T if wide else u, array.shape)


def adamw_update(
    weight: AnyArray,
    gradient: Array,
    mean: Array,
    square: Array,
    /,
    *,
    rate: Number,
    step: Number,
    betas: tuple[float, float] = (0.9, 0.999),
    epsilon: float = 1e-8,
    weight_decay: float = 0.0,
) -> tuple[AnyArray, AnyArray, AnyArray]:
    """Take a step of AdamW (arXiv:1711.05101, algorithm 2): Adam, with a decay that is no part of the gradient.

    The running means become ``m = betas[0] mean + (1 - betas[0]) gradient`` and ``s = betas[1] square + (1 - betas[1])
    gradient^2``. The weight moves by ``-rate (m' / (sqrt(s') + epsilon) + weight_decay weight)``, where m' is m divided
    by ``1 - betas[0]^step``, and s' is s divided by ``1 - betas[1]^step``, because the means begin at 0.

    Parameters
    ----------
    weight : array
        float32 or float64, any shape.
    gradient, mean, square : array
        Of the shape of the weight. Both means are zero before the first step.
    rate : float or array without axes
        Learning rate.
    step : int or array without axes
        The number of this step, from 1.
    betas : tuple of float, optional
        Parts of the running means that are kept, from 0 to below 1.
    epsilon : float, optional
        Added to the root of the mean square.
    weight_decay : float, optional
        What is added to the step for each unit of weight. The rate multiplies it, as in PyTorch; in the publication
        only the rate's schedule does. With 0 this is Adam (arXiv:1412.6980, algorithm 1).

    Returns
    -------
    weight, mean, square : array
        After the step, in the shape and dtype of `weight`. No argument is changed.

    Raises
    ------
    TypeError
        If an array is integer or complex, or arrays of two libraries are mixed.
    ValueError
        If shapes differ, the rate or the step has axes, the step is below 1, or a beta is out of range.
    """
    xp, w, g, m, s = _operands(weight, gradient=gradient, mean=mean, square=square)
    first, second = (float(beta) for beta in betas)
    epsilon, weight_decay = float(epsilon), float(weight_decay)
    if not (0 <= first < 1 and 0 <= second < 1):
        raise ValueError(f"betas is {betas}; both must be at least 0 and below 1")
    rate, step = _number("rate", rate, w), _number("step", step, w)
    if isinstance(step, float) and not step >= 1:
        raise ValueError(f"step is {step}; the first step is 1")
    m = first * m + (1 - first) * g
    s = second * s + (1 - second) * g * g
    root = xp.sqrt(s / _part_seen(second, step)) + epsilon
    moved = w - rate / _part_seen(first, step) * m / root
    return moved - rate * weight_decay * w if weight_decay else moved, m, s


def _part_seen(beta: float, step: Any) -> Any:
    """``1 - beta^step``, without the digits that single precision would lose."""
    if not beta:
        return 1.0
    expm1 = math.expm1 if isinstance(step, float) else array_namespace(step).expm1
    return -expm1(math.log(beta) * step)


def _operands(weight: AnyArray, **others: Array) -> Any:
    """Return the namespace, and the arrays in the weight's dtype; ValueError where one has another shape."""
    xp = array_namespace(weight, *others.values())
    w = require_real(xp, "weight", weight)
    arrays = []
    for name, array in others.items():
        array = require_real(xp, name, array)
        if array.shape != w.shape:
            raise ValueError(f"{name} has shape {array.shape}; the weight has {w.shape}")
        arrays.append(xp.astype(array, w.dtype, copy=False))
    return xp, w, *arrays


def _number(name: str, number: Any, like: Array) -> Any:
    """Return Python's number, as NumPy's make float32 float64, or an array without axes, of the dtype of `like`."""
    if isinstance(number, int | float | np.generic) or (isinstance(number, np.ndarray) and not number.ndim):
        return float(number)
    xp = array_namespace(like, number)
    if number.shape != ():
        raise ValueError(f"{name} has shape {number.shape}; give a number, or an array without axes")
    return xp.astype(number, like.dtype, copy=False)


class Term(NamedTuple):
    """``(weight + rate * scalar) * array``, where there is a scalar, else ``weight * array``.

    Parameters
    ----------
    array : array
        float32 or float64.
    weight : float
        Its weight, or the constant part of it.
    rate : float, optional
        The factor of the scalar.
    scalar : array, optional
        A number that is known on the device alone: an array without axes, of the dtype of `array`.
    """

    array: Array
    weight: float
    rate: float = 0.0
    scalar: Array | None = None


def weighted_sums(sums: Sequence[Sequence[Term]], /, *, out: Sequence[Array] | None = None, where: Any = True) -> Any:
    """Return a sum of terms for each of several results.

    Parameters
    ----------
    sums : sequence of sequence of Term
        The terms of each result, one to three, all of one shape; all arrays of one dtype and library.
    out : sequence of array, optional
        Arrays that results are written to, one for each sum and of its terms' shapes; new arrays if not given. One may
        be a term of its own sum, but of no other.
    where : bool or array without axes, optional
        Whether `out` is changed at all.

    Returns
    -------
    list of array
        A result for each sum. For CuPy, one kernel computes up to 32 of them.

    Raises
    ------
    ValueError
        If a sum has no term or more than three, its terms, or `out`, differ in shape, or `out` has another length.
    """
    if out is not None and len(out) != len(sums):
        raise ValueError(f"out has {len(out)} arrays for {len(sums)} sums; give one for each")
    for number, terms in enumerate(sums):
        shapes = {term.array.shape for term in terms} | ({out[number].shape} if out else set())
        if not 1 <= len(terms) <= MOST_TERMS or len(shapes) != 1:
            raise ValueError(
                f"sum {number} has {len(terms)} terms, with its result of shapes {sorted(shapes)}; "
                f"give one to {MOST_TERMS} of one shape"
            )
    if not sums:
        return []
    xp = array_namespace(*(term.array for terms in sums for term in terms))
    return engine("updates", sums[0][0].array).weighted_sums(xp, sums, out, where)


@overload
def matmul(a: NumpyArray[Scalar], b: NumpyArray[Scalar], /) -> NumpyArray[Scalar]: ...
@overload
def matmul(a: PublicArray, b: PublicArray, /) -> PublicArray: ...
def matmul(a: PublicArray, b: PublicArray, /) -> PublicArray:
    """Matrix product ``a @ b`` that can be recorded in a CUDA graph.

    CuPy refuses to call cuBLAS while a CUDA graph is recorded. Small real matrices on a GPU are therefore multiplied by
    a kernel of this package. All others are multiplied by their library's ``matmul``.

    Parameters
    ----------
    a, b : array
        As `numpy.matmul` takes them, both of one library. The kernel takes real vectors and matrices with at most 2^26
        multiply-adds.

    Returns
    -------
    array
        As `numpy.matmul` returns it.

    Raises
    ------
    TypeError
        If the arrays belong to different libraries.
    ValueError
        If the shapes do not fit.
    """
    return engine("matmul", a, b).matmul(a, b)
