"""`benchmarks/gpu/train.sh`: it goes on where it stopped, whenever that was. A stub stands in for Python."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu" / "train.sh"

STUB = """#!/bin/sh
case "$*" in *find_spec*) echo "$LACKS"; exit 0;; esac
echo "$@" >> "$LOG"
case "$*" in *'hcnn plot'*) exit 0;; esac
[ -e "$RUN/config.toml" ] && [ -z "$(ls "$RUN" | grep h5)" ] && exit 2
mkdir -p "$RUN" && touch "$RUN/config.toml"
eval "$DO"
"""


class Script:
    """Calls of the script on one run."""

    def __init__(self, folder: Path) -> None:
        self.run, self.log, self.stub = folder / "run", folder / "log", folder / "python"
        self.stub.write_text(STUB)
        self.stub.chmod(0o755)

    def __call__(
        self, do: str, *flags: str, seconds: str = "60", lacks: str = "", first: tuple[str, ...] = ()
    ) -> tuple[int, str, list[str]]:
        """Exit status, output, and with what the stub was called."""
        self.log.write_text("")
        own = {"PYTHON": str(self.stub), "RUN": str(self.run), "LOG": str(self.log), "DO": do, "LACKS": lacks}
        command = ["bash", str(SCRIPT), *first, str(self.run), seconds, *flags]
        done = subprocess.run(command, env=os.environ | own, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr, self.log.read_text().splitlines()


@pytest.fixture
def script(tmp_path: Path) -> Script:
    return Script(tmp_path)


def test_a_stop_before_the_first_checkpoint_begins_anew(script: Script) -> None:
    status, said, _ = script("exec sleep 60", "--preset", "hcnn", seconds="1")
    assert status == 0 and "before the end of the first epoch" in said
    assert (script.run / "config.toml").exists()
    status, _, called = script("exit 0", "--preset", "hcnn")
    assert status == 0 and called[0].endswith(f"-m train.cifar --out {script.run} --backend cupy --preset hcnn")


def test_a_stop_inside_the_first_epoch_is_no_failure(script: Script) -> None:
    status, said, called = script("touch $RUN/epoch0000-step000007.h5; exec sleep 60", seconds="1")
    assert status == 0 and "first epoch" in said and len(called) == 1


def test_a_resumed_run_keeps_its_settings_and_takes_another_folder(script: Script) -> None:
    script("touch $RUN/epoch0001-step000000.h5; echo {} > $RUN/metrics.jsonl; exec sleep 60", seconds="1")
    flags = ["--preset", "hcnn", "--data-dir", "elsewhere", "--epochs", "3", "--backend=cupy"]
    status, _, called = script("exec sleep 60", *flags, seconds="1")
    assert status == 0 and len(called) == 2
    assert called[0].endswith(f"-m train.cifar --resume {script.run} --data-dir elsewhere --backend=cupy")
    assert called[1].endswith(f"-m hcnn plot {script.run}")


def test_a_failure_is_one(script: Script) -> None:
    assert script("exit 1")[0] == 1


def test_what_is_missing_is_said_before_anything_runs(script: Script) -> None:
    status, said, called = script("exit 0", lacks="h5py")
    assert status == 1 and not called
    assert said == "train.sh: no h5py: give the wheels to gate.sh by --wheels, and here --gate FOLDER first\n"


def test_packages_and_kernels_of_the_gate(script: Script, tmp_path: Path) -> None:
    (tmp_path / "gate").mkdir()
    script('echo "$PYTHONPATH $CUPY_CACHE_DIR" >> "$LOG"', first=("--gate", str(tmp_path / "gate")))
    path, cache = script.log.read_text().splitlines()[-1].split()
    assert f"{tmp_path}/gate/site" in path.split(":") and cache == f"{tmp_path}/gate/kernels"
