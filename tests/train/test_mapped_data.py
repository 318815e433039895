"""Images that stay in their files: the same as those that are loaded, and no memory is held for them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.train.commands import arrays_of, needs_proc
from tests.train.runs import ROOT
from tests.train.threads import on_ranks
from train.config import make_config
from train.data import DataError, Images, MappedImages, channel_statistics, load_dataset, split_validation, train_subset
from train.data.cifar import LAYOUTS
from train.runs.session import Session


def write_set(folder: Path, name: str = "cifar10", count: int = 7) -> Path:
    """The official files of a set, with a few random images in each."""
    layout, rng = LAYOUTS[name], np.random.default_rng(0)
    for member in layout.members:
        labels = [rng.integers(0, classes, (count, 1), np.uint8) for classes in layout.labels.values()]
        records = np.hstack([*labels, rng.integers(0, 256, (count, 3072), np.uint8)])
        (folder / member).write_bytes(records.tobytes())
    return folder


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_mapped_images_are_those_that_are_loaded(name: str, tmp_path: Path) -> None:
    folder = write_set(tmp_path, name)
    loaded, mapped = load_dataset(name, folder), load_dataset(name, folder, mapped=True)
    assert isinstance(mapped.train_images, MappedImages) and isinstance(mapped.test_images, MappedImages)
    for part in ("train_images", "train_labels", "test_images", "test_labels"):
        one, other = np.asarray(getattr(mapped, part)), getattr(loaded, part)
        assert one.dtype == other.dtype and one.flags.c_contiguous and np.array_equal(one, other)
    assert arrays_of(mapped) == arrays_of(loaded)
    index = np.random.default_rng(1).permutation(np.arange(2, len(loaded.train_labels)))[:5]
    chosen = mapped.train_images[2:][index - 2]
    assert isinstance(chosen, MappedImages) and np.array_equal(chosen, loaded.train_images[index])
    assert train_subset(mapped, 4).train_images.shape == (4, 32, 32, 3)
    for one, other in zip(
        channel_statistics(mapped.train_images), channel_statistics(loaded.train_images), strict=True
    ):
        assert np.array_equal(one, other)
    statistics = channel_statistics(loaded.train_images)
    taken = [Images(d.train_images, d.train_labels, *statistics, "float32").take(index) for d in (mapped, loaded)]
    assert all(map(np.array_equal, *taken))


def test_one_changed_pixel_changes_the_checksum(tmp_path: Path) -> None:
    before = arrays_of(load_dataset("cifar10", write_set(tmp_path), mapped=True))
    file = tmp_path / "data_batch_3.bin"
    content = bytearray(file.read_bytes())
    content[5000] ^= 1
    file.write_bytes(content)
    assert arrays_of(load_dataset("cifar10", tmp_path, mapped=True)) != before


@pytest.mark.parametrize(("cut", "value", "said"), [(1, None, "each whole"), (0, 10, "10 among the labels")])
def test_damaged_files_are_refused(cut: int, value: int | None, said: str, tmp_path: Path) -> None:
    content = bytearray((write_set(tmp_path) / "data_batch_2.bin").read_bytes())
    content[3073] = content[3073] if value is None else value
    (tmp_path / "data_batch_2.bin").write_bytes(content[: len(content) - cut])
    with pytest.raises(DataError, match=said):
        load_dataset("cifar10", tmp_path, mapped=True)


def test_other_forms_are_loaded() -> None:
    assert isinstance(load_dataset("sample", mapped=True).train_images, np.ndarray)


def test_ranks_train_on_mapped_images_as_one_process_does(tmp_path: Path) -> None:
    folder = write_set(tmp_path)
    config = make_config("hcnn", {"data_dir": str(folder), "train_size": 30, "validation_size": 6})
    whole = [d for d in on_ranks(2, lambda ranks: Session(ranks).load(np, config))]
    alone = Session().load(np, config)
    assert isinstance(alone.train_images, np.ndarray) and isinstance(whole[1].train_images, MappedImages)
    kept, _ = split_validation(alone, 6, 0)
    assert np.array_equal(whole[1].train_images[kept], alone.train_images[kept])


MEMORY = """
import sys
import numpy as np
from train.data import load_dataset

def resident():
    lines = [line.split() for line in open("/proc/self/status")]
    return sum(int(line[1]) for line in lines if line[0] in ("RssFile:", "RssAnon:"))

dataset = load_dataset("cifar10", sys.argv[1], mapped=True)
before = resident()
for begin in range(0, 10_000, 50):
    assert np.asarray(dataset.train_images[begin : begin + 50]).any()
in_batches = resident() - before
kept = np.asarray(dataset.train_images)
print(in_batches, resident() - before, kept.any())
"""


@needs_proc
def test_no_memory_is_held_for_images(tmp_path: Path) -> None:
    """Of 36 MB that are read in batches less than 4 stay; the negative control reads them at once, and they do.

    In a process of its own: one that has freed memory before would take that again.
    """
    command = [sys.executable, "-c", MEMORY, str(write_set(tmp_path, count=2000))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    in_batches, at_once, _ = done.stdout.split()
    assert int(in_batches) < 4000 < 20_000 < int(at_once)
