"""The plan that is priced is the plan that is made, on random problems, and its price counts what it does."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any
from unittest import mock

import numpy as np
import pytest

from hcnn_core._engines import cost_model, planner
from hcnn_core._engines.choice import AtOnce, Choice, Subsampled
from hcnn_core._engines.devices import NUMPY
from hcnn_core._problem import Problem, make_problem
from tests.core.oracle import BOUNDARIES

numba = pytest.importorskip("numba")

from hcnn_core._engines.cpu import register_tiles  # noqa: E402
from hcnn_core._engines.cpu.direct import taps_of_x  # noqa: E402

PROBLEMS = 200
LENGTHS = (13, 31, 61, 127, 251, 509, 1021, 2039, 4999, 4, 8, 8, 16, 16, 32)
"""Primes, for which DFTs take long, and lengths that tiles cover. Others are drawn too."""
KERNELS = (1, 2, 3, 3, 3, 4, 5, 7, 11, 16, 33, 65, 257)
ITEM = 4
"""Bytes of a float32."""


class NumpySignal:
    """What the planner asks of an array: its shape, strides, dtype and library. It needs no memory."""

    __module__ = "numpy"

    def __init__(self, shape: tuple[int, ...], order: Sequence[int], real: bool = True) -> None:
        self.dtype = np.dtype("float32" if real else "complex64")
        step, strides = ITEM, dict.fromkeys(range(len(shape)), 0)
        for axis in reversed(order):
            strides[axis], step = step, step * shape[axis]
        self.shape, self.strides = shape, tuple(strides.values())


class CupySignal(NumpySignal):
    """The same of CuPy's."""

    __module__ = "cupy"


def draw(rng: np.random.Generator, most_samples: int = 1 << 22) -> tuple[Problem, list[int]]:
    """A problem of any kind, and the order in which the axes of its signal lie in memory."""
    samples = most_samples + 1
    while samples > most_samples:
        count, batches, channels = int(rng.integers(1, 6)), int(rng.integers(3)), int(rng.integers(2))
        of_any_kind = np.where(rng.random(count) < 0.4, rng.choice(LENGTHS, count), 5001 ** rng.random(count))
        sizes = [*map(int, of_any_kind), *map(int, 100 ** rng.random(batches)), *map(int, 64 ** rng.random(channels))]
        samples = math.prod(sizes)
    place = [int(a) for a in rng.permutation(len(sizes))]
    shape = dict(zip(place, sizes, strict=True))
    x_shape = tuple(shape[a] for a in range(len(sizes)))
    axes, sum_axes = tuple(place[:count]), tuple(place[count + batches :])
    kernel = (int(min(rng.choice(KERNELS), 2 * n)) for n in sizes[:count])
    new = (int(64 ** rng.random()),) * int(rng.integers(2))
    boundary: Any = tuple(map(str, rng.choice(BOUNDARIES, count)))
    method: Any = (
        tuple(map(str, rng.choice(["auto", "auto", "direct", "fft"], count))) if rng.random() < 0.2 else "auto"
    )
    problem = make_problem(
        x_shape, (*(x_shape[a] for a in sum_axes), *kernel, *new), axes, boundary=boundary, sum_axes=sum_axes,
        stride=tuple(map(int, rng.choice([1, 1, 1, 2, 3, 4, 7], count))), method=method,
    )  # fmt: skip
    order = rng.permutation(len(sizes)) if rng.random() < 0.3 else range(len(sizes))
    return problem, [int(a) for a in order]


def is_of(plan: Any, choice: Choice) -> bool:
    """Whether a plan is what a choice says."""
    if isinstance(choice, AtOnce):
        return plan is choice.plan
    parts = (plan.arrangement, plan.transform, plan.products) if type(plan) is choice.engine else ()
    same = all(map(lambda a, b: a is b, parts, (choice.arrangement, choice.transform, choice.products)))
    return bool(parts) and same and (not isinstance(choice, Subsampled) or is_of(plan.whole, choice.whole))


def made_and_priced(problem: Problem, x: Any) -> tuple[Any, list[tuple[float, Choice]]]:
    """The plan of a call, and the choices that were priced for it."""
    priced: list[tuple[float, Choice]] = []
    seconds = cost_model.seconds

    def recorded(choice: Choice, costs: Any, passes: int) -> float:
        priced.append((seconds(choice, costs, passes), choice))
        return priced[-1][0]

    for kept in (planner._plan_of, planner._plan_for):
        kept.cache_clear()
    with mock.patch.object(cost_model, "seconds", recorded):
        return planner.make_plan(problem, x), priced


@pytest.mark.parametrize(("kind", "count", "most"), [(NumpySignal, PROBLEMS, 1 << 22), (CupySignal, 50, 1 << 12)])
def test_the_plan_that_is_made_is_the_cheapest_that_was_priced(kind: Any, count: int, most: int) -> None:
    """Direct convolution goes first unless another promises a tenth less."""
    rng, engines = np.random.default_rng(0), Counter[str]()
    for _ in range(count):
        problem, order = draw(rng, most)
        plan, priced = made_and_priced(problem, kind(problem.x_shape, order, bool(rng.random() < 0.85)))
        engines[type(plan).__name__] += 1
        if not priced:
            assert "auto" not in problem.method
            continue
        (seconds,) = (seconds for seconds, choice in priced if is_of(plan, choice))
        plain = [seconds for seconds, choice in priced if "fft" not in choice.methods]
        least = min(seconds for seconds, _ in priced)
        assert seconds == (plain[0] if plain and least > planner.GAIN * plain[0] else least), problem
    expected = {"CpuPlan", "SpectralPlan", "Plan", "FFTPlan"} if kind is NumpySignal else {"CudaPlan", "SubsampledPlan"}
    assert expected <= engines.keys()


def test_a_price_counts_the_matrices_and_lines_that_the_plan_has() -> None:
    """Matrices as the plan makes them of filters, lines as the tables of the kernels have them."""
    rng, seen, sums = np.random.default_rng(1), Counter[str](), register_tiles.sums
    lines: list[int] = []

    def recorded(rows: int, n: int, size: int = 0) -> float:
        lines.append(n)
        return sums(rows, n, size)

    for _ in range(PROBLEMS):
        problem, order = draw(rng, 1 << 16)
        real = bool(rng.random() < 0.85)
        methods = tuple(rng.choice(["direct", "direct", "fft"], len(problem.axes)))
        request: Any = planner.request_for(problem, NumpySignal(problem.x_shape, order, real))
        choice = NUMPY.by_axis(methods, request)
        plan: Any = choice.make()
        if math.prod(problem.w_shape) * choice.transform.frequencies > 1 << 20:
            continue
        lines.clear()
        with mock.patch.object(register_tiles, "sums", recorded):
            cost_model.units_of(choice)
        t, m = plan.products.taps, choice.matrices
        w = np.zeros((math.prod(problem.w_shape) // math.prod(plan.w_matrix[1:]), *plan.w_matrix[1:]))
        spectra = plan.transform.kernel(np, w if real else w.astype(complex))
        assert spectra.shape == (m.entries // plan.outer, m.rows, m.columns * t.count)
        assert m.are_complex == (spectra.dtype == complex)
        compiled = choice.engine.__name__ != "Plan"
        assert set(lines) == ({taps_of_x(t, 1, 0, t.leading, ITEM).n} if compiled else set()), problem
        seen[type(choice.products).__name__, type(choice.transform).__name__] += 1
    products = "Im2col", "DirectProducts", "WinogradProducts"
    transforms = "Identity", "MatrixDFT", "RealDFT", "LibraryFFT"
    assert {name for pair in seen for name in pair} == {*products, *transforms}


@pytest.mark.parametrize("length, gathered", [(126, False), (127, True)])
def test_a_price_has_the_products_that_no_compiled_kernel_makes(length: int, gathered: bool) -> None:
    """Where a stride does not divide a period, NumPy adds up the transpose: every tap, channel and result."""
    problem = make_problem(
        (3, 64, 9, length), (64, 7, 33), (2, 3), boundary="periodic", sum_axes=(1,), stride=(1, 2), method="direct"
    )
    x = np.empty(problem.x_shape, np.float32)
    choice = NUMPY.by_axis(("direct", "direct"), planner.request_for(problem, x))
    products = math.prod(problem.w_shape) * math.prod(problem.y_shape)
    assert cost_model.units_of(choice)["gathered"] == (products if gathered else 0)
