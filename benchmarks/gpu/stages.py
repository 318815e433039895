"""The stages of the gate, each a function that fills a table and returns a text and what else is worth keeping.

Times are medians, between device events or two synchronisations, after warming up; formulations that are compared take
turns. Inputs are random and fresh, their seed is kept, and memory is poisoned with NaN before values are compared.
"""

from train.commands.process import prepare

prepare()  # before NumPy is loaded, as the command line of training does

import ast
import importlib.util
import json
import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from autodiff import convolve_elu, vjp
from benchmarks.gpu.gate import CIFAR10, ROOT, present, result_of, rows_of, rows_so_far
from benchmarks.step import Step
from hcnn_core import patch_moments, precision
from hcnn_core._problem import make_problem
from hcnn_core.backend import get_namespace, to_numpy
from train.runs.run import versions
from train.runs.step import WARM_UP

Result = dict[str, Any]

TOLERANCE = {"float32": 1e-4, "tf32": 2e-3}
"""Largest errors of float32 sums of some ten thousand products, relative to the largest, by precision."""

ROUNDS = 7

NAN_BYTE = 0xFF
"""The byte of poisoned memory: floating-point numbers made of it are NaN."""

SANITIZER_SECONDS = 200
"""For compute-sanitizer's tools, within those of its stage."""


class Table(list[list[Any]]):
    """A stage's table, each row written to a file as it comes; a stage that was stopped finds its rows there.

    Parameters
    ----------
    out : Path
        Folder of the file.
    stage : str
        Whose table it is.
    head : sequence of str
        The first row.
    """

    def __init__(self, out: Path, stage: str, head: Sequence[str]) -> None:
        self.path = rows_of(out, stage)
        rows = rows_so_far(out, stage)
        super().__init__(rows if rows[:1] == [list(head)] else [list(head)])
        self.path.write_text("".join(json.dumps(row, default=str) + "\n" for row in self), encoding="utf-8")

    def add(self, *rows: list[Any]) -> None:
        """Append rows, here and in the file."""
        self.extend(rows)
        with self.path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(row, default=str) + "\n" for row in rows)

    def lacks(self, *key: Any) -> bool:
        """Whether no row begins like this."""
        return not any(row[: len(key)] == list(key) for row in self)


def usable_cupy() -> Any:
    """CuPy on a card; without one the command ends, and one line says what is missing."""
    try:
        return get_namespace("cupy")
    except RuntimeError as error:
        raise SystemExit(f"no card can be used: {error}") from None


@contextmanager
def reported(what: str) -> Iterator[None]:
    """Print an error in one line, and go on with what comes next."""
    try:
        yield
    except Exception as error:
        print(f"{what}: {type(error).__name__}: {' '.join(str(error).split())[:200]}", flush=True)


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
        **{name: version(name) for name in ("torch", "jax", *TESTS_WANT)},
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
    """New arrays begin as NaN, so that what a kernel does not write shows."""
    pool = cupy.get_default_memory_pool()

    def malloc(size: int) -> Any:
        memory = pool.malloc(size)
        memory.memset_async(NAN_BYTE, size, cupy.cuda.get_current_stream())
        return memory

    with cupy.cuda.using_allocator(malloc):
        yield


@contextmanager
def without_numba() -> Iterator[None]:
    """NumPy's arrays go the way of every namespace: Numba's kernels, unless loaded, take minutes to compile."""
    blocked = sys.modules.setdefault("numba", None) is None
    try:
        yield
    finally:  # what was imported meanwhile stays: modules imported twice have classes of their own
        if blocked:
            del sys.modules["numba"]


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
        ("odd attributes", (10, 32, 32, 5, 10), (3, 3, 7, 11, 10), (1, 2, 3, 4), {"stride": (1, 1, 2, 2)}),
        ("sums of 512,000 positions", (500, 32, 32, 4, 8), (3, 3, 7, 11, 8), (1, 2, 3, 4), {"stride": (1, 1, 2, 2)}),
    )
)


def differentiated(axes: tuple[int, ...], options: dict[str, Any], x: Any, w: Any, bias: Any, g: Any) -> list[Any]:
    """A layer's output, and its cotangents for a cotangent g."""
    y, pullback = vjp(lambda *operands: convolve_elu(*operands, axes, **options), x, w, bias)
    return [y, *pullback(g)]


def exercise(cupy: Any) -> None:
    """Launch the kernels that parity and small steps take, of whose texts `compilation` wants to know."""
    for _, x_shape, w_shape, axes, options in PROBLEMS:
        if options.get("method") == "fft":
            continue  # by cuFFT, which wants a card
        x, w, bias = (cupy.zeros(s, dtype=cupy.float32) for s in (x_shape, w_shape, w_shape[-1:]))
        for products in TOLERANCE:
            with precision(products):
                g = cupy.zeros_like(convolve_elu(x, w, bias, axes, **options))
                differentiated(axes, options, x, w, bias, g)
    for boundary in ("zero", "periodic"):
        patch_moments(cupy.zeros(MOMENTS_SHAPE, dtype=cupy.float32), (1, 2), (3, 3), boundary=boundary)
    for make in (*FIRST_STEPS.values(), *SMALL.values()):
        take = make(cupy, 0)
        for _ in range(WARM_UP + 1):
            take()


def compilation(cupy: Any, out: Path) -> Result:
    """Every kernel of `exercise` compiled into CuPy's cache, by all processors; which there are, a stand-in tells."""
    begun = time.monotonic()
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.gpu.driverless", "--texts", str(out / "texts.pickle")]
    subprocess.run(command, check=True, env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1"})
    texts = pickle.loads((out / "texts.pickle").read_bytes())
    (out / "texts.pickle").unlink()
    listed = time.monotonic() - begun
    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(compile_text, arguments) for arguments in texts]
        for count, future in enumerate(as_completed(futures), 1):
            future.result()
            print(f"{count} of {len(texts)} texts compiled, {time.monotonic() - begun:.0f} s", flush=True)
    table = [["what", "value"], ["texts", len(texts)], ["s to list them", listed], ["s", time.monotonic() - begun]]
    return {"text": "Compiled into CuPy's cache.", "table": table}


def compile_text(arguments: tuple[Any, ...]) -> None:
    """One text, as CuPy compiles it for the present card."""
    from cupy.cuda import compiler

    source, options, _, *others = arguments
    compiler._compile_with_cache_cuda(source, options, None, *others)


def compared(found: Any, expected: Any, products: str = "float32") -> list[Any]:
    """Largest errors relative to the largest entry, and whether they are small."""
    errors = [float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(found, expected, strict=True)]
    return [*errors, "yes" if all(e <= TOLERANCE[products] for e in errors) else "NO"]


MOMENTS_SHAPE = (20, 32, 32, 8, 16)


def parity(cupy: Any, out: Path) -> Result:
    """Layers and their gradients against NumPy in double precision, and training steps run twice."""
    with without_numba():
        return _parity(cupy, out)


def _parity(cupy: Any, out: Path) -> Result:
    table = Table(out, "parity", ["what", "y", "x", "w", "bias", "good", "seed"])
    for name, x_shape, w_shape, axes, options in PROBLEMS:
        if not table.lacks(f"{name}, {list(TOLERANCE)[-1]}"):
            continue
        rng, seed = fresh()
        x, w, bias = (rng.standard_normal(s, np.float32) for s in (x_shape, w_shape, w_shape[-1:]))
        y_shape = make_problem(
            x_shape, w_shape, axes=axes, **{"stride": 1, "sum_axes": (), "method": "auto"} | options
        ).y_shape
        g = rng.standard_normal(y_shape, np.float32)
        expected = differentiated(axes, options, *(a.astype(np.float64) for a in (x, w, bias, g)))
        for products in TOLERANCE:
            with poisoned_memory(cupy), precision(products):
                found = [to_numpy(a) for a in differentiated(axes, options, *map(cupy.asarray, (x, w, bias, g)))]
            table.add([f"{name}, {products}", *compared(found, expected, products), seed])
            del found
        cupy.get_default_memory_pool().free_all_blocks()
    for boundary in ("zero", "periodic"):
        if table.lacks(name := f"patch moments, {boundary}"):
            rng, seed = fresh()
            x = rng.standard_normal(MOMENTS_SHAPE, np.float32) + np.float32(3)
            expected = patch_moments(x.astype(np.float64), (1, 2), (3, 3), boundary=boundary)
            with poisoned_memory(cupy):
                found = [to_numpy(a) for a in patch_moments(cupy.asarray(x), (1, 2), (3, 3), boundary=boundary)]
            errors = compared(found, expected)
            table.add([name, *errors[:2], "", "", errors[2], seed])
    for kind in FIRST_STEPS:
        if table.lacks(name := f"{kind}: {WARM_UP + 4} steps"):
            seed = fresh()[1]
            once, again = (first_losses(cupy, kind, seed) for _ in range(2))
            apart = max(abs(a - b) / abs(b) for a, b in zip(once, first_losses(np, kind, seed), strict=True))
            good = "yes" if once == again and apart <= TOLERANCE[kind.rpartition(", ")[2]] else "NO"
            table.add([name, f"losses {apart:.1g} apart", f"same bits again: {once == again}", "", "", good, seed])
    wrong = [row for row in table[1:] if row[-2] == "NO"]
    if wrong:
        raise SystemExit(f"not equal: {wrong}")
    text = f"Largest errors against double precision, relative to the largest entry; good are {TOLERANCE}."
    return {"text": text, "table": table}


def fresh() -> tuple[np.random.Generator, int]:
    """A generator of random numbers nobody has seen, and its seed."""
    seed = int.from_bytes(os.urandom(4), "little")
    return np.random.default_rng(seed), seed


def first_losses(xp: Any, kind: str, seed: int) -> list[float]:
    """Losses of the first steps, the last of them by a CUDA graph."""
    take = FIRST_STEPS[kind](xp, seed)
    return [float(take()) for _ in range(WARM_UP + 4)]


def seconds(cupy: Any, function: Callable[[], Any], repeats: int = 1) -> float:
    """Time of one call between device events."""
    begin, end = cupy.cuda.Event(), cupy.cuda.Event()
    begin.record()
    for _ in range(repeats):
        function()
    end.record()
    end.synchronize()
    return float(cupy.cuda.get_elapsed_time(begin, end)) / 1e3 / repeats


MakeStep = Callable[[Any, int], Step]
"""From an array namespace and a seed to a step."""


def _maker(preset: str, boundary: str, size: int, **changes: Any) -> MakeStep:
    def make(xp: Any, seed: int) -> Step:
        return Step(preset, boundary, size, xp, seed, **changes)

    return make


FIRST_STEPS = {
    f"{preset}, {products}": _maker(preset, "zero", 10, depth=7, precision=products)
    for preset in ("hcnn", "hcnn-plus", "hcnn-best")
    for products in TOLERANCE
    if products == "float32" or preset == "hcnn"
}

SMALL = {
    f"{preset}, {products}": _maker(preset, "zero", 4, width=4, factors=4, depth=6, precision=products, **changes)
    for preset, products, changes in (
        ("hcnn", "float32", {}),
        ("hcnn-best", "tf32", {"strided_layers": ()}),
    )
}
"""Steps that launch every kernel, those for tensor cores too, with little work."""


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
    return {"text": "Steps of small networks.", "table": [["tool", "errors"], *rows]}


def small(cupy: Any, out: Path) -> Result:
    """Steps of small networks, for the sanitizer."""
    return {"text": "", "table": [["step", "loss"], *([name, float(make(cupy, 0)())] for name, make in SMALL.items())]}


TESTS_WANT = ("pytest", "xdist", "hypothesis", "array_api_strict", "numba", "h5py", "tqdm", "scipy")
"""What the tests import, by the names of modules; a machine with a GPU may lack any. `wheels.txt` lists wheels."""

MOST_WORKERS = 14
"""Processes of tests that share one card."""


def tests(cupy: Any, out: Path) -> Result:
    """The tests that want a GPU, all files side by side; those that import what is missing are named."""
    lacking = {name for name in TESTS_WANT if importlib.util.find_spec(name) is None}
    if missing := sorted(lacking & {"pytest", "hypothesis"}):
        raise SystemExit(f"wants {', '.join(missing)}: give a folder of their wheels by --wheels")
    table = Table(out, "tests", ["file", "result"])
    names = []
    for path in filter(wants_gpu, sorted((ROOT / "tests").rglob("test_*.py"))):
        name = path.relative_to(ROOT).as_posix()
        if missing := sorted(lacking & imported(path)):
            if table.lacks(name):
                table.add([name, f"skipped for want of {', '.join(missing)}: give their wheels by --wheels"])
        elif table.lacks(name):
            names.append(name)
    if names:
        record_of, workers = out / "tests.xml", min(MOST_WORKERS, os.cpu_count() or 1)
        beside = [] if "xdist" in lacking else ["-n", str(workers)]  # pytest-benchmark will not run beside it
        command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "-p", "no:benchmark"]
        done = subprocess.run(
            [*command, *beside, f"--junitxml={record_of}", "-o", "junit_family=xunit1", *names],
            cwd=ROOT, env={**os.environ, "HYPOTHESIS_PROFILE": "ci"}, capture_output=True, text=True,
        )  # fmt: skip
        print(done.stdout, done.stderr, flush=True)
        found = outcomes(record_of)
        for name in names:  # what failed is run again by the next call
            if "failed" not in (counts := found.get(name, {"failed": 0})):
                table.add([name, ", ".join(f"{count} {what}" for what, count in counts.items())])
        if done.returncode:
            raise SystemExit("see what failed above")
    return {"text": "python -m pytest -m gpu, all files side by side.", "table": table}


def outcomes(path: Path) -> dict[str, dict[str, int]]:
    """How many tests of each file passed, failed and were skipped, from pytest's record in XML."""
    found: dict[str, dict[str, int]] = {}
    for case in ElementTree.parse(path).iter("testcase") if path.exists() else ():
        tags = {child.tag for child in case}
        what = "failed" if tags & {"failure", "error"} else "skipped" if "skipped" in tags else "passed"
        counts = found.setdefault(str(case.get("file")), {})
        counts[what] = counts.get(what, 0) + 1
    return found


def wants_gpu(path: Path) -> bool:
    """Whether a file marks a test or a parameter for a GPU; what stands in a string does not count."""
    text = path.read_text("utf-8")
    return "mark.gpu" in text and any(
        isinstance(node, ast.Attribute) and ast.unparse(node) == "pytest.mark.gpu" for node in ast.walk(ast.parse(text))
    )


def imported(path: Path, seen: frozenset[Path] = frozenset()) -> set[str]:
    """Modules that a file of tests imports at its top, itself, by its folder's conftest, or by others of tests."""
    names: set[str] = set()
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    found = {name.partition(".")[0] for name in names}
    within = {ROOT.joinpath(*name.split(".")).with_suffix(".py") for name in names if name.startswith("tests.")}
    for other in {*within, path.parent / "conftest.py"} - {path, *seen}:
        if other.exists():
            found |= imported(other, seen | {path})
    return found


TRAIN_HEAD = ["epoch", "s", "loss", "accuracy"]

TRAIN_ENDS = 30
"""Seconds that a stopped run has to save its state and draw its curve."""


def train(cupy: Any, out: Path) -> Result:
    """`hcnn-best` on those files of CIFAR-10 that have come, as far as the time goes; another call trains on."""
    data = Path(os.environ["HCNN_GATE_DATA"])
    there = [name for name in CIFAR10 if present(data, name)]
    if CIFAR10[-1] not in there or len(there) < 2:
        raise SystemExit(f"waiting for {CIFAR10[-1]} and some of {', '.join(CIFAR10[:-1])} in {data}: give --data")
    run, left = out / "run", float(os.environ.get("HCNN_GATE_UNTIL", "inf")) - time.time() - TRAIN_ENDS
    script = ["bash", str(ROOT / "benchmarks" / "gpu" / "train.sh"), str(run), str(max(1, int(min(left, 1e6))))]
    flags = ["--preset", "hcnn-best", "--precision", "tf32", "--data-dir", str(data)]
    subprocess.run([*script, *flags], check=True, env={**os.environ, "HCNN_PARTIAL_DATA": "1"})
    metrics = run / "metrics.jsonl"
    records = [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.exists() else []
    rows = [[r["epoch"], r["seconds"], r["train_loss"], ""] for r in records if "train_loss" in r]
    if not (tested := [r for r in records if "test_accuracy" in r]):
        rows_of(out, "train").unlink(missing_ok=True)  # all of them are in `rows`
        Table(out, "train", TRAIN_HEAD).add(*rows)
        raise SystemExit(f"{len(rows)} epochs so far; call again")
    rows.append(["test", "", tested[-1]["test_loss"], tested[-1]["test_accuracy"]])
    return {"text": f"train.cifar {' '.join(flags)}, on {', '.join(there)}", "table": [TRAIN_HEAD, *rows]}


def main() -> None:
    """Run one stage and write what it returns."""
    name, out = sys.argv[1], Path(sys.argv[2])
    stages = environment, compilation, parity, sanitizer, small, tests, train
    functions = {f.__name__: f for f in stages}
    result = functions[name](get_namespace("cupy"), out)
    (out / f"{name}.json.part").write_text(json.dumps(result, indent=1, default=str) + "\n")
    (out / f"{name}.json.part").rename(result_of(out, name))


if __name__ == "__main__":
    main()
