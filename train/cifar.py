"""Train and evaluate hierarchical CNNs on CIFAR: `python -m train.cifar --backend cupy`."""

from train._process import prepare

prepare()  # before NumPy is loaded

import argparse  # noqa: E402
import dataclasses  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable, Sequence  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any, NoReturn  # noqa: E402

import numpy as np  # noqa: E402

from hcnn_core._backend import get_namespace  # noqa: E402
from train import checkpoint as checkpoints  # noqa: E402
from train._memory import available_bytes, batch_that_fits, required_bytes  # noqa: E402
from train.checkpoint import CheckpointError, require_same_arrays  # noqa: E402
from train.config import Config, ConfigError, field_type, make_config, read_toml  # noqa: E402
from train.data import (  # noqa: E402
    DataError,
    Dataset,
    channel_statistics,
    load_dataset,
    split_validation,
    train_subset,
)
from train.network import Network, describe  # noqa: E402
from train.plot import plot_learning_curve  # noqa: E402
from train.run import BEST, Run, RunError, versions  # noqa: E402
from train.training import Images, Interrupted, Result, Trainer, TrainingError, evaluate  # noqa: E402

CLASSES = {"cifar10": 10, "cifar100": 100, "sample": 10}
IMAGE_SIZE = 32

NOT_CONFIGURED = ("config", "out", "resume", "evaluate", "describe", "plot", "debug")
WITH_RESUME = ("backend", "data_dir")
WITH_EVALUATE = ("backend", "data_dir", "dataset")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        Without the program's name; the process's own by default.

    Returns
    -------
    int
        Exit status: 0, 1 if it failed, 2 if the command line or the configuration is wrong.
    """
    options = _parser().parse_args(arguments)
    given = {k: v for k, v in vars(options).items() if k not in NOT_CONFIGURED and v is not None}
    try:
        _command(options)(options, given)
    except ConfigError as error:
        return _fail(2, error, options.debug)
    except (DataError, CheckpointError, RunError, TrainingError, Interrupted) as error:
        return _fail(1, error, options.debug)
    except MemoryError as error:
        return _fail(
            1, f"not enough memory: {error or 'an array could not be made'}; try a smaller --batch-size", options.debug
        )
    except KeyboardInterrupt:
        return _fail(1, "interrupted before anything was to save", options.debug)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        return _fail(1, f"{type(error).__name__}: {error}; --debug shows where", options.debug)
    return 0


def _command(options: argparse.Namespace) -> Callable[[argparse.Namespace, dict[str, Any]], None]:
    actions: dict[str, Callable[[argparse.Namespace, dict[str, Any]], None]] = {
        "describe": _describe,
        "plot": _plot,
        "evaluate": _evaluate,
        "resume": _resume,
    }
    chosen = [name for name in actions if getattr(options, name)]
    if len(chosen) > 1:
        raise ConfigError(f"--{chosen[0]} and --{chosen[1]} exclude each other")
    return actions[chosen[0]] if chosen else _train


def _settings(options: argparse.Namespace, given: dict[str, Any]) -> Config:
    """Preset, then --config, then flags."""
    settings = read_toml(options.config) if options.config else {}
    preset = given.pop("preset", None) or settings.pop("preset", "hcnn")
    settings.pop("preset", None)
    return make_config(preset, {**settings, **given})


def _describe(options: argparse.Namespace, given: dict[str, Any]) -> None:
    config = _settings(options, given)
    print(describe(config, IMAGE_SIZE, CLASSES[config.dataset]))


def _plot(options: argparse.Namespace, given: dict[str, Any]) -> None:
    run = Run(options.plot)
    _refuse("--plot", given, ())
    _draw(run)
    print(run.picture_path)


def _train(options: argparse.Namespace, given: dict[str, Any]) -> None:
    config = _settings(options, given)
    xp = _namespace(config)
    dataset = _dataset(config)
    out = options.out or Path("runs") / f"{config.preset}-{time.strftime('%Y%m%d-%H%M%S')}"
    _require_memory(xp, config)
    found = versions(xp.__name__)
    run = Run.create(out, config, found)
    trainer = _trainer(xp, config, dataset, run, found)
    print(
        f"{run.path}: {config.preset} on {trainer.count:,} images of {config.dataset}, "
        f"{config.epochs} epochs of {trainer.steps_per_epoch} steps, {xp.__name__}, {config.dtype}"
    )
    _fit(trainer, dataset)


def _resume(options: argparse.Namespace, given: dict[str, Any]) -> None:
    _refuse("--resume", given, WITH_RESUME, *(f"--{n}" for n in ("config", "out") if getattr(options, n)))
    run = Run(options.resume)
    checkpoint = run.latest()
    config = dataclasses.replace(checkpoint.config, **given)
    if checkpoint.state.epoch >= config.epochs:
        raise ConfigError(f"{run.path} is finished: all {config.epochs} epochs are trained; nothing to resume")
    xp = _namespace(config)
    dataset = _dataset(config)
    _require_memory(xp, config)
    trainer = _trainer(xp, config, dataset, run, versions(xp.__name__))
    trainer.restore(checkpoint, run.path)
    run.forget_metrics_after(checkpoint.state.epoch)
    print(f"{run.path}: going on at epoch {checkpoint.state.epoch + 1}, step {checkpoint.state.step + 1}")
    _fit(trainer, dataset)


def _evaluate(options: argparse.Namespace, given: dict[str, Any]) -> None:
    _refuse("--evaluate", given, WITH_EVALUATE, *(f"--{n}" for n in ("config", "out") if getattr(options, n)))
    checkpoint = checkpoints.load(options.evaluate)
    config = dataclasses.replace(checkpoint.config, **given)
    xp = _namespace(config)
    network = Network(config, checkpoint.image_size, len(checkpoint.class_names))
    state = checkpoint.state
    fresh = network.initialize(np.random.default_rng(0))
    require_same_arrays(options.evaluate, state.parameters, fresh, "parameters")
    dataset = load_dataset(config.dataset, Path(config.data_dir))
    if dataset.class_names != checkpoint.class_names:
        raise CheckpointError(
            f"{options.evaluate} tells {len(checkpoint.class_names)} classes apart, {config.dataset} has "
            f"{len(dataset.class_names)} or others; name the set it was trained on with --dataset"
        )
    test = Images(
        xp.asarray(dataset.test_images),
        xp.asarray(dataset.test_labels),
        checkpoint.channel_mean,
        checkpoint.channel_std,
        config.dtype,
    )
    parameters = {la: {n: xp.asarray(a) for n, a in arrays.items()} for la, arrays in state.parameters.items()}
    moments = {la: (xp.asarray(m["mean"]), xp.asarray(m["covariance"])) for la, m in state.moments.items()}
    result = evaluate(xp, network, parameters, moments, test)
    _report(result, len(dataset.test_labels))
    print(_confusion(result, dataset.class_names))


def _fit(trainer: Trainer, dataset: Dataset) -> None:
    """Train to the end, then read the test set, once."""
    run, xp = trainer.run, trainer.xp
    try:
        trainer.fit()
    except MemoryError as error:
        available = available_bytes(xp)
        fits = batch_that_fits(trainer.config, IMAGE_SIZE, trainer.network.classes, available or 0)
        raise TrainingError(
            f"not enough memory for a batch of {trainer.config.batch_size}; --batch-size "
            f"{max(1, min(fits, trainer.config.batch_size // 2))} would fit"
        ) from error
    finally:
        if run.metrics_path.is_file():
            _draw(run, quiet=True)
    train = trainer.train
    test = Images(xp.asarray(dataset.test_images), xp.asarray(dataset.test_labels), train.mean, train.std, train.dtype)
    result = evaluate(xp, trainer.network, trainer.state.parameters, trainer.moments, test)
    run.append_metrics({"epoch": trainer.state.epoch, "test_loss": result.loss, "test_accuracy": result.accuracy})
    _draw(run)
    _report(result, len(dataset.test_labels))
    print(f"{run.picture_path}\n{run.path / BEST}")


def _trainer(xp: Any, config: Config, dataset: Dataset, run: Run, found: dict[str, str]) -> Trainer:
    """Split, standardise by the training part's statistics, and move everything to the device."""
    try:
        kept, held_out = split_validation(dataset, config.validation_size, config.seed)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    mean, std = channel_statistics(dataset.train_images[kept])

    def images(index: np.ndarray[Any, Any]) -> Images:
        return Images(
            xp.asarray(dataset.train_images[index]), xp.asarray(dataset.train_labels[index]), mean, std, config.dtype
        )

    network = Network(config, IMAGE_SIZE, len(dataset.class_names))
    validation = images(held_out) if config.validation_size else None
    return Trainer(xp, config, network, images(kept), validation, run, found, dataset.class_names)


def _namespace(config: Config) -> Any:
    try:
        return get_namespace(config.backend)
    except RuntimeError as error:
        raise TrainingError(f"--backend cupy cannot be used: {error}") from error


def _dataset(config: Config) -> Dataset:
    dataset = load_dataset(config.dataset, Path(config.data_dir))
    if not config.train_size:
        return dataset
    try:
        return train_subset(dataset, config.train_size)
    except ValueError as error:
        raise ConfigError(f"--train-size: {error}") from error


def _require_memory(xp: Any, config: Config) -> None:
    """Refuse a batch that cannot fit before the system ends the process for it."""
    available = available_bytes(xp)
    classes = CLASSES[config.dataset]
    needed = required_bytes(config, IMAGE_SIZE, classes, config.batch_size)
    if available is not None and needed > available:
        fits = batch_that_fits(config, IMAGE_SIZE, classes, available)
        raise TrainingError(
            f"a batch of {config.batch_size} needs about {needed / 2**30:.1f} GiB and {available / 2**30:.1f} GiB are free; "
            + (
                f"--batch-size {fits} would fit"
                if fits
                else "not even one image fits: take a smaller --width or --factors"
            )
        )


def _draw(run: Run, *, quiet: bool = False) -> None:
    try:
        plot_learning_curve(run.read_metrics(), run.picture_path, str(run.path))
    except (ValueError, ImportError, OSError) as error:
        if not quiet:
            raise RunError(f"cannot draw {run.picture_path}: {error}") from error


def _report(result: Result, count: int) -> None:
    print(f"test: accuracy {100 * result.accuracy:.2f} %, loss {result.loss:.4f} nats, {count:,} images")


def _confusion(result: Result, names: Sequence[str]) -> str:
    """Rows are true classes, columns what the network said."""
    width = max(len(str(int(result.confusion.max()))), 4)
    label = max(map(len, names))
    lines = [" " * label + " " + " ".join(name[:width].rjust(width) for name in names)]
    for name, row in zip(names, result.confusion, strict=True):
        lines.append(name.rjust(label) + " " + " ".join(str(int(n)).rjust(width) for n in row))
    return "rows: true class; columns: predicted\n" + "\n".join(lines)


def _refuse(action: str, given: dict[str, Any], allowed: Sequence[str], *more: str) -> None:
    """Settings contradict an action that takes them from a file."""
    flags = [f"--{name.replace('_', '-')}" for name in given if name not in allowed] + list(more)
    if flags:
        raise ConfigError(f"{action} takes its settings from the run: remove {', '.join(flags)}")


def _fail(status: int, error: object, debug: bool) -> int:
    if debug and isinstance(error, BaseException):
        raise error
    print(f"train.cifar: {' '.join(str(error).split())}", file=sys.stderr)
    return status


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"train.cifar: {message}; --help lists the flags\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m train.cifar",
        description="Train a hierarchical attribute CNN (arXiv:1703.04140) on CIFAR-10 or CIFAR-100, or evaluate one.",
        epilog="Exit status: 0; 1 it failed; 2 the command line or the configuration is wrong.",
        allow_abbrev=False,
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML file of settings; flags override it")
    parser.add_argument("--out", type=Path, metavar="DIR", help="new run directory (default: runs/PRESET-TIME)")
    parser.add_argument("--resume", type=Path, metavar="DIR", help="continue a run, bit for bit on the same backend")
    parser.add_argument(
        "--evaluate", type=Path, metavar="CHECKPOINT", help="accuracy, loss and confusion on the test set"
    )
    parser.add_argument("--describe", action="store_true", help="print the network as a table and stop")
    parser.add_argument("--plot", type=Path, metavar="DIR", help="draw a run's learning curve and stop")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    settings = parser.add_argument_group("settings (defaults are the preset's)")
    for f in dataclasses.fields(Config):
        kind, count = field_type(f)
        options: dict[str, Any] = {
            "default": None,
            "help": f"{f.metadata['help']} [{_shown(f.default)}]".replace("%", "%%"),
        }
        if kind is bool:
            options["action"] = argparse.BooleanOptionalAction
        else:
            options |= {"type": kind, "metavar": kind.__name__.upper()}
            if f.metadata["choices"]:
                options |= {"choices": f.metadata["choices"], "metavar": "{" + ",".join(f.metadata["choices"]) + "}"}
            if count is not None:
                options |= {"nargs": count or "*"}
        settings.add_argument(f"--{f.name.replace('_', '-')}", **options)
    return parser


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


if __name__ == "__main__":
    sys.exit(main())
