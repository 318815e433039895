"""The scattering transform: cascades of wavelet moduli, averaged (S. Mallat, arXiv:1101.2286; slide 22)."""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np

from hcnn_core.backend import Array, moveaxis, parallel_for
from hcnn_core.typing import Axes
from wavelets._fourier import fftn, ifftn
from wavelets.filters import FilterBank
from wavelets.transform import filtered_axes, last_axes

__all__ = ["scattering", "scattering_paths"]

BLOCK = 2**19
"""Bytes of the coefficients of one scale that are computed together."""

Path = tuple[tuple[int, int], ...]


def scattering(
    x: Array,
    bank: FilterBank,
    axes: Axes = (-2, -1),
    *,
    order: int = 2,
    oversampling: int = 0,
    boundary: str = "periodic",
) -> Array:
    """Return the scattering coefficients of an array.

    They are x * phi, abs(x * psi_1) * phi and abs(abs(x * psi_1) * psi_2) * phi for all wavelets psi_1, and psi_2 of
    larger scale. With the filters of Kymatio and ``boundary="reflect"`` the values are those of its `Scattering2D`
    (arXiv:1812.11214).

    Parameters
    ----------
    x : array
        Real, NumPy's, CuPy's or traced.
    bank : FilterBank
        Its `shape` is the lengths n of the axes; with ``boundary="reflect"``, (n // 2^J + 2) 2^J of each.
    axes : int or sequence of int, optional
        The axes to filter, as many as the filters have.
    order : int, optional
        The number of moduli in the longest paths: 0, 1 or 2.
    oversampling : int, optional
        Arrays of scale 2^j are subsampled by 2^max(j - oversampling, 0). With J, nothing is.
    boundary : {"periodic", "reflect"}, optional
        How x is extended. It is mirrored to the bank's lengths as in Kymatio: by as many samples at both ends, or one
        more at the other; `convolve` calls this "mirror". Where 2^J divides n, that is by 2^J samples.

    Returns
    -------
    array
        The axes of x in their order, the filtered ones subsampled by 2^max(J - oversampling, 0), then one for the paths
        of `scattering_paths`; in the dtype of x. Of lengths with a remainder r = n mod 2^J, the n - r samples in the
        middle count, from (r + 1) // 2 on.

    Raises
    ------
    TypeError
        If x is not of dtype float32 or float64.
    ValueError
        If axes and lengths do not match the bank, the order or the boundary is another, or `oversampling` is negative.
    """
    if order not in (0, 1, 2):
        raise ValueError(f"order is {order!r}; choose 0, 1 or 2")
    if boundary not in ("periodic", "reflect"):
        raise ValueError(f"boundary is {boundary!r}; choose 'periodic' or 'reflect', which convolve calls 'mirror'")
    if oversampling < 0:
        raise ValueError(f"oversampling is {oversampling}; it must be at least 0")
    edge = 2**bank.scales if boundary == "reflect" else 0
    least = tuple(n - 2 * edge for n in bank.shape)
    where = filtered_axes(x, bank, axes, least, spare=max(edge - 1, 0))
    if edge:
        x = _mirrored(x, bank, where, edge)
    last = last_axes(bank)
    cascade = _Cascade(bank.like(x), operator.index(oversampling))
    result = moveaxis(_in_blocks(cascade, moveaxis(x, where, last), order), last, where)
    if edge:
        cut = edge // 2 ** cascade.octaves(bank.scales)
        inner = slice(cut, -cut)
        result = result[tuple(inner if axis in where else slice(None) for axis in range(result.ndim))]
    return result


def scattering_paths(bank: FilterBank, order: int = 2) -> list[Path]:
    """Return the paths of `scattering` with a bank and an order, whose coefficients are its last axis.

    Returns
    -------
    list of tuple
        The wavelets (j, l) of each path, the first applied first: ``()``, then ``((j, l),)``, then
        ``((j1, l1), (j2, l2))`` with j2 > j1.
    """
    if order not in (0, 1, 2):
        raise ValueError(f"order is {order!r}; choose 0, 1 or 2")
    wavelets = [(j, k) for j in range(bank.scales) for k in range(bank.angles)]
    paths: list[Path] = [()]
    if order >= 1:
        paths += [(one,) for one in wavelets]
    if order == 2:
        paths += [(one, two) for one in wavelets for two in wavelets if two[0] > one[0]]
    return paths


def _mirrored(x: Array, bank: FilterBank, where: tuple[int, ...], edge: int) -> Array:
    """Extend the array to the bank's lengths by up to 2^J samples at each end of the axes."""
    for axis, padded in zip(where, bank.shape, strict=True):
        n = x.shape[axis]
        if n <= edge:
            raise ValueError(f"an axis of length {n} cannot be mirrored by {edge} samples; use fewer scales")
        before, after = (padded - n) // 2, (padded - n + 1) // 2
        all_before, end = (slice(None),) * axis, n - 2 - after
        left, right = slice(before, 0, -1), slice(n - 2, end if end >= 0 else None, -1)
        x = np.concatenate([x[(*all_before, left)], x, x[(*all_before, right)]], axis=axis)
    return x


def _in_blocks(cascade: _Cascade, x: Array, order: int) -> Array:
    """Compute all paths, by several threads on parts that fit into a cache where x is NumPy's."""
    space = x.shape[len(x.shape) + cascade.axes[0] :]
    rest = x.shape[: -len(space)]
    size = max(1, BLOCK // (2 * x.dtype.itemsize * cascade.bank.angles * math.prod(space)))
    if type(x) is not np.ndarray or math.prod(rest) <= size:
        return cascade.paths(x, order)
    flat = np.reshape(x, (-1, *space))
    parts: list[Any] = [None] * -(-len(flat) // size)

    def work(begin: int, end: int) -> None:
        for i in range(begin, end):
            parts[i] = cascade.paths(flat[i * size : (i + 1) * size], order)

    parallel_for(work, len(parts))
    result = np.concatenate(parts)
    return np.reshape(result, (*rest, *result.shape[1:]))


class _Cascade:
    """The filters at each resolution, and what is computed with them, of arrays whose last axes are filtered.

    Resolution r has every 2^r-th sample.
    """

    def __init__(self, bank: FilterBank, oversampling: int) -> None:
        self.bank, self.oversampling = bank, oversampling
        self.axes = last_axes(bank)

    def octaves(self, j: int) -> int:
        """Return the resolution that arrays of scale 2^j are brought to."""
        return max(j - self.oversampling, 0)

    def paths(self, x: Array, order: int) -> Array:
        """Return the coefficients of all paths, (..., paths, *space)."""
        spectrum = self._new_axis(fftn(x, self.axes))
        first = [self._averaged(spectrum, 0)]
        second = []
        for j in range(self.bank.scales if order else 0):
            inner = self._modulus(spectrum, j, 0)  # (..., L, *space)
            first.append(self._averaged(inner, self.octaves(j)))
            if order == 2 and j + 1 < self.bank.scales:
                outer = [
                    self._averaged(self._modulus(self._new_axis(inner), other, self.octaves(j)), self.octaves(other))
                    for other in range(j + 1, self.bank.scales)
                ]
                together = np.concatenate(outer, axis=-len(self.axes) - 1)  # (..., L, scales * L, *space)
                *rest, angles, outers = together.shape[: -len(self.axes)]
                second.append(np.reshape(together, (*rest, angles * outers, *together.shape[-len(self.axes) :])))
        return np.concatenate([*first, *second], axis=-len(self.axes) - 1)

    def _modulus(self, spectrum: Array, j: int, resolution: int) -> Array:
        """Return the transform of abs(x * psi_j), with an axis of angles before space, from (..., 1, *space)."""
        filtered = spectrum * self._at(self.bank.psi[j], resolution)
        filtered = ifftn(self._folded(filtered, self.octaves(j) - resolution), self.axes)
        return fftn(np.abs(filtered), self.axes)

    def _averaged(self, spectrum: Array, resolution: int) -> Array:
        """Convolve the array with the low-pass filter, at the last resolution."""
        low = spectrum * self._at(self.bank.phi, resolution)
        low = self._folded(low, self.octaves(self.bank.scales) - resolution)
        return np.real(ifftn(low, self.axes))

    def _at(self, filters: Array, resolution: int) -> Array:
        """Return the spectra of filters at a resolution: their low frequencies, as Kymatio has them."""
        for axis in self.axes if resolution else ():
            n = filters.shape[axis]
            half = n >> (resolution + 1)
            low = (..., *(slice(0, half) if a == axis else slice(None) for a in self.axes))
            high = (..., *(slice(n - half, n) if a == axis else slice(None) for a in self.axes))
            filters = np.concatenate([filters[low], filters[high]], axis=axis)
        return filters

    def _folded(self, spectrum: Array, octaves: int) -> Array:
        """Return the spectrum of every 2^octaves-th sample: the mean of the frequencies that become one."""
        step = 2**octaves
        for axis in self.axes if octaves else ():
            at = spectrum.ndim + axis
            shape = spectrum.shape
            parts = np.reshape(spectrum, (*shape[:at], step, shape[at] // step, *shape[at + 1 :]))
            before: tuple[Any, ...] = (slice(None),) * at
            # sums of slices take less time than a reduction over an axis inside
            spectrum = sum((parts[(*before, i)] for i in range(1, step)), start=parts[(*before, 0)]) / step
        return spectrum

    def _new_axis(self, x: Array) -> Array:
        """Insert an axis of length 1 before the space axes."""
        return np.expand_dims(x, x.ndim - len(self.axes))
