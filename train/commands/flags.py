"""Flags of settings: one for each field of the sections of a configuration."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import Field, fields
from typing import Any

from train.commands.command_line import Parser, given_path, say, say_called
from train.config import CHOICES, IN_STEPS, Config, field_type, is_own, make_config, read_toml, sections
from train.data import FILE, INFO, Dataset, has_axes, is_function, load
from train.networks.presets import BY_AXES, UNITS
from train.settings import choices

NETWORK_HELP = {
    "dataset": f"another set whose images to take: {', '.join(INFO)}, a file {FILE}, a folder DIR, or MODULE:FUNCTION "
    "[the one that it was trained on]",
    "data_dir": "folder that holds, or will hold, the data set [as when it was trained]",
    "batch_size": "images at a time [as when it was trained]",
}
"""Help of flags whose meaning differs from that in training."""

FIRST = ("preset", "dataset", "data_dir", "epochs", "batch_size", "learning_rate", "validation_size", "seed", "backend")
"""The commonest settings, which --help shows."""


class _HelpAll(argparse.Action):
    """Prints the help of all flags; `hidden` are flags and groups that --help leaves out, with their lines."""

    def __init__(self, *, hidden: dict[Any, str | None], **options: Any) -> None:
        super().__init__(**options | {"dest": argparse.SUPPRESS, "nargs": 0, "default": argparse.SUPPRESS})
        self.hidden = hidden

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        """Print it, and end the process."""
        for it, line in self.hidden.items():
            setattr(it, "help" if isinstance(it, argparse.Action) else "description", line)
        parser.print_help()
        parser.exit()


def add_settings(parser: Parser) -> None:
    """Add --config and a flag for each setting: the commonest first, then a group for each section."""
    hidden: dict[Any, str | None] = {}
    parser.usage = f"{parser.prog} [FLAG ...]"
    parser.add_argument("--help-all", action=_HelpAll, hidden=hidden, help="show the flags of all settings too")
    parser.add_argument("--config", type=given_path, metavar="FILE", help="TOML file of settings; flags override it")
    first, known = parser.add_argument_group("Settings that people set first"), {f.name: f for f in fields(Config)}
    for name in FIRST:
        add_flag(first, known[name])
    for section in sections():
        title = (section.__doc__ or "").strip().partition("\n")[0].partition(":")[0].rstrip(".")
        takers = [
            f"{kind} {name}" for kind, parts in CHOICES.items() for name in parts if section in parts[name].sections
        ]
        takers += [section.needs] if section.needs else []
        group = parser.add_argument_group(title)
        hidden[group] = f"with --{', --'.join(takers)}" if takers else None
        for f in section.added():
            if f.name not in FIRST:
                action = add_flag(group, f)
                hidden[action] = action.help
                action.help = argparse.SUPPRESS


def add_network(parser: Parser, names: Iterable[str]) -> None:
    """Add the flags of settings that a trained network may be used with."""
    for f in fields(Config):
        if f.name in names:
            add_flag(parser, f).help = NETWORK_HELP.get(f.name, f.metadata["help"])


def add_flag(group: argparse._ActionsContainer, f: Field[Any]) -> argparse.Action:
    """Add the flag of a setting to a parser or a group of one."""
    kind, count = field_type(f)
    default = " ".join(map(str, f.default)) if isinstance(f.default, tuple) else f.default
    options: dict[str, Any] = {"default": None, "help": f"{f.metadata['help']} [{default}]".replace("%", "%%")}
    if kind is bool:
        options["action"] = argparse.BooleanOptionalAction
    else:
        options |= {"type": kind, "metavar": kind.__name__.upper()}
        if names := choices(f):
            named = "{" + ",".join(names) + "}"
            options |= {"choices": names, "metavar": named if len(named) <= 60 else "NAME"}
            if len(named) > 60:  # argparse does not break a line inside it
                options["help"] += f"; choose {', '.join(names)}"
        if count is not None:
            options |= {"nargs": count or "*"}
    return group.add_argument(f"--{f.name.replace('_', '-')}", **options)


def given_settings(options: argparse.Namespace) -> dict[str, Any]:
    """Return the settings that flags give, by name."""
    names = (f.name for section in sections() for f in section.added())
    return {name: value for name in names if (value := getattr(options, name, None)) is not None}


def config_of(options: argparse.Namespace, *, calls: bool = False) -> tuple[Config, Dataset | None]:
    """Return the configuration of a command line: a preset, then --config, then flags.

    Where no preset is named it is the one for the axes of one's own data, which are then returned too. `calls` says
    whether a function may be called for them. `options` are told whether the number of steps is `free`.
    """
    settings = (read_toml(options.config) if options.config else {}) | given_settings(options)
    dataset = str(settings.get("dataset", Config.dataset))
    reads = has_axes(dataset) and (calls or not is_function(dataset))
    data, called = None, calls and options.config and options.dataset is None
    options.free = settings.keys().isdisjoint(IN_STEPS)
    if is_own(dataset) and not {"preset", "architecture"} & settings.keys():
        if reads and called:
            say_called(dataset, options.config)
        reading = make_config("hcnn", {name: settings[name] for name in ("task",) if name in settings}).reading
        data = load(dataset, reading, str(settings.get("data_dir", Config.data_dir))) if reads else None
        axes = len(data.image_shape) - 1 if data else 2
        settings["preset"] = BY_AXES[axes]
        say(f"{dataset}: --preset {BY_AXES[axes]} is taken, the one for {UNITS[axes]}")
    config = make_config(settings.pop("preset", "hcnn"), settings)
    if called and not data:
        say_called(dataset, options.config)
    return config, data
