"""Which plan carries out a convolution: chosen here, before anything is built. Other functions: `dispatch.py`.

The cost model is imported where the first plan needs it, so that ``import hcnn_core`` stays fast.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

from hcnn_core._engines.devices import Request, device_of, factored_plan
from hcnn_core._engines.dispatch import native
from hcnn_core._problem import Problem
from hcnn_core._tuning import Tuning, current
from hcnn_core.backend import AnyArray, Array, DeviceLimits, dtype_name

if TYPE_CHECKING:
    from hcnn_core._engines.arrangement import BatchAxes
    from hcnn_core._engines.choice import Choice
    from hcnn_core._engines.cpu.factored import FactoredPlan

GAIN = 0.9
"""Transforms must take less than this fraction of the estimated time without them: closer estimates may be wrong."""

TENSOR_GAIN = 0.5
"""On tensor cores, another choice replaces float32's only below this fraction of its estimated time."""


class ConvolutionPlan(Protocol[AnyArray]):
    """A plan for arrays of one kind: a convolution and its adjoints."""

    def forward(self, xp: Any, x: AnyArray, w: AnyArray, bias: AnyArray | None = None) -> AnyArray: ...
    def forward_and_marginal(
        self, xp: Any, x: AnyArray, w: AnyArray, bias: AnyArray, axis: int
    ) -> tuple[AnyArray, AnyArray]: ...
    def adjoints(
        self, xp: Any, g: AnyArray, x: AnyArray | None, w: AnyArray | None, ans: AnyArray | None = None
    ) -> tuple[AnyArray | None, AnyArray | None, AnyArray | None]: ...


def make_plan(problem: Problem, like: AnyArray) -> ConvolutionPlan[AnyArray]:
    """Return the plan for a call; calls with the same shapes, options, kind of numbers and memory layout share it."""
    device, dtype = device_of(like), dtype_name(like.dtype)
    real = not dtype.startswith("complex")
    request = Request(problem, real, ((), ()), device, current(), device.tensor_cores(dtype))
    return _plan_of(request, like.shape, getattr(like, "strides", None))


def request_for(problem: Problem, like: Array) -> Request:
    """Return the request of a call with arrays like this one."""
    device, dtype = device_of(like), dtype_name(like.dtype)
    real = not dtype.startswith("complex")
    request = Request(problem, real, ((), ()), device, current(), device.tensor_cores(dtype))
    return request._replace(batch=_batch_axes(request, like.shape, getattr(like, "strides", None)))


@lru_cache(maxsize=512)
def _plan_of(request: Request, shape: tuple[int, ...], strides: tuple[int, ...] | None) -> ConvolutionPlan[Any]:
    return _plan_for(request._replace(batch=_batch_axes(request, shape, strides)))


@lru_cache(maxsize=512)
def _plan_for(request: Request) -> ConvolutionPlan[Any]:
    if "measure" in request.problem.method and request.device.may_measure:
        return measured(request)
    return choose(request).make()


def measured(request: Request) -> ConvolutionPlan[Any]:
    """Return the plan that measures the choices, but for those estimated to be far slower than the best."""
    from hcnn_core._engines.measuring import CALL, CANDIDATE_FACTOR, Measured

    choices, seconds = priced(request)
    if len(choices) == 1:
        return choices[0].make()
    most = CANDIDATE_FACTOR * max(min(seconds), CALL)
    near = sorted((i for i in range(len(choices)) if seconds[i] <= most), key=seconds.__getitem__)
    estimated = estimate(choices, seconds, request.tensor_cores)
    candidates = {choice.name: choice for choice in [estimated, *(choices[i] for i in near)]}
    text = problem_text(request.problem, request.batch)
    return Measured(candidates, estimated.name, text, request.device, request.problem.choice_file)


def problem_text(problem: Problem, batch: BatchAxes) -> str:
    """Return a problem in one line of text."""
    parts = [f"{problem.x_shape} * {problem.w_shape}", f"axes {problem.axes}"]
    parts += [f"sum {problem.sum_axes}"] if problem.sum_axes else []
    parts += [f"stride {problem.stride}"] if max(problem.stride) > 1 else []
    return ", ".join([*parts, " ".join(problem.boundary), " ".join(problem.method), f"batch {batch[0]} {batch[1]}"])


def choose(request: Request) -> Choice:
    """Return the choice of least estimated time, among those that the methods of a problem leave open."""
    return estimate(*priced(request), request.tensor_cores)


def estimate(choices: list[Choice], seconds: list[float], tensor_cores: DeviceLimits | None = None) -> Choice:
    """Return the choice by estimated seconds.

    With tensor cores it is the choice of float32, unless another halves its time: arrays between the layers of a
    network then lie in one order, which no estimate counts.
    """
    from hcnn_core._engines import cost_model

    def least(seconds: list[float]) -> int:
        best = min(range(len(choices)), key=seconds.__getitem__)
        plain = next((i for i, choice in enumerate(choices) if "fft" not in choice.methods), best)
        return plain if seconds[best] > GAIN * seconds[plain] else best

    chosen = least(seconds)
    if tensor_cores and len(choices) > 1:
        usual = least([cost_model.seconds(choice, current().other_costs) for choice in choices])
        chosen = chosen if seconds[chosen] < TENSOR_GAIN * seconds[usual] else usual
    return choices[chosen]


def priced(request: Request) -> tuple[list[Choice], list[float]]:
    """All choices and their estimated seconds; a single choice is not estimated."""
    from hcnn_core._engines import cost_model

    choices, costs = request.device.choices(request), request.device.estimate(request.tuning)
    if len(choices) == 1:
        return choices, [0.0]
    return choices, [cost_model.seconds(choice, costs, request.tensor_cores) for choice in choices]


def without_transform(choices: list[Choice], tensor_cores: DeviceLimits | None) -> list[str]:
    """Names of choices whose filters slide on tensor cores along axes that their methods would transform."""
    from hcnn_core._engines import cost_model

    return [
        choice.name for choice in choices if tensor_cores and "slid_mac" in cost_model.units_of(choice, tensor_cores)
    ]


def _batch_axes(request: Request, shape: tuple[int, ...], strides: tuple[int, ...] | None) -> BatchAxes:
    """Order the batch axes of x, or of the result, as memory does: outside the convolved axes, and inside."""
    problem, tuning = request.problem, request.tuning
    if strides is None:
        return (), problem.batch_axes
    axes = range(len(problem.x_shape)) if shape == problem.x_shape else problem.kept_axes
    stride = {axis: abs(strides[position]) for position, axis in enumerate(axes)}
    order = sorted(problem.batch_axes, key=lambda axis: -stride[axis])
    outermost, innermost = (extreme(problem.axes, key=stride.__getitem__) for extreme in (max, min))
    outer = tuple(axis for axis in order if stride[axis] > stride[outermost])
    inner = tuple(axis for axis in order if axis not in outer)
    if problem.sum_axes and request.device.has_batch_inside:
        return (), tuple(order)
    samples = math.prod(problem.x_shape[axis] for axis in inner)
    line = samples * problem.x_shape[innermost]
    if samples >= tuning.inner_elements or _are_long(line, problem, tuning):
        return outer, inner
    return (), tuple(order)


def _are_long(n: int, problem: Problem, tuning: Tuning) -> bool:
    """Whether lines of n positions are long enough to be convolved without moving batch axes inside."""
    results = n * math.prod(problem.out_shape)
    many = results >= tuning.in_place_results or math.prod(problem.x_shape) >= tuning.in_place_samples
    return n >= tuning.in_place_positions and many


def make_factored_plan(expansion: Problem, contraction: Problem, like: Array, bias: Any) -> FactoredPlan | None:
    """Return the plan of a (+) layer that holds its Q intermediate signals block by block, or None."""
    plan = factored_plan(expansion, contraction, current()) if native("factored", like) else None
    return plan if plan is not None and (bias is None or plan.takes(bias)) else None
