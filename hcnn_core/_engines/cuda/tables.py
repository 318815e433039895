"""Offset tables of the CUDA kernels: the boundary's extensions and the taps around every position."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from hcnn_core._engines.taps import (
    Integers,
    Taps,
    extended,
    line_starts,
    offset_table,
    outputs_met,
    phases_met,
    samples_read,
)


@dataclass(frozen=True)
class Reading:
    """Where the taps around some positions lie in an extended row: at lines[p // run] + p % run + offsets."""

    lines: Integers
    offsets: Integers
    run: int
    """Positions of a line."""


@dataclass(frozen=True)
class Extension:
    """An array's positions extended by their boundary: where each comes from (see `source_of` in the kernels)."""

    places: Integers
    batch: int

    @property
    def positions(self) -> int:
        return self.places.size * self.batch


@dataclass(frozen=True)
class Phase:
    """A polyphase component of x, samples stride * a + phase, whose cotangents are sums over the same taps."""

    taps: Integers
    reading: Reading
    targets: Integers


@dataclass(frozen=True)
class Tables:
    """The kernels' tables for some axes, their boundary and strides.

    The extensions of the signal and of the cotangent of the result; the taps around every output; where outputs lie in
    the extended cotangent; the phases of samples that some output reads, and whether these are all.
    """

    x: Extension
    g: Extension
    forward: Reading
    interior: Reading
    phases: tuple[Phase, ...]
    complete: bool


def extended_positions(t: Taps) -> tuple[int, int]:
    """Count the positions of the extended signal and of the extended cotangent, as `tables_of` would list them."""
    x_sources, _, g_sources, _ = _along_axes(t)
    return math.prod(s.size for s in x_sources) * t.batch, math.prod(s.size for s in g_sources) * t.batch


def _along_axes(t: Taps) -> tuple[list[Integers], list[Integers], list[Integers], list[int]]:
    """Per axis: the extended signal and where each tap finds its samples; the extended cotangent and its first."""
    x_sources, x_taps, g_sources, g_first = [], [], [], []
    for n, o, size, r, wrap in zip(t.lengths, t.out_lengths, t.sizes, t.stride, t.periodic, strict=True):
        index, phases_and_indices = samples_read(size, r, 0, o)
        x_sources.append(_marked(index, n, wrap))
        x_taps.append(phases_and_indices)
        reached = [(outputs_met(size, r, p), -(-(n - p) // r)) for p in range(min(r, n))]
        first = min([0, *(int(meets[0]) for meets, _ in reached if meets.size)])
        last = max([o, *(count + int(meets[-1]) for meets, count in reached if meets.size)])
        g_sources.append(_marked(np.arange(first, last), o, wrap)[None])
        g_first.append(first)
    return x_sources, x_taps, g_sources, g_first


@lru_cache(maxsize=256)
def tables_of(t: Taps) -> Tables:
    """Tables for the convolved axes of `t`."""
    x_sources, x_taps, g_sources, g_first = _along_axes(t)
    m = len(t.sizes)
    x_shape, g_shape = _shape(x_sources), _shape(g_sources)
    origin = [np.zeros(1, np.int64)] * m
    forward = _reading(
        x_shape, t.batch, [*origin, *map(np.arange, t.out_lengths)], [k[0] for k in x_taps] + [k[1] for k in x_taps]
    )
    interior = _reading(
        g_shape,
        t.batch,
        [*origin, *(np.arange(o) - f for o, f in zip(t.out_lengths, g_first, strict=True))],
        origin * 2,
    )
    phases = []
    for phase_of_axes, taps in phases_met(t):
        along = list(zip(t.lengths, t.sizes, t.stride, phase_of_axes, strict=True))
        meets = [outputs_met(size, r, p) for _, size, r, p in along]
        whole = t.stride[-1] == 1
        samples = [np.arange(p, n, r) for n, _, r, p in along]
        positions = [np.arange(k.size) - f for k, f in zip(samples, g_first, strict=True)]
        phases.append(
            Phase(
                taps,
                _reading(g_shape, t.batch, [*origin, *positions], [*origin, *meets], whole),
                line_starts(t.lengths, t.batch, samples, whole=whole),
            )
        )
    return Tables(
        Extension(_places(x_sources, t.lengths), t.batch),
        Extension(_places(g_sources, t.out_lengths), t.batch),
        forward,
        interior,
        tuple(phases),
        len(phases) == math.prod(min(r, n) for r, n in zip(t.stride, t.lengths, strict=True)),
    )


def _marked(index: Integers, n: int, periodic: bool) -> Integers:
    """Places of samples with these indices: -1 for zeros, -2 - place for periodic copies."""
    place = extended(index, n, periodic)
    return np.where((place == index) | (place < 0), place, -2 - place)


def _shape(sources: Sequence[Integers]) -> tuple[int, ...]:
    return (*(s.shape[0] for s in sources), *(s.shape[1] for s in sources))


def _places(sources: Sequence[Integers], lengths: tuple[int, ...]) -> Integers:
    """Flat places of the samples of extended axes (phases, indices), all phases before all indices."""
    m = len(sources)
    flat: Any = 0
    zero: Any = False
    copy: Any = False
    for k, (source, n) in enumerate(zip(sources, lengths, strict=True)):
        source = np.expand_dims(source, tuple(a for a in range(2 * m) if a not in (k, m + k)))
        zero, copy = zero | (source == -1), copy | (source < -1)
        flat = flat * n + np.where(source < -1, -2 - source, source)
    return np.where(zero, -1, np.where(copy, -2 - flat, flat)).reshape(-1)


def _reading(
    shape: tuple[int, ...], batch: int, positions: Sequence[Integers], taps: Sequence[Integers], whole: bool = True
) -> Reading:
    """Return an offset table with the length of its lines."""
    lines, offsets = offset_table(shape, batch, positions, taps, whole=whole)
    return Reading(lines, offsets, (len(positions[-1]) if whole else 1) * batch)
