"""Every call that the code makes of its array namespace exists in CuPy, with the arguments it is given."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.gpu.requirements import required

ROOT = Path(__file__).parents[2]
NAMESPACES = {"xp": "cupy", "fft": "cupy.fft", "cupy": "cupy"}
"""Names that the code gives to an array library, and what CuPy has in their place."""

UFUNC_KEYWORDS = {"out", "dtype", "where", "casting"}

cupy = required("cupy")


def calls() -> Iterator[tuple[str, ast.Call, str]]:
    """(where, call, dotted name in CuPy) of every call of a function of an array namespace."""
    for path in sorted(
        p for package in ("hcnn_core", "autodiff", "wavelets", "train") for p in (ROOT / package).rglob("*.py")
    ):
        if path.parent.name == "_rules":  # rules by NumPy's functions, which dispatch to CuPy's of the same name
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            name, at = ast.unparse(node.func), f"{path.relative_to(ROOT)}:{node.lineno}"
            first, _, rest = name.partition(".")
            if first in NAMESPACES and "(" not in name:
                yield at, node, f"{NAMESPACES[first]}.{rest}"


OTHER_METHODS = {"to_device", "__array_namespace__"}
"""Of other objects: the trainer's, and what is asked for only of arrays that have it."""


def methods() -> Iterator[tuple[str, str]]:
    """(where, name) of every method call that NumPy's arrays would answer, where CuPy's may come."""
    packages = [
        p for package in ("hcnn_core", "autodiff", "wavelets", "train") for p in sorted((ROOT / package).rglob("*.py"))
    ]
    for path in packages:
        if {"cpu", "testing", "data"} & set(path.parts):  # NumPy's alone
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in dir(np.ndarray)
            ):
                yield f"{path.relative_to(ROOT)}:{node.lineno}", node.func.attr


def resolve(name: str) -> Any:
    value: Any = cupy
    for part in name.split(".")[1:]:
        value = getattr(value, part)
    return value


def complaint(call: ast.Call, name: str) -> str | None:
    """What is wrong with a call, or None."""
    try:
        function = resolve(name)
    except AttributeError:
        return f"there is no {name}"
    keywords = {k.arg for k in call.keywords if k.arg}
    if isinstance(function, cupy.ufunc):
        return f"{name} is a ufunc: no {keywords - UFUNC_KEYWORDS}" if keywords - UFUNC_KEYWORDS else None
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return None
    spread = any(isinstance(a, ast.Starred) for a in call.args) or len(keywords) < len(call.keywords)
    bind = signature.bind_partial if spread else signature.bind
    try:
        bind(*(a for a in call.args if not isinstance(a, ast.Starred)), **dict.fromkeys(keywords))
    except TypeError as error:
        return f"{name}: {error}"
    return None


def test_every_method_exists_in_cupy() -> None:
    found = list(methods())
    assert len(found) > 50 and {name for _, name in found} >= {"astype", "reshape", "transpose"}
    complaints = [
        f"{at} .{name}" for at, name in found if not hasattr(cupy.ndarray, name) and name not in OTHER_METHODS
    ]
    assert not complaints, "\n".join(complaints)
    assert not hasattr(cupy.ndarray, "setflags")  # so that something could be found


def test_every_call_exists_in_cupy() -> None:
    found = list(calls())
    assert len(found) > 150
    complaints = [f"{at} {text}" for at, call, name in found if (text := complaint(call, name))]
    assert not complaints, "\n".join(complaints)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("xp.permute_dimensions(x)", "there is no"),
        ("xp.zeros((3,), dtype=d, colour=2)", "colour"),
        ("xp.exp(x, precision=3)", "no {'precision'}"),
        ("xp.sum()", "missing"),
        ("xp.sum(x, axis=0, dtype=d)", None),
        ("fft.rfft(x, n=3, axis=0)", None),
    ],
)
def test_complaints(text: str, expected: str | None) -> None:
    call = ast.parse(text).body[0].value  # type: ignore[attr-defined]
    first, _, rest = ast.unparse(call.func).partition(".")
    found = complaint(call, f"{NAMESPACES[first]}.{rest}")
    assert found is None if expected is None else found is not None and expected in found
