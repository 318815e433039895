"""What tasks with a planted symmetry have in common: training, the statistic, and the tables of hue.py and sound.py.

A sample has two places on a circle of length 8. The class is the distance between them, so turning the circle keeps it.
results/symmetries/README.md has the protocols. Networks are appended to networks.csv as they end; the same
command goes on with those that are missing.
"""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import binomtest, mannwhitneyu

from autodiff import value_and_grad
from autodiff.primitives import cross_entropy
from benchmarks.runner import Row, command_line, grouped, newcombe, publish, records, run, tables
from train.attributes.symmetry import translation_explains
from train.config import Config
from train.networks.hierarchical import name_of
from train.networks.layer import Moments, Parameters
from train.networks.network import Network
from train.recipes.optimizers import Progress, initial_state, updated
from train.recipes.schedules import learning_rate
from train.runs.step import parameters_of

Array = np.ndarray[Any, Any]
TURNS, BATCH, TESTED, ORDERS = 8, 50, 200, 99
PLACES = ((1, 1), (2, 1), (2, 2), (3, 1), (3, 2), (3, 3))
"""Depth j, and the attribute v_i along which x_j is translated. Those along v_1 are compared."""


class Arm(NamedTuple):
    """What differs from the first arm."""

    of_place: bool = False  # whether the class is the eighth of the circle that holds the first place
    half: bool = False  # whether training sees the first place in one half of the circle only
    shuffled: bool = False  # whether each batch has v_1 in another order
    steps: int | None = None


class Scene(NamedTuple):
    """Samples: what turning the circle leaves as it is, and two places on the circle."""

    rest: Any
    place: Array  # (N,), the first; the circle has length 8
    distance: Array  # (N,), integers: how far the second is from it

    def turned(self, element: int) -> "Scene":
        return self._replace(place=self.place + element)


class Task(NamedTuple):
    """A network, and what it is to learn."""

    config: Config
    network: Network
    arms: dict[str, Arm]  # the first is compared with `others`
    others: tuple[str, ...]
    draw: Callable[[bool, int, int, np.random.Generator], Scene]
    """From whether samples are to be new, their number, and how much of the circle holds their first places."""
    inputs: Callable[[Scene], Array]
    seen: Callable[[Array], Array] = np.asarray  # what of x_j the statistic is put to
    paired: bool = True  # whether a seed draws the same first weights in every arm: a sign test, or one of rank sums


def walk(network: Network, weights: Parameters, x: Array, order: Array | None, moments: Moments | None = None) -> Any:
    """Return logits and moments, with v_1 of x_1 in another order if one is given."""
    if order is None:
        return network(weights, x, moments)
    layer, x_1, used = next(network.trace(weights, x, moments))
    logits, others = network(weights, {layer.name: x_1[..., order]}, moments)
    return logits, {**({layer.name: used} if used else {}), **others}


def train(task: Task, arm: Arm, rng: np.random.Generator) -> Parameters:
    """Return weights after the arm's steps; each has new samples."""
    config, network = task.config, task.network
    weights = network.initialize(rng)
    state = initial_state(config, weights)
    steps = config.epochs if arm.steps is None else arm.steps
    for step in range(steps):
        scene = task.draw(False, BATCH, TURNS // 2 if arm.half else TURNS, rng)
        x, targets = task.inputs(scene), classes(scene, arm)
        order = rng.permutation(TURNS) if arm.shuffled else None

        def loss(weights: Parameters, x: Array = x, targets: Array = targets, order: Array | None = order) -> Any:
            return cross_entropy(walk(network, weights, x, order)[0], targets)

        _, gradients = value_and_grad(loss)(weights)
        progress = Progress(learning_rate(config, step, 1), step + 1)
        weights, state = updated(config, progress, parameters_of(network, weights), gradients, state)
    return weights


def classes(scene: Scene, arm: Arm) -> Array:
    return np.floor(scene.place).astype(int) % TURNS if arm.of_place else scene.distance


def measure(task: Task, weights: Parameters, arm: Arm, rng: np.random.Generator) -> Iterator[tuple[str, Any]]:
    """Yield what is recorded of a network: accuracies on new samples, and the statistic at each place."""
    network, half = task.network, TURNS // 2
    order = rng.permutation(TURNS) if arm.shuffled else None
    like_training = task.draw(False, 5 * TESTED, half if arm.half else TURNS, rng)
    moments = walk(network, weights, task.inputs(like_training), order)[1]

    def accuracy(scene: Scene) -> float:
        found = walk(network, weights, task.inputs(scene), order, moments)[0]
        return float((found.argmax(axis=1) == classes(scene, arm)).mean())

    yield "accuracy", accuracy(task.draw(True, 5 * TESTED, TURNS, rng))
    yield "unseen", accuracy(task.draw(True, 5 * TESTED, half, rng).turned(half))
    scene = task.draw(True, TESTED, TURNS, rng)
    for j, i in PLACES:

        def represent(scene: Scene, j: int = j) -> Array:
            layers = network.trace(weights, task.inputs(scene), moments)
            return next(task.seen(x) for layer, x, _ in layers if layer.name == name_of(j))

        e = translation_explains(
            represent, lambda s, scene: scene.turned(s), scene, elements=range(1, TURNS), axis=i - 1 - j,
            orders=ORDERS, rng=rng,
        )  # fmt: skip
        where = f"x_{j} v_{i}"
        yield f"{where} share", e.share
        yield f"{where} random median", float(np.median(e.random))
        yield f"{where} p", e.p
        yield f"{where} whole", int(e.is_isomorphic(range(1, TURNS), TURNS))


def table(task: Task, file: Path) -> str:
    """Return what the protocol compares, as tables in Markdown, from the record of networks."""
    rows = sorted(records(file, "arm", "seed"), key=lambda row: int(row["seed"]))
    of, medians, shown = grouped(rows, task.arms), [], []
    margins: dict[tuple[str, int], Array] = {}  # share beyond random orders, of each network
    above: dict[tuple[str, int], int] = {}
    for name, found in of.items():
        right = (f"{100 * np.median([float(row[key]) for row in found]):.1f} %" for key in ("accuracy", "unseen"))
        medians.append((name, len(found), *right))
        for j, i in PLACES:
            share, random, p, whole = (
                np.array([float(row[f"x_{j} v_{i} {key}"]) for row in found])
                for key in ("share", "random median", "p", "whole")
            )
            all_orders = p <= 1 / (1 + ORDERS) + 1e-12
            if i == 1:
                margins[name, j], above[name, j] = share - random, int(all_orders.sum())
            of_place = f"{np.median(share):.3f}", f"{np.median(random):.3f}"
            shown.append((name, f"x_{j} along v_{i}", *of_place, all_orders.sum(), (all_orders & (whole > 0)).sum()))
    assert {arm.steps for arm in task.arms.values()} <= {None, 0}, "arms have as many steps, or none"
    counted, one, tests = "seeds" if task.paired else "pairs", next(iter(task.arms)), []
    for other, j in itertools.product(task.others, (1, 2, 3)):
        first, second = margins.get((one, j)), margins.get((other, j))
        if first is not None and second is not None and len(first) == len(second):
            more, pairs, p = compared(first, second, task.paired)
            difference = newcombe(above[one, j], above[other, j], len(first))
            tests.append((f"{one} - {other}", j, f"{more:g} of {pairs}", f"{p:.2g}", *difference))
    return tables(
        ("arm | networks | accuracy | unseen", medians),
        ("arm | place | share | random | above all orders | whole group", shown),
        (f"compared along v_1 | j | {counted} with more | p | above all orders | 95 % interval", tests),
    )


def compared(first: Array, second: Array, paired: bool) -> tuple[float, int, float]:
    """Return in how many pairs the first is larger, ties counting half, of how many, and the one-sided p.

    Pairs are those of the same seed, with the p of a sign test; or all, with that of a test of rank sums.
    """
    if paired:
        n, more = len(first), int((first > second).sum())
        return more, n, float(binomtest(more, n, alternative="greater").pvalue)
    found = mannwhitneyu(first, second, alternative="greater", method="exact")
    return float(found.statistic), len(first) * len(second), float(found.pvalue)


def main(about: str, task_of: Callable[[int], Task], networks: int, steps: int) -> None:
    """Run the command line of a task that is made for a number of steps."""
    arms = list(task_of(1).arms)
    options = command_line(
        *(about, arms),
        networks=(networks, "of each arm [DEFAULT]"),
        steps=(steps, f"of training, {BATCH} samples each [DEFAULT]"),
    )
    task, file = task_of(options.steps), options.out / "networks.csv"

    def one(name: str, seed: int) -> list[Row]:
        rng = np.random.default_rng(seed if task.paired else [seed, arms.index(name)])
        weights = train(task, task.arms[name], rng)
        return [{"arm": name, "seed": seed, **dict(measure(task, weights, task.arms[name], rng))}]

    run(file, ("arm", "seed"), [(name, seed) for seed in range(options.networks) for name in options.arms], one)
    publish(options.out, f"{table(task, file)}\n{options.steps * BATCH:,} samples each, {options.steps} steps")
