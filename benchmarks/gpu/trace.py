"""Launches, FLOP and bytes of a training step, counted with no GPU: `python -m benchmarks.gpu.trace`.

CuPy runs on a stand-in for the driver (`driverless.py`), which writes down what one step records as a CUDA graph: every
kernel with its shapes, strides and sizes. From these follow

- FLOP: two for each multiply-add of this project's kernels; others are not counted.
- bytes: what a kernel reads and writes, each element once, an array that several rows of blocks read once for each.
- sectors: the same in whole sectors of 32 bytes, as the threads of a warp touch them. CuPy's kernels walk the elements
  in the C order of the shape, so strides that do not fall along it take more sectors than bytes.
- blocks: how many blocks of a kernel an H100's multiprocessor holds beside each other, the fewest and the most of all
  launches, from the registers and shared memory of what NVRTC compiles.

A bound follows from these, the least time of a step by an H200's bandwidth and products. No time does: on an H200 the
kernels of `hcnn-best` took about five times as long as such a bound.
"""

from train.commands.process import prepare

prepare()  # before NumPy is loaded, as the command line of training does

import argparse
import json
import math
import os
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu.driverless import Array, Driver, Launch, without_driver
from benchmarks.gpu.occupancy import blocks_beside, resources
from hcnn_core._engines.cuda.tensor_plan import BANDWIDTH, FLOAT32, MULTIPLY_ADDS

SECTOR, WARP = 32, 32

DOUBLE = 8
"""Bytes of a number in double precision, which sums over many elements have."""

SIZES = {
    "bool": 1, "char": 1, "signed char": 1, "unsigned char": 1, "short": 2, "int": 4, "unsigned int": 4, "float": 4,
    "double": 8, "long": 8, "long long": 8, "unsigned long long": 8, "complex<float>": 8, "complex<double>": 16,
}  # fmt: skip
"""Bytes of C's types."""

SMALL = 0.02
"""Part of a step's bytes below which CuPy's kernels are shown together."""

MOST_PAGES = 1 << 16
"""Pages of an array that a launch reads, up to which they are counted one by one."""


@dataclass(frozen=True)
class Access:
    """Elements that a launch reads or writes: how many bytes they are, and in how many sectors."""

    bytes: float
    sectors: float
    writes: bool


@dataclass(frozen=True)
class Work:
    """The work of a launch."""

    name: str
    flop: float
    accesses: tuple[Access, ...]


def macros(text: str) -> dict[str, int]:
    """The sizes that a text of ours was compiled with."""
    return {name: int(value) for name, value in re.findall(r"^#define (\w+) (\d+)$", text, re.MULTILINE)}


def work_of(launch: Launch) -> Work:
    """What a launch computes and touches."""
    return _own_work(launch) if launch.own else _cupys_work(launch)


def _met(samples: int, results: int, taps: int, step: int, wraps: int) -> int:
    """How many taps of all results along an axis meet samples."""
    if wraps:
        return results * taps
    last = np.arange(results) * step + taps // 2
    return int(np.maximum(np.minimum(last, samples - 1) - np.maximum(last - taps + 1, 0) + 1, 0).sum())


def phases_of(launch: Launch) -> list[tuple[int, int, Any]]:
    """Taps, lines and what they read, of each phase of `implicit`, or of `implicit_taps`."""
    a = launch.arguments
    if "phases" not in a:
        return [(a["taps"], a["lines"], ())]
    heads = ctypes_array(a["phases"], 3 * launch.grid[2]).reshape(-1, 3).tolist()
    return [(taps, lines, ctypes_array(a["phases"] + 4 * (at + taps), taps * lines)) for taps, lines, at in heads]


def _own_work(launch: Launch) -> Work:
    a, s, (_, gy, gz) = launch.arguments, macros(launch.text), launch.grid
    size = 4 if "using real = float;" in launch.text else 8
    name = launch.name
    accesses: list[Access] = []
    flop = 0.0

    def touch(label: str, elements: float, *, writes: bool = False) -> None:
        if a.get(label):
            accesses.append(Access(elements * size, elements * size, writes))

    match name:
        case "apply" | "correlate":
            rows, columns, positions, run = a["rows"], a["columns"], a["positions"], a["run"]
            flop = 2 * rows * columns * positions * gy
            lines = "sources" if name == "apply" else "x_lines"
            read = _reach(a[lines], a["offsets"], positions // run, columns, run, a["x_entry"])
            if name == "apply":
                touch("x", gy * read * gz)
                touch("matrices", rows * columns * (gy if a["matrix_entry"] else 1))
                touch("out", gy * rows * positions, writes=True)
            else:
                g_tiles = -(-rows // (4 * s["G_TALL"]))
                touch("g", gy * rows * positions * (gz // g_tiles))
                touch("x", gy * read * g_tiles)
                touch("parts", launch.grid[0] * gy * columns * rows, writes=True)
        case "implicit" | "implicit_taps":
            samples, results = s["SAMPLES_1"] * s["SAMPLES_2"], s["RESULTS_1"] * s["RESULTS_2"] * s["FILTERS"]
            axes = [tuple(s[f"{n}_{k}"] for n in ("SAMPLES", "RESULTS", "TAPS", "STEP", "WRAP")) for k in (1, 2)]
            phases = phases_of(launch)
            positions = sum(lines for _, lines, _ in phases) * a["batch"]
            products = sum(taps * lines for taps, lines, _ in phases) * a["batch"]
            flop = 2.0 * products * s["FILTERS"] * math.prod(_met(*axis) for axis in axes)
            if name == "implicit":
                read = sum(len({int(p) for p in reads if p >= 0}) for *_, reads in phases) * a["batch"]
                touch("x", (results if s["BACK"] else samples) * read * gy)
                touch("w", sum(taps for taps, *_ in phases) * s["TAPS_1"] * s["TAPS_2"] * s["FILTERS"])
                touch("out", (samples if s["BACK"] else results) * positions, writes=True)
                touch("marginal", results // s["RESULTS_1"] * positions, writes=True)
                touch("parts", DOUBLE / size * 2 * results * -(-positions // 64), writes=True)
            else:
                touch("g", results * positions * gy)
                touch("x", samples * positions * gy * gz)
                touch("parts", launch.grid[0] * a["taps"] * s["TAPS_1"] * s["TAPS_2"] * s["FILTERS"], writes=True)
        case "summed" | "summed_taps":
            batch, (channels, rows) = a["batch"], (s["CHANNELS"], s["RESULTS"])
            tiles = a.get("tiles", launch.grid[0] // -(-batch // 8))
            read = len({int(p) for p in ctypes_array(a["reads"], tiles * s["EXT"]) if p >= 0}) * batch
            made = sum(int(p) >= 0 for p in ctypes_array(a["targets"], tiles * s["PLACES"])) * batch
            flop = 2.0 * s["ALL_TAPS"] * made * channels * rows
            touch("w", s["ALL_TAPS"] * channels * rows)
            touch("out", rows * made, writes=True)
            touch("g", rows * made * gy)
            touch("x", channels * read * (gy if name == "summed" else -(-s["ALL_TAPS"] // s.get("GROUP", 1)) * gz))
            touch("parts", launch.grid[0] * s["ALL_TAPS"] * channels * rows, writes=True)
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
        case "gram" | "spread":
            elements, taps = a["count"] * a["inner"] * a["samples"], s["TAPS"]
            products = {"gram": taps * (taps + 1) // 2 if s.get("SAME") else taps**2, "spread": s["STEPS"]}
            flop = 2 * elements * products.get(name, 1)
            touch("x", elements)
            if name == "spread":
                touch("other", elements)
                touch("y", elements, writes=True)
            elif name == "gram" and a["y"] != a["x"]:
                touch("y", elements)
        case "covariance_of":
            touch("parts", DOUBLE / size * a["blocks"] * 3 * s["TAPS"] ** 2)
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
            touch("y", elements * a.get("summed", 1))
            touch("skipping", elements)
            touch("answers", elements)
            for written in ("ans", "of_y", "of_argument"):
                touch(written, elements, writes=True)
            sums = DOUBLE / size * (2 if name == "row_sums" else 3) * gy
            if name.startswith("row_sums"):
                touch("parts", sums * launch.grid[0], writes=True)
            elif name == "normalize_rows_back":
                touch("parts", sums * a["blocks"])
        case "join_parts":
            touch("parts", DOUBLE / size * 2 * launch.grid[0] * a["blocks"])
            touch("joined", DOUBLE / size * 2 * launch.grid[0], writes=True)
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
                    accesses += [Access(elements * size, elements * size, writes)] * len(labels)
                accesses.append(Access(parts, parts, name == "muon_grams"))
        case "cross_entropy":
            touch("logits", a["images"] * a["classes"])
            touch("gradient", a["images"] * a["classes"], writes=True)
        case "map_affinely":
            touch("images", a["count"])
            touch("mapped", a["count"], writes=True)
        case "add_terms":
            touch("x", a["outer"] * a["terms"] * a["inner"])
            touch("out", gy * a["outer"] * a["inner"], writes=True)
        case "weigh":
            from hcnn_core._engines.cuda.updates import layout_of

            table = np.frombuffer(a["all"], layout_of("float32" if size == 4 else "float64"))[0]
            for entry in table["sums"][: launch.grid[1]]:
                flop += 2.0 * entry["count"] * entry["terms"]
                moved = float(entry["count"]) * size
                accesses += [*[Access(moved, moved, False)] * int(entry["terms"]), Access(moved, moved, True)]
        case "single" | "single_taps":
            from hcnn_core._engines.cuda.single import AXIS

            axes = np.frombuffer(a["all"], AXIS)
            samples, results, taps = (float(np.prod(axes[n].astype(float))) for n in ("samples", "results", "taps"))
            flop = 2 * results * taps
            touch("x", samples)
            touch("w", taps)
            touch("g", results)
            touch("y", results, writes=True)
            touch("parts", launch.grid[0] * taps, writes=True)
        case _:
            raise ValueError(f"what the kernel {name} touches is not known here")
    return Work(name, flop, tuple(accesses))


def _reach(lines: int, offsets: int, line_count: int, columns: int, run: int, entry: int) -> int:
    """How many elements lines of positions reach by some offsets, from the tables themselves."""
    tables = (ctypes_array(pointer, count).tobytes() for pointer, count in ((lines, line_count), (offsets, columns)))
    return _elements(*tables, run, entry)


@lru_cache(maxsize=4096)
def _elements(lines: bytes, offsets: bytes, run: int, entry: int) -> int:
    starts = np.unique(np.add.outer(np.frombuffer(lines, np.int32), np.frombuffer(offsets, np.int32)))
    page = int(np.gcd.reduce(np.append(np.diff(starts), run)))
    if run // page * starts.size > MOST_PAGES:
        return min(entry, int(np.minimum(np.diff(starts, append=starts[-1] + run), run).sum()))
    return page * np.unique(np.add.outer(starts, np.arange(0, run, page))).size


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
            accesses.append(Access(elements * size, elements * size * factor, not value.constant))
    return Work("CuPy: " + launch.name.partition("__")[0], 0, tuple(accesses))


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
    from benchmarks.inference import SHAPES
    from benchmarks.step import Step
    from train.runs.step import WARM_UP

    step = Step(preset, boundary, batch_size, cupy, shape=SHAPES.get(preset, (32, 32, 3)), **changes)
    for _ in range(WARM_UP):
        step()
    driver.listening = True
    step()
    if step.take.launch is None or driver.refused:
        raise SystemExit(f"the step was not recorded: {driver.refused[:1]}")
    return driver.recorded


COLUMNS = ("launches", "GFLOP", "GB", "GB written", "GB of sectors")


def summary(launches: list[Launch]) -> dict[str, Any]:
    """Totals of some launches, by kernel."""
    kernels: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for launch in launches:
        work = work_of(launch)
        row = kernels[work.name]
        row["launches"] += 1
        row["GFLOP"] += work.flop / 1e9
        for access in work.accesses:
            row["GB"] += access.bytes / 1e9
            row["GB written"] += access.bytes / 1e9 if access.writes else 0
            row["GB of sectors"] += access.sectors / 1e9
    ordered = sorted(kernels.items(), key=lambda item: -item[1]["GB of sectors"])
    total: dict[str, float] = defaultdict(float)
    for _, row in ordered:
        for key, value in row.items():
            total[key] += value
    return {"kernels": {name: dict(row) for name, row in ordered}, "total": dict(total)}


def occupancies(launches: Iterable[Launch]) -> dict[str, Any]:
    """The fewest and the most blocks of each of this project's kernels, over its launches."""
    found: dict[str, list[int]] = {}
    for launch in launches:
        if launch.own:
            registers, shared = resources(launch.text, launch.name)
            found.setdefault(launch.name, []).append(blocks_beside(launch.block, registers, shared + launch.shared))
    return {name: (min(counts), max(counts)) for name, counts in found.items()}


def least(found: dict[str, Any], products: str) -> float:
    """Milliseconds that no H200 can undercut: of each kernel its bytes or its products, whichever take longer."""
    total = 0.0
    for name, row in found["kernels"].items():
        by_mma = products == "tf32" and name.startswith(("implicit", "summed"))
        flop = 2 * (MULTIPLY_ADDS if by_mma else FLOAT32)
        total += max(row.get("GB", 0) / BANDWIDTH, row["GFLOP"] / flop)
    return 1e12 * total


def lines(found: dict[str, Any]) -> Iterator[str]:
    """A table by kernel."""
    yield "| kernel | " + " | ".join([*COLUMNS, "blocks"]) + " |"
    yield "| --- |" + " --- |" * (len(COLUMNS) + 1)
    shown: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for name, row in found["kernels"].items():
        small = name.startswith("CuPy") and row["GB of sectors"] < SMALL * found["total"]["GB of sectors"]
        for key, value in row.items():
            shown["CuPy: others" if small else name][key] += value
    for name, row in (*shown.items(), ("total", found["total"])):
        cells = [f"{row.get(c, 0):,.0f}" if c in COLUMNS[:2] else f"{row.get(c, 0):.2f}" for c in COLUMNS]
        least, most = found["blocks"].get(name, ("", ""))
        cells.append(f"{least}" if least == most else f"{least} to {most}")
        yield f"| {name} | " + " | ".join(cells) + " |"


def main() -> None:
    """Trace one step and print what it does."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="hcnn")
    parser.add_argument("--boundary", help="of hierarchical networks, where it is not the preset's")
    parser.add_argument("--batch-size", type=int, default=50)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--depth", type=int, help="J, where it is not the preset's")
    parser.add_argument("--skip", help="of hierarchical networks: aligned")
    parser.add_argument("--size", type=int, help="rows and columns that images of 32 x 32 are brought to")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()

    cupy, driver = without_driver()
    more: dict[str, Any] = {} if options.depth is None else {"depth": options.depth}
    if options.skip is not None:
        more["skip"] = options.skip
    if options.size is not None:
        more["size"] = (options.size, options.size)
    launches = listen(
        cupy, driver, options.preset, options.boundary, options.batch_size, precision=options.precision, **more
    )
    found = summary(launches)
    found["blocks"] = occupancies(launches)
    found["GiB held"] = driver.peak / 2**30
    boundary = "" if options.boundary is None else f", {options.boundary} boundary"
    boundary += "" if options.skip is None else f", {options.skip} skips"
    title = f"{options.preset}{boundary}, batch of {options.batch_size}, {options.precision}"
    found["least ms"] = least(found, options.precision)
    print(f"{title}: a step as recorded, {found['GiB held']:.1f} GiB of memory, least {found['least ms']:.1f} ms\n")
    print("\n".join(lines(found)))
    if options.json:
        options.json.write_text(json.dumps(vars(options) | found, indent=1, default=str) + "\n")
    sys.stdout.flush()
    os._exit(0)  # what CuPy does when it is unloaded is not ours to see


if __name__ == "__main__":
    main()
