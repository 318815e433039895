"""Devices: which arrays each takes, its ways to compute a convolution, its modules for other functions, and its clock.

This is the only file that knows all engines, and which library goes to which. They are imported where a choice needs
them, so that ``import hcnn_core`` loads none.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from hcnn_core._problem import OPEN, Problem
from hcnn_core._tuning import Costs, Tuning, current
from hcnn_core.backend import DeviceLimits, library_of, seconds_of, seconds_on_device
from hcnn_core.precisions import uses_tf32

if TYPE_CHECKING:
    from hcnn_core._engines.arrangement import BatchAxes
    from hcnn_core._engines.choice import AtOnce, ByAxis, Choice
    from hcnn_core._engines.cpu.factored import FactoredPlan
    from hcnn_core._engines.transform import Along, Transform

LARGE_ONLY = {"elementwise", "normalization"}
"""Modules of compiled kernels that take no less time than NumPy for few elements."""

NO_TENSOR_CORES: Callable[[str], DeviceLimits | None] = lru_cache(lambda dtype: None)


class Request(NamedTuple):
    """A convolution for which a plan is wanted."""

    problem: Problem
    real: bool
    """Whether signal and filters are real."""
    batch: BatchAxes
    """Its batch axes outside the convolved axes and inside, each in their order in memory."""
    device: Device
    """The device that takes its arrays."""
    tuning: Tuning
    tensor_cores: DeviceLimits | None = None
    """The limits of the device whose tensor cores may make its products; None where they must not."""


@dataclass(frozen=True, eq=False)
class Device:
    """A kind of arrays, and the engines for them, in the subpackage of its name."""

    name: str
    owns: Callable[[str], bool]
    """Whether it takes the arrays of a library."""
    by_axis: Callable[[tuple[str, ...], Request], ByAxis]
    """The choice that computes each axis by the given method."""
    at_once: Callable[[tuple[str, ...], Request], list[AtOnce]]
    """Choices that take all axes at once, by equal methods, for one filter of one channel."""
    estimate: Callable[[Tuning], Costs]
    """The costs by which choices are priced."""
    clock: Callable[[Any, Callable[[], object], int], float]
    """Seconds of a call, of (namespace, call, repeats)."""
    modules: frozenset[str] = frozenset()
    """Native modules of other functions than convolutions."""
    is_compiled: bool = False
    """Whether they need Numba."""
    may_measure: tuple[str, ...] = ()
    """Packages whose versions measured times depend on; without one, estimates decide."""
    tensor_cores: Callable[[str], DeviceLimits | None] = NO_TENSOR_CORES
    """The limits of the current device if its tensor cores may make products of a dtype, by the precision in force."""
    has_batch_inside: bool = False
    """Whether batch axes of signals with channels lie inside, so that all layers of a network have one order."""

    def choices(self, request: Request) -> list[Choice]:
        """List choices for all methods that "auto" leaves open, and where there is one filter, for all axes at once."""
        problem, choices = request.problem, list[Any]()
        channels = math.prod(problem.x_shape[a] for a in problem.sum_axes)
        is_single = channels == 1 and math.prod(problem.out_shape) == 1
        for methods in itertools.product(*(("direct", "fft") if m in OPEN else (m,) for m in problem.method)):
            whole = self.at_once(methods, request) if is_single and len(set(methods)) == 1 else []
            choices += [self.by_axis(methods, request)] if not whole or "fft" in methods else []
            choices += whole
        return choices

    def native(self, name: str, like: Any, *others: Any) -> Any:
        """Return the native module of this name, if it takes the array and all else that its `supports` asks for."""
        if name not in self.modules:
            return None
        if self.is_compiled and name in LARGE_ONLY and like.size < current().elementwise_elements:
            return None  # before Numba is imported
        if self.is_compiled and not has_compiled_kernels():
            return None
        module = module_of(self.name, name)
        supports = getattr(module, "supports", None)
        return module if supports is None or supports(like, *others) else None

    def engine(self, name: str, like: Any, *others: Any) -> Any:
        """Return the module of `native`, or else the generic one."""
        return self.native(name, like, *others) or module_of("generic", name)


@lru_cache(maxsize=64)
def module_of(room: str, name: str) -> Any:
    """Import a module of an engine."""
    return import_module(f"hcnn_core._engines.{room}.{name}")


@lru_cache(maxsize=1)
def has_compiled_kernels() -> bool:
    """Whether compiled kernels can be used: Numba is there, compiles, and can cache what it compiles on disk."""
    try:
        from numba import config

        if config.DISABLE_JIT:  # type: ignore[attr-defined]  # by NUMBA_DISABLE_JIT, for coverage and debuggers
            return False
        from hcnn_core._engines.cpu import compile_log
        from hcnn_core._engines.cpu.kernels import gemm  # noqa: F401
    except (ImportError, RuntimeError):
        return False
    compile_log.install()
    return True


def _compiled_by_axis(methods: tuple[str, ...], request: Request, *, three_products: bool = False) -> ByAxis:
    """Choose compiled kernels, where lines are long enough for vectors, and NumPy's functions elsewhere."""
    g, tuning, (direct, samples, arrange, transform_for) = request.problem, request.tuning, _parts(methods, request)
    longest = max((g.out_lengths[k] for k in direct), default=1) * samples
    macs = math.prod(g.y_shape) * math.prod(g.w_shape[: len(g.w_shape) - len(g.out_shape)])
    merged = samples == 1 and longest < tuning.compiled_positions and macs >= tuning.merged_macs
    if request.real and (longest >= tuning.compiled_positions or merged) and has_compiled_kernels():
        from hcnn_core._engines.cpu.direct import is_merged
        from hcnn_core._engines.cpu.real_dft import RealDFT
        from hcnn_core._engines.transform import Identity

        transform = transform_for(straight_line=True, three_products=three_products)
        if isinstance(transform, Identity | RealDFT):
            from hcnn_core._engines.choice import ByAxis
            from hcnn_core._engines.cpu.plan import CpuPlan
            from hcnn_core._engines.cpu.spectral_plan import SpectralPlan
            from hcnn_core._engines.cpu.winograd import products_for

            arrangement = arrange(direct=_order_for_vectors(g, direct, samples, tuning))
            if merged and not is_merged(arrangement.taps):
                return _library_by_axis(methods, request)
            products = products_for(arrangement.taps, tuning)
            return ByAxis(CpuPlan if direct else SpectralPlan, arrangement, transform, products, True, tuning)
    return _library_by_axis(methods, request)


def _cuda_by_axis(methods: tuple[str, ...], request: Request) -> ByAxis:
    """Choose CUDA kernels, where these can carry out a plan, and CuPy's functions elsewhere."""
    from hcnn_core._engines.choice import ByAxis, Subsampled
    from hcnn_core._engines.cuda.matmul import matmul
    from hcnn_core._engines.cuda.plan import CudaPlan, SubsampledPlan
    from hcnn_core._engines.cuda.tensor_plan import TensorPlan

    g, tuning, (arrangement, products, transform_for) = request.problem, request.tuning, _gathered(methods, request)
    transform = transform_for(matmul=matmul)
    if request.real and CudaPlan.supports(arrangement, transform):
        limits = request.tensor_cores
        slides = limits is not None and TensorPlan.supports(arrangement, transform, tuning, limits)
        return ByAxis(TensorPlan if slides else CudaPlan, arrangement, transform, products, True, tuning)
    if request.real and arrangement.taps.uneven:
        along = zip(g.lengths, g.stride, g.boundary, strict=True)
        stride = tuple(1 if boundary == "periodic" and n % r else r for n, r, boundary in along)
        whole = _cuda_by_axis(methods, request._replace(problem=replace(g, stride=stride)))
        return Subsampled(SubsampledPlan, arrangement, transform, products, True, tuning, whole)
    return _library_by_axis(methods, request)


def _library_by_axis(methods: tuple[str, ...], request: Request) -> ByAxis:
    """Choose the array library's functions."""
    from hcnn_core._engines.choice import ByAxis
    from hcnn_core._engines.generic.plan import Plan

    arrangement, products, transform_for = _gathered(methods, request)
    return ByAxis(Plan, arrangement, transform_for(), products, request.real, request.tuning)


def _parts(methods: tuple[str, ...], request: Request) -> tuple[Any, ...]:
    """Axes convolved tap by tap, samples of the batch inside, and what makes an arrangement and a transform."""
    from hcnn_core._engines.arrangement import Arrangement
    from hcnn_core._engines.transform import Along

    g, batch, tuning = request.problem, request.batch, request.tuning
    spectral = tuple(k for k, method in enumerate(methods) if method == "fft")
    direct = tuple(sorted((k for k, method in enumerate(methods) if method == "direct"), key=g.axes.__getitem__))
    outer, inner = ((), (*batch[0], *batch[1])) if spectral else batch
    samples = math.prod(g.x_shape[a] for a in inner)
    # 3 taps may use F(4, 3) beside transformed axes with a large batch, or if all methods are open
    tiled = samples >= tuning.winograd_line if spectral else set(g.method) <= set(OPEN)
    arrange = partial(Arrangement, g, methods, spectral, outer=outer, inner=inner, tiled=tiled)
    axes = tuple(Along(g.lengths[k], g.kernel_size[k], g.stride[k], g.boundary[k]) for k in spectral)
    return direct, samples, arrange, partial(choose_transform, axes, request.real, tuning)


def _gathered(methods: tuple[str, ...], request: Request) -> tuple[Any, ...]:
    """Return arrangement and products of im2col, whose blocks are cut along the first axis, and a transform's maker."""
    from hcnn_core._engines.generic.im2col import Im2col

    direct, _, arrange, transform_for = _parts(methods, request)
    arrangement = arrange(direct=tuple(sorted(direct, key=lambda k: -request.problem.out_lengths[k])))
    return arrangement, Im2col(arrangement.taps, request.tuning), transform_for


@lru_cache(maxsize=512)
def choose_transform(
    axes: tuple[Along, ...], real: bool, tuning: Tuning, *, straight_line: bool = False, three_products: bool = False,
    matmul: Any = None,
) -> Transform[Any]:  # fmt: skip
    """Return the transform along these axes: none, straight-line code if allowed, DFT matrices, or an FFT."""
    from hcnn_core._engines.cpu.real_dft import RealDFT
    from hcnn_core._engines.generic.dft import MatrixDFT
    from hcnn_core._engines.generic.fft import LibraryFFT
    from hcnn_core._engines.generic.matmul import matmul as library_matmul
    from hcnn_core._engines.transform import Identity

    if not axes:
        return Identity()
    matrices = MatrixDFT(axes, real, matmul or library_matmul)
    most_macs = tuning.matrix_macs * math.prod(axis.n for axis in axes)
    most_elements = tuning.table_elements * matrices.planes
    if matrices.analysis_macs > most_macs or matrices.kernel_macs > most_elements:
        return LibraryFFT(axes, real)
    if straight_line and real:
        by_phases = RealDFT(axes, three_products)
        if all(axis.supports and axis.is_fast for axis in by_phases.axes):
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


def _cuda_at_once(methods: tuple[str, ...], request: Request) -> list[AtOnce]:
    """Return one kernel for direct convolution, and the library's FFT."""
    if methods[0] != "direct":
        return _library_at_once(methods, request)
    from hcnn_core._engines.choice import AtOnce
    from hcnn_core._engines.cuda.single import SinglePlan

    supports = request.real and SinglePlan.supports(request.problem, request.tuning)
    return [AtOnce(SinglePlan(request.problem, request.tuning), methods)] if supports else []


def _tensor_cores(dtype: str) -> DeviceLimits | None:
    from hcnn_core._engines.cuda import launch

    if not uses_tf32(dtype):
        return None
    limits = launch.device_limits()
    if limits.capability < launch.TENSOR_CAPABILITY:
        raise RuntimeError(
            f"precision 'tf32' needs a device of compute capability 8.0 or later; this one has "
            f"{'.'.join(map(str, limits.capability))}: choose precision 'float32'"
        )
    return limits


def _library_at_once(methods: tuple[str, ...], request: Request) -> list[AtOnce]:
    """Return the library's FFT along all axes, whole and by blocks."""
    if methods[0] == "direct":
        return []
    from hcnn_core._engines.choice import AtOnce
    from hcnn_core._engines.generic.block_plan import BlockPlan
    from hcnn_core._engines.generic.fft_plan import FFTPlan

    device = request.device
    operands = request.problem, request.real, request.tuning, device is NUMPY, partial(device.engine, "elementwise")
    plans: tuple[FFTPlan, ...] = FFTPlan(*operands), BlockPlan(*operands)
    return [AtOnce(plan, methods) for plan in plans if plan.supports]


@lru_cache(maxsize=256)
def factored_plan(expansion: Problem, contraction: Problem, tuning: Tuning) -> FactoredPlan | None:
    """Return the plan of a (+) layer by compiled kernels, if they suit it."""
    from hcnn_core._engines.cpu.factored import FactoredPlan
    from hcnn_core._engines.cpu.spectral_plan import SpectralPlan

    e, c = expansion, contraction
    if len(e.axes) != 2 or e.empty or c.empty:
        return None
    rest = tuple(a for a in c.batch_axes if a not in e.axes)
    request = Request(c, True, ((), (*e.axes, *rest)), NUMPY, tuning)
    plan = _compiled_by_axis(("fft",) * len(c.axes), request, three_products=True).make()
    positions = e.out_lengths[1] * math.prod(e.x_shape[a] for a in rest)
    return FactoredPlan(e, c, plan) if isinstance(plan, SpectralPlan) and FactoredPlan.supports(positions) else None


NUMPY = Device(
    "cpu",
    lambda library: library in {"numpy", "torch", "jax", "jaxlib"},  # NumPy reads PyTorch's and JAX's on the CPU
    _compiled_by_axis,
    _library_at_once,
    lambda tuning: tuning.costs,
    seconds_of,
    frozenset({"elementwise", "factored", "normalization", "patches"}),
    is_compiled=True,
    may_measure=("numpy", "scipy", "numba"),
)
CUPY = Device(
    "cuda",
    lambda library: library == "cupy",
    _cuda_by_axis,
    _cuda_at_once,
    lambda tuning: tuning.other_costs,
    seconds_on_device,
    frozenset({"affine", "filters", "loss", "matmul", "muon", "normalization", "patches", "sums", "updates"}),
    may_measure=("cupy-cuda12x", "cupy-cuda13x"),
    tensor_cores=_tensor_cores,
    has_batch_inside=True,
)
ARRAY_API = Device(
    "generic", lambda library: True, _library_by_axis, _library_at_once, lambda tuning: tuning.other_costs, seconds_of
)
DEVICES = (NUMPY, CUPY, ARRAY_API)
"""The first device that takes an array computes with it."""


@lru_cache(maxsize=64)
def device_for(library: str) -> Device:
    """Return the device that takes arrays of a library."""
    return next(device for device in DEVICES if device.owns(library))


def device_of(array: Any) -> Device:
    """Return the device that takes an array."""
    return device_for(library_of(array))
