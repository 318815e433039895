"""4-D convolutions inside PyTorch and JAX, ours and as people write them: `python -m benchmarks.frameworks`.

Every row is forward and backward: the result, and the gradients of signal and filters for a given cotangent. Each way
runs in a process of its own, and its result is compared with ours before it is timed. JAX uses all processors, the
others --threads. Memory is what one run adds at its peak. `module` is `hcnn_core.torch.conv_nd`, `arrays` are
the functions of hcnn_core that it calls. `filters of taps` is one conv3d whose filters are those of all taps of the
last axis, its parts shifted and added; `channels of taps` is one conv3d of so many times the channels.
`--forward` leaves the gradients out. `--processor-time` counts that of all threads, for a machine on which others work;
give it with `--threads 1`. With `--quick` the cases are tiny: to try the script, not to compare.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Results = tuple[Any, ...]
"""The result, the gradient of the signal, and that of the filters; forward, the result alone."""


@dataclass(frozen=True)
class Case:
    """A convolution: x (N, C, *lengths), K filters (K, C, *kernel), stride 1, as many results as samples."""

    name: str
    x: tuple[int, ...]
    kernel: tuple[int, ...]
    filters: int
    periodic: bool = False

    def small(self) -> "Case":
        """The same in small."""
        batch, channels, *lengths = self.x
        tiny = (min(batch, 2), min(channels, 3), *(min(n, 5) for n in lengths))
        return Case(self.name, tiny, tuple(min(k, 3) for k in self.kernel), min(self.filters, 2), self.periodic)


CASES = [
    Case("correspondence", (1, 16, 24, 24, 24, 24), (3, 3, 3, 3), 16),
    Case("light field", (2, 8, 9, 9, 64, 64), (3, 3, 3, 3), 8),
    Case("lattice", (1, 4, 16, 32, 32, 32), (3, 3, 3, 3), 8, periodic=True),
    Case("fMRI", (4, 1, 40, 40, 40, 20), (5, 5, 5, 3), 4),
    Case("attributes", (100, 1, 8, 16, 32, 32), (7, 11, 3, 3), 16),
    Case("a megabyte", (1, 1, 16, 16, 32, 32), (3, 3, 3, 3), 1),
]
CASES += [
    Case(f"{channels} to {channels} on {length}^4", (batch, channels, *(length,) * 4), (3,) * 4, channels)
    for channels, lengths in ((4, (8, 12, 24)), (8, (8, 12, 24)), (16, (8, 12, 24)), (32, (8, 12, 16)), (64, (8, 12)))
    for length in lengths
    for batch in ((1, 8) if length == 8 else (1,))
]
CASES += [Case(f"{n} to {n} on 12^4", (8, n, *(12,) * 4), (3,) * 4, n) for n in (4, 8, 16, 32, 64)]
MOST_MIB = 12_000
"""Ways that would hold more than this at once are not run."""


class Operands:
    """The arrays of a case, all kernel sizes odd."""

    def __init__(self, case: Case, forward: bool = False) -> None:
        self.forward = forward
        rng = np.random.default_rng(0)
        self.case, self.half = case, [k // 2 for k in case.kernel]
        shapes = case.x, (case.filters, case.x[1], *case.kernel), (case.x[0], case.filters, *case.x[2:])
        self.x, self.w, self.h = (rng.standard_normal(shape, dtype=np.float32) for shape in shapes)


def arrays(o: Operands) -> Callable[[], Results]:
    """`hcnn_core.convolve` and its vector-Jacobian products."""
    from hcnn_core import convolve, convolve_vjp_w, convolve_vjp_x

    axes = tuple(range(2, o.x.ndim))
    w = np.ascontiguousarray(np.moveaxis(np.flip(o.w, axes), 0, -1))
    h = np.moveaxis(o.h, 1, -1)
    options: Any = {"boundary": "periodic" if o.case.periodic else "zero", "sum_axes": 1}

    def run() -> Results:
        y = convolve(o.x, w, axes, **options)
        if o.forward:
            return (np.moveaxis(y, -1, 1),)
        of_x, of_w = convolve_vjp_x(h, o.x, w, axes, **options), convolve_vjp_w(h, o.x, w, axes, **options)
        return np.moveaxis(y, -1, 1), of_x, np.flip(np.moveaxis(of_w, -1, 0), axes)

    return run


def by_torch(o: Operands, function: Callable[[Any, Any], Any]) -> Callable[[], Results]:
    """A function of PyTorch's and its gradients."""
    import torch

    x, w, h = (torch.from_numpy(a) for a in (o.x, o.w, o.h))

    def run() -> Results:
        if o.forward:
            with torch.no_grad():
                return (function(x, w),)
        a, b = x.detach().requires_grad_(), w.detach().requires_grad_()
        y = function(a, b)
        return (y.detach(), *torch.autograd.grad(y, (a, b), h))

    return run


def module(o: Operands) -> Callable[[], Results]:
    """`hcnn_core.torch.conv_nd`."""
    from hcnn_core.torch import conv_nd

    mode: Any = "circular" if o.case.periodic else "zeros"
    return by_torch(o, lambda x, w: conv_nd(x, w, padding=o.half, padding_mode=mode))


def padded(o: Operands, x: Any) -> Any:
    """The signal with what its boundary adds."""
    import torch

    for axis, p in enumerate(o.half, 2):
        n = x.shape[axis]
        if o.case.periodic:
            x = torch.cat((x.narrow(axis, n - p, p), x, x.narrow(axis, 0, p)), axis)
        else:
            x = torch.nn.functional.pad(x, (0, 0) * (x.ndim - 1 - axis) + (p, p))
    return x


def loop(o: Operands) -> Callable[[], Results]:
    """The sum of conv3d over the taps of the first axis, which is folded into the batch."""
    import torch

    def function(x: Any, w: Any) -> Any:
        x, n = padded(o, x), x.shape[2]
        sums = 0
        for t in range(w.shape[2]):
            part = x.narrow(2, t, n).transpose(1, 2).flatten(0, 1)  # (N * n, C, ...)
            sums = sums + torch.nn.functional.conv3d(part, w[:, :, t])
        return sums.unflatten(0, (-1, n)).transpose(1, 2)

    return by_torch(o, function)


def along_last(o: Operands, x: Any, axis: int, shift: int) -> Any:
    """What lies so many samples further along an axis that stands for the last one."""
    import torch

    if o.case.periodic or not shift:
        return torch.roll(x, -shift, axis) if shift else x
    n = x.shape[axis]
    zeros = torch.zeros_like(x.narrow(axis, 0, abs(shift)))
    inside = x.narrow(axis, max(shift, 0), n - abs(shift))
    return torch.cat((inside, zeros) if shift > 0 else (zeros, inside), axis)


def three_axes(o: Operands, x: Any, w: Any) -> Any:
    """One conv3d of (N, C, last, ...), the last axis of four being folded into the batch."""
    import torch

    n, last = x.shape[0], x.shape[2]
    x, padding = x.transpose(1, 2).flatten(0, 1), tuple(o.half[:3])
    if o.case.periodic:
        for axis, p in enumerate(padding, 2):
            m = x.shape[axis]
            x = torch.cat((x.narrow(axis, m - p, p), x, x.narrow(axis, 0, p)), axis)
        padding = (0, 0, 0)
    return torch.nn.functional.conv3d(x, w, padding=padding).unflatten(0, (n, last)).transpose(1, 2)


def filters_of_taps(o: Operands) -> Callable[[], Results]:
    """One conv3d whose filters are those of all taps of the last axis; its parts are shifted and added."""

    def function(x: Any, w: Any) -> Any:
        parts = three_axes(o, x.movedim(-1, 2), w.movedim(-1, 0).flatten(0, 1)).unflatten(1, (w.shape[-1], -1))
        sums = 0
        for t in range(w.shape[-1]):
            sums = sums + along_last(o, parts[:, t], 2, t - o.half[-1])
        return sums.movedim(2, -1)

    return by_torch(o, function)


def channels_of_taps(o: Operands) -> Callable[[], Results]:
    """One conv3d of as many times the channels as the last axis has taps, each a shifted copy."""
    import torch

    def function(x: Any, w: Any) -> Any:
        x, taps = x.movedim(-1, 2), range(w.shape[-1])
        copies = torch.cat([along_last(o, x, 2, t - o.half[-1]) for t in taps], 1)
        return three_axes(o, copies, w.movedim(-1, 1).flatten(1, 2)).movedim(2, -1)

    return by_torch(o, function)


def unfold(o: Operands) -> Callable[[], Results]:
    """All windows as one matrix, and one product."""
    import torch

    taps = math.prod(o.case.kernel)
    if (needed := 4 * o.x.size * taps / 2**20) > MOST_MIB:
        raise SystemExit(f"the windows would take {needed:,.0f} MiB")

    def function(x: Any, w: Any) -> Any:
        windows = padded(o, x)
        for axis, k in enumerate(o.case.kernel, 2):
            windows = windows.unfold(axis, k, 1)
        m = len(o.case.kernel)
        return torch.tensordot(windows, w, ([1, *range(m + 2, 2 * m + 2)], list(range(1, m + 2)))).movedim(-1, 1)

    return by_torch(o, function)


def lax(o: Operands) -> Callable[[], Results]:
    """`jax.lax.conv_general_dilated`, compiled."""
    import jax
    from jax import numpy as jnp

    pads = [(p, p) for p in o.half]

    def function(x: Any, w: Any) -> Any:
        if o.case.periodic:
            x = jnp.pad(x, [(0, 0), (0, 0), *pads], mode="wrap")
        padding = [(0, 0)] * len(pads) if o.case.periodic else pads
        return jax.lax.conv_general_dilated(x, w, (1,) * len(pads), padding)

    return by_jax(o, function)


def callback(o: Operands) -> Callable[[], Results]:
    """`hcnn_core.jax.convolve`, compiled."""
    from jax import numpy as jnp

    from hcnn_core.jax import convolve

    axes = tuple(range(2, o.x.ndim))
    boundary: Any = "periodic" if o.case.periodic else "zero"

    def function(x: Any, w: Any) -> Any:
        flipped = jnp.moveaxis(jnp.flip(w, axes), 0, -1)
        return jnp.moveaxis(convolve(x, flipped, axes, boundary=boundary, sum_axes=1), -1, 1)

    return by_jax(o, function)


def by_jax(o: Operands, function: Callable[[Any, Any], Any]) -> Callable[[], Results]:
    """A function of JAX's and its gradients."""
    import jax

    @jax.jit
    def results(x: Any, w: Any, h: Any) -> Results:
        y, back = jax.vjp(function, x, w)
        return (y,) if o.forward else (y, *back(h))

    operands = [jax.numpy.asarray(a) for a in (o.x, o.w, o.h)]
    return lambda: jax.block_until_ready(results(*operands))


WAYS: dict[str, Callable[[Operands], Callable[[], Results]]] = {
    "module": module,
    "arrays": arrays,
    "sum over conv3d": loop,
    "filters of taps": filters_of_taps,
    "channels of taps": channels_of_taps,
    "unfold and matmul": unfold,
    "hcnn_core.jax": callback,
    "lax": lax,
}


def require_ours(o: Operands, results: Results) -> None:
    """Raise unless a result and its gradients are those of `hcnn_core`, up to the rounding of their longest sums."""
    operands = (o.x, o.w), (o.h, o.w), (o.h, o.x)
    for a, b, pair in zip(results, arrays(o)(), operands, strict=False):
        scale = math.prod(float(np.linalg.norm(each.ravel().astype(float))) for each in pair)
        error = float(abs(np.asarray(a) - b).max())
        if not error <= 20 * np.finfo(np.float32).eps * scale:
            raise SystemExit(f"a result is off by {error:.2g}")


def measure(
    case: Case, name: str, threads: int, seconds: float, forward: bool, processor_time: bool
) -> dict[str, float]:
    """Milliseconds, the median of runs of some seconds, and MiB."""
    from benchmarks.machine import added_by

    if name not in ("arrays", "hcnn_core.jax", "lax"):
        import torch

        torch.set_num_threads(threads)
    operands = Operands(case, forward)
    run = WAYS[name](operands)
    require_ours(operands, run())
    mib = added_by(run)
    taken: list[float] = []
    clock = time.process_time if processor_time else time.perf_counter
    while sum(taken) < seconds or len(taken) < 3:
        start = clock()
        run()
        taken.append(clock() - start)
    return {"ms": 1e3 * statistics.median(taken), "mib": mib, "runs": len(taken)}


def in_its_process(at: int, name: str, options: argparse.Namespace) -> dict[str, Any]:
    """The figures of a way, or why there are none."""
    command = [sys.executable, "-m", "benchmarks.frameworks", "--one", name, "--case", str(at)]
    command += ["--threads", str(options.threads), "--seconds", str(options.seconds)]
    for flag in ("quick", "forward", "processor_time"):
        command += ["--" + flag.replace("_", "-")] * getattr(options, flag)
    environment = {"HCNN_NUM_THREADS": str(options.threads), "OMP_NUM_THREADS": str(options.threads)}
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True)
    if done.returncode:
        return {"skipped": done.stderr.strip().splitlines()[-1]}
    return json.loads(done.stdout)


def lines(rows: list[dict[str, Any]]) -> list[str]:
    """A table, a row for each way; factors above 1 are in our favour."""
    text = ["| case | way | ms | of ours | MiB | of ours |", "| --- | --- | --- | --- | --- | --- |"]
    for row in rows:
        ours, case = row["ways"]["module"], f"{row['batch']} x {row['case']}"
        for name, figures in row["ways"].items():
            if "skipped" in figures:
                text.append(f"| {case} | {name} | - | - | - | {figures['skipped']} |")
            else:
                factors = [figures[key] / ours[key] if ours.get(key) else math.nan for key in ("ms", "mib")]
                numbers = f"{figures['ms']:.1f} | {factors[0]:.2f}x | {figures['mib']:.0f} | {factors[1]:.2f}x"
                text.append(f"| {case} | {name} | {numbers} |")
    return text


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.frameworks", description=__doc__.splitlines()[0], allow_abbrev=False
    )
    parser.add_argument("--threads", type=int, default=2, help="of each way (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=10, help="for the runs of a way (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="tiny cases, to try the script")
    parser.add_argument("--case", type=int, nargs="*", choices=range(len(CASES)), help="numbers; by default all")
    parser.add_argument("--ways", nargs="*", choices=WAYS, default=list(WAYS), help="by default all")
    parser.add_argument("--forward", action="store_true", help="without gradients")
    parser.add_argument("--processor-time", action="store_true", help="of all threads, in place of the clock's")
    parser.add_argument("--one", choices=WAYS, help="measure this process with one way of one case")
    parser.add_argument("--out", type=Path, help="write the figures to this file, the table to one beside it (.txt)")
    options = parser.parse_args()
    numbers = options.case or range(len(CASES))
    cases = {i: CASES[i].small() if options.quick else CASES[i] for i in numbers}
    if options.one:
        ((_, case),) = cases.items()
        given = options.threads, options.seconds, options.forward, options.processor_time
        print(json.dumps(measure(case, options.one, *given)))
        return
    from benchmarks.machine import describe_machine

    rows = []
    for i, case in cases.items():
        ways = {name: in_its_process(i, name, options) for name in options.ways}
        rows.append({"case": case.name, "batch": case.x[0], "ways": ways})
    frameworks = {name: metadata.version(name) for name in ("torch", "jax") if find_spec(name)}
    machine = {**describe_machine(), **frameworks}
    text = [*(f"{key}: {value}" for key, value in machine.items()), "", *lines(rows)]
    print(*text, sep="\n")
    if options.out:
        options.out.write_text(json.dumps({**machine, "threads": options.threads, "cases": rows}, indent=1) + "\n")
        options.out.with_suffix(".txt").write_text("\n".join(text) + "\n")


if __name__ == "__main__":
    main()
