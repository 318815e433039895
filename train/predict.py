"""Classify pictures by a trained network: `python -m hcnn predict NETWORK PATH ... --out table.csv`."""

from train.commands.process import begin, raise_on_interrupt

begin("train.predict", __name__)

import argparse
import csv
import io
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from hcnn_core.backend import to_numpy
from train.classifier import BATCH, Classifier, load
from train.commands.command_line import NETWORK, Parser, given_path, run_command, say
from train.data import DataError
from train.data.folder import ENDINGS, attempt, files_in, listed
from train.data.photographs import pixels
from train.runs.progress import progress_bar
from train.runs.session import untrained_size
from train.storage.files import write_atomically

TOP = 5
"""Classes that a row names."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    return run_command(_parser(), arguments, _act, "predict fewer files at a time")


def _act(options: argparse.Namespace) -> int:
    network = load(options.network)
    files = [file for path in options.paths for file in (files_in(path) if path.is_dir() else [path])]
    if not files:
        raise DataError(f"{options.paths[0]} holds no files {', '.join(ENDINGS)}; name files, or a folder of such")
    for line in untrained_size(network.network.config, network.checkpoint.image_size):
        print(line, file=sys.stderr)
    stream, failed = io.StringIO(), []
    writer = csv.writer(stream, lineterminator="\n")
    task, told = network.checkpoint.task, (network.class_names, min(TOP, len(network.class_names)))
    writer.writerow(["path", *task.columns(*told)])
    with progress_bar(len(files)) as bar:
        for part, made in _read(files, network):
            read = [(path, image) for path, image in zip(part, made, strict=True) if not isinstance(image, str)]
            failed += [(path, image) for path, image in zip(part, made, strict=True) if isinstance(image, str)]
            rows = task.cells(to_numpy(network.logits(np.stack([image for _, image in read]))), *told) if read else []
            writer.writerows([path, *row] for (path, _), row in zip(read, rows, strict=True))
            bar.update(len(part))
    if options.out:
        write_atomically(options.out, stream.getvalue().encode())
        say(f"{options.out}: {len(files) - len(failed):,} files")
    else:
        say(stream.getvalue().rstrip("\n"))
    for line in listed(failed):
        print(line, file=sys.stderr)
    return 1 if failed else 0


def _read(files: Sequence[Path], network: Classifier) -> Iterator[tuple[Sequence[Path], list[Any]]]:
    """Yield batches of files with their images, or why there are none; the next is decoded while one is classified."""
    decode = partial(pixels, shape=network.photograph_shape)
    ahead: deque[tuple[Sequence[Path], Future[list[Any]]]] = deque()
    with ThreadPoolExecutor(1) as pool:
        for begin in range(0, len(files), BATCH):
            part = files[begin : begin + BATCH]
            ahead.append((part, pool.submit(attempt, decode, part)))
            if len(ahead) > 2:
                before, made = ahead.popleft()
                yield before, made.result()
        for before, made in ahead:
            yield before, made.result()


def _parser() -> Parser:
    parser = Parser(
        prog="python -m train.predict",
        description="Classify pictures by a trained network: a table of the five most probable classes of each.",
        epilog="Exit status: 0; 1 it failed, or files that are listed cannot be read; 2 the command line is wrong.",
    )
    parser.add_argument("network", type=given_path, metavar="NETWORK", help=NETWORK)
    parser.add_argument(
        "paths", type=given_path, nargs="+", metavar="PATH", help=f"files, or folders of files {', '.join(ENDINGS)}"
    )
    parser.add_argument("--out", type=given_path, metavar="FILE", help="CSV to write [standard output]")
    return parser


if __name__ == "__main__":
    raise_on_interrupt()
    sys.exit(main())
