"""Train one network for each of many settings, and table what they reach: `python -m train.sweep sweep.toml`."""

from train.commands.process import leave_on_interrupt, raise_on_interrupt

if __name__ == "__main__":
    leave_on_interrupt("train.sweep")

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
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np

from hcnn_core.backend import worker_count
from train.commands.command_line import Parser, given_path, one_line, run_command, say, say_called
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
from train.config import MOST, Config, ConfigError, make_config, parse_toml, to_toml, toml_text
from train.data.cifar import obtain
from train.extras import install_command
from train.pages import Table
from train.recipes.tasks import TASKS, Task, task_of
from train.runs.plot import plot_trials
from train.runs.run import Interrupted, Run, RunError, writing
from train.runs.samples import have_other_samples
from train.storage.files import make_folder, open_regular, read_text, remove_partial_files, write_atomically
from train.storage.lock import HeldError, locked

MOST_TRIALS = 10_000

KEYS = {"settings", "variants", "grid", "random", "seeds", "minutes", "total_minutes", "workers"}

TABLE, MEANS, PICTURE = "results.csv", "results.md", "results.png"


@dataclasses.dataclass(frozen=True)
class Trial:
    """One network to be trained."""

    number: int  # from 1, in the order of the sweep's file
    varied: dict[str, Any]  # what tells it from others: the name of its variant, settings, its seed
    config: Config  # all settings


@dataclasses.dataclass(frozen=True)
class Sweep:
    """What a file asks for."""

    trials: tuple[Trial, ...]  # all of them
    minutes: float  # training time of each
    total_minutes: float  # time after which no other begins
    workers: int  # trials side by side


def read_sweep(text: str) -> Sweep:
    """Return the trials that a TOML text describes."""
    content = parse_toml(text)
    if unknown := sorted(content.keys() - KEYS):
        raise ConfigError(f"{unknown[0]!r} is no key of a sweep; choose {', '.join(sorted(KEYS))}")
    settings, variants, grid, random = (_table(content, name) for name in ("settings", "variants", "grid", "random"))
    for name, changed in variants.items():
        _require(isinstance(changed, dict), f"variants.{name}", changed, "give a table of settings, {} for none")
    for name, values in grid.items():
        _require(isinstance(values, list) and values != [], f"grid.{name}", values, "give a list of values")
    seeds = content.get("seeds", [settings.get("seed", 0)])
    _require(isinstance(seeds, list) and seeds != [], "seeds", seeds, "give a list of numbers")
    named = [({"variant": name}, changed) for name, changed in variants.items()] or [({}, {})]
    draws = _whole("random.draws", random.pop("draws", 1), 1)
    if (count := len(named) * math.prod(map(len, grid.values())) * draws * len(seeds)) > MOST_TRIALS:
        raise ConfigError(f"{count} trials; a sweep has at most {MOST_TRIALS}")
    rng = np.random.default_rng(_whole("random.seed", random.pop("seed", 0), 0))
    drawn = [{key: _draw(rng, key, among) for key, among in random.items()} for _ in range(draws)]
    combinations = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    trials: list[Trial] = []
    for (name, changed), combination, draw, seed in itertools.product(named, combinations, drawn, seeds):
        config = _config(settings, changed, combination, draw, {"seed": seed})
        trials.append(Trial(len(trials) + 1, name | combination | draw | {"seed": seed}, config))
    minutes, total = (_positive(content, name) for name in ("minutes", "total_minutes"))
    return Sweep(tuple(trials), minutes, total, _whole("workers", content.get("workers", 1), 1))


def _config(settings: Mapping[str, Any], *varied: Mapping[str, Any]) -> Config:
    """Return the settings of a trial: those of all, changed in several places, each of them in one alone."""
    keys = [key for changes in varied for key in changes]
    if twice := [key for key in keys if keys.count(key) > 1]:
        where = "as the list seeds alone" if twice[0] == "seed" else "in one of variants, grid and random"
        raise ConfigError(f"{twice[0]} is varied in two places, so that one would not count; give it {where}")
    if "test" in keys:
        raise ConfigError("test is varied; a sweep never reads the test set: leave it out")
    changes = {key: value for part in (settings, *varied, {"test": False}) for key, value in part.items()}
    config = make_config(changes.pop("preset", "hcnn"), changes)
    what = "a sweep compares trials on images held out: give how many under settings"
    _require(config.held_out(MOST) > 0, "validation_size", config.validation_size, what)
    return config


def _require(fits: bool, name: str, value: Any, what: str) -> None:
    if not fits:
        raise ConfigError(f"{name} is {value!r}; {what}")


def _table(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    table = content.get(name, {})
    _require(isinstance(table, dict), name, table, f"it is a table: [{name}]")
    return dict(table)


def _positive(content: Mapping[str, Any], name: str) -> float:
    value = content.get(name, math.inf)
    fits = isinstance(value, int | float) and not isinstance(value, bool) and value > 0
    _require(fits, name, value, "give a number, more than 0")
    return float(value)


def _whole(name: str, value: Any, low: int) -> int:
    fits = isinstance(value, int) and not isinstance(value, bool) and value >= low
    _require(fits, name, value, f"give a whole number, {low} or more")
    return int(value)


def _draw(rng: np.random.Generator, name: str, among: Any) -> Any:
    with contextlib.suppress(OverflowError, ValueError):  # of bounds that no draw lies between
        match among:
            case [_, *_]:
                return among[int(rng.integers(len(among)))]
            case {"low": int(low), "high": int(high), **rest} if low <= high and not rest:
                return int(rng.integers(low, high, endpoint=True))
            case {"low": int() | float() as low, "high": int() | float() as high, **rest} if low <= high and rest in (
                {},
                {"log": False},
            ):
                return float(rng.uniform(low, high))
            case {"low": int() | float() as low, "high": int() | float() as high, "log": True} if 0 < low <= high:
                return float(np.exp(rng.uniform(np.log(low), np.log(high))))
    what = "give a list to choose from, or {low = 1e-4, high = 1e-2, log = true}"
    raise ConfigError(f"random.{name} is {among!r}; {what}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    return run_command(_parser(), arguments, _act, "take fewer workers")


def _act(options: argparse.Namespace) -> int:
    text, sweep = _read(options.file)
    sweep = dataclasses.replace(sweep, workers=options.workers or sweep.workers)
    folder: Path = options.out or Path("runs") / options.file.stem
    with contextlib.ExitStack() as stack:
        try:
            with writing(f"the sweep to {folder}"):
                make_folder(folder, exist_ok=True)
                stack.enter_context(locked(folder / ".lock"))
        except HeldError as error:
            raise RunError(f"{folder} is in use by {error}; wait for it or end it, or name another folder") from error
        remove_partial_files(folder)
        _begin(folder, text, sweep)
        for dataset in sorted({trial.config.dataset for trial in sweep.trials}):
            say_called(dataset, options.file)
        _run_all(folder, sweep, options)
    return 0


def _read(file: Path, *, regular: bool = False) -> tuple[str, Sweep]:
    """Return what a file says, and asks for; one to be `regular` may be no link, pipe or device."""
    text = toml_text(file, regular=regular)
    try:
        return text, read_sweep(text)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error


def _begin(folder: Path, text: str, sweep: Sweep) -> None:
    """Write what is to be done, or check that it is the same as before."""
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


def _run_all(folder: Path, sweep: Sweep, options: argparse.Namespace) -> None:
    states = _earlier(folder, sweep)
    done = {FINISHED} | (set() if options.retry else {FAILED})
    deadline = time.time() + 60 * sweep.total_minutes
    todo = [
        trial
        for trial in sweep.trials
        if (state := states[trial.number]) not in done and (state != OUT_OF_TIME or _has_time(folder, trial, sweep))
    ]
    if not options.dask:  # before trials side by side look for it
        for dataset, data_dir in sorted({(trial.config.dataset, trial.config.data_dir) for trial in todo}):
            obtain(dataset, data_dir)
    say(f"{folder}: {len(todo)} of {len(sweep.trials)} trials to train, {sweep.workers} at a time")
    with _executor(options.dask, sweep.workers) as (executor, threads), _stopping() as stopped:
        futures: dict[Future[str], Trial] = {}
        for trial in todo:
            arguments = str(folder.resolve()), trial.number, sweep.minutes, deadline, threads
            futures[executor.submit(run_trial, *arguments)] = trial
        for future in as_completed(futures):
            trial = futures[future]
            try:
                states[trial.number] = future.result()
            except Exception as error:  # of a worker that was lost; the other trials go on
                states[trial.number] = WAITING if future.cancelled() else FAILED
                if not future.cancelled():
                    _note(_log(folder, trial), one_line(f"{type(error).__name__}: {error}"))
            if states[trial.number] in (FINISHED, OUT_OF_TIME) and (first := _of_other_samples(folder, trial, sweep)):
                states[trial.number] = FAILED
                run = run_path(folder, trial.number)
                _note(_log(folder, trial), f"{run} has other samples than trial {first}: restore the data, remove it")
            rows = _write_results(folder, sweep, states)
            if states[trial.number] != WAITING:
                say(_line(rows[trial.number - 1]))
            if stopped:
                for other in futures:
                    other.cancel()
    rows = _write_results(folder, sweep, states)
    if stopped:
        raise Interrupted(f"stopped by {signal.Signals(stopped[0]).name}, saved; the same command goes on", stopped[0])
    say(f"\n{_means(sweep, rows)}")
    for name in (TABLE, MEANS, PICTURE):
        if (folder / name).exists():
            say(str(folder / name))


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
    """Return what became of each trial in earlier calls; one that was trained and whose folder has gone is waiting."""
    states = dict.fromkeys((trial.number for trial in sweep.trials), WAITING)
    with contextlib.suppress(OSError, ValueError, KeyError):
        rows = csv.DictReader(io.StringIO(read_text(folder / TABLE), newline=""))
        states |= {int(row["trial"]): row["state"] for row in rows if int(row["trial"]) in states}
    gone = {n for n, state in states.items() if state in (FINISHED, OUT_OF_TIME) and not run_path(folder, n).is_dir()}
    return states | dict.fromkeys(gone, WAITING)


@contextlib.contextmanager
def _executor(address: str | None, workers: int) -> Iterator[tuple[Executor, int]]:
    """Yield what runs trials, and the threads of each; 0 for all of a machine."""
    if address is None:
        with ThreadPoolExecutor(workers) as pool:  # threads that wait for processes
            yield pool, max(1, worker_count() // workers)
        return
    try:
        from dask.distributed import Client
    except ImportError as error:
        raise RunError(f"--dask needs Dask: {install_command('dask')}") from error
    try:
        client = Client(address, timeout=30)
    except (OSError, ValueError) as error:
        raise RunError(f"--dask {address}: no scheduler answers ({one_line(str(error))})") from error
    with client:
        yield client.get_executor(pure=False, retries=0), 0


@contextlib.contextmanager
def _stopping() -> Iterator[list[int]]:
    """On SIGINT, SIGTERM and SIGHUP, let the trials of this machine save and end; Dask's end with their workers."""
    received: list[int] = []

    def stop(signum: int, frame: Any) -> None:
        received.append(signum)
        stop_trials()

    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = {s: signal.signal(s, stop) for s in SIGNALS if signal.getsignal(s) is not signal.SIG_IGN}
    try:
        yield received
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
        allow_trials()


def _log(folder: Path, trial: Trial) -> Path:
    return run_path(folder, trial.number).with_suffix(".log")


def _row(folder: Path, trial: Trial, state: str) -> dict[str, Any]:
    """Return a line of the table: settings, what was reached, and what went wrong."""
    run, damaged, records = Run(run_path(folder, trial.number)), "", list[dict[str, Any]]()
    try:
        records = records_of(run)
        damaged = run.unrecorded(trial.config.epochs) if state == FINISHED else ""
    except RunError as error:
        damaged = one_line(str(error))
    state = FAILED if damaged else state
    score = f"validation_{task_of(records).score}"
    known = [r[score] for r in records if score in r]
    row = {"trial": trial.number, **trial.varied, "state": state, "epochs": len(records)}
    row |= {score: known[-1], f"best_{score}": max(known)} if known else {}
    last = records[-1].items() if records else ()
    row |= {name: value for name, value in last if name.startswith(("task", "train_loss", "validation_"))}
    row |= {"seconds": round(sum(r.get("seconds", 0.0) for r in records), 1)}
    row["error"] = damaged
    if state == FAILED and not damaged and os.path.lexists(_log(folder, trial)):
        row["error"] = _last_line(_log(folder, trial))
    return row


def _last_line(log: Path) -> str:
    """Return what a trial said last."""
    try:
        lines = read_text(log, errors="replace").splitlines()
    except OSError as error:
        return f"cannot read {log}: {error.strerror}"
    return lines[-1].removeprefix("train.cifar: ") if lines else "it said nothing"


def _note(log: Path, line: str) -> None:
    """Append a line to a trial's log, where that can be done."""
    with contextlib.suppress(OSError), open(log, "a", encoding="utf-8", opener=open_regular) as file:
        file.write(f"{line}\n")


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
    """Return the task, and the score on images held out, where there is one."""
    task = TASKS[task_of([row]).name]
    score = row.get(f"validation_{task.score}")
    return None if score is None else (task, score)


def _line(row: Mapping[str, Any]) -> str:
    reached = _reached(row)
    shown = f", {reached[0].words.format(reached[0].shown(reached[1]))} on the images held out" if reached else ""
    why = f": {row['error']}" if row["error"] else ""
    return f"trial {row['trial']}: {row['state']}{shown}{why}"


def _means(sweep: Sweep, rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a table in Markdown: what each combination of settings reaches, the best first, means over seeds."""
    names = [name for name in sweep.trials[0].varied if name != "seed"]
    groups: dict[tuple[str, ...], dict[int, Mapping[str, Any]]] = {}
    for row in rows:  # the same drawn or given twice is no other seed
        groups.setdefault(tuple(str(row[name]) for name in names), {})[row["seed"]] = row
    short = {key: tuple(_shown(next(iter(of.values()))[name]) for name in names) for key, of in groups.items()}
    alike = Counter(short.values())  # to so many digits
    lines = [(*_mean(list(of.values())), key if alike[short[key]] > 1 else short[key]) for key, of in groups.items()]
    tasks = [task for task in TASKS.values() if task in {task for task, *_ in lines}] or [TASKS["classes"]]
    lines.sort(key=lambda line: ([*tasks, None].index(line[0]), -line[1]))
    head = [
        *(f"`{name}`" for name in names),
        f"{' or '.join(f'held-out {task.title}' for task in tasks)}, ± deviation over seeds",
        *("seconds", "trials", "not finished"),
    ]
    return Table(head, [[*settings, *cells] for _, _, cells, settings in lines]).markdown()


def _mean(rows: Sequence[Mapping[str, Any]]) -> tuple[Task | None, float, list[str]]:
    """Return the task of trials that differ in their seeds, the mean score, and cells of that, time and states."""
    known = [(row["seconds"], *reached) for row in rows if (reached := _reached(row))]
    seconds = statistics.fmean([duration for duration, *_ in known] or [row["seconds"] for row in rows])
    scores = [score for *_, score in known]
    task, mean = (known[0][1], statistics.fmean(scores)) if known else (None, -math.inf)
    deviations = [statistics.stdev(scores)] if len(scores) > 1 else []
    states = sorted({row["state"] for row in rows} - {FINISHED})
    shown = task.shown(mean, *deviations) if task else "-"
    return task, mean, [shown, f"{seconds:.0f}", str(len(scores)), ", ".join(states)]


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _parser() -> Parser:
    parser = Parser(
        prog="python -m train.sweep",
        description="Train a network for each of many settings, side by side, and table what they reach on images that "
        "are held out of the training set. The test set is not read. The same command goes on with a sweep.",
        epilog="Exit status: 0, also if trials failed; 1 the sweep failed; 2 the command line or the file is wrong; "
        "128 and the number of the signal that stopped it.",
    )
    parser.add_argument("file", type=given_path, metavar="FILE", help="TOML file: docs/distributed.md has an example")
    parser.add_argument("--out", type=given_path, metavar="DIR", help="folder of the sweep (default: runs/FILE's name)")
    parser.add_argument("--workers", type=_count, metavar="N", help="trials side by side, instead of the file's")
    parser.add_argument("--dask", metavar="ADDRESS", help="run trials on the workers of a Dask scheduler: HOST:PORT")
    parser.add_argument("--retry", action="store_true", help="train those again that failed")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no number of workers; give 1 or more")
    return int(text)


if __name__ == "__main__":
    raise_on_interrupt()
    sys.exit(main())
