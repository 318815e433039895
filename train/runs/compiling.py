"""Lines while kernels are compiled: one that they are, and one about a signal meanwhile."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
from _thread import interrupt_main
from collections.abc import Iterator
from types import FrameType

from hcnn_core.environment import is_on

COMPILING = "compiling kernels for this processor (once)"
"""The line before the first kernel is compiled."""

CALLBACKS = ("_raw_object_cache_notify", "_raw_object_cache_getbuffer")
"""Functions of llvmlite that LLVM calls. An exception in one is lost, and with it the compiled code."""


class _Notice(logging.Handler):
    """Follows the log of the library, whose only records are of compiling."""

    def __init__(self, module: str) -> None:
        super().__init__()
        self.module, self.said, self.under_way, self.pending = module, False, False, 0

    def emit(self, record: logging.LogRecord) -> None:
        """Note whether something is being compiled; say so the first time."""
        # what it calls, or takes in, is logged below INFO, and not always at its end
        self.under_way = record.levelno < logging.INFO
        if not self.said:
            self.said = True
            if is_on("HCNN_QUIET"):
                return
            with contextlib.suppress(OSError):
                print(f"{self.module}: {COMPILING}", file=sys.stderr, flush=True)

    def interrupt(self, signum: int, frame: FrameType | None) -> None:
        """Raise KeyboardInterrupt, after a callback of LLVM if one runs; for handlers of signals."""
        signum, self.pending = self.pending or signum, 0
        while frame:
            if frame.f_code.co_name in CALLBACKS:
                self.pending = signum
                threading.Timer(0.01, interrupt_main).start()
                return
            frame = frame.f_back
        raise KeyboardInterrupt(signum)


_notices: list[_Notice] = []


@contextlib.contextmanager
def said(module: str | None) -> Iterator[None]:
    """Print a line when kernels are compiled, in the name of a command; none if the name is None."""
    if module is None:
        yield
        return
    logger, notice = logging.getLogger("hcnn_core"), _Notice(module)
    level, before = logger.level, signal.getsignal(signal.SIGINT)
    interrupts = before is signal.default_int_handler and threading.current_thread() is threading.main_thread()
    logger.addHandler(notice)
    logger.setLevel(logging.DEBUG)
    _notices.append(notice)
    try:
        if interrupts:
            signal.signal(signal.SIGINT, notice.interrupt)
        yield
    finally:
        if interrupts:
            signal.signal(signal.SIGINT, before)
        _notices.remove(notice)
        logger.removeHandler(notice)
        logger.setLevel(level)


def answer(signum: int, frame: FrameType | None, at_once: bool = False) -> None:
    """While kernels are compiled, stop `at_once`, or print that a signal is answered later; for handlers of signals."""
    for notice in _notices:
        if notice.under_way:
            if at_once:
                notice.interrupt(signum, frame)
                return
            text = f"{signal.Signals(signum).name}: stopping after {COMPILING}; a second one stops at once"
            with contextlib.suppress(OSError):
                os.write(2, f"{notice.module}: {text}\n".encode())
