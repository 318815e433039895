"""Wavelets, scattering, phase harmonics and sparse codes of NumPy, CuPy and traced arrays."""

from wavelets.descent import adam, lbfgs
from wavelets.filters import FilterBank, littlewood_paley, morlet_bank, steerable_bank
from wavelets.harmonics import (
    from_rectified,
    harmonic_statistics,
    phase_harmonic,
    rectified_transform,
    rectifier_coefficient,
)
from wavelets.orthogonal import daubechies_filter, dwt, idwt
from wavelets.processes import decaying_vorticity, lognormal_cascade, multifractal_noise, randomize_phases
from wavelets.scaling import leverage, scaling_exponents, structure_functions
from wavelets.scattering import scattering, scattering_paths
from wavelets.sparse import hard_threshold, ista, lista, soft_threshold, sparse_loss
from wavelets.synthesis import moment_distance
from wavelets.transform import inverse_wavelet_transform, wavelet_transform

__all__ = [
    "FilterBank",
    "adam",
    "daubechies_filter",
    "decaying_vorticity",
    "dwt",
    "from_rectified",
    "hard_threshold",
    "harmonic_statistics",
    "idwt",
    "inverse_wavelet_transform",
    "ista",
    "lbfgs",
    "leverage",
    "lista",
    "littlewood_paley",
    "lognormal_cascade",
    "moment_distance",
    "morlet_bank",
    "multifractal_noise",
    "phase_harmonic",
    "randomize_phases",
    "rectified_transform",
    "rectifier_coefficient",
    "scaling_exponents",
    "scattering",
    "scattering_paths",
    "soft_threshold",
    "sparse_loss",
    "steerable_bank",
    "structure_functions",
    "wavelet_transform",
]
