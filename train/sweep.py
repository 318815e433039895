"""Train a network for each of many settings, and make a table of their scores: `python -m hcnn sweep sweep.toml`."""

import argparse
import contextlib
import csv
import dataclasses
import io
import itertools
import math
import os
import signal
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from hcnn_core.backend import worker_count
from train.commands.command_line import Parser, at_least, command, given_path, one_line, say, say_called
from train.commands.trial import (
    FAILED,
    FINISHED,
    OUT_OF_TIME,
    SIGNALS,
    WAITING,
    allow_trials,
    of_file,
    records_of,
    run_path,
    run_trial,
    stop_trials,
)
from train.config import MAX_INT, Config, ConfigError, make_config, parse_toml, to_toml, toml_text
from train.data.cifar import obtain
from train.pages import Table
from train.recipes.tasks import TASKS, Task, task_of
from train.runs.plot import plot_trials
from train.runs.run import Interrupted, Run, RunError, held, writing
from train.runs.samples import have_other_samples
from train.storage.files import open_regular, read_text, write_atomically

KEYS = {"settings", "variants", "grid", "seeds", "minutes", "total_minutes", "workers"}

TABLE, MEANS, PICTURE = "results.csv", "results.md", "results.png"


@dataclasses.dataclass(frozen=True)
class Trial:
    """One network to be trained."""

    number: int  # from 1, in the order of the sweep's file
    varied: dict[str, Any]  # what tells it from others: the name of its variant, settings, its seed
    config: Config  # all settings


@dataclasses.dataclass(frozen=True)
class Sweep:
    """The trials and limits of a sweep's file."""

    trials: tuple[Trial, ...]  # all of them
    minutes: float  # training time of each
    total_minutes: float  # time after which no other begins
    workers: int  # trials side by side


def read_sweep(text: str) -> Sweep:
    """Return the trials that a TOML text describes."""
    content = parse_toml(text)
    if unknown := sorted(content.keys() - KEYS):
        raise ConfigError(f"{unknown[0]!r} is no key of a sweep; choose {', '.join(sorted(KEYS))}")
    settings, variants, grid = (content.get(name, {}) for name in ("settings", "variants", "grid"))
    for name, table in (("settings", settings), ("variants", variants), ("grid", grid)):
        _require(isinstance(table, dict), name, table, f"it is a table: [{name}]")
    for name, changed in variants.items():
        _require(isinstance(changed, dict), f"variants.{name}", changed, "give a table of settings, {} for none")
    for name, values in grid.items():
        _require(isinstance(values, list) and values != [], f"grid.{name}", values, "give a list of values")
    seeds = content.get("seeds", [settings.get("seed", 0)])
    _require(isinstance(seeds, list) and seeds != [], "seeds", seeds, "give a list of numbers")
    named = [({"variant": name}, changed) for name, changed in variants.items()] or [({}, {})]
    combinations = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    trials: list[Trial] = []
    for (name, changed), combination, seed in itertools.product(named, combinations, seeds):
        config = _config(settings, changed, combination, {"seed": seed})
        trials.append(Trial(len(trials) + 1, name | combination | {"seed": seed}, config))
    times = {name: content.get(name, math.inf) for name in ("minutes", "total_minutes")}
    for name, value in times.items():
        _require(type(value) in (int, float) and value > 0, name, value, "give a number, more than 0")
    workers = content.get("workers", 1)
    _require(type(workers) is int and workers > 0, "workers", workers, "give a whole number, 1 or more")
    return Sweep(tuple(trials), **times, workers=workers)


def _config(settings: Mapping[str, Any], *varied: Mapping[str, Any]) -> Config:
    """Return a trial's settings: the common ones with changes from several tables, each setting in one table only."""
    keys = [key for changes in varied for key in changes]
    if twice := [key for key in keys if keys.count(key) > 1]:
        where = "as the list seeds alone" if twice[0] == "seed" else "in variants or in grid"
        raise ConfigError(f"{twice[0]} is varied in two places, so that one would not count; give it {where}")
    if "test" in keys:
        raise ConfigError("test is varied; a sweep never reads the test set: leave it out")
    changes = {key: value for part in (settings, *varied, {"test": False}) for key, value in part.items()}
    config = make_config(changes.pop("preset", "hcnn"), changes)
    what = "a sweep compares trials on images held out: give how many under settings"
    _require(config.held_out(MAX_INT) > 0, "validation_size", config.validation_size, what)
    return config


def _require(fits: bool, name: str, value: Any, what: str) -> None:
    if not fits:
        raise ConfigError(f"{name} is {value!r}; {what}")


def _arguments(parser: Parser) -> None:
    parser.add_argument("file", type=given_path, metavar="FILE", help="TOML file: docs/distributed.md has an example")
    parser.add_argument("--out", type=given_path, metavar="DIR", help="folder of the sweep (default: runs/FILE's name)")
    parser.add_argument("--workers", type=at_least(1), metavar="N", help="trials side by side, instead of the file's")
    parser.add_argument("--retry", action="store_true", help="train those again that failed")


@command(_arguments, "take fewer workers")
def main(options: argparse.Namespace) -> None:
    """Train a network for each of many settings, side by side, and write a table of their held-out scores.

    The test set is not read. The same command goes on with a sweep. Trials that fail are in its table; the exit status
    is 0 then too.
    """
    text, sweep = _read(options.file)
    sweep = dataclasses.replace(sweep, workers=options.workers or sweep.workers)
    folder: Path = options.out or Path("runs") / options.file.stem
    with held(folder, f"the sweep to {folder}", make=True):
        _begin(folder, text, sweep)
        for dataset in sorted({trial.config.dataset for trial in sweep.trials}):
            say_called(dataset, options.file)
        _run_all(folder, sweep, options.retry)


def _read(file: Path, *, regular: bool = False) -> tuple[str, Sweep]:
    """Return the text of a file and its sweep; with `regular` it may be no link, pipe or device."""
    text = toml_text(file, regular=regular)
    try:
        return text, read_sweep(text)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error


def _begin(folder: Path, text: str, sweep: Sweep) -> None:
    """Write the files of the sweep and its trials, or check that they are the same as before."""
    asked = folder / "sweep.toml"
    if asked.exists():
        if _read(asked, regular=True)[1].trials != sweep.trials:
            raise RunError(f"{folder} holds a sweep of other trials (sweep.toml there); name another folder with --out")
    elif any(folder.glob("trial*")):
        raise RunError(f"{folder} holds trials but no sweep.toml; name another folder with --out")
    with writing(f"the sweep to {folder}"):
        for trial in sweep.trials:
            path = run_path(folder, trial.number).with_suffix(".toml")
            if not path.exists():
                write_atomically(path, to_toml(trial.config, {}).encode())
            elif of_file(path) != trial.config:
                raise RunError(f"{path} has other settings than the sweep gives this trial; remove or restore it")
        write_atomically(asked, text.encode())


def _run_all(folder: Path, sweep: Sweep, retry: bool) -> None:
    states = _earlier(folder, sweep)
    done = {FINISHED} if retry else {FINISHED, FAILED}
    deadline = time.time() + 60 * sweep.total_minutes
    todo = [
        trial
        for trial in sweep.trials
        if (state := states[trial.number]) not in done and (state != OUT_OF_TIME or _has_time(folder, trial, sweep))
    ]
    for dataset, data_dir in sorted({(trial.config.dataset, trial.config.data_dir) for trial in todo}):
        obtain(dataset, data_dir)  # before trials side by side look for it
    say(f"{folder}: {len(todo)} of {len(sweep.trials)} trials to train, {sweep.workers} at a time")
    with ThreadPoolExecutor(sweep.workers) as pool, _stopping() as stopped:  # threads that wait for processes
        futures = {pool.submit(_attempt, folder, trial, sweep, deadline): trial.number for trial in todo}
        for future in as_completed(futures):
            number = futures[future]
            states[number] = WAITING if future.cancelled() else future.result()
            rows = _write_results(folder, sweep, states)
            if states[number] != WAITING:
                say(_line(rows[number - 1]))
            if stopped:
                pool.shutdown(wait=False, cancel_futures=True)
    rows = _write_results(folder, sweep, states)
    if stopped:
        raise Interrupted(f"stopped by {signal.Signals(stopped[0]).name}, saved; the same command goes on", stopped[0])
    say(f"\n{_means(sweep, rows)}")
    for name in (TABLE, MEANS, PICTURE):
        if (folder / name).exists():
            say(str(folder / name))


def _attempt(folder: Path, trial: Trial, sweep: Sweep, deadline: float) -> str:
    """Train a trial, and return its state; why it failed is the last line of its log."""
    run, log = run_path(folder, trial.number), run_path(folder, trial.number).with_suffix(".log")
    try:
        state = run_trial(folder, trial.number, sweep.minutes, deadline, max(1, worker_count() // sweep.workers))
        if state in (FINISHED, OUT_OF_TIME) and (first := _of_other_samples(folder, trial, sweep)):
            raise RunError(f"{run} has other samples than trial {first}: restore the data, remove it")
    except (OSError, RunError, ConfigError) as error:
        with contextlib.suppress(OSError), open(log, "a", encoding="utf-8", opener=open_regular) as file:
            file.write(f"{one_line(f'{type(error).__name__}: {error}')}\n")
        return FAILED
    return state


def _of_other_samples(folder: Path, trial: Trial, sweep: Sweep) -> int:
    """Return the number of another trial that has not the samples of one, though its settings name the same; or 0."""
    named, run = (trial.config.dataset, trial.config.train_size), run_path(folder, trial.number)
    alike = [other for other in sweep.trials if (other.config.dataset, other.config.train_size) == named]
    return next((one.number for one in alike if have_other_samples(run, run_path(folder, one.number))), 0)


def _has_time(folder: Path, trial: Trial, sweep: Sweep) -> bool:
    """Whether a trial that ran out of time has some of a budget that has been raised since."""
    run = Run(run_path(folder, trial.number))
    records = records_of(run)
    if not records or records[-1]["epoch"] >= trial.config.epochs:
        return False
    spent, longest = (f(r["seconds"] for r in records) for f in (sum, max))
    return bool(60 * sweep.minutes - spent > longest)


def _earlier(folder: Path, sweep: Sweep) -> dict[int, str]:
    """Return the state of each trial after earlier calls; a trained one whose folder has gone is waiting."""
    states = dict.fromkeys((trial.number for trial in sweep.trials), WAITING)
    with contextlib.suppress(OSError, ValueError, KeyError):
        rows = csv.DictReader(io.StringIO(read_text(folder / TABLE), newline=""))
        states |= {int(row["trial"]): row["state"] for row in rows if int(row["trial"]) in states}
    gone = {n for n, state in states.items() if state in (FINISHED, OUT_OF_TIME) and not run_path(folder, n).is_dir()}
    return states | dict.fromkeys(gone, WAITING)


@contextlib.contextmanager
def _stopping() -> Iterator[list[int]]:
    """On SIGINT, SIGTERM and SIGHUP, let the trials save and end."""
    received: list[int] = []

    def stop(signum: int, frame: Any) -> None:
        received.append(signum)
        stop_trials()

    before = {s: signal.signal(s, stop) for s in SIGNALS if signal.getsignal(s) is not signal.SIG_IGN}
    try:
        yield received
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
        allow_trials()


def _row(folder: Path, trial: Trial, state: str) -> dict[str, Any]:
    """Return a row of the table: settings, score, and error."""
    run, why, records = Run(run_path(folder, trial.number)), "", list[dict[str, Any]]()
    try:
        records = records_of(run)
        why = run.unrecorded(trial.config.epochs) if state == FINISHED else ""
    except RunError as error:
        why = one_line(str(error))
    score, last = f"validation_{task_of(records).score}", records[-1] if records else {}
    row = {"trial": trial.number, **trial.varied, "state": FAILED if why else state, "epochs": len(records)}
    if known := [r[score] for r in records if score in r]:
        row |= {score: known[-1], f"best_{score}": max(known)}
    row |= {name: value for name, value in last.items() if name.startswith(("task", "train_loss", "validation_"))}
    log = run.path.with_suffix(".log")
    if state == FAILED and not why and os.path.lexists(log):
        try:
            why = (read_text(log, errors="replace").splitlines() or ["it said nothing"])[-1]
        except OSError as error:
            why = f"cannot read {log}: {error.strerror}"
    seconds = round(sum(r.get("seconds", 0.0) for r in records), 1)
    return row | {"seconds": seconds, "error": why.removeprefix("train.cifar: ")}


def _write_results(folder: Path, sweep: Sweep, states: Mapping[int, str]) -> list[dict[str, Any]]:
    rows = [_row(folder, trial, states[trial.number]) for trial in sweep.trials]
    names = list(dict.fromkeys(name for row in sorted(rows, key=len, reverse=True) for name in row))
    table = Table(names, [[row.get(name, "") for name in names] for row in rows])
    with writing(f"the results to {folder}"):
        write_atomically(folder / TABLE, table.csv())
        write_atomically(folder / MEANS, f"{_means(sweep, rows)}\n".encode())
        known = [(row, *reached) for row in rows if (reached := _reached(row))]
        if known:
            varied = {name: [row[name] for row, _, _ in known] for name in sweep.trials[0].varied}
            _, tasks, scores = zip(*known, strict=True)
            plot_trials(varied, scores, tasks, folder / PICTURE, folder.name)
    return rows


def _reached(row: Mapping[str, Any]) -> tuple[Task, float] | None:
    """Return the task, and the score on images held out, where there is one; a failed trial's compares with none."""
    task = TASKS[task_of([row]).name]
    score = row.get(f"validation_{task.score}")
    return None if score is None or row["state"] == FAILED else (task, score)


def _line(row: Mapping[str, Any]) -> str:
    reached = _reached(row)
    shown = f", {reached[0].words.format(reached[0].shown(reached[1]))} on the images held out" if reached else ""
    why = f": {row['error']}" if row["error"] else ""
    return f"trial {row['trial']}: {row['state']}{shown}{why}"


def _means(sweep: Sweep, rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a table in Markdown: the mean score over seeds of each combination of settings, the best first."""
    names = [name for name in sweep.trials[0].varied if name != "seed"]
    groups: dict[tuple[str, ...], dict[int, Mapping[str, Any]]] = {}
    for row in rows:  # the same given twice is no other seed
        groups.setdefault(tuple(str(row[name]) for name in names), {})[row["seed"]] = row
    lines = [(*_mean(list(alike.values())), settings) for settings, alike in groups.items()]
    tasks = [task for task in TASKS.values() if task in {task for task, *_ in lines}] or [TASKS["classes"]]
    lines.sort(key=lambda line: ([*tasks, None].index(line[0]), -line[1]))
    reached = f"held-out {' or '.join(task.title for task in tasks)}, ± deviation over seeds"
    head = [*(f"`{name}`" for name in names), reached, "seconds", "trials", "not finished"]
    return Table(head, [[*settings, *cells] for _, _, cells, settings in lines]).markdown()


def _mean(rows: Sequence[Mapping[str, Any]]) -> tuple[Task | None, float, list[str]]:
    """Return the task of trials that differ in their seeds, the mean score, and cells of that, time and states."""
    known = [(row["seconds"], *reached) for row in rows if (reached := _reached(row))]
    seconds = statistics.fmean([duration for duration, *_ in known] or [row["seconds"] for row in rows])
    scores = [score for *_, score in known]
    task, mean = (known[0][1], statistics.fmean(scores)) if known else (None, -math.inf)
    deviations = [statistics.stdev(scores)] if len(scores) > 1 else []
    states = ", ".join(sorted({row["state"] for row in rows} - {FINISHED}))
    return task, mean, [task.shown(mean, *deviations) if task else "-", f"{seconds:.0f}", str(len(scores)), states]
