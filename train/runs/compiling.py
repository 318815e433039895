"""What is said while kernels are compiled: once that they are, and what a signal does meanwhile."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Iterator

COMPILING = "compiling kernels for this processor (once)"
"""What is said before the first of them is compiled."""


class _Notice(logging.Handler):
    """Follows the log of the library, whose only records are of compiling."""

    def __init__(self, module: str) -> None:
        super().__init__()
        self.module, self.said, self.under_way = module, False, 0

    def emit(self, record: logging.LogRecord) -> None:
        """Count what is being compiled; say so the first time."""
        self.under_way = max(0, self.under_way + (1 if record.getMessage().startswith("compiling ") else -1))
        if not self.said:
            self.said = True
            if os.environ.get("HCNN_QUIET") == "1":
                return
            with contextlib.suppress(OSError):
                print(f"{self.module}: {COMPILING}", file=sys.stderr, flush=True)


_notices: list[_Notice] = []


@contextlib.contextmanager
def said(module: str | None) -> Iterator[None]:
    """Say that kernels are compiled, when they are, in the name of a command; of None nothing is said."""
    if module is None:
        yield
        return
    logger, notice = logging.getLogger("hcnn_core"), _Notice(module)
    level = logger.level
    logger.addHandler(notice)
    logger.setLevel(logging.DEBUG)
    _notices.append(notice)
    try:
        yield
    finally:
        _notices.remove(notice)
        logger.removeHandler(notice)
        logger.setLevel(level)


def answer(signum: int, at_once: bool = False) -> None:
    """While kernels are compiled, stop `at_once`, or say that a signal is answered later; for handlers of signals."""
    for notice in _notices:
        if notice.under_way:
            if at_once:
                raise KeyboardInterrupt(signum)
            text = f"{signal.Signals(signum).name}: stopping after {COMPILING}; a second one stops at once"
            with contextlib.suppress(OSError):
                os.write(2, f"{notice.module}: {text}\n".encode())
