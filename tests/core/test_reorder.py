"""Copies in another order of axes against NumPy's, bit for bit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("numba")

from hcnn_core._engines.cpu import transpose as reorder
from hcnn_core._tuning import tuned

SHAPES = st.lists(st.sampled_from([1, 2, 3, 4, 5, 7, 8, 16, 17, 33]), min_size=1, max_size=5).filter(
    lambda shape: np.prod(shape) < 100_000
)


@given(
    shape=SHAPES, dtype=st.sampled_from(["float32", "float64"]), columns=st.sampled_from([1, 10, 64]), data=st.data()
)
def test_it_is_numpys_contiguous_copy(shape: list[int], dtype: str, columns: int, data: st.DataObject) -> None:
    x = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    cut = tuple(slice(None, None, data.draw(st.sampled_from([1, 1, 1, 2, -1]))) for _ in shape)
    x = x[cut].transpose(data.draw(st.permutations(range(len(shape)))))
    with tuned(transpose_elements=1, transpose_columns=columns):
        copy = reorder.contiguous(x)
    assert copy.flags.c_contiguous
    np.testing.assert_array_equal(copy, x, strict=True)


@pytest.mark.parametrize("columns", [1, 64])
@pytest.mark.parametrize("rows", [3, 4, 8, 17, 40])
def test_rows_and_columns_of_any_number(rows: int, columns: int) -> None:
    """Fewer than a square has, as many, and some more, in one piece and in many."""
    for shape in ((columns, rows), (300, columns, rows), (2, 3, columns, 5, rows)):
        x = np.random.default_rng(1).standard_normal(shape, np.float32).transpose()
        with tuned(transpose_elements=1):
            assert (reorder._places(x.shape, x.strides, 4, 64) is None) == (rows < 4 or max(shape[:-1]) == 1)
            np.testing.assert_array_equal(reorder.contiguous(x), np.ascontiguousarray(x), strict=True)


def test_what_is_in_order_is_not_copied() -> None:
    x = np.ones((100, 100), np.float32)
    assert reorder.contiguous(x) is x


def test_parts_of_an_array_and_repeated_ones_are_numpys() -> None:
    x = np.arange(10_000.0).reshape(100, 100)
    for part in (x[:, ::2].T, x[::-1].T, x[:50, :50].T, np.broadcast_to(x, (3, 100, 100)).transpose(2, 0, 1)):
        assert reorder._places(part.shape, part.strides, 8, 64) is None
        np.testing.assert_array_equal(reorder.contiguous(part), part, strict=True)


NARROW = """
import numpy as np
from hcnn_core._engines.cpu import transpose
from hcnn_core._engines.cpu.kernels.vectors import VECTOR_BYTES
from hcnn_core._tuning import tuned
assert VECTOR_BYTES == 16
for dtype in ("float32", "float64"):
    for rows in (3, 4, 21):
        x = np.arange(20.0 * 30 * rows).reshape(20, 30, rows).astype(dtype).transpose(2, 1, 0)
        with tuned(transpose_elements=1):
            assert np.array_equal(transpose.contiguous(x), x)
"""


def test_a_processor_with_narrow_vectors(tmp_path: Path) -> None:
    """A part of its vectors may hold less than a number."""
    command = [sys.executable, "-c", NARROW]
    own = {"NUMBA_CACHE_DIR": str(tmp_path), "NUMBA_CPU_FEATURES": "-avx"}
    result = subprocess.run(command, env={**os.environ, **own}, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
