"""Classify what files hold by a trained network: `python -m hcnn predict NETWORK PATH ... --out table.csv`."""

import argparse
import itertools
import re
import sys
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io.wavfile
from numpy.typing import NDArray

from hcnn_core.backend import to_numpy
from train.classifier import BATCH, Classifier, load
from train.commands.command_line import NETWORK, Parser, command, given_path, new_file, say
from train.data import DataError
from train.data.folder import attempt, files_in, listed, said_of
from train.data.photographs import pixels
from train.data.progress import progress_bar
from train.pages import Table
from train.runs.session import untrained_size
from train.storage.files import write_atomically

ARRAYS = (".npy", ".npz")
SIGNALS = (*ARRAYS, ".csv", ".wav")
"""Endings of files of samples that are no pictures, and of signals."""

TOP = 5
"""Classes that a row names."""


def _arguments(parser: Parser) -> None:
    parser.add_argument("network", type=given_path, metavar="NETWORK", help=NETWORK)
    parser.add_argument(
        "paths",
        type=given_path,
        nargs="+",
        metavar="PATH",
        help=f"pictures, or folders of them; for a network of signals files {', '.join(SIGNALS)}",
    )
    parser.add_argument("--out", type=new_file, metavar="FILE", help="CSV to write [standard output]")


@command(_arguments, "predict fewer files at a time")
def main(options: argparse.Namespace) -> int:
    """Classify pictures, signals or volumes by a trained network.

    The table has the five most probable classes of each, or its labels or numbers. Files that cannot be read are
    listed, and the exit status is then 1.
    """
    network = load(options.network)
    endings = None if network.photograph_shape else ARRAYS if len(network.checkpoint.image_size) > 1 else SIGNALS
    files: list[Path] = []
    for path in options.paths:
        left_out: Counter[str] = Counter()
        files += (own := files_in(path, left_out, known=endings) if path.is_dir() else [path])
        lines = said_of(left_out, path)
        if not own:
            kind = f"files {', '.join(endings)}" if endings else "pictures"
            raise DataError(f"{path} holds no {kind}; {'; '.join((*lines, 'name files, or a folder of such'))}")
        for line in lines:
            print(line, file=sys.stderr)
    for line in untrained_size(network.network.config, network.checkpoint.image_size):
        print(line, file=sys.stderr)
    rows: list[list[str]] = []
    failed: list[tuple[Path, str]] = []
    task, told = network.checkpoint.task, (network.class_names, min(TOP, len(network.class_names)))
    with progress_bar(len(files)) as bar:
        for part, items in _read(files, network):
            failed += [(path, reason) for path, reason in zip(part, items, strict=True) if isinstance(reason, str)]
            read = [(path, samples) for path, samples in zip(part, items, strict=True) if not isinstance(samples, str)]
            names = [f"{path}[{k}]" if len(x) > 1 else str(path) for path, x in read for k in range(len(x))]
            for _, alike in itertools.groupby((samples for _, samples in read), key=lambda samples: samples.dtype):
                cells = task.cells(to_numpy(network.logits(np.concatenate([*alike]))), *told)
                rows += [[name, *row] for name, row in zip(names, cells, strict=False)]
                del names[: len(cells)]
            bar.update(len(part))
    table = Table(["path", *task.columns(*told)], rows).csv()
    if options.out:
        write_atomically(options.out, table)
        say(f"{options.out}: {len(files) - len(failed):,} files")
    elif len(failed) < len(files):
        say(table.decode().rstrip("\n"))
    for line in listed(failed):
        print(line, file=sys.stderr)
    return 1 if failed else 0


def _read(files: Sequence[Path], network: Classifier) -> Iterator[tuple[Sequence[Path], list[Any]]]:
    """Yield batches of files with their samples, or why there are none; the next is read while one is classified."""
    decode = partial(samples_in, network=network)
    ahead: deque[tuple[Sequence[Path], Future[list[Any]]]] = deque()
    with ThreadPoolExecutor(1) as pool:
        for begin in range(0, len(files), BATCH):
            part = files[begin : begin + BATCH]
            ahead.append((part, pool.submit(attempt, decode, part)))
            if len(ahead) > 2:
                before, future = ahead.popleft()
                yield before, future.result()
        for before, future in ahead:
            yield before, future.result()


def samples_in(path: Path, network: Classifier) -> NDArray[Any]:
    """Return what a file holds, (N, *space, C), as the network takes it: a picture, or an array of samples or of one.

    Of a .npz `x_test` is taken, or its only array. A .csv has a line for each time and a column for each channel, or,
    of one channel, a line for each signal.
    """
    ending, shape = path.suffix.lower(), network.photograph_shape
    if ending == ".npz":
        with np.load(path, allow_pickle=False) as file:
            if "x_test" not in file and len(file.files) != 1:
                raise ValueError(f"it holds {', '.join(file.files) or 'nothing'}; one array is expected, or x_test")
            array = file["x_test" if "x_test" in file else file.files[0]]
    elif ending == ".npy" and (not shape or np.load(path, mmap_mode="r", allow_pickle=False).ndim > 3):
        array = np.load(path, allow_pickle=False)
    elif ending == ".csv" and not shape:
        with open(path, encoding="utf-8-sig") as file:
            head = file.readline()
        array = np.loadtxt(path, delimiter=",", skiprows=int(re.search("[a-df-z]", head, re.I) is not None), ndmin=2)
    elif ending == ".wav" and not shape:
        _, array = scipy.io.wavfile.read(path)
    else:
        return pixels(path, shape, network.checkpoint.values)[None]
    return np.asarray(network._samples(array)[0])
