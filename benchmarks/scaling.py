"""How time and memory of one layer grow with every size it has: `python -m benchmarks.scaling`.

It runs layer j = 4 of the paper's network forward and backward, as in `benchmarks.layer`, in single precision, in
training mode and for a given cotangent. One size at a time differs from the paper's: images in a batch, side of the
images, K, taps along the attributes, Q. Times are medians of rounds that alternate between all points and both
boundaries. Memory is what operands and one step add at their peak to a fresh process that has taken such a step before.
Compiled code is not counted.

Each series is fitted by a power of its size, and the largest departure from the fit is reported. The sizes are images,
pixels, K^3 (to which x_4 is proportional), taps, and Q. Filters are merged before they are applied, so nothing may grow
with Q. Attributes are convolved by DFTs, so little may grow with the taps.

It writes scaling.json, scaling.txt and scaling.png; `--plot FILE` draws the picture of such a JSON file again.
"""

from train.commands.process import prepare

prepare()  # before NumPy is loaded, as the command line of training does

import argparse
import json
import math
import multiprocessing
import os
import statistics
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autodiff import vjp
from benchmarks.ceilings import time_alternately
from benchmarks.layer import DEPTH, layer_below
from benchmarks.machine import added_by, describe_machine
from train.config import make_config
from train.networks.hierarchical import hierarchy, layers, name_of
from train.networks.network import Network
from train.networks.registry import build
from train.runs.memory import available_bytes
from train.storage.files import write_atomically

Array = np.ndarray[Any, Any]
Sizes = dict[str, Any]
Record = dict[str, Any]

BOUNDARIES = ("periodic", "zero")
BASE: Sizes = {"batch": 50, "side": 32, "K": 16, "kernel": (7, 11), "Q": 32}
QUICK: Sizes = {"batch": 2, "side": 8, "K": 8, "kernel": (3, 5), "Q": 9}


@dataclass(frozen=True)
class Axis:
    """A size that varies, and the powers of `measure` by which time per image and memory would grow ideally."""

    values: tuple[Any, ...]
    measure: Callable[[Any], int]
    name: str  # of the measure
    title: str
    time: int
    memory: int


AXES = {
    "batch": Axis((1, 2, 5, 10, 25, 50, 100), int, "images", "images of a batch", 0, 1),
    "side": Axis((8, 16, 32, 64), lambda side: side**2, "pixels", "side of the images, in pixels", 1, 1),
    "K": Axis((8, 16, 32), lambda k: k**3, "K^3", "K, values of each attribute", 1, 1),
    "kernel": Axis(((3, 5), (7, 11), (7, 15)), math.prod, "taps", "taps along the attributes", 0, 0),
    "Q": Axis((9, 16, 32, 64), int, "Q", "Q, factors of a filter", 0, 0),
}

BYTES_PER_OUTPUT = 40
"""Of a step at its peak, per element of x_4; measured and rounded up."""


class Step:
    """Forward and backward of the layer at some sizes; x_3 and the cotangent of x_4 lie at the start of two buffers."""

    def __init__(self, sizes: Sizes, boundary: str, buffers: Sequence[Array]) -> None:
        network = make_network(sizes, boundary)
        name = hierarchy(network)[DEPTH - 1].name
        self.weights = network.initialize(np.random.default_rng(0))[name]

        def layer(x: Array, *weights: Array) -> Array:
            named = dict(zip(self.weights, weights, strict=True))
            return next(network.trace({name: named}, {name_of(DEPTH - 1): x}))[1]

        # a layer below leaves x in memory as this one leaves its output
        shape = hierarchy(network)[DEPTH - 2].outputs
        sample = layer(np.ones((2, *shape), np.float32), *self.weights.values())
        order = sorted(range(sample.ndim), key=lambda axis: -sample.strides[axis])
        drawn = [(sizes["batch"], *shape)[axis] for axis in order]
        self.x, self.cotangent = (
            buffer[: math.prod(drawn)].reshape(drawn).transpose(np.argsort(order)) for buffer in buffers
        )
        below, self.received = layer_below(self.x)
        self.layer = lambda anchor, *weights: layer(below(anchor), *weights)

    def __call__(self) -> tuple[Array, ...]:
        """x_4, and the cotangents of x_3 and of every weight."""
        y, pullback = vjp(self.layer, np.zeros((), np.float32), *self.weights.values())
        cotangents = pullback(self.cotangent)
        return y, self.received.pop(), *cotangents[1:]


def make_network(sizes: Sizes, boundary: str) -> Network:
    """The network whose layer has these sizes."""
    changes = {"width": sizes["K"], "factors": sizes["Q"], "attribute_kernel": sizes["kernel"], "boundary": boundary}
    return build(make_config("hcnn", changes), image_size=sizes["side"])


def elements(sizes: Sizes) -> int:
    """Of x_4, as many as of x_3."""
    below, layer = layers(make_network(sizes, "zero").config, sizes["side"], 10)[DEPTH - 2 : DEPTH]
    assert below.outputs == layer.outputs
    return int(sizes["batch"]) * math.prod(layer.outputs)


def draw_buffers(count: int) -> list[Array]:
    """Random numbers for x_3 and the cotangent of x_4."""
    rng = np.random.default_rng(0)
    return [rng.standard_normal(count, np.float32) for _ in range(2)]


def points(base: Sizes, names: Iterable[str], longest: int | None = None) -> list[Sizes]:
    """The base with one size changed at a time, at most `longest` values of each, each point once."""
    found = [{**base, name: value} for name in names for value in AXES[name].values[:longest]]
    return [sizes for index, sizes in enumerate(found) if sizes not in found[:index]]


def added_memory(sizes: Sizes, boundary: str) -> float:
    """MiB that operands and a step add at their peak to this process, which has done nothing but the same once."""
    return added_by(lambda: Step(sizes, boundary, draw_buffers(elements(sizes)))())


def in_fresh_process(function: Callable[..., float], *arguments: Any) -> float:
    """What the function returns in a process of its own, which imports this module and nothing else."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def measure(base: Sizes, names: Sequence[str], boundaries: Sequence[str], rounds: int, longest: int | None) -> Record:
    """Time and memory of every point."""
    found = [{"boundary": boundary, **sizes} for sizes in points(base, names, longest) for boundary in boundaries]
    sizes = [{name: point[name] for name in AXES} for point in found]
    for point, s in zip(found, sizes, strict=True):
        point["mib"] = in_fresh_process(added_memory, s, point["boundary"])
    buffers = draw_buffers(max(map(elements, sizes)))
    steps = {str(i): Step(s, p["boundary"], buffers) for i, (s, p) in enumerate(zip(sizes, found, strict=True))}
    for point, seconds in zip(found, time_alternately(steps, rounds).values(), strict=True):
        point["seconds"] = seconds
    return {"axes": list(names), "boundaries": list(boundaries), "rounds": rounds, "base": base, "points": found}


def series(record: Record, name: str, boundary: str) -> list[Record]:
    """Points at one boundary that differ from the base in one size at most, by that size."""
    others = {key: value for key, value in record["base"].items() if key != name}
    chosen = [p for p in record["points"] if {**others, "boundary": boundary}.items() <= p.items()]
    return sorted(chosen, key=lambda point: AXES[name].measure(point[name]))


def ms_per_image(point: Record) -> list[float]:
    """Of every round."""
    return [1e3 * seconds / point["batch"] for seconds in point["seconds"]]


QUANTITIES: dict[str, Callable[[Record], float]] = {
    "time": lambda point: statistics.median(ms_per_image(point)),
    "memory": lambda point: float(point["mib"]),
}


def fit(sizes: Sequence[float], values: Sequence[float]) -> tuple[float, float]:
    """The exponent of the power of size nearest to the values, and the largest ratio between the two, 1 or more."""
    x, y = np.log(sizes), np.log(values)
    slope, constant = np.polyfit(x, y, 1)
    return float(slope), float(np.exp(abs(y - constant - slope * x).max()))


def fits(record: Record) -> list[Record]:
    """Exponent and departure of every series, for time per image and memory."""
    found = []
    for name in record["axes"]:
        for boundary in record["boundaries"]:
            chosen = series(record, name, boundary)
            sizes = [AXES[name].measure(point[name]) for point in chosen]
            for quantity, of in QUANTITIES.items():
                exponent, departure = fit(sizes, [of(point) for point in chosen])
                found.append(
                    {
                        "axis": name,
                        "boundary": boundary,
                        "quantity": quantity,
                        "exponent": exponent,
                        "departure": departure,
                        "ideal": getattr(AXES[name], quantity),
                    }
                )
    return found


def text(value: Any) -> str:
    """A size, in a table."""
    return "x".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def lines(record: Record) -> list[str]:
    """The tables, one per series."""
    found = []
    for name in record["axes"]:
        others = ", ".join(f"{key} {text(value)}" for key, value in record["base"].items() if key != name)
        for boundary in record["boundaries"]:
            found.append(f"{AXES[name].title}; {boundary} boundary, {others}")
            found.append(f"{name:>8s} {'ms/image':>9s} {'from':>8s} {'to':>8s} {'MiB':>9s} {'MiB/image':>10s}")
            for p in series(record, name, boundary):
                times = ms_per_image(p)
                found.append(
                    f"{text(p[name]):>8s} {QUANTITIES['time'](p):9.3f} {min(times):8.3f} {max(times):8.3f} "
                    f"{p['mib']:9.1f} {p['mib'] / p['batch']:10.2f}"
                )
            for f in record["fits"]:
                if (f["axis"], f["boundary"]) == (name, boundary):
                    what = "time per image" if f["quantity"] == "time" else "memory"
                    found.append(
                        f"    {what} ~ {AXES[name].name} to the power {f['exponent']:z.2f} (ideally {f['ideal']}), "
                        f"off by {100 * (f['departure'] - 1):.0f} % at most"
                    )
            found.append("")
    return found[:-1]


def draw(record: Record, path: Path) -> None:
    """Write the picture: time per image above, memory below, a column for each size."""
    import io

    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

    labels = {"time": "time per image [ms]", "memory": "peak memory of a step [MiB]"}
    colours = {"periodic": "tab:blue", "zero": "tab:orange"}
    names = record["axes"]
    figure = Figure(figsize=(max(8.0, 0.5 + 2.7 * len(names)), 6.8), dpi=100, layout="constrained")
    base = ", ".join(f"{key} {text(value)}" for key, value in record["base"].items())
    figure.suptitle(
        f"Forward and backward of layer {DEPTH}, float32: {base}, one size changed at a time\n"
        f"{record['processor']}, {record['threads']} thread{'s' * (record['threads'] > 1)}, {record['blas']}\n"
        f"medians and ranges of {record['rounds']} rounds",
        fontsize=11,
        parse_math=False,
    )
    grid = figure.subplots(2, len(names), sharex="col", sharey="row", squeeze=False)
    for row, (quantity, of) in zip(grid, QUANTITIES.items(), strict=True):
        row[0].set_ylabel(labels[quantity], fontsize=11)
        for axes, name in zip(row, names, strict=True):
            axis = AXES[name]
            axes.set(xscale="log", yscale="log")
            middles = []
            for boundary in record["boundaries"]:
                chosen = series(record, name, boundary)
                x, y = [axis.measure(p[name]) for p in chosen], [of(p) for p in chosen]
                (exponent,) = (
                    f["exponent"]
                    for f in record["fits"]
                    if (f["axis"], f["boundary"], f["quantity"]) == (name, boundary, quantity)
                )
                label = f"{boundary}, slope {exponent:z.2f}"
                axes.plot(x, y, "o-", color=colours[boundary], markersize=4, linewidth=1.4, label=label)
                if quantity == "time":
                    ends = [[min(ms_per_image(p)) for p in chosen], [max(ms_per_image(p)) for p in chosen]]
                    axes.vlines(x, *ends, color=colours[boundary], linewidth=1, alpha=0.6)
                at_base = [i for i, p in enumerate(chosen) if p[name] == record["base"][name]] or [len(x) // 2]
                middles.append((x[at_base[0]], y[at_base[0]]))
            slope, (x0, y0) = getattr(axis, quantity), middles[0]
            reference = [y0 * (value / x0) ** slope for value in x]
            axes.plot(x, reference, "--", color="0.45", linewidth=1, zorder=1, label=f"slope {slope}")
            axes.grid(alpha=0.25)
            axes.xaxis.set_major_locator(FixedLocator(x))
            axes.xaxis.set_minor_locator(NullLocator())
            ticks = dict(zip(x, (text(p[name]) for p in chosen), strict=True))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _, ticks=ticks: ticks.get(round(value), "")))
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
            axes.tick_params(labelsize=10)
            axes.legend(fontsize=9, loc="best", frameon=False, handlelength=1.6)
            if quantity == "memory":
                axes.set_xlabel(f"{axis.title}\n(slopes: against {axis.name})", fontsize=10)
                axes.tick_params(axis="x", rotation=30 if name == "kernel" else 0)
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    write_atomically(path, picture.getvalue())


def read(path: Path) -> Record:
    """The record in a file this program has written; ValueError says in one line what is wrong with another."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    wanted = {"axes", "boundaries", "base", "points", "fits", "rounds", "processor", "threads", "blas"}
    if not isinstance(record, dict) or not wanted <= record.keys():
        raise ValueError(f"{path} is not of this program; give a scaling.json that it wrote")
    return record


def main() -> None:
    """Measure, print, write and draw; or draw alone."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scaling", description=__doc__.splitlines()[0], allow_abbrev=False
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch-size", type=int, help="images where the batch does not vary; by default 50")
    parser.add_argument("--boundary", nargs="+", choices=BOUNDARIES, help="both by default")
    parser.add_argument("--only", nargs="+", metavar="SIZE", choices=AXES, help=f"of {', '.join(AXES)}")
    parser.add_argument("--quick", action="store_true", help="one round of two small points a series: does it run?")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the files; by default runs/scaling")
    parser.add_argument(
        "--plot", type=Path, metavar="JSON", help="measure nothing; draw this file, beside it or in DIR"
    )
    options = parser.parse_args()
    for name in ("rounds", "batch_size"):
        if (value := getattr(options, name)) is not None and value < 1:
            parser.error(f"--{name.replace('_', '-')} is {value}; give 1 or more")
    folder = options.out or (options.plot.parent if options.plot else Path("runs/scaling"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--out is {folder}, which cannot be a folder: {error.strerror}")
    if options.plot:
        try:
            draw(read(options.plot), folder / f"{options.plot.stem}.png")
        except ValueError as error:
            parser.error(f"--plot: {error}")
        return

    base = dict(QUICK if options.quick else BASE)
    base["batch"] = options.batch_size or base["batch"]
    names, boundaries = list(dict.fromkeys(options.only or AXES)), list(dict.fromkeys(options.boundary or BOUNDARIES))
    rounds, longest = (1, 2) if options.quick else (options.rounds, None)
    needed = BYTES_PER_OUTPUT * max(map(elements, points(base, names, longest)))
    if (free := available_bytes(np)) is not None and needed > free:
        parser.error(
            f"this needs some {needed / 2**30:.1f} GiB of memory and {free / 2**30:.1f} GiB are free; "
            f"give a smaller --batch-size than {base['batch']}, or leave sizes out with --only"
        )
    record = describe_machine()
    heading = [f"{key}: {value}" for key, value in record.items()]
    heading += [f"rounds: {rounds}; medians of forward and backward of layer {DEPTH}", ""]
    print(*heading, sep="\n", flush=True)
    record |= measure(base, names, boundaries, rounds, longest)
    record["load afterwards"] = os.getloadavg()
    record = json.loads(json.dumps(record))  # as a later --plot will find it
    record["fits"] = fits(record)
    table = lines(record)
    print(*table, sep="\n")
    (folder / "scaling.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    (folder / "scaling.txt").write_text("\n".join(heading + table) + "\n", encoding="utf-8")
    draw(record, folder / "scaling.png")
    print(f"\nwritten: scaling.json, scaling.txt and scaling.png in {folder}")


if __name__ == "__main__":
    main()
