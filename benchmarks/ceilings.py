"""The highest rates that NumPy code reaches on this machine: `python -m benchmarks.ceilings`.

It times matrix products, copies, sums and the first touch of memory, on one thread and, where there are two processors,
on two. As in `hcnn_core`, each thread computes its part of the result, and BLAS uses no threads of its own. Rounds
alternate between all measurements, and medians are reported. Bytes are those that the code reads plus those it writes.
A processor may fetch a cache line before it writes to it; such reads are not counted. `measure()` returns the medians.
"""

from train.commands.process import prepare

prepare()  # before NumPy is loaded: one BLAS thread

import argparse
import json
import math
import mmap
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import describe_machine
from hcnn_core._threads import processors

SQUARE = 2048
SKINNY = (32, 72, 51_200)
"""Rows, terms and columns: 32 filters of 3 x 3 taps in 8 channels, at 50 images of 32 x 32 pixels."""

LARGE = 1 << 28
"""Bytes of an array that no cache holds."""

SMALL = 1 << 18
"""Bytes of an array of which two fit in a core's second cache."""

REPEATS = 1000
"""Copies in cache that are timed together."""

FRESH = 1 << 26
"""Bytes of new memory that is touched."""

ROUNDS = 7

UNITS = {"gflops": "GFLOP/s", "gbs": "GB/s", "ns": "ns per page"}

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Ceiling:
    """One measurement: `work(begin, end)` does the part from begin to end, of 0 .. 1, of `amount` units."""

    key: str
    text: str
    amount: float
    work: Callable[[float, float], object]
    most_threads: int = 2


def matrix_product(key: str, dtype: type, rows: int, terms: int, columns: int) -> Ceiling:
    """A product whose columns are shared among threads."""
    rng = np.random.default_rng(0)
    operands: list[Array] = [rng.standard_normal(shape).astype(dtype) for shape in ((rows, terms), (terms, columns))]
    out: Array = np.zeros((rows, columns), dtype)
    a, b = operands

    def work(begin: float, end: float) -> Array:
        part = slice(round(begin * columns), round(end * columns))
        return np.matmul(a, b[:, part], out=out[:, part])

    text = f"({rows}, {terms}) @ ({terms}, {columns}), {np.dtype(dtype).name}"
    return Ceiling(f"{key}_gflops", text, 2e-9 * rows * terms * columns, work)


def bandwidths(large: int, small: int) -> list[Ceiling]:
    """Copies and sums."""
    source, small_source = (np.ones(size // 4, np.float32) for size in (large, small))
    target, small_target = np.zeros_like(source), np.zeros_like(small_source)

    def part(array: Array, begin: float, end: float) -> Array:
        return array[round(begin * array.size) : round(end * array.size)]

    def copy_small(begin: float, end: float) -> None:
        for _ in range(REPEATS):
            np.copyto(small_target, small_source)

    return [
        Ceiling(
            "copy_gbs",
            f"copy of {_bytes(large)}",
            2e-9 * large,
            lambda *ends: np.copyto(part(target, *ends), part(source, *ends)),
        ),
        Ceiling("copy_in_cache_gbs", f"copy of {_bytes(small)}", 2e-9 * small * REPEATS, copy_small, most_threads=1),
        Ceiling("read_gbs", f"sum of {_bytes(large)}", 1e-9 * large, lambda *ends: part(source, *ends).sum()),
    ]


@contextmanager
def fresh_pages(size: int, huge: bool) -> Iterator[Array]:
    """New memory that nothing has touched; `huge` asks for large pages, as NumPy does for arrays from 4 MiB on."""
    with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        if huge:
            memory.madvise(mmap.MADV_HUGEPAGE)
        array = np.frombuffer(memory, np.uint8)
        yield array
        del array  # which would keep the mapping from being closed


def time_alternately(tasks: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of every task in every round, after one call of each that is not timed."""
    for task in tasks.values():
        task()
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(rounds):
        for name, task in tasks.items():
            began = time.perf_counter()
            result = task()
            seconds[name].append(time.perf_counter() - began)
            del result  # before the next task allocates
    return seconds


def touch(size: int, huge: bool) -> float:
    """Nanoseconds that the first write to a page of 4 KiB takes."""
    with fresh_pages(size, huge) as array:
        began = time.perf_counter()
        array[:: mmap.PAGESIZE] = 1
        seconds = time.perf_counter() - began
        del array
    return 1e9 * seconds / (size / mmap.PAGESIZE)


def check_blas_threads(product: Ceiling) -> None:
    """Refuse a BLAS that has threads of its own: processor time runs faster than the clock while it multiplies."""
    product.work(0, 1)
    began, used = time.perf_counter(), time.process_time()
    product.work(0, 1)
    ratio = (time.process_time() - used) / (time.perf_counter() - began)
    if ratio > 1.3:
        raise RuntimeError(
            f"a matrix product ran on {ratio:.1f} processors; set OPENBLAS_NUM_THREADS=1 before NumPy is imported"
        )


def ceilings(scale: int = 1) -> list[Ceiling]:
    """Everything that is measured at a rate, all sizes divided by `scale`."""
    rows, terms, columns = SKINNY
    return [
        ceiling
        for name, dtype in (("sgemm", np.float32), ("dgemm", np.float64))
        for ceiling in (
            matrix_product(name, dtype, *(SQUARE // scale,) * 3),
            matrix_product(f"{name}_skinny", dtype, rows, terms, columns // scale),
        )
    ] + bandwidths(LARGE // scale, SMALL // scale)


def measure_rounds(rounds: int = ROUNDS, scale: int = 1) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Figures of every round by key, and what each key is.

    A key ends in its unit and, but for pages, its threads: `copy_gbs_2`. Two threads are left out where there is one
    processor; large pages, where the system has none.
    """
    if rounds < 1:
        raise ValueError(f"rounds is {rounds}; give 1 or more")
    chosen = ceilings(scale)
    check_blas_threads(chosen[0])
    tasks: dict[str, Callable[[], object]] = {}
    amounts, texts = {}, {}
    with ThreadPoolExecutor(2) as pool:
        for ceiling in chosen:
            for threads in range(1, min(ceiling.most_threads, processors()) + 1):
                key = f"{ceiling.key}_{threads}"
                begins, ends = ([(i + last) / threads for i in range(threads)] for last in (0, 1))
                if threads == 1:
                    tasks[key] = lambda work=ceiling.work: work(0, 1)  # type: ignore[misc]
                else:
                    tasks[key] = lambda c=ceiling, b=begins, e=ends: list(pool.map(c.work, b, e))  # type: ignore[misc]
                amounts[key] = ceiling.amount
                texts[key] = f"{ceiling.text}, {threads} thread{'s' * (threads > 1)}"
        seconds = time_alternately(tasks, rounds)
    found = {key: [amounts[key] / s for s in values] for key, values in seconds.items()}
    kinds = {"page_fault_ns": False} | ({"page_fault_huge_ns": True} if hasattr(mmap, "MADV_HUGEPAGE") else {})
    for key, huge in kinds.items():
        size = FRESH // scale
        found[key] = [touch(size, huge) for _ in range(rounds)]
        pages = "large pages asked for, as NumPy does" if huge else f"pages of {_bytes(mmap.PAGESIZE)}"
        texts[key] = f"first touch of {_bytes(size)}, {pages}"
    return found, texts


def measure(rounds: int = ROUNDS) -> dict[str, float]:
    """Medians by key, such as `sgemm_gflops_1`, `dgemm_skinny_gflops_2`, `copy_gbs_2`, `read_gbs_1`, `page_fault_ns`.

    It takes some ten seconds and 0.7 GB. RuntimeError if BLAS has threads of its own: import this module, or call
    `train.commands.process.prepare`, before NumPy is loaded.
    """
    return {key: statistics.median(values) for key, values in measure_rounds(rounds)[0].items()}


def lines(found: Mapping[str, list[float]], texts: Mapping[str, str]) -> list[str]:
    """The table, as text."""
    table = [f"{'':25s} {'median':>8s} {'from':>8s} {'to':>8s}"]
    for key, values in found.items():
        unit = next(text for name, text in UNITS.items() if name in key.split("_"))
        figures = " ".join(f"{value:8.1f}" for value in (statistics.median(values), min(values), max(values)))
        table.append(f"{key:25s} {figures}  {unit:11s}  {texts[key]}")
    return table


def _bytes(size: int) -> str:
    """A number of bytes in the largest binary unit of which it is at least one."""
    power = min(int(math.log2(size)) // 10, 3)
    return f"{size / 2 ** (10 * power):g} {('B', 'KiB', 'MiB', 'GiB')[power]}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ceilings", description=__doc__.splitlines()[0], allow_abbrev=False
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--quick", action="store_true", help="one round of small arrays: does it run?")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to this file")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error(f"--rounds is {options.rounds}; give 1 or more")
    if options.json and not options.json.parent.is_dir():
        parser.error(f"--json is {options.json}; there is no folder {options.json.parent}")
    record = describe_machine()
    print(*(f"{key}: {value}" for key, value in record.items()), "", sep="\n", flush=True)
    try:
        found, texts = measure_rounds(1 if options.quick else options.rounds, 8 if options.quick else 1)
    except RuntimeError as error:
        parser.error(str(error))
    print(*lines(found, texts), sep="\n")
    if options.json:
        record["ceilings"] = {key: statistics.median(values) for key, values in found.items()}
        record |= {"what": texts, "rounds": found, "load afterwards": os.getloadavg()}
        options.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
