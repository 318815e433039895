"""Two convolutions are one: periodic ones, and those with zeros inside."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hcnn_core import convolve, translate
from hcnn_core._tuning import tuned
from tests.core.oracle import DTYPES, ENGINES, METHODS, SEEDS, C, NDArray, eps, noise, norm, wide


def norm1(array: NDArray) -> float:
    """Sum of the moduli, in double precision."""
    return float(np.abs(wide(array)).sum())


def largest(array: NDArray) -> float:
    return float(np.abs(array).max())


# Two convolutions, one after the other, are one.


@dataclass(frozen=True)
class Cascade:
    """A convolution with K filters a, and a second one that takes the sum over them: both halves of Eq. (8)."""

    x: NDArray  # (2, *lengths)
    a: NDArray  # (*sizes, K)
    b: NDArray  # (K, *sizes)
    boundary: str
    stride: tuple[tuple[int, ...], tuple[int, ...]]
    method: tuple[str, str] = ("auto", "auto")

    @property
    def axes(self) -> tuple[int, ...]:
        return tuple(range(1, self.x.ndim))

    def run(self) -> NDArray:
        first, then = (
            functools.partial(convolve, axes=self.axes, boundary=self.boundary, stride=r, method=m)
            for r, m in zip(self.stride, self.method, strict=True)
        )
        return np.asarray(then(first(self.x, self.a), self.b, sum_axes=-1))

    def run_merged(self, w: NDArray) -> NDArray:
        """One convolution with w, with the product of both strides."""
        stride = tuple(math.prod(r) for r in zip(*self.stride, strict=True))
        return np.asarray(convolve(self.x, w, self.axes, boundary=self.boundary, stride=stride, method=self.method[0]))

    def products(self) -> NDArray:
        """The sum over K of a and b spread out by the first stride r, in full: lengths s_a + r (s_b - 1).

        Tap t of a filter of length s stands at p = t - s // 2. The first convolution reads x at r j - p, the second
        that at j = r' i - q: together at r r' i - (p + r q), so the product of both taps belongs at p + r q. In this
        array it has the index t_a + r t_b, which therefore stands at (index) - s_a // 2 - r (s_b // 2).
        """
        a, b = wide(self.a), wide(self.b)
        sizes, r = a.shape[:-1], self.stride[0]
        w = np.zeros([s + k * (n - 1) for s, k, n in zip(sizes, r, b.shape[1:], strict=True)], np.result_type(a, b))
        for t in np.ndindex(*b.shape[1:]):
            part = tuple(slice(k * i, k * i + s) for s, k, i in zip(sizes, r, t, strict=True))
            w[part] += np.tensordot(a, b[:, *t], 1)
        return w

    def merged(self) -> NDArray:
        """The filter that is both: `products` with zeros appended, to an odd length with position 0 in its middle."""
        w = self.products()
        reach = [
            s // 2 + k * (n // 2) for s, k, n in zip(self.a.shape[:-1], self.stride[0], self.b.shape[1:], strict=True)
        ]
        w = np.pad(w, [(0, 2 * before + 1 - n) for before, n in zip(reach, w.shape, strict=True)])
        return np.asarray(w, self.a.dtype)

    def bound(self) -> float:
        """How far `run` and `run_merged` may be from each other.

        |x * a| <= |a|_1 |x| (Young), so y, its error (C eps of that), and the merged filter (|a|_1 |b|) are bounded.
        To the errors of the first convolution, which the second passes on times |b|, of the second and of the merged
        one comes the rounding of the merged filter.
        """
        return (3 * C + 1) * eps(self.x.dtype) * norm(self.x) * norm1(self.a) * norm(self.b)

    def with_margin(self, margin: list[int]) -> Cascade:
        """The same filters on x with zeros around it."""
        return replace(self, x=np.pad(self.x, [(0, 0), *((n, n) for n in margin)]))


@st.composite
def cascades(draw: st.DrawFn, boundary: str = "periodic", strides: tuple[int, ...] = (1, 2, 3)) -> Cascade:
    m = draw(st.sampled_from([2, 1, 3]))

    def per_axis(*choices: int) -> tuple[int, ...]:
        return tuple(draw(st.lists(st.sampled_from(choices), min_size=m, max_size=m)))

    sizes = (3, 2, 4, 1, 5) if m < 3 else (2, 3, 1)
    stride = per_axis(*strides), per_axis(*strides)
    periods = per_axis(*((3, 2, 4, 1, 5) if m < 3 else (2, 1, 3)))
    # the second convolution finds a period of the first one's result only where strides divide the length
    lengths = tuple(k * n for k, n in zip(stride[0], periods, strict=True)) if boundary == "periodic" else periods
    k, seed, dtype = draw(st.integers(1, 3)), draw(SEEDS), draw(st.sampled_from(DTYPES))
    return Cascade(
        noise(seed, (2, *lengths), dtype),
        noise(seed + 1, (*per_axis(*sizes), k), dtype),
        noise(seed + 2, (k, *per_axis(*sizes)), dtype),
        boundary,
        stride,
        (draw(st.sampled_from(METHODS)), draw(st.sampled_from(METHODS))),
    )


@given(cascades(), ENGINES)
def test_two_periodic_convolutions_are_one(cascade: Cascade, constants: dict[str, int]) -> None:
    with tuned(**constants):
        assert largest(cascade.run() - cascade.run_merged(cascade.merged())) <= cascade.bound()


@given(cascades(boundary="zero"))
def test_two_convolutions_with_zeros_are_one_inside(cascade: Cascade) -> None:
    """Zeros as wide as the first filter reaches keep all of the result that the second one reads."""
    inside = cascade.with_margin([s // 2 for s in cascade.a.shape[:-1]])
    assert largest(inside.run() - inside.run_merged(inside.merged())) <= inside.bound()


def example(sizes: tuple[int, int], boundary: str = "periodic", stride: int = 1) -> Cascade:
    x, a, b = noise(0, (2, 12), "float64"), noise(1, (sizes[0], 2), "float64"), noise(2, (2, sizes[1]), "float64")
    return Cascade(x, a, b, boundary, ((stride,), (1,)))


def test_filters_are_merged_about_their_middles() -> None:
    """Two of even length reach to the left by one sample more than one filter of their full length would."""
    for sizes in ((3, 3), (3, 4), (4, 3)):
        cascade = example(sizes)
        assert largest(cascade.run() - cascade.run_merged(cascade.products())) <= cascade.bound()
    even = example((4, 2))
    moved = even.run_merged(even.products())
    assert largest(even.run() - moved) > 0.1
    assert largest(even.run() - translate(moved, -1, 1, boundary="periodic")) <= even.bound()


def test_strides_spread_the_second_filter_out() -> None:
    cascade = example((3, 3), stride=2)
    assert largest(cascade.run() - cascade.run_merged(cascade.merged())) <= cascade.bound()
    together = replace(cascade, stride=((1,), (1,))).merged()
    assert largest(cascade.run() - cascade.run_merged(together)) > 0.1


def test_two_convolutions_with_zeros_are_not_one() -> None:
    """At the ends the second finds zeros where the result of the first goes on; a margin too narrow shows as well."""
    cascade = example((5, 3), "zero")
    for margin in (0, 1):
        narrow = cascade.with_margin([margin])
        assert largest(narrow.run() - narrow.run_merged(narrow.merged())) > 1e-3 > 1e3 * narrow.bound()
    wide_enough = cascade.with_margin([2])
    assert largest(wide_enough.run() - wide_enough.run_merged(wide_enough.merged())) <= wide_enough.bound()
