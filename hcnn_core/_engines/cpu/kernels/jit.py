"""Compile kernels, and keep compiled code on disk.

Numba keeps compiled code until the file of the function changes, and does not look at the functions it calls. Kernels
call kernels of other files. So Numba is given a digest of all files in this folder to compare as well.
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
"""Digest of the source of all kernels. Code that was compiled from other sources is not used."""


def _save(files: Any, key: Any, compiled: Any) -> None:
    """Write compiled code to a file that is named by its signature.

    Numba numbers the files. Two processes that compile different signatures of a function at once would both write
    number 1, and a third process would run one's code on the other's arrays. Numba also lists a file in the index
    before it is written, when it may still hold code of an older source.
    """
    index = files._load_index()
    digest = hashlib.sha256(repr(key).encode()).digest()
    index[key] = files._data_name_pattern.format(number=int.from_bytes(digest[:8], "big"))
    files._save_data(index[key], compiled)
    files._save_index(index)


def on_disk(compiler: Any, *arguments: Any, **options: Any) -> Callable[[Any], Any]:
    """One of Numba's compilers, with its cache on disk; where nothing can be written, each process compiles again."""

    def decorate(function: Any) -> Any:
        try:
            return compiler(*arguments, **options, cache=True)(function)
        except RuntimeError:  # no folder can be written
            return compiler(*arguments, **options)(function)

    return decorate


def compiled(**options: Any) -> Callable[[Any], Any]:
    """As `numba.njit`, with the cache on disk and without the interpreter lock.

    References to arrays are not counted: arrays outlive the call, and an atomic count would wait for all stores before
    it.
    """

    def decorate(function: Any) -> Any:
        function = on_disk(numba.njit, **{"nogil": True, "_nrt": False, **options})(function)
        files = getattr(getattr(function, "_cache", None), "_cache_file", None)
        if files is not None:
            files.save = partial(_save, files)
            files._source_stamp = (files._source_stamp, SOURCES)
        return function

    return decorate
