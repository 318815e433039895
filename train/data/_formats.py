"""CIFAR's files: batches of binary records or Python pickles, in a folder or in a gzipped tar archive.

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
from typing import IO, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from train.data._pickles import PickledArray, load_pickle
from train.data.dataset import IMAGE_SHAPE, DataError

Batch: TypeAlias = tuple[NDArray[np.uint8], NDArray[np.int64]]

PIXELS = 32 * 32 * 3  # bytes of a record: all red, all green, all blue
PICKLE_OVERHEAD = 1024  # bytes a pickled record may take beside its pixels: labels, a file name


@dataclasses.dataclass(frozen=True)
class Layout:
    """One of the forms in which CIFAR is distributed.

    `labels` names a record's labels, in order, with the classes of each; the last is the one used.
    `members` names the batch files with the most records each may hold; the last is the test set.
    """

    folder: str
    archive: str
    md5: str
    pickled: bool
    labels: dict[str, int]
    members: dict[str, int]
    size: int = 0  # the archive's in bytes; 0 for one that is never downloaded


def read_layout(path: Path, layout: Layout, *, partial: bool = False) -> list[Batch]:
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


def _read_batch(where: str, name: str, file: IO[bytes], layout: Layout) -> Batch:
    """Return images and labels of one batch file; DataError says where and what is wrong."""
    most = layout.members[name]
    width = len(layout.labels) + PIXELS
    limit = most * (width + PICKLE_OVERHEAD if layout.pickled else width)
    data = file.read(limit + 1)
    if len(data) > limit:
        raise DataError(f"{where}: over {limit} bytes; expected at most {most} images")
    pixels, labels = _parse_pickle(where, data, layout) if layout.pickled else _parse_binary(where, data, layout)
    if not 1 <= len(pixels) <= most:
        raise DataError(f"{where}: {len(pixels)} images; expected 1 to {most}")
    for key, values in labels.items():
        classes = layout.labels[key]
        if len(values) != len(pixels):
            raise DataError(f"{where}: {len(values)} {key} for {len(pixels)} images; expected one each")
        for value in values:
            if type(value) is not int or not 0 <= value < classes:
                raise DataError(f"{where}: {value!r:.40} among the {key}; expected 0 to {classes - 1}")
    images = pixels.reshape(-1, 3, *IMAGE_SHAPE[:2]).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), np.array(labels[list(layout.labels)[-1]], dtype=np.int64)


def _parse_binary(where: str, data: bytes, layout: Layout) -> tuple[NDArray[np.uint8], dict[str, list[Any]]]:
    """Split records of label bytes and pixels."""
    count = len(layout.labels)
    width = count + PIXELS
    if len(data) % width:
        raise DataError(f"{where}: {len(data)} bytes; expected records of {width} bytes, each whole")
    records = np.frombuffer(data, np.uint8).reshape(-1, width)
    return records[:, count:], {key: records[:, i].tolist() for i, key in enumerate(layout.labels)}


def _parse_pickle(where: str, data: bytes, layout: Layout) -> tuple[NDArray[np.uint8], dict[str, list[Any]]]:
    """Take pixels and labels out of a pickled dictionary."""
    if not data:
        raise DataError(f"{where}: empty; expected a pickled dictionary")
    try:
        content = load_pickle(data)
    except DataError as error:
        raise DataError(f"{where}: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"{where}: a pickled {type(content).__name__}; expected a dictionary")
    entries = {key.decode("latin1") if isinstance(key, bytes) else key: value for key, value in content.items()}
    pixels, required = entries.get("data"), list(layout.labels)[-1]
    if not isinstance(pixels, PickledArray) or required not in entries:
        raise DataError(f"{where}: a dictionary of {sorted(map(str, entries))}; expected an array data and {required}")
    if pixels.value.dtype != np.uint8 or pixels.value.shape[1:] != (PIXELS,):
        found = f"{pixels.value.dtype} of shape {pixels.value.shape}"
        raise DataError(f"{where}: data is {found}; expected uint8 of shape (N, {PIXELS})")
    labels = {}
    for key in (key for key in layout.labels if key in entries):
        values = entries[key]
        values = values.value.tolist() if isinstance(values, PickledArray) else values
        if not isinstance(values, list):
            raise DataError(f"{where}: {key} is a {type(values).__name__}; expected a list of integers")
        labels[key] = values
    return pixels.value, labels
