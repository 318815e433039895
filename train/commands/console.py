"""The commands hcnn-train, hcnn-verify and hcnn-explore: as `python -m train.cifar`, `train.verify`, `train.explore`.

A file train.py in the working directory hides the package from `python -m`, and not from these commands.
"""

from __future__ import annotations

import functools
import importlib

from train.commands.process import leave_on_interrupt, raise_on_interrupt


def _run(module: str) -> int:
    """Import a command's module and run it, as its `if __name__ == "__main__":` does."""
    leave_on_interrupt(module)
    main = importlib.import_module(module).main
    raise_on_interrupt()
    return int(main())


train = functools.partial(_run, "train.cifar")
verify = functools.partial(_run, "train.verify")
explore = functools.partial(_run, "train.explore")
