"""How kernels are compiled, and how what was compiled is kept on disk.

Numba keeps compiled code until the file of the function itself changes, whatever that function calls. Kernels call
kernels of other files, so the digest of all files in this folder is part of what Numba compares.
"""

# mypy: disable-error-code="attr-defined,call-arg,misc,no-any-return,no-untyped-call,untyped-decorator"

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numba

SOURCES = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))).hexdigest()
"""Digest of every kernel's source: code compiled from any other sources is not used."""


def _save(files: Any, key: Any, compiled: Any) -> None:
    """Keep what was compiled in a file named by its signature.

    Numba numbers files as they come: of two processes that first compile different signatures of a function at once,
    each would write its own to the number 1, and a third process run one's code on the other's arrays. It also lists a
    file before it is written, by a name that may be that of an older source's.
    """
    index = files._load_index()
    digest = hashlib.sha256(repr(key).encode()).digest()
    index[key] = files._data_name_pattern.format(number=int.from_bytes(digest[:8], "big"))
    files._save_data(index[key], compiled)
    files._save_index(index)


def on_disk(compiler: Any, *arguments: Any, **options: Any) -> Callable[[Any], Any]:
    """One of Numba's compilers, which keeps what it compiled; where nothing can be written, each process compiles."""

    def decorate(function: Any) -> Any:
        try:
            return compiler(*arguments, **options, cache=True)(function)
        except RuntimeError:  # no folder for it
            return compiler(*arguments, **options)(function)

    return decorate


def compiled(**options: Any) -> Callable[[Any], Any]:
    """As `numba.njit`, for code kept on disk, without the interpreter lock.

    No references are counted: arrays outlive the call, and an atomic count waits for all stores before it.
    """

    def decorate(function: Any) -> Any:
        function = on_disk(numba.njit, **{"nogil": True, "_nrt": False, **options})(function)
        files = getattr(getattr(function, "_cache", None), "_cache_file", None)
        if files is not None:
            files.save = partial(_save, files)
            files._source_stamp = (files._source_stamp, SOURCES)
        return function

    return decorate
