"""What was asked of a card, row by row, from what `first.sh` printed: `python -m benchmarks.gpu.asked FILE`."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

STEPS = {
    "hcnn-best:tf32:100:32": 8.0,
    "hcnn-best:float32:100:32": 13.0,
    "hcnn-best:tf32:100:16": 2.5,
    "hcnn-best:float32:100:16": 4.5,
    "resnet20:tf32:128:32": 2.0,
    "resnet20:float32:128:32": 3.4,
}
"""Milliseconds asked of a step preset:precision:batch:side."""

LAYER = {"tf32": 1.6, "float32": 2.6}
"""Milliseconds asked of "a layer", 100 images, with gradients."""

TIMES = 1.1
"""How many times the best of cupyx and PyTorch in float32 a primitive may take."""

RIVAL = 1.3
"""How many times PyTorch's conv2d, on a filter of as many numbers as its Toeplitz matrix, a layer in tf32 may take."""

LAUNCHES = {"hcnn-best:tf32:100:32": 230, "resnet20:tf32:128:32": 280}
"""Launches of a step that are asked at most."""


def rows(text: str) -> Iterator[tuple[str, str, str, str, str]]:
    """What, what was asked, what was found, whether that is met, and PyTorch or the best of others."""
    step = dict(re.findall(r"^(?!PyTorch)(\S+): ([\d.]+) ms a step", text, re.MULTILINE))
    alone = dict(re.findall(r"^(\S+): .* ([\d.]+) by replays alone", text, re.MULTILINE))
    peer = dict(re.findall(r"^PyTorch (\S+): ([\d.]+) ms a step", text, re.MULTILINE))
    for spec, most in STEPS.items():
        yield f"step of {spec}", f"{most} ms", *_found(step.get(spec), most), peer.get(spec, "")
        yield f"{spec}, by replays alone", f"{most} ms", *_found(alone.get(spec), most), peer.get(spec, "")
    calls = {
        name: {way.strip(): float(ms) for way, ms in re.findall(r"([A-Za-z][A-Za-z0-9 ]*?) (\d+\.\d+)", times)}
        for name, times in re.findall(r"^([^:\n]+): ((?:here|PyTorch|nd|fft).*)$", text, re.MULTILINE)
    }
    for products, most in LAYER.items():
        one = calls.get("a layer", {})
        other = one.get(f"PyTorch {products}")
        yield f"a layer, {products}", f"{most} ms", *_found(one.get(f"here {products}"), most), str(other or "")
        if products == "tf32":
            times = f"{one['here tf32'] / other:.2f}" if other and "here tf32" in one else None
            yield "a layer, tf32, beside conv2d", f"{RIVAL} times", *_found(times, RIVAL), ""
    for name, ways in calls.items():
        others = [ms for way, ms in ways.items() if not way.startswith("here") and "tf32" not in way]
        if others and "here float32" in ways:
            times = ways["here float32"] / min(others)
            yield f"{name}, float32", f"{TIMES} times", *_found(f"{times:.2f}", TIMES), f"{min(others):.3f}"
    launches = dict(re.findall(r"^(\S+): [\d.]+ ms of kernels in (\d+) launches", text, re.MULTILINE))
    for spec, most in LAUNCHES.items():
        yield f"launches of {spec}", str(most), *_found(launches.get(spec), most), ""


def _found(value: str | float | None, most: float) -> tuple[str, str]:
    if value is None:
        return "not measured", ""
    return str(value), "yes" if float(value) <= most else f"no, {float(value) / most:.2f} times"


def main() -> None:
    """Print the table."""
    print("| what | asked | here | met | PyTorch, or the best of others |\n| --- | --- | --- | --- | --- |")
    for row in rows(Path(sys.argv[1]).read_text("utf-8")):
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
