"""Images that stay in CIFAR's binary files and are read when they are wanted, so that a set need not fit in memory."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from train.data._formats import PIXELS, Layout
from train.data.dataset import IMAGE_SHAPE, DataError

BLOCK = 1000
"""Images that are read at once where all are gone through."""


class MappedImages:
    """Colour images, uint8, in files of binary records. What it is indexed by gives others, still unread.

    ``numpy.asarray`` reads them, and lets the pages of the files go again: this process keeps none of them.
    """

    dtype = np.dtype(np.uint8)
    ndim = 4
    nbytes = 0  # of memory

    def __init__(self, files: Sequence[Any], width: int, index: NDArray[np.int64] | None = None) -> None:
        self.files, self.width = files, width
        self.starts = np.cumsum([0, *(len(file) // width for file in files)])
        self.index = np.arange(self.starts[-1]) if index is None else index

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The shape of all images, (N, 32, 32, 3)."""
        return (len(self.index), *IMAGE_SHAPE)

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, index: Any) -> MappedImages:
        """The images of a slice or an array of indices."""
        return MappedImages(self.files, self.width, self.index[index])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Read them, (N, 32, 32, 3)."""
        planes = np.empty((len(self.index), PIXELS), np.uint8)
        of_file = np.searchsorted(self.starts, self.index, side="right") - 1
        for number, file in enumerate(self.files):
            here = of_file == number
            if here.any():
                records = file.reshape(-1, self.width)
                planes[here] = records[self.index[here] - self.starts[number], self.width - PIXELS :]
                if hasattr(mmap, "MADV_DONTNEED"):
                    file._mmap.madvise(mmap.MADV_DONTNEED)
        images = planes.reshape(-1, 3, *IMAGE_SHAPE[:2]).transpose(0, 2, 3, 1)
        return np.ascontiguousarray(images, dtype)


def map_layout(path: Path, layout: Layout) -> list[tuple[MappedImages, NDArray[np.int64]]] | None:
    """Return the training set and the test set of a folder, images unread."""
    *train, test = names = [path / name for name in layout.members]
    if layout.pickled or not all(name.is_file() for name in names):
        return None
    return [_map(files, layout) for files in (train, [test])]


def _map(paths: Sequence[Path], layout: Layout) -> tuple[MappedImages, NDArray[np.int64]]:
    width, classes = len(layout.labels) + PIXELS, list(layout.labels.values())
    files, labels = [], []
    for path in paths:
        most = layout.members[path.name]
        try:
            size = path.stat().st_size
            if size % width or not 1 <= size // width <= most:
                raise DataError(f"{path}: {size} bytes; expected 1 to {most} records of {width} bytes, each whole")
            files.append(np.memmap(path, np.uint8, "r"))
            with open(path, "rb") as stream:  # a map would keep every page
                while block := stream.read(BLOCK * width):
                    labels.append(np.frombuffer(block, np.uint8).reshape(-1, width)[:, : len(classes)].copy())
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error})") from error
    for key, found, count in zip(layout.labels, np.concatenate(labels).max(axis=0), classes, strict=True):
        if found >= count:
            raise DataError(f"{paths[0].parent}: {found} among the {key}; expected 0 to {count - 1}")
    return MappedImages(files, width), np.concatenate(labels)[:, -1].astype(np.int64)
