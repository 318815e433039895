"""Banks of Morlet wavelets, given by their Fourier transforms."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from autodiff import getval
from hcnn_core.backend import Array, array_namespace, require_floating, to_numpy

__all__ = ["FilterBank", "littlewood_paley", "morlet_bank", "steerable_bank"]

DEVIATIONS = 9
"""Gaussian spectra are summed over the periods within this many deviations; the rest is below 1e-17."""


@dataclasses.dataclass(frozen=True, eq=False)
class FilterBank:
    """A low-pass filter and complex wavelets, for periodic arrays of one shape.

    Filters are given by their discrete Fourier transforms in the order of ``numpy.fft``. They are real: every filter
    has Hermitian symmetry around the origin.

    Parameters
    ----------
    phi : array, shape ``shape``
        Low-pass filter, with one or two axes.
    psi : array, shape ``(J, L, *shape)``
        Wavelets of scale 2^j, j = 0 .. J-1, and L orientations.

    Raises
    ------
    TypeError
        If the arrays are not of one library and of dtype float32 or float64.
    ValueError
        If the shapes do not match.
    """

    phi: Array
    psi: Array

    def __post_init__(self) -> None:
        """Hold the arrays to their contract."""
        xp = array_namespace(self.phi, self.psi)
        for name in ("phi", "psi"):
            array = require_floating(xp, name, getattr(self, name))
            object.__setattr__(self, name, array)  # of no subclass
            if array.dtype.kind != "f":
                raise TypeError(f"{name} has dtype {array.dtype}; give the real spectra of the filters")
        if len(self.shape) not in (1, 2) or self.psi.shape[2:] != self.shape or not all(self.psi.shape):
            raise ValueError(
                f"phi has shape {self.phi.shape} and psi {self.psi.shape}; "
                "expected (*shape) and (J, L, *shape), with one or two axes"
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes that are filtered."""
        return tuple(self.phi.shape)

    @property
    def scales(self) -> int:
        """J: how many scales there are; the low-pass filter has scale 2^J."""
        return int(self.psi.shape[0])

    @property
    def angles(self) -> int:
        """L: how many orientations there are."""
        return int(self.psi.shape[1])

    def like(self, x: Array) -> FilterBank:
        """Return the bank in an array's precision, on its device.

        Parameters
        ----------
        x : array
            Real or complex, traced or not.

        Returns
        -------
        FilterBank
            This bank where nothing has to change.
        """
        x = getval(x)
        if type(x) is type(self.phi) and x.real.dtype == self.phi.dtype == self.psi.dtype:
            return self
        xp = array_namespace(x)
        spectra = (to_numpy(a) if xp is np else a for a in (self.phi, self.psi))  # NumPy converts no CuPy array
        return FilterBank(*(xp.asarray(a, dtype=x.real.dtype) for a in spectra))


def morlet_bank(
    shape: int | Sequence[int], scales: int, angles: int = 8, *, tight: bool = False, dtype: Any = np.float64
) -> FilterBank:
    """Return Morlet wavelets and a Gaussian low-pass filter.

    A wavelet of scale 2^j and orientation theta is g(u) (exp(i xi.u) - beta), with a Gaussian g of deviation 0.8 * 2^j
    along xi and 0.2 L 2^j across, abs(xi) = 3 pi / 4 / 2^j, and beta such that the mean is zero. The low-pass filter is
    a Gaussian of deviation 0.8 * 2^(J-1). For two axes these are the filters of Kymatio, in the same order
    (arXiv:1812.11214, `kymatio.scattering2d.filter_bank`); Kymatio's are larger by a factor of pi / 3.1415 = 1.00003,
    since its file has 3.1415 for pi.

    Parameters
    ----------
    shape : int or sequence of int
        Lengths of the one or two axes to be filtered; 2^J divides each of them.
    scales : int
        J, the number of octaves.
    angles : int, optional
        L, orientations in half a turn: theta = (max(L//2 - 1, 0) - l) pi / L. With one axis there is one.
    tight : bool, optional
        Whether to divide all filters by the root of their Littlewood-Paley sum, which then is 1: the wavelet transform
        of a real array preserves its norm. All the filters' shapes change a little by it.
    dtype : dtype, optional
        float32 or float64.

    Returns
    -------
    FilterBank
        NumPy arrays; `FilterBank.like` moves them.

    Raises
    ------
    TypeError
        If a number is not an integer, or the dtype is another.
    ValueError
        If a number is below 1, 2^J does not divide a length, or there are more than two axes.
    """
    lengths, angles = _checked(shape, scales, angles, dtype)
    psi = np.empty((scales, angles, *lengths))
    for j, k in np.ndindex(scales, angles):
        theta = _angle(k, angles)
        axis = np.array([math.cos(theta), math.sin(theta)])[: len(lengths)]
        covariance = _covariance(axis, 0.8 * 2**j, 4 / angles)
        xi = 3 / 4 * math.pi / 2**j * axis
        gabor = _gaussian_spectrum(lengths, covariance, xi)
        envelope = _gaussian_spectrum(lengths, covariance, np.zeros_like(xi))
        origin = (0,) * len(lengths)
        psi[j, k] = gabor - gabor[origin] / envelope[origin] * envelope
    isotropic = np.eye(len(lengths)) * (0.8 * 2 ** (scales - 1)) ** 2
    phi = _gaussian_spectrum(lengths, isotropic, np.zeros(len(lengths)))
    return _tight(phi, psi, dtype) if tight else FilterBank(phi.astype(dtype), psi.astype(dtype))


def steerable_bank(shape: int | Sequence[int], scales: int, angles: int = 4, *, dtype: Any = np.float64) -> FilterBank:
    """Return tight wavelets whose spectra are limited to two octaves and to half of the plane.

    They are complex steerable filters (J. Portilla, E. P. Simoncelli, A parametric texture model based on joint
    statistics of complex wavelet coefficients, 2000, section 1.1). A wavelet of scale 2^j has the spectrum
    cos(pi/2 log2(r / xi)) cos(theta - theta_l)^(L-1), up to a factor, where log2(r / xi) is between -1 and 1 and
    theta - theta_l within a right angle, xi = pi / sqrt(2) / 2^j. All scales have one factor. Above xi, the cosine of
    the finest wavelets is 1. Spectra of scales j and j + 2 do not overlap.

    Arguments, result and errors are those of `morlet_bank`, whose angles these have; with two axes there are at least
    two. With one, its wavelet has positive frequencies. The Littlewood-Paley sum is 1.
    """
    lengths, angles = _checked(shape, scales, angles, dtype)
    if angles < len(lengths):
        raise ValueError(f"angles is {angles}; steerable wavelets of two axes need at least 2")
    # NumPy's fftfreq rounds 1 / n first, and misses -1/2 for n = 98
    along = (2 * math.pi * (np.fft.ifftshift(np.arange(n) - n // 2) / n) for n in lengths)
    w = np.stack(np.meshgrid(*along, indexing="ij"))
    radius = np.sqrt((w * w).sum(0))
    octave = np.log2(np.maximum(radius, 1e-300) / (math.pi / math.sqrt(2)))
    psi = np.empty((scales, angles, *lengths))
    for k in range(angles):
        axis = np.array([math.cos(_angle(k, angles)), math.sin(_angle(k, angles))])[: len(lengths)]
        power = np.zeros(lengths)
        for signs in itertools.product((1, -1), repeat=len(lengths)):  # the frequency pi is also -pi
            turned = np.stack([np.where(a == -math.pi, sign * a, a) for a, sign in zip(w, signs, strict=True)])
            cosine = np.tensordot(axis, turned, 1) / np.maximum(radius, 1e-300)
            cosine[cosine < 1e-12] = 0  # what rounding leaves at a right angle too
            power += (cosine > 0) * cosine ** (2 * angles - 2) / 2 ** len(lengths)
        for j in range(scales):
            psi[j, k] = _window(octave + j if j else np.minimum(octave, 0)) * np.sqrt(power)
    # the sum over angles of cos^(2L-2) on half of the plane, and of its reflection, halved
    over_angles = angles * math.comb(2 * angles - 2, angles - 1) / 4 ** (angles - 1) / 2
    phi = math.sqrt(over_angles) * _window(np.maximum(octave + scales, 0))  # what the wavelets leave
    return _tight(phi, psi, dtype)


def littlewood_paley(bank: FilterBank) -> Array:
    """Return the sum of the squared filters at each frequency, as real arrays see it.

    It is A(w) = phi(w)^2 + 1/2 sum_(j, l) (psi_(j, l)(w)^2 + psi_(j, l)(-w)^2). The wavelet transform of a real array
    multiplies the power at the frequency w by A(w): it is non-expansive if A <= 1, and preserves the norm if A = 1
    (S. Mallat, Group Invariant Scattering, arXiv:1101.2286, Eq. 9).

    Parameters
    ----------
    bank : FilterBank
        The filters.

    Returns
    -------
    array, shape ``bank.shape``
        A, in the dtype and order of the filters' spectra.
    """
    power = (bank.psi**2).sum((0, 1))
    xp = array_namespace(bank.phi)
    axes = tuple(range(power.ndim))
    reflected = xp.roll(xp.flip(power, axis=axes), (1,) * power.ndim, axis=axes)
    return bank.phi**2 + (power + reflected) / 2


def _checked(shape: int | Sequence[int], scales: int, angles: int, dtype: Any) -> tuple[tuple[int, ...], int]:
    """Return the lengths of the axes and the number of orientations, checked."""
    lengths = (shape,) if isinstance(shape, int | np.integer) else tuple(shape)
    for name, number in (("scales", scales), ("angles", angles), *(("shape", n) for n in lengths)):
        if isinstance(number, bool) or not isinstance(number, int | np.integer):
            raise TypeError(f"{name} has {number!r}; give integers")
        if number < 1:
            raise ValueError(f"{name} has {number}; it must be at least 1")
    if len(lengths) not in (1, 2):
        raise ValueError(f"shape is {lengths}; wavelets have one or two axes")
    unit = 2 ** int(scales)  # of NumPy's integers it may be 0
    if any(int(n) % unit for n in lengths):
        raise ValueError(f"shape is {lengths} and scales {scales}: 2^{scales} = {unit} must divide each length")
    if np.dtype(dtype) not in (np.float32, np.float64):
        raise TypeError(f"dtype is {np.dtype(dtype)}; choose float32 or float64")
    return lengths, angles if len(lengths) > 1 else 1


def _angle(k: int, angles: int) -> float:
    """Return the orientation of a wavelet, in Kymatio's order."""
    return (max(angles // 2 - 1, 0) - k) * math.pi / angles


def _window(octave: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return a cosine over two octaves around 0, 0 elsewhere. With its neighbours' the squares add up to 1."""
    return (abs(octave) < 1) * np.cos(math.pi / 2 * octave)


def _tight(phi: np.ndarray[Any, Any], psi: np.ndarray[Any, Any], dtype: Any) -> FilterBank:
    """Return the filters divided by the root of their Littlewood-Paley sum."""
    root = np.sqrt(littlewood_paley(FilterBank(phi, psi)))
    return FilterBank((phi / root).astype(dtype), (psi / root).astype(dtype))


def _covariance(axis: np.ndarray[Any, Any], deviation: float, slant: float) -> np.ndarray[Any, Any]:
    """Covariance of a Gaussian with a deviation along a unit vector, and the deviation over `slant` across it."""
    along = np.outer(axis, axis)
    return deviation**2 * (along + (np.eye(len(axis)) - along) / slant**2)


def _gaussian_spectrum(
    shape: tuple[int, ...], covariance: np.ndarray[Any, Any], xi: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any]:
    """Discrete Fourier transform of a Gaussian of sum 1 times exp(i xi.u), sampled and summed over periods.

    By Poisson's formula that is the sum over periods of the continuous transform.
    """
    total = np.zeros(shape)
    widest = DEVIATIONS / math.sqrt(np.linalg.eigvalsh(covariance)[0])
    periods = range(-math.ceil(widest / (2 * math.pi)) - 1, math.ceil(widest / (2 * math.pi)) + 2)
    grid = [2 * math.pi * np.arange(n) / n - center for n, center in zip(shape, xi, strict=True)]
    for turns in itertools.product(periods, repeat=len(shape)):
        w = np.meshgrid(*(g + 2 * math.pi * p for g, p in zip(grid, turns, strict=True)), indexing="ij", sparse=True)
        exponent = sum(covariance[a, b] * w[a] * w[b] for a in range(len(w)) for b in range(len(w)))
        total += np.exp(-exponent / 2)
    return total
