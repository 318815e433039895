"""Files of a run that are links, pipes or devices, and names that would be taken for more than names."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

from train import config, load
from train.commands.command_line import harmless
from train.config import ConfigError, read_toml
from train.runs import shipped
from train.runs.plot import literal, plot_runs
from train.runs.run import Run, RunError

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
    monkeypatch.setattr(config, "MOST_TEXT", 1 << 20)
    with pytest.raises(ConfigError, match="it is longer than 1 MiB"):
        read_toml(Path("/dev/zero"))
