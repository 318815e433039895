"""The work of products by kernels that fill register tiles, in multiply-adds of full tiles.

The numbers are those of vectors of 64 bytes and float32, on which the cost model's coefficients were measured.
"""

from __future__ import annotations

from functools import lru_cache

LANES, LATENCY = 16, 4
"""Numbers in a vector, and cycles until the same vector can be added to again. A cycle has two additions or reads."""

SHARED = 24
"""Kernels fill register tiles with several lines where a line is shorter than this many vectors."""

LEAST_NEAR = 3
"""Neighbouring lines of a single row share the samples they read if each reads at least this many lines."""

TILES = (8, (3, 1)), (2, (8, 4, 2, 1)), (1, (8, 4, 2, 1))
"""Register tiles of the kernels: rows, and the numbers of vectors per row."""


@lru_cache(maxsize=4096)
def sums(rows: int, n: int, size: int = 0) -> float:
    """Cost of adding one term to `rows` rows of n sums.

    Several short lines share a tile. Neighbouring lines of a single row share the samples they read; `size` is the
    length of the filter across those lines, 0 if there are none.
    """
    if rows == 1 and size >= LEAST_NEAR and n >= 2 * LANES:
        return 2 * LANES * -(-n // (2 * LANES))
    cycles, lines = 0.0, lines_at_once(n)
    for tall, widths in TILES:
        vectors = lines * -(-n // LANES)
        for wide in widths:
            reads = 1.5 * wide + tall  # every other vector crosses a cache line
            cycles += rows // tall * (vectors // wide) * max(tall * wide, reads, 2 * LATENCY) / 2
            vectors %= wide
        rows %= tall
    return 2 * LANES * cycles / lines


def sums_of_products(columns: int, rows: int, n: int) -> float:
    """Cost of adding a line of n terms to each product of a column and a row."""
    tiles = rows // 4 + (1 if rows % 4 == 3 else 0.5 * (rows % 4))
    return 4 * tiles * columns * -(-n // LANES) * LANES


def lines_at_once(n: int) -> int:
    """How many lines of n results share register tiles."""
    return SHARED if LANES <= n < SHARED * LANES else 1
