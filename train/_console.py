"""The commands hcnn-train, hcnn-verify and hcnn-explore: as `python -m train.cifar`, `train.verify`, `train.explore`.

A file train.py in the working directory hides the package from `python -m`, and not from these commands.
"""

from __future__ import annotations

import functools
import importlib
import signal

from train._process import leave_on_interrupt


def _run(module: str) -> int:
    """Import a command's module and run it, as its `if __name__ == "__main__":` does."""
    leave_on_interrupt(module)
    main = importlib.import_module(module).main
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return int(main())


train = functools.partial(_run, "train.cifar")
verify = functools.partial(_run, "train.verify")
explore = functools.partial(_run, "train.explore")
