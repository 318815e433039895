"""Forward and backward of one whole 32x32 layer, this project's and PyTorch's: `python -m benchmarks.layer`.

Layer j = 4 of the paper's networks: x_3 (N, 32, 32, 4, 8, 16), its marginal, patch moments in training mode, filters
3x3x7x11 merged of Q = 32 factors, convolution, ELU, x_4 (N, 32, 32, 4, 8, 16); then the cotangents of x_3, h, g and
bias for a given cotangent of x_4. Every formulation is compared by value with this project's layer in double precision,
and is not timed if it disagrees. Rounds alternate between formulations. Before each timed step, a step of the same kind
runs that is not timed, so that caches and pages are as in training. Formulations of a framework that is not installed
are skipped by name. Some batches are smaller, see `COPIES`, so times
are per image; ours are longer in small batches (`results/scaling/scaling.txt`).

Each formulation gets its input in the memory layout of its output. The cotangent of x_3 is constant along the axis that
the marginal removed; no formulation copies it along that axis, since the layer below receives it as it is.
"""

from __future__ import annotations

import os

# Who waits does not spin: OpenMP's threads (PyTorch) would take the processors from OpenBLAS's, and the reverse.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("KMP_BLOCKTIME", "0")

from train.commands.process import prepare

if __name__ == "__main__":
    prepare()  # before NumPy is loaded, as the command line of training does

import argparse
import contextlib
import json
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol
from unittest import mock

import numpy as np

from autodiff import defvjp, primitive, vjp
from benchmarks.machine import describe_machine
from hcnn_core import convolve, convolve_vjp_w, convolve_vjp_x, patch_moments
from hcnn_core._engines.cpu.allocator import empty
from hcnn_core._threads import parallel_for, processors, worker_count
from train.config import make_config
from train.networks.hierarchical import hierarchy, merge_factors, name_of
from train.networks.registry import build

if TYPE_CHECKING:  # these import Numba, which the comparison on a GPU does without
    from hcnn_core._engines.cpu.factored import FactoredPlan
    from hcnn_core._engines.cpu.plan import CpuPlan

SPACE, ATTRIBUTES = (1, 2), (3, 4)
DEPTH = 4
SHAPE = (32, 32, 4, 8, 16)
"""Shapes of one image of x_3, and of x_4."""

Array = np.ndarray[Any, Any]
Arrays = dict[str, Array]


@dataclass(frozen=True)
class Formulation:
    """One way to compute the layer."""

    name: str
    kind: str  # what it must agree with: the plain layer, the (+) layer, or the plain one's convolution alone
    batch_size: int
    tolerance: float  # of the largest error, relative to the largest entry
    text: str


COPIES = 4
"""Images where Q copies are normalised by PyTorch's batch norm. Its sums over channels_last arrays are in single
precision and lose digits with every image: at 10 the layer is off by more than 1e-4."""

FORMULATIONS = {
    f.name: f
    for f in (
        Formulation("ours", "plain", 50, 1e-4, "merged filter; space tap by tap, attributes by DFT"),
        Formulation("torch-written", "plain", COPIES, 1e-4, "Q copies, batch norm, convolution along v"),
        Formulation("torch-written-compiled", "plain", 10, 1e-4, "torch-written, torch.compile"),
        Formulation("torch-merged", "plain", 50, 1e-4, "merged filter; patches, convolution along v"),
        Formulation("torch-merged-compiled", "plain", 50, 1e-4, "torch-merged, torch.compile"),
        Formulation("torch-toeplitz", "plain", 50, 1e-4, "merged filter; block-Toeplitz convolution 128 -> 512"),
        Formulation("torch-toeplitz-compiled", "plain", 50, 1e-4, "torch-toeplitz, torch.compile"),
        Formulation("torch-conv-float32", "conv", 50, 1e-4, "of torch-toeplitz, the convolution alone"),
        Formulation("torch-conv-bfloat16", "conv", 50, 2e-2, "of torch-toeplitz, the convolution alone, in bfloat16"),
        Formulation("ours-plus", "plus", 50, 1e-4, "(+): some positions at a time, expanded again on the way back"),
        Formulation("torch-plus", "plus", COPIES, 1e-4, "(+): Q copies, batch norm, ELU, convolution along v"),
        Formulation("torch-plus-compiled", "plus", 10, 1e-4, "torch-plus, torch.compile"),
    )
}
OURS = {"plain": "ours", "conv": "ours", "plus": "ours-plus"}


class Step(Protocol):
    """Forward and backward, ready to run; `order` is that of the axes of x and its cotangent in memory."""

    order: tuple[int, ...]

    def __call__(self) -> Any: ...
    def to_numpy(self, result: Any) -> Arrays: ...


def layer_below(x: Array) -> tuple[Callable[[Array], Array], list[Array]]:
    """A function of a traced number that returns x, and the list that x's cotangents are put in, as they come.

    In a network x comes from a layer below, to which its cotangent goes; vjp would copy the latter, training does not.
    """
    received: list[Array] = []

    @primitive
    def below(anchor: Array) -> Array:
        return x[...]

    def receive(ans: Array, anchor: Array) -> Callable[[Array], Array]:
        def pullback(g: Array) -> Array:
            received.append(g)
            return np.zeros_like(anchor)

        return pullback

    defvjp(below, receive)
    return below, received


class Ours:
    """Layer j = 4 of a Network."""

    def __init__(self, kind: str, arrays: Arrays, boundary: str, dtype: str = "float32") -> None:
        preset = "hcnn-plus" if kind == "plus" else "hcnn"
        self.network = build(make_config(preset, {"boundary": boundary, "dtype": dtype}))
        weights = {key: arrays[key].astype(dtype) for key in ("h", "g", "bias")}
        # a layer below leaves x as this one leaves its output
        sample = np.ones((4, *SHAPE), dtype)
        for _ in range(2):
            sample = self.layer(sample, *weights.values())
        self.order = tuple(sorted(range(sample.ndim), key=lambda axis: -sample.strides[axis]))
        x, self.cotangent = (self._placed(arrays[key], dtype) for key in ("x", "cotangent"))
        self.below, self.received = layer_below(x)
        self.inputs = (np.zeros((), dtype), *weights.values())

    def _placed(self, array: Array, dtype: str) -> Array:
        """The array in the order of axes that layers leave, from where in a line of the cache theirs begin."""
        ordered = array.transpose(self.order)
        placed = empty(ordered.shape, dtype)
        placed[...] = ordered
        return placed.transpose(np.argsort(self.order))

    def layer(self, x: Array, h: Array, g: Array, bias: Array) -> Array:
        weights = {hierarchy(self.network)[DEPTH - 1].name: {"h": h, "g": g, "bias": bias}}
        return next(self.network.trace(weights, {name_of(DEPTH - 1): x}))[1]

    def __call__(self) -> tuple[Array, tuple[Array, ...]]:
        y, pullback = vjp(lambda anchor, *weights: self.layer(self.below(anchor), *weights), *self.inputs)
        cotangents = pullback(self.cotangent)
        return y, (self.received.pop(), *cotangents[1:])

    def to_numpy(self, result: tuple[Array, tuple[Array, ...]]) -> Arrays:
        y, cotangents = result
        return {"y": y, **dict(zip(("x", "h", "g", "bias"), cotangents, strict=True))}


class Products:
    """As many multiply-adds as the convolutions of one step have, by matrix products that find all in cache."""

    SHAPE = (32, 72, 1536)

    def __init__(self, step: Callable[[], Any]) -> None:
        from hcnn_core._engines.cpu.factored import FactoredPlan
        from hcnn_core._engines.cpu.plan import CpuPlan

        self.multiply_adds = self.by_taps = 0
        self.calls = 0
        with contextlib.ExitStack() as stack:
            for kind in (CpuPlan, FactoredPlan):
                for index, name in enumerate(("forward", "adjoints")):
                    stack.enter_context(mock.patch.object(kind, name, self._counting(kind, name, index)))
            step()
        rows, inner, columns = self.SHAPE
        self.repeats = round(self.multiply_adds / (rows * inner * columns))
        rng = np.random.default_rng(0)
        self.operands = [
            (
                rng.random((rows, inner), np.float32),
                rng.random((inner, columns), np.float32),
                np.empty((rows, columns), "f4"),
            )
            for _ in range(worker_count())
        ]

    def _counting(self, kind: type[Any], name: str, index: int) -> Callable[..., Any]:
        method = getattr(kind, name)

        def counted(plan: CpuPlan | FactoredPlan, *args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            self.multiply_adds += step_macs(plan)[index]
            self.by_taps += step_macs(plan, by_taps=True)[index]
            return method(plan, *args, **kwargs)

        return counted

    def __call__(self) -> None:
        def work(begin: int, end: int) -> None:
            for a, b, out in self.operands[begin:end]:
                for _ in range(self.repeats // len(self.operands)):
                    np.matmul(a, b, out=out)

        parallel_for(work, len(self.operands))


def plan_macs(plan: CpuPlan, *, by_taps: bool = False) -> tuple[int, int, int]:
    """Multiply-adds of a plan's analysis, products and synthesis; `by_taps`, as if it made no tiles of F(4, 3)."""
    from hcnn_core._engines.cpu.winograd import WinogradProducts

    taps, transform = plan.products.taps, plan.transform
    read, written = math.prod(taps.lengths) * taps.batch, math.prod(taps.out_lengths) * taps.batch
    columns = taps.count * transform.aliases * transform.planes * plan.channels
    products = transform.frequencies * plan.outer * transform.planes * plan.out * columns * written
    if isinstance(plan.products, WinogradProducts) and not by_taps:
        products //= 2  # four results of three taps by six products
    analysis, synthesis = (getattr(transform, f"{stage}_macs", 0) for stage in ("analysis", "synthesis"))
    return analysis * plan.channels * read, products, synthesis * plan.out * written


def step_macs(plan: CpuPlan | FactoredPlan, *, by_taps: bool = False) -> tuple[int, int]:
    """Multiply-adds forward, and backward, counted as by `plan_macs`; a (+) layer makes its copies again there."""
    from hcnn_core._engines.cpu.factored import FactoredPlan

    contraction = plan.plan if isinstance(plan, FactoredPlan) else plan
    analysis, products, synthesis = plan_macs(contraction, by_taps=by_taps)
    expansion = 0
    if isinstance(plan, FactoredPlan):
        e = plan.expansion
        expansion = math.prod(e.y_shape) * math.prod(e.kernel_size)
    return expansion + analysis + products + synthesis, 3 * expansion + 2 * (analysis + products) + synthesis


class Problem:
    """One draw of x_3, weights and cotangent, and what the layer makes of them in double precision."""

    def __init__(self, boundary: str, images: int, order: tuple[int, ...] = (0, 1, 2, 3, 4, 5)) -> None:
        config = make_config("hcnn", {"boundary": boundary})
        self.boundary, self.epsilon, self.stride = boundary, config.epsilon, config.attribute_stride
        rng = np.random.default_rng(0)
        network = build(config)
        layer = hierarchy(network)[DEPTH - 1]
        assert layer.inputs == (*SHAPE[:2], *SHAPE[3:]) and layer.outputs == SHAPE
        self.weights = network.initialize(rng)[layer.name]
        self.weights["bias"] = rng.standard_normal(layer.filters, np.float32) / 10
        drawn = [(images, *SHAPE)[axis] for axis in order]
        self.x, self.cotangent = (rng.standard_normal(drawn, np.float32).transpose(np.argsort(order)) for _ in range(2))
        self.x += 0.5  # a layer below leaves a mean too, and without one an error in its removal would not show
        self._references: dict[tuple[str, int], Arrays] = {}

    def arrays(self, images: int) -> Arrays:
        """Operands of a step with this many images."""
        return {"x": self.x[:images], "cotangent": self.cotangent[:images], **self.weights}

    def merged(self, images: int) -> tuple[Array, Array]:
        """In double precision, the layer's input after the marginal, and the merged filter (3, 3, 7, 11, K)."""
        x = self.x[:images].astype(np.float64).mean(3)
        h, g = (self.weights[key].astype(np.float64) for key in ("h", "g"))
        moments = patch_moments(x, SPACE, h.shape[1:], boundary=self.boundary)
        options: dict[str, Any] = {"boundary": self.boundary, "epsilon": self.epsilon}
        strides = (self.stride,) * 2
        bias = self.weights["bias"].astype(np.float64)
        return x, merge_factors(h, g, *moments, bias, lengths=x.shape[3:], stride=strides, **options)[0]

    def reference(self, kind: str, images: int) -> Arrays:
        """Output and cotangents in double precision."""
        if (kind, images) not in self._references:
            arrays = self.arrays(images)
            if kind == "conv":
                x, w = self.merged(images)
                g = arrays["cotangent"].astype(np.float64)
                axes, stride = (*SPACE, *ATTRIBUTES), (1, 1, self.stride, self.stride)
                arrays_of = {
                    "y": convolve(x, w, axes, stride=stride, boundary=self.boundary),
                    "x": convolve_vjp_x(g, x, w, axes, stride=stride, boundary=self.boundary),
                    "w": convolve_vjp_w(g, x, w, axes, stride=stride, boundary=self.boundary),
                }
            else:
                step = Ours(kind, arrays, self.boundary, "float64")
                arrays_of = step.to_numpy(step())
            self._references[kind, images] = arrays_of
        return self._references[kind, images]

    def errors(self, kind: str, images: int, arrays: Arrays) -> dict[str, float]:
        """Largest error of output and cotangents, each relative to the largest entry."""
        wanted = self.reference(kind, images)
        assert arrays.keys() == wanted.keys()
        return {
            key: float(abs(arrays[key] - value.reshape(arrays[key].shape)).max() / abs(value).max())
            for key, value in wanted.items()
        }


def make_step(formulation: Formulation, problem: Problem, images: int, torch: ModuleType | None) -> Step:
    """One formulation, ready to run."""
    arrays = problem.arrays(images)
    if torch is None:
        return Ours(formulation.kind, arrays, problem.boundary)
    if formulation.kind == "conv":
        arrays["w"] = problem.merged(images)[1].astype(np.float32)
    step: Step = torch.Step(
        formulation.name, arrays, boundary=problem.boundary, stride=problem.stride, epsilon=problem.epsilon
    )
    return step


def load_torch() -> ModuleType | None:
    """The formulations of PyTorch, where it is installed."""
    try:
        from benchmarks import peers_torch
    except ImportError:
        return None
    peers_torch.use_threads(processors())
    return peers_torch


class Comparison:
    """Formulations at one boundary, verified, then timed in alternation."""

    def __init__(self, boundary: str, names: list[str], batch_size: int | None, torch: ModuleType | None) -> None:
        self.boundary = boundary
        self.images = {name: batch_size or FORMULATIONS[name].batch_size for name in names}
        problem = Problem(boundary, max(self.images.values()))
        self.steps: dict[str, Callable[[], Any]] = {}
        self.errors: dict[str, dict[str, float]] = {}
        self.skipped: dict[str, str] = {}
        self.disagrees = False
        self.seconds: dict[str, list[float]] = {}
        self.products: dict[str, Products] = {}
        for name in names:
            if name in OURS.values():
                self._add(name, problem, None)
            elif torch is None:
                self.skipped[name] = "torch is not installed"
            else:
                self._add(name, problem, torch)

    def _add(self, name: str, problem: Problem, torch: ModuleType | None) -> None:
        """Verify a formulation, and keep it if it agrees."""
        formulation, images = FORMULATIONS[name], self.images[name]
        step = make_step(formulation, problem, images, torch)
        try:
            arrays = step.to_numpy(step())
        except Exception as error:
            if not name.endswith("compiled"):
                raise
            self.skipped[name] = f"not compiled: {' '.join(str(error).split())[:200]}"
            return
        errors = self.errors[name] = problem.errors(formulation.kind, images, arrays)
        if not all(error <= formulation.tolerance for error in errors.values()):
            self.disagrees = True
            values = ", ".join(f"{key} by {value:.1e}" for key, value in errors.items())
            self.skipped[name] = f"disagrees with double precision: {values}; {formulation.tolerance:.0e} is allowed"
            return
        self.steps[name] = step
        if torch is None:
            self.products[name] = Products(step)

    def run(self, rounds: int) -> None:
        timed: dict[str, Callable[[], Any]] = dict(self.steps)
        timed |= {f"{name} products": step for name, step in self.products.items()}
        self.seconds = {name: [] for name in timed}
        for _ in range(rounds):
            for name, step in timed.items():
                step()
                began = time.perf_counter()
                result = step()
                self.seconds[name].append(time.perf_counter() - began)
                del result  # before the next step allocates

    def per_image(self, name: str) -> float:
        """Median milliseconds an image."""
        return 1e3 * statistics.median(self.seconds[name]) / self.images[name.partition(" ")[0]]

    def record(self) -> dict[str, Any]:
        timed = {
            name: {
                "batch_size": self.images[name],
                "seconds": self.seconds[name],
                "ms_per_image": self.per_image(name),
                "errors": self.errors[name],
            }
            for name in self.steps
        }
        for name, replayed in self.products.items():
            alone = f"{name} products"
            timed[name]["products"] = {
                "calls": replayed.calls,
                "multiply_adds_per_image": replayed.multiply_adds / self.images[name],
                "multiply_adds_by_taps_per_image": replayed.by_taps / self.images[name],
                "seconds": self.seconds[alone],
                "ms_per_image": self.per_image(alone),
                "layer_to_products": self.per_image(name) / self.per_image(alone),
            }
        return {"boundary": self.boundary, "timed": timed, "skipped": self.skipped}

    def lines(self) -> list[str]:
        """The table, as text."""
        lines = [
            f"{self.boundary:26s} {'batch':>5s} {'ms/image':>9s} {'from':>8s} {'to':>8s} {'times ours':>10s}  error"
        ]
        for name in self.steps:
            images, rounds = self.images[name], [1e3 * s / self.images[name] for s in self.seconds[name]]
            ours = OURS[FORMULATIONS[name].kind]
            ratio = f"{self.per_image(name) / self.per_image(ours):10.2f}" if ours in self.steps else " " * 10
            lines.append(
                f"{name:26s} {images:5d} {self.per_image(name):9.2f} {min(rounds):8.2f} {max(rounds):8.2f} {ratio}  "
                f"{max(self.errors[name].values()):.0e}  {FORMULATIONS[name].text}"
            )
        for name, replayed in self.products.items():
            alone = self.per_image(f"{name} products")
            macs, by_taps = (n / self.images[name] for n in (replayed.multiply_adds, replayed.by_taps))
            ratio = self.per_image(name) / alone
            without = f" ({ratio * macs / by_taps:.2f} to the {by_taps / 1e6:.0f} M without F(4, 3))"
            lines.append(
                f"{name}: matrix products of as many multiply-adds as its {replayed.calls} convolutions and adjoints, "
                f"in cache: {alone:.2f} ms/image, {macs / 1e6:.0f} M at {2e-6 * macs / alone:.0f} GFLOP/s; "
                f"layer / products {ratio:.2f}{without if by_taps > macs else ''}"
            )
        return [*lines, *(f"{name}: skipped, {why}" for name, why in self.skipped.items())]


def main() -> int:
    """Measure and print; the status is 1 if a formulation disagrees."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.layer", description=__doc__.splitlines()[0], allow_abbrev=False
    )
    parser.add_argument("--boundary", nargs="+", choices=("periodic", "zero"), help="both by default")
    parser.add_argument("--batch-size", type=int, help="images, for all; by default 50, fewer where Q copies are made")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=FORMULATIONS, default=list(FORMULATIONS))
    parser.add_argument("--by-taps", action="store_true", help="ours without tiles of F(4, 3)")
    parser.add_argument("--quick", action="store_true", help="one round of two images: does it run and agree?")
    parser.add_argument("--out", type=Path, help="write the figures to this file, the text to one beside it (.txt)")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.batch_size = 1, 2
    for name in ("rounds", "batch_size"):
        if (value := getattr(options, name)) is not None and value < 1:
            parser.error(f"--{name.replace('_', '-')} is {value}; give 1 or more")
    if options.by_taps:
        from hcnn_core._engines.cpu.winograd import WinogradProducts

        mock.patch.object(WinogradProducts, "supports", return_value=False).start()
    torch = load_torch() if set(options.only) - set(OURS.values()) else None

    lines: list[str] = []

    def say(*more: str) -> None:
        lines.extend(more)
        print(*more, sep="\n", flush=True)

    disagrees = False
    record = {**describe_machine(torch), "comparisons": []}
    say(*(f"{key}: {value}" for key, value in record.items() if key != "comparisons"), "")
    tiles = "; no tiles of F(4, 3)" if options.by_taps else ""
    say(f"rounds: {options.rounds}; medians of forward and backward, and errors against double precision{tiles}", "")
    for boundary in options.boundary or ("periodic", "zero"):
        comparison = Comparison(boundary, options.only, options.batch_size, torch)
        comparison.run(options.rounds)
        record["comparisons"].append(comparison.record())
        say(*comparison.lines(), "")
        disagrees |= comparison.disagrees
        del comparison  # its arrays, before the next one makes its own
    record["load afterwards"] = os.getloadavg()
    print(json.dumps(record))
    if options.out:
        options.out.write_text(json.dumps(record, indent=1) + "\n")
        options.out.with_suffix(".txt").write_text("\n".join(lines).rstrip() + "\n")
    return int(disagrees)


if __name__ == "__main__":
    raise SystemExit(main())
