"""What a run is told to do is what it does: rates, losses, statistics, the scale of logits, smoothed labels."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.special

from hcnn_core.loss import cross_entropy
from tests.train.conftest import Command
from tests.train.runs import SMALL, metrics
from train.config import Config, make_config
from train.data import Dataset, Images, channel_statistics, split_validation
from train.networks.network import Network
from train.networks.registry import build
from train.runs.run import Run
from train.runs.training import Trainer

TINY = {"width": 4, "factors": 4, "depth": 5, "epochs": 3, "batch_size": 16, "dtype": "float64"}
"""Of 40 images: batches of 16, 16 and 8."""


def trainer_of(config: Config, dataset: Dataset, path: Path) -> Trainer:
    mean, std = channel_statistics(dataset.train_images)
    images = Images(dataset.train_images, dataset.train_labels, mean, std, config.dtype)
    return Trainer(np, config, build(config), images, None, Run(path), {}, dataset.class_names)


def taken_by(trainer: Trainer) -> list[tuple[dict[str, Any], float, int]]:
    """What each step is told, its loss, and how many images it got right; filled while the trainer fits."""
    seen: list[tuple[dict[str, Any], float, int]] = []
    take = trainer._take

    def watched(arrays: Any, inputs: Any) -> Any:
        after, loss, numbers = take(arrays, inputs)
        seen.append((inputs, float(loss), int(numbers["accuracy"])))
        return after, loss, numbers

    trainer._take = watched  # type: ignore[assignment]
    return seen


def test_each_step_has_the_learning_rate_of_that_step(few_images: Dataset, tmp_path: Path) -> None:
    """One-cycle over 9 steps: up to the highest at 3, down to 0 at 9, read in the middle of each step."""
    config = make_config(
        "sample", {**TINY, "schedule": "one-cycle", "warmup": 1 / 3, "learning_rate": 0.3, "validation_size": 0}
    )
    trainer = trainer_of(config, few_images, tmp_path)
    seen = taken_by(trainer)
    trainer.fit()
    middles = np.arange(9) + 0.5
    expected = 0.3 * np.where(middles < 3, middles / 3, (9 - middles) / 6)
    np.testing.assert_allclose([float(inputs["rate"]) for inputs, _, _ in seen], expected, rtol=1e-14)
    recorded = [record["learning_rate"] for record in metrics(tmp_path)]
    np.testing.assert_allclose(recorded, expected[2::3], rtol=1e-14)  # of each epoch's last step


def test_the_weights_move_by_the_rate_of_their_own_step(few_images: Dataset, tmp_path: Path) -> None:
    """Without momentum and decay a bias moves by minus its rate times its gradient: the rates' ratio shows."""
    config = make_config("sample", {**TINY, "schedule": "one-cycle", "momentum": 0.0, "weight_decay": 0.0, "shift": 0})
    moved = []
    for taken in (0, 1):  # the same state and images, a step early and one later
        trainer = trainer_of(config, few_images, tmp_path)
        trainer.state.step = taken
        before = trainer.state.parameters["layer04"]["bias"]
        trainer._step(np.arange(16))
        moved.append(trainer.state.parameters["layer04"]["bias"] - before)
    np.testing.assert_allclose(moved[1], 3 * moved[0], rtol=0, atol=1e-9 * np.abs(moved[1]).max())


def test_the_mean_loss_of_an_epoch_weighs_its_short_last_batch_by_its_images(
    few_images: Dataset, tmp_path: Path
) -> None:
    trainer = trainer_of(make_config("sample", {**TINY, "validation_size": 0}), few_images, tmp_path)
    seen = taken_by(trainer)
    trainer.fit()
    for epoch, record in enumerate(metrics(tmp_path)):
        steps = seen[3 * epoch : 3 * epoch + 3]
        sizes = [len(inputs["index"]) for inputs, _, _ in steps]
        losses = [loss for _, loss, _ in steps]
        assert sizes == [16, 16, 8]
        mean = math.fsum(n * loss for n, loss in zip(sizes, losses, strict=True)) / 40
        assert record["train_loss"] == pytest.approx(mean, rel=1e-14)
        assert record["train_accuracy"] == sum(correct for _, _, correct in steps) / 40
        assert abs(mean - sum(losses) / 3) > 1e-6  # negative control: the mean over batches is another number


def test_images_are_standardised_by_those_trained_on_alone(
    command: Command, few_images: Dataset, tmp_path: Path
) -> None:
    """Neither held-out images nor the test set have a share in it."""
    command(*SMALL, "--epochs", 1, "--out", tmp_path / "run").success()
    kept, held_out = split_validation(few_images, 8, 0)
    assert len(kept) == 32 and len(held_out) == 8
    pixels = few_images.train_images[kept].reshape(-1, 3).astype(float)
    with h5py.File(tmp_path / "run" / "best.h5") as file:
        np.testing.assert_allclose(file["data/channel_mean"][...], pixels.mean(0), rtol=1e-12)
        np.testing.assert_allclose(file["data/channel_std"][...], pixels.std(0), rtol=1e-12)
    everything = few_images.train_images.reshape(-1, 3).astype(float)
    assert np.abs(everything.mean(0) - pixels.mean(0)).min() > 1e-3  # negative control


def scaled(scale: float) -> tuple[Network, Any, Any]:
    """A network whose learned scale is given, and images."""
    network = build(make_config("sample", TINY), image_size=8)
    parameters = network.initialize(np.random.default_rng(0))
    parameters["head"]["scale"] = np.float64(scale)
    return network, parameters, np.random.default_rng(1).standard_normal((3, 8, 8, 3))


@pytest.mark.parametrize("scale", [1.0, 0.3, -7.0])
def test_the_logits_are_the_mean_times_the_learned_scale(scale: float) -> None:
    network, parameters, x = scaled(scale)
    *_, (layer, last, _), _ = network.trace(parameters, x)
    expected = scale * last.mean(axis=(1, 2, 3, 4))
    assert expected.shape == (3, 10)
    for logits in (network(parameters, x)[0], network(parameters, {layer.name: last})[0]):
        np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


def test_the_scale_is_the_configured_one_at_first_and_learned_then(few_images: Dataset, tmp_path: Path) -> None:
    config = make_config("sample", {**TINY, "logit_scale": 2.5, "epochs": 1, "validation_size": 0})
    trainer = trainer_of(config, few_images, tmp_path)
    assert trainer.state.parameters["head"]["scale"] == 2.5
    trainer.fit()
    assert abs(trainer.state.parameters["head"]["scale"] - 2.5) > 1e-6


@pytest.mark.parametrize("smoothing", [0.0, 1e-4, 0.004, 0.02, 0.049, 0.3])
def test_labels_are_smoothed_by_what_is_configured(few_images: Dataset, tmp_path: Path, smoothing: float) -> None:
    """However little: the loss of a step is that of the smoothed targets, and so is that of its batch."""
    config = make_config("sample", {**TINY, "label_smoothing": smoothing, "shift": 0, "flip": False})
    trainer = trainer_of(config, few_images, tmp_path)
    index = np.arange(16)
    x, labels = trainer.train.take(index)
    logits, _ = trainer.network(trainer.state.parameters, x)
    log_p = scipy.special.log_softmax(logits, axis=1)
    targets = np.full((16, 10), smoothing / 10)
    targets[index, labels] += 1 - smoothing
    expected = -(targets * log_p).sum(axis=1).mean()
    assert trainer._step(index)[0] == pytest.approx(expected, rel=1e-12)
    assert cross_entropy(logits, labels, label_smoothing=smoothing) == pytest.approx(expected, rel=1e-12)
