"""Images/s, time by stage and peak memory of a training step: `python -m benchmarks.step --preset hcnn`.

Whole steps are timed without the profiler, alternating between the networks given, and reported as medians. One more
step of each runs under the profiler, which shows where its time goes. Stages are functions that the main thread waits
for. "rest" is everything between them: the tape, sums of cotangents, biases.
"""

from train.commands.process import prepare

prepare()  # before NumPy is loaded, as the command line of training does

import argparse
import cProfile
import itertools
import json
import pstats
import resource
import statistics
import sys
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from autodiff import tree_map
from benchmarks.machine import describe_machine, seconds
from hcnn_core import planning
from train.config import make_config
from train.data import Images
from train.networks.registry import build
from train.recipes.augmentations import Position, draw_batch
from train.runs.step import GraphedStep, gradient_step, initial_arrays
from train.settings import ConfigError

CIFAR10_IMAGES = 50_000

STAGES = {
    "augmentation": ("data/augmentation.py", ("move", "standardise", "draw_sources")),
    "patch moments": ("generic/patches.py", ("moments",)),
    "patch moments, backward": ("generic/patches.py", ("filter",)),
    "layers: convolution and ELU": ("cpu/plan.py", ("forward",)),
    "layers, backward": ("cpu/plan.py", ("adjoints",)),
    "(+) layers": ("hcnn_core/factored.py", ("factored_layer",)),
    "(+) layers, backward": ("hcnn_core/factored.py", ("factored_adjoints",)),
    "marginals": ("hcnn_core/marginals.py", ("marginal", "marginal_vjp")),
    "gradient step": ("train/recipes/optimizers.py", ("update", "_adamw")),
}
PARTS = {
    "of these: spectra of x": ("cpu/plan.py", ("_spectrum",)),
    "spectra of cotangents": ("cpu/plan.py", ("_cotangent",)),
    "products of both cotangents": ("cpu/winograd.py", ("adjoints",)),
    "spectra back to x": ("cpu/plan.py", ("_samples", "_add_samples")),
}
"""Functions that layers call for all positions; the rest of their time is transforms and products of blocks."""

ROOT = Path(__file__).resolve().parents[1]


class Step:
    """One network with a batch of random images of a shape, ready to take training steps on arrays of `xp`."""

    def __init__(
        self, preset: str, boundary: str | None, batch_size: int, xp: Any = np, seed: int = 0,
        size: tuple[int, int] | None = None, plans: str = "estimate", shape: tuple[int, ...] = (32, 32, 3),
        **changes: Any,
    ) -> None:  # fmt: skip
        changes |= {} if boundary is None else {"boundary": boundary}
        self.config = make_config(preset, {"batch_size": batch_size, **changes})
        self.plans = plans
        planned = ", measured plans" if plans == "measure" else ""
        self.name = f"{preset}, {self.config.boundary}, {batch_size} images{planned}"
        network = self.network = build(self.config, shape[:-1], 10, shape[-1])
        self.rng = np.random.default_rng(seed)
        self.arrays = tree_map(xp.asarray, initial_arrays(network, network.initialize(self.rng)))
        pixels = self.rng.integers(0, 256, (batch_size, *shape)).astype(np.uint8)
        labels, half = self.rng.integers(0, 10, batch_size), np.full(shape[-1], 127.5)
        self.images = images = Images(xp.asarray(pixels), xp.asarray(labels), half, half / 2, self.config.dtype)
        self.take = GraphedStep(xp, gradient_step(self.config, network, images, size), batch_size)

    def __call__(self) -> Any:
        """Augment, differentiate, descend; returns the loss."""
        config = self.config
        numbers = {"rate": 1e-3, "step": 1.0, "moments_kept": 0.9, "moments_taken": 0.1, "average_kept": 0.9}
        inputs = {name: np.asarray(value, config.dtype) for name, value in numbers.items()}
        inputs |= draw_batch(
            config, self.rng, Position(np.arange(config.batch_size), self.images.images.shape[1:], 0, config.batch_size)
        )
        with planning(self.plans):
            self.arrays, loss, _ = self.take(self.arrays, inputs)
        return loss


def profile(step: Step) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds of one step by stage, and of parts of these."""
    profiler = cProfile.Profile()
    whole = seconds(lambda: profiler.runcall(step))
    tables = []
    for stages in (STAGES, PARTS):
        table: dict[str, float] = dict.fromkeys(stages, 0.0)
        for (file, _, function), (_, _, _, cumulative, _) in pstats.Stats(profiler).stats.items():  # type: ignore[attr-defined]
            for stage, (name, functions) in stages.items():
                if Path(file).as_posix().endswith(f"/{name}") and function in functions:
                    table[stage] += cumulative
        tables.append(table)
    whole_table, parts = tables
    return {**whole_table, "rest": whole - sum(whole_table.values()), "whole step, profiled": whole}, parts


def calls_of(step: Step) -> dict[str, int]:
    """Return how many Python functions a step calls in all, and in each package or module of ours, the most first."""
    counts: Counter[str] = Counter()

    def note(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            path = Path(frame.f_code.co_filename)
            counts[path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else "libraries"] += 1

    sys.setprofile(note)
    try:
        step()
    finally:
        sys.setprofile(None)
    return {"all": counts.total(), **dict(counts.most_common())}


def boundaries(preset: str) -> tuple[str | None, ...]:
    """Return the boundaries to compare: a network's own where it has but one."""
    try:
        make_config(preset, {"boundary": "periodic"})
    except ConfigError:
        return (None,)
    return "zero", "periodic"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", nargs="+", default=["hcnn"], help="networks")
    parser.add_argument("--boundary", nargs="+", help="by default both where a network has a choice")
    parser.add_argument("--batch-size", type=int, nargs="+", default=[50])
    parser.add_argument("--planning", nargs="+", default=["estimate"], help="who chooses how convolutions are computed")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()

    machine = describe_machine()
    print(*(f"{key}: {value}" for key, value in machine.items()), sep="\n")
    choices = itertools.product(options.preset, options.batch_size, options.planning)
    steps = [Step(p, b, n, plans=how) for p, n, how in choices for b in options.boundary or boundaries(p)]
    times: dict[str, list[float]] = {step.name: [] for step in steps}
    for step in steps:
        step()  # compiles, and fills caches
    for _ in range(options.rounds):
        for step in steps:
            times[step.name].append(seconds(step))
    record: dict[str, Any] = {**machine, "batch_size": options.batch_size, "networks": {}}
    print(f"{options.rounds} rounds\n")
    for step in steps:
        rounds = times[step.name]
        median = statistics.median(rounds)
        rate = step.config.batch_size / median
        (stages, parts), calls = profile(step), calls_of(step)
        record["networks"][step.name] = {
            "seconds": rounds,
            "images_per_second": rate,
            "stages": stages,
            "parts": parts,
            "python_calls": calls,
        }
        print(
            f"{step.name}: {median:.3f} s a step (from {min(rounds):.3f} to {max(rounds):.3f}), {1e3 / rate:.2f} ms an "
            f"image, {rate:.1f} images/s, an epoch of CIFAR-10 in {CIFAR10_IMAGES / rate / 60:.1f} min"
        )
        most = ", ".join(f"{count} in {name}" for name, count in list(calls.items())[1:7])
        print(f"    {calls['all']} Python calls, {most}")
        for stage, value in stages.items():
            print(f"    {stage:28s} {value:7.3f} s {100 * value / stages['whole step, profiled']:5.1f} %")
        for part, value in parts.items():
            print(f"        {part:28s} {value:7.3f} s")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    record["peak_memory_mib"] = peak
    print(f"\npeak memory of the process: {peak:.0f} MiB")
    if options.json:
        options.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
