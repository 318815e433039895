"""Memory that a step of one 32x32 layer takes, this project's and PyTorch's: `python -m benchmarks.memory`.

The step and its formulations are those of `benchmarks.layer`. Each formulation runs in a process of its own, which
holds the operands and has taken one step before. The figures are what a second step adds at its peak, per image.
Compiled code and operands are not counted. Batches have 50 images, or 4 for formulations that make Q copies, whose
memory grows with the batch. A part of this project's memory does not grow with the batch, so it is larger per image for
few images.
"""

import re
import sys

from train.commands.process import prepare

# As the command line of training does, before NumPy is loaded; what peers need is measured as their users have it.
if not re.search("--one[= ]torch", " ".join(sys.argv)):
    prepare()

import argparse
import json
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmarks.layer import FORMULATIONS, OURS, Problem, load_torch, make_step
from benchmarks.machine import added_by, describe_machine

NAMES = [name for name, f in FORMULATIONS.items() if f.kind != "conv" and not name.endswith("compiled")]
BOUNDARIES = ("periodic", "zero")


def of_one(name: str, boundary: str, images: int) -> float:
    """MiB that a step of one formulation adds to this process."""
    formulation, torch = FORMULATIONS[name], None if name in OURS.values() else load_torch()
    if torch is None and name not in OURS.values():
        raise SystemExit(f"--one is {name}, and torch is not installed")
    order = make_step(formulation, Problem(boundary, 1), 1, torch).order
    return added_by(make_step(formulation, Problem(boundary, images, order), images, torch))


def in_its_process(name: str, boundary: str, images: int) -> float:
    """The same, in a process of its own."""
    arguments = ["--one", name, "--boundary", boundary, "--batch-size", str(images)]
    command = [sys.executable, "-m", "benchmarks.memory", *arguments]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def measure(boundary: str, batch_size: int | None, torch: ModuleType | None) -> dict[str, Any]:
    """Figures of all formulations that can be had."""
    found = {}
    for name in NAMES:
        if name in OURS.values() or torch is not None:
            images = batch_size or FORMULATIONS[name].batch_size
            found[name] = {"batch_size": images, "mib_per_image": in_its_process(name, boundary, images) / images}
    return {"boundary": boundary, "memory": found}


def lines(record: dict[str, Any]) -> list[str]:
    """The table of one boundary, as text."""
    found, text = record["memory"], [f"{record['boundary']:16s} {'batch':>5s} {'MiB/image':>10s} {'times ours':>10s}"]
    for name, row in found.items():
        ratio = row["mib_per_image"] / found[OURS[FORMULATIONS[name].kind]]["mib_per_image"]
        figures = f"{row['batch_size']:5d} {row['mib_per_image']:10.2f} {ratio:10.1f}"
        text.append(f"{name:16s} {figures}  {FORMULATIONS[name].text}")
    return [*text, *(f"{name}: skipped, torch is not installed" for name in NAMES if name not in found)]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.memory", description=__doc__.splitlines()[0], allow_abbrev=False
    )
    parser.add_argument("--boundary", nargs="+", choices=BOUNDARIES, default=list(BOUNDARIES), help="both by default")
    parser.add_argument("--batch-size", type=int, help="images, for all; by default 50, fewer where Q copies are made")
    parser.add_argument("--one", metavar="NAME", choices=NAMES, help="measure this process with one of: %(choices)s")
    parser.add_argument("--out", type=Path, help="write the figures to this file, the text to one beside it (.txt)")
    options = parser.parse_args()
    if options.batch_size is not None and options.batch_size < 1:
        parser.error(f"--batch-size is {options.batch_size}; give 1 or more")
    if options.one and len(options.boundary) > 1:
        parser.error("--one is of one step; give one --boundary")
    if options.one:
        images = options.batch_size or FORMULATIONS[options.one].batch_size
        print(of_one(options.one, options.boundary[0], images))
        return
    torch = load_torch()
    machine = describe_machine(torch)
    found = [measure(boundary, options.batch_size, torch) for boundary in options.boundary]
    text = [*(f"{key}: {value}" for key, value in machine.items())]
    for record in found:
        text += ["", *lines(record)]
    print(*text, sep="\n")
    if options.out:
        options.out.write_text(json.dumps({**machine, "boundaries": found}, indent=1) + "\n")
        options.out.with_suffix(".txt").write_text("\n".join(text) + "\n")


if __name__ == "__main__":
    main()
