"""Log what Numba compiles: to the logger `hcnn_core`, at level DEBUG when it begins, at INFO when it is done.

What the cache on disk holds is loaded and not logged. Numba compiles under a lock, one function after another. A
function that another one calls is compiled while that one is, counts in its time, and is logged at level DEBUG.
"""

# mypy: disable-error-code="misc,no-untyped-call"

from __future__ import annotations

import logging
import time
from typing import Any

from numba.core import event

FIRST_PASS, LAST_PASS = "translate_bytecode", "nopython_backend"
"""First and last pass of Numba's compiler. Its event of a whole compilation does not come for codelets."""

logger = logging.getLogger("hcnn_core")


class _Listener(event.Listener):
    """Follows the passes of the compiler over functions of this package."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, float]] = []  # each called by the one before it

    def on_start(self, event: Any) -> None:
        """Note when a function's first pass begins."""
        if name := _function(event, FIRST_PASS):
            logger.debug("compiling %s", name)
            self.begun.append((name, time.perf_counter()))

    def on_end(self, event: Any) -> None:
        """Log a function when its last pass is done."""
        name = _function(event, LAST_PASS)
        if any(name == begun for begun, _ in self.begun):
            found, begin = self.begun.pop()
            while found != name:  # one that failed had no last pass
                found, begin = self.begun.pop()
            level = logging.DEBUG if self.begun else logging.INFO
            logger.log(level, "compiled %s in %.1f s", name, time.perf_counter() - begin)


def _function(event: Any, compiler_pass: str) -> str | None:
    """The function of this package that an event of a pass is about; None for other passes and other packages."""
    module, name = event.data["module"], event.data["qualname"]
    of_pass = event.data["name"].startswith(compiler_pass)
    return f"{module.rpartition('.')[2]}.{name}" if of_pass and module.startswith("hcnn_core.") else None


def install() -> None:
    """Log from now on."""
    event.register("numba:run_pass", _Listener())
