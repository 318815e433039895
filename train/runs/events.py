"""Metrics as TensorBoard events, where a writer of them is installed: the extra `tensorboard`."""

from __future__ import annotations

import platform
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from train.storage.files import write_atomically


def write_events(folder: Path, record: Mapping[str, Any]) -> None:
    """Write the numbers of a record of metrics.jsonl as scalars of its epoch, to a file of their own.

    An epoch that is trained again after a crash writes the same numbers again, which TensorBoard draws as one. OSError
    if the disk does not take them. The library's SummaryWriter writes from a thread and waits for it, also when a full
    disk has ended it.
    """
    try:
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.record_writer import masked_crc32c
        from tensorboardX.summary import scalar
    except ImportError:
        return
    epoch, now = record["epoch"], time.time()
    events = [Event(wall_time=now, file_version="brain.Event:2")] + [
        Event(wall_time=now, step=epoch, summary=scalar(name, value))
        for name, value in record.items()
        if name != "epoch" and isinstance(value, int | float)
    ]
    content = b""
    for data in (event.SerializeToString() for event in events):
        length = struct.pack("<Q", len(data))
        content += length + struct.pack("<I", masked_crc32c(length)) + data + struct.pack("<I", masked_crc32c(data))
    suffix = f".{epoch:04d}" + ("-test" if "test_loss" in record else "")  # names differ, however short an epoch is
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / f"events.out.tfevents.{int(now)}.{platform.node()}{suffix}", content)
