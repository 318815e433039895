"""The boundaries that no engine knows, "reflect", "nearest" and "mirror": signals are laid on circles.

Along an axis of n samples a circle holds the signal, then what follows its last sample, then what precedes its first.
A periodic operation on the circle reads there what the same operation reads of the extended signal, so its first
results are the wanted ones. `extend` lays a signal on its circles; `fold` is the transpose. "reflect" repeats after 2n
samples and "mirror" after 2n - 2, and a circle as long as that holds all of the extension.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

from hcnn_core._problem import BOUNDARIES, Extension, Problem
from hcnn_core.backend import Array, memory_order, permute_dims, placement


class Circle(NamedTuple):
    """An axis of a signal of n > 0 samples, and how many others its circle holds after its end and before its start."""

    axis: int
    n: int
    before: int
    after: int
    boundary: Extension

    @property
    def length(self) -> int:
        return self.n + self.before + self.after

    @property
    def edges(self) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """After the end and before the start: where it lies on the circle, and the samples that are flipped there."""
        end = self.n + self.after
        after, before = slice(self.n, end), slice(end, self.length)
        if self.boundary == "nearest":
            return (after, slice(self.n - 1, self.n)), (before, slice(0, 1))
        skip = int(self.boundary == "mirror")  # the sample at the edge, which "reflect" repeats
        return (after, slice(self.n - skip - self.after, self.n - skip)), (before, slice(skip, skip + self.before))


def period(boundary: Extension, n: int) -> int | None:
    """After how many samples the extension of n > 0 samples repeats; None if it does not."""
    if boundary == "nearest":
        return 1 if n == 1 else None
    return 2 * n if boundary == "reflect" else max(2 * n - 2, 1)


@lru_cache(maxsize=1024)
def circles(problem: Problem) -> tuple[Circle, ...]:
    """The circles of a problem's axes that the engines cannot extend."""
    along = zip(problem.axes, problem.lengths, problem.kernel_size, problem.stride, problem.boundary, strict=True)
    found = []
    for (axis, n, size, stride, boundary), method in zip(along, problem.method, strict=True):
        if boundary not in BOUNDARIES:
            before, after = (size - 1) // 2, size // 2
            length = -(-(n + before + after) // stride)
            length = stride * (length if method == "direct" else _fast(length))
            if whole := period(boundary, n):
                length = min(length, whole)
                before = min(before, length - n)
            found.append(Circle(axis, n, before, length - n - before, boundary))
    return tuple(found)


def _fast(length: int) -> int:
    """The next length of which there is a fast FFT."""
    from scipy.fft import next_fast_len

    return int(next_fast_len(length))


@lru_cache(maxsize=1024)
def on_circles(problem: Problem) -> Problem:
    """The problem of the extended signal, which is periodic along the circles."""
    lengths = list(problem.x_shape)
    for circle in circles(problem):
        lengths[circle.axis] = circle.length
    known = tuple(b if b in BOUNDARIES else "periodic" for b in problem.boundary)
    return replace(problem, x_shape=tuple(lengths), boundary=known)


def extend(xp: Any, x: Array, circles: Sequence[Circle]) -> Array:
    """Lay a signal on its circles, in new memory."""
    region, lengths = [slice(0, n) for n in x.shape], list(x.shape)
    for circle in circles:
        lengths[circle.axis] = circle.length
    result = beginning_with(xp, xp.empty, lengths, x)
    for circle in circles:
        for target, source in circle.edges:
            result[_with(region, circle, target)] = xp.flip(result[_with(region, circle, source)], axis=circle.axis)
        region[circle.axis] = slice(None)
    return result


def fold(xp: Any, g: Array, circles: Sequence[Circle]) -> Array:
    """Transpose of `extend`: each sample's cotangent, and those of its repetitions. It works in the memory of g."""
    region, lengths = [slice(None)] * g.ndim, list(g.shape)
    for circle in reversed(circles):
        for target, source in circle.edges:
            share = xp.flip(g[_with(region, circle, target)], axis=circle.axis)
            if circle.boundary == "nearest":
                share = xp.sum(share, axis=circle.axis, keepdims=True, dtype=g.dtype)
            g[_with(region, circle, source)] += share
        region[circle.axis], lengths[circle.axis] = slice(0, circle.n), circle.n
    return cropped(xp, g, lengths)


def beginning_with(xp: Any, make: Callable[..., Any], shape: Sequence[int], x: Array) -> Array:
    """An array of a shape, by xp.empty or xp.zeros, that begins with x along all axes, in the memory order of x."""
    order = memory_order(x)
    result = make(tuple(shape[axis] for axis in order), dtype=x.dtype, **placement(xp, x))
    result[tuple(slice(0, x.shape[axis]) for axis in order)] = permute_dims(xp, x, order)
    return permute_dims(xp, result, tuple(sorted(range(x.ndim), key=order.__getitem__)))


def cropped(xp: Any, y: Array, shape: Sequence[int]) -> Array:
    """Transpose of `beginning_with` with zeros: the beginning of all axes, in new memory, so that y is freed."""
    result: Array = xp.asarray(y[tuple(slice(0, n) for n in shape)], copy=True)
    return result


def _with(region: list[slice], circle: Circle, part: slice) -> tuple[slice, ...]:
    """A region of which only a part of a circle is meant."""
    return (*region[: circle.axis], part, *region[circle.axis + 1 :])
