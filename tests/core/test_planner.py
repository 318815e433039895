"""What the cost model prices is what the planner makes, on random problems."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hcnn_core._engines import cost_model
from hcnn_core._engines.planner import make_plan
from hcnn_core._problem import Problem, make_problem
from hcnn_core._tuning import DEFAULT

pytest.importorskip("numba")


def direct_problem(rng: np.random.Generator) -> Problem:
    """A direct convolution by compiled kernels, whose last axis may be too short for their lines."""
    count = int(rng.integers(1, 4))
    stride = tuple(map(int, rng.integers(1, 4, count)))
    lengths = tuple(int(n * r) for n, r in zip(rng.integers(1, 40, count), stride, strict=True))
    lengths = (16 * stride[0] + lengths[0], *lengths[1:])
    kernel = tuple(map(int, rng.integers(1, 8, count)))
    boundary: Any = str(rng.choice(["zero", "periodic"]))
    return make_problem(
        lengths, (*kernel, int(rng.integers(1, 5))), tuple(range(count)), boundary=boundary, sum_axes=(),
        stride=stride, method="direct",
    )  # fmt: skip


def test_lines_are_priced_as_long_as_the_plan_makes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    priced: list[int] = []
    sums = cost_model.sums

    def recording(rows: int, n: int, size: int = 0) -> float:
        priced.append(n)
        return sums(rows, n, size)

    rng, shorter = np.random.default_rng(0), 0
    for _ in range(200):
        problem = direct_problem(rng)
        x: Any = np.empty(problem.x_shape, np.float32)
        taps = make_plan(problem, True, x).products.taps  # type: ignore[attr-defined]
        priced.clear()
        with monkeypatch.context() as patch:
            patch.setattr(cost_model, "sums", recording)
            cost_model.units_of(problem, problem.method, True, "numpy", DEFAULT)
        assert set(priced) == {taps.out_lengths[-1]}, problem
        shorter += problem.out_lengths[-1] < 16
    assert 40 < shorter < 160  # both kinds are among them
