"""What is lost without each way to compute: `python -m benchmarks.ways --steps hcnn resnet20`.

Each network's training step is timed as it is, and again without one way after the other, on one thread and by the
time of the processor, so that other programs disturb little. `--logits` times predictions of 100 images, and
`--problems` as many random convolutions of `benchmarks.convolve_costs`, with both transposes: there the best choice of
methods that is left counts, beside the best of all. A loss of 1 is none; some hundredths are noise.
"""

from train.commands.process import prepare

prepare()  # before NumPy is loaded

import argparse
import contextlib
import itertools
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from benchmarks import convolve_costs, inference
from benchmarks.machine import describe_machine
from benchmarks.step import Step
from hcnn_core._engines import devices, planner
from hcnn_core._engines.choice import AtOnce
from hcnn_core._engines.cpu import direct, plan, spectral_plan, winograd
from hcnn_core._engines.generic import block_plan, fft_plan

BY_AXIS, NATIVE = devices.NUMPY.by_axis, devices.Device.native
TRANSFORM: Any = devices.choose_transform.__wrapped__


def _without_codelets(*axes: Any, straight_line: bool = False, **options: Any) -> Any:
    return TRANSFORM(*axes, **options)


def _of_four_products(*axes: Any, three_products: bool = False, **options: Any) -> Any:
    return TRANSFORM(*axes, **options)


def _by_axis(choose: Callable[..., Any]) -> Any:
    return mock.patch.dict(devices.NUMPY.__dict__, {"by_axis": choose})


def _without_spectral(methods: Any, request: Any) -> Any:
    choice = BY_AXIS(methods, request)
    return replace(choice, engine=plan.CpuPlan) if choice.engine is spectral_plan.SpectralPlan else choice


def _without_direct(methods: Any, request: Any) -> Any:
    return (BY_AXIS if "fft" in methods else devices._library_by_axis)(methods, request)


def _without(module: str) -> Any:
    return mock.patch.object(
        devices.Device, "native", lambda self, name, *of: None if name == module else NATIVE(self, name, *of)
    )


WAYS: dict[str, Callable[[], Any]] = {
    "tiles": lambda: mock.patch.object(winograd.WinogradProducts, "supports", lambda *_: False),
    "codelets": lambda: mock.patch.object(devices, "choose_transform", _without_codelets),
    "three products": lambda: mock.patch.object(devices, "choose_transform", _of_four_products),
    "spectral plan": lambda: _by_axis(_without_spectral),
    "direct kernels": lambda: _by_axis(_without_direct),
    "merged lines": lambda: mock.patch.object(direct, "is_merged", lambda taps: False),
    "lines of one row": lambda: mock.patch.object(direct, "_neighbour_table", lambda *_: None),
    "transposes": lambda: mock.patch.object(plan, "contiguous", np.ascontiguousarray),
    "FFT at once": lambda: mock.patch.object(fft_plan.FFTPlan, "supports", False),
    "blocks": lambda: mock.patch.object(block_plan.BlockPlan, "supports", False),
    **{name: lambda name=name: _without(name) for name in ("patches", "normalization", "elementwise", "factored")},  # type: ignore[misc]
}


@contextlib.contextmanager
def without(way: str) -> Iterator[None]:
    """Take a way away, and forget all plans."""
    caches = (
        planner._plan_of, planner._plan_for, devices.choose_transform, devices.factored_plan, direct.taps_of_x,
        direct._taps_of_g,
    )  # fmt: skip
    with WAYS[way]() if way else contextlib.nullcontext():
        for cached in caches:
            getattr(cached, "cache_clear", lambda: None)()
        yield


def seconds(run: Callable[[], Any], rounds: int = 3) -> float:
    """Least processor time of a call, after one that is not counted; of several in a row where it is short."""
    run()
    least = math.inf
    for _ in range(rounds):
        began, calls = time.process_time(), 0
        while not calls or time.process_time() - began < 0.003:
            run()
            calls += 1
        least = min(least, (time.process_time() - began) / calls)
    return least


def losses(run_of: Callable[[], Callable[[], Any]], ways: list[str], rounds: int) -> tuple[float, dict[str, float]]:
    """Milliseconds, and the time without each way over that."""
    least = dict.fromkeys(["", *ways], math.inf)
    for _, way in itertools.product(range(rounds), least):
        with without(way):
            least[way] = min(least[way], seconds(run_of()))
    whole = least.pop("")
    return 1e3 * whole, {way: taken / whole for way, taken in least.items()}


def logits(name: str) -> Callable[[], Any]:
    """Return the call that predicts 100 images."""
    one, rng = inference.network(name), np.random.default_rng(0)
    drawn = rng.random((100, *one.checkpoint.image_shape), np.float32)
    x = (255 * drawn).astype(np.uint8) if one.checkpoint.values == "uint8" else drawn
    return lambda: one.logits(x)


def best(problem: Any, operands: tuple[Any, ...], near: float = 3.0) -> float:
    """Least processor time of the choices that do not promise to be far slower than the best."""
    x, w, g = operands
    found = devices.NUMPY.choices(convolve_costs.described(problem))
    found = [c for c in found if not isinstance(c, AtOnce) or c.plan.supports]
    prices = [convolve_costs.estimate(choice) for choice in found]
    plans = [choice.make() for choice, price in zip(found, prices, strict=True) if price <= near * min(prices)]
    return min(seconds(lambda of=of: (of.forward(np, x, w), of.adjoints(np, g, None, w))) for of in plans[:8])


def of_problem(case: convolve_costs.Case, ways: list[str]) -> tuple[float, dict[str, float]]:
    """`losses` of a convolution."""
    rng, problem = np.random.default_rng(0), case.problem
    operands = tuple(rng.standard_normal(s, np.float32) for s in (problem.x_shape, problem.w_shape, problem.y_shape))
    least = {}
    for way in ("", *ways):
        with without(way):
            least[way] = best(problem, operands)
    whole = min(least.values())
    return 1e3 * whole, {way: least[way] / min(whole, least[""]) for way in ways}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", nargs="*", default=[], help="presets")
    parser.add_argument("--logits", nargs="*", default=[], help="networks that ship, signal, and volume")
    parser.add_argument("--problems", type=int, default=0, help="random convolutions, after the usual ones")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--images", type=int, default=16, help="in a step's batch")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    o = parser.parse_args()
    machine, rows = describe_machine(), []
    print(*(f"{key}: {value}" for key, value in machine.items()), sep="\n")

    def note(name: str, found: tuple[float, dict[str, float]]) -> None:
        rows.append({"case": name, "ms": found[0], "loss": found[1]})
        print(f"{name:50} {found[0]:9.2f} ms ", *(f"{w} {x:.2f} " for w, x in found[1].items() if x > 1.04), flush=True)

    for name in o.steps:
        step = Step(name, None, o.images)
        note(f"a step of {name}", losses(lambda step=step: step, o.ways, o.rounds))  # type: ignore[misc]
    for name in o.logits:
        note(f"logits of {name}", losses(lambda of=name: logits(of), o.ways, o.rounds))  # type: ignore[misc]
    rng, cases = np.random.default_rng(11), list(convolve_costs.CASES) if o.problems else []
    while len(cases) < o.problems:
        case = convolve_costs.draw(rng)
        price = min(map(convolve_costs.estimate, convolve_costs.choices(case.problem).values()))
        cases += [case] * (price <= convolve_costs.SHORT and math.prod(case.problem.y_shape) <= 1 << 24)
    for case in cases[: o.problems]:
        note(f"{case.name} {case.boundary}", of_problem(case, o.ways))
    if o.json:
        o.json.write_text(json.dumps({**machine, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
