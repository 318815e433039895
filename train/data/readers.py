"""Files of arrays: what reads each kind, by its ending. Another kind is another entry of `READERS`."""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class Reader(NamedTuple):
    """How files of one kind are read."""

    open: Callable[[Path], AbstractContextManager[Mapping[str, Any]]]  # arrays by names, read when they are asked for
    named: bool = False  # whether a file has names for its arrays, so that it may be a data set
    of_signals: bool = False  # whether a file holds signals and nothing else

    def samples(self, path: Path) -> Any:
        """Return an array of samples, or of one: `x_test`, or the only array."""
        with self.open(path) as arrays:
            if "x_test" not in arrays and len(arrays) != 1:
                raise ValueError(f"it holds {', '.join(arrays) or 'nothing'}; one array is expected, or x_test")
            return arrays["x_test" if "x_test" in arrays else next(iter(arrays))]


@contextmanager
def _npz(path: Path) -> Iterator[Any]:
    with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:  # given a path, it may stay open
        yield file


def _csv(path: Path) -> Any:
    """Read a line for each time and a column for each channel, or, of one channel, a line for each signal."""
    with open(path, encoding="utf-8-sig") as file:
        has_head = re.search("[a-df-z]", file.readline(), re.I) is not None
    return np.loadtxt(path, delimiter=",", skiprows=int(has_head), ndmin=2)


def _wav(path: Path) -> Any:
    import scipy.io.wavfile

    return scipy.io.wavfile.read(path)[1]


READERS = {
    ".npy": Reader(lambda path: nullcontext({"x": np.load(path, allow_pickle=False)})),
    ".npz": Reader(_npz, named=True),
    ".csv": Reader(lambda path: nullcontext({"x": _csv(path)}), of_signals=True),
    ".wav": Reader(lambda path: nullcontext({"x": _wav(path)}), of_signals=True),
}

FILE = " or ".join(f"FILE{ending}" for ending, reader in READERS.items() if reader.named)
"""Files that may be data sets, as messages call them."""


def reader_of(path: str | os.PathLike[str]) -> Reader | None:
    """Return what reads a file, by its ending; None of pictures and other files."""
    return next((reader for ending, reader in READERS.items() if os.fspath(path).lower().endswith(ending)), None)


def is_data_file(path: str | os.PathLike[str]) -> bool:
    """Return whether a path is, by its ending, that of a file that may be a data set."""
    reader = reader_of(path)
    return reader is not None and reader.named


def endings_for(axes: int) -> list[str]:
    """Return the endings of files that hold samples with so many axes of space."""
    return [ending for ending, reader in READERS.items() if axes == 1 or not reader.of_signals]
