"""Coefficients of `convolve`'s cost model, and where it chooses wrongly: `python -m benchmarks.convolve_costs`.

It times random convolutions, each together with its transpose as in training, by every choice of methods in alternating
rounds. It fits the model's coefficients, in seconds per unit, to these times. To judge the coefficients in use, run it
with a seed that they were not fitted to. The best choice and that of "auto" are then built anew and timed once more. It
prints how much longer "auto" takes, for what share of the problems it takes at most `CLOSE` times as long, and how long
at worst. More tables do the same for usual convolutions, and for awkward ones; these are never fitted. In the same
rounds run the plans that measurements find (`planning("measure")`), with the time that finding them took, and after how
many calls it is paid for.

With `--json` a run goes on where an earlier one ended. What a whole file says is judged by the model as it is now.
"""

from train.commands.process import prepare

prepare()  # before NumPy is loaded

import argparse
import json
import math
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import lsq_linear

from benchmarks.machine import describe_machine, seconds
from hcnn_core._engines import cost_model, planner
from hcnn_core._engines.choice import AtOnce, Choice
from hcnn_core._engines.devices import NUMPY, Request
from hcnn_core._engines.generic.block_plan import BlockPlan
from hcnn_core._problem import Problem, make_problem
from hcnn_core._tuning import DEFAULT, Costs, Units

ROUNDS = 5
MEASURED = "measured"
"""Name of the plan that measurements find, beside those of the choices."""

CLOSE = 1.15
"""A choice slower than the best one by up to this factor is as good: another run may reverse the two."""

FREEDOM = 16.0
"""A coefficient may grow or shrink by this factor at most, so that rarely used ones stay near their values."""

NEAR = 5.0
"""Choices slower than this many times the best are not fitted, since no model would choose them."""

MOST_SECONDS, MOST_UNITS = 0.3, 12
"""Estimated seconds that a problem may take; how many of its choices are timed."""

SHORT = 0.05
"""If a problem takes more than these estimated seconds, fewer of its choices are timed, in fewer rounds."""


@dataclass(frozen=True)
class Case:
    """A convolution: shapes, axes, boundary and new filters."""

    name: str
    shape: tuple[int, ...]
    axes: tuple[int, ...]
    kernel: tuple[int, ...]
    filters: int
    boundary: str
    sum_axes: tuple[int, ...] = ()
    stride: int | tuple[int, ...] = 1

    @property
    def w_shape(self) -> tuple[int, ...]:
        channels = tuple(self.shape[a] for a in self.sum_axes)
        return (*channels, *self.kernel, *([self.filters] if self.filters > 1 else []))

    @property
    def problem(self) -> Problem:
        return make_problem(
            self.shape, self.w_shape, self.axes,
            boundary=self.boundary, sum_axes=self.sum_axes, stride=self.stride, method="auto",
        )  # fmt: skip


CASES = [
    Case(*case, boundary=boundary)
    for case in (
        ("1 signal, 4096 x 9", (4096,), (0,), (9,), 1),
        ("1 signal, 100000 x 129", (100_000,), (0,), (129,), 1),
        ("64 signals, 512 x 33", (64, 512), (1,), (33,), 1),
        ("image 256 x 256, 3 x 3", (256, 256), (0, 1), (3, 3), 1),
        ("image 256 x 256, 15 x 15", (256, 256), (0, 1), (15, 15), 1),
        ("8 images, 3 x 3, 16 filters", (8, 64, 64), (1, 2), (3, 3), 16),
        ("volume 48^3, 5^3", (48, 48, 48), (0, 1, 2), (5, 5, 5), 1),
        ("4-D 16^4, 3^4", (16, 16, 16, 16), (0, 1, 2, 3), (3, 3, 3, 3), 1),
        ("layer, 8 images", (8, 32, 32, 8, 16), (1, 2, 3, 4), (3, 3, 7, 11), 16),
        ("attributes alone, 8 images", (8, 16, 16, 8, 16), (3, 4), (7, 11), 16),
    )
    for boundary in ("periodic", "zero")
]

AWKWARD = [
    Case(f"{shape} * {kernel}{f' -> {filters}' if filters > 1 else ''}", shape, axes, kernel, filters, *options)
    for shape, axes, kernel, filters, *options in (
        ((18, 4, 39, 15, 5), (1, 2, 3, 4), (7, 5, 3, 10), 16, "periodic", (), 2),
        ((71, 20, 12, 3), (0, 1, 2), (33, 3, 3), 32, "periodic", (3,), 1),
        ((4, 11, 1053), (1, 2), (11, 16), 32, "periodic", (), 2),
        ((19, 30, 9, 60), (0, 1, 2, 3), (5, 60, 3, 3), 1, "zero", (), 1),
        ((31, 1316, 15), (1, 2), (33, 30), 8, "periodic", (), 2),
        ((10, 46, 12, 9, 5), (0, 1, 2, 3, 4), (7, 5, 3, 5, 3), 1, "periodic", (), 2),
        ((8, 41, 5, 12, 4), (0, 1, 2, 3, 4), (3, 7, 5, 11, 3), 16, "periodic", (), 2),
        ((9, 86, 56), (0, 1, 2), (3, 65, 16), 16, "periodic", (), 2),
    )
]
"""Convolutions that took longer once compiled kernels had no DFT matrices (benchmarks/results/dft-matrices.txt): of
strides that do not divide a period, or of lengths with a long prime factor."""

PRIMES = (13, 17, 31, 47, 61, 127, 251, 509, 1021, 2039)


def draw(rng: np.random.Generator) -> Case:
    """A random convolution along one to five axes, of 2^9 to 2^22 samples; some lengths are prime, some strides odd."""
    count = int(rng.integers(1, 6))
    samples = 2 ** rng.uniform(9, 22)
    least = 8 if count < 4 else 4
    spare = samples / least**count
    shares = rng.dirichlet(np.ones(count + 1))
    lengths = tuple(int(least * max(1, spare) ** share) for share in shares[1:])
    lengths = tuple(max((p for p in PRIMES if p <= n), default=n) if rng.random() < 0.2 else n for n in lengths)
    kernel = tuple(
        int(k) for k in np.minimum(rng.choice([3, 3, 3, 5, 7, 11, 16, 33, 65], count), 2 * np.array(lengths))
    )
    batch = int(max(1, spare) ** shares[0])
    channels, filters = int(rng.choice([1, 1, 1, 4, 16, 64])), int(rng.choice([1, 1, 8, 16, 32, 64]))
    channels = min(channels, batch)
    batch //= channels
    of_channels, channels_last = (channels,) if channels > 1 else (), bool(rng.integers(2))
    before, after = ((), of_channels) if channels_last else (of_channels, ())
    shape = (*((batch,) if batch > 1 else ()), *before, *lengths, *after)
    first = int(batch > 1) + len(before)
    boundary = str(rng.choice(["periodic", "zero"]))
    name = f"{shape} * {kernel}{f' -> {filters}' if filters > 1 else ''}"
    return Case(
        name, shape, tuple(range(first, first + count)), kernel, filters, boundary,
        sum_axes=(len(shape) - 1 if channels_last else first - 1,) if channels > 1 else (),
        stride=tuple(map(int, rng.choice([1, 2, 3, 5, 7] if rng.random() < 0.25 else [1, 1, 1, 2], count))),
    )  # fmt: skip


def operands(problem: Problem, rng: np.random.Generator) -> list[Any]:
    """Random x, w and g."""
    return [rng.standard_normal(s, np.float32) for s in (problem.x_shape, problem.w_shape, problem.y_shape)]


def choices(problem: Problem) -> dict[str, Choice]:
    """Every choice by its name: d or f for each axis, or FFTs along all axes, at once or by blocks."""
    return {name_of(choice): choice for choice in NUMPY.choices(described(problem))}


def described(problem: Problem) -> Request:
    """The request to the planner for a problem, with real NumPy arrays in C order."""
    return planner.request_for(problem, np.empty(problem.x_shape, np.float32))


def name_of(choice: Choice) -> str:
    if isinstance(choice, AtOnce):
        return "blocks" if isinstance(choice.plan, BlockPlan) else "at once"
    return "".join(method[0] for method in choice.methods)


def estimate(choice: Choice) -> float:
    return cost_model.seconds(choice, DEFAULT.costs)


def timed(case: Case, arrays: Sequence[Any]) -> tuple[dict[str, list[float]], dict[str, list[float]], float]:
    """Seconds of each round, forward plus transpose, for the choices that the model does not find far too slow.

    One more name is that of the measured plan. Then the same of the fastest, the model's choice and the measured plan
    once more, and the seconds that measuring took, once all was compiled. The least of twelve medians is low by luck,
    so ratios are taken from the second times, of plans built anew.
    """
    problem, (x, w, g) = case.problem, arrays
    options = choices(problem)
    estimates = {name: estimate(choice) for name, choice in options.items()}
    least = min(estimates.values())
    near, rounds = (4 * NEAR, ROUNDS) if least < SHORT else (NEAR, ROUNDS // 2)
    names = sorted((n for n in estimates if estimates[n] < near * least), key=estimates.__getitem__)[:MOST_UNITS]
    chosen = name_of(planner.choose(described(problem)))
    names += [chosen] * (chosen not in names)

    def run(plan: Any) -> Callable[[], Any]:
        return lambda: (plan.forward(np, x, w), plan.adjoints(np, g, None, w))

    runs = {name: run(options[name].make()) for name in names}
    for function in runs.values():
        function()
    measured = replace(problem, method=("measure",) * len(problem.axes))
    runs[MEASURED] = run(planner.measured(described(measured)))
    planning = seconds(runs[MEASURED])
    first = in_turn(runs, rounds)
    least = medians({name: first[name] for name in names})
    best = min(least, key=least.__getitem__)
    anew = {name: run(options[name].make()) for name in sorted({best, chosen})} | {MEASURED: runs[MEASURED]}
    return first, in_turn(anew, 2 * rounds), planning


def in_turn(runs: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each call, in one round more than asked, in another order each."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for round_ in range(rounds + 1):
        for name in np.random.default_rng(round_).permutation(list(runs)).tolist():  # none always follows the slowest
            function = runs[name]
            repeats = 1 if not round_ else max(1, int(1e-3 / max(1e-6, times[name][0])))
            if repeats > 1:
                function()  # so that its arrays are in cache
            times[name].append(seconds(function, repeats))
            if not round_:  # the first call compiles; its time is not kept, but that of a second is
                times[name][0] = seconds(function)
    return times


def medians(rounds: dict[str, list[float]]) -> dict[str, float]:
    return {name: statistics.median(values) for name, values in rounds.items()}


def fitted(observations: Sequence[tuple[Units, float]]) -> dict[str, float]:
    """Coefficients with the least mean square of relative errors."""
    names = sorted(field.name for field in fields(Costs))
    in_use = np.array([getattr(DEFAULT.costs, name) for name in names])
    matrix = np.array([[units.get(name, 0) / seconds for name in names] for units, seconds in observations]) * in_use
    factors = lsq_linear(matrix, np.ones(len(matrix)), (1 / FREEDOM, FREEDOM)).x
    return dict(zip(names, map(float, factors * in_use), strict=True))


def compared(
    case: Case, first: dict[str, list[float]], again: dict[str, list[float]], planning: float
) -> dict[str, Any]:
    """The time of the model's choice, and of the measured plan, beside that of the choice that was best at first."""
    least, seconds = medians(first), medians(again)
    chosen, best = name_of(planner.choose(described(case.problem))), min(least.keys() - {MEASURED}, key=least.get)
    measured = seconds[MEASURED]
    gain = seconds[chosen] - measured
    return {
        "measured_ms": 1e3 * measured, "measured_regret": measured / seconds[best], "planning_ms": 1e3 * planning,
        "paid_after": math.ceil(planning / gain) if gain > 0 else None,
        "case": case.name, "boundary": case.boundary, "chosen": chosen, "best": best,
        "chosen_ms": 1e3 * seconds[chosen], "best_ms": 1e3 * seconds[best], "regret": seconds[chosen] / seconds[best],
        "seconds": first, "again": again,
    }  # fmt: skip


def print_table(rows: list[dict[str, Any]]) -> None:
    auto, measured = ("chosen", "ms", "best", "ms", "ratio"), ("measured", "ratio", "planning", "calls")
    widths = (8, 8, 9, 8, 6), (9, 6, 8, 6)
    titles = zip(auto + measured, widths[0] + widths[1], strict=True)
    print(f"\n{'case':50s} {'boundary':9s} " + " ".join(f"{title:>{width}}" for title, width in titles))
    for row in rows:
        print(
            f"{row['case']:50s} {row['boundary']:9s} {row['chosen']:>8s} {row['chosen_ms']:8.2f}  "
            f"{row['best']:>8s} {row['best_ms']:8.2f} {row['regret']:6.2f}  {row['measured_ms']:8.2f} "
            f"{row['measured_regret']:6.2f} {row['planning_ms']:8.0f} {row['paid_after'] or 'never':>6}"
        )


def summary(rows: list[dict[str, Any]]) -> str:
    """How the choices of "auto" compare with the best ones."""
    return _summary('"auto"', [row["regret"] for row in rows])


def _summary(name: str, ratios: list[float]) -> str:
    share = sum(ratio <= CLOSE for ratio in ratios) / len(ratios)
    return (
        f"{name} within {CLOSE} times of the best for {share:.1%} of {len(ratios)}; "
        f"median {statistics.median(ratios):.2f}, mean {statistics.mean(ratios):.2f}, largest {max(ratios):.2f}"
    )


def summary_of_measured(rows: list[dict[str, Any]]) -> str:
    """The same of measured plans, what they cost, and after how many calls they are paid for where they gain much."""
    planning = sorted(row["planning_ms"] for row in rows)
    paid = sorted(row["paid_after"] for row in rows if row["chosen_ms"] > CLOSE * row["measured_ms"])
    text = _summary("measured plans", [row["measured_regret"] for row in rows])
    text += f"; planning takes {statistics.median(planning):.0f} ms in the median, {planning[-1]:.0f} at most"
    if paid:
        text += (
            f"; {len(paid)} gain {CLOSE} times, paid for after {statistics.median(paid):.0f} calls, {paid[-1]} at most"
        )
    return text


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures to this file; time only what it has not")
    parser.add_argument("--problems", type=int, default=200, help="random convolutions to fit [200]")
    parser.add_argument("--seed", type=int, default=0, help="of those [0]")
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp()  # so that nothing is known
    machine = describe_machine()
    print(*(f"{key}: {value}" for key, value in machine.items()), sep="\n")
    print(f"{options.problems} problems of seed {options.seed}\n")
    path, cases = options.json, {"random": list[Case](), "usual": CASES, "awkward": AWKWARD}
    record: dict[str, Any] = {**machine, "seed": options.seed, **{name: [] for name in cases}}
    if path and path.exists():
        before = json.loads(path.read_text())
        if (before["seed"], before["processor"]) != (options.seed, machine["processor"]):
            raise SystemExit(f"{path} is of seed {before['seed']} and {before['processor']}: name another file")
        record |= {name: before[name] for name in cases}
        record["random"] = record["random"][: options.problems]

    def time_unless_known(name: str, number: int, case: Case) -> None:
        arrays, rows = operands(case.problem, rng), record[name]
        known = rows[number] if number < len(rows) else {"case": "", "boundary": "", "again": {}}
        is_other = (known["case"], known["boundary"]) != (case.name, case.boundary)
        if is_other or name_of(planner.choose(described(case.problem))) not in known["again"]:
            rows[number:] = [compared(case, *timed(case, arrays)), *rows[number + 1 :]]
            print(f"\r{name} {number + 1}", end="", file=sys.stderr, flush=True)
            if path:
                path.write_text(json.dumps(record, indent=1) + "\n")

    while len(cases["random"]) < options.problems:
        case = draw(rng)
        promised = min(map(estimate, choices(case.problem).values()))
        if promised <= MOST_SECONDS and math.prod(case.problem.y_shape) <= 1 << 24:
            cases["random"].append(case)
            time_unless_known("random", len(cases["random"]) - 1, case)
    for name in ("usual", "awkward"):
        for number, case in enumerate(cases[name]):
            time_unless_known(name, number, case)
    for name in cases:
        known = zip(cases[name], record[name], strict=True)
        record[name] = [compared(case, row["seconds"], row["again"], row["planning_ms"] / 1e3) for case, row in known]
    observations = []
    for case, row in zip(cases["random"], record["random"], strict=True):
        choices_of, seconds = choices(case.problem), medians(row["seconds"])
        best = min(seconds.values())
        observations += [
            (cost_model.units_of(choices_of[n]), s) for n, s in seconds.items() if n != MEASURED and s < NEAR * best
        ]
    coefficients = fitted(observations)
    for name, value in coefficients.items():
        print(f"{name} = {value:.2g}  # in use: {getattr(DEFAULT.costs, name):.2g}")
    prices = [sum(getattr(DEFAULT.costs, name) * n for name, n in units.items()) for units, _ in observations]
    errors = [math.log2(price / seconds) for price, (_, seconds) in zip(prices, observations, strict=True)]
    print(f"estimates with what is in use: off by 2^{statistics.mean(map(abs, errors)):.2f} in the mean")
    for name in cases:
        rows = record[name]
        print(f"\n{name} convolutions: {summary(rows)}" + (". The worst:" if name == "random" else ""))
        print(summary_of_measured(rows))
        print_table(sorted(rows, key=lambda row: -row["regret"])[:10] if name == "random" else rows)
    if path:
        path.write_text(json.dumps({**record, "coefficients": coefficients}, indent=1) + "\n")


if __name__ == "__main__":
    main()
