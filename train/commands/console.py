"""Runs a command's module for `hcnn`.

A file train.py in the working directory hides the package from `python -m train.cifar`, and not from `hcnn`.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
from pathlib import Path

from train.commands.process import leave_on_interrupt, prepare, raise_on_interrupt


def run(module: str) -> int:
    """Import a command's module and run it."""
    leave_on_interrupt(Path(sys.argv[0]).stem.removeprefix("python -m "))
    prepare()
    main = importlib.import_module(module).main
    raise_on_interrupt()
    return int(main())


def end_with_parent() -> None:
    """Send this process SIGTERM when its standard input, a parent's pipe, ends: a sweep's trial saves and stops."""

    def wait() -> None:
        while os.read(0, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="hcnn_parent", daemon=True).start()
