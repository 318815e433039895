"""Pictures in folders by class: which there are, in which parts, and their pixels, decoded once and mapped since."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import os
import re
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from train.data.dataset import DataError, Dataset, Samples
from train.data.labels import AUTO, kind_of_labels, labels_as
from train.data.mapped import MappedImages
from train.data.photographs import MODES, endings, pixels, shape_of
from train.data.progress import progress_bar
from train.storage.files import remove_partial_files, user_path

SIDE = 32
"""Pixels a side of pictures that differ in size."""

TESTED = 5
"""One picture in so many is for the test, where there is no folder for it."""

NAME = re.compile(r"(.+?)[/\\]*(?::(\d+))?")
"""DIR/, or DIR/:64 for pictures of 64 x 64."""

LISTED = 20
"""Files of which it is said what is wrong with them; of more their number."""

TRAIN, HELD_OUT, TEST = "train", "held out", "test"
PARTS = dict.fromkeys(("train", "training"), TRAIN) | dict.fromkeys(("test", "testing"), TEST)
PARTS |= dict.fromkeys(("val", "valid", "validation", "dev"), HELD_OUT)
"""Parts by the names of folders, in small letters."""

OF_OTHERS = ("@eaDir", "__MACOSX", "__pycache__")
"""Folders in which other programs keep what they make of pictures."""

CACHE = "CACHEDIR.TAG"
MARKS = (CACHE, "config.toml", "sweep.toml", "explore.html", "verify.html")
"""Files of folders that hold what programs wrote: caches, and this program's runs, sweeps and pages."""

BESIDE = "pictures beside the folders of classes"

DECODER = 1
"""Version of what `pixels` makes of a file."""

CHUNK = 64
"""Pictures that are decoded before they are written."""

MOST_HELD = 2**30
"""Values of pictures that are held in memory; more stay in their file."""

Given = TypeVar("Given")
Made = TypeVar("Made")


class Picture(NamedTuple):
    """A file of a picture."""

    path: Path
    part: str  # of `PARTS`; "" where no folder names one
    label: str  # the name of its class; "" where a table has the labels


def named_folder(name: str | os.PathLike[str]) -> str:
    """Return the name of a data set with a slash after its folder, if it is one, so that its name alone tells."""
    match = NAME.fullmatch(os.fspath(name))
    if match is None or os.fspath(name).lower().endswith(".npz") or not user_path(match[1]).is_dir():
        return os.fspath(name)
    return f"{match[1]}/" + (f":{match[2]}" if match[2] else "")


def is_folder(name: str) -> bool:
    """Return whether a data set's name is that of a folder."""
    return re.search(r"[/\\](:\d+)?$", name) is not None


def listed(failed: Sequence[tuple[Path, str]]) -> list[str]:
    """Return lines that say which files cannot be read, and why."""
    lines = [f"{path} cannot be read: {reason}" for path, reason in failed[:LISTED]]
    return lines + ([f"and {len(failed) - LISTED} more files cannot be read"] if len(failed) > LISTED else [])


def said_of(left_out: Counter[str], folder: Path) -> list[str]:
    """Return the line that says what of a folder is left out, if anything is."""
    reasons = ", ".join(f"{reason}: {count:,}" for reason, count in sorted(left_out.items()) if count)
    return [f"left out of {folder}: {reasons}"] if reasons else []


def attempt(action: Callable[[Given], Made], items: Iterable[Given]) -> list[Made | str]:
    """Return what an action makes of each item, several at a time, or in one line why it cannot."""

    def safely(item: Given) -> Made | str:
        try:
            return action(item)
        except MemoryError:
            raise
        except Exception as error:  # Pillow and NumPy fail in many ways on damaged files
            return " ".join(str(error).split()) or type(error).__name__

    with ThreadPoolExecutor() as pool:
        return list(pool.map(safely, items))


def files_in(
    folder: Path, left_out: Counter[str], above: tuple[str, ...] = (), known: Collection[str] | None = None
) -> list[Path]:
    """Return the pictures below a folder in order, links followed; count what else there is, by what it is.

    Or files with other `known` endings. What is hidden is passed over.
    """
    above = (*above, os.path.realpath(folder))
    folders, files = _listing(folder, left_out, known)
    for inner in folders:
        if os.path.realpath(inner) in above:
            left_out["links that lead back"] += 1
        else:
            files += files_in(inner, left_out, above, known)
    return sorted(files)


def _listing(
    folder: Path, left_out: Counter[str], known: Collection[str] | None = None
) -> tuple[list[Path], list[Path]]:
    """Folders and pictures of a folder, in order; the rest is counted."""
    folders, files = [], []
    for path in sorted(p for p in folder.iterdir() if p.name[0] != "."):
        if path.is_dir() and (path.name in OF_OTHERS or any((path / mark).exists() for mark in MARKS)):
            left_out["folders of runs and of other programs"] += 1
        elif path.is_dir():
            folders.append(path)
        elif path.suffix.lower() in (known or endings()) and path.is_file():
            files.append(path)
        elif path.is_symlink() and not path.exists():
            left_out["broken links"] += 1
        else:
            left_out[f"files {path.suffix.lower()}" if path.suffix else "files without an ending"] += 1
    return folders, files


def _parts(root: Path, folders: Sequence[Path]) -> dict[str, Path]:
    """Return the folders of a folder that are its parts, in order; none where they are classes."""
    above = (os.path.realpath(root),)
    full = {folder: len(files_in(folder, Counter(), above)) for folder in folders}
    direct = {folder: len(_listing(folder, Counter())[1]) for folder in folders}
    of_parts = [folder for folder in folders if folder.name.lower() in PARTS]
    with_classes = {folder for folder in of_parts if full[folder] > direct[folder]}
    named = [folder for folder in of_parts if with_classes and (folder in with_classes or not full[folder])]
    parts = {PARTS[folder.name.lower()]: folder for folder in named}
    others = [folder.name for folder in folders if full[folder] and folder not in named]
    names = ", ".join(folder.name for folder in named)
    if list(parts) == [TRAIN] and others:
        return {}  # a class of that name
    if parts and TRAIN not in parts:
        raise DataError(f"{root} has a folder {names} and none train; give both, or folders of classes alone")
    if len(parts) < len(named):
        raise DataError(f"{root} has folders {names}, two for one part; keep one")
    if parts and others:
        raise DataError(f"{root} has {others[0]} beside the parts {names}; move it away")
    if len(others) > 1 and all(name.lower() in PARTS for name in others):
        raise DataError(f"{root} has {', '.join(others)} without classes; put the pictures of each class into a folder")
    return {part: parts[part] for part in (TRAIN, HELD_OUT, TEST) if part in parts}


def _scan(root: Path) -> tuple[list[Picture], list[str]]:
    """Return the pictures of a folder, by part and class, and notes."""
    left_out: Counter[str] = Counter()
    folders, loose = _listing(root, left_out)
    left_out[BESIDE], parts = len(loose), _parts(root, folders)
    pictures: list[Picture] = []
    empty: list[str] = []
    for part, folder in (parts or {"": root}).items():
        inner, beside = _listing(folder, left_out) if parts else (folders, [])
        left_out[BESIDE] += len(beside)
        for of_class in inner:
            own = files_in(of_class, left_out, (os.path.realpath(root), os.path.realpath(folder)))
            pictures += [Picture(path, part, of_class.name) for path in own]
            empty += [] if own else [of_class.relative_to(root).as_posix()]
    notes = said_of(left_out, root)
    if empty:
        notes.append(f"no class of {root}, since no picture lies there: {', '.join(empty[:LISTED])}")
    names = {part: {p.label for p in pictures if p.part == part} for part in parts or [""]}
    of_training = names[TRAIN if parts else ""]
    if len(of_training) < 2:
        where, holds, said = parts.get(TRAIN, root), ", ".join(of_training) or "none", f" ({notes[0]})" if notes else ""
        raise DataError(f"{where} holds {holds}; expected two or more folders, one for each class, of pictures{said}")
    for part, classes in names.items():
        if not classes:
            raise DataError(f"{parts[part]} holds no pictures; give it some, or take it away")
        if more := sorted(classes - of_training):
            where = parts[part]
            raise DataError(f"{root}: class {more[0]} has no pictures in train; give it some, or take it from {where}")
    return pictures, notes


def _table(root: Path) -> Path | None:
    """Find the table of labels, whose first column is `name`: labels.csv in a folder, or FOLDER.csv beside it."""
    real = root.resolve()
    for path in (root / "labels.csv", real.with_name(f"{real.name}.csv")):
        if path.is_file() and path.read_text("utf-8-sig").split(",", 1)[0].strip() == "name":
            return path
    return None


def _tabled(root: Path, table: Path, task: str) -> tuple[list[Picture], NDArray[Any], tuple[str, ...], list[str]]:
    """Return the pictures that a table names, their labels, the names of these, and notes."""
    with open(table, encoding="utf-8-sig", newline="") as stream:
        (_, *columns), *rows = list(csv.reader(stream))
    of = {row[0]: row[1:] for row in rows if row}
    if len(of) != len([row for row in rows if row]) or any(len(row) != len(columns) for row in of.values()):
        raise DataError(f"{table} has a name twice, or a row of more or fewer than {len(columns) + 1} cells")
    left_out: Counter[str] = Counter()
    files = {path.relative_to(root).as_posix(): path for path in files_in(root, left_out) if path != table}
    left_out[f"files {table.suffix}"] -= table.parent == root
    left_out[f"pictures that {table.name} does not name"] = len(files.keys() - of.keys())
    left_out[f"rows of {table.name} without a picture"] = len(of.keys() - files.keys())
    chosen = [name for name in files if name in of]
    firsts = [PARTS.get(name.partition("/")[0].lower(), "") for name in chosen]
    parts = firsts if all(firsts) else [""] * len(chosen)
    if not chosen or TRAIN not in (parts if parts[0] else [TRAIN]):
        raise DataError(f"{table} names no picture of {root} to train on; names are paths below it")
    order = sorted(range(len(chosen)), key=lambda k: ("", TRAIN, HELD_OUT, TEST).index(parts[k]))
    pictures = [Picture(files[chosen[k]], parts[k], "") for k in order]
    cells = [of[chosen[k]] for k in order]
    if columns in (["label"], ["class"]):
        names = tuple(sorted({row[0] for row in cells}, key=lambda text: (not text.isdecimal(), len(text), text)))
        return pictures, np.array([names.index(row[0]) for row in cells], np.int64), names, said_of(left_out, root)
    try:
        values = np.array(cells, np.float64)
    except ValueError as error:
        raise DataError(f"{table}: {error}; give columns of numbers, or one column `label` of names") from error
    bits = bool(np.isin(values, (0, 1)).all())
    kind, said = kind_of_labels(os.fspath(table), "the columns", values.astype(bool if bits else float), task)
    labels = labels_as(os.fspath(table), "the columns", values, kind)
    names = tuple(columns if len(columns) > 1 or labels.ndim == 2 else map(str, range(labels.max() + 1)))
    return pictures, labels, names, [*said_of(left_out, root), *said]


def tested(hashes: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Return which samples of a class are for the test, where nothing names the parts: those of the least hashes.

    That is those whose hash as a fraction is below 1 / `TESTED`, or the least of `TESTED` and more samples; none of
    fewer. It follows from each one's contents alone, so that copies fall together and no name or seed has a part.
    """
    if len(hashes) < TESTED:
        return np.zeros(len(hashes), bool)
    chosen = hashes <= max(np.uint64(2**64 // TESTED), hashes.min())
    return chosen & ~chosen.all()


def load_folder(name: str, cache: Path, *, mapped: bool = False, task: str = AUTO) -> Dataset:
    """Return the pictures of folders by class as a data set; what is decoded is kept in a folder.

    What `train`, `val` and `test` hold, or folders with other names of `PARTS`, are the parts, or else `tested` says
    what is for the test. Pictures that differ in size are cut to squares of 32 pixels, or of as many as the name says;
    grey ones stay grey if all are. Where they are `mapped`, or many, they stay in a file. Labels are those of a table,
    if there is one, and `task` says which of `KINDS` they are.
    """
    match = NAME.fullmatch(name)
    assert match is not None
    root = user_path(match[1])
    if not root.is_dir():
        raise DataError(f"there is no folder {root}; name one with --dataset that holds a folder of pictures per class")
    if table := _table(root):
        pictures, labels, names, notes = _tabled(root, table, task)
    else:
        pictures, notes = _scan(root)
        names = tuple(sorted({p.label for p in pictures}))
        labels = np.array([names.index(p.label) for p in pictures], np.int64)
    shapes = attempt(lambda picture: (*shape_of(picture.path), _digest(picture.path)), pictures)
    shape, values, failed, said = _common(root, pictures, shapes, int(match[2] or 0))
    hashes = np.array([0 if isinstance(one, str) else one[2] for one in shapes], np.uint64)
    decoder = DECODER, metadata.version("pillow")
    key = hashlib.sha256(repr((hashes.tolist(), shape, values, *decoder)).encode()).hexdigest()[:16]
    file = cache / "pixels" / f"{root.resolve().name}-{key}"
    images = _kept(file, pictures, shape, values, failed)
    if images is None:
        images = _decoded(file, pictures, shape, values, failed, said)
    if len(failed) == len(pictures):
        raise DataError(f"{listed([(pictures[0].path, failed[0])])[0]}, nor any other of {root}")
    whole = [k for k in range(len(pictures)) if k not in failed]
    parts = np.array([p.part for p in pictures], object)
    if TEST not in parts:
        share, groups = np.zeros(len(pictures), bool), labels if labels.ndim == 1 else np.zeros(len(pictures), int)
        for label in np.unique(groups):
            own = np.array([k for k in whole if groups[k] == label and parts[k] != HELD_OUT], np.int64)
            share[own] = tested(hashes[own])
        if few := [names[label] for label in np.unique(groups) if not share[groups == label].any()]:
            said.append(f"no picture of {', '.join(few[:LISTED])} is for the test, of fewer than {TESTED} or copies")
        if not share.any():
            raise DataError(f"{root}: no class has {TESTED} pictures, so none is for the test; make a folder test")
        if parts[0]:
            said.append(f"{root} has no folder test: {share.sum():,} pictures of train are for the test")
        parts[share] = TEST
    train, test = ([k for k in whole if (parts[k] == TEST) == of_test] for of_test in (False, True))
    paths = tuple(pictures[k].path.relative_to(root).as_posix() for k in (*train, *test))
    samples = Samples(paths, hashes[[*train, *test]], parts[[*train, *test]] == HELD_OUT if HELD_OUT in parts else None)
    chosen: list[Any] = [images[train], images[test]]
    if isinstance(images, MappedImages) and not (mapped or images.size > MOST_HELD):
        chosen = list(map(np.asarray, chosen))
    notes = [*notes, *said, *listed([(pictures[k].path, reason) for k, reason in sorted(failed.items())])]
    return Dataset(name, names, chosen[0], labels[train], chosen[1], labels[test], tuple(notes), samples)


def _digest(path: Path) -> int:
    """Return the first eight bytes of the SHA-256 of a file."""
    with open(path, "rb") as stream:
        return int.from_bytes(hashlib.file_digest(stream, "sha256").digest()[:8], "big")


def _common(
    root: Path, pictures: Sequence[Picture], shapes: Sequence[Any], side: int
) -> tuple[tuple[int, ...], str, dict[int, str], list[str]]:
    """Return the shape and kind of values that pictures are brought to, why some cannot be, and notes."""
    failed = {k: one for k, one in enumerate(shapes) if isinstance(one, str)}
    if len(failed) == len(shapes):
        raise DataError(f"{listed([(pictures[0].path, failed[0])])[0]}, nor any other of {root}")
    axes = min(len(one[0]) for one in shapes if not isinstance(one, str))
    failed |= {
        k: f"it has {one[0][0]} pages, others have one; save each in a file of its own"
        for k, one in enumerate(shapes)
        if k not in failed and len(one[0]) != axes
    }
    kinds = {one[1] for k, one in enumerate(shapes) if k not in failed}
    values = max(kinds)  # uint8 where some are
    alike = [one[0] for k, one in enumerate(shapes) if k not in failed and one[1] == values]
    sizes, channels = {shape[:-1] for shape in alike}, {shape[-1] for shape in alike}
    if len(channels) > 1 and not channels <= MODES.keys():
        raise DataError(f"{root} has files of {' and '.join(map(str, sorted(channels)))} channels; bring them to one")
    if axes == 4:
        return Counter(alike).most_common(1)[0][0], values, failed, []
    size, said = (side, side) if side else sizes.pop() if len(sizes) == 1 else (SIDE, SIDE), []
    if sizes - {size}:
        said.append(
            f"pictures of {root} that are not {size[0]}x{size[1]} are resized by the shorter side and cropped"
            + ("" if side else f"; --dataset {root}/:64 makes them 64x64")
        )
    return (*size, max(channels)), values, failed, said


def _pixels(picture: Picture, shape: tuple[int, ...], values: str) -> NDArray[Any]:
    return pixels(picture.path, shape) if values == "uint8" else pixels(picture.path, shape, values)


def _kept(
    file: Path, pictures: Sequence[Picture], shape: tuple[int, ...], values: str, failed: dict[int, str]
) -> MappedImages | None:
    """Return the images that a file holds whose name ends with their checksum.

    Those that are zero are looked at again, and it is None where that makes others: a file could not be read before.
    """
    for path in file.parent.glob(f"{file.name}-*.npy"):
        with contextlib.suppress(OSError, ValueError, EOFError):
            images, checksum, zero = MappedImages([np.load(path, mmap_mode="r")]), 0, []
            for begin in range(0, len(images), CHUNK):
                chunk = np.asarray(images[begin : begin + CHUNK])
                checksum = zlib.crc32(chunk.data, checksum)
                zero += [begin + k for k, image in enumerate(chunk) if not image.any() and begin + k not in failed]
            again = attempt(lambda k: _pixels(pictures[k], shape, values), zero)
            if path.stem.endswith(f"{checksum:08x}") and all(isinstance(a, str) or not a.any() for a in again):
                failed |= {k: one for k, one in zip(zero, again, strict=True) if isinstance(one, str)}
                return images
    return None


def _decoded(
    file: Path,
    pictures: Sequence[Picture],
    shape: tuple[int, ...],
    values: str,
    failed: dict[int, str],
    said: list[str],
) -> Any:
    """Decode pictures, to zeros where one cannot be read, which is noted; into a file where that can be written."""
    fit = set(range(len(pictures))) - failed.keys()

    def chunks() -> Iterator[NDArray[Any]]:
        with progress_bar(len(pictures), "decoding", delay=3) as bar:
            for begin in range(0, len(pictures), CHUNK):
                chunk = np.zeros((len(pictures[begin : begin + CHUNK]), *shape), values)
                part = [k for k in range(begin, begin + len(chunk)) if k in fit]
                for k, image in zip(part, attempt(lambda k: _pixels(pictures[k], shape, values), part), strict=True):
                    if isinstance(image, str):
                        failed[k] = image
                    else:
                        chunk[k - begin] = image
                yield chunk
                bar.update(len(chunk))

    partial, checksum = file.parent / f".{file.name}.{os.getpid()}.partial", 0
    header = {"descr": np.dtype(values).str, "fortran_order": False, "shape": (len(pictures), *shape)}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        (file.parent / CACHE).write_text("Signature: 8a477f597d28d172789f06886806bc55\n# Decoded pictures.\n")
        remove_partial_files(file.parent, re.escape(file.name))
        for damaged in file.parent.glob(f"{file.name}-*.npy"):
            damaged.unlink()
        with open(partial, "wb") as stream:
            np.lib.format.write_array_header_1_0(stream, header)
            for chunk in chunks():
                stream.write(chunk.data)
                checksum = zlib.crc32(chunk.data, checksum)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, whole := file.with_name(f"{file.name}-{checksum:08x}.npy"))
        return MappedImages([np.load(whole, mmap_mode="r")])
    except OSError as error:
        said.append(f"what is decoded cannot be kept in {file.parent}: {error}")
        return np.concatenate(list(chunks()))
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
