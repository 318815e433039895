"""Callers in several threads at once, on any Python: one without the interpreter lock shows races that others hide.

It needs NumPy, SciPy and pytest alone, since Numba has no wheels for every such Python.
"""

from __future__ import annotations

import sys
import threading
from typing import Any

import numpy as np

import autodiff
from hcnn_core import convolve

KINDS = [(b, m, r) for b in ("periodic", "zero", "mirror") for m in ("auto", "direct", "fft") for r in (1, 2)][::2]


def test_callers_at_once_get_the_bits_of_one() -> None:
    """Plans and tables are made once or more often, whoever asks first, and nothing takes the lock again."""
    locked = getattr(sys, "_is_gil_enabled", lambda: True)()
    rng, found = np.random.default_rng(0), list[tuple[int, bytes]]()
    shapes = [(18 + 4 * n, 3 + n) for n in range(len(KINDS))]
    problems = [
        (rng.standard_normal((3, a)), rng.standard_normal(b), *k) for (a, b), k in zip(shapes, KINDS, strict=True)
    ]
    begin = threading.Barrier(4)

    def bits(x: Any, w: Any, boundary: Any, method: Any, stride: int) -> bytes:
        given: Any = {"boundary": boundary, "method": method, "stride": stride}
        gradient = autodiff.grad(lambda x: autodiff.elu(autodiff.convolve(x, w, (1,), **given)).sum())(x)
        return bytes(np.concatenate([convolve(x, w, (1,), **given).ravel(), gradient.ravel()]).tobytes())

    def call(caller: int) -> None:
        begin.wait(60)
        found.extend((n, bits(*problems[n])) for n in np.random.default_rng(caller).permutation(len(problems)))

    callers = [threading.Thread(target=call, args=(number // 2,)) for number in range(4)]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join(300)
    assert len(found) == 4 * len(problems) and all(given == bits(*problems[n]) for n, given in found)
    assert getattr(sys, "_is_gil_enabled", lambda: True)() == locked
