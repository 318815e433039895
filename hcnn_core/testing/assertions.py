r"""Assertions that any operator on arrays can be held to, with bounds that come from the arithmetic.

An operator is any callable from one array to one array. It gets arrays of the kind it is tested with (NumPy, CuPy, an
array-API library, or a framework's tensors) and may return any that has ``__array__`` or ``__dlpack__``.

**The bound.** Let a be the row of the operator's derivative at x that belongs to one output, so that small changes d
of x change that output by a . d. A sum of products a . x is at most :math:`|a| |x|` (Euclidean norms), and computing
it in N roundings, a random walk of steps of half an eps, goes wrong by about :math:`\sqrt{N}/2` eps of that.
`ROUNDINGS` = 20 allows walks of N = 1600, and longer sums are made in blocks whose errors do not add up. White noise
of variance 1 changes the output by :math:`|a|` in quadratic mean, so the largest row norm A is measured, as the
response to noise of the size of x. Of an operator of several stages, convolution after convolution, each adds its own
error, which the stages after it pass on as they pass on noise. Two results are compared, each wrong by as much, so

.. math:: \mathrm{bound} = 2 \cdot 20 \cdot \mathrm{stages} \cdot \mathrm{eps} \cdot (|x| A + \max |op(x)|).

Errors of meaning (a tap, a sign, a border, a stride) are larger by the factor 1 / eps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from hcnn_core._backend import Array
from hcnn_core._geometry import BOUNDARIES, normalize_axes, normalize_choice, normalize_integers
from hcnn_core.testing._edges import NDArray, call, like, to_host
from hcnn_core.translation import translate

__all__ = [
    "ROUNDINGS",
    "Deviation",
    "assert_adjoint",
    "assert_linear",
    "assert_translation_covariant",
    "assert_translation_invariant",
    "covariance_deviations",
    "rounding_bound",
]

Operator: TypeAlias = Callable[[Any], Any]

ROUNDINGS = 20
"""Rounding errors of one stage, in units of eps and the norms of what is multiplied."""

DIRECTIONS = 8
"""Draws of noise that measure an amplification: for a single output chance makes their quadratic mean eight times too
small less than once in a million."""


@dataclass(frozen=True)
class Deviation:
    """How far an operator is from what was claimed of it, in one comparison.

    Parameters
    ----------
    claim : str
        What should be equal.
    error : float
        Largest absolute difference.
    bound : float
        What rounding may make of it.
    index : tuple of int
        Where the largest difference is.
    found, expected : complex
        The two values there.
    dtype : str
        Whose eps the bound is made of.
    """

    claim: str
    error: float
    bound: float
    index: tuple[int, ...]
    found: complex
    expected: complex
    dtype: str

    @property
    def holds(self) -> bool:
        """Whether the difference is within the bound; NaN is not."""
        return self.error <= self.bound

    def __str__(self) -> str:
        return (
            f"{self.claim}: off by {self.error:.3g} at index {self.index} ({self.found:.6g} instead of "
            f"{self.expected:.6g}), where rounding explains {self.bound:.3g} ({self.dtype})"
        )


def assert_translation_covariant(
    op: Operator,
    x: Array,
    in_axes: int | Sequence[int],
    out_axes: int | Sequence[int] | None = None,
    stride: int | Sequence[int] = 1,
    boundary: str | Sequence[str] = "periodic",
    *,
    shift: int | Sequence[int] | None = None,
    stages: int = 1,
    eps: float | None = None,
) -> None:
    """Assert that translating x translates op(x), and nothing else.

    Moving x by ``stride * k`` samples along ``in_axes`` has to move op(x) by k samples along ``out_axes``.

    Parameters
    ----------
    op : callable
        From an array of the kind of x to an array.
    x : array
        float or complex, of NumPy, CuPy, an array-API library, or a tensor with ``__dlpack__``. It is not changed.
    in_axes : int or sequence of int
        Axes of x that are translated.
    out_axes : int or sequence of int, optional
        The axes of op(x) they become, as many; the same numbers by default.
    stride : int or sequence of int, optional
        How many samples of x are one of op(x), along all axes or along each.
    boundary : {"periodic", "zero"} or sequence of them, optional
        What enters at the end that was left: the other end, or zeros. With zeros, results are compared where neither
        is filled up, and an operator is covariant only where x is zero as far from its ends as the operator reaches.
    shift : int or sequence of int, optional
        How far to move x, in samples, along all axes or each: multiples of `stride`. By default several are tried:
        one stride forth and back and half the length, along each axis, and one stride along all.
    stages : int, optional
        How many convolutions follow one another in op; its rounding errors are their sum.
    eps : float, optional
        Relative precision of op's arithmetic if it is coarser than its result's dtype (TF32: ``2**-10``).

    Raises
    ------
    AssertionError
        If it is not covariant; one line says which shift, which axis, where, and how large error and bound are.
    TypeError, ValueError
        If arguments do not fit, if op raises, or returns no array or one of a wrong shape.

    Notes
    -----
    Section 3 of arXiv:1703.04140. `hcnn_core.testing.assertions` derives the bound.

    Examples
    --------
    >>> import numpy as np
    >>> from hcnn_core import convolve
    >>> x, w = np.random.default_rng(0).standard_normal((2, 8))
    >>> assert_translation_covariant(lambda x: convolve(x, w, 0, boundary="periodic"), x, 0)
    """
    deviations = covariance_deviations(
        op, x, in_axes, out_axes, stride, boundary, shift=shift, stages=stages, eps=eps
    )
    _raise_first("op is not covariant to translations", deviations)


def assert_translation_invariant(
    op: Operator,
    x: Array,
    axes: int | Sequence[int],
    stride: int | Sequence[int] = 1,
    boundary: str | Sequence[str] = "periodic",
    *,
    shift: int | Sequence[int] | None = None,
    stages: int = 1,
    eps: float | None = None,
) -> None:
    """Assert that translating x by multiples of a stride leaves op(x) as it is.

    Parameters
    ----------
    op : callable
        From an array of the kind of x to an array.
    x : array
        As in `assert_translation_covariant`.
    axes : int or sequence of int
        Axes of x that are translated.
    stride : int or sequence of int, optional
        Translations by multiples of it count. An operator that subsamples r times by 2 before it sums is invariant to
        multiples of 2**r.
    boundary : {"periodic", "zero"} or sequence of them, optional
        What enters at the end that was left.
    shift : int or sequence of int, optional
        How far to move x, in samples: multiples of `stride`; by default several, as `assert_translation_covariant`.
    stages : int, optional
        How many convolutions follow one another in op.
    eps : float, optional
        Relative precision of op's arithmetic if it is coarser than its result's dtype.

    Raises
    ------
    AssertionError
        If it is not invariant; one line says which shift, which axis, where, and how large error and bound are.
    TypeError, ValueError
        If arguments do not fit, if op raises or returns no array.

    Notes
    -----
    Proposition 3.1 of arXiv:1703.04140.
    """
    deviations = covariance_deviations(op, x, axes, (), stride, boundary, shift=shift, stages=stages, eps=eps)
    _raise_first("op is not invariant to translations", deviations)


def covariance_deviations(
    op: Operator,
    x: Array,
    in_axes: int | Sequence[int],
    out_axes: int | Sequence[int] | None = None,
    stride: int | Sequence[int] = 1,
    boundary: str | Sequence[str] = "periodic",
    *,
    shift: int | Sequence[int] | None = None,
    stages: int = 1,
    eps: float | None = None,
) -> Iterator[Deviation]:
    """Measure what `assert_translation_covariant` asserts, one deviation per translation.

    Parameters
    ----------
    op, x, in_axes, out_axes, stride, boundary, shift, stages, eps
        As in `assert_translation_covariant`; no ``out_axes`` at all, ``()``, measures invariance.

    Yields
    ------
    Deviation
        Error and bound of one translation.

    Raises
    ------
    TypeError, ValueError
        As `assert_translation_covariant`.
    """
    host = _operand("x", x)
    move = _Translation.make(host.shape, in_axes, out_axes, stride, boundary)
    shifts = move.few_shifts() if shift is None else [move.multiples(shift)]
    y = call("op", op, like(host, x))
    move.require_lengths(y.shape)
    _require_comparable(y)
    bound = rounding_bound(op, x, y, stages=stages, eps=eps)
    for steps in shifts:
        moved = call("op", op, like(move.before(host, steps), x))
        if moved.shape != y.shape:
            raise ValueError(f"op returned shape {y.shape} for x and {moved.shape} for x translated; they must agree")
        found, expected, offset = move.overlap(moved, y, steps)
        yield _compare(move.claim(steps), found, expected, bound, offset, str(y.dtype))


def assert_linear(
    op: Operator, x: Array, other: Array | None = None, *, stages: int = 1, eps: float | None = None
) -> None:
    """Assert that op(a x + b y) = a op(x) + b op(y) for two fixed numbers a and b, complex ones for complex x.

    Parameters
    ----------
    op : callable
        From an array of the kind of x to an array.
    x : array
        As in `assert_translation_covariant`.
    other : array, optional
        The y of the formula, of the shape of x; white noise of the size of x by default.
    stages : int, optional
        How many convolutions follow one another in op.
    eps : float, optional
        Relative precision of op's arithmetic if it is coarser than its result's dtype.

    Raises
    ------
    AssertionError
        If it is not linear; one line says where, and how large error and bound are.
    TypeError, ValueError
        If arguments do not fit, if op raises or returns no array.
    """
    host = _operand("x", x)
    second = _size(host) * _noise(host.shape, host.dtype, 1) if other is None else _operand("other", other)
    if second.shape != host.shape:
        raise ValueError(f"other has shape {second.shape}; x has {host.shape}")
    a, b = (0.75 - 0.5j, -1.25 + 0.25j) if np.iscomplexobj(host) else (0.75, -1.25)
    combined = np.asarray(a * host + b * second, host.dtype)
    y, z, found = (call("op", op, like(array, x)) for array in (host, second, combined))
    _require_comparable(y)
    if not y.shape == z.shape == found.shape:
        raise ValueError(f"op returned shapes {y.shape}, {z.shape} and {found.shape} for arrays of one shape")
    bound = sum(
        rounding_bound(op, like(array, x), result, stages=stages, eps=eps) for array, result in ((host, y), (second, z))
    )
    claim = f"op is not linear: op({a} x + {b} y) should be {a} op(x) + {b} op(y)"
    _require(_compare(claim, found, a * wide(y) + b * wide(z), 2 * bound, (0,) * y.ndim, str(y.dtype)))


def assert_adjoint(
    op: Operator,
    adjoint: Operator,
    x: Array,
    y: Array | None = None,
    *,
    conjugate: bool = False,
    stages: int = 1,
    eps: float | None = None,
) -> None:
    r"""Assert by the dot test that two linear operators are each other's adjoints: <op(x), y> = <x, adjoint(y)>.

    Each side is wrong by at most ``20 stages eps |x| |A| |y|`` with A's Frobenius norm, which is the response to
    white noise of variance 1: :math:`E |A d|^2 = |A|^2`. The bound is the sum of both sides'.

    Parameters
    ----------
    op, adjoint : callable
        Linear, from an array of the kind of x to an array, and back.
    x : array
        As in `assert_translation_covariant`.
    y : array, optional
        Of the shape of op(x); white noise by default.
    conjugate : bool, optional
        Whether the products of complex numbers conjugate the second one: False for transposes, as in reverse mode
        (`hcnn_core.convolve_vjp_x`, HIPS autograd, JAX), True for the adjoints of a Hilbert space (PyLops).
    stages : int, optional
        How many convolutions follow one another in op.
    eps : float, optional
        Relative precision of op's arithmetic if it is coarser than its result's dtype.

    Raises
    ------
    AssertionError
        If the two products differ; one line says by how much, and what the bound is.
    TypeError, ValueError
        If arguments do not fit, if an operator raises or returns no array or one of a wrong shape.
    """
    u = _operand("x", x)
    forward = call("op", op, like(u, x))
    _require_comparable(forward)
    v = np.asarray(_noise(forward.shape, forward.dtype, 1)) if y is None else _operand("y", y)
    if v.shape != forward.shape:
        raise ValueError(f"y has shape {v.shape}; op(x) has {forward.shape}")
    reference = x if y is None else y
    back = call("adjoint", adjoint, like(v, reference))
    if back.shape != u.shape:
        raise ValueError(f"adjoint(y) has shape {back.shape}; x has {u.shape}")
    frobenius = max(
        _amplification("op", op, x, np.zeros_like(u), None, np.linalg.norm),
        _amplification("adjoint", adjoint, reference, np.zeros_like(v), None, np.linalg.norm),
    )
    unit, name = _eps(eps, forward, back)
    bound = 2 * ROUNDINGS * stages * unit * norm(u) * norm(v) * frobenius
    left, right = (np.sum(wide(a) * (wide(b).conj() if conjugate else wide(b))) for a, b in ((forward, v), (u, back)))
    claim = "adjoint is not the adjoint of op: <op(x), y> should be <x, adjoint(y)>"
    _require(_compare(claim, np.asarray(left), np.asarray(right), bound, (), name))


def rounding_bound(
    op: Operator, x: Array, y: NDArray | None = None, *, stages: int = 1, eps: float | None = None
) -> float:
    """Return how far rounding can take apart two computations of op at x that are equal in exact arithmetic.

    Parameters
    ----------
    op : callable
        From an array of the kind of x to an array. It is called 8 times, on x with white noise added.
    x : array
        As in `assert_translation_covariant`.
    y : NumPy array, optional
        op(x), where it is known.
    stages : int, optional
        How many convolutions follow one another in op.
    eps : float, optional
        Relative precision of op's arithmetic if it is coarser than its result's dtype.

    Returns
    -------
    float
        ``2 * 20 * stages * eps * (norm(x) * A + max(abs(op(x))))``, A the largest norm of a row of op's derivative.

    Raises
    ------
    TypeError, ValueError
        If arguments do not fit, if op raises or returns no array.

    Notes
    -----
    The documentation of `hcnn_core.testing.assertions` derives it.
    """
    if stages < 1:
        raise ValueError(f"stages is {stages}; an operator has at least 1")
    host = _operand("x", x)
    y = call("op", op, like(host, x)) if y is None else y
    rows = _amplification("op", op, x, host, y, lambda d: np.max(np.abs(d)))
    unit, _ = _eps(eps, y, host)
    return float(2 * ROUNDINGS * stages * unit * (norm(host) * rows + np.max(np.abs(wide(y)))))


def norm(array: NDArray) -> float:
    """Euclidean norm, in double precision."""
    return float(np.linalg.norm(wide(array).ravel()))


def wide(array: NDArray) -> NDArray:
    """The array in double precision."""
    return np.asarray(array, np.result_type(array.dtype, np.float64))


@dataclass(frozen=True)
class _Translation:
    """Axes before and after an operator, and what one step along each is."""

    lengths: tuple[int, ...]
    in_axes: tuple[int, ...]
    out_axes: tuple[int, ...]
    """Empty for operators that are to be invariant."""
    stride: tuple[int, ...]
    boundary: tuple[str, ...]

    @classmethod
    def make(cls, shape: tuple[int, ...], in_axes: Any, out_axes: Any, stride: Any, boundary: Any) -> _Translation:
        in_axes = normalize_axes("in_axes", in_axes, len(shape))
        if not in_axes:
            raise ValueError("in_axes names no axis; translations are along at least one")
        count = len(in_axes)
        if out_axes is None:
            out_axes = in_axes
        out_axes = (out_axes,) if isinstance(out_axes, int) else tuple(out_axes)
        if out_axes and len(out_axes) != count:
            raise ValueError(f"out_axes names {len(out_axes)} axes, in_axes {count}; each becomes one of op(x)")
        lengths = tuple(shape[a] for a in in_axes)
        move = cls(
            lengths,
            in_axes,
            out_axes,
            normalize_integers("stride", stride, count, 1),
            normalize_choice("boundary", boundary, count, BOUNDARIES),
        )
        for axis, n, r, bound in zip(in_axes, lengths, move.stride, move.boundary, strict=True):
            if out_axes and bound == "periodic" and n % r:
                raise ValueError(
                    f"stride {r} does not divide the {n} samples of axis {axis}; no periodic translation of op(x) "
                    "corresponds to one of x"
                )
        return move

    def require_lengths(self, y_shape: tuple[int, ...]) -> None:
        """Refuse a result whose axes are not those of x, subsampled."""
        for source, axis, n, r in zip(
            self.in_axes, normalize_axes("out_axes", self.out_axes, len(y_shape)), self.lengths, self.stride
        ):
            if y_shape[axis] != -(-n // r):
                raise ValueError(
                    f"op returned shape {y_shape}; its axis {axis} has length {y_shape[axis]}, and axis {source} of x, "
                    f"of length {n} at stride {r}, would become {-(-n // r)}"
                )

    def multiples(self, shift: Any) -> tuple[int, ...]:
        """A shift in samples as a number of strides along each axis."""
        shifts = normalize_integers("shift", shift, len(self.in_axes))
        for axis, s, n, r, bound in zip(
            self.in_axes, shifts, self.lengths, self.stride, self.boundary, strict=True
        ):
            if s % r:
                raise ValueError(f"shift {s} along axis {axis} is no multiple of stride {r}, the translations that count")
            if bound == "zero" and abs(s) >= n:
                raise ValueError(f"shift {s} leaves nothing of the {n} samples of axis {axis} to compare")
        return tuple(s // r for s, r in zip(shifts, self.stride, strict=True))

    def few_shifts(self) -> list[tuple[int, ...]]:
        """Steps that are not the identity: one forth, one back and half the length along each axis, one along all."""
        counts = [max(1, n // r) for n, r in zip(self.lengths, self.stride, strict=True)]
        identity = (0,) * len(counts)
        found = {
            identity[:i] + (k,) + identity[i + 1 :]
            for i, n in enumerate(counts)
            for k in (1, -1, n // 2)
            if k % n
        }
        if len(counts) > 1:
            found.add(tuple(1 if n > 1 else 0 for n in counts))
        found.discard(identity)
        if not found:
            raise ValueError(
                f"axes {self.in_axes} have {self.lengths} samples at stride {self.stride}: every translation is the "
                "identity, so that nothing can be tested"
            )
        return sorted(found, key=lambda steps: (sum(map(abs, steps)), [-k for k in steps]))

    def before(self, x: NDArray, steps: tuple[int, ...]) -> NDArray:
        shifts = [k * r for k, r in zip(steps, self.stride, strict=True)]
        return np.asarray(translate(x, shifts, self.in_axes, boundary=self.boundary))

    def overlap(
        self, moved: NDArray, y: NDArray, steps: tuple[int, ...]
    ) -> tuple[NDArray, NDArray, tuple[int, ...]]:
        """op of x translated, op(x) translated, both where neither is filled up, and where that begins."""
        if not self.out_axes:
            return moved, y, (0,) * y.ndim
        axes = normalize_axes("out_axes", self.out_axes, y.ndim)
        expected = np.asarray(translate(y, steps, axes, boundary=self.boundary))
        inside = [slice(0, n) for n in y.shape]
        for axis, k, bound in zip(axes, steps, self.boundary, strict=True):
            if bound == "zero":
                inside[axis] = slice(max(k, 0), y.shape[axis] + min(k, 0))
        return moved[tuple(inside)], expected[tuple(inside)], tuple(part.start for part in inside)

    def claim(self, steps: tuple[int, ...]) -> str:
        """What one translation should do, in words."""
        by = [(k * r, a) for k, r, a in zip(steps, self.stride, self.in_axes, strict=True) if k]
        words = f"translating x by {_along(by) or '0'} should "
        if not self.out_axes:
            return words + "leave op(x) as it is"
        return words + f"translate op(x) by {_along([(k, a) for k, a in zip(steps, self.out_axes, strict=True) if k])}"


def _along(moves: Sequence[tuple[int, int]]) -> str:
    return " and ".join(f"{k} along axis {axis}" for k, axis in moves)


def _operand(name: str, array: Array) -> NDArray:
    """The argument on the host; empty ones and values that are not finite can show nothing."""
    host = to_host(name, array)
    if not host.size:
        raise ValueError(f"{name} has shape {host.shape}; with no element there is nothing to test")
    if not np.isfinite(host).all():
        raise ValueError(f"{name} holds values that are not finite")
    return host


def _require_comparable(y: NDArray) -> None:
    if not y.size:
        raise ValueError(f"op returned shape {y.shape}; with no element there is nothing to test")
    if not np.isfinite(y).all():
        index = tuple(map(int, np.argwhere(~np.isfinite(y))[0]))
        raise AssertionError(f"op(x) is {y[index]} at index {index}, though x is finite: nothing can be compared")


def _noise(shape: tuple[int, ...], dtype: Any, seed: int) -> NDArray:
    """White noise of variance 1."""
    rng = np.random.default_rng(seed)
    if np.issubdtype(dtype, np.complexfloating):
        return np.asarray((rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) / math.sqrt(2), dtype)
    return np.asarray(rng.standard_normal(shape), dtype)


def _size(x: NDArray) -> float:
    """Quadratic mean of the elements, or 1 for zeros."""
    return norm(x) / math.sqrt(x.size) or 1.0


def _amplification(
    name: str,
    op: Operator,
    reference: Array,
    x: NDArray,
    y: NDArray | None,
    measure: Callable[[NDArray], Any],
) -> float:
    """Response of op, by a measure of its change, to noise of variance 1 about x: the quadratic mean of several."""
    size = _size(x)
    squares = []
    for seed in range(DIRECTIONS):
        noisy = np.asarray(x + size * _noise(x.shape, x.dtype, 100 + seed), x.dtype)
        change = wide(call(name, op, like(noisy, reference)))
        if y is not None and change.shape != y.shape:
            raise ValueError(f"{name} returned shapes {y.shape} and {change.shape} for arrays of one shape")
        squares.append(float(measure(change if y is None else change - wide(y)) / size) ** 2)
    return math.sqrt(math.fsum(squares) / DIRECTIONS)


def _eps(eps: float | None, *arrays: NDArray) -> tuple[float, str]:
    """The precision asked for, or the coarsest of the arrays', and its name."""
    if eps is not None:
        return eps, f"eps {eps:.3g}"
    coarsest = max(arrays, key=lambda a: float(np.finfo(a.dtype).eps))
    return float(np.finfo(coarsest.dtype).eps), str(coarsest.dtype)


def _compare(
    claim: str, found: NDArray, expected: NDArray, bound: float, offset: tuple[int, ...], dtype: str
) -> Deviation:
    """The largest difference, and its place in an array of which these are the part from `offset` on."""
    errors = np.abs(wide(found) - wide(expected))
    worst = np.unravel_index(int(np.argmax(np.where(np.isnan(errors), np.inf, errors))), errors.shape)
    index = tuple(int(i) + o for i, o in zip(worst, offset, strict=True))
    values = (wide(array)[worst].item() for array in (found, expected))
    return Deviation(claim, float(errors[worst]), bound, index, *values, dtype)


def _raise_first(claim: str, deviations: Iterator[Deviation]) -> None:
    for deviation in deviations:
        if not deviation.holds:
            raise AssertionError(f"{claim}: {deviation}")


def _require(deviation: Deviation) -> None:
    if not deviation.holds:
        raise AssertionError(str(deviation))
