"""Train and evaluate hierarchical CNNs on CIFAR: `python -m train.cifar --backend cupy`."""

from train.commands.process import begin, raise_on_interrupt

begin("train.cifar", __name__)

import argparse
import contextlib
import functools
import math
import os
import sys
from collections.abc import Sequence

from train.commands.command_line import Parser, given_path, run_command, say
from train.commands.flags import add_settings, config_of, given_settings
from train.config import Config, ConfigError
from train.describe import network_table
from train.evaluate import EVALUATION_SETTINGS, say_accuracy
from train.extras import require_installed
from train.ranks.communicator import DistributedError, launch_rank
from train.ranks.ranks import Ranks, join, share_processors
from train.runs.run import CHANGEABLE
from train.runs.session import Session
from train.runs.shipped import list_networks

ACTIONS = ("describe", "evaluate", "resume")


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

    return run_command(parser, arguments, functools.partial(_act, ranks), hint, ranks)


def _act(ranks: Ranks, options: argparse.Namespace) -> None:
    """Train, or do what the one flag of `ACTIONS` asks for."""
    settings, chosen = given_settings(options), [name for name in ACTIONS if getattr(options, name)]
    # before ranks wait for each other, each in another action
    ranks.require_same({f"--{name}": str(getattr(options, name)) for name in chosen})
    if len(chosen) > 1:
        raise ConfigError(f"--{chosen[0]} and --{chosen[1]} exclude each other")
    given = [*settings, *(name for name in ("config", "out") if getattr(options, name))]
    flags = {name: f"--{'no-' * (settings.get(name) is False)}{name.replace('_', '-')}" for name in given}
    action = chosen[0] if chosen else "train"
    if action in ("describe", "evaluate") and options.hours < math.inf:
        raise ConfigError(f"--hours limits training, which --{action} does not do: remove it")
    if action in ("describe", "evaluate") and ranks.size > 1:
        raise ranks.agreed(ConfigError(f"--{action} runs in one process: start it without the launcher"))
    allowed = {"evaluate": EVALUATION_SETTINGS, "resume": CHANGEABLE}.get(action, given)
    if action == "describe" and options.out:
        raise ConfigError("--describe makes no run: remove --out")
    if refused := [flag for name, flag in flags.items() if name not in allowed]:
        raise ConfigError(f"--{action} takes its settings from the run: remove {', '.join(refused)}")
    if action == "describe":
        say(network_table(*config_of(options)))
    elif action == "evaluate":
        say_accuracy(options.evaluate, settings, f"--evaluate {options.evaluate}")
    else:
        require_installed()
        session = Session(ranks, say=say)
        if action == "resume":
            session.go_on(options.resume, settings, options.hours)
        else:
            session.begin(lambda: _configured(session, options), options.out, options.hours)


def _configured(session: Session, options: argparse.Namespace) -> Config:
    """Return the settings of a new run; the session keeps what they lead to."""
    config, session.given = config_of(options, calls=True)
    session.free = options.free
    return config


def _parser() -> Parser:
    parser = Parser(
        prog="python -m train.cifar",
        description="Train a hierarchical attribute CNN (arXiv:1703.04140) on CIFAR-10 or CIFAR-100, or evaluate one. "
        "Defaults of settings are those of --preset.",
        epilog="Exit status: 0; 1 it failed; 2 the command line or the configuration is wrong; 128 and the number "
        "of the signal that stopped it, such as 130 for Ctrl-C.",
    )
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
    parser.add_argument("--describe", action="store_true", help="print the network as a table and stop")
    add_settings(parser)
    return parser


def _hours(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < (value := float(text)) < math.inf:
            return value
    raise argparse.ArgumentTypeError(f"{text} is no time; give hours, more than 0")


if __name__ == "__main__":
    raise_on_interrupt()
    sys.exit(main())
