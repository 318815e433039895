"""What programs of science share: their command line, networks that end one by one, their records, and tables."""

from __future__ import annotations

import argparse
import csv
import math
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest

from autodiff import value_and_grad
from benchmarks.machine import describe_machine
from hcnn_core.updates import adamw_update

Array = np.ndarray[Any, Any]
Weights = dict[str, Array]
Row = dict[str, Any]


def command_line(about: str | None, arms: Collection[str], *, out: bool = True, **flags: tuple[Any, str]) -> Any:
    """Return the options of a program: arms, a folder, and flags of a default and a description each."""
    parser = argparse.ArgumentParser(description=(about or "").splitlines()[0])
    parser.add_argument("--arms", nargs="+", choices=list(arms), default=list(arms), metavar="ARM", help="[all]")
    parser.add_argument("--out", type=Path, required=out, metavar="DIR", help="folder for the networks and the table")
    for name, (default, help) in flags.items():
        many, one = isinstance(default, list), default[0] if isinstance(default, list) else default
        taken: Any = {"nargs": "+"} if many else {}
        taken |= {"action": "store_true"} if one is False else {"type": type(one), "default": default}
        parser.add_argument(f"--{name.replace('_', '-')}", help=help.replace("DEFAULT", str(default)), **taken)
    options = parser.parse_args()
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
    return options


def records(file: Path, *keys: str) -> list[dict[str, str]]:
    """Return the networks that have ended, each once, even if two processes trained it."""
    if not file.exists():
        return []
    with file.open(newline="") as source:
        return list({tuple(row[key] for key in keys): row for row in csv.DictReader(source)}.values())


def append(file: Path, rows: Sequence[Row], fields: Sequence[str] = ()) -> None:
    """Add networks to a record."""
    with file.open("a", newline="") as target:
        writer = csv.DictWriter(target, fields or list(rows[0]), restval="", lineterminator="\n")
        if not target.tell():
            writer.writeheader()
        writer.writerows({key: f"{x:.4f}" if isinstance(x, float) else x for key, x in row.items()} for row in rows)


def run(
    file: Path, keys: Sequence[str], jobs: Iterable[tuple[Any, ...]], one: Callable[..., list[Row]], **options: Any
) -> None:
    """Append what `one` returns of each job that is not recorded yet; a job has the values of the keys."""
    for job in jobs:
        if tuple(map(str, job)) not in {tuple(row[key] for key in keys) for row in records(file, *keys)}:
            append(file, one(*job), **options)
            print(*job, flush=True)


KEYS = "part", "method", "seed"
REACHED = (*KEYS, "accuracy", "loss", "seconds")
"""Fields of a record of accuracies, and those of them that name a network."""


def reached(job: tuple[Any, ...], compute: Callable[..., dict[str, float]], *arguments: Any) -> list[Row]:
    """Return the row of a job with the values of `KEYS`: what is computed, and in how many seconds."""
    begin = time.perf_counter()
    found = compute(*arguments)
    return [dict(zip(KEYS, job, strict=True)) | found | {"seconds": time.perf_counter() - begin}]


def by_method(file: Path, part: str) -> dict[str, list[dict[str, str]]]:
    """Return the rows of a part of such a record by method."""
    rows = [row for row in records(file, *KEYS) if row["part"] == part]
    return {
        method: [row for row in rows if row["method"] == method] for method in dict.fromkeys(r["method"] for r in rows)
    }


def right(rows: Sequence[dict[str, str]]) -> str:
    """Return the mean accuracy of seeds and its standard deviation, as a cell."""
    found = [100 * float(row["accuracy"]) for row in rows]
    return f"{np.mean(found):.1f}" + (f" +- {np.std(found, ddof=1):.1f} %" if len(found) > 1 else " %")


def tables(*parts: tuple[str, Iterable[Iterable[Any]]]) -> str:
    """Return tables in Markdown from a header and rows each; a header's cells are separated by " | "."""
    texts = []
    for header, rows in parts:
        lines = header, " | ".join(["---"] * (header.count(" | ") + 1)), *(" | ".join(map(str, row)) for row in rows)
        texts.append("\n".join(f"| {line} |" for line in lines))
    return "\n\n".join(texts) + "\n"


def publish(folder: Path, text: str, name: str = "arms.md") -> None:
    """Print a table, and write it with the machine."""
    print(text)
    (folder / name).write_text(f"{text}\n{describe_machine()}\n", "utf-8")


def descend(
    loss: Callable[..., Any], trained: Weights, steps: int, rate: float, arguments: Callable[[float], tuple[Any, ...]]
) -> Weights:
    """Return weights after AdamW at a rate that falls to 0 as a cosine; other arguments follow from the part done."""
    mean, square = ({name: np.zeros_like(w) for name, w in trained.items()} for _ in range(2))
    gradient_of = value_and_grad(loss)
    for step in range(steps):
        part = step / steps
        _, gradients = gradient_of(trained, *arguments(part))
        rate_now = rate * (1 + math.cos(math.pi * part)) / 2
        for name, w in trained.items():
            trained[name], mean[name], square[name] = adamw_update(
                w, gradients[name], mean[name], square[name], rate=rate_now, step=step + 1
            )
    return trained


def grouped(rows: Iterable[Row], arms: Iterable[str]) -> dict[str, list[Row]]:
    """Return the networks of each arm that has some."""
    of: dict[str, list[Row]] = {name: [] for name in arms}
    for row in rows:
        of[row["arm"]].append(row)
    return {name: found for name, found in of.items() if found}


def newcombe(a: int, b: int, n: int) -> tuple[str, str]:
    """Return a/n - b/n and its 95 % interval (R. G. Newcombe, 1998, method 10), as cells."""
    p, q = a / n, b / n
    low_p, high_p = binomtest(a, n).proportion_ci(method="wilson")
    low_q, high_q = binomtest(b, n).proportion_ci(method="wilson")
    low, high = p - q - math.hypot(p - low_p, high_q - q), p - q + math.hypot(high_p - p, q - low_q)
    return f"{p - q:+.2f}", f"{low:+.2f} to {high:+.2f}"
