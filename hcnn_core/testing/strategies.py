"""Hypothesis strategies of arrays, filters, translations and whole networks, and searches that use them.

Hypothesis draws a few small numbers per array, such as a seed; NumPy's generator makes the values from them. So
examples shrink fast, and to cases that are easy to read: a unit impulse, one step along one axis, the smallest network.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

try:
    from hypothesis import HealthCheck, Phase, Verbosity, given, settings
    from hypothesis import strategies as st
    from hypothesis.errors import Flaky
except ImportError as error:
    raise ImportError("hcnn_core.testing's strategies need Hypothesis: pip install hypothesis") from error

from hcnn_core._problem import BOUNDARIES, Boundary, normalize_integers
from hcnn_core.testing._edges import NDArray
from hcnn_core.testing.assertions import (
    Operator,
    Translation,
    assert_translation_covariant,
    assert_translation_invariant,
    named_once,
)

__all__ = [
    "arrays",
    "boundaries",
    "check_translation_covariant",
    "check_translation_invariant",
    "kernels",
    "networks",
    "shifts",
    "strides",
]

Lengths = int | Sequence[int]

DTYPES = ("float64", "float32", "complex128", "complex64")
LAYOUTS = ("C", "F", "shuffled", "negative", "sliced", "read-only", "broadcast")
PATTERNS = ("impulse", "constant", "few", "half", "dense")
EXPONENTS = (-6, 6)
FEW = 3
"""Number of nonzero elements of a sparse array; a failure lists so few one by one."""

SHORT = 64
"""Most elements of an array that a failure prints in full."""

SEEDS = st.integers(0, 2**32 - 1)


def arrays(
    shape: Lengths | st.SearchStrategy[Any],
    dtypes: str | Sequence[str] = DTYPES,
    *,
    layouts: str | Sequence[str] = LAYOUTS,
    margin: int | Sequence[int] = 0,
    exponents: tuple[int, int] = EXPONENTS,
) -> st.SearchStrategy[NDArray]:
    """Return a strategy of NumPy arrays in every dtype, memory layout, sparsity and scale.

    Parameters
    ----------
    shape : tuple of int, or strategy of them
        Shape of the arrays.
    dtypes : str or sequence of str, optional
        One or several of float64, float32, complex128, complex64.
    layouts : str or sequence of str, optional
        One or several of C, F, shuffled (axes in any order), negative (strides), sliced (a view of every other
        element), read-only, and broadcast (stride 0 along an axis that has no margin).
    margin : int or sequence of int, optional
        How many samples at both ends are zero, for all axes or for each. Operators with zero boundaries need a margin.
    exponents : (int, int), optional
        The smallest and the largest power of ten that arrays are multiplied by.

    Returns
    -------
    strategy of NumPy arrays
        Each a unit impulse, a constant, three values, half zeros, or normal noise, times a power of ten. The smallest
        example is the impulse of height 1 at the first sample inside the margin.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong type or not among the choices, or a margin leaves no sample.
    """
    dtypes = _choices("dtypes", dtypes, DTYPES)
    layouts = _choices("layouts", layouts, LAYOUTS)
    if isinstance(shape, st.SearchStrategy):
        return shape.flatmap(lambda drawn: _arrays_of(drawn, dtypes, layouts, margin, exponents))
    return _arrays_of(shape, dtypes, layouts, margin, exponents)


def kernels(
    lengths: Lengths,
    *,
    out: Lengths = (),
    channels: Lengths = (),
    dtypes: str | Sequence[str] = DTYPES,
    max_size: int | Sequence[int] | None = None,
) -> st.SearchStrategy[NDArray]:
    """Return a strategy of filters for `hcnn_core.convolve`, of normal noise.

    Parameters
    ----------
    lengths : int or sequence of int
        Lengths of the convolved axes.
    out : int or sequence of int, optional
        Lengths of the new axes, which come last.
    channels : int or sequence of int, optional
        Lengths of the summed axes, which come first.
    dtypes : str or sequence of str, optional
        One or several of float64, float32, complex128, complex64.
    max_size : int or sequence of int, optional
        Largest kernel size, for all convolved axes or for each; by default one more than twice the axis length.

    Returns
    -------
    strategy of NumPy arrays
        Filters of shape ``(*channels, *kernel_size, *out)``. Along each axis a filter is as likely shorter than the
        axis as it is exactly as long, or longer. The smallest example has one tap.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong type or out of range.
    """
    lengths, channels, out = _lengths("lengths", lengths), _lengths("channels", channels), _lengths("out", out)
    dtypes = _choices("dtypes", dtypes, DTYPES)
    most = (
        [2 * n + 1 for n in lengths] if max_size is None else normalize_integers("max_size", max_size, len(lengths), 1)
    )
    kernel_size = st.tuples(*map(_sizes, lengths, most))
    shapes = kernel_size.map(lambda sizes: (*channels, *sizes, *out))
    return st.builds(noise, SEEDS, shapes, st.sampled_from(dtypes))


def boundaries(count: int | None = None) -> st.SearchStrategy[Any]:
    """Return a strategy of boundaries.

    Parameters
    ----------
    count : int, optional
        Number of axes.

    Returns
    -------
    strategy of str, or of tuples of str
        ``"periodic"`` or ``"zero"``; with `count` a tuple of as many.
    """
    one = st.sampled_from(BOUNDARIES)
    return one if count is None else st.tuples(*(one,) * count)


def strides(lengths: Lengths, *, dividing: bool = True) -> st.SearchStrategy[tuple[int, ...]]:
    """Return a strategy of strides.

    Parameters
    ----------
    lengths : int or sequence of int
        Lengths of the axes that are subsampled.
    dividing : bool, optional
        Whether each stride divides its length, which covariance to periodic translations requires.

    Returns
    -------
    strategy of tuples of int
        One stride per axis: divisors of its length, or else 1 to one more than it.

    Raises
    ------
    TypeError, ValueError
        If lengths are not positive integers.
    """
    axes = ([r for r in range(1, n + 2) if not dividing or n % r == 0] for n in _lengths("lengths", lengths))
    return st.tuples(*map(st.sampled_from, axes))


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


def networks(**fixed: Any) -> st.SearchStrategy[dict[str, Any]]:
    """Return a strategy of settings of whole networks, small enough for tests.

    Settings are plain data, because hcnn_core does not import `train`. ``train.config.make_config("hcnn", settings)``
    makes a configuration of them, and ``train.networks.registry.build`` a network, for images of any size from 1 on.

    Parameters
    ----------
    **fixed : Any
        Settings that have the same value in every example; also settings that are not drawn otherwise.

    Returns
    -------
    strategy of dict
        J = 4 to 7 layers, K = 1 to 8 values per attribute, Q = 1 to 10 factors, filters shorter and longer than the
        attributes, strides in space and attributes, both networks, boundaries, marginals, heads, normalisations and
        real dtypes. The smallest example has the first of each.
    """
    settings_of = {
        "depth": st.integers(4, 7),
        "width": st.integers(1, 8),
        "factors": st.integers(1, 10),
        "space_kernel": st.integers(1, 4),
        "attribute_kernel": st.tuples(st.integers(1, 9), st.integers(1, 9)),
        "attribute_stride": st.integers(1, 3),
        "strided_layers": st.sets(st.integers(1, 6), max_size=3).map(lambda layers: tuple(sorted(layers))),
        "nonlinear_factors": st.booleans(),
        "boundary": st.sampled_from((*BOUNDARIES, "attributes")),
        "reduction": st.sampled_from(("mean", "sum")),
        "normalization": st.sampled_from(("factors", "both")),
        "head": st.sampled_from(("mean", "sum", "dense")),
        "skip": st.sampled_from(("none", "aligned", "aligned-mean", "previous")),
        "blur": st.booleans(),
        "dtype": st.sampled_from(("float32", "float64")),
    }
    return st.fixed_dictionaries({**settings_of, **{name: st.just(value) for name, value in fixed.items()}})


def check_translation_covariant(
    op: Operator,
    shape: Lengths,
    in_axes: int | Sequence[int] | None = None,
    out_axes: int | Sequence[int] | None = None,
    stride: int | Sequence[int] = 1,
    boundary: Boundary | Sequence[Boundary] = "periodic",
    *,
    axes: int | Sequence[int] | None = None,
    dtypes: str | Sequence[str] = "float64",
    stages: int = 1,
    eps: float | None = None,
    exponents: tuple[int, int] = (0, 0),
    max_examples: int | None = None,
) -> None:
    """Search for the simplest array and translation for which `assert_translation_covariant` fails.

    Parameters
    ----------
    op : callable
        From a NumPy array, new and contiguous, to an array of any kind.
    shape : tuple of int
        Shape of the arrays. With zero boundaries they are zero on the outer thirds of ``in_axes`` and move by at most
        half of that, so that an operator may reach over a sixth of an axis.
    in_axes, axes, out_axes, stride, boundary, stages, eps
        As in `assert_translation_covariant`.
    dtypes : str or sequence of str, optional
        Of the arrays: one or several of float64, float32, complex128, complex64.
    exponents : (int, int), optional
        The smallest and the largest power of ten that arrays are multiplied by. By default values have size 1.
    max_examples : int, optional
        How many arrays are tried; by default the number in the active Hypothesis profile.

    Raises
    ------
    AssertionError
        If op is not covariant; a note holds the simplest array and the smallest shift found, as code.
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
    where = named_once(in_axes, axes)

    def claim(x: NDArray, shift: tuple[int, ...]) -> None:
        assert_translation_covariant(op, x, where, out_axes, stride, boundary, shift=shift, stages=stages, eps=eps)

    shape = _lengths("shape", shape)
    _search(claim, shape, Translation.make(shape, where, out_axes, stride, boundary), dtypes, exponents, max_examples)


def check_translation_invariant(
    op: Operator,
    shape: Lengths,
    in_axes: int | Sequence[int] | None = None,
    stride: int | Sequence[int] = 1,
    boundary: Boundary | Sequence[Boundary] = "periodic",
    *,
    axes: int | Sequence[int] | None = None,
    dtypes: str | Sequence[str] = "float64",
    stages: int = 1,
    eps: float | None = None,
    exponents: tuple[int, int] = (0, 0),
    max_examples: int | None = None,
) -> None:
    """Search for the simplest array and translation for which `assert_translation_invariant` fails.

    Parameters
    ----------
    op, shape, dtypes, exponents, max_examples
        As in `check_translation_covariant`.
    in_axes, axes, stride, boundary, stages, eps
        As in `assert_translation_invariant`.

    Raises
    ------
    AssertionError
        If op is not invariant; a note holds the simplest array and the smallest shift found, as code.
    TypeError, ValueError
        As `assert_translation_invariant`, and if every translation is the identity.
    """
    __tracebackhide__ = True
    where = named_once(in_axes, axes)

    def claim(x: NDArray, shift: tuple[int, ...]) -> None:
        assert_translation_invariant(op, x, where, stride, boundary, shift=shift, stages=stages, eps=eps)

    shape = _lengths("shape", shape)
    _search(claim, shape, Translation.make(shape, where, (), stride, boundary), dtypes, exponents, max_examples)


def noise(seed: int, shape: tuple[int, ...], dtype: str) -> NDArray:
    """Normal numbers of any of the four dtypes."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(shape)
    if dtype.startswith("complex"):
        values = values + 1j * rng.standard_normal(shape)
    return np.asarray(values, dtype)


def lay_out(array: NDArray, layout: str, seed: int = 0, *, axis: int | None = None) -> NDArray:
    """The array in another memory layout; "broadcast" repeats its first values along `axis` or a random axis."""
    assert layout in LAYOUTS, layout
    array, rng = np.array(array), np.random.default_rng(seed)
    if layout == "F":
        return np.array(array, order="F")
    if layout == "shuffled":
        order = rng.permutation(array.ndim)
        return np.array(array.transpose(order), order="C").transpose(np.argsort(order))
    if layout == "negative":
        return np.flip(np.flip(array).copy())
    if layout == "sliced":
        wider = np.zeros([2 * n + 1 for n in array.shape], array.dtype)
        view = wider[(slice(1, None, 2),) * array.ndim + (...,)]
        view[...] = array
        return view
    if layout == "broadcast" and array.ndim:
        axis = int(rng.integers(array.ndim)) if axis is None else axis
        return np.broadcast_to(array[(slice(None),) * axis + (slice(0, 1),)], array.shape) if array.size else array
    array.flags.writeable = layout != "read-only"
    return array


def _arrays_of(
    shape: Lengths,
    dtypes: Sequence[str],
    layouts: Sequence[str],
    margin: int | Sequence[int],
    exponents: tuple[int, int],
) -> st.SearchStrategy[NDArray]:
    """The strategy for one shape."""
    shape = _lengths("shape", shape, 0)
    margin = normalize_integers("margin", margin, len(shape), 0)
    for axis, (n, m) in enumerate(zip(shape, margin, strict=True)):
        if m and n <= 2 * m:
            raise ValueError(f"margin {m} at both ends leaves none of the {n} samples of axis {axis}; give {2 * m + 1}")
    if all(margin):
        layouts = [layout for layout in layouts if layout != "broadcast"]
        if not layouts:
            raise ValueError("layouts names broadcast alone, and there is no axis without margin to repeat along")
    return _draw_array(shape, dtypes, layouts, margin, exponents)


@st.composite
def _draw_array(
    draw: st.DrawFn,
    shape: tuple[int, ...],
    dtypes: Sequence[str],
    layouts: Sequence[str],
    margin: tuple[int, ...],
    exponents: tuple[int, int],
) -> NDArray:
    """Draw one array: a pattern inside the margin, repeated along an axis if the layout is "broadcast"."""
    dtype, layout = (draw(st.sampled_from(words)) for words in (dtypes, layouts))
    inner, axis = [n - 2 * m for n, m in zip(shape, margin, strict=True)], None
    if layout == "broadcast":
        axis = draw(st.sampled_from([a for a, m in enumerate(margin) if not m]))
        inner[axis] = min(inner[axis], 1)
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
    return lay_out(x, layout, number, axis=axis)


def _pattern(name: str, shape: tuple[int, ...], dtype: str, number: int) -> NDArray:
    """Values of size 1, some or most of them zero; `number` is the place of an impulse, or else a seed."""
    if name in ("impulse", "constant"):
        values = np.full(shape, name == "constant", dtype)
        values.flat[number : number + 1] = 1
        return values
    values = noise(number, shape, dtype)
    kept = {"few": FEW, "half": -(-values.size // 2), "dense": values.size}[name]
    values.flat[np.random.default_rng(number).permutation(values.size)[kept:]] = 0
    return values


def _sizes(n: int, most: int) -> st.SearchStrategy[int]:
    """Filter sizes up to `most`: shorter than, as long as and longer than an axis of length n, equally often."""
    ranges = ((low, min(high, most)) for low, high in ((1, n - 1), (n, n), (n + 1, most)))
    return st.one_of([st.integers(low, high) for low, high in ranges if low <= high])


def _search(
    claim: Callable[[NDArray, tuple[int, ...]], None],
    shape: tuple[int, ...],
    move: Translation,
    dtypes: str | Sequence[str],
    exponents: tuple[int, int],
    max_examples: int | None,
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
    if not any(r % n for n, r in zip(move.lengths, move.stride, strict=True)):
        raise ValueError(
            f"axes {move.in_axes} have {move.lengths} samples at stride {move.stride}: every translation is the "
            "identity, so that nothing can be tested"
        )

    # Only layout "C" is drawn, because the operator gets copies anyway.
    @settings(
        max_examples=settings().max_examples if max_examples is None else max_examples,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        print_blob=False,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        verbosity=Verbosity.quiet,
    )
    @given(
        arrays(shape, dtypes, layouts="C", margin=margin, exponents=exponents),
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
    """Python code that makes the array, shortened if it is long."""
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


def _choices(name: str, given: str | Sequence[str], allowed: tuple[str, ...]) -> tuple[str, ...]:
    """One word or several, each among the allowed ones."""
    words = tuple(map(str, (given,) if isinstance(given, str) or not np.iterable(given) else given))
    for word in words:
        if word not in allowed:
            raise ValueError(f"{name} names {word!r}; choose among {', '.join(allowed)}")
    if not words:
        raise ValueError(f"{name} is empty; choose among {', '.join(allowed)}")
    return words


def _lengths(name: str, given: Lengths, minimum: int = 1) -> tuple[int, ...]:
    """One length or several, each at least `minimum`."""
    count = 1 if isinstance(given, int) or not np.ndim(given) else len(given)
    return normalize_integers(name, given, count, minimum)
