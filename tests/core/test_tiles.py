"""F(4, 3) in tiles against taps gathered beside each other: results, both cotangents, in blocks of any size."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hcnn_core import convolve, convolve_elu, convolve_vjp_x
from hcnn_core._engines import cost_model, planner
from hcnn_core._engines.devices import NUMPY
from hcnn_core._engines.generic.im2col import Im2col
from hcnn_core._engines.planner import make_plan
from hcnn_core._engines.taps import Taps
from hcnn_core._problem import make_problem
from hcnn_core._tuning import DEFAULT, Tuning, tuned
from hcnn_core.convolution import adjoints
from tests.core.oracle import BOUNDARIES, assert_close, lay_out, noise, poisoned_memory, threads

numba = pytest.importorskip("numba")

from hcnn_core._engines.cpu import winograd as tiles  # noqa: E402


@st.composite
def taps_in_tiles(draw: st.DrawFn) -> Taps:
    """The axis that is cut into tiles, and one or two of any kind after it."""
    others = range(draw(st.integers(1, 2)))
    batch = draw(st.one_of(st.integers(1, 3), st.integers(16, 35)))
    lengths = [4 * draw(st.integers(1, 3))] + [draw(st.integers(1, 7)) for _ in others]
    stride = [1] + [draw(st.integers(1, 3)) for _ in others]
    if batch < 16:  # the last axis fills vectors
        lengths[-1] = draw(st.integers(16 * stride[-1], 40 * stride[-1]))
    return Taps(
        lengths=tuple(lengths),
        out_lengths=tuple(-(-n // r) for n, r in zip(lengths, stride, strict=True)),
        sizes=(3, *(draw(st.integers(1, 4)) for _ in others)),
        stride=tuple(stride),
        periodic=tuple(draw(st.booleans()) for _ in lengths),
        batch=batch,
        tiled=True,
    )


VOLUME = Taps((8, 3, 3), (8, 3, 3), (3, 2, 3), (1, 1, 1), (True, False, True), 17, tiled=True)
WRAPPED = Taps((4, 5), (4, 5), (3, 3), (1, 1), (True, True), 16, tiled=True)
"""One tile, which reads two lines twice."""
IMAGE = Taps((12, 17), (12, 17), (3, 3), (1, 1), (True, True), 1, tiled=True)
"""No batch: what wraps around is a single number, and lines share tiles of registers."""


def results(engine: tiles.WinogradProducts, x: np.ndarray, filters: np.ndarray, count: int) -> np.ndarray:
    """The results, block by block; each position is in one."""
    t = engine.taps
    y = np.full((len(x), filters.shape[1], t.leading * t.positions), np.nan, x.dtype)
    for block in engine.blocks(count):
        out = np.empty((*y.shape[:2], block.lines, block.n), x.dtype)
        engine.apply_block(out, x, engine.pack(filters), block)
        for line in range(block.lines):
            begin = block.first + line * block.step
            assert np.isnan(y[:, :, begin : begin + block.n]).all()
            y[:, :, begin : begin + block.n] = out[:, :, line]
    return y.reshape(*y.shape[:2], *t.out_lengths, t.batch)


@given(
    taps=taps_in_tiles(),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 11)),
    one_filter=st.booleans(),
    dtype=st.sampled_from(["float32", "float64"]),
    at_once=st.sampled_from([1, 500, 1 << 18]),
    width=st.sampled_from([32, 50, 1 << 10]),
    held=st.sampled_from([1, 4, 8]),
    blocks=st.integers(1, 20),
    seed=st.integers(0, 9),
)
@example(
    taps=VOLUME,
    shape=(1, 2, 3),
    one_filter=False,
    dtype="float32",
    at_once=1 << 18,
    width=1 << 10,
    held=8,
    blocks=1,
    seed=0,
)
@example(taps=VOLUME, shape=(2, 2, 3), one_filter=True, dtype="float64", at_once=1, width=32, held=8, blocks=20, seed=0)
@example(
    taps=WRAPPED, shape=(2, 2, 3), one_filter=True, dtype="float32", at_once=1, width=32, held=8, blocks=20, seed=0
)
@example(
    taps=IMAGE, shape=(2, 2, 9), one_filter=True, dtype="float32", at_once=1 << 18, width=32, held=8, blocks=1, seed=0
)
@example(
    taps=IMAGE, shape=(1, 2, 9), one_filter=True, dtype="float64", at_once=1, width=1 << 10, held=8, blocks=3, seed=0
)
def test_tiles_are_the_products_with_taps_and_their_transposes(
    taps: Taps,
    shape: tuple[int, int, int],
    one_filter: bool,
    dtype: str,
    at_once: int,
    width: int,
    held: int,
    blocks: int,
    seed: int,
) -> None:
    assert tiles.WinogradProducts.supports(taps, DEFAULT)
    (count, columns, rows), rng = shape, np.random.default_rng(seed)
    x = rng.standard_normal((count, columns, *taps.lengths, taps.batch)).astype(dtype)
    g = rng.standard_normal((count, rows, *taps.out_lengths, taps.batch)).astype(dtype)
    filters = rng.standard_normal((1 if one_filter else count, rows, taps.count * columns)).astype(dtype)
    oracle, (wide_x, wide_g, wide) = Im2col(taps, Tuning()), (a.astype(np.float64) for a in (x, g, filters))

    sizes = {
        "winograd_elements": at_once,
        "winograd_positions": width,
        "winograd_rows": held,
        "winograd_terms": 0,
    }
    with tuned(**sizes) as tuning, mock.patch.object(tiles, "tiles_pay", lambda *_: True), poisoned_memory():
        engine, wanted = tiles.WinogradProducts(taps, tuning), oracle.apply(np, wide_x, wide)
        assert_close(results(engine, x, filters, blocks), wanted, x, filters)
        assert_close(engine.apply(np, x, filters), wanted, x, filters)
        bias = rng.standard_normal(rows).astype(dtype)
        added = wanted + bias.reshape(1, -1, *(1,) * (wanted.ndim - 2))
        assert_close(engine.apply(np, x, filters, bias), np.where(added > 0, added, np.expm1(added)), x, filters)
        assert_close(engine.apply_transpose(np, g, filters), oracle.apply_transpose(np, wide_g, wide), g, filters)
        packed = engine.pack_back(filters)
        of_signal, of_packed = engine.adjoints(g, x, packed, engine.blank(count, columns, rows, dtype))
        both = of_signal, engine.unpack(of_packed)
        assert both[0].dtype == both[1].dtype == dtype
        assert_close(both[0], oracle.apply_transpose(np, wide_g, wide), g, filters)
        assert_close(both[1], oracle.correlate(np, wide_g, wide_x), g, x)
        for one, of_x, of_w in ((0, None, packed), (1, x, None)):
            alone = engine.adjoints(g, of_x, of_w, engine.blank(count, columns, rows, dtype) if one else None)
            assert alone[1 - one] is None
            np.testing.assert_array_equal(alone[one], (of_signal, of_packed)[one])


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("taps", [1, 2, 9, 10])
@pytest.mark.parametrize("held", [1, 20_000, 1 << 18])
def test_cotangents_by_blocks_of_the_axis_in_tiles(boundary: str, taps: int, held: int) -> None:
    """Lines of the signal that two blocks read, or that a boundary brings to the first and the last, are added up."""
    x, w = lay_out(noise(0, (17, 9, 12, 6, 6, 2), "float32"), "F"), noise(1, (2, taps, 3, 3, 5, 3), "float32")
    axes, bias = (1, 2, 3, 4), noise(2, (3,), "float32")
    options = {"boundary": boundary, "stride": (1, 1, 2, 2), "method": ("direct", "direct", "fft", "fft")}
    problem = make_problem(x.shape, w.shape, axes, sum_axes=(5,), **options)
    ans = convolve_elu(x, w, bias, axes, sum_axes=5, **options)
    g = lay_out(noise(3, ans.shape, "float32"), "F")
    wide = [a.astype(np.float64) for a in (g, x, w, ans)]
    expected = adjoints(np, problem, *wide)
    with (
        tuned(cotangent_elements=held),
        threads(2),
        poisoned_memory(),
        mock.patch.object(
            tiles.WinogradProducts, "adjoints", autospec=True, side_effect=tiles.WinogradProducts.adjoints
        ) as products,
    ):
        found = adjoints(np, problem, g, x, w, ans)
        count = products.call_count
        alone = adjoints(np, problem, g, None, w, ans)[0], adjoints(np, problem, g, x, None, ans)[1]
    assert count == (1 if held == 1 << 18 else 3)
    for value, other, wanted, operand in zip(found, alone, expected, (w, x), strict=False):
        assert_close(value, wanted, g, operand)
        assert_close(other, wanted, g, operand)
    sums = (wide[0] * np.where(wide[3] < 0, wide[3] + 1, 1)).sum(axis=(0, 1, 2, 3, 4))
    assert_close(found[2].sum(axis=tuple(range(found[2].ndim - 1))).astype("float32"), sums, g)


@pytest.mark.parametrize(("lengths", "count"), [((4, 8), 1), ((6, 6), 3)])
def test_a_spectrum_no_larger_than_the_result_is_held_whole(lengths: tuple[int, int], count: int) -> None:
    """That of a periodic grid, unless all lengths are odd, and frequency 0 has an entry of two planes alone."""
    x, w = lay_out(noise(0, (17, 9, 12, *lengths), "float32"), "F"), noise(1, (3, 3, 3, 5, 3), "float32")
    options = {"boundary": "periodic", "stride": (1, 1, 2, 2), "method": ("direct", "direct", "fft", "fft")}
    problem = make_problem(x.shape, w.shape, (1, 2, 3, 4), sum_axes=(), **options)
    g = lay_out(noise(3, problem.y_shape, "float32"), "F")
    with (
        tuned(cotangent_elements=1),
        mock.patch.object(
            tiles.WinogradProducts, "adjoints", autospec=True, side_effect=tiles.WinogradProducts.adjoints
        ) as products,
    ):
        found = adjoints(np, problem, g, x, w)[0]
    assert products.call_count == count
    assert_close(found, adjoints(np, problem, *(a.astype(np.float64) for a in (g, x, w)))[0], g, w)


def test_leading_blocks_are_whole_tiles_and_read_most_lines_once() -> None:
    for lines, held, steps in ((32, 1, [4] * 8), (32, 12, [12, 12, 8]), (32, 31, [28, 4]), (32, 32, [32]), (4, 1, [4])):
        taps = Taps((lines, 8), (lines, 8), (3, 3), (1, 1), (True, True), 16, tiled=True)
        products = tiles.WinogradProducts(taps, Tuning())
        found = list(tiles.leading_blocks(products, held * 8 * 16))
        assert [block.end - block.begin for block in found] == steps
        assert [block.begin for block in found] == list(range(0, lines, steps[0]))


@pytest.mark.parametrize(("sizes", "lengths"), [((3, 5), (8, 12)), ((5, 3), (12, 8)), ((3, 3), (9, 8))])
@pytest.mark.parametrize(("batch", "method"), [(16, "fft"), (15, "fft"), (16, "direct")])
def test_an_axis_that_tiles_cover_comes_first(
    sizes: tuple[int, int], lengths: tuple[int, int], batch: int, method: str
) -> None:
    """Whichever it is, and though another is longer; where nothing is done in tiles, axes stay as they lie."""
    options = {"sum_axes": (4,), "boundary": "zero", "stride": 1, "method": ("direct", "direct", method)}
    problem = make_problem((batch, *lengths, 4, 2), (2, *sizes, 3, 3), (1, 2, 3), **options)
    products = make_plan(problem, np.empty(problem.x_shape, "float32")).products
    assert isinstance(products, tiles.WinogradProducts) == (batch == 16 and method == "fft")
    exchanged = isinstance(products, tiles.WinogradProducts) and (sizes[0] != 3 or lengths[0] % 4)
    assert products.taps.lengths[:2] == (lengths[::-1] if exchanged else lengths)


@pytest.mark.parametrize(
    ("lengths", "channels", "filters", "forwards", "back"),
    [
        ((12, 17), 8, 8, 1, 1),
        ((12, 17), 7, 8, 0, 1),
        ((12, 17), 8, 7, 1, 0),
        ((12, 17), 9, 1, 0, 0),
        ((18, 20), 8, 8, 0, 0),
    ],
)
def test_images_of_some_channels_are_convolved_in_tiles_unless_taps_are_asked_for(
    lengths: tuple[int, int], channels: int, filters: int, forwards: bool, back: bool
) -> None:
    """With enough terms in each sum, and along the first axis; and the cost model knows."""
    x, w = noise(0, (2, channels, *lengths), "float32"), noise(1, (channels, 3, 3, filters), "float32")
    spent = {}
    for method in ("auto", "direct", ("direct", "auto")):
        options = {"sum_axes": 1, "boundary": "periodic", "method": method}
        with mock.patch.object(
            tiles.WinogradProducts, "_apply_tiles", autospec=True, side_effect=tiles.WinogradProducts._apply_tiles
        ) as made:
            y = convolve(x, w, (2, 3), **options)
            assert made.called == (forwards and method == "auto")
            made.reset_mock()
            of_x = convolve_vjp_x(y, x, w, (2, 3), **options)
            assert made.called == (back and method == "auto")
        wide = [a.astype(np.float64) for a in (x, w, y)]
        assert_close(y, convolve(wide[0], wide[1], (2, 3), **options | {"method": "direct"}), x, w)
        assert_close(of_x, convolve_vjp_x(wide[2], x.shape, wide[1], (2, 3), **options | {"method": "direct"}), y, w)
        problem = make_problem(x.shape, w.shape, (2, 3), stride=1, **options)
        choice = NUMPY.by_axis(("direct", "direct"), planner.request_for(problem, x))
        spent[method] = cost_model.units_of(choice)["mac"]
    assert spent["direct", "auto"] == spent["direct"]
    assert (spent["auto"] < spent["direct"]) == (forwards or back)
