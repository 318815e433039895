"""Networks that ship, and trained networks as functions of images."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks import cards
from hcnn_core import convolve, elu
from tests.remote import Remote, put, take
from tests.train.commands import made_up
from tests.train.conftest import Command
from tests.train.runs import metrics
from train import Classifier, fit, load, predict
from train.config import make_config
from train.data import Dataset, Images, standardise
from train.data.photographs import fitted, pixels
from train.data.reading import dataset_from_arrays
from train.networks.hierarchical import hierarchy, layers
from train.networks.registry import build
from train.runs import checkpoint as checkpoints
from train.runs import shipped
from train.runs.checkpoint import CheckpointError
from train.runs.shipped import bare, find, list_networks
from train.runs.training import evaluate, restore

LARGEST = 2 * 2**20
FEW = ("--preset", "sample", "--width", 4, "--factors", 4, "--depth", 5, "--batch-size", 8, "--validation-size", 0)


@pytest.mark.parametrize("name", list_networks())
def test_a_network_that_ships_is_small_and_bare_and_says_what_it_reached(name: str) -> None:
    assert find(name).stat().st_size < LARGEST
    checkpoint = checkpoints.load(find(name))
    state, config = checkpoint.state, checkpoint.config
    assert not state.optimizer and not state.average and not len(state.order)
    assert 0.1 < checkpoint.figures["test_accuracy"] < 1
    restore(find(name), checkpoint, config, np)
    table = layers(config, 32, len(checkpoint.class_names))
    assert sum(layer.counted for layer in table) <= (344_640 if config.nonlinear_factors else 97_650)


@pytest.mark.parametrize("name", list_networks())
def test_a_model_card_says_what_the_file_and_the_records_say(name: str) -> None:
    network = load(name)
    config, test, text = network.network.config, network.figures, network.card
    words = " ".join(text.split())
    assert text.startswith(f"# {name}\n") and f"## What it takes {network.takes} ## Data" in words
    assert f"**{100 * test['test_accuracy']:.2f} %** of the 10,000 test images" in words
    assert f"loss {test['test_loss']:.3f} nats" in words
    assert f"{100 * test['test_accuracy_of_views']:.2f} % by the mean of six views" in words
    assert f"K = {config.width}" in words and f"J = {config.depth}" in words
    assert f"{network.network.counted:,} coefficients" in words and f"{config.epochs} epochs" in words
    *sizes, last = map(str, config.image_sizes)
    assert f"images of {' and '.join([', '.join(sizes), last] if sizes else [last])} pixels" in words
    record = json.loads(cards.RESULTS.read_text())[name]
    assert record["classes"] == list(network.class_names)
    assert f"\n\n{cards.table(**record)}\n\n" in text
    confusion = np.array(record["confusion"])
    assert np.array_equal(confusion.sum(1), np.full(10, 1000))
    assert np.trace(confusion) / 10_000 == pytest.approx(test["test_accuracy"], abs=1e-12)


def test_the_table_of_a_card() -> None:
    """Rows against counting by hand; the interval is tested with the evaluation."""
    rows = cards.table(["cat", "dog"], [[3, 1], [0, 4]]).splitlines()[2:]
    assert [row.split(" (")[0] for row in rows] == ["| cat | 75.0 %", "| dog | 100.0 %", "| all | 87.5 %"]
    assert rows[0].endswith("| dog, 25.0 % |") and rows[1].endswith("| cat, 0.0 % |")


def test_a_network_says_what_it_is_in_one_line(command: Command, trained: Path, tmp_path: Path) -> None:
    assert repr(load("hcnn-best")) == (
        "<Classifier hcnn-best: 10 classes, 97,650 coefficients, accuracy 89.80 % on the test images>"
    )
    assert repr(load("hcnn-periodic")).startswith("<Classifier hcnn-periodic: ")  # whose file names another preset
    network = load(trained)
    assert (
        network.card == f"# {network.name}\n\n{network.takes}\n"
        and network.figures["test_accuracy"] == metrics(trained)[-1]["test_accuracy"]
    )
    said = f"coefficients, accuracy {100 * network.figures['test_accuracy']:.2f} % on the test images>"
    assert repr(network).startswith("<Classifier sample: 10 classes, ") and repr(network).endswith(said)
    assert repr(load(trained / "epoch0002-step000000.h5")).endswith(", not tested>")
    untested = replace(network.checkpoint, figures={})
    lenet = build(make_config("lenet"))
    assert repr(Classifier(untested, lenet, {}, {}, name="mine")) == (
        f"<Classifier mine: 10 classes, {lenet.counted:,} parameters, not tested>"
    )


def test_probabilities_are_the_softmax(trained: Path, few_images: Dataset) -> None:
    network, images = load(trained / "best.h5"), few_images.test_images[:5]
    found, logits = network.probabilities(images), network(images)
    expected = np.exp(logits.astype(np.float64))
    np.testing.assert_allclose(found, expected / expected.sum(1, keepdims=True), rtol=1e-5)
    assert found.dtype == logits.dtype
    np.testing.assert_allclose(network.probabilities(images[2]), found[2], rtol=1e-3)
    assert network.probabilities(images[:0]).shape == (0, 10)
    assert isinstance(network.probabilities(put(images)), Remote)


def test_photographs_are_taken_as_the_arrays_they_hold(trained: Path, few_images: Dataset, tmp_path: Path) -> None:
    network, images = load(trained / "best.h5"), few_images.test_images[:2]
    photographs = [Image.fromarray(image) for image in images]
    paths = [tmp_path / "one.png", tmp_path / "two.bmp"]
    for path, photograph in zip(paths, photographs, strict=True):
        photograph.save(path)
    expected = network(images)
    for given in (photographs, paths, tuple(map(str, paths)), [photographs[0], paths[1]]):
        assert np.array_equal(network(given), expected)
        assert network.predict(given) == network.predict(images)
    for one in (photographs[0], paths[0], str(paths[0])):
        assert np.array_equal(network.logits(one), network(images[0])) and network.probabilities(one).shape == (10,)
    with pytest.raises(OSError, match=r"none\.png"):
        network.logits(tmp_path / "none.png")
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(OSError, match=r"text\.png"):
        network.logits(str(tmp_path / "text.png"))


def test_the_middle_of_a_photograph_is_cut_out_upright() -> None:
    """Stripes beside a square are lost; a photograph on its side is turned."""
    square = np.zeros((64, 64, 3), np.uint8)
    square[:32], square[32:] = (250, 0, 0), (0, 0, 250)  # red above blue
    wide = np.full((64, 128, 3), 77, np.uint8)
    wide[:, 32:96] = square
    found = pixels(Image.fromarray(wide), (32, 32, 3))
    assert found.dtype == np.uint8 and found.shape == (32, 32, 3)
    assert (found[:12, 2:-2] == (250, 0, 0)).all() and (found[-12:, 2:-2] == (0, 0, 250)).all()
    turned = Image.fromarray(np.rot90(wide))
    turned.getexif()[0x0112] = 6  # as a camera held on its side says: turn it clockwise
    assert np.array_equal(pixels(turned, (32, 32, 3)), found)
    turned.getexif()[0x0112] = 1
    assert not np.array_equal(pixels(turned, (32, 32, 3)), found)
    assert pixels(Image.fromarray(wide), (16, 32, 3)).shape == (16, 32, 3)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGBA", "CMYK", "YCbCr", "HSV"])
def test_photographs_of_other_modes_are_what_they_show(mode: str) -> None:
    grey = np.full((8, 8), 255, np.uint8)
    grey[:, :4] = 0
    image = Image.fromarray(grey).convert("RGB").convert(mode if mode not in ("LA", "PA") else mode[0])
    image = image.convert(mode)
    for channels in (1, 3):
        assert np.array_equal(pixels(image, (8, 8, channels)), np.repeat(grey[..., None], channels, axis=2)), channels


def test_what_is_transparent_is_white_and_what_is_no_photograph_is_refused() -> None:
    clear = Image.fromarray(np.zeros((8, 8, 4), np.uint8))
    assert (pixels(clear, (8, 8, 3)) == 255).all()
    for array in (np.zeros((8, 8), np.uint16), np.zeros((8, 8), np.int32), np.zeros((8, 8), np.float32)):
        image = Image.fromarray(array)
        with pytest.raises(ValueError, match=f"more than 8 bits for each value .mode {image.mode}.; expected 8 bits"):
            pixels(image, (8, 8, 3))
    with pytest.raises(ValueError, match="the network takes 4 channels, which no photograph has; give arrays"):
        pixels(clear, (8, 8, 4))


def test_a_network_classifies_images_as_evaluation_does(trained: Path, few_images: Dataset) -> None:
    path = trained / "best.h5"
    checkpoint = checkpoints.load(path)
    network, parameters, moments = restore(path, checkpoint, checkpoint.config, np)
    images, labels = few_images.test_images, few_images.test_labels
    data = Images(images, labels, checkpoint.channel_mean, checkpoint.channel_std, "float32")
    classifier = load(path)
    logits = classifier(images)
    assert logits.shape == (len(images), 10) and logits.dtype == np.float32
    accuracy = evaluate(network, parameters, moments, data).accuracy
    assert np.mean(logits.argmax(1) == labels) == accuracy
    predicted = classifier.predict(images)
    assert predicted == [few_images.class_names[k] for k in logits.argmax(1)]
    assert classifier.predict(images[3]) == predicted[3:4]
    np.testing.assert_allclose(classifier.logits(images[3]), logits[3], rtol=0, atol=1e-4)
    for dtype in (np.float32, np.float64):
        floats = (images / 255).astype(dtype)
        np.testing.assert_allclose(classifier(floats), logits, rtol=0, atol=1e-3)
    x = standardise(images, checkpoint.channel_mean, checkpoint.channel_std)
    np.testing.assert_allclose(network(parameters, x, moments)[0], logits, rtol=0, atol=1e-4)
    assert classifier.moments.keys() == moments.keys()
    np.testing.assert_allclose(network.apply_merged(classifier.merged, x), logits, rtol=0, atol=1e-3)
    assert classifier(images[:0]).shape == (0, 10) and classifier.predict(images[:0]) == []


@pytest.mark.parametrize("size", [(64, 64), (48, 32), (16, 20)])
def test_arrays_of_another_size_are_what_their_files_are(trained: Path, few_images: Dataset, size: Any) -> None:
    network, rng = load(trained / "best.h5"), np.random.default_rng(0)
    images = rng.integers(0, 256, (3, *size, 3), np.uint8)
    expected = network([Image.fromarray(image) for image in images])
    assert np.array_equal(network(images), expected) and network(images[:0]).shape == (0, 10)
    assert network.predict(images[1]) == network.predict(Image.fromarray(images[1]))
    mild = images // 4 + 96  # so that nothing overshoots, which bytes cut off after each axis and floats after both
    floats = fitted(mild / 255, (32, 32))
    assert np.abs(floats - fitted(mild, (32, 32)) / 255).max() <= 1.2 / 255  # bytes are rounded after each axis
    assert (fitted(images / 255, (32, 32)) >= 0).all() and (fitted(images / 255, (32, 32)) <= 1).all()
    assert np.abs(network(mild / 255) - network(mild)).max() < 0.1 < np.abs(network(mild) - network(mild[::-1])).max()


def test_a_grey_network_takes_grey_arrays(tmp_path: Path) -> None:
    arrays = made_up((12, 12), classes=2)
    few = {"epochs": 1, "depth": 4, "width": 4, "validation_size": 0, "strided_layers": (), "flip": False}
    settings = make_config("sample", few)
    with pytest.raises(TypeError, match=r"dataset is a dict; give a name, a path or a hcnn\.train\.Dataset"):
        fit(settings, arrays, out=tmp_path / "run")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"dataset is a ndarray; .* hcnn\.HCNNClassifier\(\)\.fit\(X, y\) takes arrays"):
        fit("sample", arrays["x_train"], arrays["y_train"])
    with pytest.raises(TypeError, match="config is a dict; give a preset or a Config first, and images as dataset="):
        fit({"epochs": 1})  # type: ignore[arg-type]
    network = fit(settings, dataset_from_arrays("grey", arrays), out=tmp_path / "run")
    images = arrays["x_test"]
    expected = network(images[..., None])
    assert "Images (N, 12, 12, 1) or (N, 12, 12), or one alone" in network.takes and network.takes in network.card
    assert np.array_equal(network(images), expected)
    assert np.array_equal(network(images[..., None][0]), network(images[0]))
    larger = images.repeat(2, axis=1).repeat(2, axis=2)
    np.testing.assert_allclose(network(larger)[0], network(larger[0]), rtol=0, atol=1e-5)


def test_it_takes_arrays_of_another_device(trained: Path, few_images: Dataset) -> None:
    classifier = load(trained / "best.h5")
    images = few_images.test_images[:4]
    found = classifier(put(images))
    assert isinstance(found, Remote)
    np.testing.assert_allclose(take(found), classifier(images), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (np.zeros((2, 32, 32, 3), np.int64), TypeError, "images have dtype int64; give uint8"),
        (np.zeros((32, 32), np.uint8), ValueError, r"images have shape \(32, 32\); give \(N, H, W, 3\)"),
        (np.zeros((2, 32, 32, 1), np.uint8), ValueError, r"images have shape \(2, 32, 32, 1\); give \(N, H, W, 3\)"),
        (np.zeros((1, 3, 32, 32), np.uint8), ValueError, r"shape \(1, 3, 32, 32\)"),
        (np.zeros((2, 0, 32, 3), np.uint8), ValueError, r"images have shape \(2, 0, 32, 3\); .* H and W at least 1"),
        (np.full((32, 32, 3), 200.0), ValueError, "floats from 200 to 200; give 0 to 1"),
        (np.full((32, 32, 3), 1 + 1e-7), ValueError, "floats from 1.0000001 to 1.0000001; give 0 to 1"),
        (np.full((32, 32, 3), np.nan), ValueError, "floats from nan"),
    ],
)
def test_images_that_do_not_fit(trained: Path, images: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        load(trained / "best.h5")(images)


def test_names_are_found_unless_a_path_is_there_and_others_refused(
    command: Command, trained: Path, few_images: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in list_networks():
        assert find(name).parent == shipped.FOLDER
    shutil.copytree(trained, "hcnn-fast")
    assert find("hcnn-fast") == Path("hcnn-fast") and load("hcnn-fast").checkpoint.state.epoch == 4
    (tmp_path / "hcnn-fast" / "report.html").unlink()
    command("report", "./hcnn-fast").success()
    assert (tmp_path / "hcnn-fast" / "report.html").is_file()
    command("report", "hcnn-best").one_line(1, "hcnn-best holds no run")
    with pytest.raises(CheckpointError, match=r"no checkpoint at hcnn-bst \(did you mean hcnn-best\?\)"):
        load("hcnn-bst")
    command("--evaluate", "hcnn-bst").one_line(1, "no checkpoint at hcnn-bst", *list_networks())
    command("--evaluate", tmp_path / "none.h5").one_line(1, "there is no checkpoint at")


def test_what_ships_is_the_average_and_evaluates_as_recorded(
    command: Command, path: Path, tmp_path: Path, few_images: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    command(*FEW, "--epochs", 2, "--average-decay", 0.9, "--normalization", "both", "--out", path).success()
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    monkeypatch.chdir(tmp_path)
    last = path / "epoch0002-step000000.h5"
    assert "tiny.h5" in command("export", last, tmp_path / "tiny.h5").success()
    assert list_networks() == ["tiny"]
    before, after = checkpoints.load(last), checkpoints.load(tmp_path / "tiny.h5")
    assert np.array_equal(after.state.parameters["layer03"]["g"], before.state.average["layer03"]["g"])
    out = command("--evaluate", "tiny").success().splitlines()
    assert out[:2] == command("--evaluate", last).success().splitlines()[:2]
    assert f"recorded when it was trained: accuracy {100 * after.figures['test_accuracy']:.2f} %" == out[4]
    assert out[4].removeprefix("recorded when it was trained: ") in out[0]
    (tmp_path / "alone").mkdir()
    (tmp_path / "tiny.h5").rename(tmp_path / "alone" / last.name)
    command("--resume", tmp_path / "alone").one_line(1, f"{last.name} holds weights alone", "--init-from")
    assert bare(before, {}).config == make_config("sample", {**vars(before.config), "preset": "sample"})


@pytest.mark.parametrize(
    "settings",
    [("--normalization", "both"), ("--nonlinear-factors", "--normalization", "both"), ("--boundary", "periodic")],
)
def test_exported_filters_are_the_network(
    command: Command, tmp_path: Path, few_images: Dataset, settings: tuple[str, ...]
) -> None:
    """Layers written out from the file alone give the network's logits."""
    safetensors = pytest.importorskip("safetensors.numpy")
    run, target = tmp_path / "run", tmp_path / "network.safetensors"
    command(*FEW, "--epochs", 1, *settings, "--no-test", "--out", run).success()
    command("export", run / "best.h5", target).success()
    classifier, tensors = load(run / "best.h5"), safetensors.load_file(target)
    config = classifier.network.config
    x = standardise(few_images.test_images, tensors["data.channel_mean"], tensors["data.channel_std"])
    for layer in hierarchy(classifier.network):
        x = x.mean(3) if x.ndim == 6 else x
        axes, n = (1, 2, 3, 4)[: 2 + layer.attributes], len(layer.kernel_size)
        options = {"boundary": config.boundary, "stride": layer.stride}
        if layer.nonlinear:
            h, shift, g, bias = (tensors[f"{layer.name}.{name}"] for name in ("h", "shift", "g", "bias"))
            z = elu(convolve(x, h, (1, 2), boundary=config.boundary, stride=layer.stride[:2]) + shift)
            x = elu(convolve(z, g, (3, 4), sum_axes=5, boundary=config.boundary, stride=layer.stride[2:]) + bias)
        else:
            w, bias = tensors[f"{layer.name}.w"], tensors[f"{layer.name}.bias"]
            assert w.shape[-1 - n :] == (*layer.kernel_size, layer.filters)
            summed = {"sum_axes": 3} if layer.attributes == 0 else {}
            x = elu(convolve(x, w, axes, **options, **summed) + bias)
    logits = x.mean((1, 2, 3, 4)) * tensors["head.scale"]
    np.testing.assert_allclose(logits, classifier(few_images.test_images), rtol=0, atol=2e-4)
    assert sum(
        tensors[f"{la.name}.{n}"].size
        for la in hierarchy(classifier.network)
        for n in ("w", "h", "g")
        if f"{la.name}.{n}" in tensors
    ) == sum(la.counted for la in hierarchy(classifier.network))


def test_exports_that_cannot_be(command: Command, trained: Path, tmp_path: Path) -> None:
    best = trained / "best.h5"
    command("export", best, tmp_path / "net.pt").one_line(2, "ends in none of .h5", ".safetensors", ".onnx")
    (tmp_path / "net.h5").write_text("mine")
    command("export", best, tmp_path / "net.h5").one_line(1, "is there already; name a new file")
    assert (tmp_path / "net.h5").read_text() == "mine"
    command("export", tmp_path / "no.h5", tmp_path / "new.h5").one_line(1, "there is no checkpoint at")
    command("export", best, tmp_path / "new.h5", "--epochs", 3).one_line(2, "unrecognized arguments: --epochs 3")


@pytest.mark.parametrize("name", list_networks())
def test_what_ships_needs_no_gpu(name: str) -> None:
    assert load(name).network.config.backend == "auto"


def test_a_run_of_a_gpu_is_evaluated_where_there_is_none(
    command: Command, trained: Path, copied: Path, tmp_path: Path
) -> None:
    last = copied / "epoch0004-step000000.h5"
    checkpoint = checkpoints.load(last)
    config = replace(checkpoint.config, backend="cupy", precision="tf32")
    checkpoints.save(last, replace(checkpoint, config=config), {})
    expected = [line for line in command("--evaluate", trained).success().splitlines() if "accuracy" in line]
    assert [line for line in command("--evaluate", copied).success().splitlines() if "accuracy" in line] == expected
    command("report", copied).success()
    command("export", copied, tmp_path / "network.h5").success()
    assert checkpoints.load(tmp_path / "network.h5").config.backend == "auto"


def test_predict_takes_arrays_of_several_sizes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(tmp_path / f"{rows}.npy") for rows in (32, 40)]
    for file, rows in zip(files, (32, 40), strict=True):
        np.save(file, np.zeros((2, rows, 32, 3), np.uint8))
    assert predict.main(["hcnn-fast", *files]) == 0
    assert capsys.readouterr().out.count("\n") == 5  # a row for each sample, below the names
