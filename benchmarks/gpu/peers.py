"""Steps, a step kernel by kernel, and convolutions beside cupyx and PyTorch.

`python -m benchmarks.gpu.peers WHAT SPEC ...`: WHAT is `steps` or `profile`, of steps preset:precision:batch:side,
or `convolutions`, those of `benchmarks.gpu.choices`.
"""

from train.commands.process import prepare

prepare()  # before NumPy is loaded, as the command line of training does

import gc
import statistics
import sys
from collections.abc import Callable
from typing import Any

from benchmarks.gpu.choices import MEASURED, Case
from benchmarks.gpu.stages import ROUNDS, seconds
from benchmarks.step import Step
from hcnn_core import convolve, convolve_vjp_w, convolve_vjp_x, precision
from hcnn_core.backend import get_namespace

WARM_UP = 5
SHOWN = 22
"""Kernels of a profile."""


def step_of(spec: str) -> Step:
    """A step of preset:precision:batch:side."""
    preset, products, batch, side = spec.split(":")
    changes: dict[str, Any] = {"precision": products, "size": (int(side), int(side)), "cutout": 0}
    return Step(preset, None, int(batch), get_namespace("cupy"), **changes)


def steps(specs: list[str]) -> None:
    """Time steps, as they are launched from the fourth on: as graphs, where they can be recorded."""
    cupy = get_namespace("cupy")
    for spec in specs:
        try:
            step = step_of(spec)
            for _ in range(WARM_UP):
                step()
            ms = 1e3 * statistics.median(seconds(cupy, step, 3) for _ in range(ROUNDS))
            print(f"{spec}: {ms:.2f} ms a step, {'a graph' if step.take.launch else 'kernel by kernel'}")
            del step
        except Exception as error:
            print(f"{spec}: {type(error).__name__}: {str(error)[:200]}")
        gc.collect()
        cupy.get_default_memory_pool().free_all_blocks()


def profile(specs: list[str]) -> None:
    """Kernels of a step that is launched one by one: CUPTI, through PyTorch's profiler, sees CuPy's launches too."""
    import torch
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as watched

    cupy = get_namespace("cupy")
    torch.zeros(1, device="cuda")
    for spec in specs:
        step = step_of(spec)
        step.take.wanted = False
        for _ in range(WARM_UP):
            step()
        cupy.cuda.Device().synchronize()
        with watched(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as seen:
            step()
            cupy.cuda.Device().synchronize()
        rows: dict[str, list[float]] = {}
        for event in seen.events():
            if str(event.device_type).endswith("CUDA"):
                rows.setdefault(event.name, []).append(event.time_range.elapsed_us() / 1e3)
        total, launches = sum(map(sum, rows.values())), sum(map(len, rows.values()))
        print(f"{spec}: {total:.2f} ms of kernels in {launches} launches")
        for name, each in sorted(rows.items(), key=lambda row: -sum(row[1]))[:SHOWN]:
            print(f"  {sum(each):8.3f} ms {len(each):4d} launches, longest {max(each):.3f}  {name[:90]}")


def convolutions(specs: list[str]) -> None:
    """Time the convolutions that a card has met, and what else computes them."""
    cupy = get_namespace("cupy")
    for case in MEASURED:
        rng = cupy.random.default_rng(0)
        x, w = (rng.standard_normal(shape, dtype=cupy.float32) for shape in (case.x, case.w))
        found, calls = [], here(case, x, w)
        for others in (by_cupyx, by_torch):
            try:
                calls |= others(case, x, w)
            except Exception as error:  # one that cannot be loaded here ends none of the others
                print(f"{others.__name__}, {case.name}: {type(error).__name__}: {str(error)[:80]}")
        for name, call in calls.items():
            try:
                call()
                found.append(f"{name} {1e3 * statistics.median(seconds(cupy, call) for _ in range(ROUNDS)):.3f}")
            except Exception as error:
                found.append(f"{name} {type(error).__name__}: {str(error)[:80]}")
        print(f"{case.name}: {', '.join(found)}")
        cupy.get_default_memory_pool().free_all_blocks()


def here(case: Case, x: Any, w: Any) -> dict[str, Callable[[], Any]]:
    """Functions of this project, in each precision where a convolution has several filters."""

    def take() -> None:
        y = convolve(x, w, case.axes, **case.options)
        if case.gradients:
            convolve_vjp_x(y, x, w, case.axes, **case.options)
            convolve_vjp_w(y, x, w, case.axes, **case.options)

    def taking(products: str) -> Callable[[], None]:
        def taken() -> None:
            with precision(products):
                take()

        return taken

    names = ("float32", "tf32x3", "tf32") if case.gradients else ("float32",)
    return {f"here {name}": taking(name) for name in names}


def by_cupyx(case: Case, x: Any, w: Any) -> dict[str, Callable[[], Any]]:
    """Cupyx's functions, of single filters."""
    if case.gradients:
        return {}
    import cupyx.scipy.ndimage as ndimage
    import cupyx.scipy.signal as signal

    filled = w.reshape((1,) * (x.ndim - w.ndim) + w.shape)
    mode = "constant" if case.options["boundary"] == "zero" else "wrap"
    calls: dict[str, Callable[[], Any]] = {
        "fftconvolve": lambda: signal.fftconvolve(x, filled, mode="same", axes=case.axes)
    }
    if w.size < 1000:
        calls["ndimage"] = lambda: ndimage.convolve(x, filled, mode=mode)
    return calls


def by_torch(case: Case, x: Any, w: Any) -> dict[str, Callable[[], Any]]:
    """PyTorch's functions, of channels and two axes at the zero boundary."""
    if not case.gradients:
        return {}
    import torch
    import torch.nn.functional as F

    if case.name.startswith("a layer"):  # attributes as channels, the filter a block-Toeplitz matrix of as many numbers
        n, *space, a, b = case.x
        x = x.reshape(n, *space, a * b)
        w = get_namespace("cupy").ones((a * b, 3, 3, a // 2 * (b // 2) * case.w[-1]), x.dtype)
    elif case.options.get("sum_axes") is None or len(case.axes) > 2:
        return {}
    tx = torch.from_dlpack(x).permute(0, 3, 1, 2).detach().requires_grad_(True)
    tw = torch.from_dlpack(w).permute(3, 0, 1, 2).contiguous(memory_format=torch.channels_last)
    tw = tw.detach().requires_grad_(True)

    def timed(*, tf32: bool) -> Callable[[], Any]:
        def taken() -> None:
            torch.backends.cudnn.allow_tf32 = tf32
            y = F.conv2d(tx, tw, padding=1)
            torch.autograd.grad(y, (tx, tw), y.detach())

        return taken

    return {"PyTorch float32": timed(tf32=False), "PyTorch tf32": timed(tf32=True)}


if __name__ == "__main__":
    {"steps": steps, "profile": profile, "convolutions": convolutions}[sys.argv[1]](sys.argv[2:])
