"""Translations: a group action, and its transpose."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes

from hcnn_core import translate, translate_vjp
from tests.core.oracle import (
    BOUNDARIES,
    DTYPES,
    EXTENSIONS,
    LAYOUTS,
    SEEDS,
    C,
    NDArray,
    eps,
    lay_out,
    noise,
    norm,
    reached,
)


@dataclass(frozen=True)
class Case:
    x: NDArray
    axes: tuple[int, ...]
    shift: tuple[int, ...]
    boundary: tuple[str, ...]

    def run(self, x: NDArray | None = None, factor: int = 1) -> NDArray:
        shift = tuple(factor * s for s in self.shift)
        return np.asarray(translate(self.x if x is None else x, shift, self.axes, boundary=self.boundary))

    def transpose(self, g: NDArray) -> NDArray:
        return np.asarray(translate_vjp(g, self.shift, self.axes, boundary=self.boundary))

    def definition(self) -> NDArray:
        """Element by element: result[.., i, ..] = x[.., i - shift, ..]."""
        result = np.zeros_like(self.x)
        for i in np.ndindex(*self.x.shape):
            source = list(i)
            inside = True
            for a, s, boundary in zip(self.axes, self.shift, self.boundary, strict=True):
                index, means_one = reached(np.asarray(i[a] - s), self.x.shape[a], boundary)
                source[a] = int(index)
                inside &= bool(means_one)
            if inside:
                result[i] = self.x[tuple(source)]
        return result


@st.composite
def cases(draw: st.DrawFn, boundaries: Sequence[str] = EXTENSIONS) -> Case:
    shape = draw(array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=5))
    axes = draw(st.permutations(range(len(shape))))[: draw(st.integers(0, len(shape)))]
    seed = draw(SEEDS)
    x = lay_out(noise(seed, shape, draw(st.sampled_from(DTYPES))), draw(st.sampled_from(LAYOUTS)), seed)
    shift = tuple(draw(st.integers(-12, 12)) for _ in axes)
    return Case(x, tuple(axes), shift, tuple(draw(st.sampled_from(boundaries)) for _ in axes))


@given(cases())
def test_translation_is_its_definition(case: Case) -> None:
    kept = case.x.copy()
    y = case.run()
    assert y.dtype == case.x.dtype and np.array_equal(y, case.definition())
    assert y.flags.writeable and not np.shares_memory(y, case.x) and np.array_equal(case.x, kept)


@given(cases(), SEEDS)
def test_transpose_passes_the_dot_test(case: Case, seed: int) -> None:
    g = noise(seed, case.x.shape, str(case.x.dtype))
    kept = g.copy()
    back = case.transpose(g)
    assert (back.shape, back.dtype) == (g.shape, g.dtype)
    assert np.array_equal(g, kept) and not np.shares_memory(g, back)
    bound = C * eps(case.x.dtype) * norm(g) * norm(case.x)
    assert abs(np.sum(g * case.run()) - np.sum(back * case.x)) <= bound


@given(cases(BOUNDARIES), SEEDS)
def test_transpose_is_the_translation_back_where_nothing_is_reflected(case: Case, seed: int) -> None:
    g = noise(seed, case.x.shape, str(case.x.dtype))
    assert np.array_equal(case.transpose(g), case.run(g, factor=-1))


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float16, object])
def test_dtypes_of_any_kind(dtype: Any) -> None:
    x = np.arange(4).astype(dtype)
    y = translate(x, 1, 0, boundary="zero")
    assert y.dtype == dtype and y.tolist() == np.array([0, 0, 1, 2]).astype(dtype).tolist()


@pytest.mark.parametrize("boundary", EXTENSIONS)
@pytest.mark.parametrize("move", [translate, translate_vjp])
def test_unsigned_integers_are_moved_as_floats_or_refused(move: Any, boundary: Any) -> None:
    """A boundary that changes signs has negative values, which no unsigned integer is."""
    x = np.array([0, 1, 0, 0, 1])
    for shift in (-3, 3):
        expected = move(x.astype(float), shift, 0, boundary=boundary)
        with pytest.raises(TypeError) if (expected < 0).any() else contextlib.nullcontext():
            assert np.array_equal(move(x.astype(np.uint8), shift, 0, boundary=boundary), expected)


def test_shifts_of_any_size_and_kind() -> None:
    x = np.arange(3)
    assert translate(x, 10**30 + 1, 0, boundary="periodic").tolist() == np.roll(x, (10**30 + 1) % 3).tolist()
    assert translate(x, 10**30, 0, boundary="zero").tolist() == [0, 0, 0]
    assert translate(x, 10**30, 0, boundary="nearest").tolist() == [0, 0, 0]
    assert translate(x, 6 * 10**30 - 1, 0, boundary="reflect").tolist() == [1, 2, 2]
    assert translate(x, 4 * 10**30 - 1, 0, boundary="mirror").tolist() == [1, 2, 1]
    assert translate(x, np.int8(1), np.int64(0), boundary="zero").tolist() == [0, 0, 1]
    assert translate(np.eye(2), np.array([1, 0]), (0, 1), boundary="periodic").tolist() == [[0, 1], [1, 0]]
    assert translate(np.ones(()), 1, (), boundary="zero") == 1


X = np.ones((3, 4))
