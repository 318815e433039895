"""Pictures in folders by class, what is kept of them, and the command that classifies files."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.train.runs import SMALL, run_here
from train import Dataset, load, load_dataset, predict
from train.config import ConfigError, make_config
from train.data import DataError, folder
from train.data.photographs import pixels


def write(path: Path, image: np.ndarray[Any, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, image)
    else:
        lossless = {"lossless": True} if path.suffix == ".webp" else {"quality": 100}
        Image.fromarray(image).save(path, **lossless)


@pytest.fixture
def pictures(few_images: Dataset, tmp_path: Path) -> Path:
    """Forty pictures of two classes in files of all kinds, those of a class a to e in order."""
    root = tmp_path / "pictures"
    for k in range(40):
        ending = folder.ENDINGS[k // 2 % len(folder.ENDINGS)]
        write(root / ("cat", "dog")[k % 2] / f"{k:02d}{ending}", few_images.train_images[k])
    return root


def test_pictures_in_hidden_folders_are_none_of_the_data(tmp_path: Path) -> None:
    for name in ("cat/a.png", "cat/.thumbnails/b.png", ".trash/cat/c.png", "cat/.d.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert folder.files_in(tmp_path) == [tmp_path / "cat" / "a.png"]
    assert folder.files_in(tmp_path / ".trash") == [tmp_path / ".trash" / "cat" / "c.png"]  # which was named


def named(root: Path) -> dict[str, np.ndarray[Any, Any]]:
    """What each file is read as."""
    return {str(p.relative_to(root)): pixels(p, (32, 32, 3)) for p in folder.files_in(root)}


def load_kept(root: Path, **options: Any) -> Dataset:
    return load_dataset(f"{root}", root.parent / "kept", **options)


def test_a_folder_without_parts_is_split_by_class(pictures: Path) -> None:
    data = load_kept(pictures)
    assert data.class_names == ("cat", "dog") and data.name == f"{pictures}/" and data.notes == ()
    assert np.bincount(data.test_labels).tolist() == [4, 4] and np.bincount(data.train_labels).tolist() == [16, 16]
    of = {image.tobytes(): path[:3] for path, image in named(pictures).items()}
    for images, labels in ((data.train_images, data.train_labels), (data.test_images, data.test_labels)):
        assert [of.pop(image.tobytes()) for image in images] == [data.class_names[k] for k in labels]
    assert not of  # each is in one of the parts, once


def test_folders_of_parts_are_the_parts(pictures: Path, tmp_path: Path) -> None:
    shutil.copytree(pictures, tmp_path / "parts" / "train")
    shutil.copytree(pictures / "dog", tmp_path / "parts" / "test" / "dog" / "more")
    data = load_kept(tmp_path / "parts")
    assert len(data.train_labels) == 40 and data.test_labels.tolist() == [1] * 20
    assert np.array_equal(data.test_images, data.train_images[data.train_labels == 1])
    (tmp_path / "parts" / "test" / "dog").rename(tmp_path / "parts" / "test" / "cow")
    with pytest.raises(DataError, match="class cow has no pictures in train"):
        load_kept(tmp_path / "parts")


def test_sizes_that_differ_are_brought_to_one_and_it_is_said(pictures: Path) -> None:
    wide = np.zeros((64, 128, 3), np.uint8)
    wide[:, 32:96] = 200
    write(pictures / "cat" / "00.png", wide)
    data = load_kept(pictures)
    assert data.image_shape == (32, 32, 3) and "are resized by the shorter side and cropped" in data.notes[0]
    assert any((image[:, 2:-2] == 200).all() for image in np.concatenate([data.train_images, data.test_images]))
    large = load_dataset(f"{pictures}/:48", pictures.parent / "kept")
    assert large.image_shape == (48, 48, 3) and large.name.endswith("/:48")


def test_grey_pictures_stay_grey_unless_some_have_colours(few_images: Dataset, tmp_path: Path) -> None:
    for k, image in enumerate(few_images.train_images[:20, ..., 0]):
        write(tmp_path / "grey" / "ab"[k % 2] / f"{k}{('.png', '.npy')[k // 10]}", image)
    assert load_kept(tmp_path / "grey").image_shape == (32, 32, 1)
    write(tmp_path / "grey" / "a" / "colour.png", few_images.train_images[0])
    data = load_kept(tmp_path / "grey")
    assert data.image_shape == (32, 32, 3) and (data.train_images[..., :1] == data.train_images).mean() > 0.9


def test_files_that_cannot_be_read_are_listed(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (pictures / "cat" / "text.png").write_text("no picture")
    whole = (pictures / "cat" / "00.png").read_bytes()
    (pictures / "dog" / "half.png").write_bytes(whole[: len(whole) // 2])
    np.save(pictures / "dog" / "floats.npy", np.zeros((32, 32)))
    for _ in range(2):  # the second is from what is kept
        data = load_kept(pictures)
        assert len(data.train_labels) + len(data.test_labels) == 40 and len(data.notes) == 3
        for note, name in zip(data.notes, ("cat/text.png", "dog/floats.npy", "dog/half.png"), strict=True):
            assert note.startswith(f"{pictures}/{name} cannot be read: ")
    monkeypatch.setattr(folder, "LISTED", 1)
    said = folder.listed([(Path("a"), "x"), (Path("b"), "y")])
    assert said == ["a cannot be read: x", "and 1 more files cannot be read"]


def test_what_is_kept_is_checked_and_follows_the_files(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, reads = load_kept(pictures), []
    monkeypatch.setattr(folder, "pixels", lambda path, shape: (reads.append(path), pixels(path, shape))[1])
    assert load_kept(pictures).checksum() == first.checksum() and not reads
    (kept,) = (pictures.parent / "kept").iterdir()
    good = kept.read_bytes()
    place = good.index(first.train_images.tobytes()[:100])
    for damaged in (good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :], good[: len(good) // 2], b""):
        kept.write_bytes(damaged)
        reads.clear()
        assert load_kept(pictures).checksum() == first.checksum() and len(reads) == 40
    write(pictures / "cat" / "00.png", np.zeros((32, 32, 3), np.uint8))
    assert load_kept(pictures).checksum() != first.checksum()


def test_an_interrupted_conversion_leaves_nothing(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("train.storage.files.os.replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            load_kept(pictures)
    assert not list((pictures.parent / "kept").iterdir())
    (pictures.parent / "kept").rmdir()
    (pictures.parent / "kept").write_text("a file where a folder is wanted")
    assert "cannot be kept in" in load_kept(pictures).notes[-1]


def test_pictures_of_16_bits_are_no_pictures(pictures: Path) -> None:
    """One of them does not make grey pictures coloured; where all are, it is said why nothing can be read."""
    grey = np.zeros((8, 8), np.uint8)
    for path in [*(pictures / "cat").iterdir(), *(pictures / "dog").iterdir()]:
        path.unlink()
    for k in range(10):
        for name in ("cat", "dog"):
            write(pictures / name / f"{k}.png", grey)
    write(pictures / "cat" / "deep.png", grey.astype(np.uint16))
    found = load_kept(pictures)
    assert found.image_shape == (8, 8, 1) and "deep.png cannot be read: the image has mode I;16" in found.notes[-1]
    for k in range(10):
        for name in ("cat", "dog"):
            write(pictures / name / f"{k}.png", grey.astype(np.uint16))
    with pytest.raises(DataError, match=r"mode I;16, not 8 bits .*; convert it to 8 bits, nor any other of"):
        load_kept(pictures)


def test_folders_that_do_not_do_are_refused(pictures: Path, tmp_path: Path) -> None:
    shutil.rmtree(pictures / "dog")
    for root, message in (
        (pictures, "holds cat; expected two or more folders, one for each class"),
        (tmp_path / "none/", "there is no folder"),
    ):
        with pytest.raises(DataError, match=message):
            load_dataset(f"{root}/", tmp_path / "kept")
    (pictures / "dog").mkdir()
    (pictures / "dog" / "a.png").write_text("text")
    (pictures / "cat").rename(pictures / "cut")
    assert load_kept(pictures).class_names == ("cut", "dog")
    shutil.rmtree(pictures / "cut")
    write(pictures / "eel" / "a.png", np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(DataError, match="no class has the 5 pictures of which one is for the test"):
        load_kept(pictures)
    for part in ("train", "test"):
        (pictures / part).mkdir()
    for name in ("dog", "eel"):
        (pictures / name).rename(pictures / "train" / name)
    with pytest.raises(DataError, match="test holds no pictures; give it some, or take it away"):
        load_kept(pictures)
    with pytest.raises(ConfigError, match=r"choose cifar10, cifar100, sample, a file FILE\.npz, a folder"):
        make_config("sample", {"dataset": "not-there"})


def test_a_network_is_trained_on_a_folder_and_classifies_files(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (pictures / "cat" / "text.png").write_text("no picture")
    arguments = (*SMALL, "--epochs", "1", "--dataset", "pictures", "--out", "run", "--no-test")
    assert "pictures/cat/text.png cannot be read" in run_here(arguments, None).success()
    network = load("run")
    assert network.checkpoint.config.dataset == "pictures/" and network.class_names == ("cat", "dog")
    assert predict.main(["run", "pictures/dog", "pictures/cat/00.png", "--out", "table.csv"]) == 0
    rows = list(csv.DictReader(Path("table.csv").read_text().splitlines()))
    files = [*folder.files_in(Path("pictures/dog")), Path("pictures/cat/00.png")]
    assert [row["path"] for row in rows] == list(map(str, files))
    assert [row["class"] for row in rows] == network.predict(files)
    expected = network.probabilities(files)
    for row, of_classes in zip(rows, np.asarray(expected), strict=True):
        assert {row["class"], row["class_2"]} == {"cat", "dog"} and "class_3" not in row
        assert float(row["probability"]) == pytest.approx(of_classes.max(), abs=1e-5)
    capsys.readouterr()
    assert predict.main(["run", "pictures/cat"]) == 1
    out, err = capsys.readouterr()
    assert out.count("\n") == 21 and err.startswith("pictures/cat/text.png cannot be read")
    Path("empty").mkdir()
    assert predict.main(["run", "nowhere.png"]) == 1 and "No such file" in capsys.readouterr().err
    assert predict.main(["run", "empty"]) == 1 and "empty holds no files .png, " in capsys.readouterr().err
