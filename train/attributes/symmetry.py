"""Whether a layer turns a known group of transformations of its input into translations along an attribute."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

T = TypeVar("T")


class Explained(NamedTuple):
    """The part of a group's action on arrays that translations along one axis explain."""

    share: float
    """Part of the variance that the best translations explain, mean over the group's elements."""
    shares: np.ndarray[Any, Any]
    """`share` of each element, (elements,)."""
    shifts: np.ndarray[Any, Any]
    """The translation that explains each element best, in samples, (elements,)."""
    random: np.ndarray[Any, Any]
    """`share` with the axis in random orders, (orders,)."""

    @property
    def p(self) -> float:
        """Part of all orders, the natural one included, along which translations explain at least as much."""
        slack = 1e-9  # the same numbers are added in another order
        return float((1 + np.count_nonzero(self.random >= self.share - slack)) / (1 + len(self.random)))

    def is_isomorphic(self, elements: Sequence[int], order: int) -> bool:
        """Say whether elements of a cyclic group are translations of a circle of as many samples, each another one.

        The element that each shift belongs to is a power of a generator, of a group of `order` elements, which is the
        number of samples along the axis too. The shift of s must be a s modulo `order` for one a without a divisor in
        common with `order`.
        """
        powers = np.asarray(elements)
        steps = (a for a in range(1, order) if np.gcd(a, order) == 1)
        return any(np.array_equal(self.shifts % order, a * powers % order) for a in steps)


def translation_explains(
    represent: Callable[[T], Any],
    act: Callable[[int, T], T],
    inputs: T,
    /,
    *,
    elements: Sequence[int],
    axis: int,
    orders: int = 99,
    rng: np.random.Generator,
) -> Explained:
    """Measure the part of a group's action on a layer's arrays that circular translations along one axis explain.

    With x_1(x) the arrays of inputs x and g_s an element of the group, the share of s is the largest over t of

        1 - |x_1(g_s x) - L_t x_1(x)|^2 / |x_1(g_s x) - mean|^2,

    where L_t translates along the axis by t samples, norms are over all inputs and samples, and the mean is over
    inputs. A layer that maps the group onto translations has a share of 1 (arXiv:1703.04140, section 3). A layer
    that does not change under the group has one too, by t = 0; so the share is compared with shares in random orders of
    the axis, which are then equal.

    `represent` makes arrays of inputs, real (N, ...), with the attribute along `axis`, which is periodic and no axis of
    inputs; `act` transforms N inputs by an element of the group. The identity explains itself and says nothing. `rng`
    draws the random `orders`. ValueError if there are no elements, the axis is that of inputs, or all inputs have the
    same arrays.
    """
    base = np.asarray(represent(inputs), np.float64)
    if not len(elements):
        raise ValueError("elements is empty: give elements of the group, as 1 for its generator")
    if not -base.ndim < axis < base.ndim or axis == 0:
        raise ValueError(f"axis {axis} is not an attribute of arrays of shape {base.shape}: axis 0 is that of inputs")
    middle = base.mean(axis=(0, axis), keepdims=True)  # constant along the axis: no difference below changes by it
    base = _rows(base - middle, axis)
    grams, energies, variances = [], [], []
    for s in elements:
        moved = np.asarray(represent(act(s, inputs)), np.float64)
        variance = float(np.sum((moved - moved.mean(axis=0)) ** 2))
        rounding = len(moved) * np.finfo(np.float64).eps * float(np.abs(moved).max())  # of the mean
        if variance <= moved.size * rounding**2:
            raise ValueError(f"all inputs have the same arrays after element {s}, so there is no variance to explain")
        moved = _rows(moved - middle, axis)
        grams.append(moved.T @ base)
        energies.append(float(np.sum(moved**2) + np.sum(base**2)))
        variances.append(variance)
    products, energy, total = np.stack(grams), np.asarray(energies)[:, None], np.asarray(variances)[:, None]
    n = base.shape[1]
    places = np.arange(n)
    before = (places[None, :] - places[:, None]) % n  # [t, v] is v - t: where L_t takes sample v from

    def along(order: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Shares (elements, translations) with the axis in an order."""
        inner = products[:, order[places], order[before]].sum(axis=2)
        return 1 - (energy - 2 * inner) / total

    natural = along(places)
    random = np.asarray([along(rng.permutation(n)).max(axis=1).mean() for _ in range(orders)])
    shares = natural.max(axis=1)
    return Explained(float(shares.mean()), shares, natural.argmax(axis=1), random)


def _rows(arrays: np.ndarray[Any, Any], axis: int) -> np.ndarray[Any, Any]:
    """Arrays with the attribute last and all other axes as one."""
    moved = np.moveaxis(arrays, axis, -1)
    return moved.reshape(-1, moved.shape[-1])
