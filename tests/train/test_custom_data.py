"""One's own images: files .npz and functions, of any size, 1 to 4 channels and any number of classes."""

from __future__ import annotations

import contextlib
import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io

from tests.train.commands import Arrays, arrays_of, made_up
from tests.train.runs import SMALL, Outcome, contents, finish, metrics, run_here, run_plainly, start
from train import load
from train.config import PRESETS, make_config, resolved, with_dataset
from train.data import DataError, load_dataset, readers, resize
from train.data.reading import dataset_from_arrays
from train.networks.registry import build
from train.recipes.schedules import image_size
from train.runs.checkpoint import CheckpointError
from train.runs.shipped import find

FASHION = (28, 28)
"""Shape of the images of Fashion-MNIST, whose files hold no axis of channels."""


def run(*arguments: object) -> Outcome:
    """The command line in this process, on the images that it names, without pictures."""
    return run_plainly(arguments, None)


@pytest.mark.parametrize(
    ("shape", "classes", "flags", "table"),
    [
        (FASHION, 10, (), "28x28x1"),
        ((40, 40, 3), 3, (), "40x40x3"),
        ((12, 20, 4), 2, ("--image-sizes", "8", "12"), "12x20x4"),
        ((9, 16, 2), 5, ("--shift", "0"), "9x16x2"),
        ((16, 24), 4, ("--boundary", "periodic"), "16x24x1"),
    ],
    ids=str,
)
def test_trained_evaluated_described_and_resumed(
    tmp_path: Path, shape: tuple[int, ...], classes: int, flags: tuple[str, ...], table: str
) -> None:
    file, whole = tmp_path / "images.npz", tmp_path / "run"
    arrays = made_up(shape, classes)
    np.savez_compressed(file, **arrays)
    given = (*SMALL, "--epochs", 2, "--dataset", file, *flags)
    assert table in run("--describe", *given).success()
    assert (
        f"sample on 32 images of {file}" in run_here((*given, "--out", whole), None).success()
    )  # 8 of 40 are held out
    records = metrics(whole)
    assert [record["epoch"] for record in records] == [1, 2, 2]

    out = run("--evaluate", whole).success()
    assert f"test: accuracy {100 * records[-1]['test_accuracy']:.2f} %" in out and "12 images" in out
    logits = load(whole).logits(images := arrays["x_test"].reshape(12, *shape[:2], -1))
    assert logits.shape == (12, classes)
    assert np.mean(logits.argmax(axis=1) == arrays["y_test"]) == pytest.approx(records[-1]["test_accuracy"])
    np.testing.assert_allclose(load(whole).logits(images / np.float32(255)), logits, rtol=0, atol=1e-4)
    with pytest.raises(ValueError, match=rf"give \(N, H, W, {images.shape[3]}\)"):
        load(whole).logits(images[:, :, :, :1].repeat(5, axis=3))

    part = tmp_path / "part"
    run(*given, "--epochs", 2, "--out", part, "--hours", 1e-9).success()
    run("--resume", part).success()
    assert metrics(part) == metrics(whole)


def test_a_tenth_of_ones_own_images_is_held_out_unless_told_otherwise(tmp_path: Path) -> None:
    """In the place of the number that a preset holds out of CIFAR's or of the sample's; one sentence says so."""
    file, out = tmp_path / "images.npz", tmp_path / "run"
    np.savez(file, **made_up((8, 8), 2))
    given = (*SMALL[:2], *SMALL[4:], "--epochs", 1, "--shift", 1, "--dataset", file)  # without --validation-size
    said = run(*given, "--out", out).success()
    assert "a tenth of the 40 training images, 4, is held out" in said and "36 are left to train on" in said
    assert "sample on 36 images" in said and "validation_accuracy" in metrics(out)[0]
    assert "held out" not in run(*given, "--validation-size", 0, "--out", tmp_path / "all").success()

    own = str(file)
    for preset in PRESETS:
        of_preset = PRESETS[preset].get("validation_size", 0)
        assert make_config(preset).held_out(50_000) == of_preset
        assert make_config(preset, {"dataset": own}).held_out(240) == 24
        assert with_dataset(make_config(preset), own).held_out(240) == 24
        assert make_config(preset, {"dataset": own, "validation_size": 3}).held_out(240) == 3
        assert with_dataset(make_config(preset, {"validation_size": 3}), own).held_out(240) == 3
    assert make_config("sample", {"dataset": own}).held_out(9) == 0


def test_a_function_of_the_working_directory(tmp_path: Path) -> None:
    """As a process; a function that a file names is called only where the command line names it too."""
    np.savez(tmp_path / "images.npz", **made_up((8, 8)))
    (tmp_path / "mine.py").write_text(
        "import numpy as np\ndef images():\n    print('called')\n    return dict(np.load('images.npz'))\n"
    )
    flags = (*SMALL, "--epochs", "1", "--shift", "1", "--dataset", "mine:images")
    begun = finish(start("-m", "train.cifar", *flags, "--out", "run", "--hours", 1e-9, cwd=tmp_path))
    assert "called" in begun.success()
    refused = finish(start("-m", "train.cifar", "--resume", "run", cwd=tmp_path))
    refused.one_line(2, "mine:images", "runs code", "--dataset mine:images")
    assert "called" not in refused.out
    resumed = finish(start("-m", "train.cifar", "--resume", "run", "--dataset", "mine:images", cwd=tmp_path))
    assert "test: accuracy" in resumed.success()
    refused = finish(start("-m", "train.cifar", "--evaluate", "run/best.h5", cwd=tmp_path))
    refused.one_line(2, "runs code", "--dataset mine:images")


def test_a_function_that_a_configuration_names_is_named_before_it_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And --describe calls none, nor imports its module."""
    np.savez(tmp_path / "images.npz", **made_up((8, 8)))
    (tmp_path / "hook_of_a_file.py").write_text(
        "import numpy as np\nprint('imported')\ndef images():\n    return dict(np.load('images.npz'))\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "a.toml").write_text("dataset = 'hook_of_a_file:images'\nshift = 1\nepochs = 1\n")
    flags = (*SMALL, "--epochs", 1, "--config", "a.toml")
    for given in (flags, (*SMALL, "--dataset", "hook_of_a_file:images")):
        refused = run(*given, "--describe")
        refused.one_line(2, "a description calls no function", "'hook_of_a_file:images'", "give a file")
        assert "imported" not in refused.out
    out = run(*flags, "--out", "run").success()
    line = "calling the function images of the module hook_of_a_file, which a.toml names\n"
    assert 0 <= out.index(line) < out.index("imported")
    assert line not in run(*flags, "--dataset", "hook_of_a_file:images", "--out", "other").success()


@pytest.mark.parametrize(
    ("source", "fragments"),
    [
        ("", ["cannot be called", "AttributeError"]),
        ("images = 3", ["cannot be called", "TypeError"]),
        ("def images(): return 1 / 0", ["ZeroDivisionError", "--debug"]),
        ("def images(): return [1]", ["returned a list", "x_train"]),
        ("def images(): return {}", ["no array x_train", "it has none"]),
        ("import nowhere_to_be_found", ["ModuleNotFoundError", "nowhere_to_be_found"]),
    ],
)
def test_functions_that_do_not_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, fragments: list[str], request: pytest.FixtureRequest
) -> None:
    module = f"hook_{abs(hash(request.node.name))}"
    (tmp_path / f"{module}.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    outcome = run("--dataset", f"{module}:images", "--out", "run")
    outcome.one_line(1, module, *fragments)
    assert not (tmp_path / "run").exists()


def test_a_function_may_return_a_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hook_of_a_set.py").write_text(
        "from train.data import load_dataset\nimages = lambda: load_dataset('sample')"
    )
    monkeypatch.syspath_prepend(tmp_path)
    found = load_dataset("hook_of_a_set:images")
    assert found.name == "hook_of_a_set:images" and found.class_names == load_dataset("sample").class_names


def without(*names: str) -> Callable[[Arrays], Arrays]:
    return lambda arrays: {name: array for name, array in arrays.items() if name not in names}


def with_(**changes: Any) -> Callable[[Arrays], Arrays]:
    return lambda arrays: arrays | changes


NAMES = np.array([f"class {i}" for i in range(10)])


@pytest.mark.parametrize(
    ("change", "fragments"),
    [
        (without("y_test"), ["no array y_test", "expected x_train, y_train, x_test, y_test"]),
        (without("x_train", "y_train"), ["no array x_train, y_train", "it has x_test, y_test"]),
        (
            with_(x_train=np.zeros((40, 8, 8, 3), complex)),
            ["x_train is complex128 of shape (40, 8, 8, 3)", "uint8 or int16"],
        ),
        (with_(x_train=np.zeros((40, 8, 8), bool)), ["x_train is bool", "uint8"]),
        (with_(x_train=np.zeros((40, 8, 8, 5), np.uint8)), ["(40, 8, 8, 5)", "say with an array space_axes"]),
        (
            with_(x_train=np.zeros((40, 3, 32, 32), np.uint8)),
            ["(40, 3, 32, 32)", "images of 32 channels (2) or volumes of one (3)"],
        ),
        (with_(x_train=np.zeros((40, 64), np.uint8)), ["training images are 64x1, test images 8x8x3"]),
        (with_(x_train=np.zeros((0, 8, 8, 3), np.uint8)), ["x_train is uint8 of shape (0, 8, 8, 3)"]),
        (with_(x_test=np.zeros((12, 9, 8, 3), np.uint8)), ["training images are 8x8x3, test images 9x8x3"]),
        (with_(x_test=np.zeros((11, 8, 8, 3), np.uint8)), ["test_labels is int64 of shape (12,)", "(11,)"]),
        (
            with_(y_train=np.zeros((40, 10), int)),
            ["y_train and y_test are int64 of shape (40, 10)", "both of one kind"],
        ),
        (with_(y_train=np.zeros(40)), ["y_train and y_test are float64", "give both of one kind"]),
        (with_(y_train=np.arange(40) % 10 - 1), ["y_train holds -1 to 8", "from 0"]),
        (with_(y_train=np.arange(40) % 10 + 1), ["y_train holds 1 to 10", "number the classes 0, 1, 2"]),
        (with_(y_train=np.zeros(40, int)), ["y_train holds 0 to 0", "class_names"]),
        (with_(y_train=np.arange(40) * 1000), ["y_train holds 0 to 39000 for 40 images"]),
        (with_(y_train=np.full(40, 2**64 - 1, np.uint64)), ["y_train holds", "from 0"]),
        (with_(y_test=np.full(12, 10)), ["test_labels lie in 10..10", "expected 0..9"]),
        (with_(class_names=NAMES[:9]), ["train_labels lie in 0..9", "expected 0..8"]),
        (with_(class_names=NAMES[:1].repeat(10)), ["class_names", "different strings"]),
        (with_(class_names=np.arange(10)), ["class_names is int64", "strings"]),
        (with_(y_train=np.array([[1], "two"], object)), ["cannot be read", "Python objects", "numpy.savez"]),
    ],
)
def test_arrays_that_do_not_do(tmp_path: Path, change: Callable[[Arrays], Arrays], fragments: list[str]) -> None:
    file = tmp_path / "images.npz"
    np.savez(file, **change(made_up((8, 8, 3))))
    before = contents(tmp_path)
    for flags in ((), ("--describe",)):
        run("--preset", "sample", "--dataset", file, *flags).one_line(1, str(file), *fragments)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("content", "fragments"),
    [
        (None, ["there is no file"]),
        (b"", ["cannot be read"]),
        (b"PK\3\4", ["cannot be read"]),
        (b"text", ["cannot be read"]),
    ],
)
def test_files_that_do_not_do(tmp_path: Path, content: bytes | None, fragments: list[str]) -> None:
    file = tmp_path / "images.npz"
    if content is not None:
        file.write_bytes(content)
    run("--dataset", file, "--out", tmp_path / "run").one_line(1, str(file), *fragments)
    assert not (tmp_path / "run").exists()


def test_an_array_that_no_machine_holds_is_not_a_matter_of_batches(tmp_path: Path) -> None:
    """The header of a damaged file may ask for 2.66 PiB."""
    file, header = tmp_path / "images.npz", io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (3_000_000_000_000, 10, 10, 10)}
    )
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x_train.npy", header.getvalue())
    line = run("--dataset", file, "--out", tmp_path / "run").one_line(1, str(file), "2.66 PiB", "damaged or too large")
    assert "batch" not in line


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    """Half of it, and every one of some bytes changed, in whichever array it lies."""
    file = tmp_path / "images.npz"
    np.savez_compressed(file, **made_up((8, 8, 3)))
    whole = file.read_bytes()
    good = load_dataset(str(file))
    for place in (*range(60, len(whole), len(whole) // 40), None):
        damaged = (
            whole[: len(whole) // 2]
            if place is None
            else whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :]
        )
        file.write_bytes(damaged)
        try:
            found = load_dataset(str(file))
        except DataError as error:
            assert "\n" not in str(error)
        else:  # what changed is nothing that is read, such as a time
            for name in ("train_images", "train_labels", "test_images", "test_labels"):
                assert np.array_equal(getattr(found, name), getattr(good, name))
    assert place is None


def test_forms_that_do() -> None:
    arrays = made_up((8, 6), 3)
    plain = dataset_from_arrays("a", arrays)
    assert plain.image_shape == (8, 6, 1) and plain.class_names == ("0", "1", "2")
    named = dataset_from_arrays("a", arrays | {"class_names": NAMES[:4]})
    assert named.class_names == tuple(NAMES[:4]) and named.info.classes == 4


@pytest.mark.parametrize(
    ("shape", "flags", "fragments"),
    [
        (
            (28, 28),
            ("--strided-layers", "2", "3", "4"),
            ["images of 28x28 cannot be periodic", "layer 4", "axis of 7 by 2"],
        ),
        ((32, 20), ("--strided-layers", "2", "3", "4"), ["images of 32x20", "axis of 5 by 2", "--boundary zero"]),
        ((32, 32), ("--image-sizes", "10", "32"), ["images of 10x10", "axis of 5 by 2"]),
        ((32, 32), ("--width", "6"), ["--width 6 cannot be periodic", "axis of 3 by 2", "another width"]),
    ],
)
def test_what_strides_do_not_divide_cannot_be_periodic(
    tmp_path: Path, shape: tuple[int, ...], flags: tuple[str, ...], fragments: list[str]
) -> None:
    file = tmp_path / "images.npz"
    np.savez(file, **made_up(shape))
    given = (*SMALL, "--dataset", file, "--out", tmp_path / "run", *flags, "--epochs", 2)
    run(*given, "--boundary", "periodic").one_line(2, *fragments)
    assert not (tmp_path / "run").exists()
    if "--width" in flags:
        run(*given, "--boundary", "attributes").one_line(2, *fragments)
    run(*given, "--boundary", "zero" if "--width" in flags else "attributes", "--epochs", 1, "--hours", 1e-9).success()


def test_a_shift_out_of_sight_and_a_channel_without_news(tmp_path: Path) -> None:
    arrays = made_up((6, 20, 4))
    np.savez(tmp_path / "a.npz", **arrays)
    given = (*SMALL, "--out", tmp_path / "run", "--dataset")
    run(*given, tmp_path / "a.npz", "--shift", 6).one_line(2, "shift is 6; images of 6x20 allow 0 to 5")
    for part in ("x_train", "x_test"):
        arrays[part][..., 3] = 255
    np.savez(tmp_path / "b.npz", **arrays)
    run(*given, tmp_path / "b.npz").one_line(1, "channel 3 of the training images", "is 255 everywhere; leave it out")
    for part in ("x_train", "x_test"):
        arrays[part] = arrays[part] * [1, 1, 1e300, 1]
    np.savez(tmp_path / "c.npz", **arrays)
    run(*given, tmp_path / "c.npz").one_line(1, "channel 2 of the training images", "values so large")
    assert not (tmp_path / "run").exists()


def test_evaluated_on_other_images(tmp_path: Path) -> None:
    for name, shape, classes in (("a", (8, 8), 4), ("b", (8, 9), 4), ("c", (8, 8), 3)):
        np.savez(tmp_path / f"{name}.npz", **made_up(shape, classes))
    run(*SMALL, "--epochs", 1, "--shift", 1, "--dataset", tmp_path / "a.npz", "--out", tmp_path / "run").success()
    best = tmp_path / "run" / "best.h5"
    for name, kind in (("b", "4 classes of 8x9x1 images"), ("c", "3 classes of 8x8x1 images")):
        refused = run("--evaluate", best, "--dataset", tmp_path / f"{name}.npz")
        refused.one_line(1, "tells 4 classes of 8x8x1 images apart", f"{name}.npz has {kind}")
    run("--evaluate", best, "--dataset", "sample").one_line(1, "10 classes of 32x32x3 images", "--dataset")
    given = (*SMALL, "--epochs", 2, "--shift", 1, "--dataset", tmp_path / "a.npz", "--out", tmp_path / "part")
    run(*given, "--hours", 1e-9).success()
    before = contents(tmp_path / "part")
    run("--resume", tmp_path / "part", "--dataset", tmp_path / "c.npz").one_line(
        1, "trained on other images", "52 of its 52"
    )
    np.savez(tmp_path / "d.npz", **made_up((8, 8), 4, seed=1))
    run("--resume", tmp_path / "part", "--dataset", tmp_path / "d.npz").one_line(1, "trained on other images", "d.npz")
    assert contents(tmp_path / "part") == before
    (tmp_path / "a.npz").rename(tmp_path / "moved.npz")
    run("--resume", tmp_path / "part").one_line(1, "there is no file", "a.npz", "--dataset")
    run("--resume", tmp_path / "part", "--dataset", tmp_path / "moved.npz").success()


@pytest.mark.parametrize("preset", [name for name in PRESETS if name not in ("signal", "volume")])
def test_a_preset_ends_at_the_size_that_is_evaluated(preset: str) -> None:
    """No epoch has images below 8 pixels; a shift and a cutout hide the same part of images of any size."""
    config = make_config(preset)
    at_32 = [image_size(config, epoch, (32, 32))[0] for epoch in range(config.epochs)]
    for side in (8, 28, 32, 64, 96):
        sizes = [image_size(config, epoch, (side, side)) for epoch in range(config.epochs)]
        assert sizes[-1] == (side, side) and min(sizes) >= (8, 8)
        if side == 64:
            assert [size[0] for size in sizes] == [2 * n for n in at_32]
        there = resolved(config, (side, side), "classes", "d")
        for pixels, meant in ((there.shift, config.shift), (there.cutout, config.cutout)):
            assert abs(pixels - meant * side / 32) <= 0.5 or pixels == 1
    assert resolved(config, (32, 32), "classes", "d").shift == config.shift
    for lengths in ((96,), (96, 96, 96)):  # samples of signals and volumes are no pixels
        assert resolved(config, lengths, "classes", "d").shift == config.shift
    own = make_config(preset, {"shift": 3, "image_sizes": (16,)})
    assert resolved(own, (96, 96), "classes", "d").shift == 3  # pixels, if a user gives them
    assert {image_size(own, epoch, (96, 96)) for epoch in range(config.epochs)} == {(16, 16)}


def test_a_network_that_never_saw_images_of_the_size_of_the_test_says_so(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (12, 16, 16, 1), dtype=np.uint8), np.arange(12) % 2
    np.savez(tmp_path / "a.npz", x_train=x, y_train=y, x_test=x[:4], y_test=y[:4])
    given = (*SMALL[:2], *SMALL[4:], "--epochs", 2, "--validation-size", 0, "--dataset", tmp_path / "a.npz")
    small = run(*given, "--image-sizes", 8, "--out", tmp_path / "small").success()
    warning = "the last epochs train on images of 8x8, and images of 16x16 are evaluated"
    assert warning in small and "shift 1 (2 in the preset): pixels, scaled from images of 32 to 16" in small
    assert "--no-flip, in Python flip=False, where that makes another class" in small
    assert warning in run("--evaluate", tmp_path / "small").success()
    shares = ("--image-shares", 0.5, 1, "--no-flip", "--shift", 2, "--schedule", "constant")
    whole = run(*given, *shares, "--out", tmp_path / "whole").success()
    assert "in equal parts of the epochs: 8x8, 16x16" in whole
    assert "last epochs" not in whole and "mirrored;" not in whole and "scaled from" not in whole
    longer = run("--resume", tmp_path / "whole", "--epochs", 3)
    longer.one_line(2, "--image-shares are spread over all 2 epochs")
    run(*given, "--image-sizes", 8, *shares[-2:], "--out", tmp_path / "one").success()
    run("--resume", tmp_path / "one", "--epochs", 3).success()  # one size is that of any number of epochs


def test_sizes_keep_the_proportion_of_oblong_images() -> None:
    config = make_config("hcnn", {"image_sizes": [8, 12], "epochs": 4})
    assert [image_size(config, epoch, (24, 41)) for epoch in range(4)] == [(8, 14)] * 2 + [(12, 21)] * 2
    few = make_config("hcnn", {"image_sizes": [8, 12, 16], "epochs": 2})
    assert [image_size(few, epoch, (24, 24)) for epoch in range(2)] == [(12, 12), (16, 16)]
    shares = make_config("hcnn", {"image_shares": [0.5, 0.8], "epochs": 2})
    assert [image_size(shares, epoch, (24, 41)) for epoch in range(2)] == [(12, 21), (19, 32)]
    images = np.random.default_rng(0).random((2, 6, 9, 2))
    small = resize(images, (2, 3))
    np.testing.assert_allclose(small, images.reshape(2, 2, 3, 3, 3, 2).mean(axis=(2, 4)), rtol=0, atol=1e-12)
    assert not np.allclose(resize(images, (3, 2)).swapaxes(1, 2), small)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_initial_outputs_are_of_order_one_whatever_the_channels(channels: int) -> None:
    """The variance of the first filters counts the channels they sum."""
    network = build(make_config("sample", {"width": 16}), (12, 16), 3, channels)
    rng = np.random.default_rng(0)
    parameters = network.initialize(rng)
    assert parameters["layer01"]["w"].shape == (channels, 3, 3, 16)
    x = rng.standard_normal((20, 12, 16, channels)).astype(np.float32)
    layer = next(iter(network.trace(parameters, x)))[1]
    assert 0.4 < float(np.mean(layer**2)) < 1.0  # 0.64 expected: rho of a standard normal


def test_another_kind_of_files_is_one_entry_of_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read by SciPy, MATLAB's files are the same data set as a file .npz, wherever one is named or refused."""

    def read(path: Path) -> Any:
        return contextlib.nullcontext({k: a for k, a in scipy.io.loadmat(path).items() if k[0] != "_"})

    arrays = made_up((8, 8, 3))
    np.savez(tmp_path / "a.npz", **arrays)
    scipy.io.savemat(mat := tmp_path / "a.mat", arrays, oned_as="column")
    with pytest.raises(ValueError, match=r"a\.mat'; choose cifar10, .*; numpy\.savez\('FILE\.npz', x_train=\.\."):
        load_dataset(str(mat))
    monkeypatch.setitem(readers.READERS, ".mat", readers.Reader(read, named=True))
    assert arrays_of(load_dataset(str(mat))) == arrays_of(load_dataset(str(tmp_path / "a.npz")))
    assert make_config("hcnn", {"dataset": str(mat)}).dataset == str(mat) and ".mat" in readers.endings_for(2)
    reader = readers.reader_of(mat)
    assert reader is not None and np.array_equal(reader.samples(mat)[0], arrays["x_test"])
    with pytest.raises(CheckpointError, match="holds data, no network"):
        find(mat)
    mat.write_text("no")
    with pytest.raises(DataError, match=r"a\.mat: cannot be read .*make it with numpy\.savez"):
        load_dataset(str(mat))


def test_classes_in_another_order_are_refused(tmp_path: Path) -> None:
    arrays = made_up((8, 10), 2)
    files = {}
    for names in ("ab", "ba"):
        files[names] = tmp_path / f"{names}.npz"
        flip = names == "ba"
        of_labels = {k: np.where(v == 0, 1, 0) if flip and k.startswith("y") else v for k, v in arrays.items()}
        np.savez(files[names], **of_labels, class_names=list(names))
    run = tmp_path / "run"
    flags = (*SMALL, "--shift", 1, "--epochs", 1, "--dataset", files["ab"], "--out", run)
    run_plainly(flags, None).success()
    run_here(("--evaluate", run, "--dataset", files["ab"]), None).success()
    for command in ("--evaluate", "report"):
        outcome = run_here((command, run, "--dataset", files["ba"]), None)
        assert outcome.status == 1 and "calls class 0 'a'" in outcome.err and "calls it 'b'" in outcome.err
    parts = {name: a / np.float32(255) if name.startswith("x") else a for name, a in arrays.items()}
    np.savez(tmp_path / "parts.npz", **parts, class_names=["a", "b"], space_axes=2)
    outcome = run_here(("--evaluate", run, "--dataset", tmp_path / "parts.npz"), None)
    assert outcome.status == 1 and "takes values of uint8, those of" in outcome.err and "are float32" in outcome.err
