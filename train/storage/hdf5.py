"""Arrays in HDF5 files, each with a checksum that shows damage."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np

LIBVER = "v110"
"""The first format of HDF5 whose object headers have checksums."""

DENSEST = 1024
"""HDF5's filters shrink no array by more than this factor: one that claims more is damaged."""


OF_CONTENT = (None, 0, errno.EINVAL, errno.EOVERFLOW)
"""Numbers of errors that a file's content can cause; any other is the system's."""


def open_hdf5(path: Path) -> Any:
    """Open a file for reading, without HDF5's lock, which some network file systems refuse."""
    import h5py

    return h5py.File(path, "r", locking=False)


def unreadable(error: Exception) -> str:
    """Return why the system could not read a file; "" where its content may be the cause."""
    if not isinstance(error, OSError):
        return ""
    if "already open for write" in str(error):
        return "another program has it open for writing, or ended while it had (h5clear -s FILE then clears the mark)"
    return "" if error.errno in OF_CONTENT else os.strerror(error.errno)


def write_array(group: Any, name: str, array: Any) -> None:
    """Write an array with a checksum: of its chunks, or, for a single number, of the object header that holds it."""
    import h5py

    host = np.asarray(array)
    if host.size != 1:
        group.create_dataset(name, data=host, fletcher32=host.size > 0)
        return
    layout, links = h5py.h5p.create(h5py.h5p.DATASET_CREATE), h5py.h5p.create(h5py.h5p.LINK_CREATE)
    layout.set_layout(h5py.h5d.COMPACT)
    links.set_create_intermediate_group(True)
    kind, space = h5py.h5t.py_create(host.dtype, logical=True), h5py.h5s.create_simple(host.shape)
    if not host.ndim:
        space = h5py.h5s.create(h5py.h5s.SCALAR)
    data = h5py.h5d.create(group.id, None, kind, space, layout)
    h5py.h5o.link(data, group.id, name.encode(), lcpl=links)
    h5py.Dataset(data).write_direct(np.ascontiguousarray(host))


def read_array(data: Any) -> Any:
    """Read an array; ValueError if it holds no numbers, or more than its file can."""
    if data.dtype.kind not in "iufc":
        raise ValueError(f"{data.name} holds no numbers")
    if data.nbytes > DENSEST * data.file.id.get_filesize():
        raise ValueError(f"{data.name} is larger than its file")
    return data[()] if data.shape == () else data[...]
