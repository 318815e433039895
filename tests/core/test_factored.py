"""`factored_layer` against the definition of both its convolutions, with and without the kernel for tiles."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autodiff import check_grads, vjp
from autodiff import factored_layer as traced_layer
from hcnn_core import factored, factored_layer
from hcnn_core._engines.planner import make_factored_plan
from hcnn_core._tuning import Costs, tuned
from tests.core.oracle import (
    BOUNDARIES,
    C,
    NDArray,
    Problem,
    eps,
    noise,
    norm,
    poisoned_memory,
    threads,
    wide,
)

REAL = ("float32", "float64")
ORDERS = [(0, 1, 2, 3, 4), (3, 4, 1, 2, 0), (4, 2, 0, 3, 1)]
"""Axes of x from the slowest to the fastest in memory; the second is that of the network."""


def plan_for(layer: Layer) -> Any:
    """The plan that never holds the Q copies, if there is one."""
    _, (x, *_, bias), *problems = factored._arguments(*layer.operands, *layer.axes, **{"stride": 1, **layer.options})
    return make_factored_plan(*problems, x, bias)


@contextmanager
def written_out() -> Iterator[None]:
    """Layers as two convolutions, whose Q copies are in memory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(factored, "make_factored_plan", lambda *_: None)
        yield


def in_order(x: NDArray, order: tuple[int, ...]) -> NDArray:
    """The array with its axes in this order in memory, from the slowest to the fastest."""
    return np.ascontiguousarray(x.transpose(order)).transpose(np.argsort(order))


def rho(c: NDArray) -> NDArray:
    return np.where(c > 0, c, np.expm1(np.minimum(c, 0)))


class Layer:
    """Operands of a layer, and what the definition makes of them in double precision."""

    def __init__(
        self,
        shape: tuple[int, ...],
        sizes: tuple[int, ...],
        counts: tuple[int, int],
        dtype: str = "float64",
        order: tuple[int, ...] = ORDERS[1],
        **options: Any,
    ) -> None:
        q, k = counts
        x = in_order(noise(0, shape, dtype), order) if order else noise(0, shape, dtype)
        h, g = noise(1, (*sizes[:2], q), dtype), noise(3, (q, *sizes[2:], k), dtype)
        self.operands = [x, h / dtype_of(h, norm(h) / q), noise(2, (q,), dtype), g, noise(4, (k,), dtype)]
        self.options = options
        self.axes = (1, 2), (3, 4)

    def run(self) -> NDArray:
        return factored_layer(*self.operands, *self.axes, **self.options)

    def vjp(self) -> tuple[NDArray, Any]:
        """The result and the function from its cotangent to those of the operands that there are."""
        given, none = ([a for a in self.operands if (a is None) == is_none] for is_none in (False, True))
        return vjp(lambda *some: traced_layer(*some, *none, *self.axes, **self.options), *given)

    def halves(self) -> tuple[Problem, Problem, NDArray]:
        x, h, shift, g = map(wide, self.operands[:4])
        boundary, stride = (self._each(name) for name in ("boundary", "stride"))
        first = Problem(x, h, (1, 2), {"boundary": boundary[:2], "stride": stride[:2]})
        z = rho(first.convolution() + shift)
        return first, Problem(z, g, (3, 4), {"boundary": boundary[2:], "stride": stride[2:], "sum_axes": 5}), z

    def _each(self, name: str) -> tuple[Any, ...]:
        value = self.options.get(name, 1)
        return (value,) * 4 if isinstance(value, str | int) else tuple(value)

    def expected(self) -> NDArray:
        y, bias = self.halves()[1].convolution(), self.operands[4]
        return y if bias is None else rho(y + wide(bias))

    def cotangents(self, c: NDArray) -> list[NDArray]:
        first, second, z = self.halves()
        without = self.operands[4] is None
        of_y = wide(c) if without else wide(c) * (np.minimum(self.expected(), 0) + 1)
        of_z = second.transpose_x(of_y) * (np.minimum(z, 0) + 1)
        everywhere = (0, 1, 2, 3, 4)
        found = [first.transpose_x(of_z), first.transpose_w(of_z), of_z.sum(everywhere), second.transpose_w(of_y)]
        return found if without else [*found, of_y.sum(everywhere)]

    @property
    def scale(self) -> float:
        """A bound of the norm of all that is summed on the way."""
        x, h, shift, g, bias = self.operands
        inner = norm(x) * norm(h) + norm(shift) * np.sqrt(x.size)
        return float(inner * norm(g) + (0 if bias is None else norm(bias) * np.sqrt(x.size)))


def dtype_of(like: NDArray, number: float) -> Any:
    return like.dtype.type(number)


def assert_right(layer: Layer) -> None:
    y = layer.run()
    dtype = layer.operands[0].dtype
    assert y.dtype == dtype
    assert np.abs(y - layer.expected()).max(initial=0) <= C * eps(dtype) * layer.scale
    c = noise(9, y.shape, str(dtype))
    out, pullback = layer.vjp()
    assert np.array_equal(out, y)
    given = [a for a in layer.operands if a is not None]
    for found, expected, operand in zip(pullback(c), layer.cotangents(c), given, strict=True):
        assert found.shape == operand.shape and found.dtype == dtype
        assert np.abs(found - expected).max() <= C * eps(dtype) * norm(c) * (1 + layer.scale) * (1 + norm(operand))


@st.composite
def layers(draw: st.DrawFn) -> Layer:
    """Small ones; along the second spatial axis and the batch there are 16 positions, so that tiles suit them."""
    n = [draw(st.integers(1, 3)), draw(st.integers(1, 5)), draw(st.integers(1, 35))]
    n += draw(st.tuples(st.integers(3, 9), st.integers(3, 9)))
    sizes = draw(st.tuples(*(st.integers(1, top) for top in (3, 4, 7, 11))))
    layer = Layer(
        tuple(n),
        sizes,
        draw(st.tuples(st.integers(1, 4), st.integers(1, 3))),
        draw(st.sampled_from(REAL)),
        draw(st.sampled_from(ORDERS)),
        boundary=draw(st.sampled_from([*BOUNDARIES, ("zero", "periodic", "periodic", "zero")])),
        stride=draw(st.sampled_from([1, (1, 1, 2, 2), (1, 1, 2, 3), (2, 1, 1, 1), (2, 2, 2, 2), (1, 3, 1, 2)])),
    )
    if draw(st.booleans()):
        layer.operands[4] = None
    return layer


@given(layers(), st.booleans(), st.sampled_from([32, 48, 128]), st.sampled_from([1, 2, 16]))
def test_it_is_its_definition(layer: Layer, tiled: bool, strip: int, group: int) -> None:
    sizes = {"spectral_positions": strip, "factored_positions": strip, "spectral_channels": group}
    with tuned(**sizes), nullcontext() if tiled else written_out(), poisoned_memory():
        assert_right(layer)


PAPER = {"shape": (2, 3, 33, 8, 16), "sizes": (3, 3, 7, 11), "counts": (6, 12), "stride": (1, 1, 2, 2)}


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize(("in_space", "biased"), [(1, True), (2, True), (2, False)])
def test_at_the_papers_size_tiles_are_used(dtype: str, boundary: str, in_space: int, biased: bool) -> None:
    layer = Layer(**{**PAPER, "stride": (in_space, in_space, 2, 2)}, dtype=dtype, boundary=boundary)
    if not biased:
        layer.operands[4] = None
    assert plan_for(layer) is not None
    assert_right(layer)


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_phases_and_groups_of_filters_are_told_apart(boundary: str) -> None:
    layer = Layer(**PAPER, boundary=boundary)
    with tuned(spectral_channels=2):
        plan = plan_for(layer).plan
        assert (len(plan.phases), plan.channels // plan.group) == (4, 3)
        assert_right(layer)


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_samples_that_no_filter_reads_have_no_cotangent(boundary: str) -> None:
    layer = Layer((2, 4, 34, 4, 5), (1, 1, 3, 3), (3, 2), stride=(2, 2, 1, 1), boundary=boundary)
    assert plan_for(layer) is not None
    with poisoned_memory():
        assert_right(layer)


def test_tiles_are_used_where_auto_would_take_taps() -> None:
    layer = Layer(**PAPER, boundary="zero")
    with tuned(costs=replace(Costs(), dft_mac=1.0)):
        assert plan_for(layer) is not None


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_both_ways_agree_and_threads_repeat_bit_for_bit(boundary: str) -> None:
    layer = Layer(**{**PAPER, "shape": (3, 6, 32, 8, 16)}, dtype="float32", boundary=boundary)
    with threads(2):
        first, second = layer.run(), layer.run()
    assert np.array_equal(first, second)
    for elements in (1, 1 << 25):
        with written_out(), tuned(expansion_elements=elements):
            assert np.abs(layer.run() - first).max() <= C * eps("float32") * layer.scale
            assert_right(layer)


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_sums_over_many_positions(boundary: str) -> None:
    """More than `MAX_TERMS` of them are passed on in double precision."""
    layer = Layer((160, 3, 32, 3, 3), (3, 1, 3, 3), (2, 3), "float32", boundary=boundary)
    assert plan_for(layer) is not None
    assert_right(layer)


def test_dtypes_are_promoted_as_numpy_promotes() -> None:
    layer = Layer(**PAPER, dtype="float32", boundary="zero")
    layer.operands[1] = layer.operands[1].astype("float64")
    y, pullback = vjp(lambda *five: traced_layer(*five, *layer.axes, **layer.options), *layer.operands)
    assert y.dtype == "float64"
    assert np.abs(y - layer.expected()).max() <= C * eps("float64") * layer.scale
    assert [g.dtype for g in pullback(np.ones_like(y))] == [a.dtype for a in layer.operands]


def test_lists_and_numbers_are_arrays() -> None:
    layer = Layer((2, 3, 9, 4, 5), (3, 2, 3, 3), (3, 2), boundary="zero")
    *four, _ = layer.operands
    found = factored_layer(*(a.tolist() for a in four), 0.5, *layer.axes, **layer.options)  # type: ignore[call-overload]
    assert np.array_equal(found, factored_layer(*four, np.array(0.5), *layer.axes, **layer.options))


def test_second_derivatives() -> None:
    layer = Layer((2, 3, 9, 4, 5), (3, 2, 3, 3), (3, 2), stride=(1, 1, 2, 1), boundary="zero")
    check_grads(lambda *five: (traced_layer(*five, *layer.axes, **layer.options) ** 2).sum(), order=2)(*layer.operands)


def test_biases_of_any_shape() -> None:
    layer = Layer(**PAPER, boundary="periodic")
    layer.operands[4] = noise(5, (3, 1, 4, 1, 12), "float64")  # along u1, v1 and k
    y, pullback = vjp(lambda *five: traced_layer(*five, *layer.axes, **layer.options), *layer.operands)
    assert np.abs(y - layer.expected()).max() <= C * eps("float64") * layer.scale
    c = noise(6, y.shape, "float64")
    of_y = c * (np.minimum(layer.expected(), 0) + 1)
    expected = of_y.sum((0, 2, 4))[:, None, :, None]
    assert np.abs(pullback(c)[4] - expected).max() <= C * eps("float64") * norm(c) * layer.scale


def test_nan_stays_where_it_is_read() -> None:
    """Along space a NaN reaches the patches that hold it, through the first filters."""
    layer = Layer(**PAPER, boundary="zero")
    layer.operands[0][1, 2, 10, 3, 4] = np.nan
    spoilt = np.isnan(layer.run()).any(axis=(3, 4, 5))
    expected = np.zeros_like(spoilt)
    expected[1, 1:4, 9:12] = True
    assert np.array_equal(spoilt, expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"g_axes": (2, 3)}, r"h_axes and g_axes both name \[2\]; an axis has one filter"),
        ({"h": (3, 3)}, r"h has shape \(3, 3\); it needs 2 convolved axes, and one for q"),
        ({"shift": (5,)}, r"shift has shape \(5,\); it needs \(6,\), a number for each filter of h"),
        ({"g": (5, 7, 11, 12)}, r"w has shape \(5, 7, 11, 12\); its leading axes must be \(6,\)"),
        ({"bias": (4,)}, r"bias has shape \(4,\), which does not broadcast to \(2, 3, 33, 4, 8, 12\)"),
        ({"boundary": "mirror"}, "boundary is 'mirror'; choose 'periodic' or 'zero'"),
        ({"stride": (1, 1)}, "stride has 2 entries for 4 axes; give one, or one per axis"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], message: str) -> None:
    layer = Layer(**PAPER, boundary="zero")
    named = dict(zip(("x", "h", "shift", "g", "bias"), layer.operands, strict=True))
    named |= {name: np.ones(value) for name, value in change.items() if name in named}
    options = {"h_axes": (1, 2), "g_axes": (3, 4), **layer.options}
    options |= {name: value for name, value in change.items() if name not in named}
    h_axes, g_axes = options.pop("h_axes"), options.pop("g_axes")
    with pytest.raises(ValueError, match=message):
        factored_layer(*named.values(), h_axes, g_axes, **options)
