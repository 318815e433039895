"""How `auto` chooses for convolutions on a card: `python -m benchmarks.gpu.choices FOLDER`, in less than three minutes.

Every way to compute each of `MEASURED` and `PROBLEMS` is timed between device events, forward or with both gradients.
The table has what costs say, what the card takes, and how far the choice is from the fastest way. A call goes on after
the rows of the one before, and leaves out ways that would take too long by the costs.
"""

from train.commands.process import prepare

prepare()  # before NumPy is loaded, as the command line of training does

import itertools
import math
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu.stages import Table, seconds, usable_cupy
from hcnn_core._engines import cost_model, planner
from hcnn_core._engines.choice import AtOnce, Choice
from hcnn_core._engines.devices import CUPY
from hcnn_core._problem import Problem, make_problem
from hcnn_core._tuning import current
from hcnn_core.precisions import precision

SECONDS = 170
"""For all problems together."""

SLOWEST = 20
"""Ways that take so many times the least time by the costs are left out."""

HOST = 0.62e-3
"""Seconds in which the host launches a convolution and both transposes, which costs leave out."""

MAPS = 3
"""Costs are those of a convolution and both transposes."""


@dataclass(frozen=True)
class Case:
    """A convolution, whether it is timed with both gradients, and what it took on an H200 at commit 30f3344, in ms."""

    name: str
    x: tuple[int, ...]
    w: tuple[int, ...]
    axes: tuple[int, ...]
    options: dict[str, Any] = field(default_factory=dict)
    gradients: bool = False
    methods: str = ""
    """The way that was measured: the methods of the axes, by engines that make axis by axis."""
    ms: float = math.nan
    best: float = math.nan
    """The best of cupyx and PyTorch in float32 beside it."""
    products: str = "float32"
    """The precision in force."""

    def problem(self) -> Problem:
        return make_problem(self.x, self.w, self.axes, **self.options)


ZERO, AROUND = {"boundary": "zero"}, {"boundary": "periodic"}
PLANE, VOLUME = (4096, 4096), (256, 256, 256)
LAYER = (100, 32, 32, 8, 16), (3, 3, 7, 11, 16), (1, 2, 3, 4), {"stride": (1, 1, 2, 2)}

MEASURED = (
    Case("lines by 31", PLANE, (31,), (1,), ZERO, False, "d", 0.548, 0.372),
    Case("lines by 1001", PLANE, (1001,), (1,), AROUND, False, "f", 0.950, 0.281),
    Case("plane by 5", PLANE, (5, 5), (0, 1), ZERO, False, "dd", 0.522, 0.364),
    Case("plane by 25", PLANE, (25, 25), (0, 1), ZERO, False, "dd", 6.27, 1.22),
    Case("volume by 3", VOLUME, (3, 3, 3), (0, 1, 2), AROUND, False, "ddd", 0.585, 0.624),
    Case("volume by 9", VOLUME, (9, 9, 9), (0, 1, 2), AROUND, False, "ffd", 66.4, 1.28),
    Case("16 channels", (128, 32, 32, 16), (16, 3, 3, 16), (1, 2), {**ZERO, "sum_axes": 3}, True, "dd", 0.794, 0.423),
    Case("64 channels", (128, 32, 32, 64), (64, 3, 3, 64), (1, 2), {**ZERO, "sum_axes": 3}, True, "dd", 1.95, 1.31),
    Case("128 channels", (32, 64, 64, 128), (128, 3, 3, 128), (1, 2), {**ZERO, "sum_axes": 3}, True, "dd", 6.36, 2.53),
    Case(
        "four axes", (1, 16, 24, 24, 24, 24), (16, 3, 3, 3, 3, 16), (2, 3, 4, 5), {**ZERO, "sum_axes": 1},
        True, "dffd", 2.05, 7.49,
    ),
    Case(
        "a light field", (2, 8, 9, 9, 64, 64), (8, 3, 3, 3, 3, 8), (2, 3, 4, 5), {**ZERO, "sum_axes": 1},
        True, "ffdd", 1.17, 9.12,
    ),
    Case("a layer", *LAYER[:3], {**LAYER[3], **ZERO}, True, "ddff", 5.23, 8.40),
    Case("a layer, periodic", *LAYER[:3], {**LAYER[3], **AROUND}, True, "ddff", 3.41, 8.40),
)  # fmt: skip
"""benchmarks/results/gpu-h200/peers.md"""

PROBLEMS = (
    *(Case(f"lines by {n}", (1024, 16384), (n,), (1,), ZERO) for n in (3, 9, 65, 129, 513, 4097)),
    *(
        Case(
            f"a layer{where}, tf32",
            (100, n, n, 8, 16),
            *LAYER[1:3],
            {**LAYER[3], **more},
            True,
            products="tf32",
        )
        for n, where, more in (
            (32, "", ZERO),
            (32, ", periodic", AROUND),
            (32, ", subsampled", {**ZERO, "stride": 2}),
            (16, " at 16", ZERO),
            (8, " at 8", ZERO),
        )
    ),
    *(
        Case(f"{n} channels, tf32", *layer, {**ZERO, "sum_axes": 3}, True, products="tf32")
        for n, layer in (
            (16, ((128, 32, 32, 16), (16, 3, 3, 16), (1, 2))),
            (64, ((128, 32, 32, 64), (64, 3, 3, 64), (1, 2))),
        )
    ),
    *(Case(f"columns by {n}", PLANE, (n,), (0,), AROUND) for n in (5, 33, 257)),
    *(Case(f"one line by {n}", (1 << 22,), (n,), (0,), ZERO) for n in (7, 101, 10001)),
    *(Case(f"plane by {n}", PLANE, (n, n), (0, 1), AROUND) for n in (3, 9, 15, 51)),
    *(Case(f"small planes by {n}", (512, 64, 64), (n, n), (1, 2), ZERO) for n in (3, 7, 21)),
    Case("plane by 7 x 31", PLANE, (7, 31), (0, 1), ZERO),
    Case("plane of 4099", (4099, 4099), (25, 25), (0, 1), AROUND),
    *(Case(f"volume by {n}", VOLUME, (n, n, n), (0, 1, 2), ZERO) for n in (5, 7, 17)),
    Case("volume by lines", VOLUME, (1, 1, 33), (0, 1, 2), ZERO),
    *(Case(f"strides of {r}", PLANE, (9, 9), (0, 1), {**ZERO, "stride": r}) for r in (2, 4)),
    Case("lines with strides", (1024, 16384), (257,), (1,), {**ZERO, "stride": 16}),
    *(Case(f"four axes by {n}", (32,) * 4, (n,) * 4, (0, 1, 2, 3), AROUND) for n in (3, 7)),
    Case("five axes", (16,) * 5, (3,) * 5, (0, 1, 2, 3, 4), ZERO),
    Case("six axes", (8,) * 6, (3,) * 6, (0, 1, 2, 3, 4, 5), ZERO),
    *(Case(f"plane by {n}, with gradients", PLANE, (n, n), (0, 1), ZERO, True) for n in (3, 11, 33)),
    *(Case(f"lines by {n}, with gradients", PLANE, (n,), (1,), AROUND, True) for n in (15, 301)),
    *(Case(f"{k} filters", (64, 64, 64), (5, 5, k), (1, 2), ZERO, True) for k in (2, 8, 64)),
    Case("a long axis of channels", (32, 4096, 16), (16, 65, 16), (1,), {**ZERO, "sum_axes": 2}, True),
    Case("a layer at 16", (100, 16, 16, 8, 16), *LAYER[1:3], {**LAYER[3], **ZERO}, True),
    Case("a layer at 8", (100, 8, 8, 8, 16), *LAYER[1:3], {**LAYER[3], **ZERO}, True),
)


class Signal:
    """What the planner asks of an array of CuPy's: its dtype, shape and strides. It needs no memory."""

    __module__, dtype = "cupy", np.dtype("float32")

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape, self.strides = shape, tuple(4 * math.prod(shape[d + 1 :]) for d in range(len(shape)))


def choices_of(problem: Problem, products: str = "float32") -> tuple[list[Choice], Choice]:
    """Every way of a problem, and the one that is chosen."""
    like: Any = Signal(problem.x_shape)
    with precision(products):
        request = planner.request_for(problem, like)
        return CUPY.choices(request), planner.choose(request)


def name_of(choice: Choice) -> str:
    """The methods of the axes, and what computes them."""
    methods = "".join(method[0] for method in choice.methods)
    return f"{methods} by {type(choice.plan).__name__ if isinstance(choice, AtOnce) else choice.engine.__name__}"


def expected(choice: Choice, *, gradients: bool, products: str = "float32") -> float:
    """Seconds by the costs, the host's included."""
    maps = MAPS if gradients else 1
    with precision(products):
        limits = CUPY.tensor_cores("float32")
    return maps / MAPS * (HOST + cost_model.seconds(choice, current().other_costs, limits))


def timed(cupy: Any, case: Case, choice: Choice) -> float:
    """Median seconds of a way, forward or with both gradients, warmed up."""
    plan, problem = choice.make(), case.problem()
    rng = cupy.random.default_rng(0)
    x, w = (rng.standard_normal(shape, dtype=cupy.float32) for shape in (problem.x_shape, problem.w_shape))

    def take() -> None:
        y = plan.forward(cupy, x, w)
        if case.gradients:
            plan.adjoints(cupy, y, x, w)

    with precision(case.products):
        take()
        once = seconds(cupy, take)
        return statistics.median(seconds(cupy, take) for _ in range(5 if once < 0.02 else 1))


def main() -> None:
    """Time all ways of all problems, as far as the time goes."""
    begun, out = time.monotonic(), Path(sys.argv[1])
    cupy = usable_cupy()
    out.mkdir(parents=True, exist_ok=True)
    table = Table(out, "choices", ["convolution", "way", "ms by the costs", "ms", "chosen"])
    for case in itertools.chain(MEASURED, PROBLEMS):
        ways, chosen = choices_of(case.problem(), case.products)
        named = {name_of(way): way for way in ways}
        by_costs = {n: expected(way, gradients=case.gradients, products=case.products) for n, way in named.items()}
        for name in sorted(by_costs, key=by_costs.__getitem__):
            way = named[name]
            if not table.lacks(case.name, name) or by_costs[name] > SLOWEST * min(by_costs.values()):
                continue
            if time.monotonic() - begun > SECONDS:
                raise SystemExit(f"no time left; call again to go on after {len(table) - 1} rows")
            try:
                found: Any = 1e3 * timed(cupy, case, way)
            except Exception as error:
                found = f"{type(error).__name__}: {error}".partition("\n")[0][:90]
            mark = "chosen" if name == name_of(chosen) else ""
            table.add([case.name, name, 1e3 * by_costs[name], found, mark])
            cupy.get_default_memory_pool().free_all_blocks()
    print("\n".join(summary(table[1:])))


def summary(rows: list[list[Any]]) -> list[str]:
    """Of each convolution: the way that was chosen, the fastest, and how far they are apart."""
    lines = ["| convolution | chosen | ms | fastest | ms | times |", "| --- | --- | --- | --- | --- | --- |"]
    for name, group in itertools.groupby(rows, key=lambda row: row[0]):
        done = {row[1]: (row[3], row[4]) for row in group if isinstance(row[3], float)}
        chosen = next((way for way, (_, mark) in done.items() if mark), None)
        if chosen is None:
            lines.append(f"| {name} | not measured | | | | |")
            continue
        fastest = min(done, key=lambda way: done[way][0])
        ms, least = done[chosen][0], done[fastest][0]
        lines.append(f"| {name} | {chosen} | {ms:.3f} | {fastest} | {least:.3f} | {ms / least:.2f} |")
    return lines


if __name__ == "__main__":
    main()
