"""Winograd's F(4, 3): input, filter and output transforms, products tile by tile, and their adjoints."""

# mypy: disable-error-code="attr-defined,call-arg,misc,no-any-return,no-untyped-call,untyped-decorator"

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from hcnn_core._engines.cpu.kernels.elu import elu_run
from hcnn_core._engines.cpu.kernels.gemm import (
    ADD,
    ORIGIN,
    SET,
    add_rows,
    block_bounds,
    combine_some_lines,
    correlate_rows,
    lines_at_once,
)
from hcnn_core._engines.cpu.kernels.jit import compiled
from hcnn_core._engines.cpu.kernels.vectors import INT64, VECTOR_BYTES, Array, Vectors, load_offset

# F(4, 3) of Winograd: 4 results of 3 taps by 6 products (arXiv:1509.09308), y = RESULTS [(FACTORS w) * (SAMPLES x)]
SAMPLES = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)


FACTORS = np.array(
    (
        (1 / 4, 0, 0),
        (-1 / 6, -1 / 6, -1 / 6),
        (-1 / 6, 1 / 6, -1 / 6),
        (1 / 24, 1 / 12, 1 / 6),
        (1 / 24, -1 / 12, 1 / 6),
        (0, 0, 1),
    )
)


RESULTS = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))


MAPS = (SAMPLES, RESULTS, tuple(zip(*SAMPLES, strict=True)), tuple(zip(*RESULTS, strict=True)))


OF_SAMPLES, OF_RESULTS, SAMPLES_TRANSPOSED, RESULTS_TRANSPOSED = range(4)


@intrinsic(prefer_literal=True)
def linear(typing: Any, like: Any, which: Any, how: Any, out: Any, places: Any, x: Any, table: Any, n: Any) -> Any:
    """Write a row of n bytes for each of a matrix of MAPS: the sum over j of entry j times row j of x.

    Row i begins at out + places[i], row j at x + table[j]. How: SET, or ADD to what is there, where rows may be the
    same.
    """
    if not isinstance(which, types.IntegerLiteral) or not isinstance(how, types.IntegerLiteral):
        return None
    signature = types.void(like, which, how, *(types.int64,) * 5)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out, places, x, table, n = arguments[3:]
        matrix = MAPS[which.literal_value]
        sources = [builder.add(x, load_offset(builder, table, INT64(j))) for j in range(len(matrix[0]))]
        targets = [builder.add(out, load_offset(builder, places, INT64(i))) for i in range(len(matrix))]

        def write(lanes: int) -> None:
            """In vectors, of which the last begins earlier; what they have in common is not added twice."""
            v = Vectors(builder, like.dtype, lanes)
            step, zero = INT64(lanes * v.size), v.constant(0)
            last, count = builder.sub(n, step), builder.sdiv(builder.add(n, builder.sub(step, INT64(1))), step)
            with cgutils.for_range(builder, count) as loop:
                here = builder.mul(loop.index, step)
                at = builder.select(builder.icmp_signed("<", here, last), here, last)
                terms = [v.load(builder.add(source, at)) for source in sources]
                done = v.first_lanes(builder.sdiv(builder.sub(here, at), INT64(v.size)))
                for row, target in zip(matrix, targets, strict=True):
                    total = None
                    for entry, term in zip(row, terms, strict=True):
                        if entry and total is None:
                            total = term if entry == 1 else builder.fmul(term, v.constant(entry))
                        elif entry:
                            total = builder.call(v.fma, [term, v.constant(entry), total])
                    place = builder.add(target, at)
                    if how.literal_value == ADD:
                        total = builder.fadd(v.load(place), builder.select(done, zero, total))
                    builder.store(total, v.at(place, 0), align=v.size)

        with builder.if_else(builder.icmp_signed("<", n, INT64(VECTOR_BYTES))) as (short, long):
            with short:
                write(1)
            with long:
                write(8 * VECTOR_BYTES // like.dtype.bitwidth)
        return context.get_dummy_value()

    return signature, generate


@compiled(inline="always")
def _places_apart(places: Array, step: int) -> Any:
    """Note rows that lie one step after the other, and say where that is noted."""
    for k in range(places.size):
        places[k] = k * step
    return places.ctypes.data


@compiled(inline="always")
def _places_of_lines(places: Array, x: Array, six: Array, missing: Array) -> Any:
    """Likewise six lines of x, of which -1 is `missing`."""
    for k in range(six.size):
        places[k] = missing.ctypes.data if six[k] < 0 else x[six[k]].ctypes.data
    return places.ctypes.data


@compiled()
def _tiles_of_samples(tiles: Array, x: Array, six: Array, missing: Array, runs: Array, places: Array) -> None:
    """Write SAMPLES of six lines of x (columns, lines, elements) to tiles (6, columns, elements), extended.

    Line -1 is `missing`, of zeros. Runs (where to, from where in a line or -1, how many) count elements, -1 stands for
    zeros. `places` is room for where rows lie.
    """
    of_tiles = _places_apart(places[0], tiles.strides[0])
    for column in range(x.shape[0]):
        of_lines = _places_of_lines(places[1], x[column], six, missing)
        for begin, source, count in runs:
            if source < 0:
                tiles[:, column, begin : begin + count] = 0
            else:
                to, size = tiles[0, column, begin:].ctypes.data, count * x.itemsize
                linear(x, OF_SAMPLES, SET, to, of_tiles, source * x.itemsize, of_lines, size)


@compiled()
def _samples_of_tiles(x: Array, tiles: Array, six: Array, missing: Array, runs: Array, places: Array) -> None:
    """Transpose of `_tiles_of_samples`, added to x; what comes to `missing` is of no use."""
    of_tiles = _places_apart(places[0], tiles.strides[0])
    for column in range(x.shape[0]):
        of_lines = _places_of_lines(places[1], x[column], six, missing)
        for begin, source, count in runs:
            if source >= 0:
                taken, size = tiles[0, column, begin:].ctypes.data, count * x.itemsize
                linear(x, SAMPLES_TRANSPOSED, ADD, source * x.itemsize, of_lines, taken, of_tiles, size)


@compiled()
def _results_of_products(
    out: Array, first: int, n: int, products: Array, length: int, line: int, lines: int, each: int, places: Array,
    bias: Array,
) -> None:  # fmt: skip
    """Write RESULTS of products (6, rows, positions) to out (rows, lines, positions), or the ELU of that and a bias.

    The products are of so many lines of a length, from `line` on. A tile has `each` of them, which come to lie n apart,
    the first at `first`.
    """
    to_results, of_products = _places_apart(places[0], out.strides[1]), _places_apart(places[1], products.strides[0])
    done = 0
    while done < lines:
        tile, within = divmod(line + done, each)
        met = min(lines - done, each - within)  # all that lie one after the other
        for row in range(out.shape[0]):
            to = out[row, 4 * tile, first + within * n :].ctypes.data
            taken = products[0, row, done * length :].ctypes.data
            linear(out, OF_RESULTS, SET, to, to_results, taken, of_products, met * length * out.itemsize)
            for result in range(4 if bias.size else 0):
                at = to + places[0, result]
                elu_run(out, at, at, met * length, bias[row])
        done += met


@compiled()
def apply_tiled(
    out: Array, first: int, x: Array, six: Array, missing: Array, n: int, table: Array, starts: Array, runs: Array,
    places: Array, tiles: Array, products: Array, matrices: Array, bias: Array,
) -> None:  # fmt: skip
    """Write to out (entries, rows, lines, positions) the products of matrices with the taps of x, 3 along lines.

    Each 4 lines, around which lie six (tiles, 6), by 6 products, of matrices (entries or 1, 6, K, rows). A product has
    the positions of a line, from `first` on, as `apply` has all; K counts the taps along the other axes. x is (entries,
    columns, lines, elements), `missing` a line of zeros; `tiles` (6, some tiles, columns, elements) and `products` (6,
    some rows, some positions) are room, `starts` those of as many tiles. With a bias (rows,), the ELU of their sum is
    written.
    """
    size, lanes, width = x.itemsize, VECTOR_BYTES // x.itemsize, products.shape[2]
    each = starts.size // tiles.shape[1]
    together, parts = max(1, min(lines_at_once(x, n), width // n)), -(-n // width)
    strips = -(-out.shape[1] // products.shape[1])
    for entry in range(x.shape[0]):
        matrix = matrices[min(entry, matrices.shape[0] - 1)]
        for tile in range(0, six.shape[0], tiles.shape[1]):
            count = min(tiles.shape[1], six.shape[0] - tile)
            for k in range(count):
                _tiles_of_samples(tiles[:, k], x[entry], six[tile + k], missing, runs, places)
            for line in range(0, count * each, together):
                of_lines = starts[line : min(line + together, count * each)]
                for part in range(parts * strips):
                    c, strip = divmod(part, strips)
                    begin, end = block_bounds(c, n, width, lanes)
                    row, last = strip * products.shape[1], min((strip + 1) * products.shape[1], out.shape[1])
                    for p in range(6):
                        to, source = products[p].ctypes.data, tiles[p].ctypes.data + begin * size
                        factors = matrix[p, :, row:last]
                        combine_some_lines(x, to, products.strides[1], end - begin, source, of_lines, table, factors)
                    _results_of_products(
                        out[entry, row:last, 4 * tile :], first + begin, n, products, end - begin, line, of_lines.size,
                        each, places, bias[row:last],
                    )  # fmt: skip


@compiled()
def factors_of_tiles(w: Array, out: Array) -> None:
    """Write FACTORS w for filters (entries, columns, groups, 3, rows) to out (entries, 6, columns * groups, rows)."""
    entries, columns, groups, _, rows = w.shape
    for entry in range(entries):
        for column in range(columns):
            for group in range(groups):
                taps = w[entry, column, group]
                for p in range(6):
                    target = out[entry, p, column * groups + group]
                    for row in range(rows):
                        target[row] = (
                            FACTORS[p, 0] * taps[0, row] + FACTORS[p, 1] * taps[1, row] + FACTORS[p, 2] * taps[2, row]
                        )


@compiled()
def factors_transpose(total: Array, w: Array) -> None:
    """Transpose of `factors_of_tiles`."""
    entries, columns, groups, _, rows = w.shape
    for entry in range(entries):
        for column in range(columns):
            for group in range(groups):
                for tap in range(3):
                    for row in range(rows):
                        s = 0.0
                        for p in range(6):
                            s += FACTORS[p, tap] * total[entry, p, column * groups + group, row]
                        w[entry, column, group, tap, row] = s


@compiled()
def adjoints_tiled(
    g: Array, first: int, x: Array, six: Array, missing: Array, n: int, table: Array, starts: Array, runs: Array,
    places: Array, tiles: Array, cotangents: Array, rows: Array, total: Array, sums: Array, matrices: Array, gx: Array,
    more: bool,
) -> None:  # fmt: skip
    """Cotangents of `apply_tiled` for those of its results, g: of matrices added to total, of x written to gx.

    g is (entries, rows, lines, positions), of which those from `first` on are read, `six` (tiles, 6). Total is
    (entries, 6, K, rows), gx (entries, columns, lines, elements), the matrices for it (entries or 1, 6, taps in K of a
    column, rows, columns); without entries either is left out. With `more`, what gx has is added. Both read the same
    tiles of g: `cotangents` is room for (6, rows, positions) of some positions, `rows` are their offsets, `sums` is
    room for more `tiles`, `missing` for two lines, the first of zeros.
    """
    size, lanes, width = g.itemsize, VECTOR_BYTES // g.itemsize, cotangents.shape[2]
    parts, of_results = -(-n // width), _places_apart(places[2], g.strides[2])
    of_cotangents = _places_apart(places[3], cotangents.strides[0])
    for entry in range(g.shape[0]):
        if gx.shape[0] and not more:
            gx[entry] = 0
        matrix = matrices[min(entry, matrices.shape[0] - 1)]
        for tile in range(six.shape[0]):
            if total.shape[0]:
                _tiles_of_samples(tiles, x[entry], six[tile], missing[0], runs, places)
            if gx.shape[0]:
                sums[:] = 0
            for part in range(starts.size * parts):
                line, c = divmod(part, parts)
                begin, end = block_bounds(c, n, width, lanes)
                count = end - begin
                for row in range(g.shape[1]):
                    source = g[entry, row, 4 * tile, first + line * n + begin :].ctypes.data
                    to = cotangents[0, row].ctypes.data
                    linear(g, RESULTS_TRANSPOSED, SET, to, of_cotangents, source, of_results, count * size)
                at = (starts[line] + begin) * size
                for p in range(6):
                    y = cotangents[p].ctypes.data
                    if total.shape[0]:
                        source = tiles[p].ctypes.data + at
                        correlate_rows(total[entry, p], source, table, y, cotangents.strides[1], 0, count, ORIGIN)
                    for tap in range(matrix.shape[1] if gx.shape[0] else 0):
                        to = sums[p].ctypes.data + at + table[tap]
                        add_rows(g, to, sums.strides[1], count, y, rows, matrix[p, tap])
            if gx.shape[0]:
                _samples_of_tiles(gx[entry], sums, six[tile], missing[1], runs, places)
