"""CIFAR's files: batches of binary records, in a folder or in a gzipped tar archive.

Archives are streamed and their members known by name, so nothing is extracted to disk. Files of a folder may each be
compressed, as NAME.xz.
"""

from __future__ import annotations

import dataclasses
import gzip
import lzma
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, TypeAlias

import numpy as np
from numpy.typing import NDArray

from train.data.dataset import IMAGE_SHAPE, DataError

LabelledImages: TypeAlias = tuple[NDArray[np.uint8], NDArray[np.int64]]

PIXELS = 32 * 32 * 3  # bytes of a record: all red, all green, all blue


@dataclasses.dataclass(frozen=True)
class Layout:
    """The binary form in which CIFAR is distributed.

    `labels` names a record's labels, in order, with the classes of each; the last is the one used.
    `members` names the batch files with the most records each may hold; the last is the test set.
    """

    folder: str
    archive: str
    md5: str
    labels: dict[str, int]
    members: dict[str, int]
    size: int  # the archive's in bytes

    def require_labels(self, where: object, highest: NDArray[np.uint8]) -> None:
        """Raise DataError unless the highest label of each kind is one of its classes."""
        for (key, classes), label in zip(self.labels.items(), highest, strict=True):
            if label >= classes:
                raise DataError(f"{where}: {label} among the {key}; expected 0 to {classes - 1}")


def read_layout(path: Path, layout: Layout, *, partial: bool = False) -> list[LabelledImages]:
    """Return the batches of a folder or an archive, in the order of the layout's members.

    With `partial`, some of the training set's may be missing.
    """
    files = _folder_files(path, layout) if path.is_dir() else _archive_files(path, layout)
    batches = {}
    try:
        for where, name, file in files:
            batches[name] = _read_batch(where, name, file, layout)
    except DataError:
        raise
    except (OSError, EOFError, ValueError, lzma.LZMAError, tarfile.TarError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error}); expected {layout.archive} or its files, whole") from error
    *train, test = layout.members
    missing = [name for name in layout.members if name not in batches]
    if partial and test in batches and not set(train) <= set(missing):
        return [batches[name] for name in layout.members if name in batches]
    if missing:
        raise DataError(f"{path}: no {missing[0]}; expected {', '.join(layout.members)}, in the folder {layout.folder}")
    return [batches[name] for name in layout.members]


def _folder_files(path: Path, layout: Layout) -> Iterator[tuple[str, str, IO[bytes]]]:
    """Yield the batch files of a folder: path, name, open file."""
    for name in layout.members:
        compressed = path / f"{name}.xz"
        if (path / name).is_file():
            with (path / name).open("rb") as file:
                yield str(path / name), name, file
        elif compressed.is_file():
            with lzma.open(compressed) as unpacked:
                yield str(compressed), name, unpacked


def _archive_files(path: Path, layout: Layout) -> Iterator[tuple[str, str, IO[bytes]]]:
    """Yield the batch files of an archive: path, name, open file."""
    with gzip.open(path) as unzipped:
        with tarfile.open(fileobj=unzipped, mode="r|") as archive:
            for member in archive:
                folder, _, name = str(PurePosixPath(member.name)).rpartition("/")
                if member.isfile() and folder == layout.folder and name in layout.members:
                    file = archive.extractfile(member)
                    assert file is not None
                    yield f"{path}: {member.name}", name, file
        while unzipped.read(1 << 20):  # to the end: there stands the checksum
            pass


def _read_batch(where: str, name: str, file: IO[bytes], layout: Layout) -> LabelledImages:
    """Return images and labels of one batch file; DataError says where and what is wrong."""
    most, count = layout.members[name], len(layout.labels)
    width = count + PIXELS
    data = file.read(most * width + 1)
    if len(data) > most * width:
        raise DataError(f"{where}: over {most * width} bytes; expected at most {most} images")
    if not data or len(data) % width:
        raise DataError(f"{where}: {len(data)} bytes; expected 1 to {most} records of {width} bytes, each whole")
    records = np.frombuffer(data, np.uint8).reshape(-1, width)
    layout.require_labels(where, records[:, :count].max(axis=0))
    return planes(records), records[:, count - 1].astype(np.int64)


def planes(records: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the images (n, 32, 32, 3) of records of label bytes and pixels."""
    return np.ascontiguousarray(records[:, -PIXELS:].reshape(-1, 3, *IMAGE_SHAPE[:2]).transpose(0, 2, 3, 1))
