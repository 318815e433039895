r"""Assertions about operators on arrays, with error bounds derived from floating-point arithmetic.

An operator is any callable from one array to one array. It gets arrays of the kind it is tested with (NumPy, CuPy, an
array-API library, or a framework's tensors) and may return any that has ``__array__`` or ``__dlpack__``.

**The bound.** Let a be the row of the operator's derivative at x that belongs to one output: a small change d of x
changes that output by a . d. The sum of products a . x is at most :math:`|a| |x|` (Euclidean norms). Computing it takes
N roundings of about half an eps each. They add up like a random walk, to an error of about :math:`\sqrt{N}/2` eps times
that product. `ROUNDINGS` = 20 allows for N = 1600. Longer sums are computed in blocks, whose errors do not add up, or
in several stages.

The product :math:`|a| |x|` is measured. White noise of standard deviation eps :math:`|x|`, added to x, changes the
output by eps :math:`|a| |x|` in quadratic mean. Let R be the change of the output that changes most. R also contains
rounding errors that :math:`|a| |x|` does not: with x, all intermediate results change, so their roundings change too.
This covers large intermediate results that cancel later.

In an operator of several stages, such as convolution after convolution, each stage adds an error of its own, and the
later stages pass it on as they pass on noise. Two results are compared, and each has this error. So

.. math:: \mathrm{bound} = 2 \cdot 20 \cdot \mathrm{stages} \cdot (R + \mathrm{eps} \max |op(x)|).

A wrong tap, sign, border or stride causes an error that is larger by the factor 1 / eps.

**Its limits.** If R is more than half the digits, :math:`R > \sqrt{\mathrm{eps}} \max |op(x)|`, it may not come from
rounding: an operator that draws random numbers, or jumps at x, would get a large bound and pass. Such an R is replaced
by half the digits, or by the response to noise `LOUD` times as strong, divided by `LOUD`, if that is more. The message
then says how far noise of one eps moves the operator. As a consequence, an operator fails if its result is mostly
rounding error, such as a marginal right after filters with mean zero. The bound does not contain errors that noise in x
cannot reach: those of stages after one that x saturates, and those of constants that are large compared with x.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from hcnn_core._problem import BOUNDARIES, Boundary, normalize_axes, normalize_choice, normalize_integers
from hcnn_core.backend import Array
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
"""Rounding error allowed per stage, in units of eps times the norms of the operands."""

DRAWS = 8
"""R is the quadratic mean of this many draws of noise. For a single output it is then eight times too small with a
probability below one in a million."""

LOUD = 32 * ROUNDINGS
"""Strength of the loud noise per stage. An output that changes by itself gets a bound of a 16th of its change."""


@dataclass(frozen=True)
class Deviation:
    """Difference between what an operator did and what it should do, in one comparison.

    Parameters
    ----------
    claim : str
        What should be equal.
    error : float
        Largest absolute difference.
    bound : float
        Largest difference that rounding errors explain.
    index : tuple of int
        Where the largest difference is.
    actual, expected : complex
        The two values there.
    dtype : str
        The dtype whose eps is in the bound. If noise of one eps moves the operator far, also by how much.
    """

    claim: str
    error: float
    bound: float
    index: tuple[int, ...]
    actual: complex
    expected: complex
    dtype: str

    @property
    def holds(self) -> bool:
        """Whether the difference is within the bound; False for NaN."""
        return self.error <= self.bound

    def __str__(self) -> str:
        where = f" at index {self.index}" if self.index else ""
        return (
            f"{self.claim}: off by {self.error:.3g}{where} ({self.actual:.6g} instead of {self.expected:.6g}), "
            f"where rounding explains {self.bound:.3g} ({self.dtype})"
        )


def assert_translation_covariant(
    op: Operator,
    x: Array,
    in_axes: int | Sequence[int],
    out_axes: int | Sequence[int] | None = None,
    stride: int | Sequence[int] = 1,
    boundary: Boundary | Sequence[Boundary] = "periodic",
    *,
    shift: int | Sequence[int] | None = None,
    stages: int = 1,
) -> None:
    """Assert that translating x translates op(x) and changes nothing else.

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
        The axes of op(x) that correspond to `in_axes`; by default the same ones, counted from the front.
    stride : int or sequence of int, optional
        How many samples of x correspond to one of op(x), along all axes or along each.
    boundary : {"periodic", "zero"} or sequence of them, optional
        What fills the samples that become free: those that leave at the other end, or zeros. With zeros, results are
        compared where neither was filled, and x must be zero near its ends: over as many samples as it is moved, plus
        the reach of the operator.
    shift : int or sequence of int, optional
        How far to move x, in samples, along all axes or each: multiples of `stride`. By default several shifts are
        tried: one stride forth and back along each axis, half the length of periodic axes, and one stride along all.
    stages : int, optional
        Number of successive convolutions in op. Their rounding errors add up.

    Raises
    ------
    AssertionError
        If it is not covariant; one line gives shift, axis, place, error and bound.
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
    __tracebackhide__ = True
    deviations = covariance_deviations(op, x, in_axes, out_axes, stride, boundary, shift=shift, stages=stages)
    _raise_first("op is not covariant to translations", deviations)


def assert_translation_invariant(
    op: Operator,
    x: Array,
    in_axes: int | Sequence[int],
    stride: int | Sequence[int] = 1,
    boundary: Boundary | Sequence[Boundary] = "periodic",
    *,
    shift: int | Sequence[int] | None = None,
    stages: int = 1,
) -> None:
    """Assert that translating x by multiples of a stride does not change op(x): Proposition 3.1 of arXiv:1703.04140.

    An operator that subsamples r times by 2 before it sums is invariant to multiples of 2**r. All else as in
    `assert_translation_covariant`.
    """
    __tracebackhide__ = True
    deviations = covariance_deviations(op, x, in_axes, (), stride, boundary, shift=shift, stages=stages)
    _raise_first("op is not invariant to translations", deviations)


def covariance_deviations(
    op: Operator,
    x: Array,
    in_axes: int | Sequence[int],
    out_axes: int | Sequence[int] | None = None,
    stride: int | Sequence[int] = 1,
    boundary: Boundary | Sequence[Boundary] = "periodic",
    *,
    shift: int | Sequence[int] | None = None,
    stages: int = 1,
) -> Iterator[Deviation]:
    """Measure what `assert_translation_covariant` asserts: yield error and bound of each translation.

    With ``out_axes=()``, invariance is measured. All else as there.
    """
    host = _operand("x", x)
    move = Translation.make(host.shape, in_axes, out_axes, stride, boundary)
    shifts = move.few_shifts() if shift is None else [move.multiples(shift)]
    run = _Hosted("op", op, x)
    y = run(host)
    move.require_lengths(y.shape)
    _require_finite("op(x)", y)
    arithmetic = _Arithmetic.make(stages, host, y)
    bound, basis = arithmetic.bound("op(x)", run, host, y)
    for steps in shifts:
        actual, expected, offset = move.overlap(run(move.before(host, steps)), y, steps)
        yield _compare(move.claim(steps, host), actual, expected, bound, offset, basis)


def assert_linear(op: Operator, x: Array, *, stages: int = 1) -> None:
    """Assert that op(a x + b y) = a op(x) + b op(y) for white noise y of the size of x and two fixed numbers a and b.

    The numbers are complex for complex x. Arguments and errors are those of `assert_translation_covariant`.
    """
    __tracebackhide__ = True
    host = _operand("x", x)
    second = np.asarray(_size(host) * _noise(host.shape, host.dtype, 1))
    a, b = (0.75 - 0.5j, -1.25 + 0.25j) if np.iscomplexobj(host) else (0.75, -1.25)
    run = _Hosted("op", op, x)
    y, z = run(host), run(second)
    _require_finite("op(x)", y)
    _require_finite("op(y)", z)
    arithmetic = _Arithmetic.make(stages, host, y)
    of_y, basis = arithmetic.bound("op(x)", run, host, y)
    of_z, other_basis = arithmetic.bound("op(y)", run, second, z)
    actual, expected = run(np.asarray(a * host + b * second, host.dtype)), a * wide(y) + b * wide(z)
    claim = f"op is not linear: op({a} x + {b} y) should be {a} op(x) + {b} op(y)"
    bound, basis = abs(a) * of_y + abs(b) * of_z, max(basis, other_basis, key=len)
    _require(_compare(claim, actual, expected, bound, (0,) * y.ndim, basis))


def assert_adjoint(
    op: Operator,
    adjoint: Operator,
    x: Array,
    y: Array | None = None,
    *,
    conjugate: bool = False,
    stages: int = 1,
) -> None:
    r"""Assert by the dot test that two linear operators are each other's adjoints: <op(x), y> = <x, adjoint(y)>.

    The error of each element of op(x) is at most half of `rounding_bound`, and grows by ``|y|`` in the product. The
    bound is the sum for both sides. Where it is above the product, as for small changes of a large mean, a second test
    has white noise for x. If one array is real, the other complex, as for ``numpy.fft.rfft``, real parts are compared.

    Parameters
    ----------
    op, adjoint : callable
        Linear, from an array of the kind of x to an array, and back.
    x, stages
        As in `assert_translation_covariant`.
    y : array, optional
        Of the shape of op(x); white noise by default.
    conjugate : bool, optional
        Whether products of complex numbers conjugate the second factor. False tests for the transpose, as in reverse
        mode (`hcnn_core.convolve_vjp_x`, HIPS autograd, JAX); True for the adjoint of a Hilbert space (PyLops).

    Raises
    ------
    AssertionError, TypeError, ValueError
        As `assert_translation_covariant`.
    """
    __tracebackhide__ = True
    u = _operand("x", x)
    forward, backward = _Hosted("op", op, x), _Hosted("adjoint", adjoint, x if y is None else y)
    image = forward(u)
    _require_finite("op(x)", image)
    v = np.asarray(_noise(image.shape, image.dtype, 1)) if y is None else _operand("y", y)
    if v.shape != image.shape:
        raise ValueError(f"y has shape {v.shape}; op(x) has {image.shape}")
    back = backward(v)
    if back.shape != u.shape:
        raise ValueError(f"adjoint(y) has shape {back.shape}; x has {u.shape}")
    _require_finite("adjoint(y)", back)
    over_reals = np.iscomplexobj(u) != np.iscomplexobj(image)

    def product(a: NDArray, b: NDArray) -> NDArray:
        total = np.sum(wide(a) * (wide(b).conj() if conjugate else wide(b)))
        return np.asarray(total.real if over_reals else total)

    arithmetic = _Arithmetic.make(stages, u, image, v, back)
    of_back, other_basis = arithmetic.bound("adjoint(y)", backward, v, back)
    rule = f" by conjugate={conjugate}" if np.iscomplexobj(v) else ""
    claim = f"adjoint is not the adjoint of op: <op(x), y> should be <x, adjoint(y)>{rule}"
    for z, where in ((u, ""), (_noise(u.shape, u.dtype, 2), " where x is noise")):
        image = forward(z)
        left, (of_image, basis) = product(image, v), arithmetic.bound("op(x)", forward, z, image)
        bound, basis = (of_image * norm(v) + of_back * norm(z)) / 2, max(basis, other_basis, key=len)
        _require(_compare(claim + where, left, product(z, back), bound, (), basis))
        if bound < abs(left):  # otherwise even a wrong factor would hide, as where op takes away the mean of x
            break


def rounding_bound(op: Operator, x: Array, y: NDArray | None = None, *, stages: int = 1) -> float:
    """Return how far two computations of op(x), equal in exact arithmetic, may differ by rounding errors.

    Parameters
    ----------
    op : callable
        From an array of the kind of x to an array. It is called 8 or 16 times, on x with noise added.
    x, stages
        As in `assert_translation_covariant`.
    y : NumPy array, optional
        The value op(x), if it is known already.

    Returns
    -------
    float
        ``2 * 20 * stages * (R + eps * max(abs(op(x))))``, R the largest change of an output by noise of eps norm(x).

    Raises
    ------
    AssertionError
        If op(x) holds NaN or infinities.
    TypeError, ValueError
        If arguments do not fit, if op raises or returns no array.

    Notes
    -----
    The documentation of `hcnn_core.testing.assertions` derives it.
    """
    host, run = _operand("x", x), _Hosted("op", op, x)
    y = run(host) if y is None else to_host("y", y)
    _require_finite("op(x)", y)
    return _Arithmetic.make(stages, host, y).bound("op(x)", run, host, y)[0]


def norm(array: NDArray) -> float:
    """Euclidean norm in double precision, computed so that squares do not overflow."""
    top = largest(array)
    return float(top * np.linalg.norm(wide(array).ravel() / top)) if top else 0.0


def largest(array: NDArray) -> float:
    """Largest absolute value."""
    return float(np.max(np.abs(wide(array))))


def wide(array: NDArray) -> NDArray:
    """Return the array in double precision."""
    return np.asarray(array, np.result_type(array.dtype, np.float64))


@dataclass
class _Hosted:
    """An operator wrapped as a function from NumPy arrays of one shape to NumPy arrays of one shape."""

    name: str
    op: Operator
    reference: Array
    shape: tuple[int, ...] | None = None
    """Shape of its results; None before the first call."""

    def __call__(self, x: NDArray) -> NDArray:
        y = call(self.name, self.op, like(x, self.reference))
        if self.shape is None:
            self.shape = y.shape
        if y.shape != self.shape:
            raise ValueError(f"{self.name} returned shapes {self.shape} and {y.shape} for arrays of one shape")
        return y


@dataclass(frozen=True)
class _Arithmetic:
    """Number of stages of an operator, and their precision."""

    stages: int
    eps: float
    dtype: str

    @classmethod
    def make(cls, stages: Any, *arrays: NDArray) -> _Arithmetic:
        """Return the lowest precision among the arrays."""
        try:
            stages = operator.index(stages)
        except TypeError:
            raise TypeError(f"stages is {stages!r}; give an integer") from None
        if stages < 1:
            raise ValueError(f"stages is {stages}; an operator has at least 1")
        coarsest = max((np.finfo(array.dtype) for array in arrays), key=lambda info: float(info.eps))
        return cls(stages, float(coarsest.eps), str(coarsest.dtype))

    def bound(self, name: str, run: Callable[[NDArray], NDArray], x: NDArray, y: NDArray) -> tuple[float, str]:
        """How far two computations of run(x), one of them y, may differ, and the precision behind it in words."""
        size, faint, basis = largest(y), self.eps * norm(x), self.dtype
        moved, half = self._response(name, run, x, y, faint), math.sqrt(self.eps) * size
        if moved > half:
            loud = LOUD * self.stages
            basis = f"{self.dtype}; noise of one eps moves {name} by {moved:.3g}"
            moved = max(half, self._response(name, run, x, y, loud * faint) / loud)
        return 2 * ROUNDINGS * self.stages * (moved + self.eps * size), basis

    @staticmethod
    def _response(name: str, run: Callable[[NDArray], NDArray], x: NDArray, y: NDArray, size: float) -> float:
        """Largest change of an output under white noise of this size: the quadratic mean over several draws."""
        changes = []
        for seed in range(DRAWS):
            noisy = run(np.asarray(x + size * _noise(x.shape, x.dtype, 100 + seed), x.dtype))
            if noisy.shape != y.shape:
                raise ValueError(f"y has shape {y.shape}; {name} has {noisy.shape}")
            if (finite := np.isfinite(noisy)).any():
                changes.append(largest(wide(noisy[finite]) - wide(y[finite])))
        if not changes:
            raise ValueError(
                f"{name} is finite, but not with noise of {size:.3g}, so that its rounding errors cannot be measured; "
                "give an array further inside the range it is defined on, or one in double precision"
            )
        return math.hypot(*changes) / math.sqrt(len(changes))


@dataclass(frozen=True)
class Translation:
    """Axes before and after an operator, with the stride and boundary of each."""

    lengths: tuple[int, ...]
    in_axes: tuple[int, ...]
    out_axes: tuple[int, ...]
    """Empty for operators that should be invariant."""
    stride: tuple[int, ...]
    boundary: tuple[Boundary, ...]

    @classmethod
    def make(cls, shape: tuple[int, ...], in_axes: Any, out_axes: Any, stride: Any, boundary: Any) -> Translation:
        if out_axes is not None:
            out_axes = (out_axes,) if np.ndim(out_axes) == 0 else tuple(out_axes)
            out_axes = normalize_integers("out_axes", out_axes, len(out_axes))
        name = "axes" if out_axes == () else "in_axes"
        in_axes = normalize_axes(name, in_axes, len(shape))
        count = len(in_axes)
        if not count:
            raise ValueError(f"{name} names no axis; translations are along at least one")
        if out_axes is None:
            out_axes = in_axes
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
        """Raise ValueError unless the lengths of the result are those of x, subsampled."""
        axes = normalize_axes("out_axes", self.out_axes, len(y_shape))
        for source, axis, n, r in zip(self.in_axes, axes, self.lengths, self.stride, strict=bool(axes)):
            if y_shape[axis] != -(-n // r):
                raise ValueError(
                    f"op returned shape {y_shape}; its axis {axis} has length {y_shape[axis]}, and axis {source} of x, "
                    f"of length {n} at stride {r}, would become {-(-n // r)}"
                )

    def multiples(self, shift: Any) -> tuple[int, ...]:
        """Convert a shift in samples to a number of strides along each axis."""
        shifts = normalize_integers("shift", shift, len(self.in_axes))
        for axis, s, n, r, bound in zip(self.in_axes, shifts, self.lengths, self.stride, self.boundary, strict=True):
            if s % r:
                raise ValueError(
                    f"shift {s} along axis {axis} is no multiple of stride {r}; only such translations count"
                )
            if bound == "zero" and abs(s) >= n:
                raise ValueError(f"shift {s} leaves nothing of the {n} samples of axis {axis} to compare")
        if not any(s % n for s, n in zip(shifts, self.lengths, strict=True)):
            raise ValueError(
                f"shift {shifts} along axes {self.in_axes}, of length {self.lengths}, is the identity, so that nothing "
                "can be tested"
            )
        return tuple(s // r for s, r in zip(shifts, self.stride, strict=True))

    def few_shifts(self) -> list[tuple[int, ...]]:
        """Shifts in strides: 1, -1 and half a period along each axis, and 1 along all axes, without the identity."""
        along = [self._few_along(*axis) for axis in zip(self.lengths, self.stride, self.boundary, strict=True)]
        still = (0,) * len(along)
        shifts = {(*still[:i], k, *still[i + 1 :]) for i, ks in enumerate(along) for k in ks}
        if not shifts:
            raise ValueError(
                f"axes {self.in_axes} have {self.lengths} samples at stride {self.stride}: every translation is the "
                "identity, so that nothing can be tested"
            )
        shifts.add(tuple(1 if ks else 0 for ks in along))
        return sorted(shifts, key=lambda steps: (sum(map(abs, steps)), [-k for k in steps]))

    @staticmethod
    def _few_along(n: int, r: int, boundary: str) -> list[int]:
        if boundary == "zero":
            return [1, -1] if r < n else []
        return [k for k in (1, -1, n // r // 2) if k * r % n]

    def before(self, x: NDArray, steps: tuple[int, ...]) -> NDArray:
        return np.asarray(translate(x, self._samples(steps), self.in_axes, boundary=self.boundary))

    def overlap(self, moved: NDArray, y: NDArray, steps: tuple[int, ...]) -> tuple[NDArray, NDArray, tuple[int, ...]]:
        """Cut out of op(translated x) and translated op(x) what was not filled with zeros; say where it begins."""
        if not self.out_axes:
            return moved, y, (0,) * y.ndim
        axes = normalize_axes("out_axes", self.out_axes, y.ndim)
        expected = np.asarray(translate(y, steps, axes, boundary=self.boundary))
        inside = [slice(0, n) for n in y.shape]
        for axis, k, bound in zip(axes, steps, self.boundary, strict=True):
            if bound == "zero":
                inside[axis] = slice(max(k, 0), y.shape[axis] + min(k, 0))
        return moved[tuple(inside)], expected[tuple(inside)], tuple(part.start for part in inside)

    def claim(self, steps: tuple[int, ...], x: NDArray) -> str:
        """Return a sentence that says what one translation of x should do."""
        lost = ", which pushes samples out that are not zero," if self._loses(steps, x) else ""
        words = f"translating x by {_along(self._samples(steps), self.in_axes)}{lost} should "
        if not self.out_axes:
            return words + "leave op(x) as it is"
        return words + f"translate op(x) by {_along(steps, self.out_axes)}"

    def _samples(self, steps: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(k * r for k, r in zip(steps, self.stride, strict=True))

    def _loses(self, steps: tuple[int, ...], x: NDArray) -> bool:
        """Whether zeros replace samples that are not zero."""
        back = tuple(-k for k in steps)
        return "zero" in self.boundary and not np.array_equal(self.before(self.before(x, steps), back), x)


def _along(shifts: Sequence[int], axes: Sequence[int]) -> str:
    return " and ".join(f"{s} along axis {axis}" for s, axis in zip(shifts, axes, strict=True) if s)


def _operand(name: str, array: Array) -> NDArray:
    """Return the argument as a NumPy array; ValueError if it is empty or not finite."""
    host = to_host(name, array)
    if wrong := _not_finite(name, host):
        raise ValueError(f"{wrong}; give finite numbers")
    return host


def _require_finite(name: str, y: NDArray) -> None:
    if wrong := _not_finite(name, y):
        raise AssertionError(f"{wrong}, though its argument is finite: nothing can be compared")


def _not_finite(name: str, array: NDArray) -> str:
    """Return a sentence about the first element that is not finite, or ""; ValueError if there is no element."""
    if not array.size:
        raise ValueError(f"{name} has shape {array.shape}; with no element there is nothing to test")
    finite = np.isfinite(array)
    if finite.all():
        return ""
    index = tuple(map(int, np.argwhere(~finite)[0]))
    return f"{name} is {array[index]}" + (f" at index {index}" if index else "")


def _noise(shape: tuple[int, ...], dtype: Any, seed: int) -> NDArray:
    """White noise of variance 1."""
    rng = np.random.default_rng(seed)
    if np.issubdtype(dtype, np.complexfloating):
        return np.asarray((rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) / math.sqrt(2), dtype)
    return np.asarray(rng.standard_normal(shape), dtype)


def _size(x: NDArray) -> float:
    """Quadratic mean of the elements, or 1 if all are zero."""
    return norm(x) / math.sqrt(x.size) or 1.0


def _compare(
    claim: str, actual: NDArray, expected: NDArray, bound: float, offset: tuple[int, ...], basis: str
) -> Deviation:
    """Return the largest difference of two arrays, and its index; the arrays begin at `offset` in the whole result."""
    errors = np.abs(wide(actual) - wide(expected))
    worst = np.unravel_index(int(np.argmax(errors)), errors.shape)  # the first NaN, if there is one
    index = tuple(int(i) + o for i, o in zip(worst, offset, strict=True))
    there = [wide(array)[worst].item() for array in (actual, expected)]
    return Deviation(claim, float(errors[worst]), bound, index, there[0], there[1], basis)


def _raise_first(claim: str, deviations: Iterator[Deviation]) -> None:
    __tracebackhide__ = True
    for deviation in deviations:
        if not deviation.holds:
            raise AssertionError(f"{claim}: {deviation}")


def _require(deviation: Deviation) -> None:
    __tracebackhide__ = True
    if not deviation.holds:
        raise AssertionError(str(deviation))
