"""Metrics as TensorBoard events, where a writer of them is installed: the extra `tensorboard`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_events(folder: Path, record: Mapping[str, Any]) -> None:
    """Write the numbers of a record of metrics.jsonl as scalars of its epoch, to a file of their own.

    An epoch that is trained again after a crash writes the same numbers again, which TensorBoard draws as one.
    """
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        return
    epoch = record["epoch"]
    suffix = f".{epoch:04d}" + ("-test" if "test_loss" in record else "")  # names differ, however short an epoch is
    with SummaryWriter(str(folder), filename_suffix=suffix) as writer:
        for name, value in record.items():
            if name != "epoch" and value is not None:
                writer.add_scalar(name, value, epoch)
