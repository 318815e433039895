"""Files of a run that are links, pipes or devices, and names that would be taken for more than names."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest

from hcnn_core import files
from tests.train.runs import assert_same_run, checkpoints, contents, run_here
from train import evaluate
from train.attributes.claims import Claim
from train.config import ConfigError, read_toml
from train.data import Dataset
from train.pages import Table
from train.runs.plot import literal, plot_runs
from train.runs.run import Run, RunError, take_name
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
    trained: Path, copied: Path, few_images: Dataset, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for path in copied.glob("*.h5"):
        path.rename(elsewhere / path.name)
        path.symlink_to(elsewhere / path.name)
    newest = checkpoints(copied)[-1]
    (elsewhere / newest).write_bytes(b"damaged")
    shutil.copy(elsewhere / "epoch0003-step000000.h5", elsewhere / "best.h5")  # as it was then
    before = contents(elsewhere)
    outcome = run_here(("--resume", copied), few_images)
    outcome.success()
    aside = copied / f"{newest}.damaged"
    assert aside.is_symlink() and not (copied / newest).is_symlink() and contents(elsewhere) == before
    aside.unlink()
    assert_same_run(copied, trained)


def test_the_entries_of_new_folders_are_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed = list[int]()
    monkeypatch.setattr(os, "fsync", lambda descriptor: flushed.append(os.fstat(descriptor).st_ino))
    run = Run(tmp_path / "runs" / "today" / "run")
    assert take_name(run.path, run) == run.path
    assert flushed == [folder.stat().st_ino for folder in (tmp_path / "runs" / "today", tmp_path / "runs", tmp_path)]
    flushed.clear()
    with Run(tmp_path / "other").lock(make=True):
        assert flushed == [tmp_path.stat().st_ino]


def test_tables_hold_no_commands_of_terminals() -> None:
    claim = Claim(*("text" if "str" in str(f.type) else 0.5 for f in dataclasses.fields(Claim)))
    network = "\x1b[2J\u202egpj"
    line = {"network": network, **dataclasses.asdict(claim)}
    text = Table(tuple(line), [tuple(line.values())]).csv().decode()
    assert r"\x1b[2J\u202egpj" in text and not set("\x1b\u202e") & set(text)


def test_a_class_of_two_lines_takes_one_in_the_table() -> None:
    result = SimpleNamespace(confusion=np.array([[3, 1], [0, 4]]))
    lines = evaluate._confusion(result, ["cat\ndog 9 9 100 %", "ship"]).splitlines()  # type: ignore[arg-type]
    assert len(lines) == 4 and lines[2].split()[:8] == ["cat", "dog", "9", "9", "100", "%", "3", "1"]
    assert lines[3].split()[:3] == ["ship", "0", "4"]
