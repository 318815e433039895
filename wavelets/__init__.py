"""Wavelets, scattering, phase harmonics and sparse codes of NumPy, CuPy and traced arrays."""

from wavelets.filters import FilterBank, littlewood_paley, morlet_bank, steerable_bank
from wavelets.harmonics import (
    from_rectified,
    harmonic_statistics,
    phase_harmonic,
    rectified_transform,
    rectifier_coefficient,
)
from wavelets.processes import decaying_vorticity, lognormal_cascade, multifractal_noise, randomize_phases
from wavelets.scattering import scattering, scattering_paths
from wavelets.synthesis import lbfgs, moment_distance
from wavelets.transform import inverse_wavelet_transform, wavelet_transform

__all__ = [
    "FilterBank",
    "decaying_vorticity",
    "from_rectified",
    "harmonic_statistics",
    "inverse_wavelet_transform",
    "lbfgs",
    "littlewood_paley",
    "lognormal_cascade",
    "moment_distance",
    "morlet_bank",
    "multifractal_noise",
    "phase_harmonic",
    "randomize_phases",
    "rectified_transform",
    "rectifier_coefficient",
    "scattering",
    "scattering_paths",
    "steerable_bank",
    "wavelet_transform",
]
