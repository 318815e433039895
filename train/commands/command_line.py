"""Common parts of the command lines: one line for any error, and its exit status."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import signal
import sys
import textwrap
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import hcnn_core
from hcnn_core.environment import VariableError, require_valid
from train.config import ConfigError, meant
from train.data import DataError, is_function
from train.data.progress import heard, never_silent
from train.extras import NEEDED, install_command
from train.ranks.communicator import DistributedError, launched
from train.ranks.ranks import Ranks
from train.runs import compiling
from train.runs.checkpoint import CheckpointError
from train.runs.run import Interrupted, RunError, TrainingError
from train.runs.shipped import list_networks
from train.storage.files import harmless, user_path

LONGEST_WORD, LONGEST_LINE = 300, 1000
"""Characters of a word and of a message that are shown."""

NETWORK = f"a run's folder, a checkpoint, or a network that ships: {', '.join(list_networks()) or 'none'}"
"""Help of the argument that names a network, the same in every command."""

_started = getattr(sys.modules["__main__"].__spec__, "name", "")
if _started.startswith("train.") and _started != "train.cifar":  # which starts by itself
    raise SystemExit(f"{_started}: call python -m hcnn {_started.removeprefix('train.').replace('_', '-')}")

_unwritten: list[OSError] = []
"""Why a line of this command could not be written: unbuffered output does not keep the error for the last flush."""


class _Version(argparse.Action):
    """Prints the version, as `Parser.print_help` prints the help, and ends the process."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        say(f"hcnn {hcnn_core.__version__}")
        parser.exit()


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong; `prog` is "python -m" and the module, unless a command `hcnn` was called."""

    def __init__(self, *, prog: str, **options: Any) -> None:
        called = Path(sys.argv[0]).stem
        of_hcnn = called.startswith(("hcnn-", "hcnn ", "python -m hcnn "))
        options = {"epilog": "Exit status: 0; 1 it failed; 2 the command line is wrong."} | options
        super().__init__(prog=called if of_hcnn else prog, allow_abbrev=False, **options)
        unnamed: dict[str, Any] = {"dest": argparse.SUPPRESS, "default": argparse.SUPPRESS}
        self.add_argument("--version", action=_Version, nargs=0, help="print the version and stop", **unnamed)
        self.add_argument("--debug", action="store_true", help="show the traceback of an error")

    def print_help(self, file: Any = None) -> None:
        """Print the help; argparse's own would not notice that it cannot be written."""
        say(self.format_help().removesuffix("\n"))

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            known = [*map(str, action.choices)]
            raise argparse.ArgumentError(
                action, f"{value!r} is not known{meant(value, known)}; choose {', '.join(known)}"
            )

    def error(self, message: str) -> NoReturn:
        """End the process with status 2."""
        if unknown := re.search(r"unrecognized arguments: (\S+)", message):
            known, word = self._option_string_actions, unknown[1]
            paths = {"--config": f"{word}/config.toml", "--dataset": word}
            near = [f"{flag} {path}" for flag, path in paths.items() if flag in known and os.path.exists(path)]
            if "--preset" in known and word in (known["--preset"].choices or ()):
                near = [f"--preset {word}"]
            message += f" (did you mean {near[0]}?)" if near else meant(word, known)
        if launched():  # the ranks have one line between them
            raise ConfigError(f"{one_line(message)}; --help lists the flags")
        self.exit(2, f"{self.module}: {one_line(message)}; --help lists the flags\n")

    def given(self, options: argparse.Namespace, *left_out: str) -> list[str]:
        """Return the given flags as they would be typed, without --out, --debug and those left out."""
        words: list[str] = []
        for name, value in vars(options).items():
            if name not in ("out", "debug", *left_out) and value != self.get_default(name):
                values = value if isinstance(value, (list, tuple)) else [value]
                flag = [] if name == "network" else [f"--{name.replace('_', '-')}"]
                words += [*flag, *map(str, values)]
        return words

    @property
    def module(self) -> str:
        """The name that begins every message: the module's, or the command's."""
        return self.prog.removeprefix("python -m ")


@dataclass(frozen=True)
class Command:
    """The `main` of a module: an action on options, whose docstring is the help's text."""

    action: Callable[[argparse.Namespace], int | None]
    add_arguments: Callable[[Parser], None]
    memory_hint: str

    @property
    def parser(self) -> Parser:
        """The parser of its command line."""
        parser = Parser(prog=f"python -m {self.action.__module__}", description=self.action.__doc__)
        self.add_arguments(parser)
        return parser

    def __call__(self, arguments: Sequence[str] | None = None) -> int:
        """Run the command line."""
        return run_command(self.parser, arguments, self.action, self.memory_hint)


def command(
    add_arguments: Callable[[Parser], None], memory_hint: str
) -> Callable[[Callable[[argparse.Namespace], int | None]], Command]:
    """Return a decorator that makes a command of an action; `memory_hint` ends the message where memory is short."""
    return lambda action: Command(action, add_arguments, memory_hint)


def run_command(
    parser: Parser,
    arguments: Sequence[str] | None,
    action: Callable[[argparse.Namespace], int | None],
    memory_hint: str,
    ranks: Ranks | None = None,
) -> int:
    """Parse the arguments, act, and return the exit status.

    It is the action's, by default 0; 1 if it failed; 2 if the settings are wrong; 128 plus the signal's number if a
    signal stopped it. --debug shows tracebacks and warnings. Among several ranks, rank 0 prints; an error on one rank
    alone ends all.
    """
    ranks = ranks or Ranks()
    debug = False
    _unwritten.clear()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a path need not be text in the terminal's encoding
    try:
        try:
            options = ranks.agree(lambda: parser.parse_args(arguments))
        except SystemExit:
            _flush()
            raise
        debug = options.debug
        speaker = parser.module if ranks.writes else None
        with warnings.catch_warnings(), compiling.said(speaker), never_silent(speaker):
            if not debug:  # a value that is not finite ends the run with a line; few users have a GPU
                warnings.simplefilter("ignore")
            require_valid()
            status = action(options) or 0
        _flush()
        return status
    except BrokenPipeError:  # who closed the pipe has read enough
        return 1
    except (KeyboardInterrupt, Exception) as error:
        return _reported(error, parser, ranks, memory_hint, debug)
    finally:
        with contextlib.suppress(OSError, RunError):
            _flush()
        ranks.leave()


def _reported(error: BaseException, parser: Parser, ranks: Ranks, memory_hint: str, debug: bool) -> int:
    """Say in one line why a command failed, and return the exit status."""
    status, text = _explained(error, memory_hint)
    with contextlib.suppress(OSError):  # of a terminal that has gone
        if debug:
            traceback.print_exception(error)
        if ranks.size > 1 and not getattr(error, "agreed", False):
            ranks.fail(one_line(text), status)
        if ranks.writes:
            print(f"{parser.module}: {harmless(one_line(text))}", file=sys.stderr)
    return status


def _explained(error: BaseException, memory_hint: str) -> tuple[int, str]:
    """Return the exit status and the words of an error."""
    match error:
        case ConfigError() | VariableError():
            return 2, str(error)
        case Interrupted():
            return 128 + error.signum, str(error)
        case CheckpointError() | DataError() | DistributedError() | RunError() | TrainingError():
            return 1, str(error)
        case MemoryError():
            return 1, f"not enough memory: {str(error) or 'an array could not be made'}; {memory_hint}"
        case KeyboardInterrupt():
            return 128 + signal.SIGINT, "interrupted; what was saved before is whole"
        case OSError():
            return 1, _of_the_system(error)
        case ModuleNotFoundError() if "is not installed: " in str(error):
            return 1, str(error)
        case ModuleNotFoundError():
            cure = install_command("train") if error.name in NEEDED else "--debug shows where"
            return 1, f"{error.name} is not installed: {cure}"
    if "start new thread" in str(error):
        return 1, "the system lets no other thread begin (ulimit -u shows how many it allows)"
    return 1, f"{type(error).__name__}: {error}; --debug shows where"


def one_line(text: str) -> str:
    """Return a text on one line, with long words cut, and cut after a thousand characters."""
    words = (f"{word[:160]}...{word[-40:]}" if len(word) > LONGEST_WORD else word for word in text.split())
    return textwrap.shorten(" ".join(words), LONGEST_LINE, placeholder=" ...")


def given_path(text: str) -> Path:
    """Return the path that a flag gives."""
    if not text or "\0" in text:
        raise argparse.ArgumentTypeError(f"{text!r} is no path; name a file or a directory")
    return user_path(text)


def new_file(text: str) -> Path:
    """Return the path of a file that a command will write, in an existing folder."""
    if not (path := given_path(text)).parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {path.parent}; make it first")
    return path


def at_least(minimum: int) -> Callable[[str], int]:
    """Return the type of a flag that takes an integer, not below a minimum."""

    def integer(text: str) -> int:
        value = int(text)
        if value < minimum:
            raise argparse.ArgumentTypeError(f"{value} is given; at least {minimum} is needed")
        return value

    return integer


def _of_the_system(error: OSError) -> str:
    """Return a sentence about an error of the system."""
    try:
        os.getcwd()
    except OSError:
        return "the working directory is gone; change to another one"
    if error.filename is None or error.strerror is None:
        return f"{type(error).__name__}: {error}; --debug shows where"
    return f"cannot use {os.fsdecode(error.filename)}: {error.strerror}"


def say(text: str) -> None:
    """Print text at once; if that fails, the command goes on, and ends with status 1."""
    try:
        print(harmless(text), flush=True)
        heard()
    except OSError as error:
        _unwritten.append(error)


def _flush() -> None:
    """Flush standard output, so that its errors show now and not when the interpreter ends."""
    if sys.stdout is None:
        return
    try:
        if _unwritten:
            raise _unwritten.pop()
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            raise
        raise RunError(f"cannot write to standard output: {error.strerror}") from error


def say_called(dataset: str, file: Path) -> None:
    """Print which function a file calls, before the call; nothing for other kinds of data."""
    if is_function(dataset):
        module, _, function = dataset.partition(":")
        say(f"calling the function {function} of the module {module}, which {file} names")
