"""Yes/no labels and numbers as targets: losses, scores, runs from a file to a prediction, and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.special import expit

from autodiff import check_grads, grad
from tests.train.runs import run_here
from train import compare, load
from train.config import Config, ConfigError, make_config
from train.data import DataError, Targets, load_dataset
from train.data.dataset import class_notes
from train.data.reading import Reading, dataset_from_arrays
from train.data.targets import r_squared
from train.recipes.augmentations import Batch
from train.recipes.losses import LOSSES
from train.recipes.tasks import TASKS, task_of
from train.runs.checkpoint import GROUPS, CheckpointError
from train.runs.onnx import write_onnx
from train.runs.shipped import open_network
from train.runs.teacher import require_same_task
from train.runs.training import Trainer

FEW = ("--preset", "signal", "--depth", 4, "--width", 4, "--strided-layers", 2, 3, "--batch-size", 10)


def test_the_loss_of_labels_and_of_numbers() -> None:
    rng = np.random.default_rng(0)
    logits, yes = 3 * rng.standard_normal((7, 4)), rng.random((7, 4)) < 0.4
    expected = -np.mean(np.where(yes, np.log(expit(logits)), np.log(expit(-logits))))
    of_labels, of_numbers = (TASKS[kind].evaluated for kind in ("labels", "numbers"))
    assert of_labels(logits, yes) == pytest.approx(expected, rel=1e-12)
    assert of_labels(np.full((1, 1), 1e4), np.array([[True]])) == 0  # no overflow
    np.testing.assert_allclose(grad(lambda z: of_labels(z, yes))(logits), (expit(logits) - yes) / 28, atol=1e-12)
    numbers = rng.standard_normal((7, 4))
    assert of_numbers(logits, numbers) == pytest.approx(np.mean((logits - numbers) ** 2))
    check_grads(lambda z: of_numbers(z, numbers))(logits)
    part, others = rng.uniform(0.5, 1, 7), rng.permutation(7)
    for labels, loss in ((yes, "logistic"), (numbers, "squared")):
        mixed = Batch(np.zeros((7, 1)), labels, labels[others], part)
        wanted = labels * part[:, None] + labels[others] * (1 - part)[:, None]
        given = wanted if labels is numbers else np.clip(wanted, 0, 1)
        expected = np.mean((logits - given) ** 2)
        if labels is yes:
            expected = -np.mean(given * np.log(expit(logits)) + (1 - given) * np.log(expit(-logits)))
        assert LOSSES[loss].mean(None, logits, mixed) == pytest.approx(expected, rel=1e-12)
        one = [LOSSES[loss].mean(None, logits[n:][:1], Batch(np.zeros((1, 1)), labels[n:][:1])) for n in range(7)]
        weighed = LOSSES[loss].mean(None, logits, Batch(np.zeros((7, 1)), labels, counts=part))
        assert weighed == pytest.approx(np.mean(part * one), rel=1e-12)
    assert TASKS["labels"].right(logits, yes) == pytest.approx(np.mean((logits > 0) == yes, axis=1).sum())


def test_numbers_are_standardised_and_scored_in_their_units() -> None:
    rng = np.random.default_rng(0)
    y, weight = rng.standard_normal((9, 3)) * (1, 50, 0) + (5, -7, 2), rng.integers(0, 3, 9)
    targets = Targets.of("numbers", y, weight)
    repeated = np.repeat(y, weight, axis=0)
    np.testing.assert_allclose(targets.mean, repeated.mean(axis=0))
    np.testing.assert_allclose(targets.std, [*repeated[:, :2].std(axis=0), 0])
    np.testing.assert_allclose(targets.in_units(targets.taught(y, "float64")), y)
    found = y + rng.standard_normal(y.shape)
    fits = r_squared(found, y)
    np.testing.assert_allclose(fits[:2], [1 - np.mean((found - y)[:, k] ** 2) / y[:, k].var() for k in (0, 1)])
    assert np.isnan(fits[2])
    assert np.isnan(r_squared(np.zeros((10, 1)), np.full((10, 1), 0.3))).all(), "whatever the mean is rounded to"


@pytest.mark.parametrize("labels", [7, 14, 15, 30])
def test_all_labels_right_are_no_more_than_the_images(labels: int) -> None:
    yes = np.ones((50, labels), bool)
    assert TASKS["labels"].right(np.ones((50, labels), np.float32), yes) == 50


def waves(count: int = 100) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Signals, and of each its frequency and its height."""
    rng = np.random.default_rng(0)
    frequency, height = rng.uniform(0.3, 1.5, count), rng.uniform(1, 3, count)
    t = np.arange(24) + 10 * rng.random((count, 1))
    return height[:, None] * np.sin(frequency[:, None] * t), frequency, height


def written(path: Path, y: np.ndarray[Any, Any], names: tuple[str, ...] = ()) -> Path:
    x = waves()[0]
    more = {"class_names": np.array(names)} if names else {}
    np.savez(path, x_train=x[:80], x_test=x[80:], y_train=y[:80], y_test=y[80:], **more)
    return path


def test_a_run_on_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x, frequency, height = waves()
    y = np.stack([1000 * frequency + 5, height], axis=1)
    file, run = written(tmp_path / "numbers.npz", y, ("frequency", "height")), tmp_path / "run"
    options = ("--epochs", 12, "--dataset", file, "--out", run, "--mixup", 0.2, "--resample", 0)  # it is the frequency
    out = run_here((*FEW, *options), None).success()
    assert "held out R^2" in out and "to measure mean R^2 on" in out and "accuracy" not in out
    tested = [line for line in out.splitlines() if line.startswith("test: ")]
    record = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    network = load(run)
    found = np.array(network.predict(x[80:]))
    for k, name in enumerate(("frequency", "height")):
        error, fit = np.sqrt(np.mean((found[:, k] - y[80:, k]) ** 2)), r_squared(found, y[80:])[k]
        assert record[f"test_error_{k}"] == pytest.approx(error, rel=1e-3)
        assert record[f"test_r2_{k}"] == pytest.approx(fit, abs=1e-3) and fit > 0.3
        said = re.fullmatch(rf"test: {name}: root mean squared error (\S+), R\^2 (\S+)", tested[1 + k])
        assert said and [float(text) for text in said.groups()] == pytest.approx([error, fit], rel=2e-3)
    page = (run / "report.html").read_text("utf-8")
    cells, named = re.findall(r"<td>(.*?)</td>", page), ("frequency", "height")
    for k, name in enumerate(named):
        shown = f"{record[f'test_error_{k}']:.4g}", f"{record[f'test_r2_{k}']:.4f}"
        assert tuple(cells[cells.index(name) + 1 :][:2]) == shown
    fit = f"{record['test_r2']:.4f}"
    assert float(fit) == pytest.approx(r_squared(found, y[80:]).mean(), abs=1e-3)
    assert cells[cells.index("test images") + 2] == fit and not re.search("class(es)?[ .]|confusion is", page)
    assert compare.main([str(run), "--out", str(tmp_path / "one.png")]) == 0
    header, row = (line.split("  ") for line in capsys.readouterr().out.splitlines()[:2])
    shown = dict(zip(*([cell.strip() for cell in cells if cell] for cells in (header, row)), strict=True))
    assert shown["test"] == f"R^2 {fit}" and shown["held out"].startswith("R^2 ") and "train" not in shown
    assert shown["errors"] == ", ".join(f"{record[f'test_error_{k}']:.4g}" for k in (0, 1))
    again = run_here(("--evaluate", run), None).success().splitlines()
    assert [line for line in again if line.startswith("test: ")] == tested
    assert "2 numbers" in repr(network) and "mean R^2" in repr(network)
    with pytest.raises(TypeError, match="predicts numbers, which have no probabilities"):
        network.probabilities(x[:1])
    path, checkpoint, _ = open_network(run)
    few = "--dataset", file, "--max-examples", 1, "--images", 1
    run_here(("verify", run, *few, "--out", tmp_path / "verified"), None).success()
    runtime = pytest.importorskip("onnxruntime")
    write_onnx(tmp_path / "net.onnx", path, checkpoint)
    session = runtime.InferenceSession(str(tmp_path / "net.onnx"))
    (written_by_onnx,) = session.run(None, {"images": x[80:, :, None].astype(np.float32)})
    np.testing.assert_allclose(written_by_onnx, found, rtol=1e-4)
    for action in (("report", run), ("--resume", run)):
        assert run_here(action, None).status == 0
    with pytest.raises(CheckpointError, match="predicts numbers; name a network of classes"):
        require_same_task(path, checkpoint, dataset_from_arrays("d", arrays(np.arange(8) % 2)), Config())


def test_a_run_on_labels(tmp_path: Path) -> None:
    x, frequency, height = waves()
    y = np.stack([frequency > 0.9, height > 2, np.ones(100)], axis=1).astype(np.uint8)
    file, run = written(tmp_path / "labels.npz", y, ("fast", "high", "all")), tmp_path / "run"
    out = run_here((*FEW, "--epochs", 12, "--dataset", file, "--out", run), None).success()
    assert "the label all is the same for all training samples: nothing can be learned of it" in out
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert {line["task"] for line in lines} == {"labels"} and 'task = "labels"' in (run / "config.toml").read_text()
    network = load(run)
    p = network.probabilities(x[80:])
    right = (p > 0.5) == y[80:]
    assert right.mean() > 0.75
    assert f"test: {100 * right.mean():.2f} % of the labels right" in out
    assert f"test: all labels right of {100 * right.all(axis=1).mean():.2f} % of the images" in out
    page = (run / "report.html").read_text("utf-8")
    for k, name in enumerate(("fast", "high", "all")):
        shown = f"{100 * right[:, k].mean():.2f}"
        assert f"test: {name}: {shown} % right" in out and f"<td>{name}</td><td>{shown} %</td>" in page
    whole = f"<td>all of an image</td><td>{100 * right.all(axis=1).mean():.2f} %</td>"
    assert "labels right</th>" in page and whole in page and "confusion is" not in page
    (first, *_) = network.predict(x[80:])
    assert first == tuple(name for name, one in zip(("fast", "high", "all"), p[0], strict=True) if one > 0.5)
    other = written(tmp_path / "classes.npz", (frequency > 0.9).astype(int))
    run_here(("--evaluate", run, "--dataset", other), None).one_line(1, "tells 3 labels of 24x1 images apart")


def test_records_name_their_task() -> None:
    """Those of labels without held-out images look like those of classes; older ones, which do not, are of these."""
    record = {"epoch": 1, "train_loss": 0.5, "train_accuracy": 0.5}
    assert [task_of([record | {"task": name}]).name for name in TASKS] == list(TASKS)
    assert task_of([record]) is TASKS["classes"]


def arrays(y: Any, test: Any = None, **more: Any) -> dict[str, Any]:
    y = np.asarray(y)
    x = np.random.default_rng(0).standard_normal((len(y), 9))
    return {"x_train": x, "y_train": y, "x_test": x, "y_test": y if test is None else np.asarray(test), **more}


def test_settings_of_classes_are_refused_for_others(tmp_path: Path) -> None:
    file = written(tmp_path / "numbers.npz", waves()[1])
    options = (*FEW, "--dataset", file, "--out", tmp_path / "run")
    run_here((*options, "--label-smoothing", 0.1), None).one_line(2, "label_smoothing is 0.1, which is for loss")
    run_here((*options, "--class-weights", "balanced"), None).one_line(2, "loss 'squared' has no such setting")
    run_here((*options, "--teacher", "hcnn-fast"), None).one_line(2, "teacher is 'hcnn-fast', which is for task")
    run_here((*options, "--task", "labels"), None).one_line(1, "y_train holds 0.3", "give yes/no labels as 0 and 1")
    run_here((*options, "--loss", "logistic"), None).one_line(2, "loss is 'logistic', which is for labels; the task is")
    with pytest.raises(ConfigError, match="loss is 'squared', which is for numbers; the task is classes"):
        make_config("lenet", {"loss": "squared", "task": "classes"})
    same = written(tmp_path / "same.npz", np.where(np.arange(100) < 80, 3.5, waves()[1]), ("height",))
    run_here((*FEW, "--dataset", same, "--out", tmp_path / "run"), None).one_line(1, "height is 3.5 for all training")
    large = written(tmp_path / "large.npz", 1e200 * waves()[1], ("height",))
    run_here((*FEW, "--dataset", large, "--out", tmp_path / "run"), None).one_line(1, "height has values so large")
    assert class_notes(dataset_from_arrays("d", arrays(np.eye(6)[:, :2] > 0)), np.arange(6)) == []


@pytest.mark.parametrize("change", ["", "mean", "kind", "names", "images", "labels"])
def test_a_run_goes_on_with_the_same_targets_alone(change: str) -> None:
    """Also where the checkpoint is older than the digest of labels."""
    targets = Targets("numbers", np.array([1.0, 2.0]), np.ones(2))
    trees: dict[str, Any] = {kind: {"a": np.zeros(1)} for kind in GROUPS}
    state = SimpleNamespace(**trees, order=np.arange(3), generator=np.random.default_rng(1).bit_generator.state)
    run: Any = SimpleNamespace(
        state=SimpleNamespace(**trees), class_names=("a", "b"), labels="digest", count=3, rng=np.random.default_rng(0),
        train=SimpleNamespace(mean=np.zeros(1), std=np.ones(1), targets=targets),
        _images=lambda: "these", to_device=lambda: None,
    )  # fmt: skip
    saved: Any = SimpleNamespace(
        state=state, channel_mean=np.zeros(1), channel_std=np.ones(1), class_names=("a", "b"), labels=None,
        targets=Targets("numbers", np.array([1.0, 2.0]), np.ones(2)),
    )  # fmt: skip
    changes: dict[str, Any] = {
        "mean": {"targets": Targets("numbers", np.array([1.0, 2.5]), np.ones(2))},
        "kind": {"targets": Targets("labels", np.array([1.0, 2.0]), np.ones(2))},
        "names": {"class_names": ("a", "c")},
        "images": {"channel_mean": np.ones(1)},
        "labels": {"labels": "another"},
    }
    vars(saved).update(changes.get(change, {}))
    if change:
        with pytest.raises(CheckpointError, match="trained on other images than these"):
            Trainer.restore(run, saved, Path("best.h5"))
    else:
        Trainer.restore(run, saved, Path("best.h5"))
        assert run.state is state


CLASSES = np.arange(12) % 3
ONE_HOT = np.eye(3, dtype=np.int64)[CLASSES]
SEVERAL = np.array([[1, 0, 1], [0, 0, 0], [1, 1, 1]])[CLASSES]


@pytest.mark.parametrize(
    ("labels", "task", "kind", "said"),
    [
        (CLASSES, "auto", "classes", ""),
        (CLASSES[:, None].astype(">i4"), "auto", "classes", ""),
        (CLASSES.astype(float), "auto", "numbers", "are numbers to predict; --task classes takes them as classes"),
        (CLASSES.astype(float), "classes", "classes", ""),
        (CLASSES + 0.5, "auto", "numbers", ""),
        (CLASSES, "numbers", "numbers", ""),
        (SEVERAL, "auto", "labels", "taken as yes/no labels"),
        (SEVERAL.astype(">f4"), "auto", "numbers", ""),
        (np.maximum(ONE_HOT, 0.5 * np.roll(ONE_HOT, 1, 1)), "auto", "numbers", ""),
        (SEVERAL.astype(float), "labels", "labels", ""),
        (ONE_HOT, "classes", "classes", ""),
        (ONE_HOT.astype(bool), "labels", "labels", ""),
        (ONE_HOT.astype(np.float32), "numbers", "numbers", ""),
    ],
)
def test_how_labels_are_understood(labels: np.ndarray[Any, Any], task: str, kind: str, said: str) -> None:
    data = dataset_from_arrays("mine", arrays(labels), Reading(task=task))
    assert data.task == kind and (said in data.notes[0] if said else data.notes == ())
    expected = CLASSES if kind == "classes" else labels.reshape(12, -1)
    assert np.array_equal(data.train_labels, expected)


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, bool, np.float32])
def test_one_hot_labels_are_refused_with_the_cure(dtype: Any) -> None:
    pytest.importorskip("sklearn")
    from train import HCNNClassifier

    with pytest.raises(ValueError, match=r"y has shape \(12, 3\), one-hot: .* give its argmax"):
        HCNNClassifier(epochs=1).fit(np.zeros((12, 9)), ONE_HOT.astype(dtype))


def test_the_command_line_says_how_labels_are_understood(tmp_path: Path) -> None:
    numbers, few = written(tmp_path / "a.npz", np.arange(100) % 3.0), (*FEW, "--epochs", 1)
    out = run_here((*few, "--dataset", numbers, "--out", tmp_path / "n"), None).success()
    assert "are numbers to predict; --task classes" in out
    classes = (*few, "--dataset", numbers, "--task", "classes", "--out", tmp_path / "c")
    assert "test: accuracy" in run_here(classes, None).success()
    assert "test: accuracy" in run_here(("evaluate", tmp_path / "c"), None).success()
    one_hot = written(tmp_path / "b.npz", np.eye(3)[np.arange(100) % 3])
    given = (*few[2:], "--dataset", one_hot)  # without a preset
    run_here(given, None).one_line(1, "one-hot", "give --task classes (in Python make_config(PRESET, {'task':")
    out = run_here((*given, "--task", "classes", "--out", tmp_path / "h"), None).success()
    assert "--preset signal is taken" in out and "test: accuracy" in out


def test_arrays_by_other_names_and_in_other_orders_of_bytes(tmp_path: Path) -> None:
    x, y = waves()[0].astype(">f8"), np.arange(100) % 3
    np.savez(
        tmp_path / "A.NPZ.npz",
        Train_Images=x[:80],
        train_labels=y[:80],
        test_images=x[80:],
        TEST_LABELS=y[80:],
        val_images=x,
    )
    (tmp_path / "A.NPZ.npz").rename(tmp_path / "A.NPZ")
    data = load_dataset(tmp_path / "A.NPZ")
    assert np.array_equal(data.train_images[..., 0], x[:80]) and data.train_images.dtype == np.float64
    assert np.array_equal(data.test_labels, y[80:]) and "not used: val_images" in data.notes[0]
    np.savez(tmp_path / "b.npz", X=x, y=y)
    with pytest.raises(DataError, match=r"it has X, y; hold some out for the test: savez\(FILE, x_train=X\[n:\]"):
        load_dataset(tmp_path / "b.npz")


@pytest.mark.parametrize("place", ["pics.csv", "pics/labels.csv"])
@pytest.mark.parametrize("kind", ["classes", "labels", "numbers"])
def test_labels_of_a_table_beside_a_folder(tmp_path: Path, kind: str, place: str) -> None:
    rng, values = np.random.default_rng(0), {}
    for k in range(99):
        name = f"{k % 4}/{k}.png"
        (tmp_path / "pics" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), "u1")).save(tmp_path / "pics" / name)
        values[name] = {"classes": [str(k % 11)], "labels": [k % 2, k % 3 > 0], "numbers": [k / 7, -k]}[kind]
    del values["1/29.png"]
    rows = [[name, *map(str, map(int, row) if kind == "labels" else row)] for name, row in values.items()]
    header = ["name", *(["label"] if kind == "classes" else ["a", "b"])]
    (tmp_path / place).write_text("\n".join(",".join(row) for row in [header, *rows, ["gone.png", *rows[0][1:]]]))
    data = load_dataset(tmp_path / "pics", tmp_path / "kept")
    assert data.task == kind and data.samples is not None
    assert data.class_names == (tuple(map(str, range(11))) if kind == "classes" else ("a", "b"))
    found = np.concatenate([data.train_labels, data.test_labels])
    expected = [values[name] for name in data.samples.names]
    assert found.tolist() == ([int(row[0]) for row in expected] if kind == "classes" else expected)
    assert (
        len(found) == 98
        and "files .csv" not in data.notes[0]
        and f"pictures that {Path(place).name} does not name: 1" in data.notes[0]
    )
    assert f"rows of {Path(place).name} without a picture: 1" in data.notes[0]


def test_tables_that_do_not_do(tmp_path: Path) -> None:
    for k in range(6):
        (tmp_path / "pics").mkdir(exist_ok=True)
        Image.fromarray(np.full((8, 8), 40 * k, "u1")).save(tmp_path / "pics" / f"{k}.png")
    for text, message in {
        "name,a\n0.png,1\n0.png,2\n": "has the name 0.png twice",
        "name,a\n0.png,1,2\n": "line 2 has 3 cells, others before it 2",
        "name,a\n9.png,1\n": "names no picture of",
        "name,a\n0.png,one\n": "could not convert to a number: 'one' in the row one; give columns of numbers",
        "name,a,b\n0.png,1,0\n1.png,0,1\n2.png,1,0\n": "one-hot",
    }.items():
        (tmp_path / "pics.csv").write_text(text)
        with pytest.raises(DataError, match=message):
            load_dataset(tmp_path / "pics", tmp_path / "kept")
    (tmp_path / "pics.csv").write_text("path,class\n0.png,1\n")  # of `predict`
    with pytest.raises(DataError, match="holds no classes; expected two or more folders"):
        load_dataset(tmp_path / "pics", tmp_path / "kept")
    (tmp_path / "pics" / "labels.csv").write_text("path,class\n0.png,1\n")
    with pytest.raises(DataError, match=r"labels\.csv: its first column is 'path'; a table of labels begins"):
        load_dataset(tmp_path / "pics", tmp_path / "kept")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "latin-1", "utf-16"])
@pytest.mark.parametrize(
    "row", ["{},{}", '"{}","{}"', "{};{}", "{}\t {} ", '"{}" , "{}"'], ids=["plain", "R", ";", "tab", "spaces"]
)
@pytest.mark.parametrize("head", [("name", "label"), ("Filename", "Class")], ids=str)
def test_tables_as_other_programs_write_them(tmp_path: Path, encoding: str, row: str, head: tuple[str, str]) -> None:
    """Quotes, delimiters, marks and letters of other scripts: no folder in which pictures lie is a class."""
    names = [f"{'üb'[k % 2]}/{k}.png" for k in range(20)]
    for k, name in enumerate(names):
        (tmp_path / "pics" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), 10 * k, "u1")).save(tmp_path / "pics" / name)
    rows = [head, *((name, ("ill", "w\u00e4ch")[k // 10]) for k, name in enumerate(names))]
    text = "\r\n".join(row.format(*cells) for cells in rows)
    (tmp_path / "pics" / "labels.csv").write_bytes(text.encode(encoding))
    data = load_dataset(tmp_path / "pics", tmp_path / "kept")
    assert data.class_names == ("ill", "w\u00e4ch") and data.notes == () and data.samples is not None
    labels = dict(zip(data.samples.names, [*data.train_labels, *data.test_labels], strict=True))
    assert labels == {name: k // 10 for k, name in enumerate(names)}


def test_decimal_commas_and_what_is_passed_over_in_tables(tmp_path: Path) -> None:
    """A folder with the name of a part is none where others have none."""
    names = [f"{('b', 'test')[k % 2]}/{k}.png" for k in range(10)]
    for k, name in enumerate(names):
        (tmp_path / "pics" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), 10 * k, "u1")).save(tmp_path / "pics" / name)
    table = tmp_path / "pics.csv"
    table.write_text("name;height;width\n" + "".join(f"{name};{k},25;-{k}\n" for k, name in enumerate(names)))
    data = load_dataset(tmp_path / "pics", tmp_path / "kept")
    assert data.class_names == ("height", "width") and data.samples is not None
    found = np.concatenate([data.train_labels, data.test_labels])
    expected = [names.index(name) for name in data.samples.names]
    assert {name[0] for name in data.samples.names[: len(data.train_labels)]} == {"b", "t"}
    np.testing.assert_array_equal(found, [(k + 0.25, -k) for k in expected])
    table.write_text("path,class\na/0.png,1\n")
    data = load_dataset(tmp_path / "pics", tmp_path / "kept")
    assert data.class_names == ("b", "test") and data.notes[-1].startswith(
        f"{table} is not read: its first column is 'path'"
    )


@pytest.mark.parametrize(
    ("labels", "task", "message"),
    [
        (np.stack([CLASSES < 0, CLASSES >= 0], axis=1).astype(int), "auto", ""),  # a column is always 1: not one-hot
        (np.stack([CLASSES, CLASSES * 0], axis=1) / 2, "labels", "holds 0.0 to 1.0; give yes/no labels as 0 and 1"),
        (CLASSES + 0.5 * (CLASSES == 1), "classes", "expected a whole number for each class"),
    ],
)
def test_labels_that_nearly_do(labels: Any, task: str, message: str) -> None:
    if message:
        with pytest.raises(DataError, match=message):
            dataset_from_arrays("mine", arrays(labels), Reading(task=task))
    else:
        assert dataset_from_arrays("mine", arrays(labels), Reading(task=task)).task == "labels"
