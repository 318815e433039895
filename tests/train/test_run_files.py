"""Files of a run that are links, pipes or devices, and names that would be taken for more than names."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest

from hcnn_core import files
from tests.train.runs import assert_same_run, checkpoints, contents, run_here
from train import evaluate, explore, load, sweep
from train.attributes import pictures
from train.attributes.claims import Claim
from train.config import ConfigError, read_toml
from train.data import Dataset
from train.pages import Table
from train.recipes.tasks import TASKS
from train.runs import shipped
from train.runs.plot import literal, plot_runs, plot_trials
from train.runs.run import Run, RunError
from train.storage.files import harmless

RECORD = {"epoch": 1, "train_loss": 2.0, "train_accuracy": 0.5}


@pytest.mark.parametrize("kind", ["dangling", "link", "pipe", "device"])
def test_metrics_are_written_and_read_in_the_run_alone(tmp_path: Path, kind: str) -> None:
    run, elsewhere = Run(tmp_path / "run"), tmp_path / "elsewhere"
    run.path.mkdir()
    if kind == "pipe":
        os.mkfifo(run.metrics_path)
    else:
        run.metrics_path.symlink_to("/dev/zero" if kind == "device" else elsewhere)
    if kind == "link":
        elsewhere.write_text("")
    with pytest.raises(RunError, match=r"metrics.jsonl: it is a link, or no file; remove it"):
        run.append_metrics(RECORD)
    with pytest.raises(RunError, match=r"metrics.jsonl"):
        run.read_metrics()
    assert not elsewhere.exists() or elsewhere.read_text() == ""


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_configuration_that_has_no_end_is_not_read(tmp_path: Path, kind: str) -> None:
    run = Run(tmp_path)
    if kind == "pipe":
        os.mkfifo(run.config_path)
    else:
        run.config_path.symlink_to("/dev/zero")
    assert run.recorded("versions") is None


def test_metrics_in_their_place_are_written_and_read(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.append_metrics(RECORD)
    run.append_metrics(RECORD | {"epoch": 2})
    assert [record["epoch"] for record in run.read_metrics()] == [1, 2]


@pytest.mark.parametrize("sign", ["\u200e", "\u200f", "\u061c", "\u2028", "\u2029", "\u202e", "\u2066", "\x1b"])
def test_signs_that_change_how_a_line_is_shown_are_written_out(sign: str) -> None:
    assert harmless(f"a{sign}b") == f"a{sign.encode('unicode_escape').decode()}b"
    assert harmless("Größe, 猫\n") == "Größe, 猫\n"


@pytest.mark.parametrize("name", [r"$\frac{1}$", "_hidden", "$x$", "a_b"])
def test_names_are_drawn_letter_for_letter(tmp_path: Path, name: str) -> None:
    plot_runs({name: [RECORD]}, tmp_path / "comparison.png")
    figure = plt.figure()
    (line,) = figure.subplots().plot([0], label=literal(name))
    (shown,) = [text.get_text() for text in line.axes.legend().get_texts()]
    figure.canvas.draw()
    plt.close(figure)
    assert shown.replace(r"\$", "$").removeprefix("\u200b") == name


def test_home_folders_are_found_from_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copy(shipped.FOLDER / "hcnn-fast.h5", tmp_path / "mine.h5")
    assert shipped.find("~/mine.h5") == tmp_path / "mine.h5"
    assert load("~/mine.h5").class_names == load("hcnn-fast").class_names


def test_configurations_as_editors_save_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(b"\xef\xbb\xbfpreset = 'sample'\r\nepochs = 3\r\n")
    assert read_toml(path) == {"preset": "sample", "epochs": 3}
    path.write_text("preset = 'sample'", "utf-16")
    with pytest.raises(ConfigError, match="not UTF-8 text"):
        read_toml(path)
    monkeypatch.setattr(files, "MOST_TEXT", 1 << 20)
    with pytest.raises(ConfigError, match="it is longer than 1 MiB"):
        read_toml(Path("/dev/zero"))


def test_checkpoints_may_be_links_and_what_they_lead_to_stays_as_it_is(
    trained: Path, few_images: Dataset, tmp_path: Path
) -> None:
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    shutil.copytree(trained, run)
    elsewhere.mkdir()
    for path in run.glob("*.h5"):
        path.rename(elsewhere / path.name)
        path.symlink_to(elsewhere / path.name)
    newest = checkpoints(run)[-1]
    (elsewhere / newest).write_bytes(b"damaged")
    shutil.copy(elsewhere / "epoch0003-step000000.h5", elsewhere / "best.h5")  # as it was then
    before = contents(elsewhere)
    outcome = run_here(("--resume", run), few_images)
    outcome.success()
    aside = run / f"{newest}.damaged"
    assert aside.is_symlink() and not (run / newest).is_symlink() and contents(elsewhere) == before
    aside.unlink()
    assert_same_run(run, trained)


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_checkpoints_that_have_no_end_are_not_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "epoch0001-step000000.h5"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(RunError, match="holds no run"):
        Run(tmp_path).latest()


def test_the_entries_of_new_folders_are_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed = list[int]()
    monkeypatch.setattr(os, "fsync", lambda descriptor: flushed.append(os.fstat(descriptor).st_ino))
    run = Run(tmp_path / "runs" / "today" / "run")
    assert run.take_name() == run.path
    assert flushed == [folder.stat().st_ino for folder in (tmp_path / "runs" / "today", tmp_path / "runs", tmp_path)]
    flushed.clear()
    with Run(tmp_path / "other").lock(make=True):
        assert flushed == [tmp_path.stat().st_ino]


def test_the_entries_of_sweeps_and_explorations_are_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed = list[int]()
    monkeypatch.setattr(os, "fsync", lambda descriptor: flushed.append(os.fstat(descriptor).st_ino))
    file = tmp_path / "some.toml"
    file.write_text("total_minutes = 1e-9\n[settings]\npreset = 'sample'\nvalidation_size = 8\n")
    assert sweep.main([str(file), "--out", str(tmp_path / "sweeps" / "some")]) == 0
    assert flushed[:2] == [folder.stat().st_ino for folder in (tmp_path / "sweeps", tmp_path)]
    flushed.clear()
    explore._write(tmp_path / "page", lambda folder: None)
    assert flushed == [tmp_path.stat().st_ino] * 2  # of the folder, and of its name once it is whole
    assert [path.name for path in (tmp_path / "page").parent.glob(".*")] == []


def test_tables_hold_no_commands_of_terminals() -> None:
    claim = Claim(*("text" if "str" in str(f.type) else 0.5 for f in dataclasses.fields(Claim)))
    network = "\x1b[2J\u202egpj"
    line = {"network": network, **dataclasses.asdict(claim)}
    text = Table(tuple(line), [tuple(line.values())]).csv().decode()
    assert r"\x1b[2J\u202egpj" in text and not set("\x1b\u202e") & set(text)


FORMULAS = (r"$\frac{1}$", "_hidden", "two\nlines")


def test_classes_are_drawn_letter_for_letter() -> None:
    array, image = np.zeros((2, 1, 4, 4)), np.zeros((3, 8, 8, 3), np.uint8)
    found = SimpleNamespace(
        arrays=array[:, 0],
        indices=np.array([[[1]], [[2]]]),
        queries=np.array([0, 1]),
        found_arrays=array,
        distances=np.ones((2, 1, 1)),
        random=np.ones(3),
        threshold=1.0,
    )
    dataset = SimpleNamespace(class_names=FORMULAS, train_labels=np.arange(3), train_images=image)
    study: Any = SimpleNamespace(dataset=dataset, matches={3: found}, labels=lambda: np.arange(3), images=lambda: image)
    assert pictures.strips(study, [(0, 3), (1, 3)]).startswith(b"\x89PNG")


def test_variants_are_drawn_letter_for_letter(tmp_path: Path) -> None:
    plot_trials({"variant": FORMULAS}, [0.1, 0.2, 0.3], [TASKS["classes"]] * 3, tmp_path / "results.png", "sweep")
    assert (tmp_path / "results.png").read_bytes().startswith(b"\x89PNG")


def test_a_class_of_two_lines_takes_one_in_the_table() -> None:
    result = SimpleNamespace(confusion=np.array([[3, 1], [0, 4]]))
    lines = evaluate._confusion(result, ["cat\ndog 9 9 100 %", "ship"]).splitlines()  # type: ignore[arg-type]
    assert len(lines) == 4 and lines[2].split()[:8] == ["cat", "dog", "9", "9", "100", "%", "3", "1"]
    assert lines[3].split()[:3] == ["ship", "0", "4"]
