"""The stages of `benchmarks.gpu.stages` in three parts, each bounded in time: `bash benchmarks/gpu/gate.sh FOLDER`.

Every stage is a process of its own, whose log and result stay in FOLDER; a stage with a result is not run again, and a
stopped stage goes on after the last row it wrote. Everything in FOLDER but the images goes into one archive, if one is
asked for, after every stage; where there is no FOLDER it is unpacked from that. Without a GPU nothing is run, and one
line says why.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
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


SECONDS = 570
"""What one call may take."""

LEAST = 10
"""Seconds that must be left for a stage to begin."""

PARTS = {
    "check": (Stage("environment", 30), Stage("compilation", 240), Stage("parity", 240)),
    "train": (Stage("train", 550),),
    "test": (Stage("sanitizer", 200), Stage("tests", 290)),
}
"""What a call runs: each part by itself within `SECONDS`, and of use without the others."""

STAGES = tuple(stage for part in PARTS.values() for stage in part)

LEARNING_CURVE, REPORT = "run/learning-curve.png", "report.md"
DATA, SITE, KERNELS = "data", "site", "kernels"
"""Folders of images, packages and compiled kernels, which no archive holds."""

COMPILED = "all-compiled"
"""A file among the kernels that says that the stage `compilation` has made them."""


def main() -> int:
    """Run what is not done, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, metavar="folder", help="folder of logs, results and report, kept by calls")
    parser.add_argument("--archive", type=Path, help="file, .tgz, that all of it goes into, and comes from if missing")
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS), help="only the stages of these")
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"for all stages together [{SECONDS}]")
    parser.add_argument("--stages", nargs="+", choices=[s.name for s in STAGES], help="only these, again if done")
    parser.add_argument("--data", type=Path, action="append", default=[], help="folder with files of binary CIFAR-10")
    parser.add_argument(
        "--keep", type=Path, help=f"folder they are copied to, some now and some in a later call [FOLDER/{DATA}]"
    )
    parser.add_argument("--wheels", type=Path, help="folder of wheels to install first, into FOLDER")
    options = parser.parse_args()

    begun = time.monotonic()
    if options.archive and options.archive.exists() and not options.out.exists():
        unpack(options.archive, options.out)
    keep, site, kernels = options.keep or options.out / DATA, options.out / SITE, options.out / KERNELS
    kernels.mkdir(parents=True, exist_ok=True)
    environment = dict(os.environ, HCNN_GATE_DATA=str(keep.resolve()), CUPY_CACHE_DIR=str(kernels.resolve()))
    if options.wheels:
        install(options.wheels, site)
    if site.exists():
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(site.resolve()), os.environ.get("PYTHONPATH")]))
    collect(options.data, keep)
    chosen = [s for name in options.part for s in PARTS[name]]
    if options.stages:
        chosen = [s for s in STAGES if s.name in options.stages]
        for stage in chosen:
            for path in (result_of(options.out, stage.name), rows_of(options.out, stage.name)):
                path.unlink(missing_ok=True)
    if (reason := no_gpu(environment)) is not None:
        print(f"no GPU, so nothing is run: {reason}", file=sys.stderr)
        return 1
    compilation, compiled = result_of(options.out, "compilation"), kernels / COMPILED
    if compilation.stem in {stage.name for stage in chosen} and not compiled.exists():
        compilation.unlink(missing_ok=True)  # of the archive's machine, whose kernels are gone
    for stage in chosen:
        left = options.seconds - (time.monotonic() - begun)
        print(run(stage, options.out, environment, left), flush=True)
        if stage.name == compilation.stem and compilation.exists():
            compiled.touch()
        (options.out / REPORT).write_text(markdown(options.out), encoding="utf-8")
        if options.archive:
            pack(options.out, options.archive)
    print(options.archive or options.out / REPORT)
    return 0


def result_of(out: Path, name: str) -> Path:
    """The result of a stage that is done."""
    return out / f"{name}.json"


def rows_of(out: Path, name: str) -> Path:
    """The rows of a stage's table, one a line as they come, the head first."""
    return out / f"{name}.rows.jsonl"


def pack(out: Path, archive: Path) -> None:
    """Put all of a folder but images, packages, kernels and checkpoints into one file, which is whole at any time."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    part = archive.with_name(f"{archive.name}.part")
    with tarfile.open(part, "w:gz") as file:
        for path in sorted(out.iterdir()):
            if path.name not in (DATA, SITE, KERNELS) and path.resolve() not in (archive.resolve(), part.resolve()):
                file.add(path, path.name, filter=lambda member: None if member.name.endswith(".h5") else member)
    part.replace(archive)


def unpack(archive: Path, out: Path) -> None:
    """What an earlier call has packed."""
    with tarfile.open(archive) as file:
        file.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.11.4 and later
        file.extractall(out)


def no_gpu(environment: dict[str, str]) -> str | None:
    """What a GPU lacks to be used, or None."""
    code = "from hcnn_core.backend import get_namespace; get_namespace('cupy')"
    tried = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], env=environment, capture_output=True, text=True
    )
    return None if tried.returncode == 0 else tried.stderr.strip().splitlines()[-1].partition(": ")[2]


def run(stage: Stage, out: Path, environment: dict[str, str], left: float) -> str:
    """Run a stage that has no result yet, in the time that is left; returns what became of it."""
    result = result_of(out, stage.name)
    if result.exists():
        return f"{stage.name}: done before"
    limit = min(stage.seconds, left)
    if limit < LEAST:
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
    """Copy what files of CIFAR-10 have come, as they are or compressed."""
    for source in sources:
        for name in CIFAR10:
            found = next((path for form in (name, f"{name}.xz") for path in source.rglob(form)), None)
            if found is None or present(keep, name):
                continue
            keep.mkdir(parents=True, exist_ok=True)
            shutil.copy(found, keep / f"{found.name}.part")
            (keep / f"{found.name}.part").rename(keep / found.name)


def present(folder: Path, name: str) -> bool:
    """Whether a file of CIFAR-10 is there, compressed or not."""
    return (folder / name).exists() or (folder / f"{name}.xz").exists()


def install(wheels: Path, site: Path) -> None:
    """Install wheels without a network."""
    files = sorted(map(str, wheels.glob("*.whl")))
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--target", str(site), *files]
    subprocess.run(command, check=True)


def markdown(out: Path) -> str:
    """All results as tables, and the learning curve if there is one."""
    lines = ["# What the GPU has shown", ""]
    if (out / LEARNING_CURVE).exists():
        lines += [f"![learning curve]({LEARNING_CURVE})", ""]
    for stage in STAGES:
        path = result_of(out, stage.name)
        if path.exists():
            result: dict[str, Any] = json.loads(path.read_text("utf-8"))
        elif table := rows_so_far(out, stage.name):
            result = {"text": "Stopped before its end.", "table": table}
        else:
            lines += [f"## {stage.name}", "", "Not done.", ""]
            continue
        head, *rows = result["table"]
        lines += [f"## {stage.name}", "", result["text"], "", row(head), row(["---"] * len(head)), *map(row, rows), ""]
    return "\n".join(lines)


def rows_so_far(out: Path, name: str) -> list[list[Any]]:
    """The head and the rows that a stage has written; a last line cut short is left out."""
    path, found = rows_of(out, name), []
    if path.exists():
        for line in path.read_text("utf-8").splitlines():
            try:
                found.append(json.loads(line))
            except json.JSONDecodeError:
                break
    return found


def row(cells: list[Any]) -> str:
    """One line of a Markdown table."""
    return "| " + " | ".join(f"{c:.4g}" if isinstance(c, float) else str(c) for c in cells) + " |"


if __name__ == "__main__":
    sys.exit(main())
