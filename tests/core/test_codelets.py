"""Straight lines of sums against NumPy's FFT, compiled ones against their lines."""

from __future__ import annotations

from itertools import product
from typing import Any
from unittest import mock

import numpy as np
import pytest

from hcnn_core._engines.cpu import codelets as _codelets
from hcnn_core._engines.cpu.codelets import ELU, ELU_VJP, PLAIN, codelet
from hcnn_core._engines.cpu.kernels import dft, jit
from hcnn_core._engines.cpu.kernels.vectors import VECTOR_BYTES
from hcnn_core._engines.cpu.straight_line import LEAN, PAIRED, TRIPLED, StraightLine, dft_line
from tests.core.oracle import C, NDArray, eps, noise, norm

numba = pytest.importorskip("numba")

LENGTHS = [*range(1, 17), 22, 24, 27, 31, 64]
KINDS = [(is_complex, form) for is_complex in (False, True) for form in (LEAN, TRIPLED, PAIRED)]


def expected(x: NDArray, length: int, is_complex: bool, form: int) -> NDArray:
    count = len(x) // (1 + is_complex)
    spectrum = np.fft.fft(x[:count] + 1j * x[count:] if is_complex else x, length, axis=0)
    rows: list[NDArray] = []
    for f in range(length if is_complex else length // 2 + 1):
        re, im = spectrum[f].real, spectrum[f].imag
        own = not is_complex and 2 * f % length == 0
        rows += [re] if own and form != PAIRED else [re + im, re, im] if form == TRIPLED else [re, im]
    return np.stack(rows)


def compiled(
    dtype: str, x: NDArray, outputs: int, *key: Any, backward: bool, others: NDArray | None = None, **options: Any
) -> tuple[NDArray, NDArray]:
    """A codelet on rows that lie apart, in reverse order, with others of as many columns; and what it adds to ones."""
    rows = np.full((len(x) + outputs, 2 * x.shape[1]), np.nan, dtype)
    rows[: len(x), : x.shape[1]] = x[::-1]
    table = np.arange(len(rows)) * rows.strides[0]
    sources, targets = table[: len(x)][::-1].copy(), table[len(x) :].copy()
    others = np.empty((0, 1), dtype) if others is None else others[::-1].copy()
    other_rows = np.arange(len(others))[::-1] * others.strides[0]
    sums = np.ones((len(x), 3))
    sum_rows = np.arange(len(x)) * sums.strides[0]
    address = codelet(dtype, *key, backward, **options)
    call(address, rows, sources, targets, x.shape[1] * rows.itemsize, others, other_rows, sums, sum_rows)
    assert np.isnan(rows[:, x.shape[1] :]).all() and (sums[:, 1:] == 1).all()
    return rows[len(x) :, : x.shape[1]], sums[:, 0] - 1


@numba.njit
def call(
    address: int,
    rows: NDArray,
    sources: NDArray,
    targets: NDArray,
    size: int,
    others: NDArray,
    other_rows: NDArray,
    sums: NDArray,
    sum_rows: NDArray,
) -> None:
    at, other, to = rows.ctypes.data, others.ctypes.data, sums.ctypes.data
    of_others, of_sums = other_rows.ctypes.data, sum_rows.ctypes.data
    dft._call(address, at, sources.ctypes.data, at, targets.ctypes.data, size, other, of_others, to, of_sums)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize(("is_complex", "form"), KINDS)
def test_lines_are_dfts(length: int, is_complex: bool, form: int) -> None:
    for count in {length, 1, (length + 1) // 2, max(1, length - 2)}:
        line = dft_line(length, count, is_complex, form)
        x = noise(length, (count * (1 + is_complex), 5), "float64")
        y = line(x)
        assert y.shape[0] == len(line.outputs)
        assert np.abs(y - expected(x, length, is_complex, form)).max() <= C * eps("float64") * norm(x)
        c = noise(1, y.shape, "float64")
        back = line.transposed()(c)
        assert back.shape == x.shape
        assert abs((y * c).sum() - (x * back).sum()) <= C * eps("float64") * norm(x) * norm(c) * length**0.5


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("length", [1, 4, 5, 8, 12])
@pytest.mark.parametrize(("is_complex", "form"), KINDS)
def test_what_is_compiled_is_the_line(length: int, is_complex: bool, form: int, dtype: str) -> None:
    key = (length, max(1, length - 1), is_complex, form)
    line = dft_line(*key)
    lanes = VECTOR_BYTES // np.dtype(dtype).itemsize
    for backward in (False, True):
        mapped: StraightLine = line.transposed() if backward else line
        for n in (lanes, lanes + 1, 3 * lanes, 3 * lanes - 1):
            x = noise(n, (mapped.inputs, n), dtype)
            y, sums = compiled(dtype, x, len(mapped.outputs), *key, backward=backward)
            assert not sums.any()
            assert np.abs(y - mapped(x.astype(float))).max() <= C * eps(dtype) * norm(x) * length**0.5
        x = noise(0, (mapped.inputs, lanes - 1), dtype)
        y, _ = compiled(dtype, x, len(mapped.outputs), *key, backward=backward, one_by_one=True)
        assert np.abs(y - mapped(x.astype(float))).max(initial=0) <= C * eps(dtype) * norm(x) * length**0.5


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "key", [(1, 1, False, LEAN), (4, 3, True, TRIPLED), (5, 5, False, PAIRED), (12, 9, False, LEAN)]
)
def test_elus_on_the_way(key: tuple[int, int, bool, int], dtype: str) -> None:
    """Of the outputs, each plus a bias; or of the inputs before, taken back and summed, each element once.

    Two operations after each other: twice the bound of one.
    """
    line = dft_line(*key)
    lanes = VECTOR_BYTES // np.dtype(dtype).itemsize
    for backward, (n, one_by_one) in product(
        (False, True), ((lanes, False), (3 * lanes + 1, False), (lanes - 1, True))
    ):
        mapped: StraightLine = line.transposed() if backward else line
        options: dict[str, Any] = {"backward": backward, "one_by_one": one_by_one}
        x, bias = noise(n, (mapped.inputs, n), dtype), noise(1, (len(mapped.outputs), 1), dtype)
        y, sums = compiled(dtype, x, len(bias), *key, how=ELU, others=bias, **options)
        z = mapped(x.astype(float)) + bias
        assert np.abs(y - np.where(z > 0, z, np.expm1(z))).max() <= 2 * C * eps(dtype) * norm(x) * key[0] ** 0.5
        assert not sums.any()

        ans = noise(2, x.shape, dtype)
        ans = np.where(ans > 0, ans, np.expm1(ans)).astype(dtype)
        y, sums = compiled(dtype, x, len(bias), *key, how=ELU_VJP, others=ans, **options)
        back = x * np.where(ans > 0, 1, 1 + ans.astype(float))
        assert np.abs(y - mapped(back)).max() <= 2 * C * eps(dtype) * norm(x) * key[0] ** 0.5
        assert np.abs(sums - back.sum(axis=1)).max() <= C * eps(dtype) * norm(x) * n**0.5


def test_fast_lengths_take_few_operations() -> None:
    """Real DFTs by hand: 2 additions of 2 numbers, 6 of 4, and of 8 with two products beside 18 additions."""
    assert [dft_line(n, n, False, LEAN).operations for n in (2, 4, 8)] == [2, 6, 20]
    assert dft_line(12, 8, False, LEAN).operations < dft_line(12, 12, False, LEAN).operations
    assert dft_line(16, 16, False, LEAN).operations < 16 * 16 / 4


def test_each_codelet_has_a_file_of_its_own() -> None:
    """Numba numbers what one name has compiled; two processes that did so at once would take each other's numbers."""
    keys = [(_codelets.SOURCE_CHECKSUM, 4, 16, 4, count, 0, LEAN, 0, PLAIN) for count in (3, 4)]
    names = {_codelets._compiled(*key)._pyfunc.__qualname__ for key in keys}
    assert len(names) == 2


def test_where_nothing_can_be_written_each_process_compiles() -> None:
    with mock.patch("numba.core.caching.CacheImpl._locator_classes", []):
        assert jit.compiled()(lambda x: 2 * x)(3) == 6
        function = _codelets._compiled.__wrapped__(_codelets.SOURCE_CHECKSUM, 4, 1, 2, 2, 0, LEAN, 0, PLAIN)
    x, y, rows = np.array([3, 5], "f4"), np.empty(2, "f4"), np.array([0, 4])
    function.ctypes(x.ctypes.data, rows.ctypes.data, y.ctypes.data, rows.ctypes.data, 4, 0, 0, 0, 0)
    assert y.tolist() == [8, -2]
