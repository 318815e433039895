"""The strategies draw what they promise, shrink to what is documented, and searches report the simplest failure."""

from __future__ import annotations

import os
import subprocess
import sys
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
    boundaries,
    check_translation_covariant,
    check_translation_invariant,
    kernels,
    networks,
    shifts,
    strides,
)
from tests.core.oracle import BOUNDARIES, DTYPES, LAYOUTS, SEEDS, NDArray, noise
from train.config import make_config
from train.networks.hierarchical import hierarchy
from train.networks.registry import build

ROOT = Path(__file__).resolve().parents[2]
SHAPE = (2, 3, 4)


def run(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """The code in an interpreter of its own, started in the folder."""
    command, environment = [sys.executable, "-W", "error", "-c", code], {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def drawn(strategy: st.SearchStrategy[Any], examples: int = 500) -> list[Any]:
    """What the strategy draws in so many examples, the same in every run: shares must not depend on luck."""
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


TRAITS = {
    "C": lambda x: x.flags.c_contiguous and x.flags.writeable,
    "F": lambda x: x.flags.f_contiguous,
    "shuffled": lambda x: {abs(s) for s in x.strides} != {0} and x.flags.writeable,
    "negative": lambda x: max(x.strides) < 0,
    "sliced": lambda x: min(x.strides) == 2 * x.itemsize,
    "read-only": lambda x: x.flags.c_contiguous and not x.flags.writeable,
    "broadcast": lambda x: 0 in x.strides,
}


@pytest.fixture(scope="module")
def examples() -> list[NDArray]:
    return drawn(arrays(SHAPE), 1000)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout(layout: str, examples: list[NDArray]) -> None:
    assert any(map(TRAITS[layout], examples))
    alone = drawn(arrays(SHAPE, layouts=layout), 20)
    assert all(map(TRAITS[layout], alone))
    orders = {tuple(np.argsort([-abs(s) for s in x.strides])) for x in alone}
    assert len(orders) > 2 or layout != "shuffled"


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


def test_every_scale(examples: list[NDArray]) -> None:
    constants = [x.ravel()[0] for x in examples if PATTERNS["constant"](x)]
    assert {round(np.log10(abs(c))) for c in constants} == set(range(-6, 7))
    assert all(abs(c / 10.0 ** round(np.log10(abs(c))) - 1) < 1e-6 for c in constants)


def test_dense_noise_is_normal() -> None:
    found = find(arrays((40, 40), "float64"), lambda x: bool(x.all() and len(np.unique(x)) == x.size))
    np.testing.assert_array_equal(found, np.random.default_rng(0).standard_normal((40, 40)))


def test_arrays_shrink_to_the_first_impulse_of_height_1() -> None:
    found = find(arrays(SHAPE), lambda x: True)
    np.testing.assert_array_equal(found, impulse(SHAPE, (0, 0, 0)))
    assert found.dtype == "float64"
    assert found.flags.c_contiguous and found.flags.writeable
    np.testing.assert_array_equal(find(arrays((5, 3), margin=(2, 1)), lambda x: True), impulse((5, 3), (2, 1)))


def test_arrays_shrink_to_the_impulse_and_the_height_that_are_needed() -> None:
    np.testing.assert_array_equal(find(arrays((3, 4)), lambda x: bool(x[1:].any())), impulse((3, 4), (1, 0)))
    np.testing.assert_array_equal(find(arrays((3, 4)), lambda x: np.abs(x).max() > 5), impulse((3, 4), (0, 0), 10))


@st.composite
def shapes_and_margins(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...]]:
    shape = draw(array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=6))
    return shape, tuple(draw(st.integers(0, max(0, (n - 1) // 2))) for n in shape)


@given(shapes_and_margins(), st.data())
def test_arrays_are_finite_not_zero_and_zero_in_the_margin(
    case: tuple[tuple[int, ...], tuple[int, ...]], data: st.DataObject
) -> None:
    shape, margin = case
    x = data.draw(arrays(shape, margin=margin))
    assert x.shape == shape
    assert x.dtype in DTYPES
    assert np.isfinite(x).all()
    assert x.any() or not x.size
    inside = x[tuple(slice(m, n - m) for n, m in zip(shape, margin, strict=True))]
    assert np.count_nonzero(inside) == np.count_nonzero(x)
    assert all(s or not m or not x.size for s, m in zip(x.strides, margin, strict=True))  # a margin is not repeated


def test_no_margin_is_repeated() -> None:
    for x in drawn(arrays((5, 4), margin=(1, 0), layouts="broadcast"), 20):
        assert x.strides[1] == 0 < x.strides[0]
        assert x[1:-1].any()
        assert not x[[0, -1]].any()


@given(arrays(st.sampled_from([(2,), (3, 4)]), ("float32", "complex64"), margin=0))
def test_arrays_of_drawn_shapes(x: NDArray) -> None:
    assert x.shape in ((2,), (3, 4))
    assert x.dtype in ("float32", "complex64")


@given(arrays(np.int64(5), np.dtype("float32")) | arrays(5))
def test_one_length_is_a_shape(x: NDArray) -> None:
    assert x.shape == (5,)


def test_every_filter_size() -> None:
    """Shorter and longer than the axis, odd and even; as long as the axis in one case of three."""
    sizes = [w.shape for w in drawn(kernels((4, 5)), 2000)]  # Hypothesis repeats itself: shares of 500 vary much
    for axis, n in enumerate((4, 5)):
        assert {size[axis] for size in sizes} == set(range(1, 2 * n + 2))
        assert sum(size[axis] == n for size in sizes) > len(sizes) / 5
    assert {w.shape for w in drawn(kernels(5, max_size=2), 50)} == {(1,), (2,)}


@given(
    arrays((2, 3, 4, 5), "float32"),
    kernels((4, 5), channels=3, out=(2, 1), dtypes=("float32", "complex128"), max_size=(4, 11)),
    boundaries(2),
)
def test_filters_are_ones_that_convolve_takes(x: NDArray, w: NDArray, boundary: tuple[str, ...]) -> None:
    assert w.shape[:1] + w.shape[3:] == (3, 2, 1)
    assert w.shape[1] <= 4
    assert w.shape[2] <= 11
    assert w.dtype in ("float32", "complex128")
    assert w.all()
    assert convolve(x, w, (2, 3), sum_axes=1, boundary=boundary).shape == (2, 4, 5, 2, 1)


def test_filters_shrink_to_one_tap() -> None:
    assert find(kernels((4, 5), out=2), lambda w: True).shape == (1, 1, 2)
    assert find(kernels(1), lambda w: True).shape == (1,)
    assert find(kernels(4), lambda w: w.shape[0] == 9).shape == (9,)  # one more than twice the length


def test_every_boundary() -> None:
    for wanted in BOUNDARIES:
        assert find(boundaries(), lambda b, wanted=wanted: b == wanted) == wanted
        assert find(boundaries(2), lambda b, wanted=wanted: b[1] == wanted) in [(b, wanted) for b in BOUNDARIES]
    assert find(boundaries(3), lambda b: True) == ("periodic",) * 3


def test_every_stride() -> None:
    assert set(drawn(strides((4, 6)))) == {(r, s) for r in (1, 2, 4) for s in (1, 2, 3, 6)}
    assert set(drawn(strides((2, 4), dividing=False))) == {(r, s) for r in range(1, 4) for s in range(1, 6)}
    assert find(strides((4, 6)), lambda s: True) == (1, 1)


LENGTHS = st.lists(st.integers(1, 7), min_size=1, max_size=4)


@given(LENGTHS, st.data())
def test_shifts_are_multiples_of_the_stride_and_not_the_identity(lengths: list[int], data: st.DataObject) -> None:
    stride = data.draw(strides(lengths, dividing=data.draw(st.booleans())))
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


@given(shifts((4, 1), (4, 1)))
def test_shifts_are_the_identity_where_there_is_nothing_else(shift: tuple[int, ...]) -> None:
    assert shift[0] % 4 == 0


SETTINGS = {
    "depth": range(4, 8),
    "width": range(1, 9),
    "factors": range(1, 11),
    "space_kernel": range(1, 5),
    "attribute_stride": range(1, 4),
    "nonlinear_factors": [False, True],
    "boundary": ["periodic", "zero", "attributes"],
    "reduction": ["mean", "sum"],
    "head": ["mean", "sum", "dense"],
    "skip": ["none", "aligned", "aligned-mean", "previous"],
    "blur": [False, True],
    "normalization": ["factors", "both"],
    "dtype": ["float32", "float64"],
}


def test_every_setting_of_a_network() -> None:
    seen = drawn(networks())
    for name, values in SETTINGS.items():
        assert {choice[name] for choice in seen} == set(values)
    kernels_seen = {choice["attribute_kernel"] for choice in seen}
    assert {s for s, _ in kernels_seen} == {s for _, s in kernels_seen} == set(range(1, 10))
    layers_seen = {choice["strided_layers"] for choice in seen}
    assert () in layers_seen
    assert {j for layers in layers_seen for j in layers} == set(range(1, 7))
    assert max(map(len, layers_seen)) > 1


def test_the_smallest_network() -> None:
    first = {name: choices[0] for name, choices in SETTINGS.items()}
    assert find(networks(), lambda s: True) == {**first, "attribute_kernel": (1, 1), "strided_layers": ()}


@given(networks(epsilon=0.01, depth=5), st.sampled_from((5, 1)), SEEDS)
def test_networks_run(choice: dict[str, Any], size: int, seed: int) -> None:
    assert choice["epsilon"] == 0.01
    assert choice["depth"] == 5
    network = build(make_config("hcnn", choice), image_size=size, classes=3)
    parameters = network.initialize(np.random.default_rng(seed))
    logits, moments = network(parameters, noise(seed, (2, size, size, 3), choice["dtype"]))
    assert logits.shape == (2, 3)
    assert logits.dtype == choice["dtype"]
    assert np.isfinite(logits).all()
    assert len(moments) == (4 if choice["normalization"] == "both" else 2)


@given(networks())
def test_networks_can_be_built(choice: dict[str, Any]) -> None:
    config = make_config("hcnn", choice)
    assert len(hierarchy(build(config, image_size=8))) == choice["depth"] - 1


@pytest.mark.parametrize(
    ("strategy", "arguments", "options", "message"),
    [
        (arrays, (2.5,), {}, "shape is 2.5; give an integer, or one per axis"),
        (arrays, ((2, -1),), {}, "shape holds -1; give 0 or more"),
        (arrays, ((2,), np.float32), {}, "dtypes names \"<class 'numpy.float32'>\"; choose among float64, "),
        (arrays, ((2,), "float16"), {}, "dtypes names 'float16'; choose among float64, float32, complex128, complex64"),
        (arrays, ((2,), ()), {}, "dtypes is empty; choose among float64, float32, complex128, complex64"),
        (arrays, ((2,),), {"layouts": ("C", "Z")}, "layouts names 'Z'; choose among C, F, shuffled, "),
        (arrays, ((2, 2),), {"margin": (0, 1)}, "margin 1 at both ends leaves none of the 2 samples of axis 1; give 3"),
        (arrays, ((5,),), {"margin": (1, 1)}, "margin has 2 entries for 1 axes"),
        (arrays, ((5,),), {"margin": 1, "layouts": "broadcast"}, "layouts names broadcast alone, and there is no axis"),
        (kernels, ((4, 0),), {}, "lengths holds 0; give 1 or more"),
        (kernels, (4,), {"max_size": (2, 2)}, "max_size has 2 entries for 1 axes"),
        (kernels, (4,), {"max_size": 0}, "max_size holds 0; give 1 or more"),
        (kernels, (4,), {"dtypes": "int64"}, "dtypes names 'int64'; choose among float64,"),
        (strides, (None,), {}, "lengths is None; give an integer, or one per axis"),
        (shifts, ((4, 4), (1, 0)), {}, "stride holds 0; give 1 or more"),
        (shifts, (4,), {"limit": -1}, "limit holds -1; give 0 or more"),
    ],
)
def test_one_line_says_what_would_do(strategy: Any, arguments: Any, options: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        strategy(*arguments, **options)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


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


def test_margins_that_leave_no_room_but_for_one_stride() -> None:
    op = lambda x: convolve(x, W[0, :, 0], 0, boundary="zero", stride=2)  # noqa: E731
    check_translation_covariant(op, 5, 0, stride=2, boundary="zero")


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


def test_the_simplest_failure_of_an_operator_with_another_stride() -> None:
    with pytest.raises(AssertionError, match=r"op is not invariant .* translating x by 1 along axis 0") as caught:
        check_translation_invariant(lambda x: x[::2].sum(), 6, 0)
    assert caught.value.__notes__ == ['x = np.zeros((6,), "float64"); x[0] = 1.0\nshift = (1,)']
    check_translation_invariant(lambda x: x[::2].sum(), 6, 0, stride=2)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_failure_names_the_dtype(dtype: str) -> None:
    with pytest.raises(AssertionError) as caught:
        check_translation_covariant(lambda x: np.sort(x) if x.dtype == dtype else x, 4, 0, dtypes=DTYPES)
    assert f'"{dtype}"' in caught.value.__notes__[0]


@pytest.mark.parametrize(
    "condition",
    [
        lambda x: True,
        lambda x: np.abs(x).max() > 5,
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
        check_translation_covariant(op, (7, 7), (0, 1), boundary=boundary, dtypes="complex64", exponents=(-6, 6))
    (code,) = caught.value.__notes__
    names: dict[str, Any] = {"np": np}
    exec(code, names)
    assert names["x"].dtype == "complex64"
    with pytest.raises(AssertionError, match="not covariant"):
        assert_translation_covariant(op, names["x"], (0, 1), boundary=boundary, shift=names["shift"])


def test_long_arrays_are_abbreviated() -> None:
    with pytest.raises(AssertionError) as caught:
        check_translation_covariant(lambda x: np.sort(x) if x.all() and x.std() else x, (50, 20), 1)
    assert '"float64"); x[0:50, 0:20] = [[' in caught.value.__notes__[0]
    assert "..." in caught.value.__notes__[0]
    assert len(caught.value.__notes__[0]) < 500


def test_an_operator_that_raises() -> None:
    with pytest.raises(
        ValueError, match=r"^op raised ZeroDivisionError on an array of shape \(4,\), float64"
    ) as caught:
        check_translation_covariant(lambda x: 1 // 0, 4, 0)
    assert caught.value.__notes__ == ['x = np.zeros((4,), "float64"); x[0] = 1.0\nshift = (1,)']
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_an_operator_with_two_faults() -> None:
    def op(x: NDArray) -> NDArray:
        return np.sort(x) if np.abs(x).max() < 1e3 else x[1:]

    with pytest.raises((AssertionError, ValueError), match=r"^op "):
        check_translation_covariant(op, 4, 0, max_examples=1000)


def test_an_operator_that_changes_its_mind() -> None:
    calls: list[int] = []
    check_translation_covariant(lambda x: calls.append(1) or x, 4, 0, max_examples=1)
    each = len(calls)

    def op(x: NDArray) -> NDArray:
        calls.append(1)
        return x * np.arange(4) if 10 * each < len(calls) <= 11 * each else x  # wrong for one example

    with pytest.raises(ValueError, match=r"^op returns different results for the same array; "):
        check_translation_covariant(op, 4, 0)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (((4, 1), 1), {}, r"axes \(1,\) have \(1,\) samples at stride \(1,\): every translation is the identity"),
        ((4, 0), {"stride": 4}, r"axes \(0,\) have \(4,\) samples at stride \(4,\): every translation is the identity"),
        ((4, 0), {"stride": 3}, "stride 3 does not divide the 4 samples of axis 0"),
        ((2, 0), {"boundary": "zero"}, "axis 0 has 2 samples; zeros at both ends and stride 1 need at least 3"),
        ((4, 0), {"boundary": "zero", "stride": 2}, "axis 0 has 4 samples; zeros at both ends and stride 2 need"),
        (((4, 0), 0), {}, "shape holds 0; give 1 or more"),
        ((4, 1), {}, "(in_)?axes names axis 1 of an array with 1 axes"),
        ((4, 0), {"dtypes": "float16"}, "dtypes names 'float16'"),
        ((4, 0), {"stages": 0}, "stages is 0"),
    ],
)
@pytest.mark.parametrize("check", [check_translation_covariant, check_translation_invariant])
def test_a_search_that_can_show_nothing_is_refused(check: Any, arguments: Any, options: Any, message: str) -> None:
    if check is check_translation_invariant and "divide" in message:
        check(np.sum, *arguments, **options)  # 3 samples are a translation of x, which a sum does not see
        return
    with pytest.raises(ValueError, match=f"^{message}"):
        check(lambda x: x, *arguments, **options)


def test_a_shift_that_no_stride_divides_is_a_translation() -> None:
    with pytest.raises(AssertionError, match="translating x by 2 along axis 0"):
        check_translation_invariant(lambda x: x[0], 3, 0, stride=2)


def test_a_number_of_examples() -> None:
    counts = []
    for examples in (1, 5):
        seen: list[NDArray] = []
        check_translation_covariant(lambda x, seen=seen: seen.append(x) or x, (3, 4), 1, max_examples=examples)
        counts.append(len(seen))
    assert counts[1] == 5 * counts[0]


def test_eps_and_stages_are_passed_on() -> None:
    def rough(x: NDArray) -> NDArray:
        return np.asarray(x * (1 + 1e-9 * (np.arange(4) == 0)))

    with pytest.raises(AssertionError, match="not covariant"):
        check_translation_covariant(rough, 4, 0)
    check_translation_covariant(rough, 4, 0, eps=1e-9)
    check_translation_covariant(rough, 4, 0, stages=10**7)
    with pytest.raises(AssertionError, match="not invariant"):
        check_translation_invariant(lambda x: rough(x).sum(), 4, 0)
    check_translation_invariant(lambda x: rough(x).sum(), 4, 0, eps=1e-9)
    check_translation_invariant(lambda x: rough(x).sum(), 4, 0, stages=10**7)


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


def test_searches_stay_at_size_one_unless_asked() -> None:
    check_translation_covariant(np.exp, (2, 4), 1)
    sizes = []
    check_translation_covariant(lambda x: sizes.append(np.abs(x).max()) or x, (2, 4), 1, exponents=(3, 3))
    assert max(sizes) >= 1000
