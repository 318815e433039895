"""Train and evaluate hierarchical CNNs on CIFAR: `python -m train.cifar --backend cupy`."""

from train.commands.process import begin, raise_on_interrupt

begin("train.cifar", __name__)

import argparse
import contextlib
import dataclasses
import math
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from train.commands.command_line import (
    Parser,
    at_least,
    given_path,
    run_command,
    say,
    say_called,
)
from train.config import CHOICES, MOST, Config, ConfigError, field_type, make_config, read_toml, sections
from train.data import (
    INFO,
    DatasetInfo,
    Images,
    channel_statistics,
    is_function,
    load_dataset,
    split_validation,
)
from train.extras import require_installed
from train.networks.registry import build
from train.ranks.communicator import DistributedError, launch_rank
from train.ranks.ranks import join, share_processors
from train.runs import checkpoint as checkpoints
from train.runs.augmented import augmented
from train.runs.checkpoint import CheckpointError
from train.runs.export import write_safetensors
from train.runs.onnx import write_onnx
from train.runs.run import Run, RunError, versions
from train.runs.session import (
    Session,
    calibration_lines,
    classified,
    draw,
    figures,
    locked,
    namespace,
    on_device,
    opened,
    part_right,
    require_named,
    require_suitable,
    test_lines,
    write_report,
)
from train.runs.shipped import bare, card, list_networks, recorded
from train.runs.training import Result, evaluate, evaluate_views, restore
from train.storage.files import remove_partial_files, write_atomically

NOT_CONFIGURED = (
    "config",
    "out",
    "resume",
    "evaluate",
    "describe",
    "show_augmented",
    "plot",
    "report",
    "hours",
    "export",
    "debug",
    "ranks",
)
ACTIONS = ("describe", "show_augmented", "plot", "export", "evaluate", "report", "resume")
WITH_RESUME = ("backend", "data_dir", "dataset", "epochs")
WITH_REPORT = ("backend", "data_dir", "dataset")
WITH_EVALUATE = ("backend", "batch_size", "data_dir", "dataset")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser, hint = _parser(), "a smaller --batch-size or network may do"
    try:
        ranks = join()
        share_processors(ranks)
        ranks.be_watched(parser.module)
    except (DistributedError, OSError) as error:
        if not launch_rank():
            print(f"{parser.module}: {error}", file=sys.stderr)
        return 1
    if not ranks.writes:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - for as long as the process lives

    def act(options: argparse.Namespace) -> int:
        options.ranks = ranks
        return _act(options)

    return run_command(parser, arguments, act, hint, ranks)


def _act(options: argparse.Namespace) -> int:
    given = {k: v for k, v in vars(options).items() if k not in NOT_CONFIGURED and v is not None}
    # before ranks wait for each other, each in another action
    options.ranks.require_same({f"--{name}": str(path) for name in ACTIONS if (path := getattr(options, name))})
    _command(options)(options, given)
    return 0


def _command(options: argparse.Namespace) -> Callable[[argparse.Namespace, dict[str, Any]], None]:
    actions: tuple[Callable[[argparse.Namespace, dict[str, Any]], None], ...] = (
        _describe,
        _show_augmented,
        _plot,
        _export,
        _evaluate,
        _remake_report,
        _resume,
    )
    chosen = [name for name in ACTIONS if getattr(options, name)]
    if len(chosen) > 1:
        raise ConfigError(f"--{chosen[0]} and --{chosen[1]} exclude each other")
    if options.hours < math.inf and chosen not in ([], ["resume"]):
        raise ConfigError(f"--hours limits training, which --{chosen[0]} does not do: remove it")
    if options.ranks.size > 1 and chosen not in ([], ["resume"]):
        raise options.ranks.agreed(ConfigError(f"--{chosen[0]} runs in one process: start it without the launcher"))
    return actions[ACTIONS.index(chosen[0])] if chosen else _train


def _settings(options: argparse.Namespace, given: dict[str, Any]) -> Config:
    """Preset, then --config, then flags."""
    settings = read_toml(options.config) if options.config else {}
    preset = given.pop("preset", None) or settings.get("preset", "hcnn")
    return make_config(preset, {**settings, **given})


def _describe(options: argparse.Namespace, given: dict[str, Any]) -> None:
    if options.out:
        raise ConfigError("--describe makes no run: remove --out")
    config = _settings(options, given)
    if is_function(config.dataset):
        raise ConfigError(
            f"--describe calls no function, and dataset is {config.dataset!r}; give a file of such images"
        )
    info = INFO[config.dataset] if config.dataset in INFO else load_dataset(config.dataset, Path(config.data_dir)).info
    say(build(config, info.image_shape[:-1], info.classes, info.image_shape[-1]).describe())


def _show_augmented(options: argparse.Namespace, given: dict[str, Any]) -> None:
    require_installed()
    config, target = _settings(options, given), options.out or Path("augmented.png")
    if os.path.lexists(target):
        raise RunError(f"{target} is there already; name a new file with --out")
    require_named(config.dataset, "dataset" in given, f"--config {options.config}")
    dataset = Session(options.ranks).load(np, config)
    require_suitable(config, dataset)
    statistics, by = channel_statistics(dataset.train_images), config.standardize
    data = Images(dataset.train_images, dataset.train_labels, *statistics, config.dtype, by=by)
    if (picture := augmented(config, data, options.show_augmented)) is None:
        raise ConfigError(f"--show-augmented draws images of bytes, which {config.dataset} does not hold")
    write_atomically(target, picture)
    say(str(target))


def _train(options: argparse.Namespace, given: dict[str, Any]) -> None:
    require_installed()

    def settings() -> Config:
        config = _settings(options, given)
        if options.config and "dataset" not in given:
            say_called(config.dataset, options.config)
        return config

    Session(options.ranks, say=say).begin(settings, options.out, options.hours)


def _resume(options: argparse.Namespace, given: dict[str, Any]) -> None:
    require_installed()
    _refuse("--resume", options, given, WITH_RESUME)
    Session(options.ranks, say=say).go_on(options.resume, given, options.hours)


def _plot(options: argparse.Namespace, given: dict[str, Any]) -> None:
    run = Run(options.plot)
    _refuse("--plot", options, given, ())
    draw(run)
    say(str(run.picture_path))


def _export(options: argparse.Namespace, given: dict[str, Any]) -> None:
    _refuse("--export", options, given, ())
    source, target = options.export
    path, checkpoint = opened(source, say)
    if os.path.lexists(target):
        raise RunError(f"--export {target} is there already; name a new file")
    remove_partial_files(target.parent, re.escape(target.name))  # of an export that was killed
    if target.suffix == ".safetensors":
        write_safetensors(target, path, checkpoint)
    elif target.suffix == ".onnx":
        write_onnx(target, path, checkpoint)
    elif target.suffix == ".h5":
        checkpoints.save(target, bare(checkpoint, recorded(path, checkpoint)), versions("numpy"))
    else:
        raise ConfigError(f"--export {target} ends in none of .h5 (weights, moments), .safetensors (filters) and .onnx")
    say(str(target))


def _evaluate(options: argparse.Namespace, given: dict[str, Any]) -> None:
    _refuse("--evaluate", options, given, WITH_EVALUATE)
    path, checkpoint = opened(options.evaluate, say)
    config = dataclasses.replace(checkpoint.config, **{"backend": "auto", **given})  # it may come from elsewhere
    xp = namespace(config.backend)
    network, parameters, moments = restore(path, checkpoint, config, xp)
    require_named(config.dataset, "dataset" in given, f"--evaluate {options.evaluate}")
    if config.dataset in INFO:
        _require_same_kind(path, checkpoint, config.dataset, INFO[config.dataset])
    dataset = load_dataset(config.dataset, Path(config.data_dir))
    for note in dataset.notes:
        say(note)
    _require_same_kind(path, checkpoint, config.dataset, dataset.info)
    checkpoints.require_fits(path, checkpoint, dataset)
    test = Images(
        xp.asarray(dataset.test_images),
        xp.asarray(checkpoint.targets.taught(dataset.test_labels, config.dtype)),
        checkpoint.channel_mean,
        checkpoint.channel_std,
        config.dtype,
        targets=checkpoint.targets,
        by=config.standardize,
    )
    subject, said = (xp, network, parameters, moments, test), f", {len(dataset.test_labels):,} images"
    result = evaluate(*subject)
    told = config, said, checkpoint.class_names
    say(next(test_lines(figures(result), *told)))  # before the views are begun, which take six times as long
    result = evaluate_views(*subject, result)
    _, *lines = test_lines(figures(result), *told)
    for line in (*lines, *calibration_lines(result, dataset.test_labels)):
        say(line)
    if dataset.kind != "classes":
        return
    if checkpoint.figures:
        say(f"recorded when it was trained: accuracy {100 * checkpoint.figures['test_accuracy']:.2f} %")
    say(_confusion(result, dataset.class_names))
    if text := card(path):
        say(f"\n{text.rstrip()}")


def _require_same_kind(path: Path, checkpoint: checkpoints.Checkpoint, name: str, data: DatasetInfo) -> None:
    """Refuse images of another shape, or of another number of classes, than a network was trained on."""
    own = checkpoint.image_shape, len(checkpoint.class_names), checkpoint.targets.kind
    found = own, (data.image_shape, data.classes, data.kind)
    if found[0] != found[1]:
        kinds = [f"{count} {kind} of {'x'.join(map(str, shape))} images" for shape, count, kind in found]
        raise CheckpointError(
            f"{path} tells {kinds[0]} apart, {name} has {kinds[1]}; name the set it was trained on with --dataset"
        )


def _remake_report(options: argparse.Namespace, given: dict[str, Any]) -> None:
    """Write the report of a run anew: of its test images only if the run has read them."""
    require_installed()
    _refuse("--report", options, given, WITH_REPORT)
    run = Run(options.report)
    if not run.path.is_dir():
        raise RunError(f"{run.path} holds no run: it is no directory")
    path, checkpoint = opened(run.path, say)
    config = dataclasses.replace(checkpoint.config, **{"backend": "auto", **given})  # it may come from elsewhere
    xp = namespace(config.backend)
    network, parameters, moments = restore(path, checkpoint, config, xp)
    require_named(config.dataset, "dataset" in given, f"--report {run.path}")
    test, state, shown, trained = run.test_record(), checkpoint.state, None, None
    tested = test and (test["epoch"], 0) == (state.epoch, state.step)
    if (tested or config.held_out(MOST)) and checkpoint.targets.kind == "classes":
        dataset = Session(options.ranks).load(xp, config)
        _require_same_kind(path, checkpoint, config.dataset, dataset.info)
        checkpoints.require_fits(path, checkpoint, dataset)
        count = config.held_out(len(dataset.train_labels))
        kept, held_out = split_validation(dataset, count, config.seed)
        if tested:
            part, images, labels = "test", dataset.test_images, dataset.test_labels
        else:  # none of fewer than ten
            part, images, labels = "held-out", dataset.train_images[held_out], dataset.train_labels[held_out]
        statistics = checkpoint.channel_mean, checkpoint.channel_std, config.dtype
        if tested or count:
            data = Images(on_device(xp, images), xp.asarray(labels), *statistics, by=config.standardize)
            shown = classified(part, network, parameters, moments, data)
        trained = Images(dataset.train_images[kept], dataset.train_labels[kept], *statistics, by=config.standardize)
    with locked(run):
        kind = checkpoint.targets.kind
        say(write_report(run, network, checkpoint.class_names, parameters, shown, trained, kind))


def _confusion(result: Result, names: Sequence[str]) -> str:
    """Rows are true classes, columns what the network said; then the part of the class that it said right."""
    width = max(len(str(int(result.confusion.max()))), 4)
    names = [" ".join(name.split()) for name in names]  # a line feed in one would forge a line
    label = max(map(len, names))
    lines = [" " * label + " " + " ".join(name[:width].rjust(width) for name in names) + "  right, 95 % interval"]
    for k, (name, row) in enumerate(zip(names, result.confusion, strict=True)):
        counts = " ".join(str(int(n)).rjust(width) for n in row)
        lines.append(f"{name.rjust(label)} {counts}  {part_right(int(row[k]), int(row.sum()))}".rstrip())
    return "rows: true class; columns: predicted\n" + "\n".join(lines)


def _refuse(action: str, options: argparse.Namespace, given: dict[str, Any], allowed: Sequence[str]) -> None:
    """Settings contradict an action that takes them from a file."""
    more = [name for name in ("config", "out") if getattr(options, name)]
    names = [f"no_{name}" if given.get(name) is False else name for name in (*given, *more) if name not in allowed]
    flags = [f"--{name.replace('_', '-')}" for name in names]
    if flags:
        raise ConfigError(f"{action} takes its settings from the run: remove {', '.join(flags)}")


def _parser() -> Parser:
    parser = Parser(
        prog="python -m train.cifar",
        description="Train a hierarchical attribute CNN (arXiv:1703.04140) on CIFAR-10 or CIFAR-100, or evaluate one. "
        "Defaults of settings are those of --preset.",
        epilog="Exit status: 0; 1 it failed; 2 the command line or the configuration is wrong; 128 and the number "
        "of the signal that stopped it, such as 130 for Ctrl-C.",
    )
    parser.add_argument("--config", type=given_path, metavar="FILE", help="TOML file of settings; flags override it")
    parser.add_argument("--out", type=given_path, metavar="DIR", help="new run directory (default: runs/PRESET-TIME)")
    parser.add_argument(
        "--resume",
        type=given_path,
        metavar="DIR",
        help="continue a run, bit for bit on the same backend; --epochs extends it where its schedule allows",
    )
    parser.add_argument(
        "--evaluate",
        type=given_path,
        metavar="CHECKPOINT",
        help="accuracy, loss and confusion on the test set: of a checkpoint, of a run's latest, or of a network that "
        f"ships: {', '.join(list_networks()) or 'none'}",
    )
    parser.add_argument(
        "--hours", type=_hours, default=math.inf, help="stop after the last epoch that fits; --resume continues"
    )
    parser.add_argument(
        "--export",
        nargs=2,
        metavar=("CHECKPOINT", "FILE"),
        type=given_path,
        help="write a network alone: weights and moments to a .h5, or what they fold into, merged 4D filters and "
        "biases, to a .safetensors, or a .onnx of ordinary convolutions",
    )
    parser.add_argument("--describe", action="store_true", help="print the network as a table and stop")
    parser.add_argument(
        "--show-augmented",
        type=at_least(1),
        metavar="N",
        help="draw N images as training sees them to --out FILE [augmented.png] and stop",
    )
    parser.add_argument("--plot", type=given_path, metavar="DIR", help="draw a run's learning curve and stop")
    parser.add_argument("--report", type=given_path, metavar="DIR", help="write a run's report.html anew and stop")
    for section in sections():
        title = (section.__doc__ or "").strip().partition("\n")[0].partition(":")[0].rstrip(".")
        takers = [
            f"{kind} {name}" for kind, parts in CHOICES.items() for name in parts if section in parts[name].sections
        ]
        takers += [section.needs] if section.needs else []
        group = parser.add_argument_group(title, f"with --{', --'.join(takers)}" if takers else None)
        for f in dataclasses.fields(section):
            add_flag(group, f)
    return parser


def add_flag(group: argparse._ActionsContainer, f: dataclasses.Field[Any]) -> argparse.Action:
    """Add the flag of a setting to a parser or a group of one."""
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
            named = "{" + ",".join(f.metadata["choices"]) + "}"
            options |= {"choices": f.metadata["choices"], "metavar": named if len(named) <= 60 else "NAME"}
            if len(named) > 60:  # argparse does not break a line inside it
                options["help"] += f"; choose {', '.join(f.metadata['choices'])}"
        if count is not None:
            options |= {"nargs": count or "*"}
    return group.add_argument(f"--{f.name.replace('_', '-')}", **options)


def _hours(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < (value := float(text)) < math.inf:
            return value
    raise argparse.ArgumentTypeError(f"{text} is no time; give hours, more than 0")


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


if __name__ == "__main__":
    raise_on_interrupt()
    sys.exit(main())
