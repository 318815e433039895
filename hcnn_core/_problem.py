"""The problem that one call of `convolve` poses: its shapes and options, validated once."""

from __future__ import annotations

import difflib
import inspect
import math
import operator
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar

from hcnn_core._tuning import ChoiceFile, Planning, current_planning, is_deterministic

Boundary: TypeAlias = Literal["periodic", "zero"]
Extension: TypeAlias = Literal["periodic", "zero", "reflect", "nearest", "mirror"]
Method: TypeAlias = Literal["auto", "direct", "fft", "measure"]
Word = TypeVar("Word", bound=str)
Function = TypeVar("Function", bound=Callable[..., Any])

BOUNDARIES: tuple[Boundary, ...] = ("periodic", "zero")
"""The boundaries that every function takes, and that the engines know."""

EXTENSIONS: tuple[Extension, ...] = (*BOUNDARIES, "reflect", "nearest", "mirror")
"""The boundaries of convolutions, correlations and translations."""

METHODS: tuple[Method, ...] = ("auto", "direct", "fft", "measure")
OPEN: tuple[Method, ...] = ("auto", "measure")
"""Methods that leave the choice to the planner: by estimates, or by measurements."""

MAX_AXES = 6

SYNONYMS = {
    **dict.fromkeys(("wrap", "grid-wrap", "circular"), "periodic"),
    **dict.fromkeys(("constant", "grid-constant", "fill", "zeros"), "zero"),
    **dict.fromkeys(("symmetric", "symm", "grid-mirror"), "reflect"),
    **dict.fromkeys(("edge", "replicate"), "nearest"),
}
"""Names of the boundaries in SciPy, NumPy and PyTorch. An error message translates them."""

MISSING: Any = None
"""Stands for an option that has no default; it is refused like any other value of the wrong type."""

INTEGERS = {int}
"""Types of integers whose equal values mean the same, so that they can be cached."""


@dataclass(frozen=True)
class Problem:
    """Shapes of a convolution; the tuples that describe convolved axes follow the order of `axes`."""

    x_shape: tuple[int, ...]
    w_shape: tuple[int, ...]
    axes: tuple[int, ...]
    sum_axes: tuple[int, ...]
    stride: tuple[int, ...]
    boundary: tuple[Extension, ...]
    method: tuple[Method, ...]
    choice_file: ChoiceFile | None = None
    """Where measured choices are kept, besides the user's cache folder."""

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        """Cached, because plans are looked up by it at every call."""
        return hash(tuple(getattr(self, field.name) for field in fields(self)))

    @cached_property
    def batch_axes(self) -> tuple[int, ...]:
        return tuple(a for a in range(len(self.x_shape)) if a not in self.axes and a not in self.sum_axes)

    @cached_property
    def kept_axes(self) -> tuple[int, ...]:
        """Axes of x that remain in the result, in its order."""
        return tuple(a for a in range(len(self.x_shape)) if a not in self.sum_axes)

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        return tuple(self.x_shape[a] for a in self.axes)

    @cached_property
    def kernel_axes(self) -> range:
        """Axes of w that hold the taps."""
        return range(len(self.sum_axes), len(self.sum_axes) + len(self.axes))

    @cached_property
    def kernel_size(self) -> tuple[int, ...]:
        return self.w_shape[self.kernel_axes.start : self.kernel_axes.stop]

    @cached_property
    def out_shape(self) -> tuple[int, ...]:
        """Shape of the new attribute axes."""
        return self.w_shape[self.kernel_axes.stop :]

    @cached_property
    def out_lengths(self) -> tuple[int, ...]:
        return tuple(-(-n // r) for n, r in zip(self.lengths, self.stride, strict=True))

    @cached_property
    def y_shape(self) -> tuple[int, ...]:
        length = dict(zip(self.axes, self.out_lengths, strict=True))
        return tuple(length.get(a, self.x_shape[a]) for a in self.kept_axes) + self.out_shape

    @cached_property
    def empty(self) -> bool:
        """Whether x, w or the result has no element, so that there is nothing to sum."""
        return not (math.prod(self.x_shape) and math.prod(self.w_shape))

    @cached_property
    def plain(self) -> bool:
        """Whether an engine takes it as it is: there is something to sum, and the engines know its boundaries."""
        return not self.empty and set(self.boundary) <= set(BOUNDARIES)


class Window(NamedTuple):
    """Windows along an axis: number i begins at sample ``stride * i - padding`` and has `size` taps."""

    length: int
    """Samples along the axis."""
    size: int
    stride: int
    padding: int

    @property
    def out_length(self) -> int:
        return (self.length + 2 * self.padding - self.size) // self.stride + 1

    def places(self, axis: int) -> Iterator[tuple[int, tuple[Any, ...], tuple[Any, ...]]]:
        """Each tap, the windows in which it reads a sample, and the samples it reads, as indices along an axis."""
        before = (slice(None),) * axis
        for tap in range(self.size):
            offset = tap - self.padding
            first = max(0, -(offset // self.stride))
            count = max(0, min(self.out_length, (self.length - 1 - offset) // self.stride + 1) - first)
            begin = self.stride * first + offset
            samples = slice(begin, begin + self.stride * (count - 1) + 1, self.stride) if count else slice(0, 0)
            yield tap, (*before, slice(first, first + count), ...), (*before, samples, ...)


def make_windows(
    x_shape: tuple[int, ...],
    axes: int | Sequence[int],
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None,
    padding: int | Sequence[int],
) -> list[tuple[int, Window]]:
    """Validate the arguments of pooling and return each axis with its windows."""
    axes = normalize_axes("axes", axes, len(x_shape))
    sizes = normalize_integers("kernel_size", kernel_size, len(axes), 1)
    strides = sizes if stride is None else normalize_integers("stride", stride, len(axes), 1)
    windows = []
    for axis, size, step, pad in zip(
        axes, sizes, strides, normalize_integers("padding", padding, len(axes), 0), strict=True
    ):
        if 2 * pad > size:
            raise ValueError(f"padding is {pad} along axis {axis}; windows of {size} take {size // 2} at most")
        n, least = x_shape[axis], max(1, size - 2 * pad)
        if n < least:
            raise ValueError(f"x has length {n} along axis {axis}; windows of {size} with padding {pad} need {least}")
        windows.append((axis, Window(n, size, step, pad)))
    return windows


def make_problem(
    x_shape: Sequence[int],
    w_shape: Sequence[int],
    /,
    axes: int | Sequence[int] | None = None,
    *unnamed: object,
    boundary: Extension | Sequence[Extension] = MISSING,
    sum_axes: int | Sequence[int] = (),
    stride: int | Sequence[int] = 1,
    method: Method | Sequence[Method] = "auto",
    **unknown: object,
) -> Problem:
    """Validate the arguments of `convolve` and return them in normal form."""
    if unnamed:
        raise TypeError(f"options need names, as in boundary='periodic': {', '.join(OPTIONS)}")
    if unknown:
        require_options(unknown, OPTIONS)
    value: Any
    for value in (axes, sum_axes, stride):
        # A cache cannot tell 1, 1.0 and True apart, so only int and tuples of int are looked up.
        kind = type(value)
        integers = kind is int or (kind is tuple and (not value or INTEGERS.issuperset(map(type, value))))
        if not integers and value is not None:
            break
    else:
        try:
            return _known(x_shape, w_shape, axes, boundary, sum_axes, stride, method, current_planning())
        except TypeError:
            pass  # a list, which cannot be looked up, or what is refused once more below
    return _validated(x_shape, w_shape, axes, boundary, sum_axes, stride, method, current_planning())


@lru_cache(maxsize=1024)
def _known(*arguments: Any) -> Problem:
    return _validated(*arguments)


def _validated(
    x_shape: Sequence[int],
    w_shape: Sequence[int],
    axes: Any,
    boundary: Any,
    sum_axes: Any,
    stride: Any,
    method: Any,
    planning: Planning,
) -> Problem:
    x_shape, w_shape = tuple(x_shape), tuple(w_shape)
    sum_axes = normalize_axes("sum_axes", sum_axes, len(x_shape))
    if axes is None:
        if sum_axes or len(x_shape) != len(w_shape):
            rest = [a for a in range(len(x_shape)) if a not in sum_axes][:MAX_AXES]
            fits = tuple(rest[: max(len(w_shape) - len(sum_axes), 0)])
            example = f", as in axes={fits if len(fits) > 1 else fits[0]}" if fits else ""
            raise TypeError(
                f"axes are left out, which means all where x and w have as many and none is summed; x has "
                f"{len(x_shape)}, w {len(w_shape)}: name those to convolve{example}"
            )
        axes = range(len(x_shape))
    swapped = "; w has more axes than x: are they swapped?" if len(w_shape) > len(x_shape) else ""
    axes = normalize_axes("axes", axes, len(x_shape), hint=swapped)
    if not 1 <= len(axes) <= MAX_AXES:
        raise ValueError(f"axes names {len(axes)} axes; between 1 and {MAX_AXES} can be convolved")
    if both := sorted(set(axes) & set(sum_axes)):
        raise ValueError(f"axes and sum_axes both name {both}; an axis is either convolved or summed")
    if len(w_shape) < len(sum_axes) + len(axes):
        raise ValueError(
            f"w has shape {w_shape}; it needs {len(sum_axes)} summed and {len(axes)} convolved axes, "
            f"so at least {len(sum_axes) + len(axes)}"
        )
    summed = tuple(x_shape[a] for a in sum_axes)
    if w_shape[: len(sum_axes)] != summed:
        torch = w_shape[1 : 1 + len(sum_axes)] == summed
        cure = "; filters in PyTorch's order (K, C, ...) are numpy.moveaxis(w, 0, -1) here" if torch else ""
        raise ValueError(
            f"w has shape {w_shape}; its leading axes must be {summed}, the lengths of x along sum_axes{cure}"
        )
    # A stride longer than its axis keeps the first sample alone, as a stride as long as the axis does. The latter has
    # only as many phases as there are samples.
    strides = normalize_integers("stride", stride, len(axes), 1)
    methods = tuple(_planned(word, planning) for word in normalize_choice("method", method, len(axes), METHODS))
    return Problem(
        x_shape,
        w_shape,
        axes,
        sum_axes,
        tuple(min(r, max(x_shape[a], 1)) for r, a in zip(strides, axes, strict=True)),
        normalize_choice("boundary", boundary, len(axes), EXTENSIONS),
        methods,
        planning if isinstance(planning, ChoiceFile) and "measure" in methods else None,
    )


def _planned(method: Method, planning: Planning) -> Method:
    """Return the method that "auto" and "measure" mean with this planning."""
    if method not in OPEN:
        return method
    return "measure" if (method == "measure" or planning != "estimate") and not is_deterministic() else "auto"


OPTIONS = {
    name: parameter.replace(default=parameter.empty if parameter.default is MISSING else parameter.default)
    for name, parameter in inspect.signature(make_problem).parameters.items()
    if parameter.kind is parameter.KEYWORD_ONLY
}
"""The options of convolutions and correlations, as their signatures show them."""


def takes(names: Iterable[str]) -> Callable[[Function], Function]:
    """Mark a function that takes such options as `**options`: `help` and the documents then show them one by one.

    Axes that are left out are refused where axes are checked, after the options, so that options of SciPy's, which
    needs no axes, are answered.
    """

    def marked(function: Function) -> Function:
        signature = inspect.signature(function)
        named = [p for p in signature.parameters.values() if p.kind != p.VAR_POSITIONAL]
        *operands, _ = (p.replace(default=None) if "None" in str(p.annotation) else p for p in named)
        shown: Any = function
        shown.__signature__ = signature.replace(parameters=[*operands, *(OPTIONS[name] for name in names)])
        shown.__defaults__ = (MISSING,) * sum(parameter.name in ("axes", "axis") for parameter in operands)
        return function

    return marked


def require_options(options: Mapping[str, object], known: Collection[str]) -> None:
    """Raise TypeError unless all options have known names; SciPy's are translated."""
    for name, value in options.items():
        if name not in known:
            near = difflib.get_close_matches(name, (*known, "axes"), 1)
            answer = _answer(name, value) or (f" (did you mean {near[0]}?)" if near else "")
            raise TypeError(f"there is no option {name!r}{answer}; options: {', '.join(known)}")


def _answer(name: str, value: object) -> str:
    """Return the equivalent of an option of SciPy's, in words."""
    if name == "cval":
        return ": boundary='zero' extends x by zeros; for a constant c convolve x - c, and add c times the sum of w"
    if name == "origin":
        return ": zeros beside w move its middle, 2 k of them after its taps for origin k, before them for -k"
    if name in ("out", "output"):
        return ": the result is a new array; out[...] = convolve(..) writes it to out"
    if name not in ("mode", "padding"):
        return ""
    here = SYNONYMS.get(value, value) if isinstance(value, str) else None
    return f": boundary={here!r} says it" if here in EXTENSIONS else ": boundary says how x is extended"


def _any_of(choices: Iterable[str]) -> str:
    return " or ".join(map(repr, choices))


def normalize_axes(
    name: str, axes: int | Sequence[int], ndim: int, count: int | None = None, hint: str = ""
) -> tuple[int, ...]:
    """Axes as a tuple of distinct non-negative integers, `count` of them if given."""
    if isinstance(axes, str):
        raise TypeError(f"{name} is {axes!r}; axes are integers, and options have names, as in boundary='periodic'")
    entries = _entries(name, axes, "an integer", _is_integer(axes), count)
    for a in entries:
        if not _is_integer(a):
            raise TypeError(f"{name} holds {a!r}; axes are integers")
        if not -ndim <= a < ndim:
            fits = f"use {-ndim} to {ndim - 1}" if ndim else "none can be named"
            raise ValueError(f"{name} names axis {a} of an array with {ndim} axes; {fits}{hint}")
    normal = tuple(int(a) % ndim for a in entries)
    if len(set(normal)) < len(normal):
        raise ValueError(f"{name} is {entries}; an axis is named twice")
    return normal


def normalize_integers(
    name: str, value: int | Sequence[int], count: int, minimum: int | None = None
) -> tuple[int, ...]:
    """One integer per axis, each at least `minimum`."""
    entries = _entries(name, value, "an integer", _is_integer(value), count)
    for entry in entries:
        if not _is_integer(entry):
            raise TypeError(f"{name} holds {entry!r}; give integers")
        if minimum is not None and entry < minimum:
            raise ValueError(f"{name} holds {entry}; give {minimum} or more")
    return tuple(int(entry) for entry in entries)


def normalize_choice(
    name: str, value: Word | Sequence[Word], count: int, choices: tuple[Word, ...]
) -> tuple[Word, ...]:
    """One choice per axis, each among `choices`."""
    words = _entries(name, value, _any_of(choices), isinstance(value, str), count)
    for word in words:
        require_choice(name, word, choices)
    return words


def require_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise ValueError unless the value is among `choices`."""
    if value not in choices:
        renamed = SYNONYMS.get(value) if isinstance(value, str) else None
        here = f"; its name here is {renamed!r}" if renamed in choices else ""
        if value in ("full", "valid", "same"):
            here = "; the length is that of x: docs/convolve.md says how to pad or crop for another"
        raise ValueError(f"{name} is {value!r}{here}; choose {_any_of(choices)}")


def shape_of(name: str, array: Any) -> tuple[int, ...]:
    """Return the shape of an array, or the shape that was given instead of one."""
    if hasattr(array, "shape"):
        return tuple(array.shape)
    shape = _entries(f"the shape of {name}", array, "an integer", _is_integer(array))
    return normalize_integers(f"the shape of {name}", shape, len(shape), 0)


def _entries(name: str, value: Any, kind: str, single: bool, count: int | None = None) -> tuple[Any, ...]:
    """Repeat a single value `count` times, or list a sequence, which must have `count` entries unless that is None."""
    if single:
        return (value,) * (1 if count is None else count)
    try:
        entries = tuple(value)
    except TypeError:
        raise TypeError(f"{name} is {value!r}; give {kind}, or one per axis") from None
    if count not in (None, len(entries)):
        raise ValueError(f"{name} has {len(entries)} entries for {count} axes; give one, or one per axis")
    return entries


def _is_integer(value: object) -> bool:
    """Whether a value is an integer of any kind: Python's, NumPy's, or an integer array without axes."""
    if type(value) is int:
        return True
    try:
        operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return False
    return not isinstance(value, bool)
