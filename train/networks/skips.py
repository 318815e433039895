"""What a hierarchical layer adds to its output, or before rho: x_{j-2} or x_{j-1}, laid out along the axes of x_j.

x_j has the axes (u, v_{j-2}, v_{j-1}, v_j), x_{j-1} has (u, v_{j-3}, v_{j-2}, v_{j-1}), and x_{j-2} has (u, v_{j-4},
v_{j-3}, v_{j-2}). Their shapes fit, but plain addition would mix different attributes, and translations that the
proposition promises would no longer be exact (docs/aliasing.md).
"""

from __future__ import annotations

import math
import operator
from typing import Any, NamedTuple

import numpy as np

from autodiff import convolve, defvjp, getval, marginal, primitive
from hcnn_core.backend import Array, DeviceTables, array_namespace, in_memory_order
from hcnn_core.typing import Boundary

SKIPS = {"none": 0, "aligned": 2, "aligned-mean": 2, "previous": 1, "dense": 2}
"""How many layers each choice of the setting `skip` goes back."""

_boxes = DeviceTables()


class AlignedSkip(NamedTuple):
    """x_{j-2} or x_{j-1} along the axes of x_j, covariant to translations along the axes that they share.

    x_{j-2} is constant along v_{j-1} and v_j, x_{j-1} along v_j.
    """

    back: int  # which: 2 or 1
    space: tuple[int, ...]  # subsampling of each u by the layers that it skips
    attribute: int  # subsampling of each shared attribute by them
    means: Boundary | None = None  # along shared attributes, of as many neighbours, extended so; or one of them is kept
    taps: tuple[int, ...] = ()  # of trained filters along u and v_{j-2}, where the skip is a dense connection
    boundary: tuple[Boundary, ...] = ()  # along the same axes

    def __call__(self, x: Array, w: Array | None = None) -> Array:
        r"""Return an array (N, u, v_{j-2}, 1, 1) from x_{j-2}, or (N, u, v_{j-2}, v_{j-1}, 1) from x_{j-1}.

        That is the mean over the attributes that x_j has not, at the samples of u that the layers between keep. With
        filters w (\*taps, K) of a dense connection it is the convolution of this mean, (N, u, v_{j-2}, 1, v_j).
        """
        count = 3 - self.back  # of the attributes that both have, which are the last of x
        others = tuple(range(1 + len(self.space), x.ndim - count))
        y = marginal(x, others, reduction="mean") if others else x
        if w is not None:
            strides = (*self.space, self.attribute)
            y = convolve(y, w, tuple(range(1, y.ndim)), boundary=self.boundary, stride=strides)
            return y[(*(slice(None),) * (y.ndim - 1), None)]
        if self.means:
            shared, size, like = range(y.ndim - count, y.ndim), (self.attribute,) * count, getval(y)
            box = _boxes.beside(like, (size, like.dtype), lambda: np.full(size, 1 / math.prod(size), like.dtype))
            y = convolve(y, box, tuple(shared), boundary=self.means, stride=size)
        step = 1 if self.means else self.attribute
        steps = (slice(None, None, step) for step in (*self.space, *(step,) * count))
        return y[(slice(None), *steps, *(None,) * self.back)]

    @classmethod
    def over(cls, *strides: tuple[int, ...], **options: Any) -> AlignedSkip:
        """Return the skip over one or two layers with such strides along u and along an attribute."""
        *space, attribute = (math.prod(steps) for steps in zip(*strides, strict=True))
        return cls(len(strides), tuple(space), attribute, **options)


@primitive
def added_to(y: Array, skipping: Array) -> Array:
    """Return y plus a skip, in the memory order of y. CuPy's own sum would be in C order, and then copied."""
    total: Array = in_memory_order(operator.add, y, array_namespace(y).broadcast_to(skipping, y.shape))
    return total


defvjp(added_to, lambda ans, y, skipping: lambda g: g, lambda ans, y, skipping: lambda g: g)
