"""Hypothesis strategies of arrays and translations, and searches that use them.

Hypothesis draws a few small numbers per array, such as a seed; NumPy's generator makes the values from them. So
examples shrink fast, and to cases that are easy to read: a unit impulse, one step along one axis.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

try:
    from hypothesis import HealthCheck, Phase, Verbosity, given, settings
    from hypothesis import strategies as st
    from hypothesis.errors import Flaky
except ImportError as error:
    raise ImportError("hcnn_core.testing's strategies need Hypothesis: pip install hypothesis") from error

from hcnn_core._problem import Boundary, normalize_integers
from hcnn_core.testing._edges import NDArray
from hcnn_core.testing.assertions import (
    Operator,
    Translation,
    assert_translation_covariant,
    assert_translation_invariant,
)

__all__ = ["arrays", "check_translation_covariant", "check_translation_invariant", "shifts"]

Lengths = int | Sequence[int]

DTYPES = ("float64", "float32", "complex128", "complex64")
PATTERNS = ("impulse", "constant", "few", "half", "dense")
FEW = 3
"""Number of nonzero elements of a sparse array; a failure lists so few one by one."""

SHORT = 64
"""Most elements of an array that a failure prints in full."""

SEEDS = st.integers(0, 2**32 - 1)


def arrays(shape: Lengths, dtypes: str | Sequence[str] = DTYPES) -> st.SearchStrategy[NDArray]:
    """Return a strategy of NumPy arrays of every dtype, sparsity and scale.

    Parameters
    ----------
    shape : int or sequence of int
        Shape of the arrays.
    dtypes : str or sequence of str, optional
        One or several of float64, float32, complex128, complex64.

    Returns
    -------
    strategy of NumPy arrays
        Each a unit impulse, a constant, three values, half zeros, or normal noise, times a power of ten from 1e-6 to
        1e6. The smallest example is the impulse of height 1 at the first sample.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong type or not among the choices.
    """
    shape = _lengths("shape", shape, 0)
    return _draw_array(shape, _choices("dtypes", dtypes, DTYPES), (0,) * len(shape), (-6, 6))


def shifts(
    lengths: Lengths, stride: int | Sequence[int] = 1, *, limit: int | Sequence[int] | None = None
) -> st.SearchStrategy[tuple[int, ...]]:
    """Return a strategy of translations; the identity of a periodic array is left out if there are others.

    Parameters
    ----------
    lengths : int or sequence of int
        Lengths of the axes that are translated.
    stride : int or sequence of int, optional
        Shifts are multiples of it, along all axes or along each.
    limit : int or sequence of int, optional
        The longest shift, of either sign, along all axes or along each; by default two periods.

    Returns
    -------
    strategy of tuples of int
        Shifts in samples, one per axis. The smallest example moves by one stride along the first axis that moves.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong type or out of range.
    """
    lengths = _lengths("lengths", lengths)
    stride = normalize_integers("stride", stride, len(lengths), 1)
    longest = [2 * n for n in lengths] if limit is None else normalize_integers("limit", limit, len(lengths), 0)
    anywhere = [
        [0, *(sign * s for s in range(r, top + 1, r) for sign in (1, -1))]
        for r, top in zip(stride, longest, strict=True)
    ]
    moves = [[s for s in axis if s % n] for axis, n in zip(anywhere, lengths, strict=True)]
    along_one = [
        st.tuples(*(st.sampled_from(moves[i] if i == j else anywhere[i]) for i in range(len(lengths))))
        for j, axis in enumerate(moves)
        if axis
    ]
    return st.one_of(along_one) if along_one else st.tuples(*map(st.sampled_from, anywhere))


def check_translation_covariant(
    op: Operator,
    shape: Lengths,
    in_axes: int | Sequence[int],
    out_axes: int | Sequence[int] | None = None,
    stride: int | Sequence[int] = 1,
    boundary: Boundary | Sequence[Boundary] = "periodic",
    *,
    dtypes: str | Sequence[str] = "float64",
    stages: int = 1,
) -> None:
    """Search for the simplest array and translation for which `assert_translation_covariant` fails.

    Parameters
    ----------
    op : callable
        From a NumPy array, new and contiguous, to an array of any kind.
    shape : tuple of int
        Shape of the arrays. With zero boundaries they are zero on the outer thirds of ``in_axes`` and move by at most
        half of that, so that an operator may reach over a sixth of an axis.
    in_axes, out_axes, stride, boundary, stages
        As in `assert_translation_covariant`.
    dtypes : str or sequence of str, optional
        Of the arrays: one or several of float64, float32, complex128, complex64.

    Raises
    ------
    AssertionError
        If op is not covariant; a note holds the simplest array and the smallest shift, as code.
    TypeError, ValueError
        As `assert_translation_covariant`, and if every translation is the identity.

    Examples
    --------
    >>> import numpy as np
    >>> check_translation_covariant(np.abs, (4, 6), in_axes=1)
    >>> check_translation_covariant(lambda x: x - x[:1], (4, 6), in_axes=0)
    Traceback (most recent call last):
        ...
    AssertionError: op is not covariant to translations: translating x by 1 along axis 0 should translate op(x) by ...
    x = np.zeros((4, 6), "float64"); x[0, 0] = 1.0
    shift = (1,)
    """
    __tracebackhide__ = True

    def claim(x: NDArray, shift: tuple[int, ...]) -> None:
        assert_translation_covariant(op, x, in_axes, out_axes, stride, boundary, shift=shift, stages=stages)

    shape = _lengths("shape", shape)
    _search(claim, shape, Translation.make(shape, in_axes, out_axes, stride, boundary), dtypes)


def check_translation_invariant(
    op: Operator,
    shape: Lengths,
    in_axes: int | Sequence[int],
    stride: int | Sequence[int] = 1,
    boundary: Boundary | Sequence[Boundary] = "periodic",
    *,
    dtypes: str | Sequence[str] = "float64",
    stages: int = 1,
) -> None:
    """Search as `check_translation_covariant` does, where `assert_translation_invariant` fails."""
    __tracebackhide__ = True

    def claim(x: NDArray, shift: tuple[int, ...]) -> None:
        assert_translation_invariant(op, x, in_axes, stride, boundary, shift=shift, stages=stages)

    shape = _lengths("shape", shape)
    _search(claim, shape, Translation.make(shape, in_axes, (), stride, boundary), dtypes)


def noise(seed: int, shape: tuple[int, ...], dtype: str) -> NDArray:
    """Return normal numbers of any of the four dtypes."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(shape)
    if dtype.startswith("complex"):
        values = values + 1j * rng.standard_normal(shape)
    return np.asarray(values, dtype)


@st.composite
def _draw_array(
    draw: st.DrawFn, shape: tuple[int, ...], dtypes: Sequence[str], margin: Sequence[int], exponents: tuple[int, int]
) -> NDArray:
    """Draw one array: a pattern inside the margin, zeros in it."""
    dtype, inner = draw(st.sampled_from(dtypes)), [n - 2 * m for n, m in zip(shape, margin, strict=True)]
    exponent = draw(st.integers(*exponents))
    # One number says pattern and place, impulses first: Hypothesis goes from any to the first impulse that does.
    # Impulses have a small part of the numbers, since small ones are drawn more often: two in five are impulses so.
    # Every pattern draws a seed too, because Hypothesis takes an example that draws less for a simpler one.
    count, others = max(1, math.prod(inner)), PATTERNS[1:]
    place, number = draw(st.integers(0, 16 * count - 1)), draw(SEEDS)
    pattern = "impulse" if place < count else others[place % len(others)]
    x = np.zeros(shape, dtype)
    values = _pattern(pattern, tuple(inner), dtype, place if pattern == "impulse" else number)
    x[tuple(slice(m, n - m) for n, m in zip(shape, margin, strict=True))] = values * 10.0**exponent
    return x


def _pattern(name: str, shape: tuple[int, ...], dtype: str, number: int) -> NDArray:
    """Return values of size 1, some or most of them zero; `number` is the place of an impulse, or else a seed."""
    if name in ("impulse", "constant"):
        values = np.full(shape, name == "constant", dtype)
        values.flat[number : number + 1] = 1
        return values
    values = noise(number, shape, dtype)
    nonzero = {"few": FEW, "half": -(-values.size // 2), "dense": values.size}[name]
    values.flat[np.random.default_rng(number).permutation(values.size)[nonzero:]] = 0
    return values


def _search(
    claim: Callable[[NDArray, tuple[int, ...]], None],
    shape: tuple[int, ...],
    move: Translation,
    dtypes: str | Sequence[str],
) -> None:
    """Raise the error of the claim for the simplest array and translation for which it does not hold."""
    __tracebackhide__ = True
    margin, limit = [0] * len(shape), []
    for axis, n, r, boundary in zip(move.in_axes, move.lengths, move.stride, move.boundary, strict=True):
        if boundary == "zero":
            margin[axis] = max(n // 3, r)
            if n <= 2 * r:
                raise ValueError(
                    f"axis {axis} has {n} samples; zeros at both ends and stride {r} need at least {2 * r + 1}"
                )
        limit.append(max(margin[axis] // 2, r) if boundary == "zero" else 2 * n)
    move.few_shifts()  # ValueError if every translation is the identity

    @settings(
        max_examples=settings().max_examples,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        print_blob=False,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        verbosity=Verbosity.quiet,
    )
    @given(
        _draw_array(shape, _choices("dtypes", dtypes, DTYPES), margin, (0, 0)),
        shifts(move.lengths, move.stride, limit=limit),
    )
    def search(x: NDArray, shift: tuple[int, ...]) -> None:
        try:
            try:
                claim(x, shift)
            except AssertionError:
                if sum(map(bool, shift)) > 1:  # try each axis alone, to name the one that fails
                    together = shift
                    for i, s in enumerate(together):
                        if s:
                            shift = tuple(s if j == i else 0 for j in range(len(together)))
                            claim(x, shift)
                    shift = together
                raise
        except (AssertionError, TypeError, ValueError) as error:
            error.add_note(f"{_as_code(x)}\nshift = {shift}")
            raise

    try:
        search()
    except Flaky:
        raise ValueError(
            "op returns different results for the same array; fix its seed, or take its evaluation mode"
        ) from None
    except (AssertionError, TypeError, ValueError) as error:
        raise error.with_traceback(None) from error.__cause__


def _as_code(x: NDArray) -> str:
    """Return Python code that makes the array, shortened if it is long."""
    code = f'x = np.zeros({x.shape}, "{x.dtype}")'
    places = np.argwhere(x)
    if len(places) <= FEW:
        return code + "".join(f"; x[{', '.join(map(str, i))}] = {x[tuple(i)].item()}" for i in places)
    box = [slice(int(i), int(j) + 1) for i, j in zip(places.min(0), places.max(0), strict=True)]
    values = x[tuple(box)]
    constant = bool(np.all(values == values.flat[0]))
    with np.printoptions(threshold=SHORT, edgeitems=2):
        text = str(values.flat[0].item() if constant else values.tolist() if values.size <= SHORT else values)
    return f"{code}; x[{', '.join(f'{part.start}:{part.stop}' for part in box)}] = {text}"


def _choices(name: str, words: str | Sequence[str], allowed: tuple[str, ...]) -> tuple[str, ...]:
    """Return one word or several, each among the allowed ones."""
    words = tuple(map(str, (words,) if isinstance(words, str) or not np.iterable(words) else words))
    for word in words or ("",):
        if word not in allowed:
            raise ValueError(f"{name} names {word!r}; choose among {', '.join(allowed)}")
    return words


def _lengths(name: str, lengths: Lengths, minimum: int = 1) -> tuple[int, ...]:
    """Return one length or several, each at least `minimum`."""
    count = 1 if isinstance(lengths, int) or not np.ndim(lengths) else len(lengths)
    return normalize_integers(name, lengths, count, minimum)
