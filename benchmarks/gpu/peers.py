"""Steps, a step launch by launch, and convolutions beside cupyx and PyTorch.

`python -m benchmarks.gpu.peers WHAT SPEC ...`: WHAT is `steps` or `profile`, of steps preset:precision:batch:side,
or `convolutions`, those of `benchmarks.gpu.choices` but for the names that are given.
"""

from train.commands.process import prepare

prepare()  # before NumPy is loaded, as the command line of training does

import gc
import inspect
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.gpu.choices import MEASURED, Case
from benchmarks.gpu.stages import ROUNDS, reported, seconds, usable_cupy
from benchmarks.step import Step
from hcnn_core import convolve, convolve_vjp_w, convolve_vjp_x, precision

WARM_UP = 5
SHOWN = 0.004
"""Part of a step's time below which launches of one kernel and grid are not shown."""

FLOORS = Path(__file__).parents[1] / "results/gpu-floors"
"""Counts of each launch by `benchmarks.gpu.instructions` for an H200, a file for each step."""


def step_of(spec: str) -> Step:
    """A step of preset:precision:batch:side."""
    preset, products, batch, side = spec.split(":")
    changes: dict[str, Any] = {"precision": products, "size": (int(side), int(side)), "cutout": 0}
    return Step(preset, None, int(batch), usable_cupy(), **changes)


def steps(specs: list[str]) -> None:
    """Time steps, as they are launched from the fourth on: as graphs, where they can be recorded, and these alone."""
    cupy = usable_cupy()
    for spec in specs:
        with reported(spec):
            step = step_of(spec)
            for _ in range(WARM_UP):
                step()
            ms = 1e3 * statistics.median(seconds(cupy, step, 3) for _ in range(ROUNDS))
            graph = step.take.launch
            how = f"a graph, {1e3 * replay(cupy, graph):.2f} by replays alone" if graph else "kernel by kernel"
            print(f"{spec}: {ms:.2f} ms a step, {how}")
            del step, graph
        gc.collect()
        cupy.get_default_memory_pool().free_all_blocks()


def replay(cupy: Any, launch: Callable[[], None]) -> float:
    """Median seconds of a recorded graph that is launched again and again, as PyTorch's are timed: without the host."""
    recorded = inspect.getclosurevars(launch).nonlocals
    with recorded["stream"]:
        return statistics.median(seconds(cupy, lambda: recorded["graph"].launch(), 5) for _ in range(ROUNDS))


@dataclass
class Counted:
    """A launch as it was counted: a kernel, its grid, bytes, multiply-adds, and least milliseconds."""

    kernel: str
    grid: str
    bytes: float
    products: float
    least: float


def counted(spec: str) -> list[Counted]:
    """The launches of this project's kernels of a step, as they were counted; none of a step that was not."""
    path = FLOORS / f"{spec.replace(':', '-')}.txt"
    rows = (line.split(";") for line in (path.read_text("utf-8").splitlines() if path.exists() else ()))
    return [Counted(kernel, grid, float(b), float(p), float(us) / 1e3) for kernel, grid, b, p, us in rows]


def beside_floors(seen: list[tuple[str, float]], known: list[Counted]) -> Iterator[str]:
    """Lines of launches (name, ms), in their order: those of one kernel and grid together, beside what was counted.

    A recorded step, which was counted, launches a few more in the end.
    """
    names = [row.kernel.partition(",")[0] for row in known]
    own = [name for name, _ in seen if name in names]
    same = own == names[: len(own)]
    if known and not same:
        yield f"  no floors: own kernels come in another order than the {len(known)} launches that were counted"
    counts = iter(known if same else ())
    groups: dict[tuple[str, str], list[tuple[float, Counted]]] = defaultdict(list)
    for name, ms in seen:
        row = (next(counts, None) if name in names else None) or Counted(name[:90], "", 0, 0, 0)
        groups[row.kernel, row.grid].append((ms, row))
    total = sum(ms for _, ms in seen)
    for (kernel, grid), launches in sorted(groups.items(), key=lambda group: -sum(ms for ms, _ in group[1])):
        ms, longest, rows = sum(t for t, _ in launches), max(t for t, _ in launches), [row for _, row in launches]
        if ms < SHOWN * total:
            continue
        line = f"  {ms:8.3f} ms {len(launches):4d} launches, longest {longest:.3f}"
        if least := sum(row.least for row in rows):
            moved, products = (
                sum(n) / ms / 1e9 for n in zip(*((row.bytes, row.products) for row in rows), strict=True)
            )
            line += f", least {least:.3f} ({ms / least:.1f} times), {moved:.2f} TB/s, {products:.1f} T multiply-adds/s"
        yield f"{line}  {kernel} {grid}"


def profile(specs: list[str]) -> None:
    """Launches of a step, one by one: CUPTI, through PyTorch's profiler, sees CuPy's launches too."""
    try:
        import torch
        from torch.profiler import ProfilerActivity
        from torch.profiler import profile as watched
    except ImportError as error:
        raise SystemExit(f"{', '.join(specs)}: not seen launch by launch: {error}") from None

    cupy = usable_cupy()
    torch.zeros(1, device="cuda")
    for spec in specs:
        with reported(spec):
            watch(cupy, spec, watched, (ProfilerActivity.CUDA, ProfilerActivity.CPU))


def watch(cupy: Any, spec: str, watched: Any, activities: Any) -> None:
    """Print the launches of a step, as PyTorch's profiler sees them."""
    step = step_of(spec)
    step.take.wanted = False
    for _ in range(WARM_UP):
        step()
    cupy.cuda.Device().synchronize()
    with watched(activities=activities) as seen:
        step()
        cupy.cuda.Device().synchronize()
    events = [e for e in seen.events() if str(e.device_type).endswith("CUDA")]
    events.sort(key=lambda event: event.time_range.start)
    launches, known = [(e.name, e.time_range.elapsed_us() / 1e3) for e in events], counted(spec)
    total, least = sum(ms for _, ms in launches), sum(row.least for row in known)
    of_count = f"; the {len(known)} of a recorded step that were counted take {least:.2f} at least" if known else ""
    print(f"{spec}: {total:.2f} ms of kernels in {len(launches)} launches{of_count}")
    print("\n".join(beside_floors(launches, known)))


def convolutions(done: list[str]) -> None:
    """Time the convolutions that a card has met, but for those that are done, and what else computes them."""
    cupy = usable_cupy()
    for case in MEASURED:
        if case.name not in done:
            with reported(case.name):
                ways_of(cupy, case)


def ways_of(cupy: Any, case: Case) -> None:
    """Time all ways of a convolution."""
    rng = cupy.random.default_rng(0)
    x, w = (rng.standard_normal(shape, dtype=cupy.float32) for shape in (case.x, case.w))
    found, calls = [], here(case, x, w)
    for others in (by_ndimage, by_fftconvolve, by_torch):
        with reported(f"{others.__name__}, {case.name}"):  # one that cannot be loaded here ends none of the others
            calls |= others(case, x, w)
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

    names = ("float32", "tf32") if case.gradients else ("float32",)
    return {f"here {name}": taking(name) for name in names}


def by_ndimage(case: Case, x: Any, w: Any) -> dict[str, Callable[[], Any]]:
    """Cupyx's sum of taps, of single filters that are not too long for it."""
    if case.gradients or w.size >= 1000:
        return {}
    import cupyx.scipy.ndimage as ndimage

    filled, mode = _filled(x, w), "constant" if case.options["boundary"] == "zero" else "wrap"
    return {"ndimage": lambda: ndimage.convolve(x, filled, mode=mode)}


def by_fftconvolve(case: Case, x: Any, w: Any) -> dict[str, Callable[[], Any]]:
    """Cupyx's FFT, of single filters."""
    if case.gradients:
        return {}
    import cupyx.scipy.signal as signal

    return {"fftconvolve": lambda: signal.fftconvolve(x, _filled(x, w), mode="same", axes=case.axes)}


def _filled(x: Any, w: Any) -> Any:
    """A filter with as many axes as x."""
    return w.reshape((1,) * (x.ndim - w.ndim) + w.shape)


def by_torch(case: Case, x: Any, w: Any) -> dict[str, Callable[[], Any]]:
    """PyTorch's functions: of channels and two axes at the zero boundary, and of single filters."""
    import torch
    import torch.nn.functional as F

    if not case.gradients:
        convolve = (F.conv1d, F.conv2d, F.conv3d)[len(case.axes) - 1]
        tx, tw = (torch.from_dlpack(a).reshape(-1, 1, *a.shape[a.ndim - len(case.axes) :]) for a in (x, w))
        sides = [n // 2 for n in w.shape]
        around = {"pad": [n for n in reversed(sides) for _ in range(2)], "mode": "circular"}
        if case.options["boundary"] == "zero":
            return {"PyTorch float32": _rounding(lambda: convolve(tx, tw, padding=sides), tf32=False)}
        return {"PyTorch float32": _rounding(lambda: convolve(F.pad(tx, **around), tw), tf32=False)}
    if case.name.startswith("a layer"):  # attributes as channels, the filter a block-Toeplitz matrix of as many numbers
        n, *space, a, b = case.x
        x = x.reshape(n, *space, a * b)
        w = usable_cupy().ones((a * b, 3, 3, a // 2 * (b // 2) * case.w[-1]), x.dtype)
    elif case.options.get("sum_axes") is None or len(case.axes) > 2:
        return {}
    tx = torch.from_dlpack(x).permute(0, 3, 1, 2).detach().requires_grad_(True)
    tw = torch.from_dlpack(w).permute(3, 0, 1, 2).contiguous(memory_format=torch.channels_last)
    tw = tw.detach().requires_grad_(True)

    def taken() -> None:
        y = F.conv2d(tx, tw, padding=1)
        torch.autograd.grad(y, (tx, tw), y.detach())

    return {f"PyTorch {name}": _rounding(taken, tf32=name == "tf32") for name in ("float32", "tf32")}


def _rounding(function: Callable[[], Any], *, tf32: bool) -> Callable[[], None]:
    """A function of PyTorch's whose convolutions may, or may not, round operands to TensorFloat-32."""
    import torch

    def taken() -> None:
        torch.backends.cudnn.allow_tf32 = tf32
        function()

    return taken


if __name__ == "__main__":
    {"steps": steps, "profile": profile, "convolutions": convolutions}[sys.argv[1]](sys.argv[2:])
