"""Time per multiply-add of a layer of Eq. (8) along one to three axes of space: `python -m benchmarks.axes`.

Convolution, bias and ELU of layer 4, 16 filters of 3 or 9 taps along one axis of space, 3 along each of two or three,
and 7 x 11 along attributes, forward. Processor time of one thread, the least of several calls that take turns, so that
other work on the machine counts little. Multiply-adds are those of filters applied tap by tap.

Where PyTorch is installed, beside its conv1d, conv2d and conv3d with attributes as channels and block-Toeplitz filters,
bias and ELU: the faster of channels last and first, whose filters are made and laid out before the clock runs. The
results must agree. Writes benchmarks/results/axes.json.
"""

from __future__ import annotations

import os

os.environ.update(HCNN_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

import functools
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import describe_machine
from hcnn_core import convolve_elu

try:
    import torch
    from torch.nn import functional

    from benchmarks import peers_torch
except ModuleNotFoundError:
    torch = None

RESULTS = Path(__file__).parent / "results" / "axes.json"
CASES = {  # samples, lengths of space, and taps along each
    "images 32x32": ((20, 32, 32), 3),
    "signals of 128, 9 taps": ((100, 128), 9),
    "signals of 1024, 9 taps": ((20, 1024), 9),
    "signals of 4096, 9 taps": ((5, 4096), 9),
    "signals of 128, 3 taps": ((100, 128), 3),
    "signals of 1024, 3 taps": ((20, 1024), 3),
    "signals of 4096, 3 taps": ((5, 4096), 3),
    "volumes 16x16x16": ((5, 16, 16, 16), 3),
    "volumes 32x32x32": ((1, 32, 32, 32), 3),
}
ROUNDS = 7


def in_torch(x: Any, w: Any, boundary: str, last: bool) -> Callable[[], Any]:
    """Return the layer as one convolution of PyTorch along space; `last`: attributes are the last axis in memory."""
    axes = w.ndim - 3
    factors = {"g": np.empty((1, *w.shape[-3:]))}
    along = peers_torch.Layer(boundary, x.shape[-2:], factors, 2, 0.0, "cpu").selection.numpy()  # (taps, v', v)
    taps = np.flip(w, tuple(range(axes + 2))).reshape(*w.shape[:axes], -1, w.shape[-1])
    dense = np.einsum("...tk,toi->oki...", taps, along).reshape(-1, along.shape[2], *w.shape[:axes])
    layout = {"memory_format": {2: torch.channels_last, 3: torch.channels_last_3d}[axes]} if last and axes > 1 else {}
    weight, bias = torch.from_numpy(dense).contiguous(**layout), torch.zeros(len(dense))
    images = torch.from_numpy(x).flatten(-2).movedim(-1, 1)
    images = images if last else images.contiguous()
    half, convolve = w.shape[0] // 2, (functional.conv1d, functional.conv2d, functional.conv3d)[axes - 1]

    def call() -> Any:
        y = images
        if boundary == "periodic":
            y = functional.pad(y, (half,) * 2 * axes, mode="circular")
        return functional.elu(convolve(y, weight, bias, padding=half if boundary == "zero" else 0)).movedim(1, -1)

    return call


def main() -> None:
    """Measure every case at both boundaries."""
    rng, calls, products = np.random.default_rng(0), dict[tuple[str, str], Callable[[], Any]](), {}
    for boundary in ("zero", "periodic"):
        for name, ((batch, *lengths), taps) in CASES.items():
            axes, key = len(lengths), f"{name}, {boundary}"
            x = rng.standard_normal((batch, *lengths, 8, 16), np.float32)
            w = rng.standard_normal((*(taps,) * axes, 7, 11, 16), np.float32) / (77 * taps**axes) ** 0.5
            options: dict[str, Any] = {"boundary": boundary, "stride": (*(1,) * axes, 2, 2)}
            given = x, w, np.zeros(16, np.float32), tuple(range(1, axes + 3))
            calls[key, "here"] = functools.partial(convolve_elu, *given, **options)
            products[key] = taps**axes * 77 * 16 * 4 * 8 * batch * math.prod(lengths)
            for last in (True, False) if torch is not None else ():
                calls[key, f"torch, channels {'last' if last else 'first'}"] = in_torch(x, w, boundary, last)
    if torch is not None:
        torch.set_num_threads(1)
    least = dict.fromkeys(calls, math.inf)
    for _ in range(ROUNDS):
        for (key, how), call in calls.items():
            begin = time.process_time()
            made = call()
            least[key, how] = min(least[key, how], time.process_time() - begin)
            if how == "here":
                expected = made
            else:
                np.testing.assert_allclose(made.numpy().reshape(expected.shape), expected, atol=2e-4)
    found: dict[str, Any] = {}
    for key, count in products.items():
        _, _, boundary = key.rpartition(", ")
        of_images = least[f"images 32x32, {boundary}", "here"] / products[f"images 32x32, {boundary}"]
        seconds = least[key, "here"]
        found[key] = {
            "picoseconds": round(1e12 * seconds / count, 2),
            "ratio": round(seconds / count / of_images, 2),
        }
        print(f"{key:34} {1e12 * seconds / count:6.2f} ps per multiply-add, {found[key]['ratio']:5.2f} times images' ")
        if beside := {how: value for (of, how), value in least.items() if of == key and how != "here"}:
            how = min(beside, key=lambda how: beside[how])
            found[key] |= {"torch over here": round(beside[how] / seconds, 2), "torch": how.partition(", ")[2]}
            print(f"{'':34} PyTorch takes {beside[how] / seconds:.2f} times as long ({how})")
    machine = describe_machine() | ({} if torch is None else peers_torch.describe())
    RESULTS.write_text(json.dumps({"machine": machine, "cases": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
