"""Pictures in folders by class, what is kept of them, and the command that classifies files."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import os
import shutil
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hcnn_core import convolve, planning
from tests.train.commands import arrays_of, made_up, needs_proc
from tests.train.runs import SMALL, finish, run_here, start
from train import Dataset, fit, load, load_dataset, predict, resume
from train.config import ConfigError, make_config
from train.data import DataError, MappedImages, folder, other_pixels, photographs, split_validation, train_subset
from train.data.description import samples_of
from train.data.photographs import pixels
from train.data.reading import Reading
from train.data.reading import load as read
from train.pages import Table
from train.runs.run import Interrupted

ENDINGS = (".png", ".JPG", ".tif", ".webp", ".npy", ".bmp", ".gif", ".jfif", ".NPY")


def write(path: Path, image: np.ndarray[Any, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() == ".npy":
        with path.open("wb") as stream:
            np.save(stream, image)
    else:
        lossless = {"lossless": True} if path.suffix == ".webp" else {"quality": 100}
        Image.fromarray(image).save(path, **lossless)


@pytest.fixture
def pictures(few_images: Dataset, tmp_path: Path) -> Path:
    """Forty pictures of two classes in files of all kinds, those of a class a to e in order."""
    root = tmp_path / "pictures"
    for k in range(40):
        ending = ENDINGS[k // 2 % len(ENDINGS)]
        write(root / ("cat", "dog")[k % 2] / f"{k:02d}{ending}", few_images.train_images[k])
    return root


def test_pictures_in_hidden_folders_are_none_of_the_data(tmp_path: Path) -> None:
    for name in ("cat/a.png", "cat/.thumbnails/b.png", ".trash/cat/c.png", "cat/.d.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert folder.files_in(tmp_path, Counter()) == [tmp_path / "cat" / "a.png"]
    assert folder.files_in(tmp_path / ".trash", Counter()) == [tmp_path / ".trash" / "cat" / "c.png"]  # which was named


def named(root: Path) -> dict[str, np.ndarray[Any, Any]]:
    """What each file is read as."""
    return {str(p.relative_to(root)): pixels(p, (32, 32, 3)) for p in folder.files_in(root, Counter())}


def load_kept(root: Path, **options: Any) -> Dataset:
    return load_dataset(f"{root}", root.parent / "kept", **options)


def fraction(path: Path) -> float:
    return int(hashlib.sha256(path.read_bytes()).hexdigest()[:16], 16) / 2**64


def parts_of(data: Dataset) -> dict[str, set[str]]:
    """Names of files in each part."""
    assert data.samples is not None
    names, count = data.samples.names, len(data.train_labels)
    held_out = data.samples.held_out
    there = np.zeros(count, bool) if held_out is None else held_out
    return {
        "train": {name for name, held in zip(names, there, strict=False) if not held},
        "held out": {name for name, held in zip(names, there, strict=False) if held},
        "test": set(names[count:]),
    }


def test_a_folder_without_parts_is_split_by_what_its_files_hold(pictures: Path) -> None:
    """By an oracle: the SHA-256 of each file; a picture that is added or renamed moves no other."""
    for name in ("cat", "dog"):
        for k in range(20):
            write(
                pictures / name / f"more{k}.png",
                np.random.default_rng((k, ord(name[0]))).integers(0, 256, (32, 32, 3), "u1"),
            )
    data = load_kept(pictures)
    assert data.class_names == ("cat", "dog") and data.name == f"{pictures}/" and data.notes == ()
    of_files = {p.relative_to(pictures).as_posix(): fraction(p) for p in pictures.rglob("*.*")}
    below = {name for name, value in of_files.items() if value < 1 / 5}
    assert parts_of(data)["test"] == below and parts_of(data)["train"] == of_files.keys() - below and len(below) > 4
    of = {image.tobytes(): path[:3] for path, image in named(pictures).items()}
    for images, labels in ((data.train_images, data.train_labels), (data.test_images, data.test_labels)):
        assert [of[image.tobytes()] for image in images] == [data.class_names[k] for k in labels]

    write(pictures / "cat" / "new.png", np.zeros((32, 32, 3), np.uint8))
    (pictures / "dog" / "more3.png").rename(pictures / "dog" / "00 first.png")
    after = parts_of(load_kept(pictures))
    assert after["test"] - {"cat/new.png", "dog/00 first.png"} == below - {"dog/more3.png"}
    assert ("dog/00 first.png" in after["test"]) == ("dog/more3.png" in below)


def test_what_is_for_the_test_of_few_and_of_copies() -> None:
    low, high = np.uint64(7), np.uint64(2**63)
    assert folder.tested(np.array([high + np.uint64(k) for k in range(5)])).tolist() == [True] + [False] * 4
    assert not folder.tested(np.array([low, high, high, high])).any()
    assert folder.tested(np.array([low, low, high, high, high])).tolist() == [True] * 2 + [False] * 3
    assert not folder.tested(np.array([low] * 5)).any()


@pytest.mark.parametrize(
    "names", [("train", "val", "test"), ("Train", "Valid", "TEST"), ("training", "dev", "testing")], ids=str
)
def test_folders_of_parts_are_the_parts(pictures: Path, tmp_path: Path, names: tuple[str, str, str]) -> None:
    root = tmp_path / "parts"
    shutil.copytree(pictures, root / names[0])
    (root / names[1] / "cat").mkdir(parents=True)
    for k in range(3):
        write(root / names[1] / "cat" / f"{k}.png", np.full((32, 32, 3), 50 + k, np.uint8))
    shutil.copytree(pictures / "dog", root / names[2] / "dog" / "more")
    data = load_kept(root)
    assert len(data.train_labels) == 43 and data.test_labels.tolist() == [1] * 20
    assert parts_of(data)["held out"] == {f"{names[1]}/cat/{k}.png" for k in range(3)}
    assert [part.tolist() for part in split_validation(data, 0, 0)] == [list(range(40)), [40, 41, 42]]
    assert parts_of(train_subset(data, 5))["held out"] == parts_of(data)["held out"]
    assert len(train_subset(data, 5).train_labels) == 8
    (root / names[2]).rename(root / "elsewhere")
    with pytest.raises(
        DataError, match=f"has elsewhere beside the parts {names[0]}, {names[1]}|{names[1]}, {names[0]}"
    ):
        load_kept(root)
    shutil.rmtree(root / "elsewhere")
    data = load_kept(root)
    assert any("has no folder test: " in note for note in data.notes) and len(parts_of(data)["held out"]) == 3
    (root / names[1] / "cat").rename(root / names[1] / "cow")
    with pytest.raises(
        DataError, match=f"class cow has no pictures in train; give it some, or take it from .*/{names[1]}"
    ):
        load_kept(root)
    shutil.rmtree(root / names[1])
    assert (samples := load_kept(root).samples) is not None and samples.held_out is None


def test_names_of_parts_that_are_no_parts(pictures: Path) -> None:
    shutil.copytree(pictures / "dog", pictures / "train" / "steam")
    assert load_kept(pictures).class_names == ("cat", "dog", "train")
    shutil.copytree(pictures / "dog", pictures / "test" / "steam")
    with pytest.raises(DataError, match="has cat beside the parts test, train; move it away"):
        load_kept(pictures)
    for name in ("cat", "dog"):
        shutil.rmtree(pictures / name)
    shutil.copytree(pictures / "test", pictures / "Testing")
    with pytest.raises(DataError, match="has folders Testing, test, train, two for one part"):
        load_kept(pictures)
    for name in ("Testing", "test", "train"):
        shutil.move(pictures / name / "steam", pictures / "moved")
        shutil.rmtree(pictures / name)
        (pictures / "moved").rename(pictures / name)
    shutil.rmtree(pictures / "Testing")
    with pytest.raises(DataError, match="has test, train without classes; put the pictures of each class"):
        load_kept(pictures)


def test_what_is_left_out_is_said_by_reason_and_count(pictures: Path, tmp_path: Path) -> None:
    (pictures / "fox").mkdir()
    for k in range(3):
        (pictures / "fox" / f"{k}.jpg").symlink_to(f"../../annex/{k}")
    (pictures / "cat" / "notes.txt").write_text("no picture")
    (pictures / "cat" / "loop").symlink_to("..")
    write(pictures / "beside.png", np.zeros((8, 8, 3), np.uint8))
    write(tmp_path / "linked" / "a.png", np.full((32, 32, 3), 9, np.uint8))
    (pictures / "dog" / "link").symlink_to(tmp_path / "linked")
    for name in ("@eaDir", "__MACOSX", ".ipynb_checkpoints"):
        write(pictures / name / "a.png", np.zeros((8, 8, 3), np.uint8))
    data = load_kept(pictures)
    assert data.class_names == ("cat", "dog") and "dog/link/a.png" in {
        name for p in parts_of(data).values() for name in p
    }
    said = "broken links: 3, files .txt: 1, folders of runs and of other programs: 2"
    assert data.notes[0].startswith(f"left out of {pictures}: {said}, ") and data.notes[0].endswith(
        "links that lead back: 1, pictures beside the folders of classes: 1"
    )
    assert data.notes[1] == f"no class of {pictures}, since no picture lies there: fox"


def test_the_program_s_own_files_are_no_class(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(pictures)
    flags = (*SMALL, "--epochs", 1, "--validation-size", 2, "--dataset", ".")
    for _ in range(2):
        assert "runs/sample-" in run_here(flags, None).success()
    assert load_dataset(".").class_names == ("cat", "dog")


def test_a_known_name_is_the_known_set_and_a_path_the_folder(
    pictures: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    pictures.rename("sample")
    assert load_dataset("sample").name == "sample" and "--dataset sample/" in load_dataset("sample").notes[0]
    assert (
        make_config("sample").dataset == "sample" and make_config("sample", {"dataset": "sample/"}).dataset == "sample/"
    )
    for name in ("sample/", Path("sample")):
        assert load_dataset(name).class_names == ("cat", "dog")
    Path("cifar10").mkdir()
    with pytest.raises(DataError, match="no cifar10 in cifar10"):
        load_dataset("cifar10", "cifar10", download=False)


@pytest.mark.parametrize("ending", ["jpg", "png", "tif", "webp"])
def test_pictures_are_turned_upright_in_every_format(tmp_path: Path, ending: str) -> None:
    """Read by path and opened alike, and in the orientation that Pillow gives an opened file once it is loaded."""
    image = np.zeros((16, 32, 3), np.uint8)
    image[:8, :16] = 255
    for orientation in range(1, 9):
        tag = Image.Exif()
        tag[0x0112] = orientation
        path = tmp_path / f"{orientation}" / "ab"[0] / f"a.{ending}"
        path.parent.mkdir(parents=True)
        Image.fromarray(image).save(path, exif=tag, **({"lossless": True} if ending == "webp" else {}))
        turned = {2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud, 5: lambda a: a.swapaxes(0, 1)}
        turned |= {6: lambda a: np.rot90(a, -1), 7: lambda a: np.rot90(a, 2).swapaxes(0, 1), 8: np.rot90}
        upright = turned.get(orientation, np.asarray)(image)
        assert photographs.shape_of(path) == (upright.shape, "uint8")
        assert np.abs(pixels(path, upright.shape).astype(int) - upright).max() < 20
        with Image.open(path) as opened:
            assert np.array_equal(pixels(opened, upright.shape), pixels(path, upright.shape))


def stack(path: Path, pages: np.ndarray[Any, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *rest = map(Image.fromarray, pages)
    first.save(path, save_all=True, append_images=rest)


def test_stacks_are_volumes_and_no_pages_are_dropped(pictures: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    volumes = rng.integers(0, 256, (20, 6, 9, 8), np.uint8)
    for k, volume in enumerate(volumes):
        stack(tmp_path / "stacks" / "ab"[k % 2] / f"{k:02}.tif", volume)
    data = load_kept(tmp_path / "stacks")
    assert data.image_shape == (6, 9, 8, 1)
    both = np.concatenate([data.train_images, data.test_images])[..., 0]
    assert {a.tobytes() for a in both} == {a.tobytes() for a in volumes}
    for name in ("stack.tif", "moving.gif", "moving.png", "moving.webp"):
        stack(pictures / "cat" / name, rng.integers(0, 256, (3, 32, 32, 3), np.uint8))
    notes = load_kept(pictures).notes
    assert [note.partition("pictures/")[2].partition(": ")[::2] for note in notes] == [
        ("cat/moving.gif cannot be read", REFUSED),
        ("cat/moving.png cannot be read", REFUSED),
        ("cat/moving.webp cannot be read", REFUSED),
        ("cat/stack.tif cannot be read", "it has 3 pages, others have one; save each in a file of its own"),
    ]


REFUSED = "it has 3 pages or frames, and one picture is taken; save each in a file of its own"


def test_sizes_that_differ_are_brought_to_one_and_it_is_said(pictures: Path) -> None:
    wide = np.zeros((64, 128, 3), np.uint8)
    wide[:, 32:96] = 200
    write(pictures / "cat" / "00.png", wide)
    data = load_kept(pictures)
    assert data.image_shape == (32, 32, 3) and "are resized by the shorter side and cropped" in data.notes[0]
    assert any((image[:, 2:-2] == 200).all() for image in np.concatenate([data.train_images, data.test_images]))
    large = load_dataset(f"{pictures}/:48", pictures.parent / "kept")
    assert large.image_shape == (48, 48, 3) and large.name.endswith("/")


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
    monkeypatch.setattr(folder, "pixels", lambda path, *form: (reads.append(path), pixels(path, *form))[1])
    assert arrays_of(load_kept(pictures)) == arrays_of(first) and not reads
    (kept,) = (pictures.parent / "kept" / "pixels").glob("*.npy")
    good = kept.read_bytes()
    place = good.index(first.train_images.tobytes()[:100])
    for damaged in (good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :], good[: len(good) // 2], b""):
        kept.write_bytes(damaged)
        reads.clear()
        assert arrays_of(load_kept(pictures)) == arrays_of(first) and len(reads) == 40
    write(pictures / "cat" / "00.png", np.zeros((32, 32, 3), np.uint8))
    assert arrays_of(load_kept(pictures)) != arrays_of(first)
    monkeypatch.setattr(folder, "DECODER", -1)
    reads.clear()
    assert arrays_of(load_kept(pictures)) != arrays_of(first) and len(reads) == 40


def test_pictures_that_are_kept_and_cannot_be_read_any_more_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for k in range(20):
        file = tmp_path / "black" / "ab"[k % 2] / f"{k}.bmp"
        write(file, np.zeros((8, 8, 3), np.uint8))
        file.write_bytes(file.read_bytes() + bytes([k]))  # no copy of another
    load_kept(tmp_path / "black")

    def fail(path: Path, *form: object) -> None:
        raise OSError("cut")

    monkeypatch.setattr(folder, "pixels", fail)
    with pytest.raises(DataError, match=r"0\.bmp cannot be read: cut, nor any other of"):
        load_kept(tmp_path / "black")


def test_folders_of_one_name_sizes_and_times_are_told_apart(tmp_path: Path) -> None:
    """By what their files hold."""
    for k, root in enumerate((tmp_path / "one" / "pics", tmp_path / "two" / "pics")):
        for j in range(20):
            write(root / "ab"[j % 2] / f"{j}.bmp", np.full((8, 8, 3), 100 * k + j, np.uint8))
        for path in root.rglob("*.bmp"):
            os.utime(path, (1e9, 1e9))
    one, two = (load_dataset(tmp_path / name / "pics", tmp_path / "kept") for name in ("one", "two"))
    assert one.train_images.max() < 100 <= two.train_images.min()


@pytest.mark.parametrize("way", ["asked", "large"])
def test_pictures_stay_in_their_file(pictures: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    loaded = load_kept(pictures)
    if way == "large":
        monkeypatch.setattr(folder, "MOST_HELD", 1000)
    mapped = load_kept(pictures, mapped=way == "asked")
    assert isinstance(mapped.train_images, MappedImages) and isinstance(mapped.test_images, MappedImages)
    assert arrays_of(mapped) == arrays_of(loaded) and mapped.train_images.nbytes == 0


PEAK = """
import sys
from train.data import load_dataset

def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))

load_dataset(sys.argv[1], sys.argv[3], mapped=True)
before = peak()
data = load_dataset(sys.argv[2], sys.argv[3], mapped=sys.argv[4] == "mapped")
print((peak() - before) * 1024 / (len(data.train_images) + len(data.test_images)) / 192**2)
"""


@needs_proc
@pytest.mark.slow
def test_a_set_larger_than_memory_is_decoded_and_read(pictures: Path, tmp_path: Path) -> None:
    """The peak in bytes for each byte of a picture: far below one; loaded, it is one and more."""
    rng = np.random.default_rng(0)
    for k in range(2000):
        write(tmp_path / "large" / "ab"[k % 2] / f"{k}.npy", rng.integers(0, 256, (192, 192), "u1"))

    def peak(kept: str, how: str) -> float:
        arguments = (pictures, tmp_path / "large", tmp_path / kept, how)
        return float(finish(start("-c", PEAK, *arguments, cwd=tmp_path)).success())

    assert peak("one", "mapped") < 0.6 and peak("one", "mapped") < 0.6  # it is decoded, then found
    assert peak("one", "loaded") > 0.9  # a negative control


def test_an_interrupted_conversion_leaves_nothing(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("train.storage.files.os.replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            load_kept(pictures)
    assert [path.name for path in (pictures.parent / "kept" / "pixels").iterdir()] == ["CACHEDIR.TAG"]
    shutil.rmtree(pictures.parent / "kept")
    (pictures.parent / "kept").write_text("a file where a folder is wanted")
    assert "cannot be kept in" in load_kept(pictures).notes[-1]


def test_pictures_of_16_bits_are_floats_and_are_not_mixed_with_others(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    deep = rng.integers(0, 2**16, (20, 8, 8), np.uint16)
    for k, image in enumerate(deep):
        write(tmp_path / "deep" / "ab"[k % 2] / f"{k:02}{('.png', '.tif', '.npy')[k % 3]}", image)
    data = load_kept(tmp_path / "deep")
    assert data.image_shape == (8, 8, 1) and data.train_images.dtype == np.float32
    both = np.concatenate([data.train_images, data.test_images])
    assert {a.tobytes() for a in both} == {a.astype(np.float32).tobytes() for a in deep}
    assert load_dataset(f"{tmp_path / 'deep'}/:4", tmp_path).train_images.max() > 256
    for k in range(10):
        write(tmp_path / "deep" / "ab"[k % 2] / f"flat{k}.png", np.full((8, 8), k, np.uint8))
    data = load_kept(tmp_path / "deep")
    assert data.train_images.dtype == np.uint8 and len(data.notes) == 20
    assert "00.png cannot be read: it has more than 8 bits for each value (mode I;16); expected 8 bits" in data.notes[0]


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
    with pytest.raises(DataError, match="no class has 5 pictures, so none is for the test; make a folder test"):
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
    monkeypatch.setenv("HOME", str(home := tmp_path / "home"))
    home.mkdir()
    (pictures / "cat" / "text.png").write_text("no picture")
    arguments = (*SMALL, "--epochs", "1", "--dataset", "pictures", "--out", "run", "--no-test")
    assert "pictures/cat/text.png cannot be read" in run_here(arguments, None).success()
    network = load("run")
    assert network.checkpoint.config.dataset == "pictures/" and network.class_names == ("cat", "dog")
    assert predict.main(["run", "pictures/dog", "pictures/cat/00.png", "--out", "table.csv"]) == 0
    rows = list(csv.DictReader(Path("table.csv").read_text().splitlines()))
    files = [*folder.files_in(Path("pictures/dog"), Counter()), Path("pictures/cat/00.png")]
    assert [row["path"] for row in rows] == list(map(str, files))
    assert [row["class"] for row in rows] == network.predict(files)
    expected = network.probabilities(files)
    for row, of_classes in zip(rows, np.asarray(expected), strict=True):
        assert {row["class"], row["class_2"]} == {"cat", "dog"} and "class_3" not in row
        assert float(row["probability"]) == pytest.approx(of_classes.max(), abs=1e-5)
    name = b"pictures/dog/caf\xe9.png"
    os.rename("pictures/dog/" + files[0].name, name)
    assert predict.main(["run", "pictures/dog", "--out", "~/bytes.csv"]) == 0
    assert b"pictures/dog/caf\\udce9.png,dog," in (home / "bytes.csv").read_bytes() and not Path("~").exists()
    with pytest.raises(SystemExit):
        predict.main(["run", "pictures/dog", "--out", "nowhere/table.csv"])
    assert "there is no folder nowhere; make it first" in capsys.readouterr().err
    assert predict.main(["run", "pictures/cat"]) == 1
    out, err = capsys.readouterr()
    assert out.count("\n") == 21 and err.startswith("pictures/cat/text.png cannot be read")
    Path("empty").mkdir()
    Path("empty/a.txt").write_text("text")
    assert predict.main(["run", "nowhere.png"]) == 1 and "No such file" in capsys.readouterr().err
    assert (
        predict.main(["run", "empty"]) == 1
        and "empty holds no pictures; left out of empty: files .txt: 1" in capsys.readouterr().err
    )


def test_the_home_folder_in_every_path_of_a_user(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(home := tmp_path / "home"))
    home.mkdir()
    pictures.rename(home / "pictures")
    np.savez(home / "a.npz", **made_up((8, 8), 2))
    flags = ("--dataset", "~/pictures", "--epochs", 1, "--data-dir", "~/data", "--no-test")
    run_here((*SMALL, *flags, "--out=~/r"), None).success()
    run_here(("describe", *SMALL, *flags[:2], "--data-dir", "~/described"), None).success()
    run_here(("evaluate", "~/r", "--data-dir", "~/evaluated"), None).success()
    load_dataset("~/a.npz", "~/d")
    fit(make_config("sample", {"depth": 4, "width": 4, "epochs": 1, "shift": 1, "flip": False}), "~/a.npz", out="~/f")
    with planning("measure", file="~/plans"):
        convolve(np.ones((30, 30)), np.ones((5, 5)), (0, 1), boundary="zero")
    assert {"r", "data", "described", "evaluated", "f", "plans"} <= {p.name for p in home.iterdir()}
    assert not Path("~").exists()


def test_fit_says_what_the_command_line_says(
    pictures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is lost or mirrored as warnings, once, and the rest in lines; a run that goes on speaks of no mirrors."""

    def stop(record: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    monkeypatch.chdir(pictures.parent)
    (pictures / "cat" / "text.png").write_text("no picture")
    config = make_config("sample", {"depth": 4, "width": 4, "epochs": 2, "shift": 1, "test": False})
    with pytest.warns(UserWarning) as said, pytest.raises(Interrupted):
        fit(config, f"{pictures}/:16", out="r", on_epoch=stop)
    unread, mirrored = sorted((str(one.message) for one in said), key=lambda line: "mirrored" in line)
    assert "cat/text.png cannot be read" in unread
    assert mirrored.startswith("half of the training images are mirrored; --no-flip, in Python flip=False, where")
    out = capsys.readouterr().out
    assert "are resized by the shorter side" in out and "is held out to measure" in out and "cannot" not in out
    monkeypatch.setenv("HCNN_QUIET", "1")
    with pytest.warns(UserWarning) as said:
        resume("r")
    assert [str(one.message) for one in said] == [unread] and not capsys.readouterr().out


@pytest.mark.parametrize("kind", ["deep", "stacks"])
def test_networks_of_deep_pictures_and_of_stacks_take_the_same_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for k in range(40):
        path = Path(kind) / "ab"[k % 2] / f"{k:02}.tif"
        if kind == "deep":
            write(path, rng.integers(0, 2**16, (8, 8), np.uint16))
        else:
            stack(path, rng.integers(0, 256, (8, 9, 10), np.uint8))
    preset = ("--preset", "volume" if kind == "stacks" else "sample")
    run_here((*preset, *SMALL[4:-2], "--epochs", 1, "--dataset", kind, "--out", "run", "--no-test"), None).success()
    network, data = load("run"), load_dataset(kind)
    assert data.samples is not None
    files = [Path(kind) / name for name in data.samples.names[len(data.train_labels) :]]
    np.testing.assert_array_equal(network.logits(files), network.logits(data.test_images))
    assert predict.main(["run", kind]) == 0 and capsys.readouterr().out.count("\n") == 41
    write(Path("flat.png"), np.zeros((8, 8), np.uint8))
    assert predict.main(["run", "flat.png"]) == 1 and "flat.png cannot be read: " in capsys.readouterr().err


def arrays_by_class(root: Path, make: Any) -> Path:
    """Twenty files .npy of two classes; returns the folder."""
    for k in range(20):
        write(root / "ab"[k % 2] / f"{k:02}.npy", make(k))
    return root


def test_values_of_arrays_keep_their_digits(tmp_path: Path) -> None:
    """And those of a run that has them in float32 stay so; what does not fit says so."""
    rng = np.random.default_rng(0)
    values = 1e9 + rng.standard_normal((20, 8, 8))
    root = arrays_by_class(tmp_path / "far", lambda k: values[k])
    data = load_kept(root)
    both = np.concatenate([data.train_images, data.test_images])[..., 0]
    assert both.dtype == np.float64 and {a.tobytes() for a in both} == {a.tobytes() for a in values}
    smaller = load_dataset(f"{root}/:4", tmp_path / "kept").train_images
    assert np.abs(smaller - 1e9).max() < 4 and 0.1 < smaller.std() < 1
    single = read(root, Reading(values="float32"), tmp_path / "kept").train_images
    assert single.dtype == np.float32 and np.array_equal(single, data.train_images.astype(np.float32))
    write(root / "a" / "large.npy", np.full((8, 8), 1e300))
    note = read(root, Reading(values="float32"), tmp_path / "kept").notes[-1]
    assert note.endswith("large.npy cannot be read: it holds numbers up to 1e+300, too large for float32")
    mixed = arrays_by_class(tmp_path / "mixed", lambda k: values[k].astype(("f4", "f8", "i2")[k % 3]))
    assert load_kept(mixed).train_images.dtype == np.float64


@pytest.mark.parametrize(
    ("shape", "axes", "found", "said"),
    [
        ((3, 16, 20), 0, None, r"the shape \(3, 16, 20\), with channels first it seems; .*np.moveaxis\(array, 0, -1\)"),
        ((3, 16, 20), 2, (3, 16, 20), ""),
        ((1, 9, 8), 0, None, "with channels first"),
        ((4, 9, 8), 0, None, "with channels first"),
        ((8, 9, 30), 0, (8, 9, 30), "is read as images of 30 channels; --preset volume reads volumes of 8x9x30"),
        ((8, 9, 3), 0, (8, 9, 3), ""),
        ((8, 9, 30), 3, (8, 9, 30, 1), "are read as volumes of 8x9x30, 1 channels"),
        ((8, 9, 7, 2), 0, (8, 9, 7, 2), "are read as volumes of 8x9x7, 2 channels"),
        ((2, 8, 9, 7), 0, None, "with channels first"),
        ((40,), 1, (40, 1), "are read as signals of 40, 1 channels"),
        ((40, 3), 1, (40, 3), "are read as signals of 40, 3 channels"),
        ((40,), 0, None, r"the shape \(40,\); expected"),
        ((9, 8), 3, None, r"the shape \(9, 8\); expected volumes of shape \(D, H, W\)"),
    ],
)
def test_axes_of_arrays_in_folders(
    tmp_path: Path, shape: tuple[int, ...], axes: int, found: tuple[int, ...] | None, said: str
) -> None:
    rng = np.random.default_rng(0)
    root = arrays_by_class(tmp_path / "arrays", lambda k: rng.standard_normal(shape).astype(np.float32))
    if found is None:
        with pytest.raises(DataError, match=said):
            read(root, Reading(axes), tmp_path / "kept")
        return
    data = read(root, Reading(axes), tmp_path / "kept")
    assert data.image_shape == found and said in "".join(data.notes) and bool(said) == bool(data.notes)


@pytest.mark.parametrize("dtype", ["int32", "int64", "float16", "bool", "complex64"])
def test_dtypes_of_arrays_that_do_not_do_are_named(tmp_path: Path, dtype: str) -> None:
    root = arrays_by_class(tmp_path / "arrays", lambda k: np.ones((8, 8), dtype))
    with pytest.raises(DataError, match=f"it holds {dtype}; expected uint8 or int16 .*: save a"):
        load_kept(root)


def test_a_stack_with_a_value_that_is_not_finite_is_listed(tmp_path: Path) -> None:
    tifffile, rng = pytest.importorskip("tifffile"), np.random.default_rng(0)
    for k in range(20):
        stacked = rng.standard_normal((6, 8, 9)).astype(np.float64 if k < 10 else np.float32)
        stacked[0, 1, 2] = np.nan if k == 3 else stacked[0, 1, 2]
        (path := tmp_path / "stacks" / "ab"[k % 2] / f"{k:02}.tif").parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(path, stacked)
    tifffile.imwrite(tmp_path / "stacks" / "b" / "x.tif", np.zeros((8, 9)))
    tifffile.imwrite(tmp_path / "stacks" / "b" / "y.tif", np.full((8, 9), -1, np.int8))
    data = load_kept(tmp_path / "stacks")
    assert "b/03.tif cannot be read: it holds values that are not finite" in data.notes[0] and len(data.notes) == 3
    assert "b/x.tif cannot be read: it is float64 (8, 9), axes YX; expected pages" in data.notes[1]
    assert "b/y.tif cannot be read: it holds int8, which Pillow reads as uint8; save it as" in data.notes[2]
    assert data.train_images.dtype == np.float64 and len(data.train_images) + len(data.test_images) == 19


def test_the_size_of_pictures_is_a_setting(pictures: Path, tmp_path: Path) -> None:
    for dataset, changes in ((f"{pictures}/:16", {}), (f"{pictures}/", {"size": 16})):
        config = make_config("sample", {"dataset": dataset, **changes})
        assert (config.dataset, config.size) == (f"{pictures}/", 16) and config.reading.size == (16, 16)
        assert read(config.dataset, config.reading, tmp_path / "kept").image_shape == (16, 16, 3)
    assert load_dataset(f"{pictures}/:8", tmp_path / "kept").image_shape == (8, 8, 3)
    with pytest.raises(ConfigError, match="size is 16, which is for the pictures of a folder; leave it out"):
        make_config("sample", {"size": 16})
    for k in range(20):
        stack(tmp_path / "stacks" / "ab"[k % 2] / f"{k:02}.tif", np.full((6, 9, 8), k, np.uint8))
    with pytest.raises(DataError, match="holds volumes, whose size stays; leave out --size 16"):
        load_dataset(f"{tmp_path / 'stacks'}/:16", tmp_path / "kept")


def test_other_words_for_the_parts_of_a_folder(pictures: Path, tmp_path: Path) -> None:
    shutil.copytree(pictures, root := tmp_path / "parts" / "learn")
    shutil.copytree(pictures, root.with_name("try"))
    data = read(root.parent, Reading(parts={"learn": "train", "try": "test"}), tmp_path / "kept")
    assert data.class_names == ("cat", "dog") and len(data.train_labels) == len(data.test_labels) == 40
    assert load_kept(root.parent).class_names == ("learn", "try")


def test_copies_are_on_one_side_of_the_held_out_part() -> None:
    """Nothing else moves: without copies the split is the one without hashes, for folders and arrays."""
    labels, rng = np.arange(60) % 3, np.random.default_rng(0)
    x = rng.integers(0, 256, (60, 4, 4, 1), np.uint8)
    data, count = Dataset("d", ("a", "b", "c"), x, labels, x[:3], labels[:3]), 12
    hashes = samples_of(data).hashes[:60]
    for seed in range(5):
        for one, other in zip(
            split_validation(data, count, seed), split_validation(data, count, seed, hashes), strict=True
        ):
            assert np.array_equal(one, other)
    copies = np.arange(60) // 6 * 3 + labels  # each twice, in its class
    x, other_class = x[copies], labels.copy()
    other_class[:3] = (other_class[:3] + 1) % 3
    for known in (labels, other_class):
        data = dataclasses.replace(data, train_images=x, train_labels=known)
        hashes = samples_of(data).hashes[:60]
        for seed in range(15):
            train, held_out = split_validation(data, count, seed, hashes)
            assert not np.isin(hashes[held_out], hashes[train]).any() and 8 <= len(held_out) <= 15
            assert np.array_equal(np.sort([*train, *held_out]), np.arange(60))


def test_threads_that_load_one_folder(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    root = arrays_by_class(tmp_path / "[ab]", lambda k: rng.integers(0, 256, (8, 8), np.uint8))  # its name is a pattern
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda _: load_kept(root), range(12)))
    assert all(arrays_of(data) == arrays_of(found[0]) for data in found)
    assert all(data.notes == () for data in found)
    (kept,) = (path for path in (tmp_path / "kept" / "pixels").iterdir() if path.suffix == ".npy")
    before = kept.stat().st_mtime_ns
    load_kept(root)
    assert kept.stat().st_mtime_ns == before, "it is not decoded again"
    kept.write_bytes(kept.read_bytes().replace(b"{'descr'", b"('descr'", 1))  # a header of other brackets
    assert load_kept(root).notes == ()


def test_a_picture_that_is_exchanged_while_others_are_decoded(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exchanging(path: Path, *form: Any) -> Any:
        if path.name == "00.png":
            write(path, np.full((32, 32, 3), 77, np.uint8))
        return pixels(path, *form)

    with monkeypatch.context() as patch:
        patch.setattr(folder, "pixels", exchanging)
        assert "00.png cannot be read: it was changed while it was read" in load_kept(pictures).notes[0]
    write(pictures / "cat" / "00.png", np.full((32, 32, 3), 78, np.uint8))
    data = load_kept(pictures)
    assert data.notes == () and not any((a == 77).all() for a in (*data.train_images, *data.test_images))


def test_what_is_no_candidate_for_the_test(pictures: Path, tmp_path: Path) -> None:
    """In a folder with val and no test: pictures held out, and those that cannot be read."""
    shutil.copytree(pictures, root := tmp_path / "parts" / "train")
    (root / "cat" / "text.png").write_text("no picture")
    for k in range(folder.TESTED):  # of which one cannot be read
        write(root / "cow" / f"{k}.npy", np.full((32, 32, 3), k + 1, np.uint8))
    (root / "cow" / "0.npy").write_text("no picture")
    for k in range(30):
        write(root.with_name("val") / ("cat", "dog")[k % 2] / f"{k}.png", np.full((32, 32, 3), 3 * k, np.uint8))
    parts = parts_of(data := load_kept(root.parent))
    assert {name.partition("/")[0] for name in parts["test"]} == {"train"} and "train/cat/text.png" not in parts["test"]
    assert len(parts["held out"]) == 30 and len(set().union(*parts.values())) == 74
    assert any("no picture of cow is for the test" in note for note in data.notes)


def test_a_file_beyond_the_first_chunk_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    for k in range(folder.CHUNK + 20):
        write(tmp_path / "many" / "ab"[k % 2] / f"{k:03}.npy", rng.integers(1, 256, (4, 4), np.uint8))
    last = f"{folder.CHUNK + 19:03}.npy"

    def failing(path: Path, *form: Any) -> Any:
        if path.name == last:
            raise OSError(5, "Input/output error")
        return pixels(path, *form)

    with monkeypatch.context() as patch:
        patch.setattr(folder, "pixels", failing)
        assert last in load_kept(tmp_path / "many").notes[0]
    data = load_kept(tmp_path / "many")
    assert data.notes == () and len(data.train_labels) + len(data.test_labels) == folder.CHUNK + 20
    assert all(image.all() for image in (*data.train_images, *data.test_images))
    (kept,) = (tmp_path / "kept" / "pixels").glob("*.npy")
    before = kept.stat().st_mtime_ns
    load_kept(tmp_path / "many")
    assert kept.stat().st_mtime_ns == before, "it is not decoded again"


def test_pixels_to_train_on_and_to_test_on_in_other_units(tmp_path: Path) -> None:
    arrays = {k: a.astype(np.float32) if k[0] == "x" else a for k, a in made_up((8, 8, 3), 2).items()}
    np.savez(tmp_path / "a.npz", **arrays | {"x_test": arrays["x_test"] / 255})
    flags = (*SMALL, "--epochs", 1, "--shift", 1, "--dataset", tmp_path / "a.npz", "--out", tmp_path / "r")
    out = run_here(flags, None).success()
    assert "test images: pixels go up to" in out and "bring them to one unit" in out
    np.savez(tmp_path / "a.npz", **arrays)
    assert "bring them" not in run_here((*flags[:-1], tmp_path / "s"), None).success()
    assert other_pixels((0, 1), (0, 255)) and not other_pixels((0, 2), (0, 255))
    assert not other_pixels((-1, 1), (0, 255)) and not other_pixels((0, 1), (-1, 255))


def test_names_are_no_formulas_and_no_commands() -> None:
    cells = ["=1+1", "+a", "-a", "@x", "-1.5", "a=b", "\t=1", "nan", "-inf"]
    rows = list(csv.reader(Table(["name"], [[cell] for cell in cells]).csv().decode().splitlines()))
    assert [row[0] for row in rows[1:]] == ["'=1+1", "'+a", "'-a", "'@x", "-1.5", "a=b", "'\t=1", "nan", "-inf"]
