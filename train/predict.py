"""Classify the contents of files: `python -m hcnn predict NETWORK PATH ... --out table.csv`."""

import argparse
import itertools
import sys
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hcnn_core.backend import to_numpy
from train.classifier import BATCH, Classifier, load
from train.commands.command_line import NETWORK, Parser, command, given_path, new_file, say
from train.data import DataError, other_pixels
from train.data.dataset import UNITS
from train.data.folder import attempt, files_in, left_out_note, listed
from train.data.photographs import is_array, pixels
from train.data.progress import progress_bar
from train.data.readers import endings_for, in_units, reader_of
from train.pages import Table
from train.runs.fit import untrained_size
from train.storage.files import write_atomically

TOP = 5
"""Classes that a row names."""


def _arguments(parser: Parser) -> None:
    parser.add_argument("network", type=given_path, metavar="NETWORK", help=NETWORK)
    parser.add_argument(
        "paths",
        type=given_path,
        nargs="+",
        metavar="PATH",
        help="pictures, or files of arrays, or folders of them: "
        + "; ".join(f"for a network of {kind} {', '.join(endings_for(axes))}" for axes, kind in UNITS.items()),
    )
    parser.add_argument("--out", type=new_file, metavar="FILE", help="CSV to write [standard output]")


@command(_arguments, "predict fewer files at a time")
def main(options: argparse.Namespace) -> int:
    """Classify pictures, signals or volumes by a trained network.

    The table has the five most probable classes of each, or its labels or numbers. Files that cannot be read are
    listed, and the exit status is then 1.
    """
    network = load(options.network)
    files = [file for path in options.paths for file in _files(path, network)]
    for line in untrained_size(network.network.config, network.checkpoint.image_size):
        print(line, file=sys.stderr)
    rows: list[list[str]] = []
    failed: list[tuple[Path, str]] = []
    noted: dict[str, list[Path]] = {}
    with progress_bar(len(files)) as bar:
        for part, items in _read(files, network):
            pairs = [*zip(part, items, strict=True)]
            failed += [pair for pair in pairs if isinstance(pair[1], str)]
            rows += _rows(network, [(path, it[0]) for path, it in pairs if not isinstance(it, str)])
            for path, it in pairs:
                for note in it[1] if not isinstance(it, str) else ():
                    noted.setdefault(note, []).append(path)
            bar.update(len(part))
    table = Table(["path", *network.checkpoint.task.columns(network.class_names, TOP)], rows).csv()
    if options.out:
        write_atomically(options.out, table)
        say(f"{options.out}: {len(files) - len(failed):,} files")
    elif len(failed) < len(files):
        say(table.decode().rstrip("\n"))
    notes = [f"{p[0]}{f' and {len(p) - 1:,} more' * (len(p) > 1)}: {note}" for note, p in noted.items()]
    for line in (*notes, *listed(failed)):
        print(line, file=sys.stderr)
    return 1 if failed else 0


def _files(path: Path, network: Classifier) -> list[Path]:
    """Return the files below a path that a network takes, or the path of a file; print what else there is."""
    left_out: Counter[str] = Counter()
    endings = None if network.photograph_shape else endings_for(len(network.checkpoint.image_size))
    files = files_in(path, left_out, known=endings) if path.is_dir() else [path]
    lines = left_out_note(left_out, path)
    if not files:
        kind = f"files {', '.join(endings)}" if endings else "pictures"
        raise DataError(f"{path} holds no {kind}; {'; '.join((*lines, 'name files, or a folder of such'))}")
    for line in lines:
        print(line, file=sys.stderr)
    return files


def _rows(network: Classifier, read: Sequence[tuple[Path, NDArray[Any]]]) -> Iterator[list[str]]:
    """Yield the rows of the samples of files, (N, *space, C) of each."""
    for _, group in itertools.groupby(read, key=lambda pair: (pair[1].dtype, pair[1].shape[1:])):
        alike = list(group)
        names = [f"{path}[{k}]" if len(x) > 1 else str(path) for path, x in alike for k in range(len(x))]
        logits = to_numpy(network.logits(np.concatenate([x for _, x in alike])))
        cells = network.checkpoint.task.cells(logits, network.class_names, TOP)
        yield from ([name, *row] for name, row in zip(names, cells, strict=True))


def _read(files: Sequence[Path], network: Classifier) -> Iterator[tuple[Sequence[Path], list[Any]]]:
    """Yield batches of files with their samples, or why there are none; the next is read while one is classified."""
    ahead: deque[tuple[Sequence[Path], Future[list[Any]]]] = deque()
    with ThreadPoolExecutor(1) as pool:
        for begin in range(0, len(files), BATCH):
            part = files[begin : begin + BATCH]
            ahead.append((part, pool.submit(attempt, partial(samples_in, network=network), part)))
            if len(ahead) > 2:
                before, future = ahead.popleft()
                yield before, future.result()
        for before, future in ahead:
            yield before, future.result()


def samples_in(path: Path, network: Classifier) -> tuple[NDArray[Any], Sequence[str]]:
    """Return a file's picture or samples, (N, *space, C), as the network takes them, and notes."""
    reader, shape, checkpoint = reader_of(path), network.photograph_shape, network.checkpoint
    if reader is not None and len(checkpoint.image_size) in reader.axes:
        array, notes = reader.samples(path)
        if reader.units is not None:
            array, note = in_units(array, reader.units, checkpoint.values, checkpoint.likely_range)
            notes = [note] if note else []
        elif checkpoint.range and array.size and array.dtype.kind in "biuf":
            said = other_pixels(checkpoint.range, (float(array.min()), float(array.max())))
            notes = [*notes, *([said] if said else [])]
        if len(shape) != 3 or array.ndim > 3 or not is_array(path):
            return np.asarray(network._samples(array)[0]), notes
    return pixels(path, shape, checkpoint.values)[None], ()
