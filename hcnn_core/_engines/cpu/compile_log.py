"""Log what Numba compiles: to the logger `hcnn_core`, at level DEBUG when it begins, at INFO when it is done.

After a second of compiling, one line on standard error says why nothing happens. What the disk holds is loaded, and
not logged. Numba compiles under a lock, one function after another. A function that another one calls is compiled while
that one is, counts in its time, and is logged at level DEBUG.
"""

# mypy: disable-error-code="misc,no-untyped-call"

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
from typing import Any

from numba.core import event

from hcnn_core.environment import is_on

FIRST_PASS, LAST_PASS = "translate_bytecode", "nopython_backend"
"""First and last pass of Numba's compiler. Its event of a whole compilation does not come for codelets."""

SAID_AFTER = 1.0
"""Seconds of compiling in a process before the notice."""

logger = logging.getLogger("hcnn_core")


class _Notice:
    """The notice that kernels are compiled, once per process."""

    def __init__(self) -> None:
        self.spent, self.said = 0.0, False
        self.timer = threading.Timer(0, self.say)

    def begin(self) -> None:
        """Print the notice after `SAID_AFTER`, unless compiling ends before."""
        if not self.said and _is_wanted():
            self.timer = threading.Timer(max(0.0, SAID_AFTER - self.spent), self.say)
            self.timer.daemon = True
            with contextlib.suppress(RuntimeError):  # no thread can be started
                self.timer.start()

    def end(self, seconds: float) -> None:
        """Count the seconds that compiling a function took."""
        self.timer.cancel()
        self.spent += seconds

    def say(self) -> None:
        """Print the notice."""
        self.said = True
        with contextlib.suppress(OSError, ValueError):  # of standard error that is gone, or closed
            print(
                "hcnn: compiling kernels, once for this processor (hcnn warmup does it ahead, HCNN_QUIET=1 hides this)",
                file=sys.stderr,
                flush=True,
            )


def _is_wanted() -> bool:
    """Whether to print the notice: not with HCNN_QUIET=1, in tests, or where the log has handlers."""
    if is_on("HCNN_QUIET") or "pytest" in sys.modules or "PYTEST_CURRENT_TEST" in os.environ:
        return False
    return sys.stderr is not None and not logger.isEnabledFor(logging.INFO)


class _Listener(event.Listener):
    """Follows the passes of the compiler over functions of this package."""

    def __init__(self) -> None:
        self.under_way: list[tuple[str, float]] = []  # each called by the one before it
        self.notice = _Notice()

    def on_start(self, event: Any) -> None:
        """Note when a function's first pass begins."""
        if name := _function(event, FIRST_PASS):
            logger.debug("compiling %s", name)
            if not self.under_way:
                self.notice.begin()
            self.under_way.append((name, time.perf_counter()))

    def on_end(self, event: Any) -> None:
        """Log a function when its last pass is done."""
        name = _function(event, LAST_PASS)
        if any(name == one for one, _ in self.under_way):
            latest, begin = self.under_way.pop()
            while latest != name:  # one that failed had no last pass
                latest, begin = self.under_way.pop()
            level = logging.DEBUG if self.under_way else logging.INFO
            seconds = time.perf_counter() - begin
            if not self.under_way:
                self.notice.end(seconds)
            logger.log(level, "compiled %s in %.1f s", name, seconds)


def _function(event: Any, compiler_pass: str) -> str | None:
    """Return the function of this package that an event of a pass is about; None for others."""
    module, name = event.data["module"], event.data["qualname"]
    of_pass = event.data["name"].startswith(compiler_pass)
    return f"{module.rpartition('.')[2]}.{name}" if of_pass and module.startswith("hcnn_core.") else None


def install() -> None:
    """Log from now on."""
    event.register("numba:run_pass", _Listener())
