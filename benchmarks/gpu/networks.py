"""Whole networks on a card: `python -m benchmarks.gpu.networks --preset hcnn-best --strided-layers 5 9`.

For each size of images, in pixels along a side: the largest errors of loss, logits, gradients and moments beside NumPy
in double precision, relative to the largest entry of each, memory poisoned first; whether a second pass gives the same
bits; and the time of a training step. `--tuning NAME=VALUE ...` times steps with these sizes too, one at a time.
"""

from __future__ import annotations

from train.commands.process import prepare

prepare()  # before NumPy is loaded, as the command line of training does

import argparse
import gc
import statistics
from typing import Any

import numpy as np

from autodiff import cross_entropy, tree_map, value_and_grad
from benchmarks.gpu.stages import ROUNDS, WARM_UP, fresh, poisoned_memory, seconds, usable_cupy, without_numba
from benchmarks.step import Step
from hcnn_core import precision
from hcnn_core._tuning import tuned
from hcnn_core.backend import to_numpy
from train.config import make_config
from train.networks.registry import build

IMAGES = 6


def values(xp: Any, settings: dict[str, Any], side: int, dtype: str, seed: int) -> dict[str, Any]:
    """Loss, logits, gradients and moments of a network whose weights and images the seed draws, as NumPy's arrays."""
    narrow = build(make_config(settings["preset"], {**settings, "dtype": "float32"}))
    exact = {"precision": "float32"} if dtype == "float64" else {}  # tensor cores are for float32
    network = build(make_config(settings["preset"], {**settings, **exact, "dtype": dtype}))
    rng = np.random.default_rng(seed)

    def place(a: Any) -> Any:
        return xp.asarray(np.asarray(a, dtype))

    weights = tree_map(place, narrow.initialize(rng))
    x = place(rng.standard_normal((IMAGES, side, side, 3), np.float32))
    labels = xp.asarray(rng.integers(0, 10, IMAGES))

    def loss_of(weights: Any) -> Any:
        logits, moments = network(weights, x)
        return cross_entropy(logits, labels), (logits, moments)

    with precision(network.config.precision):
        (loss, (logits, moments)), gradients = value_and_grad(loss_of, has_aux=True)(weights)
    found = {"loss": loss, "logits": logits, **_leaves("gradient", gradients), **_leaves("moments", moments)}
    return {name: to_numpy(xp.asarray(a)) for name, a in found.items()}


def _leaves(name: str, tree: Any) -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {name: tree}
    return {k: a for key, branch in tree.items() for k, a in _leaves(f"{name} {key}", branch).items()}


def errors(found: dict[str, Any], expected: dict[str, Any]) -> dict[str, float]:
    """Largest error of each array, relative to the largest entry of what is expected."""
    return {k: float(np.abs(found[k] - a).max() / np.abs(a).max()) for k, a in expected.items()}


def step_of(cupy: Any, settings: dict[str, Any], batch_size: int, side: int) -> tuple[float, bool]:
    """Seconds of a training step, and whether it is a CUDA graph."""
    changes = {k: v for k, v in settings.items() if k != "preset"}
    take = Step(settings["preset"], "zero", batch_size, cupy, size=(side, side), cutout=0, **changes)
    for _ in range(WARM_UP + 2):
        take()
    median = statistics.median(seconds(cupy, take, 3) for _ in range(ROUNDS))
    graph = take.take.launch is not None
    del take
    gc.collect()
    cupy.get_default_memory_pool().free_all_blocks()
    return median, graph


def main() -> None:
    """Compare, time and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="hcnn-best")
    parser.add_argument("--strided-layers", type=int, nargs="*", help="layers that subsample space, else the preset's")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--sizes", type=int, nargs="+", default=[32], help="pixels along a side of the images")
    parser.add_argument("--tuning", nargs="*", default=[], metavar="NAME=VALUE", help="sizes of `hcnn_core._tuning`")
    options = parser.parse_args()

    cupy = usable_cupy()
    settings: dict[str, Any] = {"preset": options.preset, "precision": options.precision}
    if options.strided_layers is not None:
        settings["strided_layers"] = tuple(options.strided_layers)
    for side in options.sizes:
        seed = fresh()[1]
        with without_numba():
            expected = values(np, settings, side, "float64", seed)
        with poisoned_memory(cupy):
            once, again = (values(cupy, settings, side, "float32", seed) for _ in range(2))
        apart = errors(once, expected)
        worst = max(apart, key=lambda k: apart[k])
        same = all(np.array_equal(once[k], again[k]) for k in once)
        print(
            f"{side} pixels, {options.precision}: loss {apart['loss']:.1g}, "
            f"logits {apart['logits']:.1g}, worst {worst} {apart[worst]:.1g}; "
            f"{'the same bits again' if same else 'OTHER BITS'} (seed {seed})",
            flush=True,
        )
        for pair in ("", *options.tuning):
            name, _, value = pair.partition("=")
            with tuned(**({name: int(value)} if pair else {})):
                median, graph = step_of(cupy, settings, options.batch_size, side)
            print(
                f"{side} pixels, {options.precision}{', ' * bool(pair)}{pair}: {1e3 * median:.2f} ms a step, "
                f"{options.batch_size / median:.0f} images/s, {'a graph' if graph else 'kernel by kernel'}",
                flush=True,
            )


if __name__ == "__main__":
    main()
