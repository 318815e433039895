"""A recipe as a table of parts: settings without their part are refused, new parts are one entry."""

from __future__ import annotations

import dataclasses
import pickle
import signal
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from autodiff import grad, log_softmax, tree_leaves
from hcnn_core.backend import array_namespace
from tests.train.commands import small_images
from tests.train.conftest import Command
from tests.train.runs import SMALL as RUN
from tests.train.runs import assert_same_run, in_step, metrics
from tests.train.test_distributed import on_ranks
from train.classifier import load
from train.config import ConfigError, config_class, make_config, resolved, with_defaults
from train.data import Dataset, DatasetInfo, Images
from train.data.augmentation import recolour
from train.networks import registry
from train.networks.architecture import Architecture
from train.networks.network import Network
from train.networks.plain import Table
from train.networks.registry import build
from train.ranks.ranks import Ranks
from train.recipes.augmentations import AUGMENTATIONS, Augmentation, Batch, Position, batch_of, draw_batch
from train.recipes.losses import LOSSES, EntropySettings, Loss, class_targets
from train.recipes.metrics import METRICS, Metric
from train.recipes.optimizers import running_means
from train.recipes.schedules import SCHEDULES, Schedule, learning_rate
from train.recipes.tasks import TASKS, Task, task_of
from train.runs import plot
from train.runs.fit import require_suitable
from train.runs.plot import plot_learning_curve
from train.runs.report import _changed, page
from train.runs.run import Run
from train.runs.session import _require_extensible
from train.runs.step import gradient_step, initial_arrays
from train.settings import Section, setting

IGNORED: list[tuple[dict[str, Any], str]] = [
    ({"optimizer": "adamw", "nesterov": True}, "nesterov is True, which is for optimizer 'sgd' or 'muon'"),
    ({"schedule": "constant", "warmup": 0.7}, "warmup is 0.7, which is for schedule 'one-cycle'"),
    ({"schedule": "cosine", "step_factor": 5.0}, "step_factor is 5.0, which is for schedule 'step'"),
    ({"flip": False, "alternate_flips": True}, "alternate_flips is True, which needs --flip"),
    ({"square_decay": 0.5}, "square_decay is 0.5, which is for optimizer 'adamw'"),
    ({"planning": "measure"}, "no setting is called 'planning'"),
    ({"temperature": 2.0}, "temperature is 2.0, which needs a teacher: name one with --teacher"),
]


@pytest.mark.parametrize(("changes", "message"), IGNORED, ids=lambda v: v if isinstance(v, str) else "")
def test_a_setting_without_its_part_is_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_config("hcnn", changes)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert make_config("hcnn", with_defaults(changes)).preset == "hcnn"  # which an earlier version has recorded


def test_what_a_preset_sets_for_another_part_is_left_out() -> None:
    config = make_config("hcnn-fast", {"optimizer": "adamw", "flip": False})
    assert not config.nesterov and not config.alternate_flips
    assert make_config("hcnn-fast").nesterov


def test_a_new_schedule_says_whether_a_run_can_be_extended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fall(settings: Any, step: int, steps_per_epoch: int) -> float:
        return 1 - step / (settings.epochs * steps_per_epoch)

    refused = pytest.raises(ConfigError, match="--schedule linear spreads its learning rates over all 4 epochs")
    for until in (0, 1):
        monkeypatch.setitem(SCHEDULES, "linear", Schedule(fall, lambda settings, epochs, until=until: epochs <= until))
        config = make_config("hcnn", {"schedule": "linear", "epochs": 4, "learning_rate": 0.5})
        assert learning_rate(config, 6, 3) == 0.25
        checkpoint: Any = SimpleNamespace(config=config, state=SimpleNamespace(epoch=1, step=0))
        with nullcontext() if until else refused:
            _require_extensible(Run(tmp_path), checkpoint, 5)
    # rates that stay until the last half of all epochs: so many epochs would have had others of a shorter run
    monkeypatch.setitem(SCHEDULES, "stable", Schedule(fall, lambda settings, epochs: 2 * epochs <= settings.epochs))
    config = make_config("hcnn", {"schedule": "stable", "epochs": 8})
    checkpoint = SimpleNamespace(config=config, state=SimpleNamespace(epoch=4, step=0))
    _require_extensible(Run(tmp_path), checkpoint, 10)
    with pytest.raises(ConfigError, match="--schedule stable"):
        _require_extensible(Run(tmp_path), checkpoint, 6)


class GateSettings(Section):
    """Settings of a network that a test adds."""

    gates: int = setting(3, "gates of each layer", low=1)


@pytest.fixture
def gated(monkeypatch: pytest.MonkeyPatch) -> None:
    lenet = registry.ARCHITECTURES["lenet"]
    for table, entry in (
        (registry.ARCHITECTURES, Architecture("a gated network", lenet.build, {}, (GateSettings,))),
        (registry.PRESETS, {"architecture": "gated", "gates": 5}),
    ):
        monkeypatch.setitem(table, "gated", entry)  # type: ignore[arg-type]


def test_an_architecture_has_settings_of_its_own(gated: None) -> None:
    config: Any = make_config("gated", {"epochs": 2})
    assert config.gates == 5 and dataclasses.replace(config, gates=7).gates == 7
    assert "gates" in vars(config) and isinstance(config, config_class())
    with pytest.raises(ConfigError, match="gates is 0; it must be at least 1"):
        make_config("gated", {"gates": 0})
    with pytest.raises(ConfigError, match="gates is 4, which is for architecture 'gated'; a hierarchical network has"):
        make_config("hcnn", {"gates": 4})


def test_without_it_there_is_no_such_setting() -> None:
    with pytest.raises(ConfigError, match="no setting is called 'gates'"):
        make_config("hcnn", {"gates": 4})


@pytest.fixture
def flat(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(config: Any, size: tuple[int, int], classes: int, channels: int) -> Network:
        table = Table((*size, channels), config.dtype)
        table.pool("max", 16, 16)
        table.flatten()
        table.dense(classes)
        return Network(config, table.ended(), (*size, channels), classes)

    monkeypatch.setitem(registry.ARCHITECTURES, "flat", Architecture("a flat network", make, {}))
    monkeypatch.setitem(registry.PRESETS, "flat", {"architecture": "flat"})


def test_sizes_that_a_layer_cannot_take_are_refused(flat: None, few_images: Dataset) -> None:
    network = build(make_config("flat"))
    x = np.random.default_rng(0).standard_normal((2, 32, 32, 3)).astype("float32")
    assert network(network.initialize(np.random.default_rng(0)), x)[0].shape == (2, 10)
    require_suitable(make_config("flat"), few_images.info)
    with pytest.raises(ConfigError, match="layer dense01 has 40 weights for images of 16x16, others for 32x32"):
        require_suitable(make_config("flat", {"image_sizes": (16, 32)}), few_images.info)
    with pytest.raises(ConfigError, match="layer pool01 makes 0x0x3 of 8x8x3: these images are too small"):
        require_suitable(make_config("flat", {"image_sizes": (8, 32)}), few_images.info)
    table = Table((8, 8, 3), "float32")
    with pytest.raises(ValueError, match="layer dense01 is dense and reads maps 8x8x3: put flatten"):
        table.dense(10)


def test_colours_change_means_and_deviations() -> None:
    images = np.random.default_rng(0).standard_normal((2, 4, 5, 3))
    brighter = recolour(images, np.array([[0.5, 0, 0], [0, 0, 0]]))
    np.testing.assert_allclose(brighter - images, np.array([0.5, 0])[:, None, None, None] * np.ones_like(images))
    flat = recolour(images, np.array([[0, -1.0, 0], [0, 0, -1.0]]))
    np.testing.assert_allclose(flat[0], np.full((4, 5, 3), images[0].mean()))
    np.testing.assert_allclose(flat[1], np.repeat(images[1].mean(-1, keepdims=True), 3, -1))


STRONG: dict[str, Any] = {
    "rotate": 0.5,
    "shear": 0.4,
    "zoom": 0.3,
    "mixup": 0.4,
    "brightness": 0.2,
    "contrast": 0.3,
    "cutout": 3,
}
STRONG |= {"resample": 0.3, "noise": 0.2}
SMALL = {"width": 4, "factors": 4, "depth": 5, "strided_layers": (3,), "attribute_kernel": (2, 2), "dtype": "float64"}


def drawn(config: Any, seed: int, count: int, images: Images) -> dict[str, Any]:
    shape = images.images.shape
    index = np.random.default_rng(seed).permutation(shape[0])[:count]
    return draw_batch(config, np.random.default_rng(seed), Position(index, shape[1:], 0, shape[0]))


@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.parametrize("loss", ["cross-entropy", "logistic", "squared"])
def test_mixed_images_are_compared_with_both_labels(few_images: Dataset, loss: str, counted: bool) -> None:
    """Each by what its own image counts; of squared errors the gradients, which the mean target does not change."""
    config = make_config("sample", {**SMALL, **STRONG, "label_smoothing": 0.1})
    images, rng = small_images(few_images, "float64"), np.random.default_rng(1)
    counts = rng.random(len(images.labels)) * (rng.random(len(images.labels)) < 0.8) if counted else None
    values = {
        "logistic": rng.random((len(images.labels), 10)) < 0.3,
        "squared": rng.normal(size=(len(images.labels), 10)),
    }
    images = dataclasses.replace(images, weights=counts, labels=values.get(loss, images.labels))
    told, logits, loss_of = drawn(config, 3, 8, images), rng.standard_normal((8, 10)), LOSSES[loss].mean
    batch = batch_of(config, images, told)
    plain = dataclasses.replace(config, mixup=0.0)
    both = [
        (told["weight"], batch_of(plain, images, told)),
        (1 - told["weight"], batch_of(plain, images, told["partner"])),
    ]
    mixed = sum(part.reshape(-1, 1, 1, 1) * one.images for part, one in both)
    np.testing.assert_allclose(batch.images, mixed, atol=1e-12)
    assert (told["weight"] >= 0.5).all() and np.ptp(told["weight"]) > 0.01

    def expected(z: Any) -> Any:
        parts = [one._replace(counts=part * (1.0 if counts is None else one.counts)) for part, one in both]
        return sum(loss_of(plain, z, part) for part in parts)

    if loss != "squared":
        assert float(loss_of(config, logits, batch)) == pytest.approx(float(expected(logits)), rel=1e-12)
    np.testing.assert_allclose(
        grad(lambda z: loss_of(config, z, batch))(logits), grad(expected)(logits), rtol=1e-11, atol=1e-15
    )


def test_noise_has_the_deviation_of_its_setting(few_images: Dataset) -> None:
    config = make_config("sample", {"noise": 0.3, "shift": 0, "flip": False, "dtype": "float64"})
    images = small_images(few_images, "float64")
    told = drawn(config, 0, 30, images)
    added = batch_of(config, images, told).images - images.take(told["index"])[0]
    assert added.std() == pytest.approx(0.3, rel=0.02) and abs(added.mean()) < 0.01
    assert not draw_batch(dataclasses.replace(config, noise=0.0), np.random.default_rng(), PLACE).keys() & {"added"}


PLACE = Position(np.arange(3), (8, 8, 3), 0, 3)


def test_ranks_mix_the_images_that_one_process_mixes(few_images: Dataset) -> None:
    config = make_config("sample", {**SMALL, **STRONG})
    images, network = small_images(few_images, "float64"), build(config)
    start = initial_arrays(network, network.initialize(np.random.default_rng(0)))
    told = drawn(config, 1, 7, images)
    numbers = {"rate": 0.01, "step": 1, "moments_kept": 0.9, "moments_taken": 0.1}

    def run(ranks: Ranks) -> Any:
        step = gradient_step(config, network, images, ranks=ranks)
        values: Mapping[str, Any] = {name: np.asarray(value, "float64") for name, value in numbers.items()}
        return step(start, {**ranks.part_of(told), **values})

    arrays, loss, correct = run(Ranks())
    for found, other_loss, other_correct in on_ranks(3, run):
        assert float(other_loss) == pytest.approx(float(loss), rel=1e-12) and other_correct == correct
        for a, b in zip(tree_leaves(found), tree_leaves(arrays), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-9 * max(1.0, float(np.abs(b).max(initial=0))))


LARGEST = Metric(
    lambda task, logits, batch: array_namespace(logits).max(array_namespace(logits).abs(logits)),
    merge=max,
    of_epoch=lambda held, images: held,
)


def test_a_metric_is_one_entry(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is recorded, and resumed in the middle of an epoch; one that is new there begins with the next."""
    without, whole, part = (tmp_path / name for name in ("without", "whole", "part"))

    def stop(out: Path) -> None:
        with monkeypatch.context() as patch:
            in_step(patch, 2, 3, lambda: signal.raise_signal(signal.SIGTERM))
            command(*RUN, "--out", out).one_line(143, "epoch 2, step 3")

    stop(without)
    monkeypatch.setitem(METRICS, "largest_logit", LARGEST)
    command(*RUN, "--out", whole).success()
    stop(part)
    command("--resume", part).success()
    assert_same_run(part, whole)
    command("--resume", without).success()
    records = [[record for record in metrics(run) if "train_loss" in record] for run in (whole, without)]
    found = [[record.get("train_largest_logit") for record in of_run] for of_run in records]
    assert min(found[0]) > 0 and found[1] == [None, None, *found[0][2:]]


def test_ranks_merge_what_metrics_count(few_images: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METRICS, "largest_logit", LARGEST)
    config = make_config("sample", {**SMALL, "shift": 0, "flip": False})
    images, network = small_images(few_images, "float64"), build(config)
    start = initial_arrays(network, network.initialize(np.random.default_rng(0)))
    values = {name: np.asarray(0.5) for name in ("rate", "step", "moments_kept", "moments_taken")}

    def run(count: int) -> Any:
        told = drawn(config, 1, count, images)
        return lambda ranks: gradient_step(config, network, images, ranks=ranks)(start, ranks.part_of(told) | values)

    for count in (7, 2):  # of three ranks one has no image
        _, _, numbers = run(count)(Ranks())
        for _, _, found in on_ranks(3, run(count)):
            assert found["accuracy"] == numbers["accuracy"]
            assert found["largest_logit"] == pytest.approx(float(numbers["largest_logit"]), rel=1e-10)


def cosine(one: Any, other: Any) -> Any:
    """Of two trees, as one vector each."""
    a, b = (np.concatenate([np.ravel(leaf) for leaf in tree_leaves(tree)]) for tree in (one, other))
    return a @ b / (np.sqrt((a @ a) * (b @ b)) or 1.0)  # nothing is kept before the first step


@pytest.mark.parametrize("optimizer", ["sgd", "muon", "adamw"])
def test_a_metric_reads_gradients_of_all_ranks_and_where_the_optimizer_heads(
    few_images: Dataset, monkeypatch: pytest.MonkeyPatch, optimizer: str
) -> None:
    """After a first step the direction is against its gradients, of adamw their signs, at any rate."""
    monkeypatch.setitem(METRICS, "alignment", Metric(of_gradients=cosine))
    config = make_config("sample", {**SMALL, "shift": 0, "flip": False, "optimizer": optimizer, "weight_decay": 0.0})
    images, network = small_images(few_images, "float64"), build(config)
    start = initial_arrays(network, network.initialize(np.random.default_rng(0)))
    told = drawn(config, 1, 6, images)

    def run(ranks: Ranks) -> Any:
        step = gradient_step(config, network, images, ranks=ranks)
        rates = {"moments_kept": np.asarray(0.5), "moments_taken": np.asarray(0.5), "step": np.asarray(1.0)}
        after, _, _ = step(start, ranks.part_of(told) | rates | {"rate": np.asarray(1e-9)})
        return step(after, ranks.part_of(told) | rates | {"rate": np.asarray(0.5)})[2]["alignment"]

    alone = float(run(Ranks()))
    gradients: Any = {}
    monkeypatch.setitem(METRICS, "alignment", Metric(of_gradients=lambda g, ahead: gradients.update(g) or np.ones(())))
    run(Ranks())
    signs = {layer: {name: np.sign(a) for name, a in of.items()} for layer, of in gradients.items()}
    expected = -cosine(gradients, signs if optimizer == "adamw" else gradients)
    assert alone == pytest.approx(expected, abs=1e-4) and alone < -0.1
    monkeypatch.setitem(METRICS, "alignment", Metric(of_gradients=cosine))
    assert [float(found) for found in on_ranks(3, run)] == pytest.approx([alone] * 3, rel=1e-9)


def test_a_metric_of_gradients_is_a_mean_over_steps_and_may_have_gone(
    command: Command, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that stopped within an epoch is resumed by a program that lacks the metric."""
    monkeypatch.setitem(METRICS, "ones", Metric(of_gradients=lambda gradients, direction: np.ones(())))
    with monkeypatch.context() as patch:
        in_step(patch, 2, 3, lambda: signal.raise_signal(signal.SIGTERM))
        command(*RUN, "--out", path).one_line(143, "epoch 2, step 3")
    monkeypatch.delitem(METRICS, "ones")
    command("--resume", path).success()
    found = [record.get("train_ones") for record in metrics(path) if "train_loss" in record]
    assert found[:2] == [1.0, None]


def test_settings_of_parts_that_were_registered_since_can_be_pickled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(AUGMENTATIONS, "solarize", Solarize())
    for changes in ({}, {"solarize": 128}):
        config = make_config("sample", changes)
        assert pickle.loads(pickle.dumps(config)) == config


class SolarizeSettings(Section):
    """Settings of an augmentation that a test adds."""

    solarize: int = setting(0, "pixels of this value and more are inverted; 0: none", low=0, high=255)


class Solarize(Augmentation):
    """Bright pixels inverted."""

    sections, switches = (SolarizeSettings,), ("solarize",)

    def check(self, settings: Any, info: DatasetInfo) -> None:
        if self.is_on(settings) and info.values != "uint8":
            raise ConfigError(f"solarize is for bytes; these are {info.values}")

    def draw(self, settings: Any, rng: np.random.Generator, position: Position) -> dict[str, Any]:
        return {}

    def apply(self, settings: Any, images: Any, drawn: Mapping[str, Any], data: Images) -> Any:
        pixels = images * data.std + data.mean
        return (np.where(pixels >= settings.solarize, 255 - pixels, pixels) - data.mean) / data.std


def test_a_new_augmentation_knows_the_values_of_the_data(few_images: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(AUGMENTATIONS, "solarize", Solarize())
    config = make_config("sample", {"solarize": 128, "shift": 0, "flip": False, "dtype": "float64"})
    images = small_images(few_images, "float64")
    pixels = batch_of(config, images, drawn(config, 0, 8, images)).images * images.std + images.mean
    own = images.images[drawn(config, 0, 8, images)["index"]]
    np.testing.assert_allclose(pixels, np.where(own >= 128, 255 - own, own), atol=1e-9)
    require_suitable(config, few_images.info)
    with pytest.raises(ConfigError, match="solarize is for bytes; these are float32"):
        require_suitable(config, dataclasses.replace(few_images.info, values="float32"))


class FocalSettings(Section):
    """Settings of a loss that a test adds."""

    focus: float = setting(2.0, "power of the probability of the other classes", low=0.0)


def _focal(settings: Any, logits: Any, batch: Any) -> Any:
    logarithms = log_softmax(logits)
    targets = class_targets(settings, batch, logits.shape[1])
    return -np.mean(np.sum(targets * (1 - np.exp(logarithms)) ** settings.focus * logarithms, axis=1))


def test_a_new_loss_says_for_which_task_it_is(few_images: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is honoured, or refused where labels are of another task."""
    monkeypatch.setitem(LOSSES, "focal", Loss(_focal, ("classes",), (EntropySettings, FocalSettings)))
    images, losses = small_images(few_images, "float64"), []
    for changes in ({}, {"loss": "focal", "focus": 0.0}, {"loss": "focal", "focus": 2.0, "label_smoothing": 0.1}):
        config = make_config("sample", {**SMALL, "shift": 0, "flip": False, **changes})
        network = build(config)
        start = initial_arrays(network, network.initialize(np.random.default_rng(0)))
        rates = {name: np.asarray(0.5) for name in ("rate", "step", "moments_kept", "moments_taken")}
        step = gradient_step(config, network, images)
        losses.append(float(step(start, drawn(config, 1, 6, images) | rates)[1]))
    assert losses[0] == pytest.approx(losses[1], rel=1e-12) and losses[2] < 0.95 * losses[0]
    with pytest.raises(ConfigError, match="loss is 'focal', which is for classes; the task is labels: leave it out"):
        resolved(config, (32, 32), "labels", "d")
    for task, said in (("auto", "the task's own loss"), ("classes", "loss 'cross-entropy'")):  # before data are loaded
        with pytest.raises(ConfigError, match=rf"focus is 3\.0, which is for loss 'focal'; {said} has no such"):
            make_config("sample", {"focus": 3.0, "task": task})
    with pytest.raises(ConfigError, match=r"label_smoothing is 0\.1, which is for .*; loss 'squared' has no such"):
        make_config("hcnn", {"label_smoothing": 0.1, "task": "numbers"})


class MarginSettings(Section):
    """Settings of a loss whose outputs are no logits."""

    margin: float = setting(1.0, "by which the right class is to be ahead", low=0.0)


def _hinge(settings: Any, outputs: Any, batch: Any) -> Any:
    own = class_targets(EntropySettings(), batch._replace(counts=None), outputs.shape[1])
    ahead = np.sum(own * outputs, axis=1)[:, None] - outputs
    return np.mean(np.sum((1 - own) * np.maximum(settings.margin - ahead, 0 * outputs), axis=1))


def test_outputs_of_a_hinge_have_no_probabilities(
    command: Command, few_images: Dataset, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are evaluated by the hinge with its setting, and neither calibrated nor a teacher's."""
    monkeypatch.setitem(LOSSES, "hinge", Loss(_hinge, ("classes",), (MarginSettings,), logits=False))
    said = command(*RUN, "--epochs", 1, "--loss", "hinge", "--margin", "0.5", "--out", path).success()
    network, x, y = load(path), few_images.test_images, few_images.test_labels
    outputs = network.logits(x)
    loss = _hinge(SimpleNamespace(margin=0.5), outputs, Batch(outputs, y))
    assert metrics(path)[-1]["test_loss"] == pytest.approx(float(loss), rel=1e-5)
    assert f"loss {loss:.4f} (hinge)" in said and "calibration" not in said and "nats" not in said
    assert "validation_tempered_loss" not in metrics(path)[0]
    with pytest.raises(TypeError, match="have no probabilities: the loss 'hinge' learns no logits"):
        network.probabilities(x)
    names = [network.class_names[k] for k in outputs.argmax(axis=1)]
    task = network.checkpoint.task
    assert (task.columns(network.class_names, 5), task.cells(outputs, network.class_names, 5)) == (
        ["class"],
        [[name] for name in names],
    )
    assert task_of(metrics(path)).panels(metrics(path))["loss"] == ("hinge", 1)
    command(*RUN, "--teacher", path, "--out", tmp_path / "pupil").one_line(1, "predicts classes by the loss 'hinge'")


class Ordinal(Task):
    """Classes in an order: an output for each step from one to the next."""

    name, loss, beside, ranks, sections = "ordinal", "cumulative", -1, False, ()

    def chosen(self, outputs: Any) -> Any:
        return (outputs > 0).sum(axis=1)

    def right(self, outputs: Any, labels: Any) -> Any:
        xp = array_namespace(outputs, labels)
        return xp.sum(xp.astype(xp.sum(xp.astype(outputs > 0, labels.dtype), axis=1) == labels, outputs.dtype))

    def _probabilities(self, outputs: Any) -> Any:
        above = np.pad(1 / (1 + np.exp(-outputs)), ((0, 0), (1, 1)), constant_values=((0, 0), (1, 0)))
        return above[:, :-1] - above[:, 1:]


def _cumulative(settings: Any, outputs: Any, batch: Any) -> Any:
    beyond = (batch.labels[:, None] > np.arange(outputs.shape[1])).astype(batch.images.dtype)
    return np.mean(np.logaddexp(0 * outputs, outputs) - outputs * beyond)


def test_a_fourth_task_is_one_entry(
    command: Command, few_images: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TASKS, "ordinal", Ordinal())
    monkeypatch.setitem(LOSSES, "cumulative", Loss(_cumulative, ("ordinal",)))
    run, y = tmp_path / "run", few_images.test_labels
    said = command(*RUN, "--epochs", 1, "--task", "ordinal", "--out", run).success()
    network = load(run)
    outputs = network.logits(few_images.test_images)
    assert outputs.shape == (len(y), 9) and network.probabilities(few_images.test_images).sum(axis=1) == pytest.approx(
        1
    )
    right = float(((outputs > 0).sum(axis=1) == y).mean())
    line = f"accuracy {100 * right:.2f} %, loss {float(_cumulative(None, outputs, Batch(outputs, y))):.4f} nats"
    assert f"test: {line}" in said and line in command("--evaluate", run).success() and "views" not in said
    assert [metrics(run)[k]["task"] for k in (0, -1)] == ["ordinal"] * 2 and "train_accuracy" in metrics(run)[0]
    assert "ordinal" in str(_changed(network.checkpoint.config, network.checkpoint.task).lines)
    assert network.predict(few_images.test_images[:2]) == [few_images.class_names[k] for k in (outputs[:2] > 0).sum(1)]
    with pytest.raises(ConfigError, match="task is 'ordinal', which learns classes; d has labels: leave it out"):
        resolved(make_config("sample", {"task": "ordinal"}), (32, 32), "labels", "d")


class GridSettings(Section):
    """Settings of an augmentation that a test adds."""

    grid: int = setting(0, "side of hidden squares in pixels; 0: none", low=0)
    grid_part: float = setting(0.5, "part that is hidden", low=0.0, high=1.0)


class Grid(Augmentation[GridSettings]):
    sections, switches, pixels = (GridSettings,), ("grid",), ("grid",)


def test_an_augmentation_says_what_its_settings_need_and_which_are_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(AUGMENTATIONS, "grid", Grid())
    config: Any = resolved(make_config("hcnn", {"grid": 8, "grid_part": 0.3, "made_for": 32}), (48, 64), "classes", "d")
    assert (config.grid, config.shift, config.made_for) == (12, 9, 0)
    kept: Any = resolved(make_config("hcnn", {"grid": 8}), (48, 64), "classes", "d")  # these are pixels of the images
    assert kept.grid == 8
    with pytest.raises(ConfigError, match=r"grid_part is 0\.3, which needs --grid"):
        make_config("hcnn", {"grid_part": 0.3})


@pytest.mark.parametrize("name", ["momentum", "betas"])
def test_what_is_kept_of_running_means_is_less_than_one(name: str) -> None:
    settings: Any = SimpleNamespace(momentum=0.9, betas=0.9)
    running_means("momentum", "betas")(settings)
    setattr(settings, name, 1)
    with pytest.raises(ConfigError, match=f"{name} is 1; an optimizer with running means takes less than 1"):
        running_means("momentum", "betas")(settings)


def test_a_loss_is_drawn_and_tabled_under_its_own_name(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is held out is measured by the task's own, whatever training makes small."""
    monkeypatch.setitem(LOSSES, "focal", Loss(_focal, ("classes",), (EntropySettings, FocalSettings)))
    figures: list[Any] = []
    monkeypatch.setattr(plot, "write_figure", lambda figure, path: figures.append(figure))
    records, pages = {}, []
    for name in ("cross-entropy", "focal"):
        command(*RUN, "--epochs", 1, "--loss", name, "--out", tmp_path / name).success()
        records[name] = [{**record, "seconds": 1.0} for record in metrics(tmp_path / name) if "train_loss" in record]
        pages.append(page(name, make_config("sample"), {}, records[name], ["a", "b"], None, None))
        plot_learning_curve(records[name], tmp_path / "a.png", name)
    for runs in (records, {"own": records["cross-entropy"]}, {"other": records["focal"]}):
        plot.plot_runs(runs, tmp_path / "b.png")
    own, another = "negative log-likelihood [nats]", "training: {};\nheld out and test: negative log-likelihood [nats]"
    titles = [own, another.format("focal"), another.format("cross-entropy, focal"), own, another.format("focal")]
    assert [figure.axes[0].get_ylabel() for figure in figures] == titles
    assert {figure.axes[1].get_ylabel() for figure in figures} == {"accuracy [%]"}
    heads = [f'<th scope="col">{title.replace(chr(10), " ")}</th>' for title in titles[:2]]
    assert [head in text for head, text in zip(heads, pages, strict=True)] == [True] * 2
    older = [{"epoch": 1, "train_loss": 0.5}]  # of a version that did not record it
    assert [TASKS["numbers"].panels(of)["loss"][0] for of in (older, [older[0] | {"loss": "huber"}])] == [
        "squared error [variances]",
        "training: huber;\nheld out and test: squared error [variances]",
    ]


def test_images_are_shown_as_training_sees_them(drawing_command: Command, few_images: Dataset, tmp_path: Path) -> None:
    """The picture holds the images themselves without augmentation, others with it, and is in the report."""
    plain = "--preset", "sample", "--dataset", "sample", "--shift", 0, "--no-flip"
    pictures = []
    for name, more in (
        ("plain", ()),
        ("mixed", ("--mixup", 0.4, "--rotate", 0.5)),
        ("again", ("--mixup", 0.4, "--rotate", 0.5)),
    ):
        out = tmp_path / f"{name}.png"
        assert str(out) in drawing_command("augmented", "--count", 10, *plain, *more, "--out", out).success()
        pictures.append(np.rint(255 * imread(out)[..., :3]).astype(int))
    assert [picture.shape for picture in pictures] == [(68, 272, 3)] * 3
    images = few_images.train_images
    chosen = np.arange(10) * len(images) // 10
    assert np.array_equal(pictures[0][1:33, 1:33], images[chosen[0]])
    assert np.array_equal(pictures[0][35:67, 35:67], images[chosen[9]]) and (pictures[0][34:, 68:] == 255).all()
    assert np.array_equal(pictures[1], pictures[2]) and not np.array_equal(pictures[0], pictures[1])
    drawing_command("augmented", "--count", 1, *plain, "--out", tmp_path / "plain.png").one_line(1, "is there already")
    drawing_command("augmented", "--count", 0).one_line(2, "at least 1")
    drawing_command(*RUN, "--epochs", 1, "--out", tmp_path / "run").success()
    report = tmp_path / "run" / "report.html"
    assert 'alt="Training images, augmented"' in report.read_text("utf-8")
    report.unlink()
    drawing_command("report", tmp_path / "run").success()
    assert 'alt="Training images, augmented"' in report.read_text("utf-8")
