"""Which engine carries out a convolution: chosen here, before anything is built. Other functions: `dispatch.py`.

Engines and the cost model are imported where the first plan needs them, so that ``import hcnn_core`` stays fast.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Protocol

from hcnn_core._engines import wisdom
from hcnn_core._engines.dispatch import engine, has_compiled_kernels
from hcnn_core._engines.generic import matmul as generic_matmul
from hcnn_core._engines.generic.matmul import Matmul
from hcnn_core._problem import OPEN, Problem
from hcnn_core._tuning import Tuning, current
from hcnn_core.backend import AnyArray, Array, dtype_name, library_of
from hcnn_core.precisions import passes

if TYPE_CHECKING:
    from hcnn_core._engines.arrangement import BatchAxes
    from hcnn_core._engines.choice import AtOnce, ByAxis, Choice
    from hcnn_core._engines.cpu.factored import FactoredPlan
    from hcnn_core._engines.transform import Transform


GAIN = 0.9
"""Transforms are chosen if they promise this fraction of the time without them. Closer estimates may err either way."""


KEPT = 0.5
"""The fraction of the time of float32's choice that another must promise to be taken in its place."""


class Convolution(Protocol[AnyArray]):
    """A plan for arrays of one kind: a convolution and its adjoints."""

    def forward(self, xp: Any, x: AnyArray, w: AnyArray, bias: AnyArray | None = None) -> AnyArray: ...
    def forward_and_marginal(
        self, xp: Any, x: AnyArray, w: AnyArray, bias: AnyArray, axis: int
    ) -> tuple[AnyArray, AnyArray]: ...
    def adjoints(
        self, xp: Any, g: AnyArray, x: AnyArray | None, w: AnyArray | None, ans: AnyArray | None = None
    ) -> tuple[AnyArray | None, AnyArray | None, AnyArray | None]: ...


def make_plan(problem: Problem, real: bool, like: AnyArray) -> Convolution[AnyArray]:
    """The plan for a call; calls with the same shapes, options and memory layout share it."""
    shape, strides, library = like.shape, getattr(like, "strides", None), library_of(like)
    return _plan_of(problem, real, shape, strides, library, current(), passes_of(like) if library == "cupy" else 0)


def passes_of(like: AnyArray) -> int:
    """How many products of TensorFloat-32 make one product of such arrays, by the precision in force; 0 for none."""
    return passes(dtype_name(like.dtype)) if library_of(like) == "cupy" else 0


@lru_cache(maxsize=512)
def _plan_of(
    problem: Problem, real: bool, shape: tuple[int, ...], strides: tuple[int, ...] | None, library: str, tuning: Tuning,
    passes: int,
) -> Convolution[Any]:  # fmt: skip
    return _plan_for(problem, real, batch_axes(problem, shape, strides, tuning, library), library, tuning, passes)


@lru_cache(maxsize=512)
def _plan_for(
    problem: Problem, real: bool, batch: BatchAxes, library: str, tuning: Tuning, passes: int = 0
) -> Convolution[Any]:
    if "measure" in problem.method and library in wisdom.PACKAGES:
        return measured(problem, real, batch, library, tuning, passes)
    return choose(problem, real, batch, library, tuning, passes).make()


def measured(
    problem: Problem, real: bool, batch: BatchAxes, library: str, tuning: Tuning, passes: int = 0
) -> Convolution[Any]:
    """The plan that measurements find, among the choices that do not promise to take far longer than the best."""
    from hcnn_core._engines.measuring import CALL, NEAR, Measured

    found, seconds = priced(problem, real, batch, library, tuning, passes)
    if len(found) == 1:
        return found[0].make()
    most = NEAR * max(min(seconds), CALL)
    near = sorted((i for i in range(len(found)) if seconds[i] <= most), key=seconds.__getitem__)
    estimated = estimate(found, seconds, passes)
    candidates = {choice.name: choice for choice in [estimated, *(found[i] for i in near)]}
    return Measured(candidates, estimated.name, described(problem, batch), library, problem.book)


def described(problem: Problem, batch: BatchAxes) -> str:
    """A problem in one line of text."""
    parts = [f"{problem.x_shape} * {problem.w_shape}", f"axes {problem.axes}"]
    parts += [f"sum {problem.sum_axes}"] if problem.sum_axes else []
    parts += [f"stride {problem.stride}"] if max(problem.stride) > 1 else []
    return ", ".join([*parts, " ".join(problem.boundary), " ".join(problem.method), f"batch {batch[0]} {batch[1]}"])


def choose(problem: Problem, real: bool, batch: BatchAxes, library: str, tuning: Tuning, passes: int = 0) -> Choice:
    """The choice that promises the least time, among those that the methods of a problem leave open."""
    return estimate(*priced(problem, real, batch, library, tuning, passes), passes)


def estimate(found: list[Choice], seconds: list[float], passes: int = 0) -> Choice:
    """The choice that is taken by what they promise.

    By tensor cores it is that of float32 unless another promises half its time, so that arrays between the layers of a
    network lie in the same order, which no price knows.
    """
    from hcnn_core._engines import cost_model

    def least(seconds: list[float]) -> int:
        best = min(range(len(found)), key=seconds.__getitem__)
        plain = next((i for i, choice in enumerate(found) if "fft" not in choice.methods), best)
        return plain if seconds[best] > GAIN * seconds[plain] else best

    chosen = least(seconds)
    if passes and len(found) > 1:
        usual = least([cost_model.seconds(choice, current().other_costs) for choice in found])
        chosen = chosen if seconds[chosen] < KEPT * seconds[usual] else usual
    return found[chosen]


def priced(
    problem: Problem, real: bool, batch: BatchAxes, library: str, tuning: Tuning, passes: int = 0
) -> tuple[list[Choice], list[float]]:
    """All choices and the seconds that they promise; a single choice has no price."""
    from hcnn_core._engines import cost_model

    found = choices(problem, real, batch, library, tuning)
    costs = tuning.costs if library == "numpy" else tuning.other_costs
    return found, [cost_model.seconds(choice, costs, passes) for choice in found] if len(found) > 1 else [0.0]


def without_transform(found: list[Choice], passes: int) -> list[str]:
    """Names of choices whose filters slide on tensor cores along axes that their methods would transform."""
    from hcnn_core._engines import cost_model

    return [choice.name for choice in found if passes and "slid_mac" in cost_model.units_of(choice, passes)]


def choices(problem: Problem, real: bool, batch: BatchAxes, library: str, tuning: Tuning) -> list[Choice]:
    """A choice for all the methods that "auto" leaves open, and where there is one filter, for all axes at once."""
    found: list[Choice] = []
    for methods in itertools.product(*(("direct", "fft") if m in OPEN else (m,) for m in problem.method)):
        whole = at_once(methods, problem, real, library, tuning)
        if whole is None or "fft" in methods:
            found.append(by_axis(methods, problem, real, batch, library, tuning))
        found += [] if whole is None else [whole]
    return found


def at_once(methods: tuple[str, ...], problem: Problem, real: bool, library: str, tuning: Tuning) -> AtOnce | None:
    """The choice of one FFT along all axes, or of one kernel, where there is one filter of one channel."""
    from hcnn_core._engines.choice import AtOnce

    channels = math.prod(problem.x_shape[a] for a in problem.sum_axes)
    if channels != 1 or math.prod(problem.out_shape) != 1 or len(set(methods)) > 1:
        return None
    if methods[0] == "direct":
        if library != "cupy" or not real:
            return None
        from hcnn_core._engines.cuda.single import SinglePlan

        return AtOnce(SinglePlan(problem, tuning), methods) if SinglePlan.suits(problem, tuning) else None
    if library == "numpy":
        from hcnn_core._engines.cpu.fft_plan import FFTPlan

        plain = not problem.sum_axes and not problem.out_shape
        return AtOnce(FFTPlan(problem, real, tuning, partial(engine, "elementwise")), methods) if plain else None
    from hcnn_core._engines.generic.fft_plan import FFTPlan as LibraryFFTPlan

    return AtOnce(LibraryFFTPlan(problem, real), methods) if LibraryFFTPlan.suits(problem, real) else None


def by_axis(
    methods: tuple[str, ...], problem: Problem, real: bool, batch: BatchAxes, library: str, tuning: Tuning
) -> ByAxis:
    """The choice that computes each axis by the given method, on the best engine for the arrays."""
    from hcnn_core._engines.arrangement import Arrangement
    from hcnn_core._engines.choice import ByAxis
    from hcnn_core._engines.generic.im2col import Im2col
    from hcnn_core._engines.generic.plan import Plan

    g, count = problem, range(len(problem.axes))
    spectral = tuple(k for k in count if methods[k] == "fft")
    direct = tuple(sorted((k for k in count if methods[k] == "direct"), key=g.axes.__getitem__))
    outer, inner = ((), (*batch[0], *batch[1])) if spectral else batch
    samples = math.prod(g.x_shape[a] for a in inner)
    arrange = partial(
        Arrangement, g, methods, spectral, outer=outer, inner=inner, tiled=_may_tile(g, methods, samples, tuning)
    )
    axes = (tuple(v[k] for k in spectral) for v in (g.lengths, g.kernel_size, g.stride, g.boundary))
    transform_for = partial(choose_transform, *axes, real, tuning)
    longest = max((g.out_lengths[k] for k in direct), default=1) * samples
    if library == "numpy" and real and longest >= tuning.compiled_positions and has_compiled_kernels():
        from hcnn_core._engines.cpu.real_dft import RealDFT
        from hcnn_core._engines.transform import Identity

        transform = transform_for(straight_line=True, three_products=not direct)
        if isinstance(transform, Identity | RealDFT):
            from hcnn_core._engines.cpu.plan import CpuPlan
            from hcnn_core._engines.cpu.spectral_plan import SpectralPlan
            from hcnn_core._engines.cpu.winograd import products_for

            arrangement = arrange(direct=_order_for_vectors(g, direct, samples, tuning))
            products = products_for(arrangement.taps, tuning)
            return ByAxis(CpuPlan if direct else SpectralPlan, arrangement, transform, products, real, tuning)
    # The longest axis comes first, because im2col cuts its blocks along it.
    arrangement = arrange(direct=tuple(sorted(direct, key=lambda k: -g.out_lengths[k])))
    gathered = Im2col(arrangement.taps, tuning)
    if library == "cupy":
        from hcnn_core._engines.choice import Subsampled
        from hcnn_core._engines.cuda.matmul import matmul
        from hcnn_core._engines.cuda.plan import CudaPlan, SubsampledPlan

        transform = transform_for(matmul=matmul)
        if real and CudaPlan.suits(arrangement, transform):
            return ByAxis(CudaPlan, arrangement, transform, gathered, real, tuning)
        if real and arrangement.taps.uneven:
            along = zip(g.lengths, g.stride, g.boundary, strict=True)
            stride = tuple(1 if boundary == "periodic" and n % r else r for n, r, boundary in along)
            whole = by_axis(methods, replace(g, stride=stride), real, batch, library, tuning)
            return Subsampled(SubsampledPlan, arrangement, transform, gathered, real, tuning, whole)
    return ByAxis(Plan, arrangement, transform_for(), gathered, real, tuning)


@lru_cache(maxsize=512)
def choose_transform(
    lengths: tuple[int, ...],
    kernel_size: tuple[int, ...],
    stride: tuple[int, ...],
    boundary: tuple[str, ...],
    real: bool,
    tuning: Tuning,
    *,
    straight_line: bool = False,
    three_products: bool = False,
    matmul: Matmul = generic_matmul.matmul,
) -> Transform[Any]:
    """The transform along these axes: none, straight-line code if allowed, DFT matrices, or an FFT."""
    from hcnn_core._engines.cpu.real_dft import RealDFT
    from hcnn_core._engines.generic.dft import MatrixDFT
    from hcnn_core._engines.generic.fft import LibraryFFT
    from hcnn_core._engines.transform import Identity

    if not lengths:
        return Identity()
    matrices = MatrixDFT(lengths, kernel_size, stride, boundary, real, matmul)
    most_macs, most_elements = tuning.matrix_macs * math.prod(lengths), tuning.table_elements * matrices.planes
    if matrices.analysis_macs > most_macs or matrices.kernel_macs > most_elements:
        return LibraryFFT(lengths, kernel_size, stride, boundary, real)
    if straight_line and real:
        by_phases = RealDFT(lengths, kernel_size, stride, boundary, three_products)
        if all(axis.suits and axis.is_fast for axis in by_phases.axes):
            return by_phases
    return matrices


def _order_for_vectors(problem: Problem, direct: tuple[int, ...], batch: int, tuning: Tuning) -> tuple[int, ...]:
    """Direct axes in the order in which compiled kernels take them."""
    from hcnn_core._engines.taps import tiles_cover

    g = problem
    if direct and g.out_lengths[direct[-1]] * batch < tuning.compiled_positions:
        # the longest axis last, because vectors lie along it
        return tuple(sorted(direct, key=g.out_lengths.__getitem__))
    if len(direct) < len(g.axes) and batch >= tuning.winograd_line:  # first an axis that Winograd tiles cover
        covered = [tiles_cover(*axis) for axis in zip(g.kernel_size, g.stride, g.out_lengths, strict=True)]
        return tuple(sorted(direct, key=lambda k: not covered[k]))
    return direct


def _may_tile(problem: Problem, methods: tuple[str, ...], batch: int, tuning: Tuning) -> bool:
    """Whether 3 taps may use F(4, 3): beside transformed axes with a large batch, or if all methods are open."""
    if "fft" in methods:
        return batch >= tuning.winograd_line
    return all(method in OPEN for method in problem.method)


def batch_axes(
    problem: Problem, shape: tuple[int, ...], strides: tuple[int, ...] | None, tuning: Tuning, library: str = "numpy"
) -> BatchAxes:
    """The batch axes of x, or of the result, in their order in memory: outside the convolved axes, and inside.

    On a GPU those of signals with channels lie inside, so that all layers of a network have one order.
    """
    if strides is None:
        return (), problem.batch_axes
    kept = range(len(problem.x_shape)) if shape == problem.x_shape else problem.kept_axes
    stride = {axis: abs(strides[position]) for position, axis in enumerate(kept)}
    order = sorted(problem.batch_axes, key=lambda axis: -stride[axis])
    outermost, innermost = (extreme(problem.axes, key=stride.__getitem__) for extreme in (max, min))
    outer = tuple(axis for axis in order if stride[axis] > stride[outermost])
    inner = tuple(axis for axis in order if axis not in outer)
    if library == "cupy" and problem.sum_axes:
        return (), tuple(order)
    samples = math.prod(problem.x_shape[axis] for axis in inner)
    line = samples * problem.x_shape[innermost]
    if samples >= tuning.inner_elements or _are_long(line, problem, tuning):
        return outer, inner
    return (), tuple(order)


def _are_long(n: int, problem: Problem, tuning: Tuning) -> bool:
    """Whether lines of n positions are long enough to be convolved without moving batch axes inside."""
    made = n * math.prod(problem.out_shape)
    many = made >= tuning.in_place_results or math.prod(problem.x_shape) >= tuning.in_place_samples
    return n >= tuning.in_place_positions and many


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
    plan = by_axis(("fft",) * len(c.axes), c, True, ((), (*e.axes, *rest)), "numpy", tuning).make()
    positions = e.out_lengths[1] * math.prod(e.x_shape[a] for a in rest)
    if not isinstance(plan, SpectralPlan) or not FactoredPlan.suits(positions):
        return None
    return FactoredPlan(e, c, plan)
