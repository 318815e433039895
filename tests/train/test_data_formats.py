"""CIFAR's files: every form of them, small, and every way to damage them."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from train.data import DataError, load_dataset
from train.data._formats import Layout
from train.data.cifar import LAYOUTS

CASES = list(LAYOUTS.items())
COUNT = 3  # images of a batch file
RECORDS = {"cifar10": 3073, "cifar100": 3074}
CIFAR10, CIFAR100 = LAYOUTS.values()

File = dict[str, Any]  # "data" (N, 3072) and the labels, by name


def make_files(layout: Layout, seed: int = 0) -> dict[str, File]:
    """Random content of every batch file."""
    rng = np.random.default_rng(seed)
    return {
        member: {"data": rng.integers(0, 256, (COUNT, 3072), dtype=np.uint8)}
        | {key: rng.integers(0, classes, COUNT).tolist() for key, classes in layout.labels.items()}
        for member in layout.members
    }


def as_binary(file: File) -> bytes:
    """Record by record: labels, then pixels."""
    keys = [key for key in file if key != "data"]
    return b"".join(bytes(file[key][i] for key in keys) + file["data"][i].tobytes() for i in range(len(file["data"])))


def write_folder(folder: Path, layout: Layout, files: dict[str, File]) -> Path:
    folder.mkdir(parents=True)
    for name, file in files.items():
        (folder / name).write_bytes(as_binary(file))
    return folder


def write_archive(path: Path, folder: Path, inside: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder, inside)
    return path


def images_of(file: File) -> np.ndarray[Any, Any]:
    """The pixels, one by one in the order in which they are documented."""
    images = np.empty((len(file["data"]), 32, 32, 3), np.uint8)
    for row, column, channel in np.ndindex(32, 32, 3):
        images[:, row, column, channel] = file["data"][:, 1024 * channel + 32 * row + column]
    return images


def check(name: str, where: Path, files: dict[str, File]) -> None:
    """Load, and compare with what was written."""
    loaded = load_dataset(name, where, download=False)
    *train, test = files.values()
    key = {"cifar10": "labels", "cifar100": "fine_labels"}[name]
    assert loaded.name == name
    np.testing.assert_array_equal(loaded.train_images, np.concatenate([images_of(file) for file in train]), strict=True)
    np.testing.assert_array_equal(loaded.train_labels, [label for file in train for label in file[key]])
    np.testing.assert_array_equal(loaded.test_images, images_of(test), strict=True)
    np.testing.assert_array_equal(loaded.test_labels, test[key])


def refuse(name: str, where: Path, *words: str) -> str:
    """Load, and expect one line with these words."""
    with pytest.raises(DataError) as caught:
        load_dataset(name, where, download=False)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message
    return message


@pytest.mark.parametrize(("name", "layout"), CASES)
@pytest.mark.parametrize("place", ["", "below", "itself", "bare"])
def test_folder(name: str, layout: Layout, place: str, tmp_path: Path) -> None:
    folder = (
        tmp_path / {"bare": "any-name", "below": "below"}.get(place, "") / ("" if place == "bare" else layout.folder)
    )
    files = make_files(layout)
    write_folder(folder, layout, files)
    check(name, folder if place in ("itself", "bare") else tmp_path, files)


@pytest.mark.parametrize(("name", "layout"), CASES)
@pytest.mark.parametrize("place", ["", "below", "itself"])
def test_archive(name: str, layout: Layout, place: str, tmp_path: Path) -> None:
    files = make_files(layout)
    folder = write_folder(tmp_path / "made", layout, files)
    data_dir = tmp_path / "data"
    archive = data_dir / ("below" if place == "below" else "") / layout.archive
    write_archive(archive, folder, f"./{layout.folder}" if place else layout.folder)
    before = sorted(tmp_path.rglob("*"))
    check(name, archive if place == "itself" else data_dir, files)
    assert sorted(tmp_path.rglob("*")) == before  # nothing is extracted


def test_classes_have_their_names(tmp_path: Path) -> None:
    for name, count, first, last in (("cifar10", 10, "airplane", "truck"), ("cifar100", 100, "apple", "worm")):
        layout = LAYOUTS[name]
        write_folder(tmp_path / layout.folder, layout, make_files(layout))
        names = load_dataset(name, tmp_path, download=False).class_names
        assert len(names) == count and sorted(set(names)) == list(names)
        assert (names[0], names[-1]) == (first, last)


def test_folder_comes_before_archive(tmp_path: Path) -> None:
    files, others = make_files(CIFAR10), make_files(CIFAR10, seed=1)
    folder = write_folder(tmp_path / "made" / "deep", CIFAR10, others)
    write_archive(tmp_path / CIFAR10.archive, folder, CIFAR10.folder)
    write_folder(tmp_path / CIFAR10.folder, CIFAR10, files)
    check("cifar10", tmp_path, files)


@pytest.mark.parametrize(("name", "layout"), CASES)
def test_missing_file(name: str, layout: Layout, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / layout.folder, layout, make_files(layout))
    missing = list(layout.members)[1]
    (folder / missing).unlink()
    refuse(name, tmp_path, str(folder), f"no {missing}; expected {', '.join(layout.members)}")
    archive = write_archive(tmp_path / "other" / layout.archive, folder, layout.folder)
    refuse(name, tmp_path / "other", str(archive), f"no {missing}")


@pytest.mark.parametrize(("name", "layout"), CASES)
def test_every_truncation(name: str, layout: Layout, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / layout.folder, layout, make_files(layout))
    file = folder / next(iter(layout.members))
    whole = file.read_bytes()
    for size in [*range(1, 400), *range(400, len(whole), 301), len(whole) - 1]:
        if size % RECORDS[name]:
            file.write_bytes(whole[:size])
            refuse(name, tmp_path, str(file))


@pytest.mark.parametrize(("name", "layout"), CASES)
def test_overlong_binary(name: str, layout: Layout, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / layout.folder, layout, make_files(layout))
    file = folder / list(layout.members)[-1]
    os.truncate(file, 10_000 * RECORDS[name])
    assert len(load_dataset(name, tmp_path, download=False).test_labels) == 10_000
    os.truncate(file, 10_001 * RECORDS[name])
    refuse(name, tmp_path, str(file), "expected at most 10000 images")


def compressed(folder: Path, names: list[str]) -> None:
    """Put these files of a folder in the place of themselves, compressed."""
    for name in names:
        (folder / f"{name}.xz").write_bytes(lzma.compress((folder / name).read_bytes()))
        (folder / name).unlink()


@pytest.mark.parametrize(("name", "layout"), CASES, ids=str)
@pytest.mark.parametrize("every", [1, 2])
def test_files_may_be_compressed(name: str, layout: Layout, every: int, tmp_path: Path) -> None:
    files = make_files(layout)
    folder = write_folder(tmp_path / layout.folder, layout, files)
    compressed(folder, list(layout.members)[::every])
    check(name, tmp_path, files)


def test_a_damaged_compressed_file(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / CIFAR10.folder, CIFAR10, make_files(CIFAR10))
    compressed(folder, ["data_batch_2.bin"])
    path = folder / "data_batch_2.bin.xz"
    whole = path.read_bytes()
    for damaged in (whole[:-30], whole[:200] + b"?" + whole[201:], b"not compressed"):
        path.write_bytes(damaged)
        refuse("cifar10", tmp_path, "cannot be read")


def test_part_of_the_training_set_where_one_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = make_files(CIFAR10)
    folder = write_folder(tmp_path / CIFAR10.folder, CIFAR10, files)
    for missing in ("data_batch_1.bin", "data_batch_4.bin"):
        (folder / missing).unlink()
        del files[missing]
    compressed(folder, ["data_batch_5.bin"])
    refuse("cifar10", tmp_path, "no data_batch_1.bin")
    monkeypatch.setenv("HCNN_PARTIAL_DATA", "1")
    check("cifar10", tmp_path, files)
    (folder / "test_batch.bin").unlink()
    refuse("cifar10", tmp_path, "no data_batch_1.bin")


@pytest.mark.parametrize(
    ("name", "layout", "byte", "message"),
    [
        ("cifar10", CIFAR10, 0, "10 among the labels; expected 0 to 9"),
        ("cifar100", CIFAR100, 0, "20 among the coarse_labels; expected 0 to 19"),
        ("cifar100", CIFAR100, 1, "100 among the fine_labels; expected 0 to 99"),
    ],
)
def test_label_out_of_range(name: str, layout: Layout, byte: int, message: str, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / layout.folder, layout, make_files(layout))
    file = folder / next(iter(layout.members))
    records = bytearray(file.read_bytes())
    records[2 * RECORDS[name] + byte] = int(message.split()[0])
    file.write_bytes(records)
    refuse(name, tmp_path, str(file), message)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    folder = write_folder(tmp_path / "made", CIFAR10, make_files(CIFAR10))
    return write_archive(tmp_path / "data" / CIFAR10.archive, folder, CIFAR10.folder)


def test_a_flipped_bit_anywhere_in_an_archive(archive: Path) -> None:
    whole = archive.read_bytes()
    assert b".tar\x00" in whole[:40]  # gzip's header, whose file name nothing checks
    for position in np.linspace(40, len(whole) - 1, 25).astype(int):
        damaged = bytearray(whole)
        damaged[position] ^= 1
        archive.write_bytes(damaged)
        refuse("cifar10", archive.parent, str(archive))


@pytest.mark.parametrize(
    "header",
    [
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9" * 30},
        {"GNU.sparse.size": "x"},
        {"GNU.sparse.size": "10", "GNU.sparse.numblocks": "1", "GNU.sparse.map": "a,b"},
        {"size": "9" * 40},
    ],
    ids=lambda header: min(header),
)
def test_archive_with_a_header_of_pax_that_says_nonsense(archive: Path, header: dict[str, str]) -> None:
    with tarfile.open(archive, "w:gz", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo(f"{CIFAR10.folder}/data_batch_1.bin")
        info.size, info.pax_headers = 4, header
        tar.addfile(info, io.BytesIO(b"evil"))
    refuse("cifar10", archive.parent, str(archive), "cannot be read")


def test_archive_of_something_else(archive: Path, tmp_path: Path) -> None:
    write_archive(archive, tmp_path / "made", "somewhere/else")
    refuse("cifar10", archive.parent, str(archive), "no data_batch_1.bin")
    archive.write_bytes(gzip.compress(b"text, and no tar" * 1000))
    refuse("cifar10", archive.parent, str(archive))


def test_archive_cannot_write_or_point_elsewhere(archive: Path, tmp_path: Path) -> None:
    files = make_files(CIFAR10)
    with tarfile.open(archive, "w:gz") as tar:
        for name in ("../outside", "/tmp/outside", f"../{CIFAR10.folder}/data_batch_1.bin"):
            info = tarfile.TarInfo(name)
            info.size = 4
            tar.addfile(info, io.BytesIO(b"evil"))
        tar.add(tmp_path / "made", CIFAR10.folder)
    before = sorted(tmp_path.rglob("*"))
    check("cifar10", archive.parent, files)
    assert sorted(tmp_path.rglob("*")) == before
    with tarfile.open(archive, "w:gz") as tar:
        for name in CIFAR10.members:
            info = tarfile.TarInfo(f"{CIFAR10.folder}/{name}")
            info.type, info.linkname = tarfile.SYMTYPE, str(tmp_path / "made" / name)
            tar.addfile(info)
    refuse("cifar10", archive.parent, "no data_batch_1.bin")


@pytest.mark.parametrize("name", LAYOUTS)
def test_folder_of_something_else(name: str, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing of the kind")
    refuse(name, tmp_path, f"no {name} in {tmp_path}", LAYOUTS[name].archive)
    refuse(name, tmp_path / "notes.txt")
    refuse(name, tmp_path / "absent")
