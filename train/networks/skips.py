"""What a residual hierarchical layer adds to its output: x_{j-2}, laid out along the axes of x_j.

x_j has the axes (u, v_{j-2}, v_{j-1}, v_j), and x_{j-2} has (u, v_{j-4}, v_{j-3}, v_{j-2}). Their shapes fit, but plain
addition would mix different attributes, and translations that the proposition promises would no longer be exact
(docs/aliasing.md).
"""

from __future__ import annotations

import math
import operator
from typing import NamedTuple

from autodiff import defvjp, marginal, primitive
from hcnn_core.backend import Array, array_namespace, in_memory_order

__all__ = ["AlignedSkip"]


class AlignedSkip(NamedTuple):
    """x_{j-2} along the axes of x_j: covariant to translations of u and v_{j-2}, constant along v_{j-1} and v_j."""

    space: tuple[int, ...]  # subsampling of each u by layers j-1 and j
    attribute: int  # subsampling of v_{j-2} by both

    def added(self, y: Array, x: Array) -> Array:
        """Return y, which is x_j, plus what skips it, in the memory order of y."""
        total: Array = _added(y, self(x))
        return total

    def __call__(self, x: Array) -> Array:
        """Return an array (N, u, v_{j-2}, 1, 1), which broadcasts to x_j, from x_{j-2}.

        That is the mean over v_{j-4} and v_{j-3}, where x_{j-2} has them, at the samples that layers j-1 and j keep.
        """
        others = tuple(range(1 + len(self.space), x.ndim - 1))
        kept = marginal(x, others, reduction="mean") if others else x
        steps = (slice(None, None, step) for step in (*self.space, self.attribute))
        return kept[(slice(None), *steps, None, None)]

    @classmethod
    def between(cls, *strides: tuple[int, ...]) -> AlignedSkip:
        """Return the skip over layers with such strides along u and v_{j-2}."""
        *space, attribute = (math.prod(steps) for steps in zip(*strides, strict=True))
        return cls(tuple(space), attribute)


@primitive
def _added(y: Array, skipping: Array) -> Array:
    """CuPy's own sum would be in C order, and whatever reads it would have to copy it."""
    total: Array = in_memory_order(operator.add, y, array_namespace(y).broadcast_to(skipping, y.shape))
    return total


defvjp(_added, lambda ans, y, skipping: lambda g: g, lambda ans, y, skipping: lambda g: g)
