"""The order of axes that plans work in: transformed axes, outer batch, channels, direct axes, inner batch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from hcnn_core._engines.taps import Taps
from hcnn_core._problem import Problem

BatchAxes = tuple[tuple[int, ...], tuple[int, ...]]
"""Batch axes outside all convolved axes in memory, then the others; each ordered from slow to fast."""


@dataclass(frozen=True)
class Arrangement:
    """The order in which a plan wants the axes of x, w and y.

    Parameters
    ----------
    problem : Problem
        What is convolved.
    methods : tuple of str
        "direct" or "fft" for each convolved axis.
    spectral, direct : tuple of int
        Indices into `problem.axes` of the transformed axes and of the others, each in the plan's order.
    outer, inner : tuple of int
        Batch axes of x that come before the direct axes, and after them.
    tiled : bool
        Whether Winograd's F(4, 3) may be used, which spreads rounding errors, NaN and infinity over a tile.
    """

    problem: Problem
    methods: tuple[str, ...]
    spectral: tuple[int, ...]
    direct: tuple[int, ...]
    outer: tuple[int, ...]
    inner: tuple[int, ...]
    tiled: bool

    @cached_property
    def outer_size(self) -> int:
        return math.prod(self.problem.x_shape[a] for a in self.outer)

    @cached_property
    def batch(self) -> int:
        """Elements of the inner batch axes."""
        return math.prod(self.problem.x_shape[a] for a in self.inner)

    @cached_property
    def channels(self) -> int:
        return math.prod(self.problem.x_shape[a] for a in self.problem.sum_axes)

    @cached_property
    def out(self) -> int:
        """Number of filters: elements of the new attribute axes."""
        return math.prod(self.problem.out_shape)

    @cached_property
    def x_rows(self) -> int:
        """Number of samples along the transformed axes together."""
        return math.prod(self.problem.lengths[k] for k in self.spectral)

    @cached_property
    def y_rows(self) -> int:
        """Number of results along the transformed axes together."""
        return math.prod(self.problem.out_lengths[k] for k in self.spectral)

    @cached_property
    def first_axes(self) -> tuple[int, ...]:
        return (*(self.problem.axes[k] for k in self.spectral), *self.outer)

    @cached_property
    def last_axes(self) -> tuple[int, ...]:
        return (*(self.problem.axes[k] for k in self.direct), *self.inner)

    @cached_property
    def x_order(self) -> tuple[int, ...]:
        return (*self.first_axes, *self.problem.sum_axes, *self.last_axes)

    @cached_property
    def y_order(self) -> tuple[int, ...]:
        position = {a: i for i, a in enumerate(self.problem.kept_axes)}
        new = range(len(position), len(position) + len(self.problem.out_shape))
        return (*(position[a] for a in self.first_axes), *new, *(position[a] for a in self.last_axes))

    @cached_property
    def w_order(self) -> tuple[int, ...]:
        g = self.problem
        first = len(g.sum_axes)
        taps = [first + k for k in (*self.spectral, *self.direct)]
        return (*taps, *range(first), *range(first + len(g.axes), len(g.w_shape)))

    @cached_property
    def taps(self) -> Taps:
        """The direct axes and the inner batch, as the direct engines take them."""
        g = self.problem
        return Taps(
            lengths=tuple(g.lengths[k] for k in self.direct),
            out_lengths=tuple(g.out_lengths[k] for k in self.direct),
            sizes=tuple(g.kernel_size[k] for k in self.direct),
            stride=tuple(g.stride[k] for k in self.direct),
            periodic=tuple(g.boundary[k] == "periodic" for k in self.direct),
            batch=self.batch,
            tiled=self.tiled,
        )
