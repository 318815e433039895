"""Files of arrays: a reader for each kind, by its ending. Another kind is another entry of `READERS`."""

import codecs
import csv
import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from train.data.dataset import DTYPES, UNITS

Unit = tuple[float, float]
"""The value of silence in a file of sound, and the full scale above it."""


class Reader(NamedTuple):
    """How files of one kind are read, and what they may hold."""

    open: Callable[[Path], AbstractContextManager[Mapping[str, Any]]]  # arrays by names, read when they are asked for
    axes: tuple[int, ...] = (*UNITS,)  # of space, of the samples that a file may hold
    dtypes: tuple[str, ...] = DTYPES
    units: Mapping[str, Unit] | None = None  # by dtype; None where files hold numbers in the user's units
    named: bool = False  # whether a file has names for its arrays, so that it may be a data set
    in_folders: bool = False  # whether a folder by class may hold such files, a sample each

    def samples(self, path: Path) -> tuple[Any, Sequence[str]]:
        """Return an array of one or several samples, `x_test` or the only array, and notes on it."""
        with self.open(path) as arrays:
            if "x_test" not in arrays and len(arrays) != 1:
                raise ValueError(f"it holds {', '.join(arrays) or 'nothing'}; one array is expected, or x_test")
            return arrays["x_test" if "x_test" in arrays else next(iter(arrays))], getattr(arrays, "notes", ())


class Noted(dict[str, Any]):
    """Arrays by names, and notes on how they were read."""

    def __init__(self, x: Any, notes: Sequence[str]) -> None:
        super().__init__(x=x)
        self.notes = notes


@contextmanager
def _npz(path: Path) -> Iterator[Any]:
    with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:  # given a path, it may stay open
        yield file


def _decoded(path: Path) -> str:
    """Return the text of a file in UTF-16 or UTF-32, by their marks, in UTF-8, or else in Windows' Latin letters."""
    data = path.read_bytes()
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    wider = data.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE))
    for encoding in ("utf-32",) if wider else ("utf-16",) if wide else ("utf-8", "cp1252", "latin-1"):
        with suppress(UnicodeDecodeError):
            return data.decode(encoding).lstrip("\ufeff")
    raise ValueError("it begins with the mark of UTF-16 or UTF-32, and is no such text; save it as UTF-8")


def table(path: Path, comment: str = "") -> tuple[list[list[str]], str]:
    """Return the rows of a text file, as cells without blanks around them, and the separator.

    The separator is the semicolon, tab or comma that gives all rows the same number of cells, at least two; else each
    row is one cell. Empty lines, and those that begin with a `comment`, are left out. ValueError names the first row
    that has another number of cells.
    """
    text, other = _decoded(path), ""
    if "\0" in text:
        raise ValueError("it holds NUL, so it is no text of UTF-8, nor of UTF-16 with its mark; save it as UTF-8")
    alone: list[list[str]] = []
    for delimiter in (d for d in ";\t," if d in text or d == ","):
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
        try:
            numbered = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
        except csv.Error as error:
            raise ValueError(f"line {reader.line_num}: {error}") from error
        kept = [(n, row) for n, row in numbered if any(row[:1]) or len(row) > 1]
        kept = [(n, row) for n, row in kept if not (comment and row[0].startswith(comment))]
        if not kept:
            raise ValueError("it holds no row")
        first = len(kept[0][1])
        odd = next(((n, len(row)) for n, row in kept if len(row) != first), None)
        alone = [row for _, row in kept]
        if odd is None and first > 1:
            return alone, delimiter
        if odd is not None and (first > 1 or not other):
            other = f"line {odd[0]} has {odd[1]} cells, others before it {first}, by {delimiter!r} between cells"
    if other:
        raise ValueError(f"{other}; give every row as many")
    return alone, delimiter


def _number(cell: str) -> float | None:
    """Return the number that a cell holds, nan and inf among them; None if it holds none."""
    try:
        return None if "_" in cell else float(cell)
    except ValueError:
        return None


def numbers(rows: Sequence[Sequence[str]], delimiter: str) -> NDArray[np.float64]:
    """Return the numbers of a table, ValueError for other cells; commas are decimal if semicolons separate cells."""
    if delimiter == ";":
        rows = [[cell.replace(",", ".") for cell in row] for row in rows]
    found = [[_number(cell) for cell in row] for row in rows]
    for row, cells in zip(rows, found, strict=True):
        if None in cells:
            said = f"{row[cells.index(None)]!r} in the row {', '.join(row[:4])}{', ..' if len(row) > 4 else ''}"
            raise ValueError(f"could not convert to a number: {said}")
    return np.array(found, np.float64)


def _csv(path: Path) -> Noted:
    """Read a line for each time and a column for each channel, or for one channel a line for each signal."""
    (first, *rest), delimiter = table(path, "#")
    cells = [_number(cell.replace(",", ".") if delimiter == ";" else cell) for cell in first]
    named, notes = None in cells, []
    if named and any(cell is not None for cell in cells):
        notes.append(f"its first line is taken for a head, since {first[cells.index(None)]!r} is no number")
    elif len(first) > 1 and first == [str(k) for k in range(len(first))]:
        named, notes = True, [f"its first line, 0 to {len(first) - 1}, is taken for a head, the numbers of columns"]
    if named and not rest:
        raise ValueError("it holds a head and no numbers")
    return Noted(numbers(rest if named else [first, *rest], delimiter), notes)


def _wav(path: Path) -> Any:
    import scipy.io.wavfile

    return scipy.io.wavfile.read(path)[1]


SOUND: dict[str, Unit] = {"uint8": (128, 2**7), "int16": (0, 2**15), "int32": (0, 2**31)}
"""Units of WAV's integers; those of 24 bits are read as int32, shifted by eight bits."""

READERS = {
    ".npy": Reader(lambda path: nullcontext({"x": np.load(path, allow_pickle=False)}), in_folders=True),
    ".npz": Reader(_npz, named=True),
    ".csv": Reader(lambda path: nullcontext(_csv(path)), axes=(1,), dtypes=("float64",)),
    ".wav": Reader(
        lambda path: nullcontext({"x": _wav(path)}), axes=(1,), dtypes=(*SOUND, "float32", "float64"), units=SOUND
    ),
}

FILE = " or ".join(f"FILE{ending}" for ending, reader in READERS.items() if reader.named)
"""Files that may be data sets, in words for messages."""


def reader_of(path: str | os.PathLike[str]) -> Reader | None:
    """Return the reader of a file, by its ending; None for pictures and other files."""
    return next((reader for ending, reader in READERS.items() if os.fspath(path).lower().endswith(ending)), None)


def is_data_file(path: str | os.PathLike[str]) -> bool:
    """Return whether a path is, by its ending, that of a file that may be a data set."""
    reader = reader_of(path)
    return reader is not None and reader.named


def endings_for(axes: int) -> list[str]:
    """Return the endings of files that may hold samples with this number of axes of space."""
    return [ending for ending, reader in READERS.items() if axes in reader.axes]


def unit_of(dtype: str, low: float, high: float, units: Mapping[str, Unit]) -> Unit | None:
    """Return the unit of values by their dtype and range; None where these leave it open.

    Floats from -1 to 1 have the unit 1; larger ones may be integers that became floats, known by their size.
    """
    if dtype in units:
        return units[dtype]
    largest = max(abs(low), abs(high))
    if largest <= 1:
        return 0, 1
    if low >= 0 and high <= 255:
        return units["uint8"]
    return next(((0, 2.0**bits) for bits in (15, 23, 31) if 2**7 < largest <= 2**bits), None)


def in_units(
    sound: NDArray[Any], units: Mapping[str, Unit], values: str, trained: tuple[float, float]
) -> tuple[NDArray[Any], str]:
    """Return a sound in the unit of a network's training data, `values` of a dtype in a range; and a note if converted.

    ValueError where the unit of one of the two is unknown.
    """
    if not sound.size:
        return sound, ""
    own, wanted = unit_of(sound.dtype.name, sound.min(), sound.max(), units), unit_of(values, *trained, units)
    floats, span = sound.dtype.kind == "f", f"from {sound.min():.6g} to {sound.max():.6g}"
    known = "the network was trained on {} from {:.6g} to {:.6g}".format(values, *trained)
    if own == wanted:
        return (sound if sound.dtype in DTYPES else sound.astype(np.float64)), ""
    if floats and (wanted is None or (own is None and wanted[1] == 1)):
        return sound, f"floats are taken as they are; {known}"
    if own is None or wanted is None:
        raise ValueError(f"it holds {sound.dtype} {span}, and {known}: nothing says the unit; give .npy in that one")
    result = (sound - np.float64(own[0])) / own[1] * wanted[1] + wanted[0]
    if values == "uint8":
        result = np.clip(np.rint(result), 0, 255).astype(np.uint8)
    kind = "floats" if floats else f"{sound.dtype} values"
    return result, f"{kind} are scaled by {wanted[1] / own[1]:.3g}, to the unit in which {known}"
