"""New kernels beside what they replaced, on a card: `python -m benchmarks.gpu.passes FOLDER`, in about three minutes.

Sums and marginals beside CuPy's, filters that slide along attributes on tensor cores beside spectra, each as one layer
of the paper's network with 100 images; summed channels from tiles, as ResNet-20 has them, beside `apply`. What is gone
from the code has the milliseconds that it took on an H200 at commit 30f3344 (benchmarks/results/gpu-h200/peers.md).
Then sizes beside others: values of attribute 1 that a warp of `implicit` keeps, and blocks among which positions are
shared out. Values of both ways are compared.
"""

from train.commands.process import prepare

prepare()  # before NumPy is loaded, as the command line of training does

import statistics
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.gpu.stages import Table, in_turns, reported, usable_cupy
from hcnn_core import marginal, normalize_elu, normalize_elu_marginal, patch_moments
from hcnn_core._engines.cuda import implicit as _implicit
from hcnn_core._engines.cuda.plan import CudaPlan
from hcnn_core._engines.cuda.tensor_plan import TensorPlan
from hcnn_core._engines.devices import CUPY, Request
from hcnn_core._problem import Problem, make_problem
from hcnn_core._tuning import current, tuned
from hcnn_core.moments import patch_filter

PATCHES = {"moments of patches": 1.10, "their derivative": 1.78}
"""Milliseconds of the nine layers of a step of hcnn-best by the kernels that were replaced."""

SIDES = 32, 32, 32, 16, 16, 16, 16, 8, 8
"""Rows and columns of what these layers read."""

LAYERS: dict[str, tuple[int, dict[str, Any]]] = {
    "32 x 32": (32, {"stride": (1, 1, 2, 2), "boundary": "zero"}),
    "32 x 32, subsampled": (32, {"stride": (2, 2, 2, 2), "boundary": "zero"}),
    "16 x 16": (16, {"stride": (1, 1, 2, 2), "boundary": "zero"}),
    "8 x 8": (8, {"stride": (1, 1, 2, 2), "boundary": "zero"}),
    "32 x 32, periodic": (32, {"stride": (1, 1, 2, 2), "boundary": "periodic"}),
}
FILTERS, AXES, METHOD = (3, 3, 7, 11, 16), (1, 2, 3, 4), ("direct", "direct", "fft", "fft")


def beside(cupy: Any, table: Table, name: str, ways: dict[str, Callable[[], Any]]) -> None:
    """Time two ways in turns, and add a row with how far their results are apart."""
    if not table.lacks(name):
        return
    with reported(name):
        (one, other), (new, old) = (way() for way in ways.values()), in_turns(cupy, ways).values()
        apart = float(cupy.abs(one - other).max() / cupy.abs(other).max())
        table.add([name, 1e3 * statistics.median(new), 1e3 * statistics.median(old), apart])
        cupy.get_default_memory_pool().free_all_blocks()


def sums(cupy: Any, table: Table) -> None:
    """Sums beside CuPy's: of parts of a product, of a cotangent for a bias, of logits."""
    for name, shape, axes in (
        ("parts of filters' gradients", (29, 82944), 0),
        ("a marginal", (4, 13107200), 0),
        ("a bias", (16, 1024, 12800), (1, 2)),
        ("logits", (2048, 1000), 0),
    ):
        x = cupy.random.default_rng(0).standard_normal(shape, dtype=cupy.float32)
        ways = {"new": lambda x=x, a=axes: marginal(x, a), "old": lambda x=x, a=axes: x.sum(axis=a)}
        beside(cupy, table, f"sum of {name}", ways)


def normalisation(cupy: Any, table: Table) -> None:
    """The marginal of a normalised output, beside the output and its sum."""
    y = (
        cupy.random.default_rng(0)
        .standard_normal((4, 8, 16, 32, 32, 100), dtype=cupy.float32)
        .transpose(5, 3, 4, 0, 1, 2)
    )
    each = cupy.ones(16, cupy.float32)
    ways = {
        "new": lambda: normalize_elu_marginal(y, each, each, each, 3, epsilon=1e-3)[0],
        "old": lambda: normalize_elu(y, each, each, each, epsilon=1e-3)[0].sum(axis=3),
    }
    beside(cupy, table, "normalised marginal", ways)


def patches(cupy: Any, table: Table) -> None:
    """Moments of patches and their derivative, of all layers of a step, beside what an H200 took for them."""
    rng = cupy.random.default_rng(0)
    inputs = [rng.standard_normal((8, 16, n, n, 100), dtype=cupy.float32).transpose(4, 2, 3, 0, 1) for n in SIDES]
    constant, matrix, mean = cupy.ones(9, cupy.float32), cupy.ones((9, 9), cupy.float32), cupy.zeros(9)
    options: dict[str, Any] = {"boundary": "zero"}
    moments = lambda: [patch_moments(x, (1, 2), (3, 3), **options) for x in inputs]  # noqa: E731
    back = lambda: [  # noqa: E731
        patch_filter(constant, matrix, x, (1, 2), (3, 3), mean=mean, addend=x, **options) for x in inputs
    ]
    for (name, ms), work in zip(PATCHES.items(), (moments, back), strict=True):
        if table.lacks(name):
            (times,) = in_turns(cupy, {name: work}).values()
            table.add([name, 1e3 * statistics.median(times), ms, ""])


def layers(cupy: Any, table: Table) -> None:
    """Filters that slide, beside spectra; summed channels from tiles, beside `apply`: forward, and both adjoints."""
    for layer, (side, options) in LAYERS.items():
        problem = make_problem((100, side, side, 8, 16), FILTERS, AXES, method=METHOD, **options)
        with reported(layer):
            _products(cupy, table, layer, problem, METHOD)
    for channels, side in ((16, 32), (64, 32), (64, 8)):
        options = {"sum_axes": 3, "boundary": "zero", "method": "direct"}
        shapes = (128, side, side, channels), (channels, 3, 3, channels)
        problem = make_problem(*shapes, AXES[:2], **options)
        name = f"{channels} channels, {side} x {side}"
        with reported(name):
            _products(cupy, table, name, problem, METHOD[:2])


def sizes(cupy: Any, table: Table) -> None:
    """Two beside four values of attribute 1 a warp, forward; 396 beside 1,024 blocks, for the filters' cotangent."""
    for layer, side in (("32 x 32", 32), ("16 x 16", 16)):
        problem = make_problem((100, side, side, 8, 16), FILTERS, AXES, method=METHOD, **LAYERS[layer][1])
        (two, four, _), x, w = _plans(cupy, problem, METHOD)
        kept, _implicit.TILES[False] = _implicit.TILES[False], 2
        two.forward(cupy, x, w)  # which keeps to it
        _implicit.TILES[False] = kept
        ways = {name: lambda p=p, x=x, w=w: p.forward(cupy, x, w) for name, p in (("new", two), ("old", four))}
        beside(cupy, table, f"{layer}, tf32: forward, TILES 2 beside {kept}", ways)
        _blocks(cupy, table, layer, problem, METHOD)
    for channels, side in ((16, 32), (64, 8)):
        shapes = (128, side, side, channels), (channels, 3, 3, channels)
        problem = make_problem(*shapes, AXES[:2], sum_axes=3, boundary="zero", method="direct")
        _blocks(cupy, table, f"{channels} channels, {side} x {side}", problem, METHOD[:2])


def _blocks(cupy: Any, table: Table, layer: str, problem: Problem, methods: tuple[str, ...]) -> None:
    (plan, *_), x, w = _plans(cupy, problem, methods)

    def by(blocks: int) -> Any:
        with tuned(device_blocks=blocks):
            return plan.adjoints(cupy, g, x, None)[1]

    g = plan.forward(cupy, x, w)
    ways = {"new": lambda: by(396), "old": lambda: by(1024)}
    beside(cupy, table, f"{layer}, tf32: w's cotangent, 396 blocks beside 1024", ways)


def _plans(cupy: Any, problem: Problem, methods: tuple[str, ...]) -> tuple[tuple[Any, ...], Any, Any]:
    """Two plans by tensor cores and one by spectra or taps, whatever is chosen, and random samples and filters."""
    rng, request = cupy.random.default_rng(0), Request(problem, True, ((), problem.batch_axes), CUPY, current())
    choice: Any = CUPY.by_axis(methods, request)
    plans = (replace(choice, engine=engine).make() for engine in (TensorPlan, TensorPlan, CudaPlan))
    n, rows, columns, *others = problem.x_shape
    x = rng.standard_normal((*others, rows, columns, n), dtype=cupy.float32)
    w = rng.standard_normal(problem.w_shape, dtype=cupy.float32)
    return tuple(plans), x.transpose(-1, -3, -2, *range(len(others))), w


def _products(cupy: Any, table: Table, layer: str, problem: Problem, methods: tuple[str, ...]) -> None:
    (new, _, old), x, w = _plans(cupy, problem, methods)
    g = new.forward(cupy, x, w)
    kinds: dict[str, Callable[[Any], Any]] = {
        "forward": lambda plan: plan.forward(cupy, x, w),
        "x's cotangent": lambda plan: plan.adjoints(cupy, g, None, w)[0],
        "w's cotangent": lambda plan: plan.adjoints(cupy, g, x, None)[1],
    }
    for kind, work in kinds.items():
        ways = {"new": lambda w=work: w(new), "old": lambda w=work: w(old)}
        beside(cupy, table, f"{layer}, tf32: {kind}", ways)


def main() -> None:
    """Time what the folder's table lacks, and print it."""
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    cupy = usable_cupy()
    table = Table(out, "passes", ["what", "ms", "ms before", "relative difference"])
    for part in (sums, normalisation, patches, layers, sizes):
        with reported(part.__name__):
            part(cupy, table)
    for row in table:
        print(" | ".join(f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in row))


if __name__ == "__main__":
    main()
