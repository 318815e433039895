"""What keeping freed memory gains in a user's process: `python -m benchmarks.kept_memory`.

A fresh process draws operands, calls `convolve` on them several times, drops each result, and draws the next operands.
HCNN_KEEP_MIB has its default, or is 0, which leaves freed memory to the allocator. Several processes of each kind take
turns. What an allocator keeps depends on where the memory lies between other arrays, so the table has the mean over
draws and the slowest draw. The command lines of `train` make the allocator keep everything; this does not concern them.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import describe_machine
from hcnn_core import convolve
from hcnn_core._engines.cpu.allocator import KEEP

CASES: dict[str, tuple[tuple[int, ...], tuple[int, ...], str]] = {
    "image 256^2, kernel 15^2": ((256, 256), (15, 15), "float32"),
    "image 512^2, kernel 3^2": ((512, 512), (3, 3), "float32"),
    "image 512^2, kernel 3^2, float64": ((512, 512), (3, 3), "float64"),
    "image 2048^2, kernel 5^2": ((2048, 2048), (5, 5), "float32"),
    "volume 128^3, kernel 3^3": ((128, 128, 128), (3, 3, 3), "float32"),
    "volume 256^3, kernel 3^3": ((256, 256, 256), (3, 3, 3), "float32"),
}
DRAWS = 10
CALLS = 20
"""On each."""


def of_one(name: str) -> list[dict[str, float]]:
    """Milliseconds of a call, the median, and pages that it touched first, the mean, of every draw in this process."""
    lengths, kernel, dtype = CASES[name]
    rng, axes, found = np.random.default_rng(0), tuple(range(len(lengths))), []
    for _ in range(DRAWS):
        x, w = (rng.standard_normal(shape).astype(dtype) for shape in (lengths, kernel))
        convolve(x, w, axes, boundary="zero")
        seconds, pages = [], resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(CALLS):
            began = time.perf_counter()
            convolve(x, w, axes, boundary="zero")
            seconds.append(time.perf_counter() - began)
        pages = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - pages
        found.append({"ms": 1e3 * statistics.median(seconds), "pages": pages / CALLS})
    return found


def in_its_process(name: str, keep: int) -> list[dict[str, float]]:
    """The same, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.kept_memory", "--one", name]
    environment = os.environ | {"HCNN_KEEP_MIB": str(keep)}
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return list(json.loads(done.stdout))


def lines(found: dict[str, dict[str, list[dict[str, float]]]]) -> list[str]:
    """The table, as text."""
    text = [f"{'case':34s} {'keep MiB':>8s} {'mean ms':>8s} {'slowest':>8s} {'pages':>8s} {'times kept':>10s}"]
    for name, rows in found.items():
        kept = statistics.mean(row["ms"] for row in rows[str(KEEP)])
        for keep, row in rows.items():
            ms, pages = ([draw[what] for draw in row] for what in ("ms", "pages"))
            mean = statistics.mean(ms)
            figures = f"{mean:8.3f} {max(ms):8.3f} {statistics.mean(pages):8.0f} {mean / kept:10.2f}"
            text.append(f"{name:34s} {keep:>8s} {figures}")
    return text


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.kept_memory", description=__doc__.splitlines()[0], allow_abbrev=False
    )
    parser.add_argument("--one", metavar="CASE", choices=CASES, help="measure this process with one of: %(choices)s")
    parser.add_argument("--rounds", type=int, default=5, help="processes of each (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="write the figures to this file, the text to one beside it (.txt)")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error(f"--rounds is {options.rounds}; give 1 or more")
    if options.one:
        print(json.dumps(of_one(options.one)))
        return
    machine = describe_machine()
    found: dict[str, dict[str, list[dict[str, Any]]]] = {name: {str(KEEP): [], "0": []} for name in CASES}
    for _ in range(options.rounds):
        for name, rows in found.items():
            for keep, row in rows.items():
                row.extend(in_its_process(name, int(keep)))
    text = [
        *(f"{key}: {value}" for key, value in machine.items()),
        f"processes of each: {options.rounds}, of {DRAWS} draws",
        "",
    ]
    text += lines(found)
    print(*text, sep="\n")
    if options.out:
        options.out.write_text(json.dumps({**machine, "rounds": options.rounds, "cases": found}, indent=1) + "\n")
        options.out.with_suffix(".txt").write_text("\n".join(text) + "\n")


if __name__ == "__main__":
    main()
