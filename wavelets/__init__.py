"""Wavelets, scattering, phase harmonics and sparse codes of NumPy, CuPy and traced arrays."""

from wavelets.filters import FilterBank, littlewood_paley, morlet_bank, steerable_bank
from wavelets.harmonics import (
    from_rectified,
    harmonic_statistics,
    phase_harmonic,
    rectified_transform,
    rectifier_coefficient,
)
from wavelets.scattering import scattering, scattering_paths
from wavelets.transform import inverse_wavelet_transform, wavelet_transform

__all__ = [
    "FilterBank",
    "from_rectified",
    "harmonic_statistics",
    "inverse_wavelet_transform",
    "littlewood_paley",
    "morlet_bank",
    "phase_harmonic",
    "rectified_transform",
    "rectifier_coefficient",
    "scattering",
    "scattering_paths",
    "steerable_bank",
    "wavelet_transform",
]
