"""The stages of `benchmarks.gpu.stages` one by one, each bounded in time: `bash benchmarks/gpu/gate.sh OUT`.

Every stage is a process of its own, whose log and result stay in OUT; a stage with a result is not run again. Without a
GPU nothing is run, and one line says why.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
MODULE = "benchmarks.gpu.stages"

CIFAR10 = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]


@dataclass(frozen=True)
class Stage:
    """A function of `benchmarks.gpu.stages`, and the seconds after which it is stopped."""

    name: str
    seconds: int


STAGES = (
    Stage("environment", 40),
    Stage("parity", 240),
    Stage("ceilings", 30),
    Stage("step", 150),
    Stage("profile", 45),
    Stage("layer", 240),
    Stage("convolve", 60),
    Stage("sanitizer", 90),
    Stage("tests", 150),
    Stage("train", 150),
)
"""In the order of what one would miss most, were the time to run out."""

BARS = {
    "step": (1, 4, "s an epoch of CIFAR-10"),
    "profile": (1, 2, "ms of a step"),
    "layer": (2, 2, "ms forward and backward"),
    "convolve": (2, 2, "ms"),
}
"""What is drawn of a stage's table: how many of its columns name a bar, which holds the length, and its unit."""

PICTURE, LEARNING_CURVE = "times.png", "run/learning-curve.png"


def main() -> int:
    """Run what is not done, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder of logs, results and report")
    parser.add_argument("--seconds", type=float, default=570, help="for all stages together [570]")
    parser.add_argument("--stages", nargs="+", choices=[s.name for s in STAGES], help="only these, again if done")
    parser.add_argument("--data", type=Path, action="append", default=[], help="folder with files of binary CIFAR-10")
    parser.add_argument(
        "--keep", type=Path, help="folder they are copied to, some now and some in a later call [OUT/data]"
    )
    parser.add_argument("--wheels", type=Path, help="folder of wheels to install first, beside OUT")
    options = parser.parse_args()

    begun = time.monotonic()
    options.out.mkdir(parents=True, exist_ok=True)
    keep = options.keep or options.out / "data"
    collect(options.data, keep)
    environment = dict(os.environ, HCNN_GATE_DATA=str(keep.resolve()))
    if options.wheels:
        environment["PYTHONPATH"] = install(options.wheels, options.out / "site")
    chosen = [s for s in STAGES if not options.stages or s.name in options.stages]
    for stage in chosen:
        if options.stages:
            (options.out / f"{stage.name}.json").unlink(missing_ok=True)
    if (reason := no_gpu(environment)) is not None:
        print(f"no GPU, so nothing is run: {reason}", file=sys.stderr)
        return 1
    for stage in chosen:
        left = options.seconds - (time.monotonic() - begun)
        print(run(stage, options.out, environment, left), flush=True)
    draw(options.out)
    report = options.out / "report.md"
    report.write_text(markdown(options.out), encoding="utf-8")
    print(report)
    return 0


def no_gpu(environment: dict[str, str]) -> str | None:
    """What a GPU lacks to be used, or None."""
    code = "from hcnn_core.backend import get_namespace; get_namespace('cupy')"
    tried = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], env=environment, capture_output=True, text=True
    )
    return None if tried.returncode == 0 else tried.stderr.strip().splitlines()[-1].partition(": ")[2]


def run(stage: Stage, out: Path, environment: dict[str, str], left: float) -> str:
    """Run a stage that has no result yet, in the time that is left; returns what became of it."""
    result = out / f"{stage.name}.json"
    if result.exists():
        return f"{stage.name}: done before"
    limit = min(stage.seconds, left)
    if limit < 10:
        return f"{stage.name}: no time left; run again to go on"
    begun = time.monotonic()
    command = [sys.executable, "-u", "-m", MODULE, stage.name, str(out.resolve())]
    environment = {**environment, "HCNN_GATE_UNTIL": str(time.time() + limit)}
    with (out / f"{stage.name}.log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
        try:
            status: int | str = process.wait(limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            status = f"stopped after {limit:.0f} s"
    seconds = time.monotonic() - begun
    if result.exists():
        return f"{stage.name}: done in {seconds:.0f} s"
    last = (out / f"{stage.name}.log").read_text("utf-8", "replace").strip().splitlines()[-1:]
    return f"{stage.name}: failed ({status}): {' '.join(last)}"


def collect(sources: list[Path], keep: Path) -> None:
    """Copy what files of CIFAR-10 have come."""
    for source in sources:
        for name in CIFAR10:
            found = next(source.rglob(name), None)
            if found is not None and not (keep / name).exists():
                keep.mkdir(parents=True, exist_ok=True)
                shutil.copy(found, keep / f"{name}.part")
                (keep / f"{name}.part").rename(keep / name)


def install(wheels: Path, site: Path) -> str:
    """Install wheels without a network; returns the PYTHONPATH that finds them."""
    files = sorted(map(str, wheels.glob("*.whl")))
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--target", str(site), *files]
    subprocess.run(command, check=True)
    return os.pathsep.join([str(site.resolve()), *filter(None, [os.environ.get("PYTHONPATH")])])


def draw(out: Path) -> None:
    """Draw the times of the stages that are done, where there is a Matplotlib."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        print("no picture: there is no Matplotlib", file=sys.stderr)
        return
    panels = {}
    for name, (names, column, unit) in BARS.items():
        if (path := out / f"{name}.json").exists():
            table = json.loads(path.read_text("utf-8"))["table"][1:]
            timed = [(", ".join(row[:names]), row[column]) for row in table if isinstance(row[column], float)]
            panels |= {f"{name}, {unit}": timed[::-1]} if timed else {}
    if not panels:
        return
    heights = [len(bars) + 3 for bars in panels.values()]
    figure = Figure(figsize=(9, 0.22 * sum(heights)), layout="constrained")
    FigureCanvasAgg(figure)
    rows = figure.subplots(len(panels), squeeze=False, height_ratios=heights)[:, 0]
    for axes, (title, bars) in zip(rows, panels.items(), strict=True):
        drawn = axes.barh(range(len(bars)), [value for _, value in bars])
        axes.bar_label(drawn, fmt="%.3g", padding=2, fontsize=7)
        axes.set_yticks(range(len(bars)), [name for name, _ in bars], fontsize=7)
        axes.margins(x=0.1)
        axes.set_title(title, fontsize=9)
    figure.savefig(out / PICTURE, dpi=120)


def markdown(out: Path) -> str:
    """All results as tables, and the pictures there are."""
    lines = ["# What the GPU has shown", ""]
    for picture in (PICTURE, LEARNING_CURVE):
        if (out / picture).exists():
            lines += [f"![{Path(picture).stem}]({picture})", ""]
    for stage in STAGES:
        path = out / f"{stage.name}.json"
        if not path.exists():
            lines += [f"## {stage.name}", "", "Not done.", ""]
            continue
        result: dict[str, Any] = json.loads(path.read_text("utf-8"))
        head, *rows = result["table"]
        lines += [f"## {stage.name}", "", result["text"], "", row(head), row(["---"] * len(head)), *map(row, rows), ""]
    return "\n".join(lines)


def row(cells: list[Any]) -> str:
    """One line of a Markdown table."""
    return "| " + " | ".join(f"{c:.4g}" if isinstance(c, float) else str(c) for c in cells) + " |"


if __name__ == "__main__":
    sys.exit(main())
