"""A training step and a forward pass beside PyTorch and onnxruntime: `python -m benchmarks.beside --out FILE.json`.

Each network at each batch: here, in another checkout (`--before DIR`), as a module of PyTorch, eager in both layouts
and at some batches compiled by its defaults with channels_last, and as our own ONNX file in onnxruntime. Calls
alternate, each checkout and PyTorch in a process of its own, so that what else the machine does meets all alike. A
figure is the median over rounds of milliseconds a call, and of the ratio to ours in the same round. `--table FILE.json`
prints the table of the documents.

Here a step augments its images, differentiates and descends. PyTorch's has no augmentation and SGD with momentum. Its
`resnet20` has batch normalisation, and each other network is what `to_torch` makes, trained as ordinary convolutions.
Forward passes take images as they are and make logits, which are compared.
"""

from __future__ import annotations

from train.commands.process import prepare

prepare()  # before NumPy is loaded, as the command line of training does

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
NETWORKS = ("resnet20", "lenet", "hcnn-fast", "signal")
BATCHES = (1, 8, 100)
SAMPLE, LONG = 0.05, 0.3
"""Seconds that calls are timed in a row, and of a call that is not called once more before."""

Way = Callable[[], Any]


def of_arrays(kind: str, name: str, count: int) -> Way:
    """Return the call of the checkout that is imported."""
    from benchmarks.inference import SHAPES, network
    from benchmarks.step import Step

    if kind == "step":
        step = Step(name, None, count, shape=SHAPES.get(name, (32, 32, 3)))
        return lambda: step() and None
    one, x = network(name), images(name, count)
    return lambda: one.logits(x)


def images(name: str, count: int) -> Any:
    """Return images as a network takes them: pixels where it was trained on them."""
    from benchmarks.inference import network

    checkpoint = network(name).checkpoint
    drawn = np.random.default_rng(1).random((count, *checkpoint.image_shape), np.float32)
    return (255 * drawn).astype(np.uint8) if checkpoint.values == "uint8" else drawn


def of_torch(way: str, kind: str, name: str, count: int) -> Way:
    """Return the call of a network as a module of PyTorch."""
    import torch
    from torch import nn

    from benchmarks.inference import network

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    module: Any = network(name).to_torch()
    layout = torch.channels_last if "last" in way else torch.contiguous_format
    x = torch.from_numpy(np.moveaxis(images(name, count), -1, 1).astype(np.float32)).contiguous(memory_format=layout)
    ready = torch.compile if "compiled" in way else lambda function: function
    if kind == "forward":
        module = ready(module.eval().to(memory_format=layout))

        def logits() -> Any:
            with torch.inference_mode():
                return module(x).numpy()

        return logits

    for at, step in enumerate(module.steps) if name == "resnet20" else ():
        if hasattr(step, "factor"):
            module.steps[at] = nn.BatchNorm2d(step.factor.numel())
        elif isinstance(step, nn.Sequential) and not step[-1].weight.requires_grad:
            module.steps[at] = shortcut(step[-1].out_channels - step[-1].in_channels)
    module = module.train().to(memory_format=layout)
    labels = torch.from_numpy(np.random.default_rng(2).integers(0, 10, count))
    loss = ready(lambda: nn.functional.cross_entropy(module(x), labels))
    learned = [p for p in module.parameters() if p.requires_grad]
    descent = torch.optim.SGD(learned, 1e-3, momentum=0.9, weight_decay=1e-4, foreach=True)

    def take() -> None:
        descent.zero_grad()
        loss().backward()
        descent.step()

    return take


def shortcut(new: int) -> Any:
    """Return a module that takes every second sample, and zeros as new maps."""
    import torch

    class Shortcut(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return torch.nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, new))

    return Shortcut()


def of_onnx(name: str, count: int) -> Way:
    """Return the call of a network's ONNX file."""
    from benchmarks.inference import network, peer

    run, x = peer(network(name), int(os.environ["OMP_NUM_THREADS"])), images(name, count).astype(np.float32)
    return lambda: run(x)


def work() -> None:
    """Answer on standard output each line of standard input: seconds of a call, and the first logits."""
    from benchmarks.machine import seconds

    made: dict[tuple[str, ...], Way] = {}
    for line in sys.stdin:
        way, *row = json.loads(line)
        key = (way, *map(str, row))
        if key not in made:
            made = {known: call for known, call in made.items() if known[1:] == key[1:]}
            makers = {"here": of_arrays, "before": of_arrays, "onnxruntime": lambda kind, *of: of_onnx(*of)}
            made[key] = makers[way](*row) if way in makers else of_torch(way, *row)
            end = time.perf_counter() + 2
            for _ in range(3):
                if time.perf_counter() < end:
                    made[key]()  # compiles, plans, and fills caches
        call = made[key]
        began = time.perf_counter()
        found = call()
        took = time.perf_counter() - began
        if took < LONG:
            took = seconds(call, max(1, round(SAMPLE / took)))
        print(json.dumps([took, None if found is None else np.asarray(found)[0].tolist()]), flush=True)


class Worker:
    """A process that times calls of a checkout."""

    def __init__(self, root: Path, threads: int) -> None:
        count = str(threads)
        environment = {"HCNN_NUM_THREADS": count, "OMP_NUM_THREADS": count, "OPENBLAS_NUM_THREADS": "1"}
        code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import benchmarks; sys.path[0] = {str(root)!r}; "
        self.process = subprocess.Popen(
            [sys.executable, "-c", code + "from benchmarks.beside import work; work()"],
            cwd=root, env={**os.environ, **environment}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def __call__(self, *row: Any) -> tuple[float, Any]:
        """Return the seconds of a way's call, and its first logits."""
        assert self.process.stdin and self.process.stdout
        print(json.dumps(row), file=self.process.stdin, flush=True)
        seconds, logits = json.loads(self.process.stdout.readline())
        return seconds, logits


def measure(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield a record for each network, batch and number of threads."""
    for threads in options.threads:
        ours = {"here": Worker(ROOT, threads)}
        ours |= {"before": Worker(options.before.resolve(), threads)} if options.before else {}
        peers = Worker(ROOT, threads)
        for kind in ("forward", "step"):
            for name in options.network:
                for count in options.batch:
                    last = [", channels last"] * (name != "signal")  # a layout of images
                    ways = ["eager", *(f"eager{layout}" for layout in last)]
                    ways += ["".join(["compiled", *last])] if count in options.compiled else []
                    ways += ["onnxruntime"] if kind == "forward" else []
                    asked = {**ours, **dict.fromkeys(ways, peers)}
                    answers = {way: worker(way, kind, name, count) for way, worker in asked.items()}
                    logits = {way: np.array(answer) for way, (_, answer) in answers.items() if answer}
                    for way, found in logits.items():
                        if not np.abs(found - logits["here"]).max() <= 1e-3 * np.abs(logits["here"]).max():
                            raise SystemExit(f"{way} makes other logits of {name}")
                    times: dict[str, list[float]] = {way: [] for way in asked}
                    end = time.monotonic() + options.seconds
                    while len(times["here"]) < 3 or (len(times["here"]) < 25 and time.monotonic() < end):
                        for way, worker in asked.items():
                            time.sleep(0.03)  # until threads of the one before no longer wait for work in a loop
                            times[way].append(worker(way, kind, name, count)[0])
                    ratios = {
                        way: statistics.median(a / b for a, b in zip(taken, times["here"], strict=True))
                        for way, taken in times.items()
                    }
                    ms = {way: 1e3 * statistics.median(taken) for way, taken in times.items()}
                    yield {"kind": kind, "network": name, "batch": count, "threads": threads, "ms": ms,
                           "ratios": ratios, "rounds": len(times["here"])}  # fmt: skip
        for worker in (*ours.values(), peers):
            worker.process.kill()
            worker.process.wait()


def line(row: dict[str, Any]) -> str:
    """Return a record in one line."""
    others = ", ".join(f"{way} {ratio:.2f}" for way, ratio in row["ratios"].items() if way != "here")
    return (
        f"{row['threads']} threads, {row['kind']:7} {row['network']:9} {row['batch']:3} images: "
        f"{row['ms']['here']:8.3f} ms; times of ours in {row['rounds']} rounds: {others}"
    )


def table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the lines of the documents' table: of PyTorch the better layout."""
    threads = sorted({row["threads"] for row in rows})
    yield (
        "| | " + " | ".join(f"{n} thread{'s' * (n > 1)}: ms | before | eager | compiled | onnx" for n in threads) + " |"
    )
    yield "| --- |" + " --- |" * (5 * len(threads))
    for kind, name, count in dict.fromkeys((row["kind"], row["network"], row["batch"]) for row in rows):
        cells = []
        for row in rows:
            if (row["kind"], row["network"], row["batch"]) == (kind, name, count):
                best = {
                    way: min((r for of, r in row["ratios"].items() if of.startswith(way)), default=None)
                    for way in ("before", "eager", "compiled", "onnx")
                }
                cells += [f"{row['ms']['here']:.3g}", *("" if r is None else f"{r:.2f}" for r in best.values())]
        yield f"| {kind}, `{name}`, {count} | " + " | ".join(cells) + " |"


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", type=Path, help="another checkout")
    parser.add_argument("--network", nargs="+", default=NETWORKS)
    parser.add_argument("--batch", nargs="+", type=int, default=BATCHES)
    parser.add_argument(
        "--compiled", nargs="*", type=int, default=(100,), help="batches at which PyTorch compiles, too"
    )
    parser.add_argument("--threads", nargs="+", type=int, default=(2, 1))
    parser.add_argument("--seconds", type=float, default=3, help="after which a row has rounds enough, three at least")
    parser.add_argument("--out", type=Path, help="write the records to this file, the lines to one beside it (.txt)")
    parser.add_argument("--table", type=Path, help="print the table of these records instead")
    options = parser.parse_args()
    if options.table:
        print(*table(json.loads(options.table.read_text("utf-8"))["rows"]), sep="\n")
        return
    from importlib import metadata

    from benchmarks.machine import describe_machine

    machine = {**describe_machine(), **{name: metadata.version(name) for name in ("torch", "onnxruntime")}}
    text, rows = [f"{key}: {value}" for key, value in machine.items()], []
    print(*text, sep="\n", flush=True)
    for row in measure(options):
        rows.append(row)
        text.append(line(row))
        print(text[-1], flush=True)
        if options.out:  # after each, so that a run that is stopped leaves what it has
            record = {**machine, "load_afterwards": os.getloadavg(), "rows": rows}
            options.out.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
            options.out.with_suffix(".txt").write_text("\n".join(text) + "\n", "utf-8")


if __name__ == "__main__":
    main()
