"""Pictures in a folder for each class, decoded once and kept in one file."""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from train.data.dataset import DataError
from train.data.photographs import MODES, pixels, shape_of
from train.storage.files import remove_partial_files, write_atomically

ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".npy")
"""Of files that are read."""

SIDE = 32
"""Pixels a side of pictures that differ in size."""

TESTED = 5
"""One picture in so many is for the test, where there is no folder for it."""

NAME = re.compile(r"(.+?)[/\\]*(?::(\d+))?")
"""DIR/, or DIR/:64 for pictures of 64 x 64."""

LISTED = 20
"""Files of which it is said what is wrong with them; of more their number."""

Given = TypeVar("Given")
Made = TypeVar("Made")


def named_folder(name: str) -> str:
    """Return the name of a data set with a slash after its folder, if it is one, so that its name alone tells."""
    found = NAME.fullmatch(name)
    if found is None or name.endswith(".npz") or not Path(found[1]).expanduser().is_dir():
        return name
    return f"{found[1]}/" + (f":{found[2]}" if found[2] else "")


def is_folder(name: str) -> bool:
    """Return whether a data set's name is that of a folder."""
    return re.search(r"[/\\](:\d+)?$", name) is not None


def files_in(folder: Path, endings: Sequence[str] = ENDINGS) -> list[Path]:
    """Return the files below a folder that have one of some endings, in order; none that are hidden."""
    found = (path for path in folder.rglob("*") if path.suffix.lower() in endings and path.is_file())
    return sorted(path for path in found if not any(part[0] == "." for part in path.relative_to(folder).parts))


def listed(failed: Sequence[tuple[Path, str]]) -> list[str]:
    """Return lines that say which files cannot be read, and why."""
    lines = [f"{path} cannot be read: {reason}" for path, reason in failed[:LISTED]]
    return lines + ([f"and {len(failed) - LISTED} more files cannot be read"] if len(failed) > LISTED else [])


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


def load_folder(name: str, kept: Path) -> dict[str, Any]:
    """Return the arrays of a data set of pictures in folders by class, or those that are kept of them in a folder.

    What `train` and `test` hold are the parts, or else one file in five of each class is for the test. Pictures that
    differ in size are cut to squares of 32 pixels, or of as many as the name says; grey ones stay grey if all are.
    """
    found = NAME.fullmatch(name)
    assert found is not None
    root = Path(found[1]).expanduser()
    if not root.is_dir():
        raise DataError(f"there is no folder {root}; name one with --dataset that holds a folder of pictures per class")
    files, labels, names, tested = _files(root)
    stamps = [(str(path.relative_to(root)), (s := path.stat()).st_size, s.st_mtime_ns) for path in files]
    digest = hashlib.sha256(repr((stamps, found[2])).encode()).hexdigest()
    file = kept / f"{root.resolve().name}-{digest[:12]}.npz"
    arrays = _kept(file)
    if arrays is None:
        arrays = _decoded(root, files, labels, names, tested, int(found[2] or 0))
        try:
            kept.mkdir(parents=True, exist_ok=True)
            remove_partial_files(kept, re.escape(file.name))
            stream = io.BytesIO()
            np.savez(stream, **arrays)
            write_atomically(file, stream.getvalue())
        except OSError as error:
            arrays["notes"] = np.array([*arrays["notes"], f"what is decoded cannot be kept in {file}: {error}"])
    return arrays


def _files(root: Path) -> tuple[list[Path], list[int], list[str], list[bool]]:
    """Files with their classes, names of the classes, and which files are for the test."""
    parts = {part: root / part for part in ("train", "test") if (root / part).is_dir()}
    if "test" in parts and "train" not in parts:
        raise DataError(f"{root} has a folder test and none train; give both, or folders of classes alone")
    of_part = {part: _classes(folder) for part, folder in (parts or {"train": root}).items()}
    names = sorted(of_part["train"])
    if len(names) < 2:
        found = ", ".join(names) or "none"
        raise DataError(
            f"{parts.get('train', root)} holds {found}; expected two or more folders, one for each class, of files "
            f"{', '.join(ENDINGS)}"
        )
    if more := sorted(of_part.get("test", {}).keys() - set(names)):
        raise DataError(f"{root}: class {more[0]} has no pictures in train; give it some, or take it out of test")
    files: list[Path] = []
    labels: list[int] = []
    tested: list[bool] = []
    rng = np.random.default_rng(0)
    for part, classes in of_part.items():
        for label, name in enumerate(names):
            own = classes.get(name, [])
            files, labels = files + own, labels + [label] * len(own)
            share = 0 if "test" in of_part else round(len(own) / TESTED)
            tested += (rng.permutation(len(own)) < share).tolist() if part == "train" else [True] * len(own)
    if "test" in of_part and not any(tested):
        raise DataError(f"{parts['test']} holds no pictures; give it some, or take it away")
    if not any(tested):
        raise DataError(f"{root}: no class has the {TESTED} pictures of which one is for the test; make a folder test")
    return files, labels, names, tested


def _classes(folder: Path) -> dict[str, list[Path]]:
    """Files by the name of their class; classes without files are none."""
    found = {path.name: files_in(path) for path in folder.iterdir() if path.is_dir() and path.name[0] != "."}
    return {name: files for name, files in found.items() if files}


def _kept(file: Path) -> dict[str, Any] | None:
    """What a file holds, each array as its checksum says; None if there is none, or it is damaged."""
    try:
        with open(file, "rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, KeyError):
        return None


def _decoded(
    root: Path, files: list[Path], labels: list[int], names: list[str], tested: list[bool], side: int
) -> dict[str, Any]:
    """The arrays of a data set, and what is to be said of it."""
    shapes = attempt(shape_of, files)
    sizes = {shape[:2] for shape in shapes if not isinstance(shape, str)}
    channels = {shape[2] for shape in shapes if not isinstance(shape, str)}
    if not sizes:
        raise DataError(f"{listed(list(zip(files, map(str, shapes), strict=True)))[0]}, nor any other of {root}")
    if len(channels) > 1 and not channels <= MODES.keys():
        raise DataError(f"{root} has files of {' and '.join(map(str, sorted(channels)))} channels; bring them to one")
    notes = []
    size = (side, side) if side else sizes.pop() if len(sizes) == 1 else (SIDE, SIDE)
    if sizes - {size}:
        notes.append(
            f"pictures of {root} that are not {size[0]}x{size[1]} are resized by the shorter side and cropped"
            + ("" if side else f"; --dataset {root}/:64 makes them 64x64")
        )
    shape = (*size, max(channels))
    made = attempt(lambda path: pixels(path, shape), files)
    failed = [(path, image) for path, image in zip(files, made, strict=True) if isinstance(image, str)]
    if len(failed) == len(files):
        raise DataError(f"{listed(failed)[0]}, nor any other of {root}")
    arrays: dict[str, Any] = {"class_names": np.array(names)}
    for part, of_test in (("train", False), ("test", True)):
        chosen = [k for k, image in enumerate(made) if tested[k] == of_test and not isinstance(image, str)]
        arrays[f"x_{part}"] = np.stack([made[k] for k in chosen]) if chosen else np.zeros((0, *shape), np.uint8)
        arrays[f"y_{part}"] = np.array([labels[k] for k in chosen], np.int64)
    return {**arrays, "notes": np.array([*notes, *listed(failed)], np.str_)}
