"""Classes that differ in number: weights, balanced accuracy, and the lines about them."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from autodiff import grad
from hcnn_core import log_softmax
from tests.train.commands import made_up
from tests.train.runs import run_here
from train.config import make_config
from train.data import Dataset
from train.data.dataset import balanced_weights, class_notes
from train.recipes.augmentations import Batch
from train.recipes.losses import LOSSES
from train.runs.checkpoint import load as load_checkpoint
from train.runs.fit import Memory, prepared, trainer_on
from train.runs.run import best_epoch
from train.runs.scores import figures
from train.runs.training import Result

FEW = ("--preset", "sample", "--width", 4, "--depth", 4, "--strided-layers", 3, "--epochs", 3, "--validation-size", 0)


def test_balanced_weights_let_classes_count_alike() -> None:
    labels = np.array([0] * 6 + [1] * 3 + [3])
    weights = balanced_weights(labels, 4)
    assert weights[2] == 0 and weights[labels].mean() == pytest.approx(1)
    for k in (0, 1, 3):
        assert weights[k] * np.sum(labels == k) == pytest.approx(10 / 3)


def test_weights_of_classes_and_of_rows_are_multiplied() -> None:
    x, labels = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 1), np.uint8), np.array([0] * 9 + [1] * 3)
    data, counts = Dataset("mine", ("a", "b"), x, labels, x[:1], labels[:1]), np.linspace(0.5, 1.5, 12)
    config = make_config("sample", {"class_weights": "balanced", "depth": 4, "width": 4, "strided_layers": ()})
    trainer = trainer_on(np, config, prepared(data, np.arange(12), np.arange(0), 3 * counts), Memory(), {})
    np.testing.assert_allclose(trainer.train.weights, np.where(labels, 2, 2 / 3) * counts, rtol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("mixed", [False, True])
def test_the_loss_weighs_each_image_by_its_class(smoothing: float, mixed: bool) -> None:
    rng = np.random.default_rng(0)
    logits, weights = rng.standard_normal((7, 4)), np.array([0.5, 2.0, 0.0, 3.0])
    labels, others, part = rng.integers(4, size=7), rng.integers(4, size=7), rng.uniform(0.5, 1, 7)
    settings, loss_of = SimpleNamespace(label_smoothing=smoothing), LOSSES["cross-entropy"].mean
    more: dict[str, Any] = {"others": others, "weight": part} if mixed else {}
    counts = weights[labels] * (part if mixed else 1) + (weights[others] * (1 - part) if mixed else 0)
    batch = Batch(np.zeros((7, 1)), labels, counts=counts, **more)
    expected = 0.0
    for n in range(7):
        share = part[n] if mixed else 1.0
        target = share * np.eye(4)[labels[n]] + (1 - share) * np.eye(4)[others[n]]
        counted = share * weights[labels[n]] + (1 - share) * weights[others[n]]
        target = (1 - smoothing) * target + smoothing / 4
        expected -= counted * target @ log_softmax(logits[n : n + 1])[0] / 7
    assert loss_of(settings, logits, batch) == pytest.approx(expected)
    alike = loss_of(settings, logits, batch._replace(counts=np.ones(7)))
    assert alike == pytest.approx(loss_of(settings, logits, batch._replace(counts=None)))
    assert grad(lambda z: loss_of(settings, z, batch))(logits).shape == logits.shape


def test_what_is_said_of_classes() -> None:
    def said(train: list[int], test: list[int]) -> list[str]:
        x = np.zeros((len(train), 4, 4, 1), np.uint8)
        data = Dataset("d", ("a", "b", "c"), x, np.array(train), x[: len(test)], np.array(test))
        return class_notes(data, np.arange(len(train)))

    assert said([0, 1, 2], [0, 1]) == []
    assert said([0, 1, 1], [0, 1]) == ["no training image is of class c: nothing can be learned of that"]
    assert said([0, 1, 2], [1, 1]) == ["all test images are of class b: accuracy says nothing of the others"]
    assert said([0] * 10 + [1, 2], [0, 1]) == [
        "class a has 10 training images, b 1: --class-weights balanced lets classes count alike"
    ]
    assert said([0] * 9 + [1, 2], [0, 1]) == []


def test_classes_without_test_images_have_no_part_in_balanced_accuracy() -> None:
    confusion = np.array([[3, 1, 0], [0, 2, 0], [0, 0, 0]])
    result = Result(1.0, 5 / 6, confusion, None, np.zeros((6, 3)))
    assert figures(result)["test_balanced_accuracy"] == (3 / 4 + 1) / 2


def test_a_run_on_uneven_classes(tmp_path: Path) -> None:
    arrays = made_up((8, 8), classes=2, train=80, test=20)
    kept = np.flatnonzero((arrays["y_train"] == 0) | (np.arange(80) > 74))
    arrays["x_train"], arrays["y_train"] = arrays["x_train"][kept], arrays["y_train"][kept]
    arrays["x_test"], arrays["y_test"] = arrays["x_test"][1:], arrays["y_test"][1:]
    np.savez(tmp_path / "uneven.npz", **arrays)
    found = []
    for weights in ("none", "balanced"):
        run = tmp_path / weights
        options = ("--dataset", tmp_path / "uneven.npz", "--class-weights", weights, "--out", run)
        out = run_here((*FEW, *options), None).success()
        said = "class 0 has 40 training images, 1 3: --class-weights balanced lets classes count alike" in out
        assert said == (weights == "none")
        record = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
        assert f"balanced accuracy {100 * record['test_balanced_accuracy']:.2f} %, the mean over classes" in out
        assert 0 <= record["test_balanced_accuracy"] <= 1
        found.append(json.loads((run / "metrics.jsonl").read_text().splitlines()[0])["train_loss"])
    assert found[0] != found[1]


def test_where_classes_count_alike_the_best_epoch_has_the_highest_balanced_accuracy(tmp_path: Path) -> None:
    arrays = made_up((8, 8), classes=2, train=80, test=20)
    np.savez(tmp_path / "uneven.npz", **arrays)
    options = ("--dataset", tmp_path / "uneven.npz", "--class-weights", "balanced", "--out", tmp_path / "run")
    out = run_here((*FEW, *options, "--validation-size", 20), None).success()
    assert "classes count alike, so best.h5 goes by balanced accuracy, the mean over classes" in out
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()][:-1]
    highest = max(record["validation_balanced_accuracy"] for record in records)
    assert load_checkpoint(tmp_path / "run" / "best.h5").state.best == highest
    assert f"best.h5: epoch {best_epoch(records)}, by balanced accuracy of 20 images; epoch0003-step" in out
    assert all(f"balanced {100 * record['validation_balanced_accuracy']:.1f} %" in out for record in records)
