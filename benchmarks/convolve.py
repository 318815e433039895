"""`hcnn_core.convolve` against SciPy, PyTorch and JAX, 1 to 5 axes: `python -m benchmarks.convolve`.

Peers are scipy.ndimage.convolve, scipy.signal.fftconvolve and oaconvolve, a product of scipy.fft.rfftn's spectra,
torch's conv1d to conv3d, and jax.lax.conv_general_dilated, compiled. Each peer gets its operands as its users hold
them: arrays of its library, channels first or last, the filter flipped where the peer correlates, and a zero appended
to even filters for fftconvolve, which centres them differently. Extending x by its boundary is part of the timed call.
If a peer offers several layouts or numbers of threads, the fastest counts. A peer whose result differs from ours by
more than rounding errors is not timed. A peer that is not installed, or cannot express a case, is skipped with the
reason.

A sample repeats the call until 5 ms have passed, after one call that is not timed if the call is shorter than that.
Samples alternate among everything that computes a case. What takes more than 20 times as long as ours is timed once.

The second table has layers of convolutional networks, whose channels are summed: the result and both gradients, beside
PyTorch's conv2d. `--only "128 images"` measures these alone. The third has one long filter along longer axes, beside
SciPy's two convolutions by FFT: `--only long`.
"""

import os
import sys

if "numpy" not in sys.modules:  # as the command line of training, and as benchmarks/layer.py does
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("KMP_BLOCKTIME", "0")
    from train.commands.process import prepare

    prepare()

import argparse
import functools
import itertools
import json
import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import scipy.fft
import scipy.ndimage
import scipy.signal

import autodiff
from benchmarks.layer import load_torch
from benchmarks.machine import describe_machine, seconds
from hcnn_core import convolve
from hcnn_core._engines import planner
from hcnn_core._problem import make_problem
from hcnn_core._threads import worker_count

Array = np.ndarray[Any, Any]

SAMPLE = 5e-3
"""Least duration of a sample, in seconds."""

SLOW = 20
"""A peer that takes more than this many times as long as ours is timed once."""

CLOSE = 1.1
"""Two times whose ratio is at most this are called equal."""

MODES = {
    "periodic": ("wrap", "wrap"),
    "zero": ("constant", "constant"),
    "reflect": ("reflect", "symmetric"),
    "nearest": ("nearest", "edge"),
    "mirror": ("mirror", "reflect"),
}
"""The boundaries in scipy.ndimage and in numpy.pad."""

EXTENDED = ("reflect", "nearest", "mirror")
"""The boundaries before which our engines want x extended, as most peers do before all."""

NOUNS = ("signal", "image", "volume", "array", "array")


@dataclass(frozen=True)
class Case:
    """A convolution: shapes and axes; without batch, channels or filters there is no such axis."""

    lengths: tuple[int, ...]
    kernel: tuple[int, ...]
    batch: int = 0
    channels: int = 0
    filters: int = 0
    dtype: str = "float32"
    boundaries: tuple[str, ...] = ("periodic", "zero")
    long: bool = False

    @property
    def name(self) -> str:
        noun = NOUNS[len(self.lengths) - 1]
        what = f"{self.batch} {noun}s" if self.batch else f"long {noun}" if self.long else noun
        parts = [f"{what} {_sizes(self.lengths)}", f"kernel {_sizes(self.kernel)}"]
        if self.filters:
            parts.append(f"{self.channels or 1} -> {self.filters}")
        return ", ".join(parts + [self.dtype] * (self.dtype != "float32"))


def _sizes(sizes: tuple[int, ...]) -> str:
    if len(sizes) > 1 and len(set(sizes)) == 1:
        return f"{sizes[0]}^{len(sizes)}"
    return "x".join(map(str, sizes))


CASES = [
    Case((512,), (9,)),
    Case((512,), (33,), batch=64),
    Case((512,), (16,), batch=64, boundaries=("periodic",)),
    Case((512,), (33,), batch=64, boundaries=EXTENDED),
    Case((512,), (65,), batch=256, dtype="float64", boundaries=("zero",)),
    Case((8,), (3,), batch=4096, boundaries=("periodic",)),
    Case((32,), (65,), batch=256),
    Case((512,), (9,), batch=8, channels=16, filters=32, boundaries=("zero",)),
    Case((512,), (65,), batch=8, channels=16, filters=32, boundaries=("zero",)),
    Case((64, 64), (3, 3)),
    Case((512, 512), (3, 3), boundaries=("zero",)),
    Case((512, 512), (4, 4), dtype="float64"),
    Case((256, 256), (15, 15)),
    Case((256, 256), (15, 15), boundaries=EXTENDED),
    Case((512, 512), (65, 65), boundaries=("periodic",)),
    Case((32, 32), (5, 5), batch=32, boundaries=("periodic",)),
    Case((128, 128), (33, 33), filters=16, boundaries=("periodic",)),
    Case((64, 64), (3, 3), batch=8, channels=16, filters=32, boundaries=("zero",)),
    Case((64, 64), (3, 3), batch=8, channels=16, filters=32, boundaries=EXTENDED),
    Case((64, 64), (7, 7), batch=8, channels=3, filters=64, boundaries=("zero",)),
    Case((8, 8), (3, 3), batch=64, channels=64, filters=64, boundaries=("periodic",)),
    Case((64, 64, 64), (3, 3, 3), boundaries=("zero",)),
    Case((64, 64, 64), (9, 9, 9)),
    Case((64, 64, 64), (9, 9, 9), boundaries=("reflect",)),
    Case((16, 128, 128), (33, 5, 5), boundaries=("periodic",)),
    Case((16, 64, 64), (3, 5, 5), batch=4, dtype="float64", boundaries=("zero",)),
    Case((32, 32, 32), (3, 3, 3), batch=2, channels=8, filters=16, boundaries=("zero",)),
    Case((16, 16, 16, 16), (3, 3, 3, 3)),
    Case((8, 8, 64, 64), (3, 3, 7, 7), boundaries=("zero",)),
    Case((16, 16, 16, 16), (6, 6, 6, 6), boundaries=("periodic",)),
    Case((32, 32, 8, 16), (3, 3, 7, 11), batch=4, filters=16),
    Case((8, 8, 8, 8, 8), (3, 3, 3, 3, 3)),
    Case((8, 8, 8, 16, 16), (3, 3, 3, 7, 7), boundaries=("zero",)),
    Case((8, 8, 8, 8, 8), (3, 3, 3, 3, 3), batch=2, channels=4, filters=8, boundaries=("periodic",)),
]


LAYERS = [
    Case((n, n), (3, 3), batch=128, channels=channels, filters=filters, boundaries=("zero",))
    for n, channels, filters in ((32, 3, 96), (32, 16, 16), (16, 32, 32), (8, 64, 64), (8, 192, 192))
]
"""Layers of networks that Table 1 compares with, in their batches: All-CNN's first and one of its last, ResNet-20's."""

LONG = [
    Case((n,), (size,), long=True)
    for n, size in itertools.product((10**4, 10**5, 10**6, 10**7), (10, 100, 1000, 10**4, 10**5))
    if size < n
] + [
    Case(lengths, (size,) * len(lengths), long=True)
    for lengths, sizes in (((1024,) * 2, (11, 31, 101)), ((4096,) * 2, (31, 101)), ((128,) * 3, (9, 21, 41)))
    for size in sizes
]
"""One filter along longer axes, of zeros beyond their ends."""

WIDTH = max(len(case.name) for case in CASES + LAYERS + LONG)


class CannotExpress(Exception):
    """Why a peer is skipped."""


@dataclass(frozen=True)
class Way:
    """One way to compute a case: the call that is timed, and its result as ours."""

    run: Callable[[], Any]
    to_numpy: Callable[[Any], Any] = lambda found: found
    compiles: bool = False  # when it is first called


class Problem:
    """A case at one boundary, with its operands."""

    def __init__(self, case: Case, boundary: str) -> None:
        rng = np.random.default_rng(0)
        self.case, self.boundary, self.periodic = case, boundary, boundary == "periodic"
        batch, channels, filters = ((n,) * bool(n) for n in (case.batch, case.channels, case.filters))
        self.x = rng.standard_normal((*batch, *channels, *case.lengths)).astype(case.dtype)
        self.w = rng.standard_normal((*channels, *case.kernel, *filters)).astype(case.dtype)
        first = len(batch) + len(channels)
        self.axes = tuple(range(first, first + len(case.lengths)))
        self.sum_axes = (first - 1,) * len(channels)
        # sample i meets samples i - before to i + after
        self.before = tuple(s - 1 - s // 2 for s in case.kernel)
        self.after = tuple(s // 2 for s in case.kernel)
        self.y = self.ours().run()

    def ours(self) -> Way:
        options: dict[str, Any] = {"boundary": self.boundary, "sum_axes": self.sum_axes}
        return Way(lambda: convolve(self.x, self.w, self.axes, **options), compiles=True)

    @property
    def tolerance(self) -> float:
        """Rounding errors: 20 eps times the Cauchy-Schwarz bound of results; a mistake is nearer to |w| in size."""
        norms = (float(np.linalg.norm(array.ravel().astype(np.float64))) for array in (self.x, self.w))
        return 20 * float(np.finfo(self.x.dtype).eps) * math.prod(norms)

    def error(self, found: Array) -> float:
        """Largest deviation from ours; infinite where shape or dtype is another."""
        if found.shape != self.y.shape or found.dtype != self.y.dtype:
            return math.inf
        return float(abs(found - self.y).max())

    def one_filter(self) -> None:
        if self.case.channels or self.case.filters:
            raise CannotExpress("it takes one filter, and sums no channels")

    def of_an_engine(self) -> None:
        if self.boundary in EXTENDED:
            raise CannotExpress("it is compared at periodic and zero boundaries alone")

    def channels_first(self) -> tuple[Array, Array]:
        """For frameworks: x (N, C, ...), and w (K, C, ...) flipped, since they correlate."""
        w = self.w.reshape(self.case.channels or 1, *self.case.kernel, self.case.filters or 1)
        w = np.flip(np.moveaxis(w, -1, 0), tuple(range(2, w.ndim)))
        return self.x.reshape(self.case.batch or 1, self.case.channels or 1, *self.case.lengths), w.copy()

    def from_channels_first(self, y: Array) -> Array:
        return np.moveaxis(y, 1, -1).reshape(self.y.shape)


IN_LAYERS: dict[str, Any] = {"boundary": "zero", "sum_axes": 3}


class LayerProblem:
    """A layer: its result, and the gradients of x (N, u1, u2, channels) and w (channels, 3, 3, filters)."""

    tolerance = 20 * float(np.finfo(np.float32).eps)
    """Rounding errors, by the norms of what is multiplied: see `Problem.tolerance`."""

    def __init__(self, case: Case) -> None:
        rng = np.random.default_rng(0)
        self.case, self.padding = case, case.kernel[0] // 2

        def draw(*shape: int) -> Array:
            return rng.standard_normal(shape, np.float32)

        self.x, self.w = draw(case.batch, *case.lengths, case.channels), draw(case.channels, *case.kernel, case.filters)
        self.g = laid_out_by(self.x, self.w)
        self.g[...] = draw(*self.g.shape)
        # the axes of memory in the order in which a layer before leaves them
        self.left = laid_out_by(self.x, draw(case.channels, *case.kernel, case.channels))
        self.left[...] = self.x
        self.found = self.step(self.x)

    def step(self, x: Array) -> tuple[Array, Array, Array]:
        """A training step's computation of a layer."""
        y, pullback = autodiff.vjp(lambda x, w: autodiff.convolve(x, w, (1, 2), **IN_LAYERS), x, self.w)
        return (y, *pullback(self.g))

    def ours(self) -> dict[str, Way]:
        return {
            "contiguous": Way(lambda: self.step(self.x), compiles=True),
            "as a layer leaves it": Way(lambda: self.step(self.left), compiles=True),
        }

    def torch(self) -> dict[str, Way]:
        import torch

        def run(x: Any, w: Any, g: Any) -> Any:
            with torch.enable_grad():
                y = torch.nn.functional.conv2d(x, w, padding=self.padding)
                return (y.detach(), *torch.autograd.grad(y, (x, w), g))

        first = [np.moveaxis(a, -1, 1) for a in (self.x, self.g)]
        flipped = np.moveaxis(np.flip(self.w, (1, 2)), -1, 0)
        x, g, w = (torch.from_numpy(np.ascontiguousarray(a)) for a in (*first, flipped))
        return {
            name: Way(
                functools.partial(run, *(a.clone(memory_format=layout).requires_grad_() for a in (x, w)), g),
                lambda found: (
                    *(np.moveaxis(a.numpy(), 1, -1) for a in found[:2]),
                    np.flip(np.moveaxis(found[2].numpy(), 0, -1), (1, 2)),
                ),
            )
            for name, layout in (("contiguous", torch.contiguous_format), ("channels_last", torch.channels_last))
        }

    def error(self, found: tuple[Array, Array, Array]) -> float:
        """Largest deviation from ours, by the product of two norms."""
        x, w, g = (float(np.linalg.norm(a.ravel().astype(np.float64))) for a in (self.x, self.w, self.g))
        if [a.shape for a in found] != [a.shape for a in self.found]:
            return math.inf
        pairs = zip(found, self.found, (x * w, g * w, g * x), strict=True)
        return float(np.max([abs(a - b).max() / norms for a, b, norms in pairs]))  # NaN where one is


def laid_out_by(x: Array, w: Array) -> Array:
    """An empty array, in shape and in memory like the result of a layer."""
    return np.empty_like(convolve(x, w, (1, 2), **IN_LAYERS))


def with_threads(run: Callable[[], Any]) -> dict[str, Way]:
    """A call that uses scipy.fft, on one thread, as by default, and on all."""

    def on_all() -> Any:
        with scipy.fft.set_workers(worker_count()):
            return run()

    return {"1 thread": Way(run)} | ({_threads(worker_count()): Way(on_all)} if worker_count() > 1 else {})


def _threads(count: int) -> str:
    return f"{count} thread{'s' * (count > 1)}"


def ndimage_ways(problem: Problem) -> dict[str, Way]:
    problem.one_filter()
    x, w, axes, mode = problem.x, problem.w, problem.axes, MODES[problem.boundary][0]
    return {"": Way(lambda: scipy.ndimage.convolve(x, w, mode=mode, axes=axes))}


def signal_ways(problem: Problem, name: str) -> dict[str, Way]:
    problem.one_filter()
    function, axes = getattr(scipy.signal, name), problem.axes
    unbatched = (slice(None),) * len(axes)
    if problem.boundary != "zero":
        x, w, mode = problem.x, problem.w[(None,) * axes[0] + unbatched], MODES[problem.boundary][1]
        pads = [(0, 0)] * axes[0] + list(zip(problem.before, problem.after, strict=True))
        return with_threads(lambda: function(np.pad(x, pads, mode=mode), w, mode="valid", axes=axes))
    # of an even filter, "same" puts the centre before the middle, ours after it: a zero at its end makes both one
    w = np.pad(problem.w, [(0, 1 - size % 2) for size in problem.case.kernel])[(None,) * axes[0] + unbatched]
    return with_threads(lambda: function(problem.x, w, mode="same", axes=axes))


def rfftn_ways(problem: Problem) -> dict[str, Way]:
    problem.one_filter()
    if not problem.periodic:
        raise CannotExpress("fftconvolve is the same at other boundaries")
    lengths, x, axes = problem.case.lengths, problem.x, problem.axes
    wrapped = np.zeros(lengths, x.dtype)
    taps = (np.arange(size) - size // 2 for size in problem.case.kernel)
    np.add.at(wrapped, np.ix_(*(t % n for t, n in zip(taps, lengths, strict=True))), problem.w)

    def run() -> Any:
        spectrum = scipy.fft.rfftn(x, axes=axes)
        spectrum *= scipy.fft.rfftn(wrapped)
        return scipy.fft.irfftn(spectrum, s=lengths, axes=axes, overwrite_x=True)

    return with_threads(run)


def torch_ways(problem: Problem) -> dict[str, Way]:
    import torch

    problem.of_an_engine()
    count = len(problem.axes)
    if count > 3:
        raise CannotExpress("it convolves 3 axes at most")
    if problem.periodic and any(map(int.__gt__, (*problem.before, *problem.after), problem.case.lengths * 2)):
        raise CannotExpress("its circular padding goes round an axis once at most")
    function = (torch.nn.functional.conv1d, torch.nn.functional.conv2d, torch.nn.functional.conv3d)[count - 1]
    widths = list(zip(range(2, 2 + count), problem.before, problem.after, strict=True))
    uneven = [width for _, *pair in reversed(widths) for width in pair]

    def run(x: Any, w: Any) -> Any:
        if problem.periodic:
            for axis, before, after in widths:  # functional.pad does the same more slowly
                n = x.shape[axis]
                x = torch.cat((x.narrow(axis, n - before, before), x, x.narrow(axis, 0, after)), axis)
            return function(x, w)
        if problem.before != problem.after:
            return function(torch.nn.functional.pad(x, uneven), w)
        return function(x, w, padding=problem.before)

    formats = {"contiguous": torch.contiguous_format}
    if count > 1 and problem.case.filters:
        formats["channels_last"] = (torch.channels_last, torch.channels_last_3d)[count - 2]
    operands = [torch.from_numpy(array) for array in problem.channels_first()]
    return {
        name: Way(
            functools.partial(run, *(a.clone(memory_format=layout) for a in operands)),
            lambda y: problem.from_channels_first(y.numpy()),
        )
        for name, layout in formats.items()
    }


def jax_ways(problem: Problem) -> dict[str, Way]:
    import jax

    problem.of_an_engine()
    count = len(problem.axes)
    pads = list(zip(problem.before, problem.after, strict=True))
    x, w = problem.channels_first()
    ways = {}
    for last in (False, True) if problem.case.filters else (False,):
        # batch, channels and then the convolved axes of x and y; of w, filters and channels
        middle = range(1, 1 + count) if last else range(2, 2 + count)
        of_x = (0, 1 + count, *middle) if last else (0, 1, *middle)
        of_w = (1 + count, count, *range(count)) if last else (0, 1, *middle)
        dimensions = jax.lax.ConvDimensionNumbers(of_x, of_w, of_x)
        wrap = [(0, 0), *pads, (0, 0)] if last else [(0, 0), (0, 0), *pads]

        def function(x: Any, w: Any, dimensions: Any = dimensions, wrap: Any = wrap) -> Any:
            if problem.periodic:
                x = jax.numpy.pad(x, wrap, mode="wrap")
            padding = [(0, 0)] * count if problem.periodic else pads
            return jax.lax.conv_general_dilated(x, w, (1,) * count, padding, dimension_numbers=dimensions)

        operands = [jax.numpy.asarray(a.transpose(np.argsort(o))) for a, o in ((x, of_x), (w, of_w))]
        compiled = jax.jit(function).lower(*operands).compile()
        ways["channels last" if last else "channels first"] = Way(
            lambda compiled=compiled, operands=operands: compiled(*operands).block_until_ready(),
            lambda y, order=of_x: problem.from_channels_first(np.asarray(y).transpose(order)),
        )
    return ways


PEERS: dict[str, Callable[[Problem], dict[str, Way]]] = {
    "ndimage": ndimage_ways,
    "fftconvolve": functools.partial(signal_ways, name="fftconvolve"),
    "oaconvolve": functools.partial(signal_ways, name="oaconvolve"),
    "rfftn": rfftn_ways,
    "torch": torch_ways,
    "jax": jax_ways,
}


@dataclass
class Contender:
    """A way that agreed, and its times."""

    way: Way
    variant: str
    once: bool
    repetitions: int
    seconds: list[float] = field(default_factory=list)

    def sample(self) -> None:
        if self.once and self.seconds:
            return
        if self.repetitions > 1:
            self.way.run()  # caches are ours again, and threads awake
        self.seconds.append(seconds(self.way.run, self.repetitions))

    @property
    def ms(self) -> float:
        return 1e3 * statistics.median(self.seconds)

    def record(self) -> dict[str, Any]:
        found = {"ms": self.ms, "seconds": self.seconds, "calls per sample": self.repetitions, "once": self.once}
        return found | ({"variant": self.variant} if self.variant else {})


def admit(problem: Problem | LayerProblem, ways: dict[str, Way], limit: float) -> Contender:
    """The fastest of some ways, each of which has agreed with ours; slower than the limit, it has its one time."""
    found: dict[str, float] = {}
    for variant, way in ways.items():
        began = time.perf_counter()
        result = way.run()
        first = time.perf_counter() - began
        if not (error := problem.error(way.to_numpy(result))) <= problem.tolerance:  # NaN is not
            raise ArithmeticError(f"it is off by {error:.1e}, where rounding explains {problem.tolerance:.1e}")
        del result
        found[variant] = first
        if first <= max(1, limit) or way.compiles:  # else a second call would be beyond the limit as well
            found[variant] = min(seconds(way.run) for _ in range(2))
    variant = min(found, key=lambda name: found[name])
    if found[variant] > limit:
        return Contender(ways[variant], variant, True, 1, [found[variant]])
    run = ways[variant].run
    awake = seconds(run, math.ceil(SAMPLE / found[variant]))
    return Contender(ways[variant], variant, False, math.ceil(SAMPLE / awake))


def alternate(rounds: int, *contenders: Contender) -> None:
    """Time contenders in alternation."""
    for contender in contenders * rounds:
        contender.sample()


def compare(case: Case, boundary: str, rounds: int, missing: dict[str, str]) -> dict[str, Any]:
    """Verify everything that computes a case, then time it in alternation."""
    problem = Problem(case, boundary)
    ours = admit(problem, {"": problem.ours()}, math.inf)
    limit = SLOW * min(seconds(ours.way.run) for _ in range(3))
    peers: dict[str, Contender] = {}
    skipped, disagreeing = dict(missing), {}
    for name, ways in PEERS.items():
        if name in missing:
            continue
        try:
            peers[name] = admit(problem, ways(problem), limit)
        except CannotExpress as why:
            skipped[name] = str(why)
        except ArithmeticError as why:
            disagreeing[name] = str(why)
    alternate(rounds, ours, *peers.values())
    best = min(peers, key=lambda name: peers[name].ms, default=None)
    return {
        "case": case.name,
        "boundary": boundary,
        "x": problem.x.shape,
        "w": problem.w.shape,
        "axes": problem.axes,
        "sum_axes": problem.sum_axes,
        "dtype": case.dtype,
        "ours": ours.record(),
        "peers": {name: contender.record() for name, contender in peers.items()},
        "skipped": skipped,
        "disagrees": disagreeing,
        "best": best,
        "ratio": ours.ms / peers[best].ms if best else None,
    }


def compare_layer(case: Case, rounds: int, missing: dict[str, str]) -> dict[str, Any]:
    """A layer here and in PyTorch, verified, then timed in alternation."""
    problem = LayerProblem(case)
    contenders = {"ours": admit(problem, problem.ours(), math.inf)}
    disagrees = {}
    if "torch" not in missing:
        try:
            contenders["torch"] = admit(problem, problem.torch(), math.inf)
        except ArithmeticError as why:
            disagrees["torch"] = str(why)
    alternate(rounds, *contenders.values())
    products = 3 * math.prod((case.batch, *case.lengths, *case.kernel, case.channels, case.filters))
    found = {name: contender.record() for name, contender in contenders.items()}
    ratio = found["ours"]["ms"] / found["torch"]["ms"] if "torch" in found else None
    return {"case": case.name, "multiply-adds": products, "disagrees": disagrees, "ratio": ratio, **found}


def compare_long(case: Case, rounds: int) -> dict[str, Any]:
    """Time one long filter here and by SciPy's two convolutions, verified, then in alternation."""
    problem = Problem(case, "zero")
    contenders = {"ours": admit(problem, {"": problem.ours()}, math.inf)}
    for name in ("fftconvolve", "oaconvolve"):
        contenders[name] = admit(problem, PEERS[name](problem), math.inf)
    alternate(rounds, *contenders.values())
    times = {name: contender.record() for name, contender in contenders.items()}
    ours, *others = (contender.ms for contender in contenders.values())
    shapes = make_problem(problem.x.shape, problem.w.shape, problem.axes, boundary="zero")
    plan = type(planner.make_plan(shapes, problem.x))
    return {"case": case.name, "plan": plan.__name__, "ratio": ours / min(others), "disagrees": {}, **times}


def long_lines(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the table of long filters, and how many are slower than the better of the two."""
    yield "One long filter, zero boundary; the ratio is to the better of the two"
    yield f"{'case':{WIDTH}s} {'ours':>8s} {'fftconvolve':>11s} {'oaconvolve':>11s} {'ratio':>6s}  plan"
    for row in rows:
        ours, whole, parts = (number(row[name]["ms"]) for name in ("ours", "fftconvolve", "oaconvolve"))
        yield f"{row['case']:{WIDTH}s} {ours:>8s} {whole:>11s} {parts:>11s} {row['ratio']:6.2f}  {row['plan']}"
    slower = sum(row["ratio"] > 1.05 for row in rows)
    yield f"slower than 1.05 times the better: {slower} of {len(rows)}; worst {max(row['ratio'] for row in rows):.2f}"


def layer_lines(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the table of layers, ours beside PyTorch's."""
    yield "Layers, result and both gradients; GMAC/s counts the multiply-adds of the definition"
    yield f"{'case':{WIDTH}s} {'ours':>8s} {'GMAC/s':>7s} {'torch':>8s} {'GMAC/s':>7s} {'ratio':>6s}"
    for row in rows:
        cells = ""
        for name in ("ours", "torch"):
            if name in row:
                cells += f" {number(row[name]['ms']):>8s} {row['multiply-adds'] / row[name]['ms'] / 1e6:7.1f}"
        yield f"{row['case']:{WIDTH}s}{cells}" + (f" {row['ratio']:6.2f}" if row["ratio"] else "")
        yield from (f"  torch disagrees: {why}" for why in row["disagrees"].values())


def number(ms: float, once: bool = False) -> str:
    return f"{ms:.{3 if ms < 10 else 1 if ms < 1000 else 0}f}{'*' if once else ''}"


def header() -> str:
    names = "".join(f"{name:>12s}" for name in PEERS)
    return f"{'case':{WIDTH}s} {'boundary':9s} {'ours':>8s}  {'best peer':11s} {'ms':>8s} {'ratio':>6s} {names}"


def line(row: dict[str, Any]) -> str:
    """A row of the first table."""
    cells = {name: number(peer["ms"], peer["once"]) for name, peer in row["peers"].items()}
    cells |= dict.fromkeys(row["skipped"], "-") | dict.fromkeys(row["disagrees"], "disagrees")
    best = (row["best"], number(row["peers"][row["best"]]["ms"]), f"{row['ratio']:.2f}") if row["best"] else ("-",) * 3
    return (
        f"{row['case']:{WIDTH}s} {row['boundary']:9s} {number(row['ours']['ms']):>8s}  {best[0]:11s} {best[1]:>8s} "
        f"{best[2]:>6s} " + "".join(f"{cells[name]:>12s}" for name in PEERS)
    )


def notes(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Why cells are empty, and the summary."""
    why: dict[tuple[str, str], int] = {}
    for row in rows:
        for name, reason in row["skipped"].items():
            why[name, reason] = why.get((name, reason), 0) + 1
    yield f"ratio: ours to the best peer; * timed once, then more than {SLOW} times as long as ours; - skipped:"
    yield from (f"  {name}: {reason} ({count} of {len(rows)})" for (name, reason), count in why.items())
    for row in rows:
        for name, reason in row["disagrees"].items():
            yield f"  {name} disagrees on {row['case']}, {row['boundary']}: {reason}"
    yield ""
    to_ndimage = [row["ours"]["ms"] / row["peers"]["ndimage"]["ms"] for row in rows if "ndimage" in row["peers"]]
    if to_ndimage:
        median = statistics.median(to_ndimage)
        yield f"ratio to scipy.ndimage: median {median:.2f}, {1 / median:.1f} times as fast ({len(to_ndimage)} rows)"
    compared = sorted((row for row in rows if row["best"]), key=lambda row: row["ratio"])
    if compared:
        worst, slower = compared[-1], sum(row["ratio"] > CLOSE for row in compared)
        median = statistics.median(row["ratio"] for row in compared)
        yield (
            f"ratio to the best peer: median {median:.2f}, worst {worst['ratio']:.2f} "
            f"({worst['case']}, {worst['boundary']}, {worst['best']})"
        )
        yield f"slower than {CLOSE} times the best peer: {slower} of {len(compared)} rows"


def plot(record: dict[str, Any], path: Path) -> None:
    """Ratios to the best peer, sorted, on a logarithmic axis."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, NullLocator

    rows = sorted((row for row in record["rows"] if row["best"]), key=lambda row: -row["ratio"])
    figure = Figure(figsize=(10, 1.5 + 0.215 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for boundary, colour in zip(MODES, ("blue", "orange", "green", "purple", "brown"), strict=True):
        some = [(y, row["ratio"]) for y, row in enumerate(rows) if row["boundary"] == boundary]
        if some:
            at, ratios = zip(*some, strict=True)
            axes.hlines(at, 1, ratios, color=f"tab:{colour}", linewidth=1.5, alpha=0.6)
            axes.plot(ratios, at, "o", color=f"tab:{colour}", markersize=5, label=f"{boundary} boundary")
    axes.axvline(1, color="black", linewidth=1, label="as fast")
    axes.axvline(CLOSE, color="black", linewidth=1, linestyle=":", label=f"{CLOSE} times as long")
    low, high = min([0.5, *(row["ratio"] for row in rows)]), max([2, *(row["ratio"] for row in rows)])
    ticks = [
        t for t in (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50) if low / 2 < t < high * 2
    ]
    axes.set_xscale("log")
    axes.set_xlim(low / 1.15, high * 1.15)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel("time of hcnn_core.convolve / time of the fastest peer, which is named on the right")
    axes.set_yticks(range(len(rows)), [row["case"] for row in rows], fontsize=8)
    axes.set_ylim(-0.7, len(rows) - 0.3)
    axes.tick_params(axis="y", length=0)
    peers = axes.secondary_yaxis("right")
    peers.set_yticks(range(len(rows)), [row["best"] for row in rows], fontsize=8)
    peers.tick_params(axis="y", length=0)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    machine = record["machine"]
    title = f"{machine['processor']}, {_threads(machine['threads'])}, medians of {record['rounds']} rounds"
    axes.set_title(title, fontsize=9, loc="left", parse_math=False)
    figure.legend(loc="outside upper center", ncols=4, fontsize=9, frameon=False)
    figure.savefig(path, dpi=120)


def load_peers() -> tuple[dict[str, Any], dict[str, str]]:
    """The machine, with the libraries as they are set up here, and the peers that are not installed."""
    missing = {}
    torch = load_torch()
    if torch is None:
        missing["torch"] = "not installed"
    else:
        import torch as library

        torch.use_threads(worker_count())
        library.set_grad_enabled(False)
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("NPROC", str(worker_count()))  # the threads of its processor
    try:
        import jax
    except ImportError:
        missing["jax"] = "not installed"
    else:
        jax.config.update("jax_enable_x64", True)
    machine = describe_machine(torch)
    machine["versions"] |= {name: metadata.version(name) for name in ("jax", "jaxlib") if "jax" not in missing}
    return machine, missing


def arguments() -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.convolve",
        description="hcnn_core.convolve against SciPy, PyTorch and JAX along 1 to 5 axes.",
        epilog="The status is 1 if a peer's result is not ours. `taskset` limits the threads of all alike.",
        allow_abbrev=False,
    )
    parser.add_argument("--rounds", type=int, default=9, help="samples of each, of which the median counts (9)")
    parser.add_argument("--only", metavar="TEXT", help="cases in whose name this stands, as 'image'")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="write convolve.txt and .json to this folder, which benchmarks.report draws",
    )
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error(f"--rounds is {options.rounds}; give 1 or more")
    known = CASES + LAYERS + LONG
    options.cases = [case for case in known if options.only is None or options.only in case.name]
    if not options.cases:
        parser.error(f"--only is {options.only!r}, which no case has in its name; {known[-1].name!r} is one")
    if options.out is not None:
        try:
            options.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            parser.error(f"--out is {options.out}, which cannot be a folder: {error.strerror}")
    return options


def main() -> int:
    """Measure and print; the status is 1 if a peer disagrees."""
    options = arguments()
    lines: list[str] = []

    def say(*more: str) -> None:
        lines.extend(more)
        print(*more, sep="\n", flush=True)

    began = time.monotonic()
    machine, missing = load_peers()
    say(*(f"{key}: {value}" for key, value in machine.items()))
    say(f"rounds: {options.rounds}; medians, in milliseconds; scipy.ndimage has one thread, all others may use all", "")
    rows = []
    if any(map(CASES.__contains__, options.cases)):
        say(header())
        for case in filter(CASES.__contains__, options.cases):
            for boundary in case.boundaries:
                rows.append(compare(case, boundary, options.rounds, missing))
                say(line(rows[-1]))
        say("", *notes(rows))
    layers = [compare_layer(case, options.rounds, missing) for case in options.cases if case in LAYERS]
    if layers:
        say("", *layer_lines(layers))
    long = [compare_long(case, options.rounds) for case in options.cases if case.long]
    if long:
        say("", *long_lines(long))
    record = {
        "machine": machine,
        "load afterwards": os.getloadavg(),
        "rounds": options.rounds,
        "minutes": (time.monotonic() - began) / 60,
        "rows": rows,
        "layers": layers,
        "long": long,
    }
    if options.out:
        (options.out / "convolve.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        (options.out / "convolve.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return int(any(row["disagrees"] for row in (*rows, *layers)))


if __name__ == "__main__":
    raise SystemExit(main())
