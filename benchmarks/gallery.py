"""Processor time of each page of the gallery: `python -m benchmarks.gallery [--out FILE] [PAGE ...]`.

Each page runs in a process of its own, one after another, on one thread as in the site's build, so that its user and
system seconds hardly depend on what else the machine does. Kernels that were not in the cache are compiled within them.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.machine import describe_machine
from scripts.pages import ROOT, pages

ENVIRONMENT = {
    "MPLBACKEND": "Agg",
    "HCNN_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "CUPY_PYLOPS": "0",
    "PYTHONPATH": str(ROOT),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gallery", description=__doc__.splitlines()[0])
    parser.add_argument("pages", nargs="*", metavar="PAGE", help="numbers, such as 08; all by default")
    parser.add_argument("--out", type=Path, help="text to write")
    options = parser.parse_args()
    lines = [f"{key}: {value}" for key, value in describe_machine().items()]
    size = os.environ.get("HCNN_EXAMPLES", "full")
    lines += [f"size of the examples: {size}", "", "page                    user   system, seconds"]
    total, place = 0.0, tempfile.TemporaryDirectory()
    for page in sorted(pages(Path(place.name)).glob("*/plot_*.py"), key=lambda page: page.name):
        name = page.stem.removeprefix("plot_")
        if options.pages and name[:2] not in options.pages:
            continue
        process = subprocess.Popen(
            [sys.executable, page], env={**os.environ, **ENVIRONMENT}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        assert process.stderr is not None
        said = process.stderr.read().decode()
        _, status, usage = os.wait4(process.pid, 0)
        lines.append(f"{name:22}{usage.ru_utime:6.1f}   {usage.ru_stime:6.1f}")
        if status:
            lines[-1] += f"  failed: {said.strip().splitlines()[-1]}"
        print(lines[-1], flush=True)
        total += usage.ru_utime + usage.ru_stime
    lines.append(f"all, user and system {total:7.1f}")
    print(lines[-1])
    if options.out:
        options.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
