"""What the host does in a warm call of CuPy arrays, counted with no GPU: `python -m benchmarks.gpu.calls`.

Each row has a convolution of `benchmarks.gpu.choices`, a precision, and a function; calls of this package's Python
functions, of others, and of functions written in C; and launches. CuPy runs on the stand-in for the driver, whose own
calls are left out, with what CuPy does when it launches a kernel of this package's.
"""

from __future__ import annotations

from train.commands.process import prepare

prepare()  # before NumPy is loaded, as the command line of training does

import os
import sys
from collections import Counter
from collections.abc import Callable
from types import FrameType
from typing import Any

from benchmarks.gpu.choices import MEASURED
from benchmarks.gpu.driverless import without_driver
from hcnn_core import convolve, convolve_vjp_w, convolve_vjp_x, precision

CASES = ("plane by 5", "float32"), *((name, p) for name in ("16 channels", "a layer") for p in ("float32", "tf32"))
KINDS = "own", "other", "C"
STAND_IN = "driverless", "ctypes"


def calls_of(work: Callable[[], object]) -> Counter[str]:
    """How many functions a call enters: this package's, others in Python, and others in C."""
    counts: Counter[str] = Counter()
    inside = 0

    def note(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal inside
        path = frame.f_code.co_filename
        if event in ("call", "return") and any(name in path for name in STAND_IN):
            inside += 1 if event == "call" else -1
        elif event == "call" and not inside:
            counts["own" if "hcnn_core" in path else "other"] += 1
        elif event == "c_call" and not inside:
            counts["C"] += 1

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    counts["other"] -= 1  # the call itself
    counts["C"] -= 1  # that which ends the count
    return counts


def main() -> None:
    """Count, and print a table."""
    cupy, driver = without_driver()
    print("| convolution | precision | function | own | other Python | C | launches |\n|" + " --- |" * 7)
    for name, products in CASES:
        case = next(case for case in MEASURED if case.name == name)
        x, w = cupy.zeros(case.x, "float32"), cupy.zeros(case.w, "float32")
        with precision(products):
            y = convolve(x, w, case.axes, **case.options)
            for function, arguments in ((convolve, (x, w)), (convolve_vjp_x, (y, x, w)), (convolve_vjp_w, (y, x, w))):
                work = lambda f=function, a=arguments, case=case: f(*a, case.axes, **case.options)  # noqa: E731
                for _ in range(2):
                    work()
                before = driver.launches
                counts = calls_of(work)
                row = name, products, function.__name__, *(counts[k] for k in KINDS), driver.launches - before
                print("| " + " | ".join(map(str, row)) + " |")
        del x, w, y
    sys.stdout.flush()
    os._exit(0)  # what CuPy does when it is unloaded is not ours to see


if __name__ == "__main__":
    main()
