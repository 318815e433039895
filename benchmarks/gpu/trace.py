"""Launches, FLOP, bytes and a predicted time of a training step, with no GPU: `python -m benchmarks.gpu.trace`.

CuPy runs on a stand-in for the driver (`driverless.py`), which writes down what one step records as a CUDA graph: every
kernel with its shapes, strides and sizes. From these follow

- FLOP: two for each multiply-add of this project's kernels; others are not counted.
- bytes: what a kernel reads and writes, each element once, an array that several rows of blocks read once for each.
- sectors: the same in whole sectors of 32 bytes, as the threads of a warp touch them. CuPy's kernels walk the elements
  in the C order of the shape, so strides that do not fall along it take more sectors than bytes.
- DRAM: sectors that the L2 cache does not hold: it keeps what was used last, as long as it has room, and writes back
  what it drops.
- ms: the longer of FLOP at `RATES` and of DRAM sectors at the card's bandwidth, and `LAUNCH` for each launch. The rates
  are assumptions, not measurements; no figure here was measured on a GPU.
- blocks: how many blocks of a kernel an H100's multiprocessor holds beside each other, the fewest and the most of all
  launches, from the registers and shared memory of what NVRTC compiles. They are no part of the prediction.
"""

from train.commands.process import prepare

prepare()  # before NumPy is loaded, as the command line of training does

import argparse  # noqa: E402
import json  # noqa: E402
import math  # noqa: E402
import os  # noqa: E402
import re  # noqa: E402
import sys  # noqa: E402
from collections import OrderedDict, defaultdict  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from dataclasses import dataclass  # noqa: E402
from functools import lru_cache  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402

from benchmarks.gpu.driverless import Array, Driver, Launch, without_driver  # noqa: E402
from benchmarks.gpu.occupancy import occupancies  # noqa: E402

IMAGES = 50_000
"""Of CIFAR-10's training set."""

SECTOR, WARP = 32, 32

DOUBLE = 8
"""Bytes of a number in double precision, which sums over many elements have."""

SIZES = {
    "bool": 1, "char": 1, "signed char": 1, "unsigned char": 1, "short": 2, "int": 4, "unsigned int": 4, "float": 4,
    "double": 8, "long": 8, "long long": 8, "unsigned long long": 8,
}  # fmt: skip
"""Bytes of C's types."""

LAUNCH = 2.0e-6
"""Seconds between the beginnings of two kernels of a graph that take no time themselves."""

RATES = {"apply": 35e12, "correlate": 29e12, "map_rows": 35e12, "gram": 14e12, "spread": 14e12}
"""FLOP a second assumed of the kernels in float32, about half of a Hopper card's peak for those whose operands wait in
registers and a fifth for those that compute an index for each."""

TENSOR_RATES = {1: {"apply": 110e12, "correlate": 97e12}, 3: {"apply": 40e12, "correlate": 35e12}}
"""The same by tensor cores, by passes: about a quarter of the peak of `mma.sync`."""

OTHER_RATE = 5e12


@dataclass(frozen=True)
class Card:
    """What a prediction asks of a card: bytes a second of a large copy, and bytes of L2 cache."""

    bandwidth: float
    cache: int


CARDS = {"H100": Card(3.0e12, 50 << 20), "H200": Card(4.3e12, 60 << 20)}

SMALL = 0.02
"""Part of a step below which CuPy's kernels are shown together."""

MOST_PAGES = 1 << 16
"""Pages of an array that a launch reads, up to which the cache is asked for each."""

RESIDENT = 0.5
"""Part of the L2 cache that is taken to hold what was used last."""


@dataclass(frozen=True)
class Access:
    """Elements that a launch reads or writes: where they begin, how many bytes they are, and in how many sectors."""

    pointer: int
    bytes: float
    sectors: float
    writes: bool


@dataclass(frozen=True)
class Work:
    """What a launch does."""

    name: str
    flop: float
    rate: float
    accesses: tuple[Access, ...]


class Cache:
    """Regions of memory that a cache holds: the least recently used are dropped, changed ones written back then."""

    def __init__(self, room: float) -> None:
        self.room, self.used = room, 0.0
        self.held: OrderedDict[int, tuple[float, bool]] = OrderedDict()
        self.written_back = 0.0

    def moved(self, access: Access) -> float:
        """Sectors read from memory, or written back to it, because of an access."""
        before = self.written_back
        sectors, changed = self.held.pop(access.pointer, (0.0, False))
        self.used -= sectors
        fetched = 0.0 if access.writes or sectors >= access.sectors else access.sectors
        if access.sectors > self.room:  # it passes through, and drives all else out
            self._drop_to(0)
            return (access.sectors if access.writes else fetched) + self.written_back - before
        self._drop_to(self.room - access.sectors)
        self.held[access.pointer] = (max(sectors, access.sectors), changed or access.writes)
        self.used += self.held[access.pointer][0]
        return fetched + self.written_back - before

    def _drop_to(self, room: float) -> None:
        while self.held and self.used > room:
            _, (sectors, changed) = self.held.popitem(last=False)
            self.used -= sectors
            self.written_back += sectors if changed else 0


def macros(text: str) -> dict[str, int]:
    """The sizes that a text of ours was compiled with."""
    return {name: int(value) for name, value in re.findall(r"^#define (\w+) (\d+)$", text, re.MULTILINE)}


def work_of(launch: Launch) -> Work:
    """What a launch computes and touches."""
    return _own_work(launch) if launch.own else _cupys_work(launch)


def _own_work(launch: Launch) -> Work:
    a, s, (_, gy, gz) = launch.arguments, macros(launch.text), launch.grid
    size = 4 if "using real = float;" in launch.text else 8
    name = launch.name
    accesses: list[Access] = []
    flop = 0.0

    def touch(label: str, elements: float, *, writes: bool = False, at: int = 0) -> None:
        if pointer := a.get(label):
            accesses.append(Access(pointer + at * size, elements * size, elements * size, writes))

    match name:
        case "apply" | "correlate":
            rows, columns, positions, run = a["rows"], a["columns"], a["positions"], a["run"]
            flop = 2 * rows * columns * positions * gy
            lines = "sources" if name == "apply" else "x_lines"
            size_of_page, pages = _reach(a[lines], a["offsets"], positions // run, columns, run, a["x_entry"])
            read = size_of_page * len(pages)
            if name == "apply":
                for page in pages:
                    touch("x", gy * size_of_page * gz, at=page)
                touch("matrices", rows * columns * (gy if a["matrix_entry"] else 1))
                touch("out", gy * rows * positions, writes=True)
            else:
                g_tiles = -(-rows // (4 * s["G_TALL"]))
                touch("g", gy * rows * positions * (gz // g_tiles))
                touch("x", gy * read * g_tiles)
                touch("parts", launch.grid[0] * (launch.block // WARP) * gy * columns * rows, writes=True)
        case "map_rows":
            outs = s["SECOND_GROUPS"] * s["SECOND_ROWS"]
            per_position = outs * s["SECOND_DEPTH"] + s["FIRST_GROUPS"] * s["FIRST_ROWS"] * s["FIRST_DEPTH"]
            flop = 2 * per_position * a["positions"] * gy
            read = min(a["positions"], a["x_row"])
            touch("x", a.get("x_rows", s["IN_ROWS"]) * gy * read)
            touch("answers", s["IN_ROWS"] * gy * read)
            touch("sums", s["IN_ROWS"] * gy * launch.grid[0], writes=True)
            touch("out", outs * gy * a["positions"], writes=True)
            touch("marginal", outs // a.get("summed", 1) * gy * a["positions"], writes=True)
        case "extend":
            touch("x", gy * min(a["x_row"], a["positions"]))
            touch("answers", gy * min(a["x_row"], a["positions"]))
            touch("sums", gy * launch.grid[0], writes=True)
            touch("out", gy * a["positions"], writes=True)
        case "gram" | "spread" | "place_sums":
            elements, taps = a["count"] * a["inner"] * a["samples"], s["TAPS"]
            products = {"gram": taps * (taps + 1) // 2 if s.get("SAME") else taps**2, "spread": s["STEPS"]}
            flop = 2 * elements * products.get(name, 1)
            touch("x", elements)
            if name == "spread":
                touch("other", elements)
                touch("y", elements, writes=True)
            elif name == "gram" and a["y"] != a["x"]:
                touch("y", elements)
        case "centre_of" | "covariance_of":
            touch("parts", 2 * a["blocks"] * (a["count"] if name == "centre_of" else s["TAPS"] ** 2))
        case "multiply":
            m, n, depth = a["rows"], a["columns"], a["depth"]
            flop = 2 * m * n * depth
            touch("x", m * depth)
            touch("y", n * depth)
            touch("out", m * n, writes=True)
        case "normalize" | "normalize_back":
            touch("h", a["count"] * s["FILTER_TAPS"])
            touch("covariance", s["FILTER_TAPS"] ** 2)
            touch("g_filters", a.get("parts", 1) * a["count"] * (s["FILTER_TAPS"] + 1))
            touch("filters" if name == "normalize" else "of_h", a["count"] * s["FILTER_TAPS"], writes=True)
        case "merge" | "merge_back":
            rows, elements = s["FILTER_TAPS"] + 1, a["across"] * a["kernels"]
            flop = 2 * rows * a["count"] * elements * (1 if name == "merge" else 2)
            touch("h", a["count"] * s["FILTER_TAPS"])
            touch("g", a["count"] * elements)
            touch("w", s["FILTER_TAPS"] * elements, writes=True)
            touch("shift", a["places"] * a["kernels"], writes=True)
            touch("g_w", s["FILTER_TAPS"] * elements)
            touch("g_shift", a["places"] * a["kernels"])
            touch("of_g", a["count"] * elements, writes=True)
            touch("parts", a["kernels"] * rows * a["count"], writes=True)
        case "row_sums" | "row_sums_back" | "normalize_rows" | "normalize_rows_back":
            elements = gy * a["positions"]
            read = len(set(ctypes_array(a["g_rows"], gy).tolist())) if a.get("g_rows") else gy
            touch("g", read * a["positions"])
            touch("y", elements)
            touch("ans", elements, writes=True)
            touch("of_y", elements, writes=True)
            sums = DOUBLE / size * (2 if name == "row_sums" else 3) * gy
            if name.startswith("row_sums"):
                touch("parts", sums * launch.grid[0], writes=True)
            elif name == "normalize_rows_back":
                touch("parts", sums * a["blocks"])
        case "channel_moments" | "channel_sums_back":
            touch("parts", DOUBLE / size * (2 if name == "channel_moments" else 3) * a["rows"] * a["blocks"])
        case "muon_grams" | "muon_polynomials" | "muon_moves":
            from hcnn_core._engines.cuda.muon import layout_of as layout_of_matrices

            table = np.frombuffer(a["all"], layout_of_matrices("float32" if size == 4 else "float64"))[0]
            for m in table["matrix"][: launch.grid[0] if name == "muon_polynomials" else gy]:
                elements, square = float(m["rows"]) * float(m["columns"]), float(m["columns"]) ** 2
                parts = DOUBLE * square * (launch.grid[0] if name == "muon_grams" else a.get("blocks", 1))
                moved = {
                    "muon_grams": ((("gradient", "velocity"), False), (("new_velocity",), True)),
                    "muon_moves": ((("weight", "gradient", "new_velocity"), False), (("new_weight",), True)),
                }.get(name, ())
                flop += {"muon_polynomials": 40 * square * float(m["columns"])}.get(name, 2 * elements * m["columns"])
                for labels, writes in moved:
                    accesses += [Access(int(m[label]), elements * size, elements * size, writes) for label in labels]
                pointer = a["polynomials"] if name == "muon_moves" else a["parts"]
                accesses.append(Access(pointer, parts, parts, name == "muon_grams"))
        case "cross_entropy":
            touch("logits", a["images"] * a["classes"])
            touch("gradient", a["images"] * a["classes"], writes=True)
        case "weigh":
            from hcnn_core._engines.cuda.updates import layout_of

            table = np.frombuffer(a["all"], layout_of("float32" if size == 4 else "float64"))[0]
            for entry in table["sums"][: launch.grid[1]]:
                flop += 2.0 * entry["count"] * entry["terms"]
                for pointer in (*entry["term"]["array"][: entry["terms"]], entry["out"]):
                    moved = float(entry["count"]) * size
                    accesses.append(Access(int(pointer), moved, moved, pointer == entry["out"]))
        case _:
            raise ValueError(f"what the kernel {name} touches is not known here")
    rates = TENSOR_RATES[s["PASSES"]] if "PASSES" in s else RATES
    return Work(name, flop, rates.get(name, OTHER_RATE), tuple(accesses))


def _reach(
    lines: int, offsets: int, line_count: int, columns: int, run: int, entry: int
) -> tuple[int, tuple[int, ...]]:
    """What lines of positions reach by some offsets, from the tables themselves: pages, their size and beginnings."""
    tables = (ctypes_array(pointer, count).tobytes() for pointer, count in ((lines, line_count), (offsets, columns)))
    return _pages(*tables, run, entry)


@lru_cache(maxsize=4096)
def _pages(lines: bytes, offsets: bytes, run: int, entry: int) -> tuple[int, tuple[int, ...]]:
    starts = np.unique(np.add.outer(np.frombuffer(lines, np.int32), np.frombuffer(offsets, np.int32)))
    page = int(np.gcd.reduce(np.append(np.diff(starts), run)))
    if run // page * starts.size > MOST_PAGES:
        union = int(np.minimum(np.diff(starts, append=starts[-1] + run), run).sum())
        return min(entry, union), (int(starts[0]),)
    return page, tuple(map(int, np.unique(np.add.outer(starts, np.arange(0, run, page)))))


def ctypes_array(pointer: int, count: int) -> np.ndarray[Any, np.dtype[np.int32]]:
    """A table where the stand-in keeps it."""
    import ctypes

    return np.frombuffer((ctypes.c_int32 * count).from_address(pointer), np.int32)


def _cupys_work(launch: Launch) -> Work:
    accesses = []
    # a reduction takes so many neighbouring results at a time, and terms that lie that many elements apart
    stride = launch.arguments.get("_block_stride")
    outs = [v for v in launch.arguments.values() if isinstance(v, Array) and not v.constant]
    step = math.prod(outs[0].shape) if stride and outs else None
    for value in launch.arguments.values():
        if isinstance(value, Array) and math.prod(value.shape, start=1):
            size = SIZES.get(value.type, 4)
            elements = math.prod(n for n, step in zip(value.shape, value.strides, strict=True) if step)
            lanes = None if step is None or not value.constant else (stride, step)
            factor = spread_of(value.shape, value.strides, size, lanes)
            accesses.append(Access(value.pointer, elements * size, elements * size * factor, not value.constant))
    return Work("CuPy: " + launch.name.partition("__")[0], 0, OTHER_RATE, tuple(accesses))


@lru_cache(maxsize=4096)
def spread_of(shape: tuple[int, ...], strides: tuple[int, ...], size: int, lanes: tuple[int, int] | None) -> float:
    """Sectors that a warp touches, over those that its elements fill where they lie together.

    Its lanes take neighbouring elements, or, of a reduction, some neighbours and then those a step further.
    """
    along = [(n, step) for n, step in zip(shape, strides, strict=True) if n > 1]
    elements = math.prod(n for n, _ in along)
    places = set()
    for lane in range(min(WARP, elements)):
        index = lane if lanes is None else (lane // lanes[0] * lanes[1] + lane % min(lanes)) % elements
        place = 0
        for n, step in reversed(along):
            place, index = place + index % n * step, index // n
        places.add(place)
    return len({place // SECTOR for place in places}) / max(1.0, len(places) * size / SECTOR)


def listen(
    cupy: Any, driver: Driver, preset: str, boundary: str | None, batch_size: int, **changes: Any
) -> list[Launch]:
    """What a step of training records, after those that are not."""
    from benchmarks.step import Step
    from train.runs.step import WARM_UP

    step = Step(preset, boundary, batch_size, cupy, **changes)
    for _ in range(WARM_UP):
        step()
    driver.listening = True
    step()
    if step.take.launch is None or driver.refused:
        raise SystemExit(f"the step was not recorded: {driver.refused[:1]}")
    return driver.recorded


def summary(launches: list[Launch]) -> dict[str, Any]:
    """Totals of some launches, by kernel, and predictions by card."""
    caches = {name: Cache(RESIDENT * card.cache) for name, card in CARDS.items()}
    kernels: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for launch in launches:
        work = work_of(launch)
        row = kernels[work.name]
        row["launches"] += 1
        row["GFLOP"] += work.flop / 1e9
        for access in work.accesses:
            row["GB"] += access.bytes / 1e9
            row["GB of sectors"] += access.sectors / 1e9
        for name, card in CARDS.items():
            moved = sum(map(caches[name].moved, work.accesses))
            row[f"GB of DRAM, {name}"] += moved / 1e9
            row[f"ms, {name}"] += 1e3 * (LAUNCH + max(work.flop / work.rate, moved / card.bandwidth))
    ordered = sorted(kernels.items(), key=lambda item: -item[1][f"ms, {next(iter(CARDS))}"])
    total: dict[str, float] = defaultdict(float)
    for _, row in ordered:
        for key, value in row.items():
            total[key] += value
    return {"kernels": {name: dict(row) for name, row in ordered}, "total": dict(total)}


def lines(found: dict[str, Any], batch_size: int) -> Iterator[str]:
    """A table by kernel, and the epochs predicted."""
    columns = [
        "launches",
        "GFLOP",
        "GB",
        "GB of sectors",
        *(f"{what}, {c}" for c in CARDS for what in ("GB of DRAM", "ms")),
    ]
    yield "| kernel | " + " | ".join([*columns, "blocks"]) + " |"
    yield "| --- |" + " --- |" * (len(columns) + 1)
    shown: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for name, row in found["kernels"].items():
        small = name.startswith("CuPy") and row["ms, H100"] < SMALL * found["total"]["ms, H100"]
        for key, value in row.items():
            shown["CuPy: others" if small else name][key] += value
    for name, row in (*shown.items(), ("total", found["total"])):
        cells = [f"{row.get(c, 0):,.0f}" if c in ("launches", "GFLOP") else f"{row.get(c, 0):.2f}" for c in columns]
        least, most = found["blocks"].get(name, ("", ""))
        cells.append(f"{least}" if least == most else f"{least} to {most}")
        yield f"| {name} | " + " | ".join(cells) + " |"
    yield ""
    for card in CARDS:
        seconds = IMAGES / batch_size * found["total"][f"ms, {card}"] / 1e3
        yield f"predicted epoch of {IMAGES:,} images on an {card}: {seconds:.1f} s"


def main() -> None:
    """Trace one step and print what it does."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="hcnn")
    parser.add_argument("--boundary", help="of hierarchical networks, where it is not the preset's")
    parser.add_argument("--batch-size", type=int, default=50)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--depth", type=int, help="J, where it is not the preset's")
    parser.add_argument("--size", type=int, help="rows and columns that images of 32 x 32 are brought to")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()

    cupy, driver = without_driver()
    more: dict[str, Any] = {} if options.depth is None else {"depth": options.depth}
    if options.size is not None:
        more["size"] = (options.size, options.size)
    launches = listen(
        cupy, driver, options.preset, options.boundary, options.batch_size, precision=options.precision, **more
    )
    found = summary(launches)
    found["blocks"] = occupancies(launches)
    found["GiB held"] = driver.peak / 2**30
    boundary = "" if options.boundary is None else f", {options.boundary} boundary"
    title = f"{options.preset}{boundary}, batch of {options.batch_size}, {options.precision}"
    print(f"{title}: a step as recorded, {found['GiB held']:.1f} GiB of memory\n")
    print("\n".join(lines(found, options.batch_size)))
    if options.json:
        options.json.write_text(json.dumps(vars(options) | found, indent=1, default=str) + "\n")
    sys.stdout.flush()
    os._exit(0)  # what CuPy does when it is unloaded is not ours to see


if __name__ == "__main__":
    main()
