"""A bar on standard error, silent when nobody watches; and lines of a command that would be silent for long."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from types import SimpleNamespace
from typing import Any

from hcnn_core.environment import is_on

SILENT = SimpleNamespace(
    update=lambda count=1: None, set_description=lambda text: None, set_postfix_str=lambda text, refresh: None
)

_hidden = ContextVar("hidden", default=False)

_shown = SimpleNamespace(last=0.0, bars=0)
"""When this process last printed something, and how many bars it shows."""


@contextmanager
def no_bars() -> Iterator[None]:
    """Show no bars."""
    token = _hidden.set(True)
    try:
        yield
    finally:
        _hidden.reset(token)


@contextmanager
def progress_bar(total: int, title: str = "", **options: Any) -> Iterator[Any]:
    """Show a bar of images, with options of tqdm's; its `update` takes how many more are done."""
    if _hidden.get() or sys.stderr is None or not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield SILENT
        return
    try:
        from tqdm import tqdm
    except ImportError:
        yield SILENT
        return
    with tqdm(total=total, desc=title, **{"unit": "img", "dynamic_ncols": True, "leave": False} | options) as bar:
        _shown.bars += 1
        yield bar
        _shown.bars -= 1


def heard() -> None:
    """Note that something was printed just now."""
    _shown.last = time.monotonic()


@contextmanager
def never_silent(module: str | None) -> Iterator[None]:
    """Say in the name of a command that it is at work, where it prints nothing and shows no bar; of None say nothing.

    Nor is anything said with HCNN_QUIET=1, and in tests.
    """
    heard()
    ended = threading.Event()
    if not (module is None or sys.stderr is None or is_on("HCNN_QUIET") or "PYTEST_CURRENT_TEST" in os.environ):
        with suppress(RuntimeError):  # the system lets no other thread begin
            threading.Thread(target=_break_silence, args=(module, ended.wait), daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _break_silence(module: str, wait: Callable[[float], bool]) -> None:
    """Say a line 10, 20, 40 and 60 s after the last one, and then each minute, until `wait` returns true."""
    since, mark = _shown.last, 10
    while not wait(1.0):
        if _shown.bars:
            heard()
        if _shown.last != since:
            since, mark = _shown.last, 10
        if time.monotonic() - since >= mark:
            with suppress(OSError, ValueError):  # of a terminal that has gone
                print(f"{module}: still at work, {mark} s after the last line", file=sys.stderr, flush=True)
            mark += mark if mark < 40 else 20 if mark < 60 else 60
