"""Instructions of a step's kernels, counted with no GPU: `python -m benchmarks.gpu.instructions hcnn-best:tf32:100:32`.

For each kernel of a step of preset:precision:batch:side, and for three devices: instructions and tensor-core products
(mma) of one pass of its main loop, registers, spilled bytes, blocks that a multiprocessor holds beside each other,
waves of each launch, and the least time of all launches. It wants NVRTC, which comes with CuPy, and
`pip install nvidia-cuda-nvdisasm`.

A launch takes as long as the longest of three: its bytes at the device's bandwidth; its mma; and its instructions, one
a cycle and scheduler, on the multiprocessor with the most blocks. These are counted in the machine code:

- With mma, the main loop is the outermost loop that holds one. A loop inside it counts as often as its mma or its
  copies to shared memory must be made, or rounded; a stretch of code with mma counts as often as tiles meet taps, all
  else once. What stands before and after the main loop is not counted.
- Without mma, loops count as often as their writes (or, where they have none, their reads) are made; code without loops
  counts once; and there is an instruction for each multiply-add at least.
- Of CuPy's kernels only bytes count.

A floor is no prediction: kernels of earlier commits took 2.2 to 3.6 times as long as this (gpu-h200/README.md).

`--device H200 SPEC FILE` also writes what `peers profile` sets beside a card's times: a line for each launch of a
kernel of this project, in their order, with its grid, bytes, multiply-adds, and least microseconds.
"""

from train.commands.process import prepare

prepare()  # before NumPy is loaded, as the command line of training does

import math
import os
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from benchmarks.gpu.driverless import Launch, without_driver
from benchmarks.gpu.occupancy import DEVICES, RESERVED, SCHEDULERS, Device, blocks_beside, sections
from benchmarks.gpu.trace import listen, macros, phases_of, work_of
from hcnn_core._engines.cuda.launch import LANES, OPTIONS

MMA = 1024
"""Multiply-adds of one mma (16 x 8 x 8)."""


@dataclass(frozen=True)
class Code:
    """Machine code of a kernel: its blocks between labels and branches, and the loops, as ranges of blocks."""

    blocks: tuple[tuple[str, ...], ...]
    loops: tuple[tuple[int, int], ...]

    def count(self, what: str, first: int = 0, last: int | None = None) -> int:
        """Instructions of a kind, by a regular expression, in a range of blocks."""
        last = len(self.blocks) - 1 if last is None else last
        return sum(bool(re.match(what, line)) for block in self.blocks[first : last + 1] for line in block)

    def inside(self, loop: tuple[int, int]) -> list[tuple[int, int]]:
        """Loops inside a loop."""
        return [other for other in self.loops if other != loop and loop[0] <= other[0] and other[1] <= loop[1]]


def code_of(listing: str) -> Code:
    """The code of one kernel, as nvdisasm lists it."""
    blocks: list[list[str]] = [[]]
    labels: dict[str, int] = {}
    branches: list[tuple[int, str]] = []
    for line in listing.splitlines():
        if label := re.match(r"\s*(\.L_x_\d+):", line):
            if blocks[-1]:
                blocks.append([])
            labels[label[1]] = len(blocks) - 1
        elif found := re.match(r"\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\d+\s+)?(.*?)\s*;", line):
            if found[1].startswith("NOP"):
                continue
            blocks[-1].append(found[1])
            if target := re.match(r"BRA(?:\.\S+)? .*`\((\.L_x_\d+)\)", found[1]):
                branches.append((len(blocks) - 1, target[1]))
            if found[1].startswith(("BRA", "EXIT", "RET")):
                blocks.append([])
    back = sorted({(labels[to], at) for at, to in branches if labels[to] <= at and "DIV" not in blocks[at][-1]})
    ends: dict[int, int] = {}
    for first, last in back:
        ends[first] = max(last, ends.get(first, last))
    return Code(tuple(map(tuple, blocks)), tuple((a, b) for a, b in ends.items() if a != b or len(blocks[a]) > 1))


@lru_cache(maxsize=1024)
def compiled(text: str, name: str, architecture: str) -> tuple[Code, int, int, int]:
    """Code of a kernel, its registers, spilled bytes, and bytes of shared memory that it declares."""
    from cupy.cuda import compiler
    from cupy_backends.cuda.libs.nvrtc import getProgramLog

    program = compiler._NVRTCProgram(text, "kernels.cu", method="cubin")
    binary = (
        program.compile((f"-arch={architecture}", "--ptxas-options=-v", *OPTIONS))[0] + b"\0"
    )  # which CuPy cuts off
    log = getProgramLog(program.ptr)
    said = re.search(rf"'{name}'.*?(\d+) bytes stack frame.*?Used (\d+) registers", log, re.DOTALL)
    assert said, log
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernels.cubin"
        path.write_bytes(binary)
        listing = subprocess.run([disassembler(), "-c", path], check=True, capture_output=True, text=True).stdout
    own = re.search(rf"^\.text\.{name}:\n(.*?)(?=^\t?\.section|\Z)", listing, re.DOTALL | re.MULTILINE)
    assert own, f"nvdisasm lists no {name}"
    return (
        code_of(own[1]),
        int(said[2]),
        int(said[1]),
        max(RESERVED, len(sections(binary).get(f".nv.shared.{name}", b""))),
    )


def disassembler() -> str:
    """Where nvdisasm lies, as its package from PyPI or CUDA's toolkit has it."""
    import shutil
    from importlib.metadata import PackageNotFoundError, files

    try:
        return str(next(p for p in files("nvidia-cuda-nvdisasm") or () if p.name == "nvdisasm").locate())
    except PackageNotFoundError:
        if path := shutil.which("nvdisasm"):
            return path
        raise SystemExit("no nvdisasm: pip install nvidia-cuda-nvdisasm") from None


@dataclass(frozen=True)
class Passes:
    """What a launch with mma does."""

    count: float
    """Passes of a warp."""
    mma: float
    """Of one pass, if all tiles met taps; and as they do."""
    met: float
    copies: float = 0
    """To shared memory, of a thread in one pass."""


def passes_of(launch: Launch) -> Passes:
    """What a launch's main loop does, from its sizes."""
    s, a, across = macros(launch.text), launch.arguments, launch.grid[0]
    warps = launch.block // LANES
    match launch.name:
        case "implicit":
            back, padded, wide = s["BACK"], -(-s["FILTERS"] // 16), -(-s["SAMPLES_2"] // 16)
            parts = s["RESULTS_1"] * s["RESULTS_2"] * padded if back else s["SAMPLES_1"] * wide
            products = sum(map(len, met(s, 1, 1))) * padded * 8
            products *= s["RESULTS_2"] * wide * 2 if back else sum(map(len, met(s, 2, 8)))
            # blocks of phases with few taps, or none, leave early: as if all blocks did the same
            columns = sum(taps * -(-lines * a["batch"] // 64) for taps, lines, _ in phases_of(launch))
            count = columns * -(-parts // s["SHARES"]) / math.prod(launch.grid[::2])
            made = products * columns / (count * math.prod(launch.grid) * warps)
            return Passes(count, 2 * s["TILES"] * 8, made)
        case "implicit_taps":
            chunks = -(-a["lines"] * a["batch"] // s["POSITIONS"])
            tiles = -(-s["TAPS_2"] // 8) * s["GROUP"]
            products = sum(1 for n in range(s["RESULTS_1"]) for _ in reads(s, 1, n)) * tiles * s["POSITIONS"] // 8
            of_warp = -(-s["RESULTS_2"] // warps)
            rows = s["RESULTS_1"] * s["RESULTS_2"] * 16 + s["GROUP"] * s["SAMPLES_1"] * s["SAMPLES_2"]
            return Passes(
                -(-chunks // across),
                products * of_warp,
                products * of_warp,
                rows * s["POSITIONS"] / launch.block / s["PIECE"],
            )
        case "summed":
            rows, stages = 16 * s["TILES"], -(-s["CHANNELS"] // 8)
            mma = s["ALL_TAPS"] * s["TILES"] * 8
            copies = (s["ALL_TAPS"] * 8 * rows / s["W_PIECE"] + 64 * s["EXT"] / s["PIECE"]) / launch.block
            return Passes(stages, mma, mma, copies)
        case "summed_taps":
            chunks = a["tiles"] * -(-a["batch"] // 8)
            mma = s["PLACES"] // (warps // s["OCTETS"]) * s["GROUP"] * s["TILES"]
            copies = 8 * (16 * s["TILES"] * s["PLACES"] + 8 * s["OCTETS"] * s["EXT"]) / launch.block / s["PIECE"]
            return Passes(-(-chunks // across), mma, mma, copies)
    raise ValueError(f"the main loop of {launch.name} is not known here")


def reads(s: dict[str, int], axis: int, result: int) -> Iterable[int]:
    """Samples that a result along an axis of attributes reads."""
    samples, taps, step, wraps = (s[f"{name}_{axis}"] for name in ("SAMPLES", "TAPS", "STEP", "WRAP"))
    places = (step * result - tap + taps // 2 for tap in range(taps))
    return {p % samples for p in places} if wraps else [p for p in places if 0 <= p < samples]


def met(s: dict[str, int], axis: int, tile: int) -> list[set[int]]:
    """Tiles of samples that each result along an axis meets."""
    tiles = -(-s[f"SAMPLES_{axis}"] // tile)
    whole = s[f"WRAP_{axis}"] and tile > 1
    return [set(range(tiles)) if whole else {p // tile for p in reads(s, axis, n)} for n in range(s[f"RESULTS_{axis}"])]


def pass_instructions(code: Code, p: Passes) -> float:
    """Instructions of a pass of the main loop."""
    holding = [loop for loop in code.loops if code.count("HMMA", *loop)]
    main = max(holding, key=lambda loop: loop[1] - loop[0])
    inner = code.inside(main)
    smallest = min(holding, key=lambda loop: loop[1] - loop[0])
    products = code.count("HMMA", *smallest)
    total = 0.0
    for at in range(main[0], main[1] + 1):
        around, often = [loop for loop in inner if loop[0] <= at <= loop[1]], 1.0
        copying = next((w for w in ("LDGSTS", "STS") if any(code.count(w, *loop) for loop in around)), None)
        if any(code.count("HMMA", *loop) for loop in around) or (main == smallest and not copying):
            often = p.mma / products
        elif copying:
            often = p.copies / code.count(copying, *main)
        if code.count("HMMA", at, at):
            often *= p.met / p.mma
        total += often * len(code.blocks[at])
    return total


def instructions_of(code: Code, launch: Launch) -> float:
    """Instructions of all warps of a launch without mma."""
    warps = math.prod(launch.grid) * -(-launch.block // LANES)
    least = work_of(launch).flop / 2 / LANES  # a multiply-add of a thread is an instruction
    for what, writes in ((r"STG", True), (r"LDG", False)):
        of_loops = {at for loop in code.loops if code.count(what, *loop) for at in range(loop[0], loop[1] + 1)}
        lines = [line for at in of_loops for line in code.blocks[at]]
        widths = [
            int(n[1]) // 8 if (n := re.search(r"\.(64|128)\b", line)) else 4 for line in lines if line.startswith(what)
        ]
        moved = sum(access.bytes for access in work_of(launch).accesses if access.writes == writes)
        if widths and moved:
            return max(least, len(lines) * moved / LANES / sum(widths))
    return max(least, float(warps * sum(map(len, code.blocks))))


@dataclass
class Row:
    """A kernel, as it is launched with the same sizes."""

    label: str
    launches: int
    waves: str
    loop: float
    mma: float
    registers: int
    spilled: int
    beside: int
    bytes: float = 0
    issued: float = 0
    products: float = 0
    least: float = 0


def row_of(launch: Launch, device: Device) -> Row:
    """What one launch takes, in seconds."""
    work = work_of(launch)
    moved = sum(access.bytes for access in work.accesses) / device.bandwidth
    if not launch.own:
        return Row(work.name, 1, "", 0, 0, 0, 0, 0, moved, least=moved)
    code, registers, spilled, declared = compiled(launch.text, launch.name, device.architecture)
    blocks, warps = math.prod(launch.grid), -(-launch.block // LANES)
    most = -(-blocks // device.multiprocessors)  # blocks of one multiprocessor, beside each other or not
    beside = blocks_beside(launch.block, registers, declared + launch.shared, device)
    sizes = macros(launch.text)
    label = launch.name + {0: ", forward", 1: ", back"}.get(sizes.get("BACK", 2), "")
    loop = mma = products = 0.0
    if launch.name.startswith(("implicit", "summed")):
        p = passes_of(launch)
        loop, mma = pass_instructions(code, p), p.met
        cycles = -(-most * warps // SCHEDULERS) * p.count * loop
        made = p.count * p.met * warps * most * device.multiprocessors
        products = made * MMA / device.multiply_adds
    else:
        cycles = instructions_of(code, launch) / (SCHEDULERS * device.multiprocessors)
        loop = sum(len(code.blocks[at]) for at in {at for a, b in code.loops for at in range(a, b + 1)})
    issued = cycles / device.clock
    waves = f"{blocks / (beside * device.multiprocessors):.1f}"
    least = max(moved, issued, products)
    return Row(label, 1, waves, loop, mma, registers, spilled, beside, moved, issued, products, least)


COLUMNS = "launches", "waves", "instructions", "mma", "registers", "spilled", "blocks", "bytes ms", "issue ms", "mma ms"


def floors(launches: list[Launch], rows: list[Row]) -> Iterable[str]:
    """A line for each launch of a kernel of this project."""
    for launch, row in zip(launches, rows, strict=True):
        if launch.own:
            grid, work = "x".join(map(str, launch.grid)), work_of(launch)
            moved = sum(access.bytes for access in work.accesses)
            yield f"{row.label};{grid};{moved:.0f};{work.flop / 2:.0f};{1e6 * row.least:.2f}"


def table(of_launches: list[Row]) -> list[str]:
    """The rows of a step, those of one kernel with the same code and grid together."""
    rows: dict[Any, Row] = {}
    for row in map(replace, of_launches):
        key = (row.label, row.loop, row.mma, row.registers) if row.mma else row.label
        if (known := rows.setdefault(key, row)) is not row:
            known.launches += 1
            known.waves = ", ".join(sorted({*known.waves.split(", "), row.waves}, key=lambda w: float(w or 0)))
            known.spilled, known.beside = max(known.spilled, row.spilled), min(known.beside, row.beside)
            for name in ("bytes", "issued", "products", "least"):
                setattr(known, name, getattr(known, name) + getattr(row, name))
    ordered = sorted(rows.values(), key=lambda row: -row.least)
    said = ["| kernel | " + " | ".join(COLUMNS) + " | least ms |", "| --- |" + " --- |" * (len(COLUMNS) + 1)]
    others: dict[str, float] = defaultdict(float)
    for row in ordered:
        if row.label.startswith("CuPy"):
            others["launches"] += row.launches
            others["least"] += row.least
            continue
        waves = row.waves.split(", ")
        numbers: list[Any] = [row.launches, " to ".join(dict.fromkeys([waves[0], waves[-1]]))]
        numbers += [f"{row.loop:.0f}", f"{row.mma:.0f}" if row.mma else "", row.registers, row.spilled, row.beside]
        numbers += [f"{1e3 * t:.3f}" if t else "" for t in (row.bytes, row.issued, row.products, row.least)]
        said.append(f"| {row.label} | " + " | ".join(map(str, numbers)) + " |")
    blank = " |" * (len(COLUMNS) - 1)
    said.append(f"| CuPy's | {others['launches']:.0f} |{blank} {1e3 * others['least']:.3f} |")
    said.append(f"| step | {len(of_launches)} |{blank} {1e3 * sum(row.least for row in ordered):.2f} |")
    return said


def main() -> None:
    """Print the tables of steps preset:precision:batch:side, for each device in a process of its own."""
    if sys.argv[1] != "--device":
        for spec in sys.argv[1:]:
            for device in DEVICES:
                own = [
                    sys.executable,
                    "-W",
                    "ignore",
                    "-m",
                    "benchmarks.gpu.instructions",
                    "--device",
                    device.name,
                    spec,
                ]
                subprocess.run(own, check=True)
        return
    device = next(d for d in DEVICES if d.name == sys.argv[2])
    preset, products, batch, side = sys.argv[3].split(":")
    cupy, driver = without_driver(device=device.limits)
    launches = listen(cupy, driver, preset, None, int(batch), precision=products, size=(int(side), int(side)))
    rows = [row_of(launch, device) for launch in launches]
    print(f"## {sys.argv[3]}, {device.architecture} ({device.name})\n")
    print("\n".join([*table(rows), ""]))
    for path in sys.argv[4:]:
        Path(path).write_text("\n".join([*floors(launches, rows), ""]), "utf-8")
    sys.stdout.flush()
    os._exit(0)  # what CuPy does when it is unloaded is not ours to see


if __name__ == "__main__":
    main()
