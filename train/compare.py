"""Compare runs: `python -m hcnn compare RUN RUN ...` prints a table and draws their curves in one picture."""

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from train.commands.command_line import Parser, command, given_path, new_file, say
from train.config import Config, ConfigError, make_config, read_toml, resolved
from train.data import INFO
from train.networks.registry import build
from train.pages import Table
from train.recipes.tasks import task_of
from train.runs.plot import plot_runs
from train.runs.run import Run, RunError
from train.runs.samples import have_other_samples

LEFT_OUT = ("preset", "data_dir", "seed", "backend", "test")
"""Settings that the table leaves out, since they change no recipe, or have a column of their own."""


@dataclasses.dataclass(frozen=True)
class _Record:
    """The records of one run's folder."""

    name: str
    config: Config
    metrics: list[dict[str, Any]]
    coefficients: int | None

    @classmethod
    def read(cls, path: Path) -> "_Record":
        """Read a run's configuration and metrics; RunError where there is none."""
        run = Run(path)
        if not run.config_path.is_file():
            raise RunError(f"{path} holds no run: it has no config.toml")
        settings = read_toml(run.config_path)
        try:
            config = make_config(settings.pop("preset", "hcnn"), settings)
        except ConfigError as error:
            raise RunError(f"{run.config_path}: {error}") from error
        metrics = run.read_metrics()
        config = resolved(config, (1,), task_of(metrics).takes, str(path))
        return cls(path.resolve().name, config, metrics, _coefficients(run, config))

    @property
    def epochs(self) -> list[dict[str, Any]]:
        return [record for record in self.metrics if "train_loss" in record]

    def row(self) -> list[str]:
        """Cells of the table."""
        test: dict[str, Any] = next((record for record in reversed(self.metrics) if "test_loss" in record), {})
        if not self.epochs or test.get("epoch") != self.epochs[-1]["epoch"]:
            test = {}  # its weights have been trained on since
        last: dict[str, Any] = self.epochs[-1] if self.epochs else {}
        task = task_of(self.metrics)
        score, form = task.score, lambda value: task.words.format(task.shown(value).replace(" %", "%"))
        held_out = [record[f"validation_{score}"] for record in self.epochs if f"validation_{score}" in record]
        errors = [f"{value:.4g}" for name, value in test.items() if name.startswith("test_error_")]
        return [
            self.name,
            self.config.preset,
            str(self.config.seed),
            "" if self.coefficients is None else f"{self.coefficients:,}",
            f"{len(self.epochs)}/{self.config.epochs}",
            f"{sum(record['seconds'] for record in self.epochs) / 60:.1f}",
            _number(last.get("train_loss"), "{:.4f}".format),
            _number(last.get("train_accuracy"), form),
            _number(held_out[-1] if held_out else None, form),
            _number(max(held_out, default=None), form),
            _number(test.get(f"test_{score}"), form),
            _number(test.get("test_accuracy_of_views"), form),
            _number(test.get("test_all_right"), "{:.2%}".format),
            ", ".join(errors),
        ]


def _coefficients(run: Run, config: Config) -> int | None:
    """Count the coefficients of a run's network; for one's own images only a checkpoint knows them."""
    if config.dataset in INFO:
        shape, classes = INFO[config.dataset].image_shape, INFO[config.dataset].classes
    else:
        try:
            _, checkpoint, _ = run.latest()
        except RunError:
            return None
        shape, classes = checkpoint.image_shape, len(checkpoint.class_names)
    return build(config, shape[:-1], classes, shape[-1]).counted


HEADER = [
    *("run", "preset", "seed", "coefficients", "epochs", "minutes", "train loss", "train"),
    *("held out", "best", "test", "views", "all right", "errors"),
]
"""For numbers the score is the mean R^2, and `errors` are root mean squared errors, in units of the data."""


def _arguments(parser: Parser) -> None:
    parser.add_argument("runs", type=given_path, nargs="+", metavar="RUN", help="directories of runs")
    parser.add_argument(
        "--out", type=new_file, default=Path("comparison.png"), metavar="FILE", help="PNG to write [comparison.png]"
    )


@command(_arguments, "compare fewer runs")
def main(options: argparse.Namespace) -> None:
    """Print a table of runs and draw their learning curves in one picture."""
    records = [_Record.read(path) for path in options.runs]
    columns = zip(HEADER, *(record.row() for record in records), strict=True)
    header, *rows = zip(*(column for column in columns if any(column[1:])), strict=True)
    say(Table(header, rows).text())
    for line in _differences(records):
        say(line)
    for path, record in zip(options.runs[1:], records[1:], strict=True):
        if record.config.dataset == records[0].config.dataset and have_other_samples(options.runs[0], path):
            say(f"{record.name} was trained or tested on other samples than {records[0].name}: scores do not compare")
    curves = {}
    for record in records:
        name, again = record.name, 1
        while name in curves:  # of folders of one name
            again += 1
            name = f"{record.name} ({again})"
        curves[name] = record.epochs
    plot_runs(curves, options.out)
    say(str(options.out))


def _differences(records: Sequence[_Record]) -> list[str]:
    """One line for each run with the settings in which the runs differ."""
    fields = [f.name for f in dataclasses.fields(Config) if f.name not in LEFT_OUT]
    varied = [name for name in fields if len({getattr(record.config, name) for record in records}) > 1]
    if not varied:
        return []
    return ["", *(f"{r.name}: " + ", ".join(f"{n} {getattr(r.config, n)}" for n in varied) for r in records)]


def _number(value: Any, form: Callable[[Any], str]) -> str:
    return "" if value is None else form(value)
