"""Compile kernels, and keep compiled code on disk.

Numba keeps compiled code until the file of the function changes, and does not look at the functions it calls. Kernels
call kernels of other files. So Numba is given a digest of all files in this folder to compare as well.
"""

# mypy: disable-error-code="attr-defined,call-arg,method-assign,misc,no-any-return,no-untyped-call,untyped-decorator"

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import FunctionCache
from numba.core.ccallback import CFunc
from numba.core.runtime import rtsys
from numba.core.sigutils import normalize_signature

SOURCES = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))).hexdigest()
"""Digest of the source of all kernels. Code that was compiled from other sources is not used."""


class _Cache(FunctionCache):
    """Numba's cache on disk, for one function."""

    def __init__(self, function: Any) -> None:
        """Raises RuntimeError if no folder can be written."""
        super().__init__(function)
        files = self._cache_file
        files.save = partial(_save, files)
        files._source_stamp = (files._source_stamp, SOURCES)

    def load_overload(self, signature: Any, context: Any) -> Any:
        """Load compiled code. Numba first loads its rules for compiling, which takes 0.3 s in every process."""
        rtsys.initialize(context)  # the functions of Numba that compiled code calls
        with self._guard_against_spurious_io_errors():
            return self._load_overload(signature, context)


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


def compiled(**options: Any) -> Callable[[Any], Any]:
    """As `numba.njit`, with the cache on disk and without the interpreter lock.

    References to arrays are not counted: arrays outlive the call, and an atomic count would wait for all stores before
    it. Where nothing can be written, each process compiles again.
    """

    def decorate(function: Any) -> Any:
        dispatcher = numba.njit(**{"nogil": True, "_nrt": False, **options})(function)
        with suppress(RuntimeError):
            dispatcher._cache = _Cache(function)
        return dispatcher

    return decorate


def callback(signature: Any) -> Callable[[Any], Any]:
    """As `numba.cfunc`, with the cache on disk."""

    def decorate(function: Any) -> Any:
        found = CFunc(function, normalize_signature(signature), locals={}, options={})
        with suppress(RuntimeError):
            found._cache = _Cache(function)
        found.compile()
        return found

    return decorate
