"""How a layer grows, and the machine's ceilings: what is fitted, drawn and refused. Nothing is timed."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import ceilings, layer, scaling
from train.networks.hierarchical import hierarchy

ROOT = Path(__file__).resolve().parents[1]


def run(module: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", module, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def refusal(module: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a command line says of arguments it refuses, but for its usage."""
    monkeypatch.setattr(sys, "argv", ["benchmark", *arguments])
    with pytest.raises(SystemExit) as stop:
        module.main()
    assert stop.value.code == 2
    *_, last = capsys.readouterr().err.splitlines()
    return last.partition("error: ")[2]


def synthetic(exponent: float = 1.0) -> dict[str, Any]:
    """A record as it is read from a file, whose time per image and memory are a power of each size."""
    points = []
    for sizes in scaling.points(scaling.BASE, scaling.AXES):
        ratios = [axis.measure(sizes[name]) / axis.measure(scaling.BASE[name]) for name, axis in scaling.AXES.items()]
        value = float(np.prod(ratios)) ** exponent
        for boundary in scaling.BOUNDARIES:
            seconds = [1e-3 * sizes["batch"] * value * factor for factor in (0.5, 1.0, 4.0)]
            points.append({"boundary": boundary, **sizes, "mib": 10 * value, "seconds": seconds})
    record = {
        "axes": list(scaling.AXES),
        "boundaries": list(scaling.BOUNDARIES),
        "base": scaling.BASE,
        "points": points,
        "rounds": 3,
        "processor": "a processor with $ in its name",
        "threads": 2,
        "blas": "a library",
    }
    record = json.loads(json.dumps(record))
    return record | {"fits": scaling.fits(record)}


@given(
    exponent=st.floats(-4, 4),
    constant=st.floats(1e-3, 1e3),
    sizes=st.lists(st.integers(1, 10**6), min_size=2, max_size=8, unique=True),
)
def test_a_power_is_fitted_by_its_exponent(exponent: float, constant: float, sizes: list[int]) -> None:
    logs = np.log(np.array(sizes, float))
    found, departure = scaling.fit(sizes, constant * np.exp(exponent * logs))
    # logarithms up to 4 * 14 + 7 carry eps each, and the slope divides them by the spread of the sizes' logarithms
    error = 256 * np.finfo(float).eps * 64 * len(sizes)
    assert abs(found - exponent) <= error / np.ptp(logs)
    assert 1 <= departure <= 1 + error * (1 + 14 / np.ptp(logs))


def test_a_departure_is_the_largest_ratio_to_the_fit() -> None:
    # log2 of the values is 0, 1, 3; the line nearest to them runs through -1/6, 4/3, 17/6
    exponent, departure = scaling.fit([1, 2, 4], [1, 2, 8])
    assert exponent == pytest.approx(1.5, rel=1e-12)
    assert departure == pytest.approx(2 ** (1 / 3), rel=1e-12)


def test_points_change_one_size_at_a_time() -> None:
    points = scaling.points(scaling.BASE, scaling.AXES)
    changed = [[name for name in scaling.AXES if sizes[name] != scaling.BASE[name]] for sizes in points]
    assert sum(not names for names in changed) == 1
    assert all(len(names) <= 1 for names in changed)
    for name, axis in scaling.AXES.items():
        others = [sizes[name] for sizes, names in zip(points, changed, strict=True) if names == [name]]
        assert others == [value for value in axis.values if value != scaling.BASE[name]]


def test_series_hold_their_points_by_size() -> None:
    record = synthetic()
    for name, axis in scaling.AXES.items():
        for boundary in scaling.BOUNDARIES:
            series = scaling.series(record, name, boundary)
            assert [point[name] for point in series] == json.loads(json.dumps(axis.values))
            assert {point["boundary"] for point in series} == {boundary}


@pytest.mark.parametrize("exponent", [1.0, 0.5])
def test_every_series_is_fitted_by_medians_per_image(exponent: float) -> None:
    record = synthetic(exponent)
    assert len(record["fits"]) == 2 * 2 * len(scaling.AXES)
    for found in record["fits"]:
        assert found["exponent"] == pytest.approx(exponent, rel=1e-9)
        assert found["departure"] == pytest.approx(1, rel=1e-9)


def test_tables_hold_every_point_and_fit() -> None:
    record = synthetic()
    table = scaling.lines(record)
    assert sum("to the power 1.00" in line for line in table) == len(record["fits"])
    assert "    7x11     1.000    0.500    4.000      10.0       0.20" in table
    assert len(table) == sum(2 * (5 + len(axis.values)) for axis in scaling.AXES.values()) - 1


@pytest.mark.parametrize("boundary", scaling.BOUNDARIES)
def test_step_is_that_of_the_comparison_of_layers(boundary: str) -> None:
    sizes = {**scaling.BASE, "batch": 2}
    step = scaling.Step(sizes, boundary, scaling.draw_buffers(scaling.elements(sizes) + 5))
    other = layer.Ours("plain", {"x": step.x, "cotangent": step.cotangent, **step.weights}, boundary)
    assert step.x.strides == step()[0].strides
    y, cotangents = other()
    for found, wanted in zip(step(), (y, *cotangents), strict=True):
        np.testing.assert_array_equal(found, wanted)
        assert abs(found).max() > 0


@pytest.mark.parametrize("name", ["batch", "side", "K"])
def test_outputs_are_in_proportion_to_the_measure(name: str) -> None:
    axis = scaling.AXES[name]
    assert axis.time + (name == "batch") == axis.memory == 1
    ratios = {scaling.elements({**scaling.BASE, name: value}) / axis.measure(value) for value in axis.values}
    assert len(ratios) == 1


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="a process cannot reset its peak here")
def test_memory_holds_the_operands() -> None:
    sizes = {**scaling.QUICK, "batch": 64, "side": 16}
    operands = 2 * 4 * scaling.elements(sizes) / 2**20
    assert operands == 8
    held = np.ones(1 << 25)  # 256 MiB, which the process that is measured must not inherit
    assert operands <= scaling.in_fresh_process(scaling.added_memory, sizes, "periodic") <= 8 * operands
    del held


@pytest.mark.parametrize("name", scaling.AXES)
def test_layer_is_as_large_as_its_sizes_say(name: str) -> None:
    for value in scaling.AXES[name].values:
        sizes = {**scaling.BASE, name: value}
        assert scaling.elements(sizes) == sizes["batch"] * sizes["side"] ** 2 * sizes["K"] ** 3 // 8
        network = scaling.make_network(sizes, "zero")
        four = hierarchy(network)[scaling.DEPTH - 1]
        assert four.inputs[:2] == four.outputs[:2] == (sizes["side"], sizes["side"])
        assert (four.kernel_size[2:], four.factors) == (sizes["kernel"], sizes["Q"])


def test_picture_is_1400_pixels_wide(tmp_path: Path) -> None:
    scaling.draw(synthetic(), tmp_path / "picture.png")
    header = (tmp_path / "picture.png").read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", header[16:])[0] == 1400


def test_scaling_measures_writes_and_draws_again(tmp_path: Path) -> None:
    result = run("benchmarks.scaling", "--quick", "--boundary", "periodic", "--only", "batch", "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scaling.json", "scaling.png", "scaling.txt"]
    record = scaling.read(tmp_path / "scaling.json")
    assert [point["batch"] for point in record["points"]] == [1, 2]
    for point in record["points"]:
        operands = 2 * 4 * scaling.elements({name: point[name] for name in scaling.AXES}) / 2**20
        assert operands <= point["mib"] <= operands + 64  # and none of what the process that started it held
        assert len(point["seconds"]) == 1
    assert (tmp_path / "scaling.txt").read_text("utf-8").splitlines()[-1] in result.stdout.splitlines()
    assert {"processor", "versions", "threads", "blas"} <= record.keys()

    again = run("benchmarks.scaling", "--plot", tmp_path / "scaling.json", "--out", tmp_path / "again")
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "again" / "scaling.png").read_bytes() == (tmp_path / "scaling.png").read_bytes()


def test_ceilings_are_measured(tmp_path: Path) -> None:
    result = run("benchmarks.ceilings", "--quick", "--json", tmp_path / "ceilings.json")
    assert result.returncode == 0, result.stderr
    record = json.loads((tmp_path / "ceilings.json").read_text("utf-8"))
    rates = {f"{kind}{shape}_gflops" for kind in ("sgemm", "dgemm") for shape in ("", "_skinny")} | {
        "copy_gbs",
        "read_gbs",
    }
    threads = range(1, min(layer.processors(), 2) + 1)
    wanted = {f"{rate}_{n}" for rate in rates for n in threads} | {"copy_in_cache_gbs_1", "page_fault_ns"}
    assert (
        record["ceilings"].keys() - {"page_fault_huge_ns"} == wanted == record["what"].keys() - {"page_fault_huge_ns"}
    )
    assert all(0 < value < float("inf") for value in record["ceilings"].values())
    assert all(any(line.startswith(f"{key} ") for line in result.stdout.splitlines()) for key in wanted)


def test_parts_of_threads_make_up_the_whole() -> None:
    product = ceilings.matrix_product("sgemm", np.float32, 4, 8, 10)
    assert product.amount == pytest.approx(2 * 4 * 8 * 10 / 1e9)
    whole = np.array(product.work(0, 1))
    parts = np.concatenate([np.array(product.work(*ends)) for ends in ((0, 0.5), (0.5, 1))], axis=1)
    np.testing.assert_allclose(parts, whole, rtol=0, atol=8 * np.finfo(np.float32).eps * 8 * abs(whole).max())
    (read,) = (c for c in ceilings.bandwidths(4096, 1024) if c.key == "read_gbs")
    assert [read.work(0, 1), read.work(0, 0.5), read.work(0.5, 1)] == [1024, 512, 512]


def test_two_threads_are_left_out_where_there_is_one_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {}
    for count in (1, 2, 64):
        monkeypatch.setattr(ceilings, "processors", lambda count=count: count)
        monkeypatch.setattr(ceilings, "check_blas_threads", lambda product: None)
        found[count] = set(ceilings.measure_rounds(1, 64)[0])
    assert not any(key.endswith("_2") for key in found[1])
    assert (
        found[2]
        == found[64]
        == found[1] | {key[:-1] + "2" for key in found[1] if key[-1] == "1" and "cache" not in key}
    )


def test_a_blas_with_threads_of_its_own_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    product = ceilings.matrix_product("sgemm", np.float32, 64, 64, 64)
    clock = ceilings.time.perf_counter
    monkeypatch.setattr(ceilings.time, "process_time", lambda: clock() / 2)
    ceilings.check_blas_threads(product)
    monkeypatch.setattr(ceilings.time, "process_time", lambda: 4 * clock())
    with pytest.raises(RuntimeError, match=r"set OPENBLAS_NUM_THREADS=1 before NumPy is imported"):
        ceilings.check_blas_threads(product)


def test_time_alternately_runs_every_task_once_before_the_rounds() -> None:
    calls: list[str] = []
    seconds = ceilings.time_alternately({name: lambda name=name: calls.append(name) for name in "ab"}, 2)
    assert calls == ["a", "b"] * 3
    assert {name: len(values) for name, values in seconds.items()} == {"a": 2, "b": 2}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rounds", "0"], "--rounds is 0; give 1 or more"),
        (["--batch-size", "-3"], "--batch-size is -3; give 1 or more"),
        (["--only", "depth"], "argument --only: invalid choice: 'depth'"),
        (["--boundary", "mirror"], "argument --boundary: invalid choice: 'mirror'"),
        (["--batch-size", "100000000"], "GiB are free; give a smaller --batch-size than 100000000"),
        (["--plot", "absent.json"], "--plot: cannot read absent.json: No such file or directory"),
        (["--plot", "text.json"], "--plot: text.json is not JSON"),
        (["--plot", "other.json"], "--plot: other.json is not of this program; give a scaling.json that it wrote"),
        (["--out", "text.json"], "--out is text.json, which cannot be a folder"),
    ],
)
def test_scaling_refuses_in_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.json").write_text("text", "utf-8")
    Path("other.json").write_text("{}", "utf-8")
    assert message in refusal(scaling, monkeypatch, capsys, *arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rounds", "0"], "--rounds is 0; give 1 or more"),
        (["--json", "absent/file.json"], "there is no folder absent"),
    ],
)
def test_ceilings_refuse_in_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in refusal(ceilings, monkeypatch, capsys, *arguments)
