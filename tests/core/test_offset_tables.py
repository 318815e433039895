"""Offset tables, which the kernels for processors and those for GPUs share, against an array of every place."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hcnn_core._engines.taps import Taps, line_starts, offset_table, phases_met

lengths = st.integers(1, 4)


@st.composite
def rows(draw: st.DrawFn) -> tuple[tuple[int, ...], int, list[Any], list[Any]]:
    """Shape of an extended row (phases, then indices), batch, positions, and the first position's taps."""
    m, batch = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    phases, counts, sizes = (draw(st.lists(lengths, min_size=m, max_size=m)) for _ in range(3))
    shape = *phases, *(n + size - 1 for n, size in zip(counts, sizes, strict=True))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    taps = [rng.integers(0, n, size) for n, size in zip(phases, sizes, strict=True)]
    positions = [np.zeros(1, int)] * m + [np.arange(n) for n in counts]
    return shape, batch, positions, taps + [rng.permutation(size) for size in sizes]


@given(rows(), st.booleans())
def test_taps_lie_where_the_table_says(row: tuple[tuple[int, ...], int, list[Any], list[Any]], whole: bool) -> None:
    shape, batch, positions, taps = row
    m = len(shape) // 2
    every = np.arange(np.prod(shape) * batch).reshape(*shape, batch)
    starts, offsets = offset_table(shape, batch, positions, taps, whole=whole)
    assert np.array_equal(starts, line_starts(shape, batch, positions, whole=whole))
    run = len(positions[-1]) * batch if whole else batch
    found = (starts[:, None] + np.arange(run)).reshape(-1, 1) + offsets
    expected = [
        every[(*(taps[k][t[k]] for k in range(m)), *(i[k] + taps[m + k][t[k]] for k in range(m)), b)]
        for *i, b in itertools.product(*positions[m:], range(batch))
        for t in itertools.product(*(range(len(along)) for along in taps[:m]))
    ]
    assert np.array_equal(found.reshape(-1), expected)


@given(st.lists(st.tuples(lengths, lengths, lengths), min_size=1, max_size=3))
def test_phases_are_those_of_samples_that_some_output_reads(axes: list[tuple[int, int, int]]) -> None:
    """Tap t of output i reads sample r * i + s // 2 - t, as if the axis had no ends."""
    along = []
    for n, size, r in axes:
        met: dict[int, list[int]] = {}
        for phase in range(min(n, r)):
            met[phase] = [t for t in range(size) if (size // 2 - t - phase) % r == 0]
        along.append(met)
    taps = Taps(*zip(*((n, -(-n // r), size, r, True) for n, size, r in axes), strict=True), batch=1)
    expected = {}
    for phase in itertools.product(*along):
        each = itertools.product(*(met[p] for met, p in zip(along, phase, strict=True)))
        flat = [int(np.ravel_multi_index(t, taps.sizes)) for t in each]
        if flat:
            expected[phase] = flat
    assert {phase: list(found) for phase, found in phases_met(taps)} == expected
