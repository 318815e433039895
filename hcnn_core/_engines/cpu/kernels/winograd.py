"""Winograd's F(4, 3): input, filter and output transforms, products tile by tile, and their adjoints."""

# mypy: disable-error-code="attr-defined,call-arg,misc,no-any-return,no-untyped-call,untyped-decorator"

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from hcnn_core._engines.cpu.kernels.elu import elu_line
from hcnn_core._engines.cpu.kernels.gemm import (
    ADD,
    ORIGIN,
    SET,
    add_gemm_rows,
    block_bounds,
    correlate_rows,
    gemm_block,
    lines_at_once,
)
from hcnn_core._engines.cpu.kernels.jit import compiled
from hcnn_core._engines.cpu.kernels.operands import NDArray, Tiling, WinogradWorkspace
from hcnn_core._engines.cpu.kernels.vectors import INT64, VECTOR_BYTES, Vectors, address, load_offset

# F(4, 3) makes 4 results of 3 taps by 6 products: y = OUTPUT [(FILTER w) * (INPUT x)], arXiv:1509.09308
INPUT = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)

FILTER = np.array(
    (
        (1 / 4, 0, 0),
        (-1 / 6, -1 / 6, -1 / 6),
        (-1 / 6, 1 / 6, -1 / 6),
        (1 / 24, 1 / 12, 1 / 6),
        (1 / 24, -1 / 12, 1 / 6),
        (0, 0, 1),
    )
)

OUTPUT = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))

MAPS = (INPUT, OUTPUT, tuple(zip(*INPUT, strict=True)), tuple(zip(*OUTPUT, strict=True)))

INPUT_TRANSFORM, OUTPUT_TRANSFORM, INPUT_TRANSPOSE, OUTPUT_TRANSPOSE = range(4)
"""Indices of MAPS."""


@intrinsic(prefer_literal=True)
def linear(typing: Any, like: Any, which: Any, how: Any, out: Any, places: Any, x: Any, table: Any, n: Any) -> Any:
    """Apply one of MAPS to rows of n bytes: write sum over j of matrix[i, j] * row j of x to row i of out.

    Row i of out begins at out + places[i], row j of x at x + table[j]. `how` is SET, or ADD to the output. With ADD
    rows of out may coincide.
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
            """Write all vectors. The last begins earlier, and does not add again what the one before it added."""
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
def _evenly_spaced(places: NDArray, step: int) -> Any:
    """Fill a table with multiples of a step; return its address."""
    for k in range(places.size):
        places[k] = k * step
    return address(places)


@compiled(inline="always")
def _addresses_of_lines(places: NDArray, x: NDArray, six: NDArray, missing: NDArray) -> Any:
    """Fill a table with the addresses of six lines of x, of `missing` where a line is -1; return its address."""
    for k in range(six.size):
        places[k] = address(missing) if six[k] < 0 else address(x[six[k]])
    return address(places)


@compiled()
def _transform_input(
    tile: NDArray, x: NDArray, six: NDArray, missing: NDArray, segments: NDArray, places: NDArray
) -> None:
    """Input transform: INPUT @ six lines of x (columns, lines, elements) -> tile (6, columns, elements), extended."""
    of_tile = _evenly_spaced(places[0], tile.strides[0])
    for column in range(x.shape[0]):
        of_lines = _addresses_of_lines(places[1], x[column], six, missing)
        for begin, source, count in segments:
            if source < 0:
                tile[:, column, begin : begin + count] = 0
            else:
                to, size = address(tile[0, column, begin:]), count * x.itemsize
                linear(x, INPUT_TRANSFORM, SET, to, of_tile, source * x.itemsize, of_lines, size)


@compiled()
def _transform_input_transpose(
    x: NDArray, tile: NDArray, six: NDArray, missing: NDArray, segments: NDArray, places: NDArray
) -> None:
    """Add the transpose of `_transform_input` of a tile to x. What is written to `missing` is not used."""
    of_tile = _evenly_spaced(places[0], tile.strides[0])
    for column in range(x.shape[0]):
        of_lines = _addresses_of_lines(places[1], x[column], six, missing)
        for begin, source, count in segments:
            if source >= 0:
                taken, size = address(tile[0, column, begin:]), count * x.itemsize
                linear(x, INPUT_TRANSPOSE, ADD, source * x.itemsize, of_lines, taken, of_tile, size)


@compiled()
def _transform_output(
    out: NDArray, first: int, n: int, products: NDArray, length: int, line: int, lines: int, per_tile: int,
    places: NDArray, bias: NDArray,
) -> None:  # fmt: skip
    """Output transform: OUTPUT @ products (6, rows, positions) -> out (rows, lines, positions), or the ELU with a bias.

    The products are of `lines` lines of some length, from `line` on. A tile has `per_tile` lines. They begin n apart
    in out, the first at position `first`.
    """
    to_results, of_products = _evenly_spaced(places[0], out.strides[1]), _evenly_spaced(places[1], products.strides[0])
    done = 0
    while done < lines:
        tile, within = divmod(line + done, per_tile)
        count = min(lines - done, per_tile - within)  # lines of one tile are contiguous
        for row in range(out.shape[0]):
            to = address(out[row, 4 * tile, first + within * n :])
            taken = address(products[0, row, done * length :])
            linear(out, OUTPUT_TRANSFORM, SET, to, to_results, taken, of_products, count * length * out.itemsize)
            for result in range(4 if bias.size else 0):
                at = to + places[0, result]
                elu_line(out, at, at, count * length, bias[row])
        done += count


@compiled()
def apply_tiled(
    out: NDArray, first: int, x: NDArray, tiling: Any, workspace: Any, matrices: NDArray, bias: NDArray
) -> None:  # fmt: skip
    """Write the products of matrices (entries or 1, 6, K, rows) with the taps of x to out (entries, rows, lines, .).

    The three taps along lines go by tiles: four lines of results from six lines of x by six products. K counts the taps
    along the other axes, of all columns. x is (entries, columns, lines, elements). Positions of a line are written from
    `first` on. With a bias (rows,), the ELU of the sum is written. tiling is a `Tiling`, workspace a
    `WinogradWorkspace`; their lines are those of as many tiles as the workspace holds.
    """
    tiling, workspace = Tiling(*tiling), WinogradWorkspace(*workspace)
    inputs, products, n, starts = workspace.inputs, workspace.outputs, tiling.n, tiling.starts
    size, lanes, width = x.itemsize, VECTOR_BYTES // x.itemsize, products.shape[2]
    tiles_held, rows_held = inputs.shape[1], products.shape[1]
    per_tile = starts.size // tiles_held
    together, blocks = max(1, min(lines_at_once(x, n), width // n)), -(-n // width)
    row_blocks = -(-out.shape[1] // rows_held)
    for entry in range(x.shape[0]):
        matrix = matrices[min(entry, matrices.shape[0] - 1)]
        for tile in range(0, tiling.six.shape[0], tiles_held):
            count = min(tiles_held, tiling.six.shape[0] - tile)
            for k in range(count):
                six = tiling.six[tile + k]
                _transform_input(inputs[:, k], x[entry], six, workspace.missing, tiling.segments, workspace.places)
            for line in range(0, count * per_tile, together):
                some = starts[line : min(line + together, count * per_tile)]
                for index in range(blocks * row_blocks):
                    block, row_block = divmod(index, row_blocks)
                    begin, end = block_bounds(block, n, width, lanes)
                    row, last = row_block * rows_held, min((row_block + 1) * rows_held, out.shape[1])
                    # (6, rows, K) @ (6, K, lines * positions) -> (6, rows, lines * positions)
                    for p in range(6):
                        to, source = address(products[p]), address(inputs[p]) + begin * size
                        factors = matrix[p, :, row:last]
                        gemm_block(to, products.strides[1], end - begin, source, some, tiling.offsets, factors)
                    # (6, rows, lines * positions) -> (rows, 4 lines, positions)
                    _transform_output(
                        out[entry, row:last, 4 * tile :], first + begin, n, products, end - begin, line, some.size,
                        per_tile, workspace.places, bias[row:last],
                    )  # fmt: skip


@compiled()
def transform_filters(w: NDArray, out: NDArray) -> None:
    """Filter transform: FILTER @ w, (entries, columns, groups, 3, rows) -> (entries, 6, columns * groups, rows).

    A group is a combination of taps along the other axes.
    """
    entries, columns, groups, _, rows = w.shape
    for entry in range(entries):
        for column in range(columns):
            for group in range(groups):
                taps = w[entry, column, group]
                for p in range(6):
                    target = out[entry, p, column * groups + group]
                    for row in range(rows):
                        target[row] = (
                            FILTER[p, 0] * taps[0, row] + FILTER[p, 1] * taps[1, row] + FILTER[p, 2] * taps[2, row]
                        )


@compiled()
def transform_filters_transpose(total: NDArray, w: NDArray) -> None:
    """Transpose of `transform_filters`, from total to w."""
    entries, columns, groups, _, rows = w.shape
    for entry in range(entries):
        for column in range(columns):
            for group in range(groups):
                for tap in range(3):
                    for row in range(rows):
                        s = 0.0
                        for p in range(6):
                            s += FILTER[p, tap] * total[entry, p, column * groups + group, row]
                        w[entry, column, group, tap, row] = s


@compiled()
def adjoints_tiled(
    g: NDArray, first: int, x: NDArray, tiling: Any, workspace: Any, rows: NDArray, total: NDArray, matrices: NDArray,
    gx: NDArray, add: bool,
) -> None:  # fmt: skip
    """Cotangents of `apply_tiled` for g (entries, rows, lines, positions): add to total, and write or `add` to gx.

    Positions of g are read from `first` on. total (entries, 6, K, rows) is the cotangent of the matrices, gx (entries,
    columns, lines, elements) that of x. An array without entries is left out. Matrices are (entries or 1, 6, taps in K
    of a column, rows, columns), `rows` the offsets of rows of `workspace.outputs` in bytes.
    """
    tiling, workspace = Tiling(*tiling), WinogradWorkspace(*workspace)
    tile_inputs, cotangents, sums, places = workspace.inputs, workspace.outputs, workspace.sums, workspace.places
    size, lanes, width, n = g.itemsize, VECTOR_BYTES // g.itemsize, cotangents.shape[2], tiling.n
    blocks, of_results = -(-n // width), _evenly_spaced(places[2], g.strides[2])
    of_cotangents = _evenly_spaced(places[3], cotangents.strides[0])
    for entry in range(g.shape[0]):
        if gx.shape[0] and not add:
            gx[entry] = 0
        matrix = matrices[min(entry, matrices.shape[0] - 1)]
        for tile in range(tiling.six.shape[0]):
            six = tiling.six[tile]
            if total.shape[0]:
                _transform_input(tile_inputs, x[entry], six, workspace.missing[0], tiling.segments, places)
            if gx.shape[0]:
                sums[:] = 0
            for index in range(tiling.starts.size * blocks):
                line, block = divmod(index, blocks)
                begin, end = block_bounds(block, n, width, lanes)
                count = end - begin
                for row in range(g.shape[1]):
                    source = address(g[entry, row, 4 * tile, first + line * n + begin :])
                    to = address(cotangents[0, row])
                    linear(g, OUTPUT_TRANSPOSE, SET, to, of_cotangents, source, of_results, count * size)
                at = (tiling.starts[line] + begin) * size
                for p in range(6):
                    y = address(cotangents[p])
                    if total.shape[0]:  # (K, positions) @ (positions, rows)
                        source = address(tile_inputs[p]) + at
                        step = cotangents.strides[1]
                        correlate_rows(total[entry, p], source, tiling.offsets, y, step, 0, count, ORIGIN)
                    for tap in range(matrix.shape[1] if gx.shape[0] else 0):  # (columns, rows) @ (rows, positions)
                        to = address(sums[p]) + at + tiling.offsets[tap]
                        add_gemm_rows(to, sums.strides[1], count, y, rows, matrix[p, tap])
            if gx.shape[0]:
                _transform_input_transpose(gx[entry], sums, six, workspace.missing[1], tiling.segments, places)
