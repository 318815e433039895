"""The stages of the gate, each a function that returns a text, a table and what else is worth keeping.

Times are medians, between device events or two synchronisations, after warming up; formulations that are compared take
turns. Inputs are random and fresh, their seed is kept, and memory is poisoned with NaN before values are compared.
"""

from train._process import prepare

prepare()  # before NumPy is loaded, as the command line of training does

import importlib.util  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import shutil  # noqa: E402
import signal  # noqa: E402
import statistics  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from collections import defaultdict  # noqa: E402
from collections.abc import Callable, Iterator  # noqa: E402
from contextlib import contextmanager  # noqa: E402
from importlib import metadata  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402

import hcnn_core  # noqa: E402
from autodiff import convolve_elu, vjp  # noqa: E402
from benchmarks.gpu.gate import CIFAR10  # noqa: E402
from benchmarks.step import CIFAR10_IMAGES, Step  # noqa: E402
from hcnn_core import patch_moments, precision  # noqa: E402
from hcnn_core._engines.cuda import launch as _cuda  # noqa: E402
from hcnn_core.backend import get_namespace, record, to_numpy  # noqa: E402
from train.config import make_config  # noqa: E402
from train.network import Network  # noqa: E402
from train.run import versions  # noqa: E402
from train.step import WARM_UP  # noqa: E402

Result = dict[str, Any]

TOLERANCE = {"float32": 1e-4, "tf32x3": 1e-4, "tf32": 2e-3}
"""Of float32 sums of some ten thousand products, relative to the largest, by precision."""

ROUNDS = 7

AHEAD = 1 << 29
"""Elements whose filling takes a card longer than a launch takes the host."""

SANITIZER_SECONDS = 80
"""For compute-sanitizer's tools, within those of its stage."""


def environment(cupy: Any, out: Path) -> Result:
    """The card, its driver, and the versions of everything."""
    runtime = cupy.cuda.runtime
    card = runtime.getDeviceProperties(0)
    found = {
        "card": card["name"].decode(),
        "multiprocessors": card["multiProcessorCount"],
        "memory, GiB": card["totalGlobalMem"] / 2**30,
        "L2 cache, MiB": card["l2CacheSize"] / 2**20,
        "driver's CUDA": runtime.driverGetVersion(),
        "wheel's CUDA": runtime.runtimeGetVersion(),
        "processors": os.cpu_count(),
        **versions("cupy"),
        **{name: version(name) for name in ("torch", "jax", "numba")},
    }
    return {"text": "", "table": [["what", "value"], *found.items()]}


def version(module: str) -> str:
    """The version of a peer, or that it is missing."""
    try:
        return metadata.version(module)
    except metadata.PackageNotFoundError:
        return "not installed"


@contextmanager
def poisoned_memory(cupy: Any) -> Iterator[None]:
    """New arrays lie where NaN was, so that what a kernel does not write shows."""
    with cupy.cuda.using_allocator(cupy.cuda.MemoryPool().malloc):
        held = [cupy.full(1 << 28, cupy.nan, dtype=cupy.float32) for _ in range(4)]
        del held
        yield


PROBLEMS: tuple[tuple[str, tuple[int, ...], tuple[int, ...], tuple[int, ...], dict[str, Any]], ...] = tuple(
    (f"{name}, {boundary}", x, w, axes, {**options, "boundary": boundary})
    for boundary in ("zero", "periodic")
    for name, x, w, axes, options in (
        ("layer 1", (50, 32, 32, 3), (3, 3, 3, 16), (1, 2), {"sum_axes": 3}),
        ("layer 2", (20, 32, 32, 16), (3, 3, 11, 16), (1, 2, 3), {"stride": (1, 1, 2)}),
        ("layer 4", (10, 32, 32, 8, 16), (3, 3, 7, 11, 16), (1, 2, 3, 4), {"stride": (1, 1, 2, 2)}),
        ("layer 5", (10, 32, 32, 8, 16), (3, 3, 7, 11, 16), (1, 2, 3, 4), {"stride": 2}),
        ("layer 11", (33, 8, 8, 8, 16), (3, 3, 7, 11, 10), (1, 2, 3, 4), {"stride": (1, 1, 2, 2)}),
        ("(+) along attributes", (2, 16, 16, 8, 16, 32), (32, 7, 11, 16), (3, 4), {"sum_axes": 5, "stride": 2}),
        ("three axes of space", (3, 20, 17, 15, 2), (4, 3, 5, 6), (1, 2, 3), {}),
        ("a long axis", (3, 3000), (129, 2), (1,), {"method": "fft"}),
    )
)


def differentiated(axes: tuple[int, ...], options: dict[str, Any], x: Any, w: Any, bias: Any, g: Any) -> list[Any]:
    """A layer's output, and its cotangents for a cotangent g."""
    y, pullback = vjp(lambda *operands: convolve_elu(*operands, axes, **options), x, w, bias)
    return [y, *pullback(g)]


def compared(found: Any, expected: Any, products: str = "float32") -> list[Any]:
    """Largest errors relative to the largest entry, and whether they are small."""
    errors = [float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(found, expected, strict=True)]
    return [*errors, "yes" if all(e <= TOLERANCE[products] for e in errors) else "NO"]


def parity(cupy: Any, out: Path) -> Result:
    """Layers and their gradients against NumPy in double precision, and training steps run twice."""
    seed = int.from_bytes(os.urandom(4), "little")
    rng = np.random.default_rng(seed)
    rows = []
    for name, x_shape, w_shape, axes, options in PROBLEMS:
        x, w, bias = (rng.standard_normal(s, np.float32) for s in (x_shape, w_shape, w_shape[-1:]))
        g = rng.standard_normal(convolve_elu(x, w, bias, axes, **options).shape, np.float32)
        wide = [a.astype(np.float64) for a in (x, w, bias, g)]
        expected = differentiated(axes, options, *wide)
        for products in TOLERANCE:
            with poisoned_memory(cupy), precision(products):
                found = [to_numpy(a) for a in differentiated(axes, options, *map(cupy.asarray, (x, w, bias, g)))]
            rows.append([f"{name}, {products}", *compared(found, expected, products)])
    x = rng.standard_normal((20, 32, 32, 8, 16), np.float32) + np.float32(3)
    for boundary in ("zero", "periodic"):
        expected = patch_moments(x.astype(np.float64), (1, 2), (3, 3), boundary=boundary)
        with poisoned_memory(cupy):
            found = [to_numpy(a) for a in patch_moments(cupy.asarray(x), (1, 2), (3, 3), boundary=boundary)]
        errors = compared(found, expected)
        rows.append([f"patch moments, {boundary}", *errors[:2], "", "", errors[2]])
    for preset in ("hcnn", "hcnn-plus"):
        losses = {xp.__name__: [first_losses(xp, preset, seed) for _ in range(2)] for xp in (np, cupy)}
        same = losses["cupy"][0] == losses["cupy"][1]
        apart = max(abs(a - b) / abs(b) for a, b in zip(losses["cupy"][0], losses["numpy"][0], strict=True))
        good = "yes" if same and apart <= TOLERANCE["float32"] else "NO"
        rows.append(
            [f"{preset}: {WARM_UP + 4} steps", f"losses {apart:.1g} apart", f"same bits again: {same}", "", "", good]
        )
    if any(r[-1] == "NO" for r in rows):
        (out / "parity.wrong.json").write_text(json.dumps(rows, indent=1))
        raise SystemExit(f"not equal: {[r for r in rows if r[-1] == 'NO']}")
    text = f"Largest errors against double precision, relative to the largest entry; good are {TOLERANCE}; seed {seed}."
    return {"text": text, "table": [["what", "y", "x", "w", "bias", "good"], *rows]}


def first_losses(xp: Any, preset: str, seed: int) -> list[float]:
    """Losses of the first steps, the last of them by a CUDA graph."""
    step = Step(preset, "zero", 10, xp, seed, depth=7)
    return [float(step()) for _ in range(WARM_UP + 4)]


def seconds(cupy: Any, function: Callable[[], Any], repeats: int = 1) -> float:
    """Time of one call between device events."""
    begin, end = cupy.cuda.Event(), cupy.cuda.Event()
    begin.record()
    for _ in range(repeats):
        function()
    end.record()
    end.synchronize()
    return float(cupy.cuda.get_elapsed_time(begin, end)) / 1e3 / repeats


def in_turns(cupy: Any, functions: dict[str, Callable[[], Any]], repeats: int = 3) -> dict[str, list[float]]:
    """Times of all, in alternating rounds, each warmed up."""
    for function in functions.values():
        for _ in range(2):
            function()
    rounds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(ROUNDS):
        for name, function in functions.items():
            rounds[name].append(seconds(cupy, function, repeats))
    return rounds


def ceilings(cupy: Any, out: Path) -> Result:
    """What the card can do: copies, and matrix products in float32."""
    source, target = cupy.ones(1 << 30, dtype=cupy.float32), cupy.empty(1 << 30, dtype=cupy.float32)
    a, b = (cupy.random.standard_normal((8192, 8192), dtype=cupy.float32) for _ in range(2))
    times = in_turns(cupy, {"copy": lambda: cupy.copyto(target, source), "sgemm": lambda: a @ b})
    copy, product = (statistics.median(times[name]) for name in ("copy", "sgemm"))
    table = [
        ["ceiling", "value"],
        ["copy of 4 GiB, read and written, GB/s", 2 * source.nbytes / copy / 1e9],
        ["float32 product of 8192, TFLOP/s", 2 * 8192**3 / product / 1e12],
    ]
    return {"text": "", "table": table, "rounds": times}


def step(cupy: Any, out: Path) -> Result:
    """Whole training steps of both networks, as a CUDA graph and kernel by kernel."""
    steps = {
        f"{preset}, {boundary}, batch of {size}": Step(preset, boundary, size, cupy)
        for preset, boundary, size in (
            ("hcnn", "zero", 50), ("hcnn", "periodic", 50), ("hcnn", "zero", 500), ("hcnn", "periodic", 500),
            ("hcnn-plus", "zero", 50), ("hcnn-plus", "periodic", 50),
        )
    }  # fmt: skip
    steps |= {
        f"hcnn, {boundary}, batch of {size}, {products}": Step("hcnn", boundary, size, cupy, precision=products)
        for boundary in ("zero", "periodic") for size in (50, 500) for products in ("tf32x3", "tf32")
    }  # fmt: skip
    one_by_one = Step("hcnn", "zero", 50, cupy)
    one_by_one.take.wanted = False
    steps[f"{one_by_one.name}, batch of 50, kernel by kernel"] = one_by_one
    for s in steps.values():
        for _ in range(WARM_UP + 1):
            s()
    times = in_turns(cupy, steps, 1)
    rows = []
    for name, s in steps.items():
        median, size = statistics.median(times[name]), s.config.batch_size
        graph = "no" if s.take.launch is None else "yes"
        rows.append([name, graph, 1e3 * median, size / median, CIFAR10_IMAGES * median / size])
    head = ["network", "graph", "ms a step", "images/s", "s an epoch of CIFAR-10"]
    return {"text": "Augmentation, forward, backward and descent.", "table": [head, *rows], "rounds": times}


def profile(cupy: Any, out: Path) -> Result:
    """A step's own kernels by time, each between events; the rest is CuPy's kernels and waiting for Python."""
    s = Step("hcnn", "zero", 50, cupy)
    s.take.wanted = False
    for _ in range(3):
        s()
    whole = statistics.median(seconds(cupy, s) for _ in range(5))
    spent: dict[str, list[float]] = defaultdict(list)
    launch = _cuda.launch
    ahead = cupy.empty(AHEAD, dtype=cupy.float32)

    def timed(name: str, *arguments: Any, **options: Any) -> None:
        ahead.fill(0)  # while the card does this, both events and the launch come to wait in its queue
        spent[name].append(seconds(cupy, lambda: launch(name, *arguments, **options)))

    _cuda.launch = timed
    s()
    _cuda.launch = launch
    rows = [[name, len(times), 1e3 * sum(times)] for name, times in sorted(spent.items(), key=lambda i: -sum(i[1]))]
    rest = 1e3 * (whole - sum(map(sum, spent.values())))
    table = [["kernel", "launches", "ms"], *rows, ["rest", "", rest], ["whole step", "", 1e3 * whole]]
    return {"text": "Preset `hcnn`, batch of 50.", "table": table}


def layer(cupy: Any, out: Path) -> Result:
    """The 32 x 32 layer j = 4 forward and backward beside PyTorch's formulations, batch of 50."""
    try:
        import torch

        from benchmarks.layer import ATTRIBUTES, DEPTH, SPACE, Problem
        from benchmarks.peers_torch import Step as Peer
    except ImportError as error:
        return {"text": f"Skipped: {error}.", "table": [["formulation", "ms"]]}
    rows: list[list[Any]] = []
    rounds = {}
    for boundary in ("zero", "periodic"):
        problem = Problem(boundary, 50)
        arrays = problem.arrays(50)
        network = Network(make_config("hcnn", {"boundary": boundary}))
        name = network.table[DEPTH - 1].name
        images_last = (3, 4, 5, 1, 2, 0)
        x, g = (cupy.ascontiguousarray(cupy.asarray(arrays[k]).transpose(images_last)) for k in ("x", "cotangent"))
        x, g = (a.transpose(tuple(int(i) for i in np.argsort(images_last))) for a in (x, g))
        weights = tuple(cupy.asarray(arrays[k]) for k in ("h", "g", "bias"))

        def ours(network: Any = network, name: str = name, x: Any = x, g: Any = g, weights: Any = weights) -> Any:
            def layer(x: Any, *w: Any) -> Any:
                return next(network.trace({name: dict(zip(("h", "g", "bias"), w, strict=True))}, x, after=DEPTH - 1))[1]

            return vjp(layer, x, *weights)[1](g)

        functions: dict[str, Callable[[], Any]] = {"ours, kernel by kernel": ours}
        ours()
        for products in TOLERANCE:
            with precision(products):
                ours()
                functions["ours" if products == "float32" else f"ours, {products}"] = record(ours)[0]
        options: dict[str, Any] = {"boundary": boundary, "stride": problem.stride, "epsilon": problem.epsilon}
        for peer in ("torch-written", "torch-merged", "torch-toeplitz", "torch-toeplitz-compiled"):
            for products in ("float32", "TF32"):
                try:
                    run = _in_precision(torch, Peer(peer, arrays, device="cuda", **options), products == "TF32")
                    run()
                except Exception as failure:  # what one formulation cannot do is named, and keeps the others' times
                    print(f"{peer}, {products}: {failure}")
                    rows.append([f"{peer}, {products}", boundary, "", f"cannot: {type(failure).__name__}"])
                else:
                    functions[f"{peer}, {products}"] = run
        stream = cupy.cuda.ExternalStream(torch.cuda.current_stream().cuda_stream)
        with stream:
            times = in_turns(cupy, functions, 2)
        rounds[boundary] = times
        own = statistics.median(times["ours"])
        rows += [[n, boundary, 1e3 * statistics.median(t), statistics.median(t) / own] for n, t in times.items()]
    text = f"Axes {SPACE} by taps, {ATTRIBUTES} by DFT; whole layers, the marginal, moments and ELU included."
    return {"text": text, "table": [["formulation", "boundary", "ms", "times ours"], *rows], "rounds": rounds}


def _in_precision(torch: Any, function: Callable[[], Any], tf32: bool) -> Callable[[], Any]:
    """A peer that may use TensorFloat-32, or not."""

    def run() -> Any:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
        return function()

    return run


def convolve(cupy: Any, out: Path) -> Result:
    """Convolutions along four and five axes beside cupyx.scipy.ndimage and JAX, values compared first."""
    from cupyx.scipy import ndimage

    rows = []
    rng = np.random.default_rng(0)
    for lengths, kernel_size in (((32, 32, 32, 32), (3, 3, 7, 11)), ((16, 16, 16, 16, 16), (3, 3, 3, 5, 5))):
        x, w = (cupy.asarray(rng.standard_normal(s, np.float32)) for s in (lengths, kernel_size))
        axes = tuple(range(len(lengths)))
        functions: dict[str, Callable[[], Any]] = {
            "ours": lambda x=x, w=w, axes=axes: hcnn_core.convolve(x, w, axes, boundary="zero"),
            "cupyx.scipy.ndimage": lambda x=x, w=w: ndimage.convolve(x, w, mode="constant"),
        }
        if (peer := _jax_convolve(to_numpy(x), to_numpy(w))) is not None:
            functions["jax"] = peer
        expected, kept = functions["ours"](), {}
        for name, function in functions.items():
            try:
                error = float(np.abs(to_numpy(function()) - to_numpy(expected)).max())
            except Exception as failure:  # a peer that cannot do this many axes is named
                rows.append([f"{lengths} * {kernel_size}", name, "", f"cannot: {type(failure).__name__}"])
                continue
            if error <= 1e-4 * float(abs(expected).max()):
                kept[name] = function
            else:
                rows.append([f"{lengths} * {kernel_size}", name, "", f"differs by {error:.2g}"])
        times = {name: statistics.median(t) for name, t in in_turns(cupy, kept).items()}
        rows += [[f"{lengths} * {kernel_size}", n, 1e3 * t, t / times["ours"]] for n, t in times.items()]
    return {"text": "Zero boundary, float32.", "table": [["problem", "by", "ms", "times ours"], *rows]}


def _jax_convolve(x: Any, w: Any) -> Callable[[], Any] | None:
    """The same by JAX on the GPU, where it is installed; it waits for its result."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    try:
        import jax
        from jax import lax

        if jax.default_backend() != "gpu":
            return None
    except (ImportError, RuntimeError):
        return None
    flipped, there = jax.device_put(np.flip(w)[None, None].copy()), jax.device_put(x[None, None])
    pads = [(size - 1 - size // 2, size // 2) for size in w.shape]
    run = jax.jit(lambda x, w: lax.conv_general_dilated(x, w, (1,) * len(pads), pads, precision="highest")[0, 0])
    return lambda: run(there, flipped).block_until_ready()


def sanitizer(cupy: Any, out: Path) -> Result:
    """The kernels under compute-sanitizer, its tools side by side: accesses, races, and memory that was not written."""
    tool = shutil.which("compute-sanitizer")
    if tool is None:
        return {"text": "Skipped: there is no compute-sanitizer.", "table": [["tool", "errors"]]}
    # what it runs is in sessions of its own, which the gate would not reach
    seconds = min(SANITIZER_SECONDS, float(os.environ.get("HCNN_GATE_UNTIL", "inf")) - time.time() - 5)
    running, until = {}, time.monotonic() + seconds
    for check in ("memcheck", "racecheck", "initcheck"):
        command = [tool, "--tool", check, "--report-api-errors", "no", "--error-exitcode", "9"]
        command += [sys.executable, "-m", "benchmarks.gpu.stages", "small"]
        folder = out / f"sanitizer-{check}"
        folder.mkdir(exist_ok=True)
        with (folder / "log").open("w") as log:
            running[check] = subprocess.Popen(
                [*command, str(folder)], stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
    rows = []
    for check, process in running.items():
        try:
            status = process.wait(max(0, until - time.monotonic()))
            rows.append([check, f"exit status {status}, see sanitizer-{check}/log" if status else "none"])
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # the program that it runs, too
            process.wait()
            rows.append([check, f"not known: stopped after {seconds:.0f} s"])
    if any("exit" in r[1] for r in rows):
        raise SystemExit(str(rows))
    return {"text": "A small network's step.", "table": [["tool", "errors"], *rows]}


def small(cupy: Any, out: Path) -> Result:
    """A step of a small network, for the sanitizer."""
    loss = float(Step("hcnn", "zero", 4, cupy, width=4, factors=4, depth=6)())
    return {"text": "", "table": [["loss"], [loss]]}


def tests(cupy: Any, out: Path) -> Result:
    """The tests that want a GPU."""
    wanted = ("pytest", "hypothesis", "array_api_strict")
    if missing := [name for name in wanted if importlib.util.find_spec(name) is None]:
        raise SystemExit(f"wants {', '.join(missing)}: give a folder of their wheels by --wheels")
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "tests"]
    done = subprocess.run(command, env={**os.environ, "HYPOTHESIS_PROFILE": "ci"}, capture_output=True, text=True)
    print(done.stdout, done.stderr)
    last = done.stdout.strip().splitlines()[-1]
    if done.returncode:
        raise SystemExit(last)
    return {"text": "", "table": [["command", "result"], [" ".join(command[1:]), last]]}


def train(cupy: Any, out: Path) -> Result:
    """A short run on CIFAR-10, where all its files have come."""
    data = Path(os.environ["HCNN_GATE_DATA"])
    if missing := [name for name in CIFAR10 if not (data / name).exists()]:
        raise SystemExit(f"waiting for {', '.join(missing)} in {data}: give --data, and run again")
    run = out / "run"
    if run.exists():
        shutil.rmtree(run)
    command = [sys.executable, "-m", "train.cifar", "--preset", "hcnn-fast", "--epochs", "3", "--backend", "cupy"]
    began = time.monotonic()
    subprocess.run([*command, "--data-dir", str(data), "--out", str(run)], check=True)
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rows = [[r["epoch"], r["seconds"], r["train_loss"], ""] for r in records[:-1]]
    rows.append(["test", time.monotonic() - began, records[-1]["test_loss"], records[-1]["test_accuracy"]])
    return {"text": " ".join(command[1:]), "table": [["epoch", "s", "loss", "accuracy"], *rows]}


def main() -> None:
    """Run one stage and write what it returns."""
    name, out = sys.argv[1], Path(sys.argv[2])
    stages = (environment, parity, ceilings, step, profile, layer, convolve, sanitizer, small, tests, train)
    functions = {f.__name__: f for f in stages}
    result = functions[name](get_namespace("cupy"), out)
    (out / f"{name}.json.part").write_text(json.dumps(result, indent=1, default=str) + "\n")
    (out / f"{name}.json.part").rename(out / f"{name}.json")


if __name__ == "__main__":
    main()
