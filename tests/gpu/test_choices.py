"""What `auto` chooses for CuPy's arrays: costs order what a card took, and long filters go to one FFT."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import numpy as np
import pytest

from benchmarks.gpu import choices
from benchmarks.gpu.choices import MEASURED, PROBLEMS, Case, choices_of, expected, name_of
from hcnn_core import explain, precision
from hcnn_core._engines import planner
from hcnn_core._engines.cuda import launch as _cuda
from hcnn_core._engines.devices import CUPY, Request
from hcnn_core._engines.wisdom import in_words
from hcnn_core._problem import make_problem
from hcnn_core._tuning import current
from tests.gpu.host import DEVICES, in_place_of_cupy

WORDS = {"d": "direct", "f": "fft"}


def by_axis(case: Case) -> float:
    """Milliseconds by the costs of the way that was measured, whose engines make single filters axis by axis."""
    problem = case.problem()
    request: Any = planner.request_for(problem, choices.Signal(problem.x_shape))
    way = CUPY.by_axis(tuple(WORDS[m] for m in case.methods), request)
    return 1e3 * expected(way, gradients=case.gradients)


def test_costs_give_what_a_card_took_and_order_it() -> None:
    found = {case.name: by_axis(case) for case in MEASURED}
    for case in MEASURED:
        assert 1 / 1.3 < found[case.name] / case.ms < 1.3, (case.name, found[case.name])
    for one, other in itertools.permutations(MEASURED, 2):
        if one.ms > 1.5 * other.ms:
            assert found[one.name] > found[other.name], (one.name, other.name)


@pytest.mark.parametrize("name", ["a layer", "a layer, periodic"])
def test_filters_that_slide_promise_less_than_spectra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_cuda, "device_limits", lambda: DEVICES["H100"])
    case = next(case for case in MEASURED if case.name == name)
    methods, request = ("direct", "direct", "fft", "fft"), Request(case.problem(), True, ((), (0,)), CUPY, current())
    way = CUPY.by_axis(methods, request)
    slides = CUPY.by_axis(methods, request._replace(tensor_cores=DEVICES["H100"]))
    assert expected(slides, gradients=True, products="tf32") <= expected(way, gradients=True)
    assert expected(way, gradients=True, products="tf32") == expected(way, gradients=True)  # spectra are in float32


LINES = (100, 32, 32, 16), (3, 3, 3, 16), (1, 2, 3), {"boundary": "zero"}
"""A layer of one attribute, whose filters are too short for a transform."""


@pytest.mark.parametrize(
    "layer",
    [LINES, *((*choices.LAYER[:3], choices.LAYER[3] | {"boundary": boundary}) for boundary in ("zero", "periodic"))],
    ids=["lines", "zero", "periodic"],
)
def test_the_choice_and_what_explain_prints_follow_the_precision(layer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    shape, taps, axes, options = layer

    def found(products: str, device: str = "H100", dtype: str = "float32") -> tuple[str, list[str]]:
        """The plan's methods, and which choices have no transform by what `explain` says."""
        x, w, problem = np.empty(shape, dtype), np.empty(taps, dtype), make_problem(shape, taps, axes, **options)
        planner._plan_of.cache_clear()
        planner._plan_for.cache_clear()
        with in_place_of_cupy(lambda *_: None, DEVICES[device]), precision(products):
            plan: Any = planner.make_plan(problem, x)
            head, *table = explain(x, w, axes, **options).splitlines()
        rounded = products == "tf32" and dtype == "float32"
        assert head.startswith(f"{dtype} by products of tf32" if rounded else f"{dtype} (")
        methods, last = " ".join(plan.arrangement.methods), table[-1]
        chosen = in_words(f"{type(plan).__name__} {methods}")
        assert f"The estimate chooses {chosen}: taps, unless another promises a tenth less." in table
        return methods, last.partition(": ")[2].rstrip(".").split(", ") if last.startswith("By tensor cores,") else []

    (plain, none), (quick, slid) = kinds = [found(products) for products in ("float32", "tf32")]
    assert not none and in_words(f"TensorPlan {quick}") in slid
    assert found("tf32", dtype="float64") == kinds[0] == found("float32")
    with pytest.raises(RuntimeError, match="compute capability"):
        found("tf32", "T4")
    if (
        layer is LINES
    ):  # filters are slid along an axis that float32 does not transform, where that promises half its time
        assert plain == "direct direct direct" and quick == "direct direct fft"
    else:  # the same order of axes, so that layers need no copies between them
        assert plain == quick == "direct direct fft fft"


CHOSEN = {
    "lines by 31": "d by SinglePlan",
    "lines by 1001": "f by FFTPlan",
    "plane by 5": "dd by SinglePlan",
    "volume by 3": "ddd by SinglePlan",
    "volume by 9": "fff by FFTPlan",
}


@pytest.mark.parametrize("name", CHOSEN)
def test_single_filters_have_a_kernel_and_long_ones_an_fft(name: str) -> None:
    case = next(case for case in MEASURED if case.name == name)
    assert name_of(choices_of(case.problem())[1]) == CHOSEN[name]


def test_a_transform_that_fits_no_card_is_not_chosen() -> None:
    """Layers of All-CNN, whose DFTs would take 276 KiB of shared memory."""
    case = Case("a wide layer", (128, 32, 32, 96), (96, 3, 3, 96), (1, 2), {"boundary": "zero", "sum_axes": 3}, True)
    found, chosen = choices_of(case.problem())
    assert "ff by Plan" in map(name_of, found) and name_of(chosen).endswith("by CudaPlan")


def test_every_kind_of_way_is_chosen_for_some_problem() -> None:
    assert len(PROBLEMS) >= 40 and len({case.name for case in (*MEASURED, *PROBLEMS)}) >= 50
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_cuda, "device_limits", lambda: DEVICES["H100"])
        named = [name_of(choices_of(case.problem(), case.products)[1]) for case in PROBLEMS]
    engines = Counter(name.partition(" by ")[2] for name in named)
    assert engines["SinglePlan"] > 10 and engines["FFTPlan"] > 5 and engines["CudaPlan"] > 2, engines
    assert engines["TensorPlan"] >= 5, engines
