"""Compile kernels, and keep compiled code on disk.

Numba keeps compiled code until the file of the function changes, and does not look at the functions it calls. Kernels
call kernels of other files. So Numba is given a digest of all files in this folder to compare as well.
"""

# mypy: disable-error-code="attr-defined,call-arg,method-assign,misc,no-any-return,no-untyped-call,untyped-decorator"

from __future__ import annotations

import hashlib
import os
import pickle
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numba
from numba.core.caching import (
    CompileResultCacheImpl,
    FunctionCache,
    IndexDataCacheFile,
    InTreeCacheLocator,
    UserProvidedCacheLocator,
)
from numba.core.ccallback import CFunc
from numba.core.runtime import rtsys
from numba.core.sigutils import normalize_signature

SOURCES = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))).hexdigest()
"""Digest of the source of all kernels. Code that was compiled from other sources is not used."""


class _ReadOnlyLocator(InTreeCacheLocator):
    """The folder where none can be written to: nothing is kept, and code that others compiled is read."""

    def ensure_cache_path(self) -> None:
        """Do nothing."""


class _Impl(CompileResultCacheImpl):
    _locator_classes: ClassVar = [*CompileResultCacheImpl._locator_classes, _ReadOnlyLocator]


class _Cache(FunctionCache):
    """Numba's cache on disk, for one function. Where it cannot be read or written, a line says so.

    Code is kept in the first of Numba's folders that can be written to. It is also read from NUMBA_CACHE_DIR, or else
    from the folder beside the sources, where an administrator may have compiled all kernels.
    """

    _impl_class = _Impl

    def __init__(self, function: Any) -> None:
        """Raise RuntimeError if others may write to the folder, whose files are executed."""
        super().__init__(function)
        files, file = self._cache_file, function.__code__.co_filename
        of = UserProvidedCacheLocator if numba.config.CACHE_DIR else InTreeCacheLocator
        folders = list(dict.fromkeys([files._cache_path, of(function, file).get_cache_path()]))
        reasons = [_unsafe(folder, str(Path(file).parent)) for folder in folders]
        if reasons[0]:
            _say(f"{folders[0]} is not used for compiled code: {reasons[0]}")
            raise RuntimeError(reasons[0])
        self._cache_file = _Files(files._cache_path, self._impl.filename_base, (files._source_stamp, SOURCES))
        self._cache_file.folders = [folder for folder, reason in zip(folders, reasons, strict=True) if not reason]

    def load_overload(self, signature: Any, context: Any) -> Any:
        """Load compiled code. Numba first loads its rules for compiling, which takes 0.3 s in every process."""
        rtsys.initialize(context)  # the functions of Numba that compiled code calls
        try:
            return self._load_overload(signature, context)
        except (OSError, ValueError) as error:
            _say(f"cannot read compiled code, so it is compiled again: {error}")
            return None

    def save_overload(self, signature: Any, compiled: Any) -> None:
        """Keep compiled code, where that can be done."""
        if isinstance(self._impl.locator, _ReadOnlyLocator):
            return
        try:
            self._save_overload(signature, compiled)
        except OSError as error:
            _say(f"cannot keep compiled code, so each process compiles it: {error}")


class _Files(IndexDataCacheFile):
    """Compiled code of one function: a file for each signature, named by it, with digests before the code.

    Numba numbers the files and lists them in an index. Two processes that compile different signatures of a function
    at once would both write number 1, and a third process would run one's code on the other's arrays. Numba also
    moves files into place without flushing them: after a power cut they may be empty or cut.
    """

    def __init__(self, folder: str, base: str, stamp: Any) -> None:
        super().__init__(folder, base, stamp)
        self.folders = [folder]  # all are read, the first is written

    def load(self, key: Any) -> Any:
        """Return what was saved in any of the folders, or None; ValueError if it is damaged."""
        for folder in self.folders:
            path = os.path.join(folder, os.path.basename(self._path(key)))
            try:
                content = Path(path).read_bytes()
            except (FileNotFoundError, NotADirectoryError, PermissionError):
                continue
            of, digest, code = content[:32], content[32:64], content[64:]
            if hashlib.sha256(of + code).digest() != digest:
                raise ValueError(f"{path} is damaged")
            if of == self._of(key):
                return pickle.loads(code)
        return None

    def save(self, key: Any, data: Any) -> None:
        """Write compiled code, in place of a file that is damaged or from another source."""
        code = self._dump(data)
        with self._open_for_write(self._path(key)) as file:
            file.write(self._of(key) + hashlib.sha256(self._of(key) + code).digest() + code)

    def _of(self, key: Any) -> bytes:
        """Return a digest of what the code was made from."""
        return hashlib.sha256(repr((self._version, self._source_stamp, key)).encode()).digest()

    def _path(self, key: Any) -> str:
        digest = hashlib.sha256(repr(key).encode()).digest()
        return str(self._data_path(self._data_name(int.from_bytes(digest[:8], "big"))))


@lru_cache
def _unsafe(folder: str, sources: str) -> str:
    """Why others may write to the folder, but not to the sources; "" if they may not."""
    if os.name != "posix" or not os.path.exists(folder):
        return ""
    status, source = os.stat(folder), os.stat(sources)
    if status.st_uid not in (os.getuid(), 0, source.st_uid):
        return f"it belongs to another user, number {status.st_uid}"
    if status.st_mode & 0o002 and not source.st_mode & 0o002:
        return "every user may write there (chmod go-w mends that)"
    shared = source.st_mode & 0o020 and source.st_gid == status.st_gid
    if status.st_mode & 0o020 and status.st_gid != os.getgid() and not shared:
        return f"the group number {status.st_gid} may write there (chmod g-w mends that)"
    return ""


_said: list[str] = []


def _say(text: str) -> None:
    """Write a line to standard error, once per process."""
    if not _said:
        _said.append(text)
        with suppress(OSError, ValueError, AttributeError):  # standard error is gone
            print(f"hcnn: {text}", file=sys.stderr, flush=True)


def compiled(**options: Any) -> Callable[[Any], Any]:
    """As `numba.njit`, with the cache on disk and without the interpreter lock.

    References to arrays are not counted: arrays outlive the call, and an atomic count would wait for all stores before
    it. Where nothing can be written, or others may write too, each process compiles again.
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
        pointer = CFunc(function, normalize_signature(signature), locals={}, options={})
        with suppress(RuntimeError):
            pointer._cache = _Cache(function)
        pointer.compile()
        return pointer

    return decorate
