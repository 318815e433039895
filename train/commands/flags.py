"""Flags of settings: one for each field of the sections of a configuration."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterable
from typing import Any

from train.commands.command_line import Parser, given_path
from train.config import CHOICES, Config, field_type, make_config, read_toml, sections
from train.settings import choices

OF_A_NETWORK = {
    "dataset": "another set whose images to take: cifar10, cifar100, sample, a file FILE.npz, a folder DIR, or "
    "MODULE:FUNCTION [the one that it was trained on]",
    "data_dir": "folder that holds, or will hold, the data set [as when it was trained]",
    "batch_size": "images at a time [as when it was trained]",
}
"""Help of flags that mean something else than when a network is trained."""


def add_settings(parser: Parser) -> None:
    """Add --config and a flag for each setting, in a group for each section."""
    parser.add_argument("--config", type=given_path, metavar="FILE", help="TOML file of settings; flags override it")
    for section in sections():
        title = (section.__doc__ or "").strip().partition("\n")[0].partition(":")[0].rstrip(".")
        takers = [
            f"{kind} {name}" for kind, parts in CHOICES.items() for name in parts if section in parts[name].sections
        ]
        takers += [section.needs] if section.needs else []
        group = parser.add_argument_group(title, f"with --{', --'.join(takers)}" if takers else None)
        for f in section.own():
            add_flag(group, f)


def add_network(parser: Parser, names: Iterable[str]) -> None:
    """Add the flags of settings that a trained network may be used with."""
    for f in dataclasses.fields(Config):
        if f.name in names:
            add_flag(parser, f).help = OF_A_NETWORK.get(f.name, f.metadata["help"])


def add_flag(group: argparse._ActionsContainer, f: dataclasses.Field[Any]) -> argparse.Action:
    """Add the flag of a setting to a parser or a group of one."""
    kind, count = field_type(f)
    options: dict[str, Any] = {
        "default": None,
        "help": f"{f.metadata['help']} [{_in_words(f.default)}]".replace("%", "%%"),
    }
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
    names = (f.name for section in sections() for f in section.own())
    return {name: value for name in names if (value := getattr(options, name, None)) is not None}


def config_of(options: argparse.Namespace) -> Config:
    """Return the configuration that a command line asks for: a preset, then --config, then flags."""
    settings = (read_toml(options.config) if options.config else {}) | given_settings(options)
    return make_config(settings.pop("preset", "hcnn"), settings)


def _in_words(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
