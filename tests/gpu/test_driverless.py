"""Training steps by CuPy itself, whose driver is replaced: they run, and all of a step can be recorded."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from hcnn_core._engines.cuda import launch as cuda
from tests.gpu.host import python, scripted
from tests.gpu.requirements import required

cupy = required("cupy")

STEPS: list[dict[str, Any]] = [
    {"preset": "hcnn"},
    {"preset": "hcnn", "boundary": "periodic", "precision": "tf32"},
    {"preset": "hcnn", "dtype": "float64", "depth": 6, "label_smoothing": 0.1, "head": "sum", "reduction": "sum"},
    {"preset": "hcnn", "dataset": "cifar100", "attribute_kernel": [11, 11]},
    {"preset": "hcnn-plus"},
    {"preset": "hcnn-fast", "size": 20, "cutout": 8},
    {"preset": "lenet"},
    {"preset": "hcnn-fast", "boundary": "periodic"},
    {"preset": "hcnn-best"},
    {"preset": "hcnn-fast", "skip": "aligned"},
    {"preset": "scattering"},
    {"preset": "hcnn-medium", "precision": "tf32"},
    {"preset": "hcnn", "device": "T4"},
]


@pytest.mark.lot
@pytest.mark.parametrize("settings", STEPS, ids=lambda s: ", ".join(map(str, s.values())))
def test_steps_are_recorded(settings: dict[str, Any]) -> None:
    done = python("-m", "benchmarks.gpu.driverless", json.dumps(settings))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    found = json.loads(done.stdout)
    assert found["recorded"] and not found["refused"]
    first, _, _, _, graphed, shorter, again = found["launches"]
    assert first > 100 and graphed == again == 0  # one launch of the graph is none of a kernel
    assert shorter > 100


def module(*arguments: str) -> subprocess.CompletedProcess[str]:
    return python("-m", "benchmarks.gpu.driverless", "--module", *arguments)


def test_a_run_is_trained_to_its_end(tmp_path: Path) -> None:
    """From the data to checkpoints and report. Nothing is evaluated, since nothing is computed."""
    run = tmp_path / "run"
    flags = "--preset sample --epochs 2 --validation-size 0 --no-test --backend cupy --out"
    done = module("train.cifar", *flags.split(), str(run))
    assert done.returncode == 0 and "kernel by kernel" not in done.stderr, done.stderr
    assert [json.loads(line)["epoch"] for line in (run / "metrics.jsonl").read_text().splitlines()] == [1, 2]
    assert {"epoch0002-step000000.h5", "learning-curve.png", "report.html"} <= {path.name for path in run.iterdir()}


def test_a_stage_of_the_gate_is_run(tmp_path: Path) -> None:
    done = module("benchmarks.gpu.stages", "small", str(tmp_path))
    assert done.returncode == 0, done.stderr
    head, *rows = json.loads((tmp_path / "small.json").read_text())["table"]
    assert head == ["step", "loss"] and len(rows) == 2


def test_what_a_module_must_not_do_ends_it_with_status_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    text = "import contextlib, cupy\nfrom hcnn_core.backend import record\nx = cupy.zeros(3)\n"
    for work, refused in (("x + x", False), ("cupy.cuda.Device().synchronize()", True)):
        lines = f"{text}with contextlib.suppress(Exception):\n    record(lambda: {work})\n"
        (tmp_path / "own_module.py").write_text(lines)
        done = module("own_module")
        assert done.returncode == refused and ("deviceSynchronize, by" in done.stderr) == refused, done.stderr


def test_memory_of_a_graph_that_is_dropped_is_given_back() -> None:
    """The graph's first step counts as different from the same step kernel by kernel: training goes on without it."""
    more = {}
    for differs in (False, True):
        done = python("-m", "benchmarks.gpu.driverless", json.dumps({"preset": "hcnn", "differs": differs}))
        assert ("its first step has other results" in done.stderr) == differs
        found = json.loads(done.stdout)
        assert found["recorded"] != differs and (found["launches"][-1] > 0) == differs
        more[differs] = found["held"][3] - found["held"][2]
    assert more[False] > 1 << 24
    assert more[True] < more[False] / 8


def drained(work: str) -> list[int]:
    """Bytes that the driver has given out before and after some work, when all pools have given theirs back."""
    done = scripted(DRAINED.format(work=work))
    assert done.returncode == 0, done.stderr
    return [int(number) for number in done.stdout.split()]


DRAINED = """
from benchmarks.gpu.stages import poisoned_memory
def held():
    cupy.get_default_memory_pool().free_all_blocks()
    return driver.held
def fails(n):
    y = cupy.ones(n)
    raise RuntimeError("no")
before = held()
{work}
print(before, held())
"""


@pytest.mark.parametrize(
    ("work", "kept"),
    [
        ("launch, results = record(lambda: cupy.ones(1 << 20) + 1); del results, launch", False),
        ("launch, results = record(lambda: cupy.ones(1 << 20) + 1)", True),
        ("for _ in range(3):\n  try: record(lambda: fails(1 << 20))\n  except RuntimeError: pass", False),
        ("for _ in range(3):\n  with poisoned_memory(cupy): cupy.ones(1 << 20) + 1", False),
    ],
)
def test_memory_is_given_back(work: str, kept: bool) -> None:
    before, after = drained(work)
    assert (after - before > 1 << 20) if kept else after == before


def test_steps_leave_no_memory_in_use() -> None:
    """A step's weights and tables are no pieces of larger blocks, which could then not be given back to be recorded."""
    done = python("-m", "benchmarks.gpu.driverless", json.dumps({"preset": "hcnn"}))
    found = json.loads(done.stdout)
    assert max(found["in CuPy's own pool"][1:]) < 1 << 16  # images
    assert found["held"][3] > 1 << 25


def test_tables_keep_no_block_of_results() -> None:
    before, after = drained("""
from hcnn_core.backend import DeviceTables
like = cupy.zeros(1 << 24)
del like
tables = DeviceTables()
tables.beside(cupy.zeros(1), "table", lambda: np.arange(100, dtype=np.int32))
""")
    assert 0 < after - before < 1 << 22


def test_plans_of_fft_outlast_a_graph_that_holds_them() -> None:
    """CuPy keeps 16 by default, and a plan that it drops gives back the memory that its launches work in."""
    drained("""
launch, results = record(lambda: cupy.ones(1) + 1)
assert cupy.fft.config.get_plan_cache().get_size() == -1
""")


def test_poisoned_memory_is_nan() -> None:
    drained("""
for dtype in ("float32", "float64"):
    with poisoned_memory(cupy): x = cupy.empty(1000, dtype)
    assert np.isnan(x.get()).all()
    assert not np.isnan(cupy.zeros(1000, dtype).get()).any()
""")


def test_each_device_is_told_of_the_most_shared_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """CuPy tells the current device alone, of all kernels of one text together."""
    device, limit, told, launched = [0], {0: 48 << 10, 1: 48 << 10}, [], []

    class Compiled:
        def __getattr__(self, name: str) -> int:
            assert name == "max_dynamic_shared_size_bytes"
            return limit[device[0]]

        def __setattr__(self, name: str, value: int) -> None:
            limit[device[0]] = value
            told.append((name, device[0], value))

        def __call__(self, *arguments: Any, **options: Any) -> None:
            launched.append((arguments, options))

    monkeypatch.setattr(cuda, "compile_cuda", lambda *_: Compiled())
    monkeypatch.setattr(cupy.cuda, "get_device_id", lambda: device[0])
    asked = 60_000, 1000, 50_000, 70_000
    kernels = [cuda.kernel.__wrapped__("apply", "float32", (), shared) for shared in asked]
    for device[0] in (0, 1, 0, 1):
        for shared, kernel in zip(asked, kernels, strict=True):
            kernel((1,), (32,), (), shared_mem=shared)
    assert told == [("max_dynamic_shared_size_bytes", n, shared) for n in (0, 1) for shared in (60_000, 70_000)]
    assert launched == [(((1,), (32,), ()), {"shared_mem": shared}) for shared in asked] * 4

    def refuse(*_: Any) -> None:
        raise RuntimeError("CUDA_ERROR_INVALID_VALUE")

    monkeypatch.setattr(Compiled, "__setattr__", refuse)
    with pytest.raises(RuntimeError, match=r"apply needs 150 KiB of shared memory, more than this device has.*INVALID"):
        cuda.kernel.__wrapped__("apply", "float64", (), 150 << 10)((1,), (32,), ())


CONTROL = """
x = cupy.zeros(3)
try:
    record(lambda: {work})
except Exception as error:
    print(type(error).__name__, error)
print(*driver.refused)
"""


@pytest.mark.parametrize(
    ("work", "expected"),
    [
        ("x + x", "\n"),
        ("cupy.fft.rfft(x)", "\n"),
        ("cupy.asarray(np.ones(3))", "host"),
        ("float(x[0])", "D2H"),
        ("cupy.cuda.Device().synchronize()", "deviceSynchronize"),
        ("cupy.concatenate([x] * 50)", "host"),
    ],
)
def test_what_cannot_be_recorded_is_noticed(work: str, expected: str) -> None:
    done = scripted(CONTROL.format(work=work))
    assert expected in done.stdout, done.stdout + done.stderr
    assert done.stdout == "\n" or expected != "\n"


COVARIANCE = """
from hcnn_core._engines.cuda import patches
from hcnn_core.moments import patch_covariance
if {forgetful}:
    patches.CudaPatches._gram_threads = lambda self, x, sums: 128
x = cupy.zeros((50, 16, 16, 128))
patch_covariance(x, x + 1, (1, 2), (3, 3), boundary="zero")
print(*driver.refused)
"""


@pytest.mark.parametrize("forgetful", [False, True])
def test_shared_memory_that_a_kernel_declares_counts(forgetful: bool) -> None:
    """Of 99 KiB, `gram` in float64 asks for sums, and declares a number for each thread."""
    done = scripted(COVARIANCE.format(forgetful=forgetful), "RTX 3090")
    assert done.returncode == 0, done.stderr
    assert ("kernel gram" in done.stdout) == forgetful, done.stdout


KEPT = """
import gc, weakref
from hcnn_core import convolve
from hcnn_core._engines import planner
from hcnn_core.backend import _device
made, constant = [], _device.constant
def watched(*given):
    array = constant(*given)
    made.append(weakref.ref(array))
    return array
_device.constant = watched
x, w = cupy.zeros((4, 9, 9, 16), cupy.float32), cupy.ones((3, 3, 16), cupy.float32)
launch, y = record(lambda: convolve(x, w, (1, 2), boundary="zero"))
for cache in (planner._plan_of, planner._plan_for):
    cache.cache_clear()
gc.collect()
alive = [sum(array() is not None for array in made)]
del launch, y
gc.collect()
alive.append(sum(array() is not None for array in made))
print(len(made), *alive)
"""


def test_a_graph_keeps_the_tables_of_plans_that_are_dropped() -> None:
    done = scripted(KEPT)
    made, kept, left = map(int, done.stdout.split())
    assert made == kept > left, done.stdout + done.stderr
