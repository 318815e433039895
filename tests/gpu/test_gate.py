"""The gate: stages bounded in time, resumed, reported; data that come in parts. No GPU is needed for it."""

from __future__ import annotations

import importlib
import json
import os
import pickle
import random
import subprocess
import sys
import time
import types
from contextlib import nullcontext
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import train.runs.step
from benchmarks.gpu import gate
from benchmarks.gpu.gate import CIFAR10, Stage, collect, markdown, pack, rows_of, run, unpack
from tests.gpu.requirements import required
from tests.remote import rehearse_and_repeat
from train.config import make_config
from train.runs.run import versions

ROOT = Path(__file__).parents[2]
WHEELS = ROOT / "benchmarks" / "gpu" / "wheels.txt"

STAGES = """
import json, pathlib, sys, time
name, out = sys.argv[1], pathlib.Path(sys.argv[2])
if name == "train":
    from benchmarks.gpu import stages
    (out / f"{name}.json").write_text(json.dumps(stages.train(None, out)))
    sys.exit()
if name == "slow":
    time.sleep(60)
if name == "wrong":
    sys.exit("not equal")
(out / f"{name}.json").write_text(json.dumps({"text": "As measured.", "table": [["what", "s"], ["a", 0.123456]]}))
"""


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Stages of their own, none of which needs a GPU."""
    (tmp_path / "own_stages.py").write_text(STAGES)
    monkeypatch.setattr(gate, "MODULE", "own_stages")
    return dict(os.environ, PYTHONPATH=str(tmp_path))


def test_a_stage_that_is_done_is_not_run_again(tmp_path: Path, environment: dict[str, str]) -> None:
    assert run(Stage("quick", 60), tmp_path, environment, 100).startswith("quick: done in")
    assert run(Stage("quick", 60), tmp_path, environment, 100) == "quick: done before"


def test_a_stage_is_stopped_in_time(
    tmp_path: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "LEAST", 1)
    assert run(Stage("slow", 2), tmp_path, environment, 100).startswith("slow: failed (stopped after 2 s)")
    assert not (tmp_path / "slow.json").exists()


def test_a_stage_that_fails_says_why(tmp_path: Path, environment: dict[str, str]) -> None:
    assert run(Stage("wrong", 60), tmp_path, environment, 100) == "wrong: failed (1): not equal"
    assert not (tmp_path / "wrong.json").exists()


def test_no_stage_begins_without_time(tmp_path: Path, environment: dict[str, str]) -> None:
    assert run(Stage("quick", 60), tmp_path, environment, 5) == "quick: no time left; run again to go on"


def test_report(tmp_path: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "STAGES", (Stage("quick", 60), Stage("wrong", 60)))
    run(Stage("quick", 60), tmp_path, environment, 100)
    rows_of(tmp_path, "wrong").write_text('["what", "s"]\n["b", 2]\n["c", ')
    lines = markdown(tmp_path).splitlines()
    assert lines[2:10] == ["## quick", "", "As measured.", "", "| what | s |", "| --- | --- |", "| a | 0.1235 |", ""]
    assert lines[10:16] == ["## wrong", "", "Stopped before its end.", "", "| what | s |", "| --- | --- |"]
    assert lines[16:] == ["| b | 2 |"]
    rows_of(tmp_path, "wrong").unlink()
    assert markdown(tmp_path).splitlines()[10:] == ["## wrong", "", "Not done."]


def test_each_part_fits_into_a_call() -> None:
    assert all(sum(stage.seconds for stage in part) <= gate.SECONDS for part in gate.PARTS.values())
    assert {"compilation", "parity"} <= {stage.name for stage in gate.PARTS["check"]}
    assert list(gate.PARTS) == ["check", "train", "test"]  # what one would miss most comes first


def test_all_but_images_goes_into_one_archive_and_back(tmp_path: Path) -> None:
    out, archive = tmp_path / "out", tmp_path / "out" / "found.tgz"
    left_out = "data/data_batch_1.bin", "site/numba.py", "kernels/a.cubin", "run/epoch0001.h5"
    for name in ("parity.json", "run/metrics.jsonl", *left_out):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(name)
    for _ in range(2):
        pack(out, archive)
    unpack(archive, tmp_path / "again")
    found = sorted(str(p.relative_to(tmp_path / "again")) for p in (tmp_path / "again").rglob("*") if p.is_file())
    assert found == ["parity.json", "run/metrics.jsonl"]
    assert sorted(p.name for p in out.iterdir()) == ["data", "found.tgz", "kernels", "parity.json", "run", "site"]


def test_rows_are_written_as_they_come(tmp_path: Path) -> None:
    stages = importlib.import_module("benchmarks.gpu.stages")
    table = stages.Table(tmp_path, "step", ["a", "b"])
    table.add(["x", 1.5])
    with table.path.open("a") as file:
        file.write('["y", ')  # a stage stopped while it wrote
    again = stages.Table(tmp_path, "step", ["a", "b"])
    assert again == [["a", "b"], ["x", 1.5]] and again.lacks("y") and not again.lacks("x")
    again.add(["y", 2])
    assert stages.Table(tmp_path, "step", ["a", "b"]) == again
    assert stages.Table(tmp_path, "step", ["another", "head"]) == [["another", "head"]]


def test_the_tests_that_want_a_gpu_name_all_they_import() -> None:
    stages = importlib.import_module("benchmarks.gpu.stages")
    known = {*stages.TESTS_WANT, "numpy", "cupy", "__future__"}
    known |= {"autodiff", "benchmarks", "hcnn", "hcnn_core", "tests", "train"}
    for path in (ROOT / "tests").rglob("test_*.py"):
        if stages.wants_gpu(path):
            assert stages.imported(path) - known <= sys.stdlib_module_names, path


def test_the_list_of_wheels_has_what_the_tests_want_and_what_that_needs() -> None:
    stages = importlib.import_module("benchmarks.gpu.stages")
    listed = [Requirement(line) for line in WHEELS.read_text("utf-8").splitlines() if not line.startswith("#")]
    names = {canonicalize_name(requirement.name) for requirement in listed}
    assert names >= {canonicalize_name({"xdist": "pytest-xdist"}.get(name, name)) for name in stages.TESTS_WANT}
    for name in sorted(names):
        for text in metadata.requires(name) or ():
            needed = Requirement(text)
            if needed.marker is None or needed.marker.evaluate({"extra": "", "python_version": "3.12"}):
                assert canonicalize_name(needed.name) in names | {"numpy"}, f"{name} needs {needed}"


def test_stages_import_no_numba() -> None:
    """The comparison with PyTorch, and what else imports it, must do without."""
    text = "import sys; sys.modules['numba'] = None; import benchmarks.layer, benchmarks.gpu.stages"
    subprocess.run([sys.executable, "-c", text], cwd=ROOT, check=True)


@pytest.mark.slow
def test_texts_that_cupy_would_compile(tmp_path: Path) -> None:
    """Without a driver all of them are listed; NVRTC compiles some, with the options that CuPy asks for."""
    cupy = required("cupy")
    listing = [sys.executable, "-W", "ignore", "-m", "benchmarks.gpu.driverless", "--texts", str(tmp_path / "texts")]
    subprocess.run(listing, cwd=ROOT, check=True)
    texts = pickle.loads((tmp_path / "texts").read_bytes())
    own = [text for text in texts if "using real =" in text[0]]
    assert len(texts) > 100 and len(own) > 10
    asked = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cupy.cuda.compiler, "_compile_with_cache_cuda", lambda *arguments: asked.append(arguments))
        stages = importlib.import_module("benchmarks.gpu.stages")
        for text in texts:
            stages.compile_text(text)
    assert asked == [(source, options, None, *others) for source, options, _, *others in texts]
    for source, options, *_ in (*random.sample(own, 2), random.choice([text for text in texts if text not in own])):
        program = cupy.cuda.compiler._NVRTCProgram(source, "text.cu")
        assert program.compile(("-arch=sm_90", *options))[0]


def test_data_come_compressed_in_any_order(tmp_path: Path) -> None:
    keep = tmp_path / "keep"
    for part, name in enumerate(CIFAR10[::-1]):
        folder = tmp_path / str(part)
        folder.mkdir()
        (folder / f"{name}.xz").write_bytes(b"as it is")
        collect([folder], keep)
        assert gate.present(keep, name)
        (folder / name).write_bytes(b"again")
        collect([folder], keep)
    assert sorted(p.name for p in keep.iterdir()) == sorted(f"{name}.xz" for name in CIFAR10)


def test_from_an_empty_folder_to_the_report_and_on(
    tmp_path: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The order for a machine of half an hour, and another machine from the archive alone, which compiles again.

    Each call brings the next images. Training is the stage's own, a stub in place of Python. It takes two calls.
    """
    monkeypatch.setenv("PYTHONPATH", environment["PYTHONPATH"])
    monkeypatch.setattr(gate, "no_gpu", lambda environment: None)
    out, archive = tmp_path / "out", tmp_path / "found.tgz"
    for name, value in training_by_a_stub(tmp_path, out / "run").items():
        monkeypatch.setenv(name, value)

    def call(part: str, *names: str) -> list[str]:
        brought = tmp_path / f"of {part}"
        brought.mkdir(exist_ok=True)
        for name in names:
            (brought / name).write_bytes(b"images")
        given = ["--part", part, "--archive", str(archive), "--data", str(brought)]
        monkeypatch.setattr(sys, "argv", ["gate", str(out), *given])
        assert gate.main() == 0
        return [line.partition(" in ")[0] for line in capsys.readouterr().out.splitlines()[:-1]]

    def done(part: str) -> list[str]:
        return [f"{stage.name}: done" for stage in gate.PARTS[part]]

    assert call("check", *CIFAR10[:2]) == done("check")
    assert call("train", *CIFAR10[2:]) == ["train: failed (1): 1 epochs so far; call again"]
    assert "| 1 | 342.9 | 1.895 |  |" in (out / gate.REPORT).read_text()
    assert call("train") == ["train: done"]
    assert call("check") == [f"{line} before" for line in done("check")]
    out.rename(tmp_path / "gone")
    assert call("test") == done("test")
    report = (out / gate.REPORT).read_text()
    assert "Not done." not in report
    assert report.count("As measured.") == len(gate.STAGES) - 1
    assert f"on {', '.join(CIFAR10)}" in report and "| test |  | 1.603 | 0.4 |" in report
    names = [stage.name for stage in gate.PARTS["check"]]
    assert call("check") == [f"{name}: done" + " before" * (name != "compilation") for name in names]


TRAINS = """#!/bin/sh
case "$*" in *find_spec* | *'hcnn plot'*) exit 0;; esac
echo "$HCNN_PARTIAL_DATA $*" >> "$LOG"
mkdir -p "$RUN" && touch "$RUN/epoch0001-step000000.h5"
if [ -e "$RUN/metrics.jsonl" ]; then cp "$METRICS" "$RUN"; exit 0; fi
head -n 1 "$METRICS" > "$RUN/metrics.jsonl"
exit 124
"""
"""A run of one epoch, with the records of a real one: its time is up before its test, and it ends when it goes on."""


def training_by_a_stub(folder: Path, run: Path) -> dict[str, str]:
    """Variables of the environment for which `train.sh` trains with `TRAINS`, which writes its calls to folder/log."""
    stub = folder / "python"
    stub.write_text(TRAINS)
    stub.chmod(0o755)
    metrics = ROOT / "benchmarks" / "results" / "cifar10-hcnn-epoch" / "metrics.jsonl"
    return {"PYTHON": str(stub), "RUN": str(run), "LOG": str(folder / "log"), "METRICS": str(metrics)}


class Cupy:
    """NumPy with the few things that stages ask of CuPy besides."""

    __name__ = "cupy"

    class Event:
        """A moment on the host."""

        def record(self) -> None:
            self.at = time.perf_counter()

        def synchronize(self) -> None:
            pass

    cuda = types.SimpleNamespace(
        Event=Event,
        get_elapsed_time=lambda begin, end: 1e3 * (end.at - begin.at),
        runtime=types.SimpleNamespace(
            getDeviceProperties=lambda i: {
                "name": b"none", "multiProcessorCount": 1, "totalGlobalMem": 2**30, "l2CacheSize": 2**20
            },
            driverGetVersion=lambda: 13000,
            runtimeGetVersion=lambda: 13000,
        ),
    )  # fmt: skip

    def get_default_memory_pool(self) -> Any:
        return types.SimpleNamespace(free_all_blocks=lambda: None)

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)


@pytest.mark.parametrize("name", ["environment", "parity", "small"])
def test_stages_without_a_gpu(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On NumPy in place of CuPy, with less to do: what they measure is nothing, but they run."""
    stages = importlib.import_module("benchmarks.gpu.stages")
    few = {"width": 4, "factors": 4, "depth": 5}
    whole = stages.Step
    monkeypatch.setattr(stages, "Step", lambda p, b, size, *others, **more: whole(p, b, 3, *others, **more))
    steps = importlib.import_module("benchmarks.step")
    monkeypatch.setattr(steps, "make_config", lambda preset, changes: make_config(preset, {**changes, **few}))
    monkeypatch.setattr(train.runs.step, "record", rehearse_and_repeat)
    monkeypatch.setattr(train.runs.step, "lasting_memory", lambda xp: nullcontext())
    monkeypatch.setattr(stages, "versions", lambda *names: versions("numpy"))
    monkeypatch.setattr(stages, "ROUNDS", 2)
    monkeypatch.setattr(stages, "poisoned_memory", lambda cupy: nullcontext())
    sizes = {500: 3, 50: 2, 33: 2, 32: 6, 20: 2, 17: 5, 15: 4, 3000: 300}
    problems = [(n, tuple(sizes.get(k, k) for k in x), *rest) for n, x, *rest in stages.PROBLEMS if "(+)" not in n]
    monkeypatch.setattr(stages, "PROBLEMS", problems)
    monkeypatch.setattr(stages, "first_losses", lambda xp, preset, seed: [1.0])
    result = json.loads(json.dumps(getattr(stages, name)(Cupy(), tmp_path), default=str))
    head, *rows = result["table"]
    assert rows and all(len(row) == len(head) for row in rows)
    if name == "parity":
        assert all(row[-2] == "yes" for row in rows)


@pytest.mark.parametrize(
    ("initcheck", "expected"), [("exit 0", "none"), ("exec sleep 60", "not known"), ("exit 9", "")]
)
def test_sanitizer(initcheck: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stages = importlib.import_module("benchmarks.gpu.stages")
    tool = tmp_path / "compute-sanitizer"
    tool.write_text(f'#!/bin/sh\ncase "$2" in initcheck) {initcheck};; esac\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(stages, "SANITIZER_SECONDS", 2)
    if not expected:
        with pytest.raises(SystemExit, match="'initcheck', 'exit status 9, see sanitizer-initcheck/log'"):
            stages.sanitizer(Cupy(), tmp_path)
        return
    rows = stages.sanitizer(Cupy(), tmp_path)["table"][1:]
    assert [row[0] for row in rows] == ["memcheck", "racecheck", "initcheck"]
    assert [row[1] for row in rows[:2]] == ["none"] * 2 and rows[2][1].startswith(expected)


def test_parity_notices_a_wrong_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stages = importlib.import_module("benchmarks.gpu.stages")
    assert stages.compared([np.array([1.0, 2.0])], [np.array([1.0, 2.001])])[-1] == "NO"
    assert stages.compared([np.array([1.0, np.nan])], [np.array([1.0, 2.0])])[-1] == "NO"
    assert stages.compared([np.array([1.0, 2.0])], [np.array([1.0, 2.0001])])[-1] == "yes"


def test_every_stage_has_its_function() -> None:
    text = (ROOT / "benchmarks" / "gpu" / "stages.py").read_text("utf-8")
    assert all(f"def {s.name}(" in text for s in gate.STAGES)


def test_without_a_gpu_one_line_says_why(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.gpu.gate", str(tmp_path / "out")]
    hidden = dict(os.environ, CUDA_VISIBLE_DEVICES="-1")
    done = subprocess.run(command, cwd=ROOT, env=hidden, capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("no GPU, so nothing is run: CuPy") and done.stderr.count("\n") == 1
