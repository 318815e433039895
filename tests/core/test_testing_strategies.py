"""The strategies draw what they promise, shrink to what is documented, and searches report the simplest failure."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes

from hcnn_core import convolve, marginal
from hcnn_core.testing import (
    arrays,
    assert_translation_covariant,
    check_translation_covariant,
    check_translation_invariant,
    shifts,
)
from tests.core.oracle import BOUNDARIES, DTYPES, NDArray, noise

ROOT = Path(__file__).resolve().parents[2]
SHAPE = (2, 3, 4)


def run(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """The code in an interpreter of its own, started in the folder."""
    command, environment = [sys.executable, "-W", "error", "-c", code], {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def drawn(strategy: st.SearchStrategy[Any], examples: int = 500) -> list[Any]:
    """The draws of a strategy in some examples, the same in every run: shares must not depend on luck."""
    seen: list[Any] = []

    @settings(max_examples=examples, phases=[Phase.generate], database=None, derandomize=True)
    @given(strategy)
    def collect(value: Any) -> None:
        seen.append(value)

    collect()
    return seen


def impulse(shape: tuple[int, ...], index: tuple[int, ...], height: float = 1) -> NDArray:
    x = np.zeros(shape)
    x[index] = height
    return x


@pytest.fixture(autouse=True)
def hundred_examples() -> Iterator[None]:
    """Let searches have Hypothesis's own number: 25, as the suite has, missed one mistake here in 5 of 120 runs."""
    name = os.environ.get("HYPOTHESIS_PROFILE", "dev")
    settings.register_profile("hundred", settings.get_profile(name), max_examples=100)
    settings.load_profile("hundred")
    yield
    settings.load_profile(name)


@pytest.fixture(scope="module")
def examples() -> list[NDArray]:
    return drawn(arrays(SHAPE), 1000)


PATTERNS = {
    "impulse": lambda x: np.count_nonzero(x) == 1,
    "constant": lambda x: len(np.unique(x)) == 1,
    "few": lambda x: np.count_nonzero(x) == 3,
    "half": lambda x: np.count_nonzero(x) == x.size // 2,
    "dense": lambda x: len(np.unique(x)) == x.size,
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_pattern_in_every_dtype(pattern: str, dtype: str, examples: list[NDArray]) -> None:
    found = [x for x in examples if x.dtype == dtype and 0 not in x.strides and PATTERNS[pattern](x)]
    assert found
    if dtype.startswith("complex") and pattern in ("few", "half", "dense"):
        assert all(x.imag.any() for x in found)


def test_arrays_shrink_to_the_first_impulse_of_height_1() -> None:
    found = find(arrays(SHAPE), lambda x: True)
    np.testing.assert_array_equal(found, impulse(SHAPE, (0, 0, 0)))
    assert found.dtype == "float64"
    assert found.flags.c_contiguous and found.flags.writeable


def test_arrays_shrink_to_the_impulse_and_the_height_that_are_needed() -> None:
    np.testing.assert_array_equal(find(arrays((3, 4)), lambda x: bool(x[1:].any())), impulse((3, 4), (1, 0)))
    np.testing.assert_array_equal(find(arrays((3, 4)), lambda x: np.abs(x).max() > 5), impulse((3, 4), (0, 0), 10))


@given(array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=6), st.data())
def test_arrays_are_finite_and_not_zero(shape: tuple[int, ...], data: st.DataObject) -> None:
    x = data.draw(arrays(shape))
    assert x.shape == shape and x.dtype in DTYPES
    assert np.isfinite(x).all() and (x.any() or not x.size)


LENGTHS = st.lists(st.integers(1, 7), min_size=1, max_size=4)


@given(LENGTHS, st.data())
def test_shifts_are_multiples_of_the_stride_and_not_the_identity(lengths: list[int], data: st.DataObject) -> None:
    stride = tuple(data.draw(st.integers(1, n + 1)) for n in lengths)
    shift = data.draw(shifts(lengths, stride))
    assert len(shift) == len(lengths)
    assert all(s % r == 0 for s, r in zip(shift, stride, strict=True))
    assert all(abs(s) <= 2 * n for s, n in zip(shift, lengths, strict=True))
    if any(r % n for n, r in zip(lengths, stride, strict=True)):
        assert any(s % n for s, n in zip(shift, lengths, strict=True))


def test_every_shift() -> None:
    """Forth and back, one period and two, along one axis and both, but never the identity."""
    moves = {(s, t) for s in range(-4, 5, 2) for t in range(-6, 7, 3)}
    assert set(drawn(shifts((2, 3), (2, 3)), 200)) == moves  # where nothing but the identity exists
    assert set(drawn(shifts((4, 3), (2, 3), limit=(4, 6)))) == {(s, t) for s, t in moves if s % 4}


def test_shifts_shrink_to_one_stride_along_the_first_axis_that_moves() -> None:
    assert find(shifts((6, 9), (2, 3)), lambda s: True) == (2, 0)
    assert find(shifts((1, 2, 5)), lambda s: True) == (0, 1, 0)
    assert find(shifts((6, 9), (2, 3)), lambda s: s[1] != 0 and s[0] == 0) == (0, 3)
    assert find(shifts(6), lambda s: s[0] < 0) == (-1,)


@given(shifts((6, 9, 4), (2, 3, 1), limit=(5, 2, 0)))
def test_shifts_keep_to_their_limit(shift: tuple[int, ...]) -> None:
    assert shift in [(s, 0, 0) for s in (-4, -2, 2, 4)]


W = noise(0, (2, 3, 4), "float64")


@pytest.mark.parametrize("stride", [1, (2, 3)])
@pytest.mark.parametrize("boundary", [*BOUNDARIES, ("zero", "periodic")])
def test_covariant_operators_pass(boundary: Any, stride: Any) -> None:
    def op(x: NDArray) -> NDArray:
        assert type(x) is np.ndarray
        assert x.flags.c_contiguous and x.flags.writeable
        return np.asarray(convolve(x, W, (1, 2), boundary=boundary, stride=stride))

    check_translation_covariant(op, (2, 8, 9), (1, 2), stride=stride, boundary=boundary, dtypes=DTYPES)


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_invariant_operators_pass(boundary: str) -> None:
    def op(x: NDArray) -> NDArray:
        y = convolve(x, W, (1, 2), boundary=boundary, stride=2)
        return np.asarray(marginal(y * y, (1, 2)))

    check_translation_invariant(op, (2, 12, 10), (1, 2), 2, boundary, stages=2)


def test_axes_that_move_elsewhere() -> None:
    check_translation_covariant(lambda x: x.transpose(1, 2, 0), (3, 4, 5), (0, -1), (2, 1))
    with pytest.raises(AssertionError, match="should translate op"):
        check_translation_covariant(lambda x: x.transpose(1, 2, 0), (4, 4, 4), (0, -1), (1, 2))


def test_the_simplest_failure_of_an_operator_with_another_boundary() -> None:
    with pytest.raises(AssertionError) as caught:
        check_translation_covariant(lambda x: convolve(x, W, (1, 2), boundary="zero"), (2, 6, 7), (1, 2))
    line = str(caught.value)
    assert line.startswith(
        "op is not covariant to translations: translating x by 1 along axis 1 should translate op(x)"
    )
    assert "\n" not in line
    assert caught.value.__notes__ == ['x = np.zeros((2, 6, 7), "float64"); x[0, 0, 0] = 1.0\nshift = (1, 0)']
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "condition",
    [
        lambda x: True,
        lambda x: np.count_nonzero(x) > 1,
        lambda x: np.count_nonzero(x) > 3,
        lambda x: len(np.unique(x)) > 5,
        lambda x: x.all(),
        lambda x: len(np.unique(x)) == x.size,
    ],
)
@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_the_failure_is_code_that_fails_again(condition: Any, boundary: str) -> None:
    def op(x: NDArray) -> NDArray:
        return x * np.arange(7) if condition(x[2:5, 2:5]) else x

    with pytest.raises(AssertionError) as caught:
        check_translation_covariant(op, (7, 7), (0, 1), boundary=boundary, dtypes="complex64")
    (code,) = caught.value.__notes__
    names: dict[str, Any] = {"np": np}
    exec(code, names)
    assert names["x"].dtype == "complex64"
    with pytest.raises(AssertionError, match="not covariant"):
        assert_translation_covariant(op, names["x"], (0, 1), boundary=boundary, shift=names["shift"])


def test_an_operator_that_raises() -> None:
    with pytest.raises(ValueError, match=r"^op raised ZeroDivisionError on an array of shape \(4,\)") as caught:
        check_translation_covariant(lambda x: 1 // 0, 4, 0)
    assert caught.value.__notes__ == ['x = np.zeros((4,), "float64"); x[0] = 1.0\nshift = (1,)']
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_an_operator_that_changes_its_mind() -> None:
    calls: list[int] = []
    assert_translation_covariant(lambda x: calls.append(1) or x, noise(0, (4,), "float64"), 0, shift=1)
    each = len(calls)

    def op(x: NDArray) -> NDArray:
        calls.append(1)
        return x * np.arange(4) if 10 * each < len(calls) <= 11 * each else x  # wrong for one example

    with pytest.raises(ValueError, match=r"^op returns different results for the same array; "):
        check_translation_covariant(op, 4, 0)


def test_stages_are_passed_on() -> None:
    def rough(x: NDArray) -> NDArray:
        return np.asarray(x * (1 + 1e-9 * (np.arange(4) == 0)))

    check_translation_covariant(rough, 4, 0, stages=10**7)
    check_translation_invariant(lambda x: rough(x).sum(), 4, 0, stages=10**7)
    with pytest.raises(AssertionError, match="not invariant"):
        check_translation_invariant(lambda x: rough(x).sum(), 4, 0)


def test_a_failure_in_a_plain_script(tmp_path: Path) -> None:
    result = run(
        "import numpy as np; from hcnn_core.testing import check_translation_covariant\n"
        "check_translation_covariant(np.abs, 4, 0)\n"
        "check_translation_covariant(np.cumsum, 4, 0)",
        tmp_path,
    )
    assert result.returncode == 1
    assert result.stdout == ""
    last = result.stderr.splitlines()[-3:]
    assert last[0].startswith("AssertionError: op is not covariant to translations: translating x by 1 along axis 0 ")
    assert last[1:] == ['x = np.zeros((4,), "float64"); x[0] = 1.0', "shift = (1,)"]
    assert "hypothesis" not in result.stderr
    assert not (tmp_path / ".hypothesis" / "examples").exists()  # no failure is kept for a next time


def test_without_hypothesis(tmp_path: Path) -> None:
    result = run(
        "import sys, numpy as np; sys.modules['hypothesis'] = None; from hcnn_core import testing\n"
        "testing.assert_linear(lambda x: 2 * x, np.ones(3))\n"
        "print('fine')\n"
        "testing.arrays",
        tmp_path,
    )
    assert result.stdout == "fine\n"
    line = "ImportError: hcnn_core.testing's strategies need Hypothesis: pip install hypothesis"
    assert result.stderr.splitlines()[-1] == line


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_axis_to_blame_is_named_alone(axis: int) -> None:
    ramp = np.linspace(1, 2, 4).reshape([4 if a == axis else 1 for a in range(3)])
    with pytest.raises(AssertionError, match=f"translating x by 1 along axis {axis} should") as caught:
        check_translation_covariant(lambda x: x * ramp, (4, 4, 4), (0, 1, 2))
    assert caught.value.__notes__[0].endswith(f"shift = {tuple(int(a == axis) for a in range(3))}")
