"""Latency of opened networks beside onnxruntime on their own ONNX files, by the size of the batch.

    python -m benchmarks.inference --json benchmarks/results/inference.json --plot benchmarks/results/inference.png
    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python -m benchmarks.inference --network hcnn-fast

Both take images as they are and return logits, with as many threads, in turn; the least times are printed, which other
programs on the machine change least, and the ratio of medians beside that of the least. `--also` adds
a column for the network as it is called without being opened. `signal` and `volume` have random weights, on signals of
128 samples and 9 channels and on volumes of 28^3, as in the sets that the presets are for.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import describe_machine, seconds
from hcnn_core.backend import worker_count
from train.classifier import Classifier, load
from train.config import make_config
from train.data import standardise
from train.networks.registry import build
from train.runs.checkpoint import Checkpoint, State
from train.runs.onnx import write_onnx

NETWORKS = ("hcnn-fast", "signal", "volume", "hcnn-best")
SHAPES = {"signal": (128, 9), "volume": (28, 28, 28, 1), "resnet20": (32, 32, 3), "lenet": (32, 32, 3)}
CLASSES = 10
BATCHES = (1, 2, 4, 8, 16, 32, 100)


def network(name: str) -> Classifier:
    """Return a network that ships, or a preset of `SHAPES` with random weights and the moments of random samples."""
    if name not in SHAPES:
        return load(name)
    shape, rng, config = SHAPES[name], np.random.default_rng(0), make_config(name)
    table = build(config, shape[:-1], CLASSES, shape[-1])
    weights = table.initialize(rng)
    _, moments = table(weights, rng.standard_normal((20, *shape)).astype(config.dtype))
    state = State(weights, {}, moments, dict(rng.bit_generator.state))
    names = tuple(map(str, range(CLASSES)))
    statistics = np.zeros(shape[-1]), np.ones(shape[-1])
    return Classifier(Checkpoint(state, config, names, shape, *statistics, values="float32"), table, weights, moments)


def peer(one: Classifier, threads: int) -> Callable[[Any], Any]:
    """Return the network's ONNX file as onnxruntime runs it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "network.onnx"
        write_onnx(file, file, one.checkpoint)
        session = onnxruntime.InferenceSession(file.read_bytes(), options, providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {"images": x})[0]


def timed(ways: Sequence[Callable[[], Any]], duration: float) -> list[list[float]]:
    """Return the times of each, taken in turn for as many seconds."""
    for way in [*ways, *ways]:
        way()  # compiles, plans, and fills caches
    times: list[list[float]] = [[] for _ in ways]
    end = time.perf_counter() + duration
    while time.perf_counter() < end or len(times[0]) < 3:
        for way, taken in zip(ways, times, strict=True):
            taken.append(seconds(way))
    return times


def measure(names: Sequence[str], batches: Sequence[int], duration: float, also: bool) -> list[dict[str, Any]]:
    """Print and return milliseconds an image of each network and batch."""
    rows, threads = [], worker_count()
    print(
        "network      batch     ours  onnxruntime  ratio  of medians" + ("  unopened" if also else "") + "  difference"
    )
    for name in names:
        one = network(name)
        runtime, rng, checkpoint = peer(one, threads), np.random.default_rng(1), one.checkpoint
        moments = checkpoint.channel_mean, checkpoint.channel_std
        for n in batches:
            drawn = rng.random((n, *checkpoint.image_shape), np.float32)
            x = (255 * drawn).astype(np.uint8) if checkpoint.values == "uint8" else drawn
            floats = x.astype(np.float32)

            def unopened(x: Any = x, one: Any = one, moments: Any = moments) -> Any:
                config = one.network.config
                return one.network(one._arrays[0], standardise(x, *moments, by=config.standardize), one.moments)[0]

            ways = [lambda x=x, one=one: one.logits(x), lambda x=floats, of=runtime: of(x)]  # type: ignore[misc]
            difference = float(np.abs(ways[0]() - ways[1]()).max())
            times = timed([*ways, *([unopened] if also else [])], duration)
            ours, other, *rest = (1e3 * min(taken) / n for taken in times)
            medians = statistics.median(times[0]) / statistics.median(times[1])
            row = {"network": name, "batch": n, "ms": ours, "onnxruntime_ms": other, "ratio_of_medians": medians}
            rows.append(row | ({"unopened_ms": rest[0]} if also else {}))
            print(
                f"{name:12} {n:5} {ours:8.3f} {other:12.3f} {ours / other:6.2f} {medians:11.2f}"
                + (f"{rest[0]:10.3f}" if also else "")
                + f" {difference:11.1e}",
                flush=True,
            )
    return rows


def draw(rows: Sequence[dict[str, Any]], target: Path) -> None:
    """Draw latencies by batch, a panel for each network."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(row["network"] for row in rows))
    figure = Figure(figsize=(3 * len(names), 3), layout="constrained")
    for k, (name, axis) in enumerate(zip(names, np.ravel(figure.subplots(1, len(names), squeeze=False)), strict=True)):
        line = [row for row in rows if row["network"] == name]
        for kind, label in (("ms", "opened network"), ("onnxruntime_ms", "onnxruntime")):
            axis.loglog(
                [r["batch"] for r in line], [r[kind] * r["batch"] for r in line], "o-", markersize=3, label=label
            )
        axis.set(title=name, xlabel="images in a batch", ylabel="" if k else "ms a batch")
        axis.grid(alpha=0.3)
    axis.legend()
    figure.savefig(target, dpi=120)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", nargs="+", default=NETWORKS, help="networks that ship, and presets")
    parser.add_argument("--batch", nargs="+", type=int, default=BATCHES)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each network and batch")
    parser.add_argument("--also", action="store_true", help="time the network unopened as well")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--plot", type=Path, help="also draw them")
    options = parser.parse_args()

    machine = describe_machine()
    print(*(f"{key}: {value}" for key, value in machine.items()), sep="\n")
    rows = measure(options.network, options.batch, options.seconds, options.also)
    if options.json:
        options.json.write_text(json.dumps({**machine, "rows": rows}, indent=1) + "\n", "utf-8")
    if options.plot:
        draw(rows, options.plot)


if __name__ == "__main__":
    main()
