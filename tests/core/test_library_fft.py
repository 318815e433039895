"""FFTs along all axes of a convolution with one filter, whole and by blocks: by SciPy, and as CuPy needs them."""

from __future__ import annotations

import itertools
from functools import partial
from types import SimpleNamespace
from typing import Any

import array_api_strict
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hcnn_core._engines.dispatch import engine
from hcnn_core._engines.generic import block_plan
from hcnn_core._engines.generic.block_plan import BlockPlan
from hcnn_core._engines.generic.fft_plan import CUFFT_PRIMES, TOGETHER, FFTPlan
from hcnn_core._engines.transform import next_fast_length, roughness
from hcnn_core._problem import make_problem
from hcnn_core._tuning import tuned
from tests.core.oracle import BOUNDARIES, DTYPES, Problem, assert_close, noise


@st.composite
def single_filters(draw: st.DrawFn) -> Problem:
    m = draw(st.integers(1, 5))
    shape = draw(st.lists(st.integers(1, 12 if m < 3 else 4), min_size=m, max_size=m + 2))
    axes = tuple(draw(st.permutations(range(len(shape))))[:m])
    kernel = tuple(draw(st.lists(st.integers(1, 9 if m < 3 else 5), min_size=m, max_size=m)))
    options = {
        name: tuple(draw(st.lists(st.sampled_from(values), min_size=m, max_size=m)))
        for name, values in (("boundary", BOUNDARIES), ("stride", (1, 2, 3)))
    }
    dtype = draw(st.sampled_from(DTYPES))
    return Problem(noise(0, tuple(shape), dtype), noise(1, kernel, dtype), axes, options)


def plan_of(kind: type[FFTPlan], problem: Problem, library: str, **sizes: int) -> FFTPlan:
    shapes = make_problem(problem.x.shape, problem.w.shape, problem.axes, **problem.options)
    with tuned(**sizes) as tuning:
        return kind(shapes, problem.x.dtype.kind == "f", tuning, library == "numpy", partial(engine, "elementwise"))


@given(single_filters(), st.sampled_from([FFTPlan, BlockPlan]), st.sampled_from([1, 99]))
@pytest.mark.parametrize(("xp", "library"), [(np, "numpy"), (np, "cupy"), (array_api_strict, "cupy")])
def test_maps_are_their_definitions(xp: Any, library: str, problem: Problem, kind: type[FFTPlan], few: int) -> None:
    x, w = problem.x, problem.w
    plan = plan_of(kind, problem, library, block_elements=few, device_spectrum_elements=few)
    g = noise(2, problem.y_shape, x.dtype.name)
    kept = [a.copy() for a in (g, x, w)]
    y = plan.forward(xp, xp.asarray(x), xp.asarray(w))
    g_x, g_w, _ = plan.adjoints(xp, xp.asarray(g), xp.asarray(x), xp.asarray(w))
    assert_close(np.asarray(y), problem.convolution(), x, w)
    assert_close(np.asarray(g_x), problem.transpose_x(g), g, w)
    assert_close(np.asarray(g_w), problem.transpose_w(g), g, x)
    assert all(map(np.array_equal, kept, (g, x, w)))


def test_parts_of_a_sum_are_added_in_their_own_order_whichever_thread_ends_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    problem = Problem(noise(0, (7, 40), "float32"), noise(1, (5,), "float32"), (1,), {"boundary": "zero", "stride": 1})
    plan = plan_of(BlockPlan, problem, "numpy", block_elements=1)
    g, found = noise(2, problem.y_shape, "float32"), []
    for order in itertools.permutations(range(4)):

        def shares(work: Any, count: int, elements: int, order: Any = order) -> None:
            assert count > 4
            ends = np.linspace(0, count, 5).astype(int)
            for part in order:
                work(ends[part], ends[part + 1])

        monkeypatch.setattr(block_plan, "parallel_for", shares)
        found.append(plan.adjoints(np, g, problem.x, problem.w)[1].tobytes())
    assert len(set(found)) == 1


class Watched:
    """NumPy with a record of its transforms."""

    __name__ = "watched"

    def __init__(self) -> None:
        self.seen: list[Any] = []
        names = "rfftn", "irfftn", "fftn", "ifftn", "fft", "ifft"
        self.fft = SimpleNamespace(**{name: partial(self.transform, name) for name in names})

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    def transform(self, name: str, x: Any, **options: Any) -> Any:
        self.seen.append((name, x.flags.c_contiguous, options))
        return getattr(np.fft, name)(x, **options)


@pytest.mark.parametrize("order", ["C", "F"])
def test_cufft_gets_at_most_three_axes_at_once_and_these_the_last(order: Any) -> None:
    xp, x, w = Watched(), noise(0, (4, 6, 3, 5, 7), "float64").copy(order), noise(1, (3, 2, 3, 2), "float64")
    problem = Problem(x, w, (3, 1, 4, 0), {"boundary": "zero", "stride": (1, 2, 1, 1)})
    plan = plan_of(FFTPlan, problem, "cupy")
    y = plan.forward(xp, x, w)
    assert_close(y, problem.convolution(), x, w)
    together = [(name, lies, options["axes"]) for name, lies, options in xp.seen if name.endswith("n")]
    assert [name for name, *_ in together] == ["rfftn", "rfftn", "irfftn"]
    for name, lies, axes in together:
        assert axes == (-3, -2, -1) and len(axes) <= TOGETHER
        assert lies or name == "irfftn"
    assert all(set(options) == {"axis"} for name, _, options in xp.seen if not name.endswith("n"))


def test_lengths_have_the_factors_that_cufft_is_fast_at() -> None:
    for n in (1, 11, 97, 264, 1025, 4097):
        length = next_fast_length(n, CUFFT_PRIMES)
        assert n <= length < 1.1 * n + 2
        assert roughness(length, CUFFT_PRIMES) == 1 and roughness(13 * length, CUFFT_PRIMES) == 13
