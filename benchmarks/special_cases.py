"""Measure what each special case of the engine for processors buys: calls with it and without it, in turn.

A case pays if a step of the network, or a row of the table of `convolve`, takes 3 % longer without it. What does not
pay should go. Each row's ratio is the time without over the time with, the median of neighbouring calls.
"""

from __future__ import annotations

from train.commands.process import prepare

if __name__ == "__main__":  # before NumPy is imported
    prepare()

import argparse
import contextlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.machine import describe_machine
from benchmarks.versions import layers_and_steps
from hcnn_core._engines.cpu import direct
from hcnn_core._engines.cpu.winograd import WinogradProducts
from hcnn_core._tuning import current, tuned

NEVER = 1 << 60


@contextlib.contextmanager
def without_winograd() -> Iterator[None]:
    with mock.patch.object(WinogradProducts, "suits", return_value=False), tuned():
        yield


@contextlib.contextmanager
def without_neighbours() -> Iterator[None]:
    caches = direct.taps_of_x, direct._taps_of_g
    for cached in caches:
        cached.cache_clear()
    with mock.patch.object(direct, "_neighbour_table", return_value=None), tuned():
        yield
    for cached in caches:
        cached.cache_clear()


CASES: dict[str, tuple[Callable[[], Any], tuple[str, ...]]] = {
    "F(4, 3)": (without_winograd, ("step of hcnn,", "kernel 3^2, 16 -> 32", "kernel 3^3, 8 -> 16")),
    "neighbouring lines of one filter": (
        without_neighbours,
        ("image 512^2, kernel 3^2", "image 256^2", "volume 64^3, kernel 3^3", "array 8^5, kernel 3^5, zero"),
    ),
    "one FFT along all axes": (
        lambda: tuned(costs=replace(current().costs, call=1.0)),
        ("signal 512, kernel 9", "kernel 65^2", "kernel 9^3", "kernel 6^4"),
    ),
    "transposes in tiles": (lambda: tuned(transpose_elements=NEVER), ("step of hcnn,", "32x32x8x16")),
    "cotangents in blocks": (lambda: tuned(cotangent_elements=NEVER), ("step of hcnn,",)),
}
"""How each is left out, and the rows it might matter to."""


def measure(case: str, rounds: int) -> Iterator[tuple[str, float, float]]:
    """Row, ratio, and the ratio's noise: half the distance of its quartiles over the root of their number."""
    left_out, rows = CASES[case]
    for row, make in layers_and_steps():
        if not any(text in row for text in rows):
            continue
        call = make()

        def once(call: Callable[[], Any] = call) -> float:
            started = time.perf_counter()
            call()
            return time.perf_counter() - started

        def warm(once: Callable[[], float] = once) -> float:
            once()  # makes plans and tables
            return once()

        def without(warm: Callable[[], float] = warm) -> float:
            with left_out():
                return warm()

        warm(), without()
        ratios = []
        for turn in range(rounds):
            pair = (warm(), without()) if turn % 2 else (without(), warm())[::-1]
            ratios.append(pair[1] / pair[0])
        low, _, high = statistics.quantiles(ratios, n=4)
        yield row, statistics.median(ratios), (high - low) / 2 / rounds**0.5


def main() -> int:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.special_cases", description=__doc__.splitlines()[0], allow_abbrev=False
    )
    parser.add_argument("--rounds", type=int, default=15, help="pairs of calls a row (15)")
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), metavar="CASE")
    parser.add_argument("--out", type=Path, metavar="TXT", help="write the text here too")
    options = parser.parse_args()
    lines = [f"{key}: {value}" for key, value in describe_machine().items()]
    lines += ["", "without/with   noise   case; row"]
    print(*lines, sep="\n", flush=True)
    for case in options.only:
        for row, ratio, noise in measure(case, options.rounds):
            lines.append(f"{ratio:12.3f} {noise:7.3f}   {case}; {row}")
            print(lines[-1], flush=True)
    if options.out:
        options.out.write_text("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
