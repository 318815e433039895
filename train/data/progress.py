"""A bar on standard error; silent when nobody watches."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import SimpleNamespace
from typing import Any

SILENT = SimpleNamespace(
    update=lambda count=1: None, set_description=lambda text: None, set_postfix_str=lambda text, refresh: None
)

_hidden = ContextVar("hidden", default=False)


@contextmanager
def no_bars() -> Iterator[None]:
    """Show no bars."""
    token = _hidden.set(True)
    try:
        yield
    finally:
        _hidden.reset(token)


@contextmanager
def progress_bar(total: int, title: str = "", **options: Any) -> Iterator[Any]:
    """Show a bar of images, with options of tqdm's; its `update` takes how many more are done."""
    if _hidden.get() or sys.stderr is None or not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield SILENT
        return
    try:
        from tqdm import tqdm
    except ImportError:
        yield SILENT
        return
    with tqdm(total=total, desc=title, **{"unit": "img", "dynamic_ncols": True, "leave": False} | options) as bar:
        yield bar
