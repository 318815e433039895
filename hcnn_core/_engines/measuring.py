"""Plans by measurement: the ways to compute a convolution are run on the arrays of a call, and the fastest is kept."""

from __future__ import annotations

import math
import statistics
import threading
import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial
from operator import methodcaller
from typing import Any

import numpy as np

from hcnn_core._engines import wisdom
from hcnn_core._engines.choice import Choice
from hcnn_core._engines.devices import Device
from hcnn_core._threads import threads_for, worker_count
from hcnn_core._tuning import ChoiceFile
from hcnn_core.backend import card_of, dtype_name, is_recording

CANDIDATE_FACTOR = 8.0
"""Choices estimated to be slower than the best by more than this factor are not tried."""

CALL = 2e-5
"""Least seconds of a call; the model of a GPU leaves this overhead out."""

SECONDS = 1.0
"""About how long a problem may be measured, apart from compiling."""

SAMPLE = 2e-4
"""Seconds of a run of calls that is timed as one, where a call takes less."""

ROUND_FACTORS = (2.0, 1.5, 1.3, 1.2, 1.15, 1.1, 1.1, 1.1, 1.1)
"""For each round: a choice slower than the fastest by this factor is dropped. The estimate stays unless it is slower
than another choice by the last factor."""

PAIRS = 3, 40
"""Fewest and most alternating runs of a choice and the estimate, until one is surely faster."""

QUANTILE = 0.995
"""One is surely faster once Student's interval of the mean ratio, with this quantile on each side, excludes one."""

_one_by_one = threading.RLock()
"""Measurements run one by one, since they would disturb each other."""


def _method(name: str) -> Any:
    """Return a plan's method of this name."""

    def method(self: Measured, xp: Any, *operands: Any) -> Any:
        call = methodcaller(name, xp, *operands)
        return call(self.fastest(xp, name, operands, call))

    return method


class Measured:
    """The plan of a problem that is measured: for its result and its cotangents, when they are first asked for.

    `choices` are by name, the one of the estimate first; `estimated` is taken where nothing can be measured. A
    `file` keeps the choice, besides the user's cache folder, and decides.
    """

    def __init__(
        self, choices: Mapping[str, Choice], estimated: str, text: str, device: Device, file: ChoiceFile | None = None
    ) -> None:
        self.choices, self.estimated, self.text, self.device = choices, estimated, text, device
        self.file = file
        self._plans: dict[tuple[Any, ...], Any] = {}

    forward, forward_and_marginal, adjoints = map(_method, ("forward", "forward_and_marginal", "adjoints"))

    def fastest(self, xp: Any, name: str, operands: tuple[Any, ...], run: Callable[[Any], object]) -> Any:
        """Return the fastest plan for `run`, a call of a method on arrays that lie in memory as `operands` do."""
        device = None if xp is np else str(operands[0].device)
        key = name, device, operands[0].dtype, *[getattr(a, "strides", a) for a in operands]
        if key not in self._plans:
            with _one_by_one:
                if key not in self._plans:
                    self._plans[key] = self.choices[self._find(xp, name, operands, run)].make()
        return self._plans[key]

    def _find(self, xp: Any, name: str, operands: tuple[Any, ...], run: Callable[[Any], object]) -> str:
        """Return the name of the fastest choice: the known one, or else the one measured now."""
        like, second, third, last, *_ = (*operands, None, None)
        if name == "adjoints":
            asked, elu = "dx" * (third is not None) + "dw" * (second is not None), last
        else:
            asked, elu = "y" if last is None else f"y+marginal{last}", third
        asked, memory = asked + "+elu" * (elu is not None), memory_of(operands)
        machine = wisdom.machine_of(self.device.may_measure, card_of(xp))
        problem = f"{asked} {words_of(self.device, dtype_name(like.dtype))}{memory} {self.text}"
        if known := next(filter(self.choices.__contains__, wisdom.recall(machine, problem, self.file)), ""):
            return known
        if threads_for() < worker_count() or is_recording(xp):
            return self.estimated
        plan_of, held = cache(lambda name: self.choices[name].make()), dict[str, object]()
        # a result is held until the next one is made, as callers do, so that it does not take the same memory
        runs = {name: partial(lambda name: held.update(last=run(plan_of(name))), name) for name in self.choices}
        try:
            times = race(runs, partial(self.device.clock, xp))
        except MemoryError:
            warnings.warn(f"too little memory to measure {problem}: its estimates decide", RuntimeWarning, stacklevel=2)
            if self.file is None:
                return self.estimated
            times = {self.estimated: math.inf}  # so that where more is free, bits repeat
        order = wisdom.keep(machine, problem, times, self.file)  # the fastest first
        return next(filter(self.choices.__contains__, order), min(times, key=times.__getitem__))


def memory_of(operands: Iterable[Any]) -> str:
    """Return the axes of arrays, those of the longest strides first, where an array does not lie in C order."""
    arrays = [a for a in operands if hasattr(a, "flags")]
    if all(a.flags.c_contiguous for a in arrays):
        return ""
    orders = [np.argsort([-abs(s) for s in a.strides], kind="stable").tolist() for a in arrays]
    return f" with axes {' '.join(map(str, orders))},"


def words_of(device: Device, dtype: str) -> str:
    """Return a dtype, and how a GPU multiplies."""
    return f"{dtype} by products of tf32" if device.tensor_cores(dtype) else dtype


def race(runs: Mapping[str, Callable[[], object]], clock: Callable[[Callable[[], object], int], float]) -> wisdom.Times:
    """Return the least seconds of a call of each choice. Each round drops those that are clearly slower.

    The first call of each is not counted, since it may compile. Even if calls are slow, at least two choices are tried.
    The first is the estimate. A choice that is not surely faster, by the last of `ROUND_FACTORS`, is left out.
    """
    best: wisdom.Times = {}
    spent = 0.0
    for name, run in runs.items():
        if len(best) > 1 and spent > SECONDS:
            break
        run()
        seconds = clock(run, 1)
        best[name] = min(seconds, clock(run, int(SAMPLE / seconds))) if seconds < SAMPLE / 2 else seconds
        spent += 2 * seconds
    for lead in ROUND_FACTORS:
        limit = lead * min(best.values())
        near = [name for name, seconds in best.items() if seconds <= limit]
        if len(near) == 1 or spent > SECONDS:
            break
        for name in near:
            repeats = max(1, int(SAMPLE / best[name]))
            seconds = clock(runs[name], repeats)
            best[name] = min(best[name], seconds)
            spent += repeats * seconds
    estimated = next(iter(runs))
    for name in sorted(best, key=best.__getitem__):
        if name == estimated or _is_faster(runs[name], runs[estimated], best[estimated], clock):
            break
        del best[name]
    return best


def _is_faster(run: Callable[[], object], estimate: Callable[[], object], seconds: float, clock: Any) -> bool:
    """Whether a call is surely faster than the estimate's, by the last of `ROUND_FACTORS`; both run in turn.

    The estimate's takes about `seconds`.
    """
    from scipy.special import stdtrit

    repeats = max(1, int(SAMPLE / seconds))
    ratios: list[float] = []
    spent = 0.0
    while len(ratios) < PAIRS[0] or (len(ratios) < PAIRS[1] and spent < SECONDS):
        pair = clock(run, repeats), clock(estimate, repeats)
        spent += repeats * sum(pair)
        ratios.append(math.log(pair[0] / pair[1]))
        if (count := len(ratios)) >= PAIRS[0]:
            mean, error = statistics.fmean(ratios), statistics.stdev(ratios) / math.sqrt(count)
            if abs(mean) > stdtrit(count - 1, QUANTILE) * error:
                return mean < -math.log(ROUND_FACTORS[-1])
    return False
