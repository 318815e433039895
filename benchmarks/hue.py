"""Plant a symmetry of colour in images, and see whether a network's attributes find it.

    OPENBLAS_NUM_THREADS=1 HCNN_NUM_THREADS=1 python -m benchmarks.hue --out benchmarks/results/hue

A grey patch of a photograph is tinted: its left half with the hue h, its right half with h + d. The circle of hues has
length 8. The class is d, from 0 to 7. Turning all hues by s moves no pixel and keeps the class. The network is
`hcnn-fast` with K = 8 and periodic attributes without strides, so an attribute has one sample for each turn.
docs/symmetries.md has the protocol.

Networks are appended to networks.csv as they end; the same command goes on with those that are missing. `--part 0 2`
and `--part 1 2` share them between two processes.
"""

import argparse
import csv
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import binomtest

from autodiff import value_and_grad
from autodiff.primitives import cross_entropy
from benchmarks.machine import describe_machine
from benchmarks.symmetries import newcombe
from train.attributes.symmetry import translation_explains
from train.config import Config, make_config
from train.data import load_dataset
from train.networks.hierarchical import name_of
from train.networks.layer import Moments, Parameters
from train.networks.network import Network
from train.networks.registry import build
from train.recipes.optimizers import Progress, initial_state, updated
from train.recipes.schedules import learning_rate
from train.runs.step import described

Array = np.ndarray[Any, Any]
TURNS, SIZE, BATCH, TESTED, ORDERS = 8, 16, 50, 200, 99
PLACES = ((1, 1), (2, 1), (2, 2), (3, 1), (3, 2), (3, 3))
"""Depth j, and the attribute v_i along which x_j is translated. Those along v_1 are compared."""


class Arm(NamedTuple):
    """What differs from the first arm."""

    of_hue: bool = False  # whether the class is the hue of the left half, which turning changes
    half: bool = False  # whether training sees the left half in one half of the circle only
    shuffled: bool = False  # whether each batch has v_1 in another order
    steps: int | None = None


ARMS = {
    "all hues": Arm(),
    "labels h": Arm(of_hue=True),
    "v_1 shuffled": Arm(shuffled=True),
    "half": Arm(half=True),
    "untrained": Arm(steps=0),
}


class Tinted(NamedTuple):
    """Patches, and how they are tinted."""

    patches: Array  # (N, SIZE, SIZE), from 0 to 1
    hue: Array  # (N,), of the left half; the circle has length 8
    distance: Array  # (N,), integers: how far the hue of the right half is from it

    def turned(self, element: int) -> "Tinted":
        return self._replace(hue=self.hue + element)

    def images(self) -> Array:
        """Return colours (N, SIZE, SIZE, 3): the hue turns them about the grey axis."""
        right = np.arange(SIZE) >= SIZE // 2
        hue = self.hue[:, None] + np.where(right, self.distance[:, None], 0)  # (N, u2)
        phase = 2 * np.pi * (hue[..., None] / TURNS - np.arange(3) / 3)  # (N, u2, 3)
        tint = (1 + np.cos(phase)) / 2
        images: Array = 4 * (self.patches[..., None] * tint[:, None] - 0.25)
        return images.astype(np.float32)


def draw(photographs: Array, count: int, hues: int, rng: np.random.Generator) -> Tinted:
    """Return patches at random places of grey photographs (N, n, n), with hues from 0 to `hues`."""
    chosen = rng.integers(len(photographs), size=count)
    top, left = rng.integers(photographs.shape[1] - SIZE + 1, size=(2, count))
    rows, columns = (first[:, None] + np.arange(SIZE) for first in (top, left))
    patches = photographs[chosen[:, None, None], rows[:, :, None], columns[:, None, :]]
    low, high = patches.min(axis=(1, 2), keepdims=True), patches.max(axis=(1, 2), keepdims=True)
    patches = 0.2 + 0.8 * (patches - low) / np.maximum(high - low, 1e-6)
    return Tinted(patches, rng.uniform(0, hues, count), rng.integers(TURNS, size=count))


def walk(network: Network, weights: Parameters, x: Array, order: Array | None, moments: Moments | None = None) -> Any:
    """Return logits and moments, with v_1 of x_1 in another order if one is given."""
    if order is None:
        return network(weights, x, moments)
    layer, x_1, used = next(network.trace(weights, x, moments))
    logits, others = network(weights, {layer.name: x_1[..., order]}, moments)
    return logits, {**({layer.name: used} if used else {}), **others}


def train(config: Config, network: Network, arm: Arm, photographs: Array, rng: np.random.Generator) -> Parameters:
    """Return weights after the arm's steps; each has new samples."""
    weights = network.initialize(rng)
    state = initial_state(config, weights)
    steps = config.epochs if arm.steps is None else arm.steps
    for step in range(steps):
        scene = draw(photographs, BATCH, TURNS // 2 if arm.half else TURNS, rng)
        x, targets = scene.images(), classes(scene, arm)
        order = rng.permutation(TURNS) if arm.shuffled else None

        def loss(weights: Parameters, x: Array = x, targets: Array = targets, order: Array | None = order) -> Any:
            return cross_entropy(walk(network, weights, x, order)[0], targets)

        _, gradients = value_and_grad(loss)(weights)
        progress = Progress(learning_rate(config, step, 1), step + 1)
        weights, state = updated(config, progress, described(network, weights), gradients, state)
    return weights


def classes(scene: Tinted, arm: Arm) -> Array:
    return np.floor(scene.hue).astype(int) % TURNS if arm.of_hue else scene.distance


def measure(
    network: Network, weights: Parameters, arm: Arm, seen: Array, new: Array, rng: np.random.Generator
) -> Iterator[tuple[str, Any]]:
    """Yield what is recorded of a network: accuracies on new photographs, and the statistic at each place."""
    order = rng.permutation(TURNS) if arm.shuffled else None
    moments = walk(network, weights, draw(seen, 5 * TESTED, TURNS // 2 if arm.half else TURNS, rng).images(), order)[1]

    def accuracy(scene: Tinted) -> float:
        found = walk(network, weights, scene.images(), order, moments)[0]
        return float((found.argmax(axis=1) == classes(scene, arm)).mean())

    yield "accuracy", accuracy(draw(new, 5 * TESTED, TURNS, rng))
    yield "unseen", accuracy(draw(new, 5 * TESTED, TURNS // 2, rng).turned(TURNS // 2))
    scene = draw(new, TESTED, TURNS, rng)
    for j, i in PLACES:

        def represent(scene: Tinted, j: int = j) -> Array:
            layers = network.trace(weights, scene.images(), moments)
            return next(np.asarray(x) for layer, x, _ in layers if layer.name == name_of(j))

        e = translation_explains(
            represent, lambda s, scene: scene.turned(s), scene, elements=range(1, TURNS), axis=2 + i, orders=ORDERS,
            rng=rng,
        )  # fmt: skip
        place = f"x_{j} v_{i}"
        yield f"{place} share", e.share
        yield f"{place} random median", float(np.median(e.random))
        yield f"{place} p", e.p
        yield f"{place} whole", int(e.is_isomorphic(range(1, TURNS), TURNS))


def table(rows: list[dict[str, str]]) -> str:
    """Return what the protocol compares, as tables in Markdown."""
    of = {name: [row for row in rows if row["arm"] == name] for name in ARMS}
    of = {name: found for name, found in of.items() if found}
    lines = ["| arm | networks | accuracy | unseen |", "| --- | --- | --- | --- |"]
    for name, found in of.items():
        right = (f"{100 * np.median([float(row[key]) for row in found]):.1f} %" for key in ("accuracy", "unseen"))
        lines.append(f"| {name} | {len(found)} | {' | '.join(right)} |")
    lines += ["", "| arm | place | share | random | above all orders | whole group |", "| --- " * 6 + "|"]
    margins: dict[tuple[str, int], Array] = {}  # share beyond random orders, of each network
    above: dict[tuple[str, int], int] = {}
    for name, found in of.items():
        for j, i in PLACES:
            share, random, p, whole = (
                np.array([float(row[f"x_{j} v_{i} {key}"]) for row in found])
                for key in ("share", "random median", "p", "whole")
            )
            all_orders = p <= 1 / (1 + ORDERS) + 1e-12
            if i == 1:
                margins[name, j], above[name, j] = share - random, int(all_orders.sum())
            medians = f"{np.median(share):.3f} | {np.median(random):.3f}"
            counts = f"{all_orders.sum()} | {int((all_orders & (whole > 0)).sum())}"
            lines.append(f"| {name} | x_{j} along v_{i} | {medians} | {counts} |")
    lines += ["", "| compared along v_1 | j | seeds with more | p | above all orders | 95 % interval |"]
    lines.append("| --- " * 6 + "|")
    for other in ("labels h", "v_1 shuffled", "untrained"):
        for j in (1, 2, 3):
            first, second = margins.get(("all hues", j)), margins.get((other, j))
            if first is not None and second is not None and len(first) == len(second):
                n, more = len(first), int((first > second).sum())
                sign = binomtest(more, n, alternative="greater").pvalue
                difference, low, high = newcombe(above["all hues", j], above[other, j], n)
                shown = f"{difference:+.2f} | {low:+.2f} to {high:+.2f}"
                lines.append(f"| all hues - {other} | {j} | {more} of {n} | {sign:.2g} | {shown} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", type=int, default=10, metavar="N", help="of each arm [10]")
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS), metavar="ARM", help="[all]")
    parser.add_argument(
        "--first", type=int, default=0, metavar="SEED", help="seed of the first network of each arm [0]"
    )
    parser.add_argument("--steps", type=int, default=400, metavar="N", help="of training, 50 images each [400]")
    parser.add_argument(
        "--part", type=int, nargs=2, default=(0, 1), metavar=("I", "N"), help="one of N processes [0 1]"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the networks and the table")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    settings = {
        "width": TURNS, "boundary": "attributes", "attribute_stride": 1, "depth": 6, "strided_layers": (2, 3),
        "image_sizes": (SIZE,), "batch_size": BATCH, "epochs": max(options.steps, 1), "validation_size": 0,
    }  # fmt: skip
    config = make_config("hcnn-fast", settings)
    network = build(config, SIZE, TURNS)
    sample = load_dataset("sample")
    seen, new = (x.mean(axis=3) / 255 for x in (sample.train_images, sample.test_images))
    (part, parts), file = options.part, options.out / "networks.csv"
    jobs = [(name, seed) for seed in range(options.first, options.first + options.networks) for name in options.arms]
    for number, (name, seed) in enumerate(jobs):
        done = {(row["arm"], int(row["seed"])) for row in records(file)}
        if number % parts != part or (name, seed) in done:
            continue
        rng = np.random.default_rng(seed)  # the same first weights in every arm
        weights = train(config, network, ARMS[name], seen, rng)
        row = {"arm": name, "seed": seed, **dict(measure(network, weights, ARMS[name], seen, new, rng))}
        with file.open("a", newline="") as target:
            writer = csv.DictWriter(target, list(row), lineterminator="\n")
            if not target.tell():
                writer.writeheader()
            writer.writerow({key: f"{x:.4f}" if isinstance(x, float) else x for key, x in row.items()})
        print(name, seed, f"{100 * row['accuracy']:.1f} %", flush=True)
    rows = sorted(records(file), key=lambda row: (list(ARMS).index(row["arm"]), int(row["seed"])))
    text = table(rows)
    print(text)
    steps = f"{math.prod((options.steps, BATCH)):,} images each, {options.steps} steps"
    (options.out / "arms.md").write_text(f"{text}\n{steps}\n{describe_machine()}\n", "utf-8")


def records(file: Path) -> list[dict[str, str]]:
    """Return the networks that have ended."""
    if not file.exists():
        return []
    with file.open(newline="") as source:
        return list(csv.DictReader(source))


if __name__ == "__main__":
    main()
