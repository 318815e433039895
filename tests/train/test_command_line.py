"""Bad input: the exit status, one line that names what was given and what would do, and nothing lost."""

from __future__ import annotations

import argparse
import logging
import os
import re
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.train.commands import Command
from tests.train.runs import (
    ROOT,
    SMALL,
    finish,
    run_here,
    start,
)
from train.commands.command_line import Parser, run_command, say
from train.config import PRESETS, Config, make_config
from train.data import DataError, progress
from train.runs import session, training
from train.runs.training import Trainer

# Flags


def test_that_kernels_are_compiled_is_said_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = logging.getLogger("hcnn_core")
    before = logger.level, list(logger.handlers)

    def action(options: argparse.Namespace) -> int:
        for name in ("a", "b"):
            logger.debug("compiling %s", name)
            logger.info("compiled %s in 1.0 s", name)
        return 0

    for _ in range(2):
        parser = Parser(prog="python -m train.cifar")
        assert run_command(parser, [], action, "") == 0
        assert capsys.readouterr().err == "train.cifar: compiling kernels for this processor (once)\n"
        assert run_command(parser, [], lambda options: 0, "") == 0
        assert capsys.readouterr().err == ""
    monkeypatch.setenv("HCNN_QUIET", "1")
    assert run_command(parser, [], action, "") == 0
    assert capsys.readouterr().err == ""
    assert (logger.level, logger.handlers) == before


def test_a_command_that_prints_nothing_says_that_it_is_at_work(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that only waiting moves; a line is printed at 100 s, and a bar shows from 130 to 250 s."""
    clock, events = [0.0], {100: 0, 130: 1, 250: -1}
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: clock[0]))

    def wait(seconds: float) -> bool:
        clock[0] += seconds
        if clock[0] in events:
            progress._shown.bars += events[round(clock[0])]
            progress.heard()
        return clock[0] > 400

    progress.heard()
    progress._break_silence("hcnn train", wait)
    marks = [10, 20, 40, 60, *(10, 20), *(10, 20, 40, 60, 120)]
    assert capsys.readouterr().err.splitlines() == [
        f"hcnn train: still at work, {mark} s after the last line" for mark in marks
    ]
    assert not progress._shown.bars

    begun: list[str] = []
    monkeypatch.setattr(progress, "_break_silence", lambda module, wait: begun.append(module))
    monkeypatch.delenv("PYTEST_CURRENT_TEST")
    parser = Parser(prog="python -m train.cifar")
    for quiet in ("0", "1"):
        monkeypatch.setenv("HCNN_QUIET", quiet)
        assert run_command(parser, [], lambda options: 0, "") == 0
    assert begun == ["train.cifar"]


def test_a_signal_while_kernels_are_compiled_is_answered_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    """With a line, since the step that compiles them ends first; at any other time there is no line."""
    logger = logging.getLogger("hcnn_core")

    def action(options: argparse.Namespace) -> int:
        with training._stop_requests() as stop:
            logger.debug("compiling a")
            logger.debug("compiling b, which a calls")
            logger.debug("compiled b in 1.0 s")
            logger.debug("compiling c, whose code becomes part of a")
            signal.raise_signal(signal.SIGTERM)
            logger.info("compiled a in 1.0 s")
            signal.raise_signal(signal.SIGINT)
        return len(stop)

    parser = Parser(prog="python -m train.cifar")
    assert run_command(parser, [], action, "") == 2
    assert capfd.readouterr().err.splitlines() == [
        "train.cifar: compiling kernels for this processor (once)",
        "train.cifar: SIGTERM: stopping after compiling kernels for this processor (once); a second one stops at once",
    ]


def test_a_signal_before_the_first_step_does_not_wait_for_kernels(tmp_path: Path) -> None:
    """There is nothing to lose yet, and a run compiles for a minute where nothing was compiled before."""

    def compiling(self: training.Trainer, index: Any) -> Any:
        logging.getLogger("hcnn_core").debug("compiling a")
        signal.raise_signal(signal.SIGTERM)
        raise AssertionError("the step goes on")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.Trainer, "_step", compiling)
        outcome = run_here((*SMALL, "--out", tmp_path / "run"), None)
    outcome.one_line(128 + signal.SIGTERM, "stopped at once", f"continue with --resume {tmp_path / 'run'}")


IN_A_CALLBACK = """
import logging, os, signal, sys, time
from numba.core import codegen
from train.commands.command_line import Parser, run_command
from train.runs.training import _stop_requests

hook = codegen.JITCodeLibrary._object_compiled_hook.__func__

def interrupted(cls, module, code):
    if len(sys.argv) > 1:
        os.kill(os.getpid(), int(sys.argv.pop()))
    for _ in range(100):
        pass
    return hook(cls, module, code)

codegen.JITCodeLibrary._object_compiled_hook = classmethod(interrupted)
from hcnn_core._engines.cpu.kernels.jit import compiled

@compiled()
def kernel(x):
    return x + 1

def action(options):
    try:
        with _stop_requests(nothing_to_lose=lambda: True):
            logging.getLogger("hcnn_core").debug("compiling kernel")
            kernel(1)
            for _ in range(100):
                time.sleep(0.1)
    except KeyboardInterrupt as error:
        return 128 + error.args[0]
    return 0

sys.exit(run_command(Parser(prog="python -m train.cifar"), [], action, ""))
"""


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_signal_in_a_callback_of_llvm_is_no_other_error(signum: int, tmp_path: Path) -> None:
    """What a handler raises there is lost: Numba then said "no compiled object yet for <Library ...>"."""
    process = start("-c", IN_A_CALLBACK, str(int(signum)), env={"NUMBA_CACHE_DIR": str(tmp_path), "HCNN_QUIET": "1"})
    outcome = finish(process)
    assert (outcome.status, outcome.err) == (128 + signum, "")


def test_names_in_files_are_no_commands_for_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    def action(options: argparse.Namespace) -> int:
        say("a cat\x1b[2J\u202e, \x07a dog\nun \xe9l\xe9phant\t1")
        raise DataError("class \x9b2J\x7f is no class")

    parser = Parser(prog="python -m train.cifar")
    assert run_command(parser, [], action, "") == 1
    said = capsys.readouterr()
    assert said.out == "a cat\\x1b[2J\\u202e, \\x07a dog\nun \xe9l\xe9phant\t1\n"
    assert said.err == "train.cifar: class \\x9b2J\\x7f is no class\n"


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["--epoch", "3"], ["--epoch", "--help"]),
        (["--lr", "3"], ["--lr 3 (did you mean --learning-rate?)"]),
        (["runs"], ["unrecognized arguments: runs;"]),
        (["."], ["unrecognized arguments: . (did you mean --dataset .?)"]),
        (["hcnn-fast"], ["unrecognized arguments: hcnn-fast (did you mean --preset hcnn-fast?)"]),
        (["two\nlines"], ["two lines"]),
        (["--preset", "huge"], ["--preset", "'huge'", "hcnn-plus", "sample"]),
        (["--preset"], ["--preset", "expected one argument"]),
        (["--dataset", "mnist"], ["dataset is 'mnist'", "cifar100", "FILE.npz", "MODULE:FUNCTION"]),
        (["--backend", "torch"], ["--backend", "'torch'", "cupy"]),
        (["--width", "eight"], ["--width", "invalid int value", "'eight'"]),
        (["--width", "0"], ["width is 0", "at least 1"]),
        (["--learning-rate", "fast"], ["--learning-rate", "invalid float value", "'fast'"]),
        (["--learning-rate", "nan"], ["learning_rate is nan", "finite"]),
        (["--attribute-kernel", "7"], ["--attribute-kernel", "expected 2 arguments"]),
        (["--shift", "40"], ["shift is 40", "images of 32x32", "0 to 31"]),
        (["--cutout", "32"], ["cutout is 32", "images of 32x32", "0 to 31"]),
        (["--flip", "yes"], ["unrecognized arguments: yes"]),
        (["--preset", "sample", "--train-size", "41"], ["--train-size", "41", "1 to 40"]),
        (["--preset", "sample", "--validation-size", "40"], ["--validation-size", "40", "0 to 39"]),
        (["--describe", "--evaluate", "a.h5"], ["--describe", "--evaluate", "exclude"]),
        (["--out", ""], ["--out", "'' is no path"]),
        (["--out", "a\0b"], ["--out", "is no path"]),
        (["--data-dir", "\udcff"], ["data_dir is '\\udcff'", "not UTF-8"]),
        (["--describe", "--out", "a"], ["--describe", "remove --out"]),
        (["--evaluate", "a.h5", "--train-size", "5"], ["--evaluate", "remove --train-size"]),
        (["--evaluate", "a.h5", "--hours", "1"], ["--hours limits training", "--evaluate"]),
        *((["--hours", hours], [f"{hours} is no time", "more than 0"]) for hours in ("0", "-1", "nan", "inf", "x")),
        (["--precision", "tf32", "--backend", "numpy"], ["precision is 'tf32'", "--backend cupy"]),
    ],
    ids=" ".join,
)
def test_bad_flags(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], fragments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    command(*arguments).one_line(2, *fragments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "fragments"),
    [
        (b"widht = 8\n", ["'widht'", "did you mean width"]),
        (b"preset = 'huge'\n", ["preset is 'huge'", "sample"]),
        (b"width = \n", ["bad.toml", "not valid TOML"]),
        (None, ["bad.toml", "No such file"]),
    ],
    ids=str,
)
def test_bad_configuration(command: Command, tmp_path: Path, content: bytes | None, fragments: list[str]) -> None:
    path = tmp_path / "bad.toml"
    if content is not None:
        path.write_bytes(content)
    command("--config", path, "--out", tmp_path / "run").one_line(2, *fragments)
    assert not (tmp_path / "run").exists()


def test_flags_override_the_configuration_which_overrides_the_preset(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "some.toml"
    path.write_text("preset = 'hcnn-fast'\nwidth = 4\nfactors = 4\ndepth = 5\nepochs = 1\nbatch_size = 8\n")
    flags = ("--preset", "sample", "--factors", 3, "--validation-size", 8)
    command("--config", path, *flags, "--out", tmp_path / "run").success()
    settings = (tmp_path / "run" / "config.toml").read_text("utf-8")
    found = dict(re.findall(r"^(\w+) = (.*?)  #", settings, re.MULTILINE))
    assert (found["preset"], found["width"], found["factors"], found["shift"]) == ('"sample"', "4", "3", "2")


def test_help_explains_every_setting_in_lines_that_fit(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    short = command("--help").success()
    assert len(short.splitlines()) < 50 and "--preset NAME" in short and "--nesterov" not in short
    out = command("--help-all").success()
    joined = " ".join(out.split())
    for name, value in vars(Config()).items():
        help = Config.__dataclass_fields__[name].metadata["help"]
        shown = " ".join(map(str, value)) if isinstance(value, tuple) else value
        assert f"--{name.replace('_', '-')}" in out
        assert " ".join(f"{help} [{shown}]".split()) in joined, name
    assert "--no-flip" in out and "Exit status" in out
    assert max(map(len, out.splitlines())) <= 100


# --describe


@pytest.mark.parametrize("preset", PRESETS)
def test_describe_needs_no_data_and_makes_nothing(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, preset: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(session, "available_bytes", lambda xp: 0)
    hierarchical = make_config(preset).architecture == "hcnn"
    large = ("--width", 10**6) if hierarchical else ("--batch-size", 10**6)
    assert command("--describe", "--preset", preset, *large).success()
    assert list(tmp_path.iterdir()) == []


# Data


def denied(self: Path, *arguments: Any) -> Any:
    raise PermissionError(13, "Permission denied", str(self))


def test_what_the_system_refuses_is_said_in_a_sentence(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("a" * 280)
    for words in (*SMALL[:2], "--out"), ("--resume",), ("plot",), ("--evaluate",):
        line = command(*words, long).one_line(1, "cannot use", "File name too long")
        assert "--debug" not in line
    with monkeypatch.context() as patch:
        patch.setattr(Path, "is_file", denied)
        command("--resume", tmp_path).one_line(1, f"cannot use {tmp_path / 'best.h5'}: Permission denied")
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    command(*SMALL).one_line(1, "No such file or directory")
    monkeypatch.setattr(session.Session, "load", lambda self, xp, config: Path().resolve())
    command(*SMALL, "--out", tmp_path / "run").one_line(1, "the working directory is gone")


def test_what_was_given_is_echoed_in_a_line_one_can_read(command: Command) -> None:
    for arguments in (["--width", "9" * 5000], ["--" + "z" * 5000], ["--preset", "a" * 10**5], ["a"] * 10**4):
        assert len(command(*arguments).one_line(2, "--help")) < 1100
    long = "/".join(["folder"] * 30)
    command("--resume", long).one_line(1, long)  # a path of usual length is shown whole


def test_a_directory_whose_name_is_not_utf8_has_a_curve(drawing_command: Command, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"r\xffn")
    drawing_command(*SMALL, "--epochs", 1, "--out", path).success()
    assert (path / "learning-curve.png").stat().st_size > 1000
    outcome = finish(start("-m", "train.cifar", "--resume", path))
    assert "r\\udcffn/best.h5" in outcome.success()


# Everything else


def test_debug_shows_the_traceback_before_the_same_line(command: Command, trained: Path, tmp_path: Path) -> None:
    for arguments, status in (
        (("--resume", trained, "--epochs", 3), 2),
        (("--evaluate", tmp_path / "absent.h5"), 1),
    ):
        plain, full = command(*arguments), command(*arguments, "--debug")
        line = plain.one_line(status)
        assert (full.status, full.out) == (status, plain.out)
        assert full.err.startswith("Traceback (most recent call last):") and full.err.endswith(line)
        assert "cifar.py" in full.err


@pytest.mark.parametrize(
    ("error", "said"),
    [
        *((error, "--debug shows where") for error in (ZeroDivisionError("of\nmine"), RuntimeError(), KeyError("k"))),
        (OSError(5, "I/O error"), "OSError: "),
        (MemoryError(), "not enough memory: an array could not be made; a smaller --batch-size"),
        (RuntimeError("can't start new thread"), "the system lets no other thread begin (ulimit -u shows"),
    ],
    ids=str,
)
def test_an_error_in_the_middle_is_one_line(
    command: Command, trained: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    def fail(*arguments: Any, **options: Any) -> Any:
        raise error

    monkeypatch.setattr("train.runs.trained.evaluate", fail)
    command("--evaluate", trained / "best.h5").one_line(1, said)
    assert "Traceback" in command("--evaluate", trained / "best.h5", "--debug").err


def test_interrupted_while_modules_are_imported(tmp_path: Path) -> None:
    """A module of NumPy's name waits in its place; Ctrl-C ends the process with one line and no traceback."""
    (tmp_path / "numpy.py").write_text("import sys\nprint('importing', flush=True)\nsys.stdin.readline()\n")
    path = os.pathsep.join((str(tmp_path), str(ROOT)))
    process = start("-m", "train.cifar", "--describe", env={"PYTHONPATH": path})
    assert process.stdout is not None and process.stdout.readline() == "importing\n"
    process.send_signal(signal.SIGINT)
    outcome = finish(process, "\n" * 100)
    outcome.one_line(130, "interrupted", "before anything was to save")


AFTER_IMPORTS = """
import runpy, signal, sys
if sys.argv.pop(1) == "ignored":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
sys.argv.append("--help")
try:
    runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
except SystemExit:
    print(repr(signal.getsignal(signal.SIGINT)))
"""


MODULES = ("cifar", "sweep")


@pytest.mark.parametrize(("module", "before"), [*((m, "raised") for m in MODULES), ("cifar", "ignored")])
def test_interrupts_after_imports_raise_again(module: str, before: str) -> None:
    """So that a command that is interrupted later closes its files; under `nohup`, Ctrl-C stays ignored."""
    outcome = finish(start("-c", AFTER_IMPORTS, before, f"train.{module}"))
    after = signal.SIG_IGN if before == "ignored" else signal.default_int_handler
    assert outcome.out.splitlines()[-1] == repr(after), outcome


def test_a_first_line_is_there_before_training(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Buffered output would say nothing until the end."""
    said = []

    def fit(self: Trainer, *arguments: Any) -> None:
        said.append(sys.stdout.getvalue())  # type: ignore[attr-defined]
        raise training.TrainingError("enough")

    monkeypatch.setattr(Trainer, "fit", fit)
    command(*SMALL, "--out", tmp_path / "run").one_line(1, "enough")
    assert len(said) == 1 and said[0].startswith(f"{tmp_path / 'run'}: sample on 32 images")
