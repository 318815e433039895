"""Time per multiply-add of a layer of Eq. (8) along one to three axes of space: `python -m benchmarks.axes`.

Convolution, bias and ELU of layer 4, 16 filters of 3, 9 or 27 taps in space and 7 x 11 along attributes, forward.
Processor time of one thread, the least of several calls that take turns, so that other work on the machine counts
little. Multiply-adds are those of filters applied tap by tap. Writes benchmarks/results/axes.json.
"""

from __future__ import annotations

import os

os.environ.update(HCNN_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import describe_machine
from hcnn_core import convolve_elu

RESULTS = Path(__file__).parent / "results" / "axes.json"
CASES = {
    "images 32x32": (20, 32, 32),
    "signals of 128": (100, 128),
    "signals of 1024": (20, 1024),
    "signals of 4096": (5, 4096),
    "volumes 16x16x16": (5, 16, 16, 16),
    "volumes 32x32x32": (1, 32, 32, 32),
}
ROUNDS = 9


def main() -> None:
    """Measure every case at both boundaries."""
    rng, calls, least, products = np.random.default_rng(0), {}, {}, {}
    for boundary in ("zero", "periodic"):
        for name, (batch, *lengths) in CASES.items():
            axes = len(lengths)
            x = rng.standard_normal((batch, *lengths, 8, 16), np.float32)
            w = rng.standard_normal((*(3,) * axes, 7, 11, 16), np.float32)
            options: dict[str, Any] = {"boundary": boundary, "stride": (*(1,) * axes, 2, 2)}
            key = f"{name}, {boundary}"
            calls[key] = x, w, tuple(range(1, axes + 3)), options
            least[key], products[key] = math.inf, 3**axes * 77 * 16 * 4 * 8 * batch * math.prod(lengths)
    for _ in range(ROUNDS):
        for key, (x, w, along, options) in calls.items():
            begin = time.process_time()
            convolve_elu(x, w, np.zeros(16, np.float32), along, **options)
            least[key] = min(least[key], time.process_time() - begin)
    found = {}
    for key, seconds in least.items():
        name, _, boundary = key.rpartition(", ")
        of_images = least[f"images 32x32, {boundary}"] / products[f"images 32x32, {boundary}"]
        each = seconds / products[key]
        found[key] = {"picoseconds": round(1e12 * each, 2), "ratio": round(each / of_images, 2)}
        print(f"{key:30} {1e12 * each:6.2f} ps per multiply-add, {each / of_images:5.2f} times that of images")
    RESULTS.write_text(json.dumps({"machine": describe_machine(), "cases": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
