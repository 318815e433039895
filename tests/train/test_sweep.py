"""Sweeps: which trials a file asks for, and that they are trained, resumed, tabled and kept apart."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import os
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.train.commands import made_up
from tests.train.runs import Outcome, contents, finish, run_here, start
from train import sweep as _sweep
from train.commands import trial as _trial
from train.config import ConfigError, to_toml
from train.data import DataError, Dataset
from train.data.description import Description
from train.runs.run import Run, RunError
from train.storage.lock import locked
from train.sweep import _line, _means, _write_results, read_sweep

SETTINGS = """
[settings]
preset = "sample"
width = 4
factors = 4
depth = 5
strided_layers = [3, 4]
batch_size = 8
epochs = 2
train_size = 40
validation_size = 8
"""


def run(file: Path, *arguments: object) -> Outcome:
    """The command in this process; each trial has one of its own."""
    return run_here(("sweep", file, *arguments), None)


def write(tmp_path: Path, text: str) -> tuple[Path, Path]:
    """A sweep's file, and its folder."""
    file = tmp_path / "some.toml"
    file.write_text(text)
    return file, tmp_path / "out"


def begun(tmp_path: Path, text: str) -> tuple[Path, str, _sweep.Sweep]:
    """The folder of a sweep that has begun, the text of its file, and the sweep."""
    file, folder = write(tmp_path, text)
    folder.mkdir()
    text, sweep = _sweep._read(file)
    _sweep._begin(folder, text, sweep)
    return folder, text, sweep


def table(folder: Path) -> list[dict[str, str]]:
    with open(folder / "results.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_trials_are_all_combinations_with_all_seeds() -> None:
    text = "seeds = [3, 4]\n" + SETTINGS + "[grid]\nlearning_rate = [0.1, 0.2]\nboundary = ['zero', 'periodic']\n"
    trials = read_sweep(text).trials
    assert [trial.number for trial in trials] == list(range(1, 9))
    chosen = {(t.config.learning_rate, t.config.boundary, t.config.seed) for t in trials}
    assert chosen == {(r, b, s) for r in (0.1, 0.2) for b in ("zero", "periodic") for s in (3, 4)}
    assert all(not t.config.test and t.config.preset == "sample" and t.config.width == 4 for t in trials)


def test_settings_of_a_run_are_those_of_a_sweep_which_leaves_the_test_set_unread() -> None:
    config = read_sweep(SETTINGS).trials[0].config
    of_a_run = to_toml(dataclasses.replace(config, test=True), {}).partition("[versions]")[0]
    assert [trial.config for trial in read_sweep("[settings]\n" + of_a_run).trials] == [config]


def test_a_variant_changes_settings_under_a_name_of_its_own() -> None:
    text = "seeds = [3, 4]\n" + SETTINGS + "[variants]\nas-it-is = {}\n'K = 6' = {width = 6, epochs = 1}\n"
    trials = read_sweep(text + "released = {preset = 'released'}\n[grid]\nshift = [1]\n").trials
    assert [t.varied for t in trials[2:4]] == [{"variant": "K = 6", "shift": 1, "seed": s} for s in (3, 4)]
    assert [(t.config.width, t.config.epochs) for t in trials] == [(4, 2)] * 2 + [(6, 1)] * 2 + [(4, 2)] * 2
    assert [t.config.nonlinear_factors for t in trials] == [False] * 4 + [True] * 2
    assert {t.config.shift for t in trials} == {1}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("trials = 3", "'trials' is no key of a sweep"),
        ("[grid]\nwidht = [1]", "did you mean width"),
        ("[grid]\nwidth = 3", "grid.width is 3; give a list"),
        ("[grid]\nwidth = []", "grid.width is []; give a list"),
        ("seeds = 3", "seeds is 3; give a list"),
        ("minutes = 0", "minutes is 0; give a number, more than 0"),
        ("workers = 'two'", "workers is 'two'"),
        ("grid = 3", "grid is 3; it is a table"),
        ("[variants]\nwide = 9", "variants.wide is 9; give a table of settings"),
        ("[variants]\nwide = {widht = 9}", "did you mean width"),
        ("[grid]\nvalidation_size = [0]", "validation_size is 0; a sweep compares"),
        ("[grid]\nseed = [1]\nshift = [0]\nx = [", "not valid TOML"),
        ("workers = 0.5", "workers is 0.5; give a whole number, 1 or more"),
        ("workers = inf", "workers is inf; give a whole number, 1 or more"),
        ("[grid]\nseed = [1, 2]", "seed is varied in two places, so that one would not count"),
        ("[variants]\na = {seed = 3}", "seed is varied in two places"),
        ("[variants]\na = {width = 3}\n[grid]\nwidth = [5]", "give it in variants or in grid"),
        ("[grid]\ntest = [true, false]", "test is varied; a sweep never reads the test set"),
    ],
)
def test_what_no_sweep_can_be_made_of_is_refused(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_sweep(text + "\n" + SETTINGS)
    assert said in str(caught.value)


def test_the_same_settings_twice_have_no_deviation_over_seeds() -> None:
    found = read_sweep("seeds = [3, 4]\n" + SETTINGS + "[grid]\nshift = [1, 1, 1]\n")
    reached = {3: 0.5, 4: 0.6}
    rows = [
        {**trial.varied, "validation_accuracy": reached[trial.config.seed], "seconds": 1.0, "state": "finished"}
        for trial in found.trials
    ]
    assert len(rows) == 6 and _means(found, rows).splitlines()[2:] == ["| 1 | 55.00 % ± 7.07 | 1 | 2 |  |"]
    for score in (None, 0.9):  # of other data
        failed = {"validation_accuracy": score, "seconds": 0.0, "state": "failed"}
        rows = [row | failed if row["seed"] == 4 else row for row in rows]
        assert _means(found, rows).splitlines()[2:] == ["| 1 | 50.00 % | 1 | 1 | failed |"]  # the time of the trained


def test_trials_on_numbers_and_on_labels_are_tabled_by_their_scores(tmp_path: Path) -> None:
    """The settings are one trial's; its metrics are made up."""
    of = {
        "numbers": {
            "task": "numbers",
            "train_loss": 0.5,
            "validation_loss": 0.4,
            "validation_r2": 0.75,
            "validation_error_0": 12.5,
        },
        "labels": {
            "task": "labels",
            "train_loss": 0.5,
            "train_accuracy": 0.5,
            "validation_accuracy": 0.75,
            "validation_all_right": 0.5,
        },
    }
    found = read_sweep(SETTINGS)
    for kind, record in of.items():
        (folder := tmp_path / kind / "trial0001").mkdir(parents=True)
        lines = [json.dumps({"epoch": n, **record, "seconds": 1.0}) + "\n" for n in (1, 2)]
        (folder / "metrics.jsonl").write_text("".join(lines))
        (row,) = _write_results(tmp_path / kind, found, {1: "finished"})
        assert row["epochs"] == 2 and all(cell != "" for cell in {**row, "error": "none"}.values())
        assert (tmp_path / kind / "results.png").stat().st_size > 1000
        mean = (tmp_path / kind / "results.md").read_text().splitlines()
        shown = {
            "numbers": ("held-out mean R^2", "0.7500", "R^2 0.7500 on the images held out", "validation_error_0"),
            "labels": ("held-out labels right", "75.00 %", "75.00 % of the labels", "validation_all_right"),
        }[kind]
        assert shown[0] in mean[0] and mean[2].startswith(f"| {shown[1]} |") and shown[2] in _line(row)
        assert row[shown[3]] == of[kind][shown[3]]


def test_the_epoch_that_a_trial_was_stopped_in_counts(copied: Path, tmp_path: Path) -> None:
    run = Run(copied)
    whole = sum(record["seconds"] for record in _trial.records_of(run))
    assert _trial._seconds_of_training(run, _trial._latest(run)) == whole > 0
    _, latest, _ = run.latest()
    state = dataclasses.replace(latest.state, step=2, order=np.arange(32), metrics={"accuracy": 0.0}, seconds=5.0)
    with run.lock():
        run.save(dataclasses.replace(latest, state=state), {}, best=False)
    assert _trial._seconds_of_training(run, _trial._latest(run)) == whole + 5
    assert _trial._seconds_of_training(Run(tmp_path / "none"), None) == 0


def test_a_trial_on_other_samples_is_told(few_images: Dataset, tmp_path: Path) -> None:
    """Where the file that trials name is another now: by its labels too, but not by what is held out."""
    plan = read_sweep(SETTINGS + "[grid]\nlearning_rate = [0.02, 0.01, 0.005]\n")
    other = dataclasses.replace(few_images, test_labels=few_images.test_labels[::-1].copy())
    for trial, data in zip(plan.trials, (few_images, few_images, other), strict=True):
        assert _sweep._of_other_samples(tmp_path, trial, plan) == 0
        path = _trial.run_path(tmp_path, trial.number)
        path.mkdir()
        (path / "samples.json").write_text(Description.of(data, np.arange(trial.number), [1.0], [1.0]).text)
    assert [_sweep._of_other_samples(tmp_path, trial, plan) for trial in plan.trials] == [3, 3, 1]


@pytest.mark.lot
@pytest.mark.slow
def test_a_sweep_is_trained_tabled_and_not_trained_again(tmp_path: Path) -> None:
    """One of three trials fails; the others go on. The test set is not read."""
    file, folder = write(tmp_path, "workers = 2\n" + SETTINGS + "[grid]\nlearning_rate = [0.02, 1e30, 0.01]\n")
    out = run(file, "--out", folder).success()
    assert "3 of 3 trials to train, 2 at a time" in out and "trial 2: failed: the loss is" in out
    rows = table(folder)
    assert [row["state"] for row in rows] == ["finished", "failed", "finished"]
    assert [row["epochs"] for row in rows] == ["2", "0", "2"] and "the loss is" in rows[1]["error"]
    for row in (rows[0], rows[2]):
        lines = (folder / f"trial000{row['trial']}" / "metrics.jsonl").read_text().splitlines()
        last = json.loads(lines[-1])
        assert float(row["validation_accuracy"]) == last["validation_accuracy"] and "test_loss" not in last
    means = (folder / "results.md").read_text().splitlines()
    best = max(rows, key=lambda row: float(row["validation_accuracy"] or -1))
    assert means[2].startswith(f"| {float(best['learning_rate']):.4g} |") and means[-1].endswith("| failed |")
    assert (folder / "results.png").read_bytes().startswith(b"\x89PNG")
    before = contents(folder)
    assert "0 of 3 trials" in run(file, "--out", folder).success()
    changed = {name for name, content in contents(folder).items() if content != before.get(name)}
    assert changed <= {"results.png"}
    assert "1 of 3 trials" in run(file, "--out", folder, "--retry").success()
    file.write_text("workers = 2\n" + SETTINGS + "[grid]\nlearning_rate = [0.02]\n")
    assert "holds a sweep of other trials" in run(file, "--out", folder).err


@pytest.mark.lot
@pytest.mark.slow
def test_a_sweep_that_is_stopped_goes_on_where_it_was(tmp_path: Path) -> None:
    file, folder = write(tmp_path, SETTINGS.replace("epochs = 2", "epochs = 400") + "[grid]\nshift = [1, 2]\n")
    process = start("-m", "hcnn", "sweep", file, "--out", folder, env={"HCNN_NUM_THREADS": "1"})
    metrics = folder / "trial0001" / "metrics.jsonl"
    while process.poll() is None and not (metrics.is_file() and metrics.read_text().count("\n") > 2):
        pass
    process.send_signal(signal.SIGINT)
    outcome = finish(process)
    assert outcome.status == 130 and "stopped by SIGINT, saved; the same command goes on" in outcome.err
    assert [row["state"] for row in table(folder)] == ["stopped", "waiting"]
    done = len(metrics.read_text().splitlines())
    assert done >= 3
    minutes = 1e-9  # a budget that is spent: nothing more is trained
    assert _trial.run_trial(folder, 1, minutes, math.inf, 1) == _trial.OUT_OF_TIME
    spent = sum(json.loads(line)["seconds"] for line in metrics.read_text().splitlines())
    minutes = spent / 60 + 1.5 * spent / done / 60  # for one epoch more, or two
    assert _trial.run_trial(folder, 1, minutes, math.inf, 1) == _trial.OUT_OF_TIME
    assert done < len(metrics.read_text().splitlines()) < 400  # how many fit depends on what else the machine does


def test_a_sweep_that_is_killed_takes_its_trials_with_it(tmp_path: Path) -> None:
    """They save; the same command waits for that, where it called the trial failed because it was in use."""
    file, folder = write(tmp_path, SETTINGS.replace("epochs = 2", "epochs = 400"))
    process = start("-m", "hcnn", "sweep", file, "--out", folder, env={"HCNN_NUM_THREADS": "1"})
    trial = Run(folder / "trial0001")
    while process.poll() is None and not (
        trial.metrics_path.is_file() and trial.metrics_path.read_text().count("\n") > 2
    ):
        pass
    process.kill()
    finish(process)
    assert _trial.run_trial(folder, 1, 1e-9, math.inf, 1) == _trial.OUT_OF_TIME
    assert not _trial._is_in_use(trial)
    state = trial.latest()[1].state
    assert (
        len(trial.read_metrics()) == state.epoch < 400
        and "stopped by SIGTERM" in (folder / "trial0001.log").read_text()
    )


def test_a_trial_that_another_process_has_is_left_and_not_called_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _, sweep = begun(tmp_path, SETTINGS)
    (folder / "trial0001").mkdir()
    monkeypatch.setattr(_trial, "PATIENCE", 0.0)
    with locked(folder / "trial0001" / ".lock"):
        state = _trial.run_trial(folder, 1, math.inf, math.inf, 1)
    assert state == _trial.IN_USE not in (_trial.FAILED, _trial.FINISHED)
    _sweep._write_results(folder, sweep, {1: state})
    assert table(folder)[0]["state"] == state == _sweep._earlier(folder, sweep)[1]


def test_a_hangup_stops_a_sweep_as_ctrl_c_does() -> None:
    before = signal.signal(signal.SIGHUP, lambda signum, frame: None)
    try:
        with _sweep._stopping() as received:
            signal.raise_signal(signal.SIGHUP)
        assert received == [signal.SIGHUP]
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup has it
        with _sweep._stopping() as received:
            signal.raise_signal(signal.SIGHUP)
        assert received == []
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_folder_whose_files_were_changed_is_refused(tmp_path: Path) -> None:
    folder, text, sweep = begun(tmp_path, SETTINGS + "[grid]\nshift = [1, 2]\n")
    _sweep._begin(folder, text, sweep)
    changed, whole = folder / "trial0002.toml", (folder / "trial0002.toml").read_text()
    changed.write_text(whole.replace("shift = 2", "shift = 3"))
    with pytest.raises(RunError, match=r"trial0002\.toml has other settings than the sweep gives this trial"):
        _sweep._begin(folder, text, sweep)
    changed.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match=r"trial0002\.toml: not UTF-8 text"):
        _sweep._begin(folder, text, sweep)
    changed.write_text(whole)
    file = tmp_path / "some.toml"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))  # as editors on Windows save it
    assert _sweep._read(file)[1] == sweep
    file.write_text(r'settings.data_dir = "C:\tmp"')
    with pytest.raises(ConfigError, match=r"data_dir is 'C:\\tmp', with a control character; .* in single quotes"):
        _sweep._read(file)
    for content, said in ((b"\xff", "not UTF-8 text"), (b"[", "not valid TOML")):
        (folder / "sweep.toml").write_bytes(content)
        with pytest.raises(ConfigError, match=rf"sweep\.toml: .*{said}"):
            _sweep._begin(folder, text, sweep)


@pytest.mark.parametrize("name", ["sweep.toml", "trial0001.toml"])
def test_a_pipe_or_a_link_in_the_place_of_a_sweeps_file_is_refused(tmp_path: Path, name: str) -> None:
    folder, text, sweep = begun(tmp_path, SETTINGS)
    path = folder / name
    elsewhere = path.rename(tmp_path / name)
    for make in (lambda: os.mkfifo(path), lambda: path.symlink_to(elsewhere), lambda: path.symlink_to("/dev/zero")):
        make()
        with pytest.raises(ConfigError, match=rf"{name}: it is a link, or no file; remove it"):
            _sweep._begin(folder, text, sweep)
        path.unlink()


@pytest.mark.parametrize(
    "line", ["{", "\udcff", '{"epoch": 1, "train_loss": "low"}', '{"epoch": 1, "train_loss": 1, "seconds": []}']
)
def test_damaged_metrics_of_one_trial_cost_no_other(tmp_path: Path, line: str) -> None:
    file, folder = write(tmp_path, SETTINGS.replace("epochs = 2", "epochs = 1") + "[grid]\nshift = [1, 2]\n")
    _, sweep = _sweep._read(file)
    record = '{"epoch": 1, "train_loss": 2.0, "validation_accuracy": 0.25, "validation_loss": 2.0, "seconds": 1.0}\n'
    for number, content in ((1, f"{line}\n{record}"), (2, record)):
        (folder / f"trial000{number}").mkdir(parents=True)
        path = folder / f"trial000{number}" / "metrics.jsonl"
        path.write_text(content, encoding="utf-8", errors="surrogateescape")
    rows = _sweep._write_results(folder, sweep, {1: _trial.FINISHED, 2: _trial.FINISHED})
    assert [row["state"] for row in rows] == ["failed", "finished"]
    assert str(folder / "trial0001" / "metrics.jsonl") in rows[0]["error"] and rows[1]["validation_accuracy"] == 0.25


def test_a_finished_trial_that_has_lost_its_run_is_not_tabled_as_finished(tmp_path: Path) -> None:
    """Without its directory it is trained again; without its metrics, nobody knows what it reached."""
    file, folder = write(tmp_path, SETTINGS + "[grid]\nshift = [1, 2, 3]\n")
    _, sweep = _sweep._read(file)
    for number in (1, 2):
        (folder / f"trial000{number}").mkdir(parents=True)
    lines = [json.dumps({"epoch": n, "train_loss": 2.0, "validation_accuracy": 0.25}) + "\n" for n in (1, 2)]
    (folder / "trial0001" / "metrics.jsonl").write_text("".join(lines))
    (folder / "trial0002" / "metrics.jsonl").write_text(lines[0])
    rows = _sweep._write_results(folder, sweep, dict.fromkeys((1, 2, 3), _trial.FINISHED))
    assert [row["state"] for row in rows] == ["finished", "failed", "failed"]
    assert "trial0002/metrics.jsonl has lost the record of epoch 2" in rows[1]["error"]
    results = folder / "results.csv"
    results.write_text(results.read_text().replace("failed", "finished"))
    assert _sweep._earlier(folder, sweep) == {1: _trial.FINISHED, 2: _trial.FINISHED, 3: _trial.WAITING}


def test_a_pipe_in_the_place_of_a_log_fails_its_trial_alone(tmp_path: Path) -> None:
    folder, _, sweep = begun(tmp_path, SETTINGS + "[grid]\nshift = [1, 2]\n")
    os.mkfifo(folder / "trial0001.log")
    assert _sweep._attempt(folder, sweep.trials[0], sweep, math.inf) == _trial.FAILED
    rows = _sweep._write_results(folder, sweep, {1: _trial.FAILED, 2: _trial.WAITING})
    assert [row["state"] for row in rows] == ["failed", "waiting"]
    assert rows[0]["error"] == f"cannot read {folder / 'trial0001.log'}: it is a link, or no file; remove it"


def test_the_run_of_other_settings_is_not_tabled_as_a_trial(first_run: Any, tmp_path: Path) -> None:
    folder, _, _ = begun(tmp_path, SETTINGS)
    shutil.copytree(first_run[0], folder / "trial0001")
    before = contents(folder)
    with pytest.raises(RunError, match=r"trial0001 was trained with other settings than .*trial0001\.toml gives"):
        _trial.run_trial(folder, 1, math.inf, math.inf, 1)
    assert contents(folder) == before
    config = Run(first_run[0]).latest()[1].config
    moved = dataclasses.replace(config, data_dir="elsewhere")  # which --resume may say
    (folder / "trial0001.toml").write_text(to_toml(moved, {}))
    assert _trial.run_trial(folder, 1, 1e-9, math.inf, 1) == _trial.OUT_OF_TIME


@pytest.mark.lot
@pytest.mark.slow
def test_a_trial_on_images_of_a_function_goes_on_beside_a_file_train(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("raise SystemExit('the user\\'s own')\n")
    np.savez(tmp_path / "images.npz", **made_up((16, 16)))
    (tmp_path / "mine.py").write_text("import numpy as np\ndef images():\n    return dict(np.load('images.npz'))\n")
    text = SETTINGS + "dataset = 'mine:images'\n"
    for budget, said in (("minutes = 1e-3\n", "trial 1: out of time"), ("", "trial 1: finished")):
        file, folder = write(tmp_path, budget + text)
        process = start("-m", "hcnn", "sweep", file, "--out", folder, env={"HCNN_NUM_THREADS": "1"}, cwd=tmp_path)
        out = finish(process).success()
        assert said in out and f"calling the function images of the module mine, which {file} names" in out


@pytest.mark.lot
@pytest.mark.slow
def test_a_trial_that_failed_after_an_epoch_is_not_trained_again(tmp_path: Path) -> None:
    file, folder = write(tmp_path, "minutes = 1e-3\n" + SETTINGS)
    run(file, "--out", folder).success()
    results = folder / "results.csv"
    results.write_text(results.read_text().replace("out of time", "failed"))
    file.write_text(SETTINGS)
    assert "0 of 1 trials" in run(file, "--out", folder).success()
    assert "1 of 1 trials" in run(file, "--out", folder, "--retry").success()


def test_a_sweep_fetches_what_its_trials_need_before_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fetched: list[tuple[str, str]] = []

    def obtain(name: str, data_dir: str) -> None:
        fetched.append((name, data_dir))
        raise DataError("cannot download it")

    monkeypatch.setattr(_sweep, "obtain", obtain)
    file, folder = write(tmp_path, f"seeds = [1, 2]\n{SETTINGS}dataset = 'cifar10'\ndata_dir = '{tmp_path}'\n")
    assert _sweep.main([str(file), "--out", str(folder), "--workers", "2"]) == 1
    assert fetched == [("cifar10", str(tmp_path))] and "cannot download it" in capsys.readouterr().err


def test_two_sweeps_in_one_folder_are_refused(tmp_path: Path) -> None:
    file, folder = write(tmp_path, SETTINGS)
    folder.mkdir()
    with locked(folder / ".lock"):
        outcome = run(file, "--out", folder)
    assert outcome.status == 1 and "is in use by process" in outcome.err and outcome.err.count("\n") == 1
    (folder / "trial0001").mkdir()
    outcome = run(file, "--out", folder)
    assert outcome.status == 1 and "holds trials but no sweep.toml" in outcome.err


def test_no_trial_begins_after_the_total_time(tmp_path: Path) -> None:
    file, folder = write(tmp_path, "total_minutes = 1e-9\n" + SETTINGS)
    assert "| 0 | 0 | waiting |" in run(file, "--out", folder).success()
    assert not (folder / "trial0001").exists()


@pytest.mark.parametrize(("seconds", "epochs", "expected"), [(61, 9, True), (59, 9, False), (61, 3, False)])
def test_a_trial_goes_on_if_its_longest_epoch_fits(tmp_path: Path, seconds: float, epochs: int, expected: bool) -> None:
    """Epochs of 10, 20 and 10 s leave 21 or 19 s."""
    (tmp_path / "trial0001").mkdir()
    lines = [json.dumps({"epoch": n, "train_loss": 1.0, "seconds": s}) for n, s in ((1, 10.0), (2, 20.0), (3, 10.0))]
    (tmp_path / "trial0001" / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    trial: Any = SimpleNamespace(number=1, config=SimpleNamespace(epochs=epochs))
    sweep: Any = SimpleNamespace(minutes=seconds / 60)
    assert _sweep._has_time(tmp_path, trial, sweep) is expected
