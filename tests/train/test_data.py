"""Data sets and their parts, and the embedded sample."""

from __future__ import annotations

import json
import lzma
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.data import DataError, Dataset, _sample, channel_statistics, load_dataset, split_validation, train_subset

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "train" / "data" / "sample"


def dataset(labels: list[int], classes: int = 3) -> Dataset:
    """A data set with these training labels, image i all of brightness i, and two test images."""
    images = np.arange(len(labels), dtype=np.uint8)[:, None, None, None] * np.ones((32, 32, 3), np.uint8)
    names = tuple(f"class{i}" for i in range(classes))
    return Dataset("toy", names, images, np.array(labels, np.int64), images[:2], np.zeros(2, np.int64))


def test_subset_is_the_first_training_images() -> None:
    whole = dataset([2, 1, 0, 1])
    part = train_subset(whole, 3)
    assert part.train_labels.tolist() == [2, 1, 0]
    assert part.train_images[:, 0, 0, 0].tolist() == [0, 1, 2]
    assert part.test_images is whole.test_images and part.test_labels is whole.test_labels
    assert train_subset(whole, 4).train_labels.tolist() == [2, 1, 0, 1]


@given(labels=st.lists(st.integers(0, 4), min_size=2, max_size=60), data=st.data())
def test_validation_takes_each_class_in_proportion(labels: list[int], data: st.DataObject) -> None:
    count = data.draw(st.integers(1, len(labels) - 1))
    whole = dataset(labels, classes=5)
    train, held_out = split_validation(whole, count, seed=data.draw(st.integers(0, 2**32)))
    assert len(held_out) == count
    np.testing.assert_array_equal(np.sort(np.concatenate([train, held_out])), np.arange(len(labels)))
    assert np.all(np.diff(train) > 0) and np.all(np.diff(held_out) > 0)
    share = np.bincount(whole.train_labels, minlength=5) * count / len(labels)
    assert np.all(np.abs(np.bincount(whole.train_labels[held_out], minlength=5) - share) < 1)


def test_validation_is_the_seeds_choice() -> None:
    whole = dataset([0, 1, 2] * 20)
    first, again, other = (split_validation(whole, 12, seed)[1].tolist() for seed in (1, 1, 2))
    assert first == again != other
    assert np.bincount(whole.train_labels[first]).tolist() == [4, 4, 4]


@pytest.fixture(scope="module")
def sample() -> Dataset:
    return load_dataset("sample")


def test_sample_is_balanced_and_mixed(sample: Dataset) -> None:
    assert np.bincount(sample.train_labels).tolist() == [200] * 10
    assert np.bincount(sample.test_labels).tolist() == [50] * 10
    assert len(set(sample.train_labels[:50].tolist())) == 10  # the first N are no single class
    images = np.concatenate([sample.train_images, sample.test_images]).reshape(2500, -1)
    assert len(np.unique(images, axis=0)) == 2500


def test_sample_looks_like_its_population(sample: Dataset) -> None:
    """Within five standard errors of CIFAR-10's own channel means."""
    mean, _ = channel_statistics(sample.train_images)
    image_means = sample.train_images.mean(axis=(1, 2))
    error = image_means.std(axis=0) / np.sqrt(len(image_means))
    assert np.all(np.abs(mean - [125.30691805, 122.95039414, 113.86538318]) < 5 * error)


def test_sample_is_small_and_says_where_it_comes_from() -> None:
    assert sum(path.stat().st_size for path in SAMPLE.iterdir()) < 6_000_000
    assert "Krizhevsky" in (SAMPLE / "README.md").read_text("utf-8")


@pytest.fixture
def copied_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The sample in a folder of its own, read instead of the package's."""
    monkeypatch.setattr("importlib.resources.files", lambda package: tmp_path)
    return Path(shutil.copytree(SAMPLE, tmp_path / "sample"))


def test_damaged_sample_is_noticed(copied_sample: Path) -> None:
    data = copied_sample / _sample.DATA_FILE
    whole = data.read_bytes()
    data.write_bytes(whole[:-1000])
    with pytest.raises(DataError, match="embedded sample cannot be read"):
        load_dataset("sample")
    coded = bytearray(lzma.decompress(whole))
    coded[7 * 3072] ^= 1
    data.write_bytes(lzma.compress(coded, preset=0))
    with pytest.raises(DataError, match="SHA-256 is not the recorded one"):
        load_dataset("sample")
    data.unlink()
    with pytest.raises(DataError, match="embedded sample cannot be read"):
        load_dataset("sample")


@pytest.mark.parametrize("text", ["", "{", "{}", "[]", '{"sha256": "0"}'])
def test_damaged_manifest_is_noticed(copied_sample: Path, text: str) -> None:
    (copied_sample / _sample.DATA_FILE).write_bytes(lzma.compress(bytes(3073)))  # one image
    (copied_sample / _sample.MANIFEST_FILE).write_text(text)
    with pytest.raises(DataError, match="embedded sample cannot be read"):
        load_dataset("sample")


@pytest.mark.skipif("HCNN_CIFAR10" not in os.environ, reason="HCNN_CIFAR10 names no folder that holds CIFAR-10")
def test_sample_is_the_indexed_part_of_cifar10(sample: Dataset) -> None:
    full = load_dataset("cifar10", os.environ["HCNN_CIFAR10"], download=False)
    manifest = json.loads((SAMPLE / _sample.MANIFEST_FILE).read_text("utf-8"))
    np.testing.assert_array_equal(full.train_images[manifest["train_indices"]], sample.train_images)
    np.testing.assert_array_equal(full.train_labels[manifest["train_indices"]], sample.train_labels)
    np.testing.assert_array_equal(full.test_images[manifest["test_indices"]], sample.test_images)
    np.testing.assert_array_equal(full.test_labels[manifest["test_indices"]], sample.test_labels)
