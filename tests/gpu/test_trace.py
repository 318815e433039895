"""The count of launches and bytes: what it says of known kernels, and what a small step may take."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hcnn_core._engines.cuda import launch as _cuda
from tests.gpu.host import python, scripted
from tests.gpu.requirements import required
from tests.gpu.test_compilation import resources

required("cupy")
occupancy = pytest.importorskip("benchmarks.gpu.occupancy")
trace = pytest.importorskip("benchmarks.gpu.trace")

LAUNCHES, MEGABYTES, SECTORS = 106, 681.413, 682.012
"""Of a step of preset hcnn of depth 5, batch of 8. Who takes more gives the reason; who takes fewer, the figures."""


@pytest.fixture(scope="module")
def small_step(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("trace") / "step.json"
    done = python("-m", "benchmarks.gpu.trace", "--batch-size", "8", "--depth", "5", "--json", str(path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("| total | ")
    return json.loads(path.read_text())  # type: ignore[no-any-return]


def test_no_pass_creeps_in(small_step: dict[str, Any]) -> None:
    total = small_step["total"]
    assert round(total["launches"]) == LAUNCHES
    assert 1e3 * total["GB"] == pytest.approx(MEGABYTES, rel=1e-3)
    assert 1e3 * total["GB of sectors"] == pytest.approx(SECTORS, rel=1e-3)


def test_totals_are_those_of_the_kernels(small_step: dict[str, Any]) -> None:
    for key, value in small_step["total"].items():
        assert value == pytest.approx(sum(row.get(key, 0) for row in small_step["kernels"].values()))
    assert small_step["least ms"] >= 1e3 * small_step["total"]["GB"] * 1e9 / trace.BANDWIDTH
    assert small_step["kernels"]["apply"]["GFLOP"] > 0 and small_step["GiB held"] > 0
    assert set(small_step["blocks"]) == {name for name in small_step["kernels"] if not name.startswith("CuPy")}


@pytest.mark.parametrize(
    ("threads", "registers", "shared", "blocks"),
    [
        (256, 32, 1 << 10, 8),  # all threads that there may be
        (256, 33, 1 << 10, 6),
        (128, 168, 59 << 10, 3),  # three warps fit in the registers of each of four parts
        (512, 64, 121 << 10, 1),
        (256, 64, 114 << 10, 2),
        (256, 64, (114 << 10) + 1, 1),
        (32, 16, 1 << 10, 32),
    ],
)
def test_blocks_of_a_multiprocessor(threads: int, registers: int, shared: int, blocks: int) -> None:
    assert occupancy.blocks_beside(threads, registers, shared) == blocks


def test_resources_are_those_that_the_compiler_reports() -> None:
    sizes = {"TAPS": 9, "STEPS": 25, "OWN": 4, "SAME": 1, "PATCH_THREADS": 128, "PATCH_BLOCKS": 3, "PIECE": 4}
    text = _cuda.source("float32", sizes)
    (_, shared), (_, of_sums) = (occupancy.resources(text, name) for name in ("gram", "covariance_of"))
    assert (shared, of_sums) == ((1 << 10) + 128 * 4, (1 << 10) + 3 * 128 * 8)
    for name in ("gram", "covariance_of"):
        assert occupancy.resources(text, name)[0] == resources(name, text)[0]


@pytest.mark.parametrize(
    ("shape", "strides", "lanes", "factor"),
    [
        ((1000,), (4,), None, 1),
        ((10, 100), (400, 4), None, 1),
        ((10, 100), (4, 40), None, 8),  # a transposed array: each number in a sector of its own
        ((1000,), (8,), None, 2),
        ((1000,), (0,), None, 1),  # one number for all
        ((100, 10), (4, 400), (1, 10), 1),  # a sum over the first axis, whose terms lie beside each other
        ((64, 640), (2560, 4), (32, 640), 1),  # neighbouring sums
    ],
)
def test_sectors(shape: Any, strides: Any, lanes: Any, factor: float) -> None:
    assert trace.spread_of(shape, strides, 4, lanes) == pytest.approx(factor, rel=0.3)


COUNTED = """
from benchmarks.gpu.trace import summary
from hcnn_core import convolve
x = cupy.zeros((64, 1000), cupy.float32)
driver.listening = True
{work}
print(json.dumps(summary(driver.heard)["total"]))
"""


@pytest.mark.parametrize(
    ("work", "launches", "megabytes", "sectors"),
    [
        ("x + x", 1, 3 * 0.256, 3 * 0.256),
        ("x.T + x.T", 1, 3 * 0.256, 17 * 0.256),  # the sum lies in C order, and its operands do not
        ("x.copy(); x.sum()", 2, 3 * 0.256, 3 * 0.256),
        ("x.sum(axis=0)", 1, 0.256 + 0.004, 0.256 + 0.004),
        ("convolve(x, cupy.ones(5, cupy.float32), 1, boundary='zero')", 2, 2 * 0.256, 2 * 0.256),
    ],
)
def test_known_passes(work: str, launches: int, megabytes: float, sectors: float) -> None:
    done = scripted(COUNTED.format(work=work))
    assert done.returncode == 0, done.stderr
    total = json.loads(done.stdout)
    assert total["launches"] == launches
    assert 1e3 * total["GB"] == pytest.approx(megabytes, rel=0.01)
    assert 1e3 * total["GB of sectors"] == pytest.approx(sectors, rel=0.1)
