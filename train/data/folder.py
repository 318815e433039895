"""Pictures in folders by class: their parts, and their pixels, decoded once and mapped since."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import glob
import hashlib
import os
import re
import secrets
import threading
import tokenize
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from train.data.dataset import MOST_COLOURS, UNITS, DataError, Dataset, HowRead, Samples
from train.data.labels import HELD_OUT, TEST, TRAIN, Reading
from train.data.mapped import MappedImages
from train.data.photographs import MODES, endings, is_array, pixels, shape_of
from train.data.progress import progress_bar
from train.data.readers import is_data_file, numbers
from train.data.readers import table as read_table
from train.storage.files import remove_partial_files, user_path

SIDE = 32
"""Pixels a side of pictures that differ in size."""

TESTED = 5
"""Without a folder for it, one picture in this many is for the test."""

NAME = re.compile(r"(.+?)[/\\]*(?::(\d+))?")
"""DIR/, or DIR/:64 for pictures of 64 x 64."""

LISTED = 20
"""Most damaged files that are listed; of more only the number is."""

NAMES = ("name", "filename", "file_name", "file name", "file")
"""Titles that the first column of a table of labels may have, in small letters."""

FOREIGN_FOLDERS = ("@eaDir", "__MACOSX", "__pycache__")
"""Folders of other programs for files made from pictures."""

CACHE = "CACHEDIR.TAG"
MARKS = (CACHE, "config.toml", "sweep.toml", "explore.html", "verify.html")
"""Files by which folders written by programs are known: caches, and this program's runs, sweeps and pages."""

BESIDE = "pictures beside the folders of classes"

DECODER = 1
"""Version of the pixels that `pixels` makes of a file."""

DECODING = threading.Lock()
"""Held by the thread that reads and writes kept pixels: the first of several that load a folder decodes it."""

CHUNK = 64
"""Pictures that are decoded before they are written."""

UNREADABLE = OSError, ValueError, EOFError, SyntaxError, tokenize.TokenError
"""Errors that NumPy raises for a damaged file .npy; the last two are of its header."""

MOST_HELD = 2**30
"""Values of pictures that are held in memory; more stay in their file."""

Given = TypeVar("Given")
Made = TypeVar("Made")


@dataclasses.dataclass
class Pictures:
    """The pictures of a folder, part after part, and notes on them."""

    root: Path
    files: Sequence[Path]
    parts: Sequence[str]  # of each, one of `PART_WORDS`; "" where no folder names one
    labels: NDArray[Any]  # as a `Dataset` has them
    names: tuple[str, ...]  # of the classes, labels or numbers
    notes: list[str]
    task: str = "classes"
    failed: dict[int, str] = dataclasses.field(default_factory=dict)  # why some cannot be read, by their places

    def read(self, action: Callable[[Path], Made], places: Sequence[int]) -> dict[int, Made]:
        """Return an action's results for the files at some places, without those that fail."""
        results = dict(zip(places, attempt(action, [self.files[k] for k in places]), strict=True))
        self.failed |= {k: one for k, one in results.items() if isinstance(one, str)}
        return {k: one for k, one in results.items() if not isinstance(one, str)}

    def note_reading(self, said: str) -> None:
        """Note how the files are read."""
        self.notes.append(HowRead(said))

    def require_any(self) -> None:
        """Raise DataError if no file can be read."""
        if len(self.failed) == len(self.files):
            raise DataError(f"{self.unread()[0]}, nor any other of {self.root}")

    def unread(self) -> list[str]:
        """Return lines that say which cannot be read, and why."""
        return listed([(self.files[k], reason) for k, reason in sorted(self.failed.items())])


class Table(NamedTuple):
    """A table of labels."""

    path: Path
    columns: list[str]  # after the first, of names
    rows: list[list[str]]
    delimiter: str


class Form(NamedTuple):
    """The shape and dtype that pictures are brought to."""

    shape: tuple[int, ...]  # (H, W, C), of volumes (D, H, W, C), of signals (T, C)
    values: str  # "uint8", "float32" or "float64"


def named_folder(name: str | os.PathLike[str]) -> str:
    """Return the name of a data set with a slash after its folder, if it is one, so that its name alone tells."""
    match = NAME.fullmatch(os.fspath(name))
    if match is None or is_data_file(name) or not user_path(match[1]).is_dir():
        return os.fspath(name)
    return f"{match[1]}/" + (f":{match[2]}" if match[2] else "")


def sized(name: str) -> tuple[str, tuple[int, ...]]:
    """Return the name of a folder without its size, and the size: (64, 64) of DIR/:64, () of DIR/."""
    match = NAME.fullmatch(name)
    assert match is not None
    return f"{match[1]}/", (int(match[2]),) * 2 if match[2] else ()


def is_folder(name: str) -> bool:
    """Return whether a data set's name is that of a folder."""
    return re.search(r"[/\\](:\d+)?$", name) is not None


def listed(failed: Sequence[tuple[Path, str]]) -> list[str]:
    """Return lines that say which files cannot be read, and why."""
    lines = [f"{path} cannot be read: {reason}" for path, reason in failed[:LISTED]]
    return lines + ([f"and {len(failed) - LISTED} more files cannot be read"] if len(failed) > LISTED else [])


def left_out_note(left_out: Counter[str], folder: Path) -> list[str]:
    """Return the line that says what is left out of a folder, if anything is."""
    reasons = ", ".join(f"{reason}: {count:,}" for reason, count in sorted(left_out.items()) if count)
    return [f"left out of {folder}: {reasons}"] if reasons else []


def attempt(action: Callable[[Given], Made], items: Iterable[Given]) -> list[Made | str]:
    """Return an action's result for each item, several at a time, or one line that says why it fails."""

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
    """Return the pictures, or files with the `known` endings, below a folder in order; count others by what they are.

    Links are followed, hidden files are passed over.
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
        if path.is_dir() and (path.name in FOREIGN_FOLDERS or any((path / mark).exists() for mark in MARKS)):
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


def _parts(root: Path, folders: Sequence[Path], words: Mapping[str, str]) -> dict[str, Path]:
    """Return the folders of a folder that are its parts, in order; none where they are classes."""
    files = {folder: files_in(folder, Counter(), (os.path.realpath(root),)) for folder in folders}
    named = _named_parts(files, words)
    parts = {words[folder.name.lower()]: folder for folder in named}
    others = [folder.name for folder in folders if files[folder] and folder not in named]
    names = ", ".join(folder.name for folder in named)
    if list(parts) == [TRAIN] and others:
        return {}  # a class of that name
    if parts and TRAIN not in parts:
        raise DataError(f"{root} has a folder {names} and none train; give both, or folders of classes alone")
    if len(parts) < len(named):
        raise DataError(f"{root} has folders {names}, two for one part; keep one")
    if parts and others:
        raise DataError(f"{root} has {others[0]} beside the parts {names}; move it away")
    if len(others) > 1 and all(name.lower() in words for name in others):
        raise DataError(f"{root} has {', '.join(others)} without classes; put the pictures of each class into a folder")
    return {part: parts[part] for part in (TRAIN, HELD_OUT, TEST) if part in parts}


def _named_parts(files: Mapping[Path, Sequence[Path]], words: Mapping[str, str]) -> list[Path]:
    """Return the folders named like parts that hold folders of pictures, and the empty ones beside them."""
    named = [folder for folder in files if folder.name.lower() in words]
    nested = [folder for folder in named if {path.parent for path in files[folder]} - {folder}]
    return [folder for folder in named if nested and (folder in nested or not files[folder])]


def _scan(root: Path, words: Mapping[str, str]) -> Pictures:
    """Return the pictures of a folder, by part and class."""
    left_out: Counter[str] = Counter()
    folders, loose = _listing(root, left_out)
    left_out[BESIDE], parts = len(loose), _parts(root, folders, words) or {"": root}
    pictures: list[tuple[Path, str, str]] = []  # files, parts and classes
    empty: list[str] = []
    for part, folder in parts.items():
        inner, beside = _listing(folder, left_out) if part else (folders, [])
        left_out[BESIDE] += len(beside)
        for of_class in inner:
            paths = files_in(of_class, left_out, (os.path.realpath(root), os.path.realpath(folder)))
            pictures += [(path, part, of_class.name) for path in paths]
            empty += [] if paths else [of_class.relative_to(root).as_posix()]
    notes = left_out_note(left_out, root)
    if empty:
        notes.append(f"no class of {root}, since no picture lies there: {', '.join(empty[:LISTED])}")
    classes = {part: {label for _, of, label in pictures if of == part} for part in parts}
    first, where = next(iter(parts.items()))
    if len(classes[first]) < 2:
        holds, said = ", ".join(classes[first]) or "no classes", f" ({notes[0]})" if notes else ""
        raise DataError(f"{where} holds {holds}; expected two or more folders, one for each class, of pictures{said}")
    for part, where in parts.items():
        if not classes[part]:
            raise DataError(f"{where} holds no pictures; give it some, or take it away")
        if more := sorted(classes[part] - classes[first]):
            raise DataError(f"{root}: class {more[0]} has no pictures in train; give it some, or take it from {where}")
    files, of_parts, labels = zip(*pictures, strict=True)
    names = tuple(sorted(classes[first]))
    return Pictures(root, files, of_parts, np.array([names.index(label) for label in labels], np.int64), names, notes)


def _table(root: Path, passed: list[str]) -> Table | None:
    """Return the table of labels, labels.csv in a folder or FOLDER.csv beside it; say which is none."""
    real = root.resolve()
    for path in (root / "labels.csv", real.with_name(f"{real.name}.csv")):
        if not path.is_file():
            continue
        try:
            (head, *rows), delimiter = read_table(path)
        except ValueError as error:
            raise DataError(f"{path}: {error}") from error
        if head[0].lower() in NAMES:
            return Table(path, head[1:], rows, delimiter)
        reason = f"its first column is {head[0]!r}; a table of labels begins with a column `name`"
        if path.parent == root:
            raise DataError(f"{path}: {reason}; rename that, or take the file away for classes by folder")
        passed.append(f"{path} is not read: {reason}")
    return None


def _tabled(root: Path, table: Table, reading: Reading) -> Pictures:
    """Return the pictures that a table names."""
    path, rows = table.path, {name: row for name, *row in table.rows}
    if len(rows) != len(table.rows):
        twice = next(name for name, count in Counter(name for name, *_ in table.rows).items() if count > 1)
        raise DataError(f"{path} has the name {twice} twice")
    left_out: Counter[str] = Counter()
    files = {file.relative_to(root).as_posix(): file for file in files_in(root, left_out) if file != path}
    left_out[f"files {path.suffix}"] -= path.parent == root
    left_out[f"pictures that {path.name} does not name"] = len(files.keys() - rows.keys())
    left_out[f"rows of {path.name} without a picture"] = len(rows.keys() - files.keys())
    parts = {name: reading.parts.get(name.partition("/")[0].lower(), "") for name in files if name in rows}
    if not all(parts.values()):
        parts = dict.fromkeys(parts, "")
    if not {"", TRAIN} & {*parts.values()}:
        raise DataError(f"{path} names no picture of {root} to train on; names are paths below it")
    order = sorted(parts, key=lambda name: ("", TRAIN, HELD_OUT, TEST).index(parts[name]))
    labels, names, task, said = _labels(table, [rows[name] for name in order], reading)
    chosen, of_parts = [files[name] for name in order], [parts[name] for name in order]
    return Pictures(root, chosen, of_parts, labels, names, [*left_out_note(left_out, root), *said], task)


def _labels(
    table: Table, rows: list[list[str]], reading: Reading
) -> tuple[NDArray[Any], tuple[str, ...], str, list[str]]:
    """Return the labels in a table's cells, the names of classes, labels or numbers, their kind, and notes."""
    path, columns = f"{table.path}", table.columns
    if [column.lower() for column in columns] in (["label"], ["class"]):
        names = tuple(sorted({row[0] for row in rows}, key=lambda text: (not text.isdecimal(), len(text), text)))
        return np.array([names.index(row[0]) for row in rows], np.int64), names, "classes", []
    try:
        values = numbers(rows, table.delimiter)
    except ValueError as error:
        raise DataError(f"{path}: {error}; give columns of numbers, or one column `label` of names") from error
    array = values.astype(bool if np.isin(values, (0, 1)).all() else float)
    (labels,), task, said = reading.labels(path, {"the columns": array})
    of_classes = task == "classes" and len(columns) == 1
    names = tuple(map(str, range(labels.max() + 1)) if of_classes else columns)
    return labels, names, task, said


def tested(hashes: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Choose a class's test samples by the smallest hashes, where no folder or table names the parts.

    They are those with a hash, as a fraction, below 1 / `TESTED`, or the smallest hash. A class with fewer than
    `TESTED` samples has none. The choice depends on contents alone, not on names or a seed, so copies are on one side.
    """
    if len(hashes) < TESTED:
        return np.zeros(len(hashes), bool)
    chosen = hashes <= max(np.uint64(2**64 // TESTED), hashes.min())
    return chosen & ~chosen.all()


def load_folder(name: str, reading: Reading, cache: Path, *, mapped: bool = False) -> Dataset:
    """Return the pictures of folders by class as a data set; decoded pixels are kept in a folder.

    Folders `train`, `val` and `test`, or with other names of `PART_WORDS`, are the parts; without them `tested`
    chooses the test. Pictures that differ in size are cut to squares of 32 pixels, or to the reading's size. Grey ones
    stay grey if all are. Where they are `mapped`, or many, they stay in a file. A table of labels is read.
    """
    root = user_path(name.rstrip("/") or "/")
    if not root.is_dir():
        raise DataError(f"there is no folder {root}; name one with --dataset that holds a folder of pictures per class")
    passed: list[str] = []
    table = _table(root, passed)
    pictures = _tabled(root, table, reading) if table else _scan(root, reading.parts)
    pictures.notes += passed
    headers = pictures.read(functools.partial(_header, axes=reading.axes), range(len(pictures.files)))
    pictures.require_any()
    form = _common(pictures, {k: form for k, (form, _) in headers.items()}, reading)
    hashes = np.zeros(len(pictures.files), np.uint64)
    hashes[[*headers]] = [digest for _, digest in headers.values()]
    contents = hashes.tolist(), *form, DECODER, metadata.version("pillow")
    key = hashlib.sha256(repr(contents).encode()).hexdigest()[:16]
    file = cache / "pixels" / f"{root.resolve().name}-{key}"
    with DECODING:
        images = _kept(file, pictures, form)
        if images is None:
            images = _decoded(file, pictures, form, hashes)
    pictures.require_any()
    whole, parts = np.ones(len(hashes), bool), np.array(pictures.parts, object)
    whole[[*pictures.failed]] = False
    if TEST not in parts:
        parts[_share(pictures, hashes, whole & (parts != HELD_OUT))] = TEST
    train, test = (np.flatnonzero(whole & ((parts == TEST) == of_test)) for of_test in (False, True))
    both = np.concatenate([train, test])
    paths = tuple(pictures.files[k].relative_to(root).as_posix() for k in both)
    samples = Samples(paths, hashes[both], parts[both] == HELD_OUT if HELD_OUT in parts else None)
    chosen: list[Any] = [images[train], images[test]]
    if isinstance(images, MappedImages) and not (mapped or images.size > MOST_HELD):
        chosen = list(map(np.asarray, chosen))
    notes, labels = (*pictures.notes, *pictures.unread()), pictures.labels
    parts_of = chosen[0], labels[train], chosen[1], labels[test]
    return Dataset(name, pictures.names, *parts_of, notes, samples, pictures.task)


def _header(file: Path, axes: int) -> tuple[Form, int]:
    """Return the form of the picture that a file holds, and the first eight bytes of the SHA-256 of the file."""
    return Form(*shape_of(file, axes)), _hash(file)


def _hash(file: Path) -> int:
    with open(file, "rb") as stream:
        return int.from_bytes(hashlib.file_digest(stream, "sha256").digest()[:8], "big")


def _common(pictures: Pictures, forms: dict[int, Form], reading: Reading) -> Form:
    """Return the form that pictures are brought to: no stacks if some are none, and bytes if some are."""
    axes, root, wanted = min(len(form.shape) for form in forms.values()), pictures.root, reading.size
    for k in [k for k, form in forms.items() if len(form.shape) != axes]:
        pages = forms.pop(k).shape[0]
        pictures.failed[k] = f"it has {pages} pages, others have one; save each in a file of its own"
    values = max(form.values for form in forms.values())
    if values != "uint8" != reading.values:
        values = reading.values or values
    shapes = Counter(form.shape for form in forms.values() if (form.values == "uint8") == (values == "uint8"))
    sizes, channels = {shape[:-1] for shape in shapes}, {shape[-1] for shape in shapes}
    if len(channels) > 1 and not channels <= MODES.keys():
        raise DataError(f"{root} has files of {' and '.join(map(str, sorted(channels)))} channels; bring them to one")
    if axes != 3:
        if wanted and len(wanted) != axes - 1:
            raise DataError(f"{root} holds {UNITS[axes - 1]}, whose size stays; leave out --size {wanted[0]}")
        shape = shapes.most_common(1)[0][0]
        if any(is_array(pictures.files[k]) for k in forms):
            length = "x".join(map(str, shape[:-1]))
            pictures.note_reading(f"files of {root} are read as {UNITS[axes - 1]} of {length}, {shape[-1]} channels")
        return Form(shape, values)
    size = wanted or ((SIDE,) * 2 if len(sizes) > 1 else max(sizes))
    if sizes - {size}:
        said = f"pictures of {root} that are not {size[0]}x{size[1]} are resized by the shorter side and cropped"
        pictures.note_reading(said + ("" if wanted else "; --size 64 makes them 64x64"))
    if not reading.axes and (count := max(channels)) > MOST_COLOURS:
        deep = "x".join(map(str, (*size, count)))
        pictures.note_reading(f"{root} is read as images of {count} channels; --preset volume reads volumes of {deep}")
    return Form((*size, max(channels)), values)


def _share(pictures: Pictures, hashes: NDArray[np.uint64], candidates: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which pictures are for the test, from each class its share; note classes without any."""
    share, labels, notes = np.zeros(len(hashes), bool), pictures.labels, pictures.notes
    groups = labels if labels.ndim == 1 else np.zeros(len(labels), int)
    for label in np.unique(groups):
        members = np.flatnonzero(candidates & (groups == label))
        share[members] = tested(hashes[members])
    if few := [pictures.names[label] for label in np.unique(groups) if not share[groups == label].any()]:
        notes.append(f"no picture of {', '.join(few[:LISTED])} is for the test, of fewer than {TESTED} or copies")
    if not share.any():
        raise DataError(f"{pictures.root}: no class has {TESTED} pictures, so none is for the test; make a folder test")
    if pictures.parts[0]:
        pictures.note_reading(f"{pictures.root} has no folder test: {share.sum():,} pictures of train are for the test")
    return share


def _kept(file: Path, pictures: Pictures, form: Form) -> MappedImages | None:
    """Return the images in a kept file, whose name ends with their checksum.

    Images of zeros are decoded again, since a file may have been unreadable before; None if one is different now.
    """
    for path in file.parent.glob(f"{glob.escape(file.name)}-*.npy"):
        with contextlib.suppress(*UNREADABLE):
            images, checksum, zero = MappedImages([np.load(path, mmap_mode="r")]), 0, []
            for begin in range(0, len(images), CHUNK):
                chunk = np.asarray(images[begin : begin + CHUNK])
                checksum = zlib.crc32(chunk.data, checksum)
                zero += [begin + k for k, image in enumerate(chunk) if not image.any()]
            zero = [k for k in zero if k not in pictures.failed]
            again = attempt(lambda k: pixels(pictures.files[k], *form), zero)
            if path.stem.endswith(f"{checksum:08x}") and all(isinstance(a, str) or not a.any() for a in again):
                pictures.failed |= {k: one for k, one in zip(zero, again, strict=True) if isinstance(one, str)}
                return images
    return None


def _decoded(file: Path, pictures: Pictures, form: Form, hashes: NDArray[np.uint64]) -> Any:
    """Decode pictures, into a file if it can be written; one that cannot be read becomes zeros, and is noted."""
    count = len(pictures.files)
    fit = set(range(count)) - pictures.failed.keys()
    known = dict(zip(pictures.files, hashes.tolist(), strict=True))

    def decoded(path: Path) -> NDArray[Any]:
        image = pixels(path, *form)
        if _hash(path) != known[path]:  # it would be kept under what it held before
            raise ValueError("it was changed while it was read; load the folder again")
        return image

    def chunks() -> Iterator[NDArray[Any]]:
        with progress_bar(count, "decoding", delay=3) as bar:
            for begin in range(0, count, CHUNK):
                part = range(begin, min(begin + CHUNK, count))
                chunk = np.zeros((len(part), *form.shape), form.values)
                for k, image in pictures.read(decoded, [k for k in part if k in fit]).items():
                    chunk[k - begin] = image
                yield chunk
                bar.update(len(chunk))

    partial, checksum = file.parent / f".{file.name}.{secrets.token_hex(4)}.{os.getpid()}.partial", 0
    header = {"descr": np.dtype(form.values).str, "fortran_order": False, "shape": (count, *form.shape)}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        (file.parent / CACHE).write_text("Signature: 8a477f597d28d172789f06886806bc55\n# Decoded pictures.\n")
        remove_partial_files(file.parent, rf"{re.escape(file.name)}(?:\.[0-9a-f]{{8}})?")
        for damaged in file.parent.glob(f"{glob.escape(file.name)}-*.npy"):
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
    except UNREADABLE as error:
        pictures.notes.append(f"decoded pictures cannot be kept in {file.parent}: {error}")
        return np.concatenate(list(chunks()))
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
