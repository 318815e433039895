"""Which engine carries out a call: chosen here, before anything is built. The only file that knows every engine.

Engines and the cost model are imported where the first plan needs them, so that ``import hcnn_core`` stays fast.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from hcnn_core._engines.generic import elementwise as generic_elementwise
from hcnn_core._engines.generic import filters as generic_filters
from hcnn_core._engines.generic import matmul as generic_matmul
from hcnn_core._engines.generic import normalization as generic_normalization
from hcnn_core._engines.generic import pooling as pooling  # the only way there is
from hcnn_core._engines.generic.updates import MOST_TERMS as MOST_TERMS
from hcnn_core._engines.generic.updates import weighted_sums as one_by_one
from hcnn_core._problem import Problem
from hcnn_core._tuning import Tuning, current
from hcnn_core.backend import AnyArray, Array, library_of

if TYPE_CHECKING:
    from hcnn_core._engines.arrangement import BatchAxes
    from hcnn_core._engines.cpu.factored import FactoredPlan
    from hcnn_core._engines.generic.patches import Patches
    from hcnn_core._engines.generic.plan import Plan
    from hcnn_core._engines.transform import Transform


class Convolution(Protocol[AnyArray]):
    """A plan for arrays of one kind: a convolution and its adjoints."""

    def forward(self, xp: Any, x: AnyArray, w: AnyArray, bias: AnyArray | None = None) -> AnyArray: ...
    def adjoints(
        self, xp: Any, g: AnyArray, x: AnyArray | None, w: AnyArray | None, ans: AnyArray | None = None
    ) -> tuple[AnyArray | None, AnyArray | None, AnyArray | None]: ...


def make_plan(problem: Problem, real: bool, like: AnyArray) -> Convolution[AnyArray]:
    """The plan for a call; calls with the same shapes, options and memory layout share it."""
    return _plan_of(problem, real, like.shape, getattr(like, "strides", None), library_of(like), current())


@lru_cache(maxsize=512)
def _plan_of(
    problem: Problem, real: bool, shape: tuple[int, ...], strides: tuple[int, ...] | None, library: str, tuning: Tuning
) -> Convolution[Any]:
    return _plan_for(problem, real, _batch_axes(problem, shape, strides, tuning), library, tuning)


@lru_cache(maxsize=512)
def _plan_for(problem: Problem, real: bool, batch: BatchAxes, library: str, tuning: Tuning) -> Convolution[Any]:
    from hcnn_core._engines import cost_model

    methods = cost_model.choose_methods(problem, real, library, tuning)
    if cost_model.at_once(problem, methods, real, library, tuning):
        from hcnn_core._engines.cpu.fft_plan import FFTPlan

        return FFTPlan(problem, real, tuning, elementwise(np))
    return plan_by(methods, problem, real, batch, library, tuning)


def plan_by(
    methods: tuple[str, ...], problem: Problem, real: bool, batch: BatchAxes, library: str, tuning: Tuning
) -> Plan[Any]:
    """The plan that computes each axis by the given method, on the best engine for the arrays."""
    from hcnn_core._engines import cost_model
    from hcnn_core._engines.arrangement import Arrangement
    from hcnn_core._engines.cpu.real_dft import RealDFT
    from hcnn_core._engines.generic.im2col import Im2col
    from hcnn_core._engines.generic.plan import Plan
    from hcnn_core._engines.transform import Identity

    count = range(len(problem.axes))
    spectral = tuple(k for k in count if methods[k] == "fft")
    direct = tuple(sorted((k for k in count if methods[k] == "direct"), key=lambda k: problem.axes[k]))
    outer, inner = ((), (*batch[0], *batch[1])) if spectral else batch
    samples = math.prod(problem.x_shape[a] for a in inner)
    tiled = cost_model.may_tile(problem, methods, samples, tuning)
    axes = (problem.lengths, problem.kernel_size, problem.stride, problem.boundary)
    transform_for = partial(
        cost_model.choose_transform, *(tuple(values[k] for k in spectral) for values in axes), real, tuning
    )
    arrange = partial(Arrangement, problem, methods, spectral, outer=outer, inner=inner, tiled=tiled)
    longest = max((problem.out_lengths[k] for k in direct), default=1) * samples
    if library == "numpy" and real and longest >= tuning.compiled_positions and has_compiled_kernels():
        transform = transform_for(straight_line=True, three_products=not direct)
        if isinstance(transform, Identity | RealDFT):
            return _cpu_plan(problem, arrange, direct, transform, samples, tuning)
    # The longest axis comes first, because im2col cuts its blocks along it.
    arrangement = arrange(direct=tuple(sorted(direct, key=lambda k: -problem.out_lengths[k])))
    if library == "cupy":
        from hcnn_core._engines.cuda.matmul import matmul
        from hcnn_core._engines.cuda.plan import CudaPlan, SubsampledPlan

        transform = transform_for(matmul=matmul)
        given = arrangement, transform, Im2col(arrangement.taps, tuning), tuning
        if real and CudaPlan.suits(arrangement, transform):
            return CudaPlan(*given)
        if real and arrangement.taps.uneven:
            along = zip(problem.lengths, problem.stride, problem.boundary, strict=True)
            stride = tuple(1 if boundary == "periodic" and n % r else r for n, r, boundary in along)
            return SubsampledPlan(
                *given, plan_by(methods, replace(problem, stride=stride), real, batch, library, tuning)
            )
    return Plan(arrangement, transform_for(), Im2col(arrangement.taps, tuning), tuning)


def _cpu_plan(
    problem: Problem, arrange: Any, direct: tuple[int, ...], transform: Transform[Any], batch: int, tuning: Tuning
) -> Plan[Any]:
    """The plan that runs compiled kernels on NumPy arrays."""
    from hcnn_core._engines.cpu.plan import CpuPlan
    from hcnn_core._engines.cpu.spectral_plan import SpectralPlan
    from hcnn_core._engines.cpu.winograd import products_for
    from hcnn_core._engines.taps import tiles_cover

    if direct and problem.out_lengths[direct[-1]] * batch < tuning.compiled_positions:
        direct = tuple(
            sorted(direct, key=lambda k: problem.out_lengths[k])
        )  # the longest axis last, because vectors lie along it
    elif len(direct) < len(problem.axes) and batch >= tuning.winograd_line:
        sizes = zip(problem.kernel_size, problem.stride, problem.out_lengths, strict=True)
        covered = [tiles_cover(*axis) for axis in sizes]
        direct = tuple(sorted(direct, key=lambda k: not covered[k]))  # first an axis that Winograd tiles cover
    arrangement = arrange(direct=direct)
    kind = CpuPlan if direct else SpectralPlan
    return kind(arrangement, transform, products_for(arrangement.taps, tuning), tuning)


def _batch_axes(problem: Problem, shape: tuple[int, ...], strides: tuple[int, ...] | None, tuning: Tuning) -> BatchAxes:
    """The batch axes of x, or of the result, in their order in memory: outside the convolved axes, and inside."""
    from hcnn_core._engines import cost_model

    if strides is None:
        return (), problem.batch_axes
    kept = range(len(problem.x_shape)) if shape == problem.x_shape else problem.kept_axes
    stride = {axis: abs(strides[position]) for position, axis in enumerate(kept)}
    order = sorted(problem.batch_axes, key=lambda axis: -stride[axis])
    outermost, innermost = (choose(problem.axes, key=stride.__getitem__) for choose in (max, min))
    outer = tuple(axis for axis in order if stride[axis] > stride[outermost])
    inner = tuple(axis for axis in order if axis not in outer)
    samples = math.prod(problem.x_shape[axis] for axis in inner)
    line = samples * problem.x_shape[innermost]
    if samples >= tuning.inner_elements or cost_model.long_lines(line, problem, tuning):
        return outer, inner
    return (), tuple(order)


def elu_and_marginal(xp: Any, problem: Problem, x: Array, w: Array, bias: Array, axis: int) -> tuple[Array, Array]:
    """The ELU of a real convolution plus a bias, and its sum over an axis of the result."""
    plan = make_plan(problem, True, x)
    if library_of(x) == "cupy":
        return plan.forward_and_marginal(xp, x, w, bias, axis)  # type: ignore[attr-defined]  # no FFTPlan
    y = plan.forward(xp, x, w, bias)
    return y, elementwise(xp).marginal(xp, y, (axis,), "sum")


def make_factored_plan(expansion: Problem, contraction: Problem, like: Array, bias: Any) -> FactoredPlan | None:
    """The plan of a (+) layer that holds its Q intermediate signals in blocks only; None if there is none."""
    if library_of(like) != "numpy" or not has_compiled_kernels():
        return None
    plan = _factored_plan_for(expansion, contraction, current())
    return plan if plan is not None and (bias is None or plan.takes(bias)) else None


@lru_cache(maxsize=256)
def _factored_plan_for(expansion: Problem, contraction: Problem, tuning: Tuning) -> FactoredPlan | None:
    from hcnn_core._engines.cpu.factored import FactoredPlan
    from hcnn_core._engines.cpu.spectral_plan import SpectralPlan

    e, c = expansion, contraction
    if len(e.axes) != 2 or e.empty or c.empty:
        return None
    rest = tuple(a for a in c.batch_axes if a not in e.axes)
    plan = plan_by(("fft",) * len(c.axes), c, True, ((), (*e.axes, *rest)), "numpy", tuning)
    positions = e.out_lengths[1] * math.prod(e.x_shape[a] for a in rest)
    if not isinstance(plan, SpectralPlan) or not FactoredPlan.suits(positions):
        return None
    return FactoredPlan(e, c, plan)


def make_patches(
    xp: Any, x: Array, axes: int | Sequence[int], kernel_size: int | Sequence[int], boundary: str | Sequence[str]
) -> Patches[Any]:
    """The map from arrays like x to their patches, on the best engine for them."""
    from hcnn_core._engines.generic.patches import Patches

    library = library_of(x)
    if library == "numpy" and has_compiled_kernels():
        from hcnn_core._engines.cpu.patches import CpuPatches

        compiled = CpuPatches(x, axes, kernel_size, boundary)
        if len(compiled.sizes) == 2:
            return compiled
    patches: Patches[Array] = Patches(x, axes, kernel_size, boundary)
    if library == "cupy":
        from hcnn_core._engines.cuda.patches import CudaPatches

        if CudaPatches.suits(patches):
            return CudaPatches(x, axes, kernel_size, boundary)
    return patches


def elementwise(xp: Any, size: int | None = None) -> Any:
    """The module whose pointwise functions and `marginal` are fastest for arrays of this many elements."""
    large = size is None or size >= current().elementwise_elements
    if xp is np and large and has_compiled_kernels():
        from hcnn_core._engines.cpu import elementwise as compiled

        return compiled
    return generic_elementwise


def normalization(xp: Any, size: int) -> Any:
    """The module whose `forward` and `vjp` normalise arrays of this many elements fastest."""
    if xp is np and size >= current().elementwise_elements and has_compiled_kernels():
        from hcnn_core._engines.cpu import normalization as compiled

        return compiled
    return generic_normalization


def add(x: Array, y: Array) -> Array:
    """``x + y`` of two NumPy arrays of one shape and dtype, on several threads."""
    return generic_elementwise.add(x, y)


def matmul(a: Any, b: Any) -> Array:
    """``a @ b``: small CuPy matrices by a kernel that a CUDA graph can record, all others by their library."""
    if library_of(a) == "cupy":
        from hcnn_core._engines.cuda.matmul import matmul as by_kernel

        return by_kernel(a, b)
    return generic_matmul.matmul(a, b)


def filters(h: Array, g: Array | None = None) -> Any:
    """The module that normalises filters like these, and merges them with factors like g."""
    if library_of(h) == "cupy":
        from hcnn_core._engines.cuda import filters as by_kernels

        if by_kernels.suits(h, g):
            return by_kernels
    return generic_filters


def cross_entropy(logits: Array) -> Any:
    """The function that computes the loss and its gradient together, or None if there is none for these arrays."""
    if library_of(logits) == "cupy":
        from hcnn_core._engines.cuda.loss import cross_entropy as by_kernel

        return by_kernel
    return None


def weighted_sums(like: Array) -> Any:
    """The function that computes weighted sums of arrays like this one, for a namespace, sums, results, condition."""
    if library_of(like) == "cupy":
        from hcnn_core._engines.cuda.updates import weighted_sums as at_once

        return at_once
    return one_by_one


@lru_cache(maxsize=1)
def has_compiled_kernels() -> bool:
    """Whether compiled kernels can be used: Numba is installed and can cache what it compiles on disk."""
    try:
        from hcnn_core._engines.cpu import compile_log
        from hcnn_core._engines.cpu.kernels import gemm  # noqa: F401
    except (ImportError, RuntimeError):
        return False
    compile_log.install()
    return True
