"""Compare the speed of two checkouts, call by call in turn: steps, epochs, and the table of `convolve`.

``python -m benchmarks.versions OLD`` compares this checkout with the one in the folder OLD. Each works in a process of
its own; calls alternate, so that what else the machine does meets both alike. A row's ratio is the median of the
ratios of neighbouring calls. Its noise is about the standard error of a median: 0.93 times the
distance between their quartiles, divided by the square root of their number.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

SECONDS_A_SAMPLE = 0.01
"""Shorter calls are repeated until a sample takes about this many seconds."""

STEPS = [("hcnn", "zero", 20), ("hcnn", "periodic", 20), ("hcnn-plus", "zero", 4), ("hcnn-plus", "periodic", 4)]
"""Preset, boundary and images of each step."""


EPOCHS = [("hcnn-fast", 1000), ("lenet", 2000)]
"""Preset and images of each epoch, by the command line: its own count of the seconds."""


def epoch(preset: str, images: int) -> Callable[[], float]:
    """A call that trains on the sample, and returns the seconds that the run records of the epoch."""
    from train import cifar

    def call() -> float:
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            run = Path(folder) / "run"
            flags = ["--dataset", "sample", "--validation-size", "0", "--no-test", "--epochs", "1"]
            if cifar.main(["--preset", preset, "--train-size", str(images), *flags, "--out", str(run)]):
                raise RuntimeError(f"an epoch of {preset} failed")
            return float(json.loads((run / "metrics.jsonl").read_text())["seconds"])

    return call


def calls() -> Iterator[tuple[str, Callable[[], Callable[[], Any]]]]:
    """Name and maker of each row's call, by what both versions know alike."""
    import numpy as np

    from autodiff import cross_entropy, value_and_grad
    from benchmarks.convolve import CASES, Problem
    from hcnn_core import convolve, convolve_vjp_w, convolve_vjp_x
    from train.config import make_config
    from train.networks.registry import build

    def step(preset: str, boundary: str, count: int, depth: int) -> Callable[[], Any]:
        rng = np.random.default_rng(0)
        network = build(make_config(preset, {"boundary": boundary, "depth": depth}))
        parameters = network.initialize(rng)
        x = rng.standard_normal((count, 32, 32, 3), np.float32)
        labels = rng.integers(0, 10, count)
        take = value_and_grad(lambda p: cross_entropy(network(p, x)[0], labels))
        return lambda: take(parameters)

    for preset, boundary, count in STEPS:
        yield (
            f"step of {preset}, {boundary}, {count} images",
            lambda p=preset, b=boundary, n=count: step(p, b, n, 12),
        )

    for preset, count in EPOCHS:
        yield f"epoch of {preset}, {count} images", lambda p=preset, n=count: epoch(p, n)

    def there_and_back(case: Any, boundary: str) -> Callable[[], Any]:
        p = Problem(case, boundary)
        options: dict[str, Any] = {"boundary": boundary, "sum_axes": p.sum_axes}
        return lambda: (
            convolve(p.x, p.w, p.axes, **options),
            convolve_vjp_x(p.y, p.x.shape, p.w, p.axes, **options),
            convolve_vjp_w(p.y, p.x, p.w.shape, p.axes, **options),
        )

    for case in CASES:
        for boundary in case.boundaries:
            yield (
                f"convolve, {case.name}, {boundary}",
                lambda c=case, b=boundary: there_and_back(c, b),
            )


def work() -> None:
    """Answer on standard output how long the row takes that each line of standard input names."""
    rows = dict(calls())
    name, call, repeats = "", None, 1
    for line in sys.stdin:
        if line.strip() != name:
            name, call = line.strip(), rows[line.strip()]()
            call()  # compiles
            started = time.perf_counter()
            call()
            repeats = max(1, int(SECONDS_A_SAMPLE / (time.perf_counter() - started)))
        assert call is not None
        started = time.perf_counter()
        for _ in range(repeats):
            found = call()
        took = (time.perf_counter() - started) / repeats
        print(found if isinstance(found, float) else took, flush=True)  # an epoch counts its own seconds


def start(root: Path) -> tuple[IO[str], IO[str]]:
    """A worker on a checkout: what it is asked through, and what it answers through."""
    environment = {**os.environ, "PYTHONPATH": str(root)}
    code = f"import runpy; runpy.run_path({str(Path(__file__).resolve())!r}, run_name='worker')"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=root, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdin and process.stdout
    return process.stdin, process.stdout


def compare(old: Path, new: Path, rounds: int, seconds: float, only: str) -> Iterator[dict[str, Any]]:
    """A record for each row."""
    workers = [start(old), start(new)]

    def ask(worker: tuple[IO[str], IO[str]], row: str) -> float:
        print(row, file=worker[0], flush=True)
        return float(worker[1].readline())

    for row in [name for name, _ in calls() if only in name]:
        for worker in workers:
            ask(worker, row)
        times: list[tuple[float, float]] = []
        ends = time.perf_counter() + seconds
        while len(times) < rounds and (len(times) < 5 or time.perf_counter() < ends):
            pair = [ask(worker, row) for worker in (workers if len(times) % 2 else workers[::-1])]
            times.append((pair[0], pair[1]) if len(times) % 2 else (pair[1], pair[0]))
        ratios = [b / a for a, b in times]
        low, _, high = statistics.quantiles(ratios, n=4)
        yield {
            "row": row,
            "old_ms": 1e3 * statistics.median(a for a, _ in times),
            "new_ms": 1e3 * statistics.median(b for _, b in times),
            "ratio": statistics.median(ratios),
            "noise": 0.93 * (high - low) / len(ratios) ** 0.5,
            "rounds": len(ratios),
        }


def main() -> int:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.versions", description=__doc__.splitlines()[0], allow_abbrev=False
    )
    parser.add_argument("old", type=Path, metavar="OLD", help="folder of the other checkout")
    parser.add_argument("--rounds", type=int, default=31, help="pairs of calls a row (31)")
    parser.add_argument("--seconds", type=float, default=8, help="after which a row has pairs enough, five at least")
    parser.add_argument("--only", default="", metavar="TEXT", help="rows in whose name this stands")
    parser.add_argument("--out", type=Path, metavar="JSON", help="write the records here, the text beside them (.txt)")
    options = parser.parse_args()
    if not (options.old / "hcnn_core").is_dir():
        parser.error(f"{options.old} holds no checkout: there is no hcnn_core in it")
    from benchmarks.machine import describe_machine

    record: dict[str, Any] = {**describe_machine(), "rows": []}
    lines = [f"{key}: {value}" for key, value in record.items() if key != "rows"]
    lines += ["", "   old ms    new ms   new/old   noise   row"]
    print(*lines, sep="\n", flush=True)
    for found in compare(options.old.resolve(), Path.cwd(), options.rounds, options.seconds, options.only):
        record["rows"].append(found)
        lines.append("{old_ms:9.3f} {new_ms:9.3f} {ratio:9.3f} {noise:7.3f}   {row}".format(**found))
        print(lines[-1], flush=True)
    ratios = [found["ratio"] for found in record["rows"]]
    record["load_afterwards"] = os.getloadavg()
    lines += ["", f"median of the ratios {statistics.median(ratios):.3f}, largest {max(ratios):.3f}"]
    print(*lines[-2:], f"load afterwards: {record['load_afterwards']}", sep="\n")
    if options.out:
        options.out.write_text(json.dumps(record, indent=1) + "\n")
        options.out.with_suffix(".txt").write_text("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
if __name__ == "worker":
    work()
