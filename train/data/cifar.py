"""Data sets by name: CIFAR-10 and CIFAR-100, found on disk or downloaded, and the embedded sample."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from hcnn_core.environment import is_on
from train.data import _sample
from train.data._formats import Layout, read_layout
from train.data.dataset import IMAGE_SHAPE, DataError, Dataset, DatasetInfo
from train.data.download import Progress, fetch, show_progress
from train.data.mapped import map_layout
from train.storage.files import user_path

BASE_URL = "https://www.cs.toronto.edu/~kriz"

CLASS_NAMES = {
    "cifar10": "airplane automobile bird cat deer dog frog horse ship truck",
    "cifar100": """
        apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
        castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin
        elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster
        man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck
        pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk
        skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger
        tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
    """,
}

INFO = {
    "cifar10": DatasetInfo(IMAGE_SHAPE, 10, 2 * 60_000 * 3072),
    "cifar100": DatasetInfo(IMAGE_SHAPE, 100, 2 * 60_000 * 3072),
    "sample": DatasetInfo(IMAGE_SHAPE, 10, 0),
}
"""Information about data sets before they are loaded. Memory holds images as loaded and as split."""

LAYOUTS = {
    "cifar10": Layout(
        folder="cifar-10-batches-bin",
        archive="cifar-10-binary.tar.gz",
        md5="c32a1d4ab5d03f1284b67883e8d87530",
        labels={"labels": 10},
        members=dict.fromkeys([*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"], 10_000),
        size=170_052_171,
    ),
    "cifar100": Layout(
        folder="cifar-100-binary",
        archive="cifar-100-binary.tar.gz",
        md5="03b5dce01913d631647c71ecec9e9cb8",
        labels={"coarse_labels": 20, "fine_labels": 100},
        members={"train.bin": 50_000, "test.bin": 10_000},
        size=168_513_733,
    ),
}


def load_cifar(
    name: str, data_dir: Path, *, download: bool = True, progress: Progress = show_progress, mapped: bool = False
) -> Dataset:
    """Return one of `INFO`, see `train.data.reading.load_dataset`; CIFAR is downloaded first if it is not there."""
    if name == "sample":
        images, labels, count = _sample.load()
        classes = tuple(CLASS_NAMES["cifar10"].split())
        notes = ("sample is the set that comes with the package; the folder is --dataset sample/",)
        said = notes if os.path.isdir(name) else ()
        return Dataset(name, classes, images[:count], labels[:count], images[count:], labels[count:], said)
    if "\0" in os.fspath(data_dir):
        raise DataError(f"data_dir is {os.fspath(data_dir)!r}: no folder has NUL in its name")
    layout = LAYOUTS[name]
    path = _find(layout, data_dir) or _obtain(name, data_dir, download, progress)
    sets: Any = map_layout(path, layout) if mapped else None
    if sets is None:
        *train, test = read_layout(path, layout, partial=is_on("HCNN_PARTIAL_DATA"))
        sets = [map(np.concatenate, zip(*train, strict=True)), test]
    return Dataset(name, tuple(CLASS_NAMES[name].split()), *sets[0], *sets[1])


def obtain(name: str, data_dir: str | os.PathLike[str]) -> None:
    """Download a data set that is not there, for processes that will look for it; DataError if that fails."""
    folder = user_path(data_dir)
    if name in LAYOUTS and not _find(LAYOUTS[name], folder):
        _obtain(name, folder, True, show_progress)


def _find(layout: Layout, data_dir: Path) -> Path | None:
    """Return the folder or archive that holds the data set."""
    folders = [data_dir, *sorted(data_dir.glob("*/"))]
    named = [folder / entry for entry in (layout.folder, layout.archive) for folder in folders]
    return next((path for path in (*named, data_dir) if _holds(path, layout)), None)


def _holds(path: Path, layout: Layout) -> bool:
    """Whether the path is an archive or a folder of this layout, by its name or its files' names."""
    if path.is_dir():
        files = (path / f"{member}{ending}" for member in layout.members for ending in ("", ".xz"))
        return path.name == layout.folder or any(file.is_file() for file in files)
    return path.name == layout.archive and path.is_file()


def _obtain(name: str, data_dir: Path, download: bool, progress: Progress) -> Path:
    """Download the archive; DataError says which file to put where."""
    layout = LAYOUTS[name]
    path = data_dir / layout.archive
    advice = f"put {layout.archive} or {layout.folder}/ into {data_dir}"
    if not download:
        raise DataError(f"no {name} in {data_dir}: {advice}")
    try:
        fetch(f"{BASE_URL}/{layout.archive}", path, layout.md5, size=layout.size, progress=progress)
    except DataError as error:
        raise DataError(f"{error}; or {advice}") from error
    return path
