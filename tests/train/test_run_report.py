"""report.html of a run: what it shows, that it needs nothing else, and when it is written."""

from __future__ import annotations

import base64
import io
import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from tests.train.commands import Command, made_up
from tests.train.runs import SMALL, Outcome, contents, run_here
from train import load
from train.config import make_config
from train.data import Dataset
from train.runs.report import Classified, page
from train.runs.run import Run

RECORDS: list[dict[str, Any]] = [
    {"epoch": 1, "train_loss": 2.0, "train_accuracy": 0.25, "seconds": 12.5, "first_step_seconds": 2.5},
    {"epoch": 2, "train_loss": 1.0, "train_accuracy": 0.5, "seconds": 10.0, "evaluation_seconds": 4.0},
    {"epoch": 2, "test_loss": 1.5, "test_accuracy": 0.375, "seconds": 6.0},
]


def classified(shape: tuple[int, ...] = (8, 8, 3), classes: int = 3, count: int = 9) -> Classified:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, *shape), np.uint8)
    return Classified("test", images, np.arange(count) % classes, rng.standard_normal((count, classes)))


def text_of(found: Classified | None, filters: np.ndarray[Any, Any] | None = None, **changes: Any) -> str:
    given = {
        "name": "mine",
        "config": make_config("sample"),
        "machine": {"processor": "2 x fast"},
        "records": RECORDS,
        "class_names": ("cat", "dog", "<owl> $x$ é"),
        "filters": np.random.default_rng(0).standard_normal((3, 3, 3, 5)) if filters is None else filters,
    }
    return page(*(given | changes).values(), found)


def pictures(text: str) -> dict[str, bytes]:
    found = re.findall(r'src="data:image/png;base64,([^"]*)" alt="([^"]*)"', text)
    return {alt: base64.b64decode(data) for data, alt in found}


def test_it_shows_results_times_settings_and_the_machine() -> None:
    text = text_of(None)
    cells = re.findall(r"<td>(.*?)</td>", text)
    assert cells[cells.index("test images") :][:4] == ["test images", "2", "37.50 %", "1.5000"]
    assert cells[:4] == ["training images, augmented", "2", "50.00 %", "1.0000"]
    times = dict(itertools.pairwise(cells))
    assert times["first steps of processes, which compile kernels or load them"] == "2.5 s"
    assert times["all other training steps"] == "20.0 s"
    assert times["evaluation on held-out images"] == "4.0 s" and times["evaluation on test images"] == "6.0 s"
    assert '<th scope="row">learning_rate</th><td>0.003</td>' in text and "2 x fast" in text
    assert "Those of the preset sample." in text
    assert "no confusion is shown" in text


CURVES = ["Loss over epochs", "Accuracy over epochs"]


def test_settings_that_differ_from_the_preset_come_first() -> None:
    text = text_of(None, config=make_config("sample", {"epochs": 7, "strided_layers": (3,)}))
    section = text.split('<section id="settings">')[1]
    first, everything = section.split("<details>")[:2]
    lines = re.findall("<td>(.*?)</td><td>(.*?)</td><td>(.*?)</td>", first)
    assert lines == [("epochs", "7", "5"), ("strided_layers", "3", "5, 9")]
    assert "<td>7</td>" in everything and "learning_rate" not in first


def test_the_confusion_is_a_table() -> None:
    found = classified(count=30)
    table = text_of(found).split('<table class="confusion">')[1].split("</table>")[0]
    cells = re.findall(r'<td style="--share: (\d+)%">(\d*)</td>', table)
    counts = np.array([int(number or 0) for _, number in cells]).reshape(3, 3)
    assert np.array_equal(counts, found.confusion)
    shares = np.array([int(share) for share, _ in cells]).reshape(3, 3)
    assert np.abs(shares - 100 * counts / counts.sum(axis=1, keepdims=True)).max() <= 0.5


def test_curves_are_drawn_in_the_ink_of_the_page() -> None:
    text = text_of(None)
    drawings = re.findall(r'class="drawing" src="data:image/svg\+xml;base64,([^"]*)" alt="([^"]*)"', text)
    assert [alt for _, alt in drawings] == CURVES
    for data, _ in drawings:
        drawing = base64.b64decode(data).decode()
        assert "prefers-color-scheme:dark" in drawing and "#000000" not in drawing and drawing.count("currentColor") > 9
        assert ">epoch</text>" in drawing  # letters, not outlines
    assert "drawing" not in text_of(None, records=[]).split("</style>")[1]


def test_it_needs_nothing_else_and_names_are_escaped() -> None:
    text = text_of(classified())
    assert re.findall(r"(?:src|href)=\"(?!data:|#)", text) == [] and "default-src 'none'" in text
    assert "<owl>" not in text and "&lt;owl&gt;" in text


def test_the_most_wrong_images_by_the_probability_of_their_class() -> None:
    found = classified(count=30)
    e = np.exp(found.logits)
    probabilities = e / e.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found.probabilities, probabilities, rtol=1e-12)
    order = sorted(range(30), key=lambda i: probabilities[i, found.labels[i]])
    wrong = [i for i in order if found.logits[i].argmax() != found.labels[i]]
    assert 10 < len(wrong) < 30 and found.most_wrong(100) == wrong and found.most_wrong(4) == wrong[:4]
    confusion = found.confusion
    assert confusion.sum() == 30 and confusion[1, 2] == sum(
        label == 1 and row.argmax() == 2 for label, row in zip(found.labels, found.logits, strict=True)
    )
    text = text_of(found)
    (first,) = (data for alt, data in pictures(text).items() if alt.startswith(f"Image {wrong[0]}: "))
    pixels = np.rint(255 * np.asarray(imread(io.BytesIO(first), format="png"))[..., :3]).astype(np.uint8)
    assert np.array_equal(pixels, found.images[wrong[0]])
    own = 100 * probabilities[wrong[0], found.labels[wrong[0]]]
    assert f"{own:.1f} %" in text or f"{own:.2g} %" in text


def test_probabilities_of_large_logits_are_finite() -> None:
    found = Classified("test", np.zeros((1, 1, 1, 1), np.uint8), np.array([0]), np.array([[1e4, -1e4]], np.float32))
    assert found.probabilities.tolist() == [[1.0, 0.0]]


def test_all_right() -> None:
    images = np.zeros((2, 4, 4, 3), np.uint8)
    text = text_of(Classified("held-out", images, np.array([0, 1]), np.eye(2)), class_names=("a", "b"))
    assert "all held-out images are classified right" in text and "2 of 2 are right" in text
    signals = Classified("held-out", np.zeros((2, 4, 1), np.float32), np.array([0, 1]), np.eye(2)[::-1])
    text = text_of(signals, class_names=("a", "b"))
    assert "0 of 2 are right" in text and "Most wrong" not in text  # they cannot be shown


@pytest.mark.parametrize(("channels", "classes"), [(1, 3), (2, 3), (4, 3), (3, 100)])
def test_any_channels_and_many_classes(channels: int, classes: int) -> None:
    found = classified((6, 5, channels), classes, 120)
    filters = np.random.default_rng(1).standard_normal((channels, 3, 3, 2))
    names = tuple(f"class {i}" for i in range(classes))
    text = text_of(found, filters, class_names=names)
    shown = pictures(text)
    size = np.asarray(imread(io.BytesIO(shown["Filter 1"]), format="png")).shape[:2]
    assert size == ((3, 3) if channels == 3 else (3, 3 * channels))
    assert sum(alt.startswith("Image ") for alt in shown) == 24
    assert ("Confusion matrix: " in text) == (classes == 100)


def test_filters_are_grey_where_they_are_zero() -> None:
    filters = np.zeros((3, 3, 3, 1))
    filters[0, 0, 0, 0], filters[1, 2, 2, 0] = 2.0, -2.0
    pixels = np.asarray(imread(io.BytesIO(pictures(text_of(None, filters))["Filter 0"]), format="png"))[..., :3]
    assert np.abs(pixels[1, 1] - 0.5).max() < 0.01
    assert np.abs(pixels[0, 0] - [1, 0.5, 0.5]).max() < 0.01 and np.abs(pixels[2, 2] - [0.5, 0, 0.5]).max() < 0.01


def test_a_run_ends_with_its_report(first_run: tuple[Path, Outcome], few_images: Dataset) -> None:
    path, outcome = first_run
    end = f"{path / 'report.html'}: open it in a browser; hcnn.load({str(path)!r}) gives the network to Python\n"
    assert outcome.success().endswith(end)
    text = (path / "report.html").read_text("utf-8")
    right = sum(load(path).logits(few_images.test_images).argmax(axis=1) == few_images.test_labels)
    assert f"{right} of 30 are right" in text and "30 test images" in text
    assert [alt for alt in re.findall('class="drawing" .* alt="(.*?)"', text)] == CURVES
    assert str(Run(path).machine()["processor"]) in text


def test_without_the_test_set_it_shows_held_out_images(drawing_command: Command, tmp_path: Path) -> None:
    drawing_command(*SMALL, "--epochs", 1, "--no-test", "--out", tmp_path / "run").success()
    text = (tmp_path / "run" / "report.html").read_text("utf-8")
    assert "8 held-out images" in text and "test images" not in text
    given = (*SMALL, "--epochs", 1, "--no-test", "--validation-size", 0)
    drawing_command(*given, "--out", tmp_path / "none").success()
    assert "no confusion is shown" in (tmp_path / "none" / "report.html").read_text("utf-8")


def test_it_is_written_anew(drawing_command: Command, trained: Path, copied: Path, tmp_path: Path) -> None:
    (copied / "report.html").unlink()
    again = f"there is no {copied / 'report.html'}; python -m hcnn report {copied} writes it"
    assert again in drawing_command("--resume", copied).out
    drawing_command("report", copied).success()
    before, after = (re.sub("Run run", "", (p / "report.html").read_text("utf-8")) for p in (trained, copied))
    assert after == before
    drawing_command("report", copied, "--epochs", 3).one_line(2, "unrecognized arguments: --epochs 3")
    drawing_command("report", tmp_path).one_line(1, "holds no run")


def test_a_report_of_a_run_that_did_not_read_the_test_set_does_not_read_it(
    drawing_command: Command, tmp_path: Path
) -> None:
    drawing_command(*SMALL, "--epochs", 1, "--no-test", "--out", tmp_path / "run").success()
    first = contents(tmp_path / "run")
    drawing_command("report", tmp_path / "run").success()
    assert contents(tmp_path / "run") == first


def test_a_report_that_cannot_be_written_loses_nothing(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any) -> str:
        raise RuntimeError("no fonts")

    monkeypatch.setattr("train.runs.report.page", fail)
    outcome = command(*SMALL, "--epochs", 1, "--out", tmp_path / "run")
    outcome.one_line(1, "cannot write", "report.html: no fonts", "all else of the run is saved", "hcnn report")
    assert "test: accuracy" in outcome.out


def test_a_report_of_grey_images_of_the_users(tmp_path: Path) -> None:
    np.savez(tmp_path / "grey.npz", **made_up((10, 14), 2))
    run = tmp_path / "run"
    given = (*SMALL, "--epochs", 1, "--shift", 1, "--dataset", tmp_path / "grey.npz", "--out", run)
    run_here(given, None).success()
    assert "12 test images" in (run / "report.html").read_text("utf-8")
