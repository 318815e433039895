"""Train networks for equal times, on equal terms: `python -m benchmarks.equal_time SET --minutes 30 --out DIR`.

A short run of each network tells how many images a second it takes. It is then trained for as many epochs as fill the
minutes, so that its schedule ends with them. All networks of a set have the same images, the same of them held out, the
same augmentation, the same course of the learning rate and the same average of weights. Optimiser, highest learning
rate, weight decay and batch are those of the network's preset.

Each run is a folder, `DIR/NAME-SEED`. The same command goes on where it stopped, whatever stopped it, and leaves alone
what is finished; one with other terms is refused. `python -m benchmarks.table1 DIR/*-*` tables and draws what they
reach. The set "depth" chooses among recipes, so its runs do not read the test images.
"""

from __future__ import annotations

import sys

if "numpy" not in sys.modules:
    from train.commands.process import prepare

    prepare()

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import train
from train.commands.command_line import Parser, given_path, run_command, say
from train.config import Config, ConfigError, make_config
from train.data import INFO, DataError, load_dataset
from train.runs.fit import namespace
from train.runs.run import Run, RunError
from train.runs.training import Interrupted, TrainingError, summary
from train.storage.files import write_atomically
from train.storage.lock import HeldError, locked

TERMS = {
    "schedule": "one-cycle",
    "warmup": 0.2,
    "average_decay": 0.999,
    "image_sizes": (),
    "shift": 4,
    "flip": True,
    "alternate_flips": True,
    "cutout": 0,
    "validation_every": 1,
}
"""Settings of every run."""

BASELINES = ("resnet20", "wrn-student")

SETS: dict[str, dict[str, dict[str, Any]]] = {
    "table1": {name: {"preset": name} for name in (*BASELINES, "hcnn-medium")},
    "depth": {
        f"depth{depth}{'-skip' if skip == 'aligned' else ''}": {
            "preset": "hcnn-fast",
            "depth": depth,
            "skip": skip,
            "test": False,
        }
        for depth in (12, 16, 20)
        for skip in ("none", "aligned")
    },
}
"""What is compared: the networks of Table 1; depths, with what skips layers and without."""

BATCHES = 30
"""Steps of each of the two epochs by which speed is measured; the second counts."""


def settings(changes: dict[str, Any], options: argparse.Namespace, **more: Any) -> Config:
    """The settings of a run."""
    given = {name: getattr(options, name) for name in ("backend", "data_dir", "dataset", "validation_size")}
    preset = changes["preset"]
    others = {name: value for name, value in changes.items() if name != "preset"}
    return make_config(preset, TERMS | given | others | more)


def images_per_second(config: Config, folder: Path) -> float:
    """How fast a network trains, by a short run in a folder; one that was stopped has measured nothing."""
    if not finished(folder, config.epochs):
        if folder.exists():
            shutil.rmtree(folder)
        train.fit(config, out=folder)
    return float(epochs_of(folder)[-1]["images_per_second"])


def epochs_of(folder: Path) -> list[dict[str, Any]]:
    """The records of a run's epochs."""
    run = Run(folder)
    records = run.read_metrics() if run.metrics_path.is_file() else []
    return [record for record in records if "train_loss" in record]


def finished(folder: Path, epochs: int) -> bool:
    """Whether a run has come to its end."""
    return len(epochs_of(folder)) >= epochs


def epochs_that_fill(minutes: float, images: int, speed: float) -> int:
    """How many epochs of some images fit into the time, at least one."""
    return max(1, int(60 * minutes * speed / images))


def train_one(name: str, changes: dict[str, Any], seed: int, images: int, options: argparse.Namespace) -> None:
    """Train a network to its end, from where it stopped."""
    folder = options.out / f"{name}-{seed}"
    run = Run(folder)
    if run.checkpoint_paths():
        config = run.latest()[1].config
        if finished(folder, config.epochs) and (run.test_record() or not config.test):
            return
    else:
        batch = settings(changes, options).batch_size
        few = min(images, BATCHES * batch) + options.validation_size
        brief = settings(changes, options, train_size=few, epochs=2, test=False)
        speed = images_per_second(brief, options.out / "speed" / name)
        epochs = epochs_that_fill(options.minutes, images, speed)
        size = options.train_size
        config = settings(changes, options, train_size=size, epochs=epochs, seed=seed)
        say(f"{folder}: {speed:.0f} images/s, so {epochs} epochs")

    def report(record: dict[str, Any]) -> None:
        left = (config.epochs - record["epoch"]) * record["seconds"]
        say(f"{name}-{seed}: {summary(record, config.epochs, left)}")

    if run.checkpoint_paths():
        train.resume(folder, on_epoch=report)
    else:
        train.fit(config, out=folder, on_epoch=report)


def require_same_terms(options: argparse.Namespace) -> None:
    """Note the terms of a new folder's runs; refuse others in one that has some."""
    path = options.out / "terms.json"
    terms = {
        "--minutes": options.minutes,
        "--backend": namespace(options.backend).__name__,  # which "auto" finds here
        "--dataset": options.dataset,
        "--train-size": options.train_size,
        "--validation-size": options.validation_size,
    }
    if not path.is_file():
        write_atomically(path, json.dumps(terms).encode())
    for flag, before in json.loads(path.read_text("utf-8")).items():
        if before != terms[flag]:
            raise RunError(
                f"the runs in {options.out} have {flag} {before}, not {terms[flag]}; give the same, or another --out"
            )


def main(arguments: Sequence[str] | None = None) -> int:
    """Train a set; the status is 1 if a network failed, and the others are trained all the same."""
    return run_command(_parser(), arguments, _act, "--only leaves out networks")


def _act(options: argparse.Namespace) -> int:
    if not options.minutes > 0:
        raise ConfigError(f"--minutes is {options.minutes:g}; give more than 0")
    networks = SETS[options.set]
    if unknown := [name for name in options.only or () if name not in networks]:
        raise ConfigError(f"--only is {unknown[0]!r}; choose among {', '.join(networks)}")
    images = options.train_size or len(load_dataset(options.dataset, options.data_dir).train_labels)
    options.out.mkdir(parents=True, exist_ok=True)
    failed = 0
    try:
        with locked(options.out / ".lock"):
            require_same_terms(options)
            for seed in options.seeds:
                for name in options.only or networks:
                    try:
                        train_one(name, networks[name], seed, images - options.validation_size, options)
                    except (DataError, RunError, TrainingError, ConfigError, MemoryError) as error:
                        failed += 1
                        say(f"{name}-{seed}: {error}")
    except HeldError as error:
        raise RunError(f"{options.out} is in use by {error}; wait for it or end it, or give another --out") from error
    except Interrupted as error:
        raise Interrupted(f"{error}, or all with the same command again", error.signum) from error
    return int(failed > 0)


def _parser() -> Parser:
    parser = Parser(prog="python -m benchmarks.equal_time", description="Train networks for equal times.")
    parser.add_argument("set", choices=SETS, help="what is compared")
    parser.add_argument("--minutes", type=float, required=True, help="of training, for each network")
    parser.add_argument("--out", type=given_path, required=True, metavar="DIR", help="where the runs go")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="each network with each of them (0)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="some of the set's networks")
    parser.add_argument("--backend", default="auto", choices=("auto", "numpy", "cupy"), help="array library (auto)")
    parser.add_argument("--dataset", default="cifar10", choices=INFO)
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--train-size", type=int, default=0, help="training images, those held out among them (all)")
    parser.add_argument("--validation-size", type=int, default=1000, help="of these, held out (1000)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
