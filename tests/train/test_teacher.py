"""A network that another teaches: the loss, the images that both see, and runs that go on without the other."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import rel_entr, softmax

from autodiff import check_grads, grad, tree_leaves, tree_map
from tests.train.commands import Command, made_up
from tests.train.runs import (
    SMALL,
    assert_same_state,
    contents,
    interrupted_at_a_step,
    kill,
    killed,
    metrics,
    run_here,
    saved_state,
)
from train import load
from train.config import make_config, read_toml
from train.data import INFO, Dataset, load_dataset, resize
from train.networks.registry import build
from train.recipes.losses import attention_distance, divergence
from train.runs import checkpoint as checkpoints
from train.runs import memory, session
from train.runs.shipped import bare
from train.runs.teacher import Teacher, network_of, require_unseen
from train.runs.training import Trainer

ONE_STEP = (*SMALL, "--epochs", 1, "--batch-size", 32, "--shift", 0, "--no-flip", "--no-test")
LAST = "epoch0004-step000000.h5"


def logits_of(seed: int, scale: float = 3.0) -> NDArray[np.float64]:
    return scale * np.random.default_rng(seed).standard_normal((5, 7))


# The loss


@given(st.integers(0, 99), st.floats(0.5, 20), st.sampled_from(["float32", "float64"]))
def test_the_divergence_is_that_of_the_softened_predictions(seed: int, temperature: float, dtype: str) -> None:
    found, wanted = (logits_of(s).astype(dtype) for s in (seed, seed + 100))
    p, q = (softmax(z.astype(float) / temperature, axis=1) for z in (found, wanted))
    expected = temperature**2 * rel_entr(q, p).sum(axis=1).mean()
    value = divergence(found, wanted, temperature)
    assert value.dtype == dtype and value.shape == ()
    largest = temperature**2 * max(1, np.abs([found, wanted]).max() / temperature)  # of what is subtracted
    assert abs(value - expected) < 8 * 7 * np.finfo(dtype).eps * largest


def test_its_gradient_is_that_of_soft_targets() -> None:
    """Section 2 of arXiv:1503.02531: T^2 times the cross-entropy has the gradient T (p - q)."""
    found, wanted = logits_of(0), logits_of(1)
    check_grads(lambda z: divergence(z, wanted, 4.0), order=2)(found)
    p, q = softmax(found / 4, axis=1), softmax(wanted / 4, axis=1)
    gradient = grad(lambda z: divergence(z, wanted, 4.0))(found)
    np.testing.assert_allclose(gradient, 4 * (p - q) / 5, rtol=0, atol=1e-14)
    assert abs(divergence(wanted, wanted, 4.0)) < 1e-14
    assert np.abs(grad(lambda z: divergence(z, wanted, 4.0))(wanted)).max() < 1e-14


def test_attention_maps_are_compared_by_direction() -> None:
    """Of each layer it is 2 - 2 cos, so that lengths do not count; a map that is zero has no direction."""
    rng = np.random.default_rng(0)
    maps, taught = ([rng.random((3, n, n)) for n in (8, 4)] for _ in range(2))
    cosines = [
        (a * b).sum((1, 2)) / np.sqrt((a**2).sum((1, 2)) * (b**2).sum((1, 2)))
        for a, b in zip(maps, taught, strict=True)
    ]
    expected = sum((2 - 2 * c).mean() for c in cosines)
    assert attention_distance(maps, taught) == pytest.approx(expected, rel=1e-12)
    assert attention_distance([5 * a for a in maps], taught) == pytest.approx(expected, rel=1e-12)
    larger = [np.kron(a, np.ones((1, 2, 2))) for a in taught]  # each pixel four times, so the mean over areas undoes it
    assert attention_distance(maps, larger) == pytest.approx(expected, rel=1e-12)
    check_grads(lambda a: attention_distance([a], taught[1:]), order=2)(maps[1])
    assert attention_distance([np.zeros((3, 4, 4))], taught[1:]) == pytest.approx(1.0)
    assert np.all(grad(lambda a: attention_distance([a**2], taught[1:]))(np.zeros((3, 4, 4))) == 0)


def test_the_gradient_of_attention_transfer(trained: Path) -> None:
    """The weights' derivatives along a random direction, beside differences; the head has no part in the maps."""
    checkpoint = load(trained).checkpoint
    config = replace(checkpoint.config, dtype="float64")
    network = network_of(checkpoint, config)
    images = type("Statistics", (), {"mean": checkpoint.channel_mean, "std": checkpoint.channel_std})()
    teacher = Teacher.of(np, trained, checkpoint, config, images)
    own, theirs = zip(*teacher.shared(network), strict=True)
    sizes = [network[name].outputs[:2] for name in own]
    assert sizes == [teacher.network[name].outputs[:2] for name in theirs] and len(set(sizes)) == len(sizes) > 1
    rng = np.random.default_rng(0)
    weights, x = network.initialize(rng), rng.standard_normal((4, 32, 32, 3))
    weights, attended = tree_map(lambda a: a.astype(float), weights), teacher(x, theirs)[1]

    def loss(weights: Any) -> Any:
        return attention_distance(network.with_maps(weights, x, at=own)[2], attended)

    gradient = grad(loss)(weights)
    assert loss(weights) > 1e-3 and all(np.all(a == 0) for a in gradient["head"].values())
    along = tree_map(lambda a: rng.standard_normal(a.shape) * np.abs(a).mean(), weights)
    up, down = (loss(tree_map(lambda a, d, s=s: a + s * 1e-5 * d, weights, along)) for s in (1, -1))
    slope = sum(np.vdot(g, d) for g, d in zip(tree_leaves(gradient), tree_leaves(along), strict=True))
    assert (up - down) / 2e-5 == pytest.approx(slope, rel=1e-4)
    logits, _, maps = network.with_maps(weights, x, at=own)
    outputs = {layer.name: y for layer, y, _ in network.trace(weights, x)}
    for name, found in zip(own, maps, strict=True):
        np.testing.assert_allclose(found, (outputs[name] ** 2).reshape(*found.shape, -1).sum(-1), rtol=1e-12)
    assert np.array_equal(logits, network(weights, x)[0])


@pytest.mark.parametrize(("preset", "shape"), [("signal", (64, 2)), ("sample", (8, 8, 3)), ("volume", (8, 8, 8, 1))])
def test_attention_maps_are_over_the_axes_of_space(preset: str, shape: tuple[int, ...]) -> None:
    """At each size of several places the last layer after the first trained one; maps in the order asked for."""
    config = make_config(preset, {"width": 4, "factors": 2, "depth": 4, "strided_layers": (2,)})
    network, rng = build(config, shape[:-1], 3, shape[-1]), np.random.default_rng(0)
    half = tuple(n // 2 for n in shape[:-1])
    assert network.stages == {shape[:-1]: "layer01", half: "layer03"}
    weights, x = network.initialize(rng), rng.standard_normal((2, *shape)).astype(np.float32)
    found = network.with_maps(weights, x, at=["layer03", "layer01"])[2]
    outputs = {layer.name: y for layer, y, _ in network.trace(weights, x)}
    for name, size, own in zip(("layer03", "layer01"), (half, shape[:-1]), found, strict=True):
        np.testing.assert_allclose(own, (outputs[name] ** 2).reshape(2, *size, -1).sum(-1), rtol=1e-5)


def test_stages_have_several_places_and_weights_before_them() -> None:
    one_place = build(make_config("sample", {"strided_layers": (1, 2, 3)}), (8, 8), 10, 3)
    assert list(one_place.stages) == [(4, 4), (2, 2)]  # and layer 3 has one place
    teacher = Teacher(build(make_config("sample", {"strided_layers": (1, 2)}), (32, 32), 10, 3), {}, {}, 1, 0)
    assert list(teacher.network.stages) == [(16, 16), (8, 8)]
    scattered = build(make_config("sample", {"scattering": 2, "strided_layers": (2,)}), (32, 32), 10, 3)
    assert scattered.stages[8, 8] == "layer01" and teacher.shared(scattered) == [
        ("layer01", teacher.network.stages[8, 8])
    ]
    fixed = build(make_config("sample", {"scattering": 2, "strided_layers": (1,)}), (32, 32), 10, 3)
    assert fixed.stages[8, 8] == "scattering" and teacher.shared(fixed) == []


def test_a_teacher_with_layers_of_other_sizes_is_refused(command: Command, trained: Path, tmp_path: Path) -> None:
    flags = ("--preset", "lenet", "--dataset", "sample", "--teacher", trained, "--attention-transfer", 10)
    line = command(*flags, "--validation-size", 8, "--out", tmp_path / "none").one_line(1, "--attention-transfer")
    assert "shares none" in line and not (tmp_path / "none").exists()


@pytest.mark.parametrize("sizes", [(), (16,)], ids=["own size", "smaller images"])
@pytest.mark.parametrize(("share", "attention"), [(0.7, 0), (0.7, 4), (0, 4)])
def test_the_loss_of_a_step(
    command: Command,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sizes: tuple[int, ...],
    share: float,
    attention: float,
) -> None:
    """The teacher sees the augmented images at their own size; labels are smoothed in their part alone."""
    seen: list[Any] = []
    take = Trainer._take

    def spying(self: Trainer, arrays: Any, inputs: Any) -> Any:
        seen.append((self, tree_map(np.array, arrays), inputs))
        return take(self, arrays, inputs)

    monkeypatch.setattr(Trainer, "_take", spying)
    taught = ("--teacher", trained, "--teacher-share", share, "--temperature", 3, "--label-smoothing", 0.2)
    flags = ("--image-sizes", *sizes) if sizes else ()
    taught = (*taught, "--attention-transfer", attention)
    command(*ONE_STEP, *flags, *taught, "--dtype", "float64", "--out", tmp_path / "run").success()
    ((trainer, arrays, inputs),) = seen  # 32 images, one step
    x, labels = trainer.train.take(inputs["index"])
    own, theirs = zip(*trainer.teacher.shared(trainer.network), strict=True)
    logits, _, maps = trainer.network.with_maps(arrays["parameters"], resize(x, sizes[0] if sizes else 32), at=own)
    pixels = trainer.train.images[inputs["index"]]
    wanted = load(trained).logits(pixels).astype(float)  # float32, from the pixels themselves
    targets = 0.8 * np.eye(10)[labels] + 0.02
    plain = -(targets * np.log(softmax(logits, axis=1))).sum(axis=1).mean()
    soft = 9 * rel_entr(softmax(wanted / 3, axis=1), softmax(logits / 3, axis=1)).sum(axis=1).mean()
    away = attention_distance(maps, trainer.teacher(x, theirs)[1])
    assert soft > 1e-3 and away > 1e-3
    expected = (1 - share) * plain + share * soft + attention * away
    assert metrics(tmp_path / "run")[0]["train_loss"] == pytest.approx(expected, rel=1e-5)


def test_the_teacher_sees_what_is_augmented(trained: Path, few_images: Dataset) -> None:
    """Its own statistics standardise the images, whatever those of the network that it teaches are."""
    classifier = load(trained)
    checkpoint = classifier.checkpoint
    mean, std = np.array([90.0, 100, 110]), np.array([40.0, 50, 60])
    images = type("Statistics", (), {"mean": mean, "std": std})()
    teacher = Teacher.of(np, trained, checkpoint, make_config("sample", {"dtype": "float32"}), images)
    x = ((few_images.test_images - mean) / std).astype(np.float32)
    np.testing.assert_allclose(teacher(x)[0], classifier.logits(few_images.test_images), rtol=0, atol=1e-4)
    other = Teacher(teacher.network, teacher.parameters, teacher.moments, np.float32(1), np.float32(0))
    assert np.abs(other(x)[0] - classifier.logits(few_images.test_images)).max() > 1e-2  # negative control


def test_a_teacher_of_other_standards_is_refused(command: Command, trained: Path, tmp_path: Path) -> None:
    options = ("--standardize", "sample", "--teacher", trained, "--out", tmp_path / "run")
    command(*SMALL, *options).one_line(1, "standardised by channel, here it is by sample; give --standardize channel")


# Runs


def test_share_0_is_bit_for_bit_no_teacher(command: Command, trained: Path, tmp_path: Path) -> None:
    """Such a teacher is not even read; with any other share weights differ."""
    runs = {"alone": (), "ignored": ("--teacher", trained, "--teacher-share", 0), "taught": ("--teacher", trained)}
    for name, flags in runs.items():
        command(*SMALL, "--epochs", 1, *flags, "--out", tmp_path / name).success()
    last = "epoch0001-step000000.h5"
    assert_same_state(tmp_path / "ignored" / last, tmp_path / "alone" / last)
    assert metrics(tmp_path / "ignored") == metrics(tmp_path / "alone")
    assert not (tmp_path / "ignored" / "teacher.h5").exists()
    alone, taught = (saved_state(tmp_path / name / last) for name in ("alone", "taught"))
    assert alone["generator"] == taught["generator"]  # order and augmentation are the same
    assert not np.array_equal(alone["parameters/layer01/w"], taught["parameters/layer01/w"])
    command("--evaluate", tmp_path / "ignored").success()


def test_a_run_goes_on_without_the_files_of_its_teacher(command: Command, trained: Path, tmp_path: Path) -> None:
    """Bit for bit, from the copy in its directory: the teacher's run has gone on, or is gone."""
    teacher, whole, stopped = (tmp_path / name for name in ("teacher", "whole", "stopped"))
    shutil.copytree(trained, teacher)
    flags = (*SMALL, "--epochs", 2, "--teacher", teacher, "--no-test")
    assert f"taught by {teacher / LAST}\n" in command(*flags, "--out", whole).success()
    with interrupted_at_a_step():
        assert command(*flags, "--out", stopped).status == 130
    shutil.rmtree(teacher)
    command("--resume", stopped).success()
    assert_same_state(stopped / "epoch0002-step000000.h5", whole / "epoch0002-step000000.h5")
    assert read_toml(stopped / "config.toml")["teacher"] == str(teacher)
    target = tmp_path / "network.h5"
    command("export", stopped, target).success()
    assert checkpoints.load(target).config.teacher == ""  # of which no other machine knows
    (whole / "teacher.h5").write_bytes(b"damaged")
    (whole / "epoch0002-step000000.h5").unlink()
    (whole / "best.h5").unlink()
    command("--resume", whole).one_line(1, "teacher.h5 is not a whole checkpoint")
    (whole / "teacher.h5").unlink()
    command("--resume", whole).one_line(1, "there is no checkpoint at", "teacher.h5")


def test_a_start_that_is_killed_before_its_first_state_leaves_a_teacher_to_remove(
    command: Command, trained: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = (*SMALL, "--epochs", 1, "--teacher", trained, "--no-test", "--out", path)
    save = checkpoints.save

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save", lambda path, *rest: save(path, *rest) if path.stem == "teacher" else kill())
        killed(command, *flags)
    assert [file.name for file in path.iterdir()] == ["teacher.h5"]
    before = contents(path)
    command(*flags).one_line(1, f"--out {path} holds teacher.h5 and no run", "remove it")
    command("--resume", path).one_line(1, "holds no run")
    assert contents(path) == before
    (path / "teacher.h5").unlink()
    command(*flags).success()


def test_teachers_that_cannot_be(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, *said in (("nowhere", "no checkpoint at nowhere", "hcnn-best"), (".", "holds no run")):
        command(*SMALL, "--teacher", name, "--out", tmp_path / "run").one_line(1, *said)
    assert not (tmp_path / "run").exists()


def test_a_teacher_that_has_seen_what_is_held_out(command: Command, trained: Path, tmp_path: Path) -> None:
    flags = ("--teacher", trained, "--seed", 1, "--out", tmp_path / "run")
    command(*SMALL, *flags).one_line(1, f"--teacher {trained}", "of the 8 images that are held out", "--seed 0")
    flags = ("--teacher", "hcnn-fast", "--out", tmp_path / "run")
    command(*SMALL, *flags).one_line(1, "was trained on cifar10, which shares images with sample")


def test_a_file_is_the_same_by_another_name(tmp_path: Path) -> None:
    whole, theirs = load_dataset("sample"), make_config("sample", {"dataset": str(tmp_path / "a.npz"), "seed": 1})
    of_theirs: Any = SimpleNamespace(config=theirs, data="")  # without a description
    again = make_config("sample", {"dataset": str(tmp_path / "b" / ".." / "a.npz"), "validation_size": 8})
    with pytest.raises(checkpoints.CheckpointError, match="of the 8 images that are held out here"):
        require_unseen("--teacher", tmp_path, of_theirs, whole, whole, again)
    other = make_config("sample", {"dataset": str(tmp_path / "c.npz")})
    (said,) = require_unseen("--teacher", tmp_path, of_theirs, whole, whole, other)
    assert "has no description of its images: whether it saw test images cannot be checked" in said


@pytest.mark.parametrize(
    ("shape", "classes", "names", "fragments"),
    [
        ((32, 32, 3), 3, None, ["tells 10 classes of 32x32x3 images apart, ", "other.npz has 3 classes"]),
        ((32, 32, 3), 10, "class {}", ["calls class 0 'airplane', ", "other.npz calls it 'class 0'"]),
        ((24, 32, 3), 10, None, ["tells 10 classes of 32x32x3 images", "of 24x32x3 images"]),
    ],
)
def test_teachers_of_another_task(
    trained: Path, tmp_path: Path, shape: tuple[int, ...], classes: int, names: str | None, fragments: list[str]
) -> None:
    given_names = {} if names is None else {"class_names": [names.format(n) for n in range(classes)]}
    file = tmp_path / "other.npz"
    np.savez(file, **made_up(shape, classes), **given_names)
    flags = ("--dataset", file, "--teacher", trained, "--out", tmp_path / "run")
    run_here((*SMALL, *flags), None).one_line(1, str(trained), *fragments)
    assert not (tmp_path / "run").exists()


def test_memory_is_reckoned_with_the_teacher(
    command: Command, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = load(trained).checkpoint
    config = bare(checkpoint, {}).config
    network = network_of(checkpoint, config)
    alone = memory.required_bytes(config, INFO["sample"], 8)
    assert memory.required_bytes(config, INFO["sample"], 8, network) > alone
    monkeypatch.setattr(session, "available_bytes", lambda xp: alone)
    flags = (*SMALL, "--epochs", 1, "--no-test")
    command(*flags, "--out", tmp_path / "alone").success()
    command(*flags, "--teacher", trained, "--out", tmp_path / "taught").one_line(1, "a batch of 8 needs", "would fit")
