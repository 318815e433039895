"""Scattering along rotations and translations together.

L. Sifre, S. Mallat, Rotation, Scaling and Deformation Invariant Scattering for Texture Discrimination, 2013.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from autodiff import getval
from hcnn_core.backend import Array, moveaxis
from hcnn_core.typing import Axes
from wavelets._fourier import fftn, ifftn
from wavelets.filters import FilterBank, morlet_bank
from wavelets.transform import filtered_axes, last_axes

__all__ = ["rototranslation_scattering"]

ANGLE = -3
"""The axis of angles, before the two in space."""


def rototranslation_scattering(x: Array, bank: FilterBank, axes: Axes = (-2, -1), *, angular_scales: int = 2) -> Array:
    """Return scattering coefficients whose means over space do not change when an image is rotated.

    The moduli U(u, theta) = abs(x * psi_(j1, theta)) are a function of places and angles. If x is rotated, they are
    rotated in space and translated along theta. So they are convolved by wavelets that turn with theta, psi_(j2, theta
    + beta), and then with wavelets along theta; the moduli are averaged over theta and, by the low-pass filter, in
    space. Averages over theta of `scattering` are invariant too, but lose which angles meet at one place. Quarter turns
    around sample 0, ``np.roll(np.rot90(x), 1, 0)``, change no mean; ``np.rot90(x)`` does a little, since every 2^J-th
    sample is then another one.

    Parameters
    ----------
    x : array
        Real, NumPy's, CuPy's or traced; it is extended periodically.
    bank : FilterBank
        Its `shape` is the lengths of the axes, and its L orientations are pi / L apart, as those of `morlet_bank` are.
    axes : sequence of int, optional
        The two axes to filter.
    angular_scales : int, optional
        K, octaves along the angle; 2^K divides 2 L, the angles in a full turn.

    Returns
    -------
    array
        The axes of x in their order, the filtered ones subsampled by 2^J, then one for the paths, in the dtype of x:

        - x * phi;
        - for each j1, the mean over theta of U * phi;
        - for each j1 and each k, that of abs((U * phi) * angular wavelet k);
        - for each j1, each j2 > j1, beta and k, that of abs(U * psi_(j2, theta + beta) * angular filter k) * phi, the
          first k being the low-pass filter, and the angular wavelets those of `morlet_bank` with K scales.

    Raises
    ------
    TypeError
        If x is not of dtype float32 or float64.
    ValueError
        If axes and lengths do not match the bank, the bank has one axis, or 2^K does not divide 2 L.
    """
    if len(bank.shape) != 2:
        raise ValueError(f"the bank has filters of shape {bank.shape}; rotations need two axes")
    if angular_scales < 1 or 2 * bank.angles % 2**angular_scales:
        raise ValueError(
            f"angular_scales is {angular_scales}; 2^angular_scales must divide the {2 * bank.angles} angles of a turn"
        )
    where = filtered_axes(x, bank, axes, bank.shape)
    last = last_axes(bank)
    angular = morlet_bank(2 * bank.angles, angular_scales, tight=True).like(getval(x))
    cascade = _Cascade(bank.like(x), [angular.phi, *angular.psi[:, 0]])
    coefficients = np.stack(list(cascade.paths(moveaxis(x, where, last))), axis=-1)
    step = 2**bank.scales
    before = (*(slice(None),) * (coefficients.ndim - 3), slice(None, None, step), slice(None, None, step))
    return moveaxis(coefficients[before], (-3, -2), where)


class _Cascade:
    """The filters in space and along angles, and what is computed with them, of arrays (..., n1, n2)."""

    def __init__(self, bank: FilterBank, angular: Sequence[Array]) -> None:
        self.bank, self.space = bank, last_axes(bank)
        self.angular = [np.reshape(spectrum, (-1, 1, 1)) for spectrum in angular]  # (2 L, 1, 1)

    def paths(self, x: Array) -> Iterator[Array]:
        """Yield the coefficients of all paths, each (..., n1, n2)."""
        yield self.low(x)
        spectrum = np.expand_dims(fftn(x, self.space), ANGLE)
        layers = [fftn(np.abs(ifftn(spectrum * psi, self.space)), self.space) for psi in self.bank.psi]
        for u in layers:
            yield np.mean(self.smooth(u), axis=ANGLE)
        for u in layers:
            smooth = self.smooth(u)  # (..., L, n1, n2), the same half a turn on
            yield from self.along_angles(np.concatenate([smooth, smooth], axis=ANGLE), self.angular[1:])
        for j, u in enumerate(layers):
            for other in range(j + 1, self.bank.scales):
                for beta in range(self.bank.angles):
                    for moduli in self.along_angles(self.turned(u, other, beta), self.angular):
                        yield self.low(moduli)

    def turned(self, u: Array, j: int, beta: int) -> Array:
        """U * psi_(j, theta + beta) for theta in a full turn, (..., 2 L, n1, n2), of the transform of U.

        A wavelet half a turn on is the conjugate, and so is its convolution with what is real.
        """
        filtered = ifftn(u * np.roll(self.bank.psi[j], -beta, axis=0), self.space)
        split = self.bank.angles - beta
        same, beyond = filtered[..., :split, :, :], np.conj(filtered[..., split:, :, :])
        return np.concatenate([same, beyond, np.conj(same), np.conj(beyond)], axis=ANGLE)

    def along_angles(self, y: Array, filters: Sequence[Array]) -> Iterator[Array]:
        """Yield the means over angles of the moduli of y convolved with each filter along angles."""
        spectrum = fftn(y, (ANGLE,))
        for angular in filters:
            yield np.mean(np.abs(ifftn(spectrum * angular, (ANGLE,))), axis=ANGLE)

    def low(self, y: Array) -> Array:
        """Convolve an array with the low-pass filter."""
        return self.smooth(fftn(y, self.space))

    def smooth(self, spectrum: Array) -> Array:
        """Convolve a real array, given by its transform, with the low-pass filter."""
        return np.real(ifftn(spectrum * self.bank.phi, self.space))
