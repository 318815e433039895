"""The command train.cifar as a child of a sweep's trial, standard input a pipe of its parent's.

When the parent dies, however it does, the system closes the pipe. The child then stops as on SIGTERM: it saves.
"""

from __future__ import annotations

import os
import signal
import threading

from train.commands.process import raise_on_interrupt


def end_with_parent() -> None:
    """Send this process SIGTERM when its standard input ends."""

    def wait() -> None:
        while os.read(0, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="hcnn_parent", daemon=True).start()


def main() -> int:
    """Train as train.cifar does."""
    end_with_parent()
    from train import cifar

    raise_on_interrupt()
    return cifar.main()
