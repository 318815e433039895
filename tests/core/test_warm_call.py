"""How many Python functions a warm call of `convolve` goes through: what is left of a short call is Python."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import array_api_strict
import numpy as np
import pytest

pytest.importorskip("numba")

from hcnn_core import convolve, convolve_elu
from hcnn_core._tuning import tuned

LEFT_OUT = "_tuning.py", "allocator.py", "_threads.py", "_problem.py", "backend", "kernels"
"""Files that many calls enter for a moment, and compiled functions, which profilers see on Python 3.11."""


def profiled(call: Callable[[], object], note: Callable[[FrameType, str, Any], None]) -> None:
    """Call a function, and note what it enters."""
    before = sys.getprofile()
    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(before)


def way(call: Callable[[], Any]) -> tuple[int, int, int]:
    """Calls of this package's functions, the files they are in, and how often a file is entered again."""
    call()
    entered: list[str] = []

    def note(frame: FrameType, event: str, argument: Any) -> None:
        path = frame.f_code.co_filename
        if event == "call" and "hcnn_core" in path and not any(name in path for name in LEFT_OUT):
            entered.append(path)

    profiled(call, note)
    changes = [path for path, last in zip(entered, [None, *entered], strict=False) if path != last]
    return len(entered), len(set(changes)), len(changes) - len(set(changes))


def test_a_short_signal_takes_a_short_way() -> None:
    x, w = np.ones(64, np.float32), np.ones(5, np.float32)
    call = lambda: convolve(x, w, 0, boundary="zero")  # noqa: E731
    calls, files, again = way(call)
    assert calls <= 20 and files <= 5 and again == 0

    def with_another_tuning() -> None:
        with tuned():
            call()

    assert way(with_another_tuning)[0] > 2 * calls  # the control: a plan is made first


@pytest.mark.parametrize("xp", [np, array_api_strict], ids=lambda xp: xp.__name__)
def test_a_signal_goes_through_nine_functions_at_most_to_its_plan(xp: Any) -> None:
    """On another library's way too, which is that of CuPy's arrays."""
    x, w = xp.ones((2, 64)), xp.ones((3, 5))
    ways: list[list[str]] = []

    def note(frame: FrameType, event: str, argument: Any) -> None:
        code = frame.f_code
        operands = [frame.f_locals.get(name) for name in code.co_varnames[: code.co_argcount]]
        if (
            event == "call"
            and "hcnn_core" in code.co_filename
            and any(getattr(a, "shape", 0) == x.shape for a in operands)
        ):
            ways[-1].append(code.co_qualname)

    for call in (lambda: convolve(x, w, 1, boundary="zero"), lambda: convolve_elu(x, w, w[0, :], 1, boundary="zero")):
        call()
        ways.append([])
        profiled(call, note)
    for way in ways:
        door = next(i for i, name in enumerate(way) if name.endswith("Plan.forward"))
        assert door <= 9, " ".join(way)


@pytest.mark.parametrize("boundary", ["periodic", "zero"])
def test_a_layer_takes_a_longer_one(boundary: Any) -> None:
    """A batch of 50 is cut into more blocks, each of which enters three files again.

    Spectra of filters are brought into order by the compiled transposition, in two files more.
    """
    x, w = np.ones((4, 32, 32, 8, 16), np.float32), np.ones((3, 3, 7, 11, 16), np.float32)
    _, files, again = way(lambda: convolve(x, w, (1, 2, 3, 4), boundary=boundary, stride=(1, 1, 2, 2)))
    assert files <= 12 and again <= 14
