"""Images that stay in files and are read when they are wanted, so that a set need not fit in memory."""

from __future__ import annotations

import math
import mmap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from train.data._formats import PIXELS, Layout, planes
from train.data.dataset import DataError

Decode = Callable[[NDArray[Any]], NDArray[Any]]

BLOCK = 1000
"""Images that are read at a time in a pass over all."""


class MappedImages:
    """Images in files of records. Indexing returns others, still unread.

    ``numpy.asarray`` reads them, and lets the pages of the files go again: this process keeps none of them. `files`
    are memmaps (n, ...), from which `decode` makes images (n, H, W, C) of the same dtype; `index` says which of all.
    """

    nbytes = 0  # of memory

    def __init__(self, files: Sequence[Any], decode: Decode = lambda records: records, index: Any = None) -> None:
        self.files, self.decode = files, decode
        self.starts = np.cumsum([0, *map(len, files)])
        self.index = np.arange(self.starts[-1]) if index is None else index
        self.dtype, self._shape = files[0].dtype, decode(np.empty((0, *files[0].shape[1:]), files[0].dtype)).shape[1:]

    ndim = property(lambda self: len(self.shape))
    size = property(lambda self: math.prod(self.shape))

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of all images, (N, H, W, C)."""
        return (len(self.index), *self._shape)

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, index: Any) -> MappedImages:
        """Return the images of a slice or an array of indices."""
        return MappedImages(self.files, self.decode, self.index[index])

    def joined(self, other: MappedImages) -> MappedImages:
        """Return these images and others of the same files."""
        return MappedImages(self.files, self.decode, np.concatenate([self.index, other.index]))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Read them."""
        records = np.empty((len(self.index), *self.files[0].shape[1:]), self.dtype)
        of_file = np.searchsorted(self.starts, self.index, side="right") - 1
        for number, file in enumerate(self.files):
            here = of_file == number
            if here.any():
                records[here] = file[self.index[here] - self.starts[number]]
                if hasattr(mmap, "MADV_DONTNEED"):
                    file._mmap.madvise(mmap.MADV_DONTNEED)
        return np.ascontiguousarray(self.decode(records), dtype)


def map_layout(path: Path, layout: Layout) -> list[tuple[MappedImages, NDArray[np.int64]]] | None:
    """Return the training set and the test set of a folder, images unread."""
    *train, test = names = [path / name for name in layout.members]
    if not all(name.is_file() for name in names):
        return None
    return [_map(files, layout) for files in (train, [test])]


def _map(paths: Sequence[Path], layout: Layout) -> tuple[MappedImages, NDArray[np.int64]]:
    count = len(layout.labels)
    width = count + PIXELS
    files, labels = [], []
    for path in paths:
        most = layout.members[path.name]
        try:
            size = path.stat().st_size
            if size % width or not 1 <= size // width <= most:
                raise DataError(f"{path}: {size} bytes; expected 1 to {most} records of {width} bytes, each whole")
            files.append(np.memmap(path, np.uint8, "r").reshape(-1, width))
            with open(path, "rb") as stream:  # a map would keep every page
                while block := stream.read(BLOCK * width):
                    labels.append(np.frombuffer(block, np.uint8).reshape(-1, width)[:, :count].copy())
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error})") from error
    known = np.concatenate(labels)
    layout.require_labels(paths[0].parent, known.max(axis=0))
    return MappedImages(files, planes), known[:, -1].astype(np.int64)
