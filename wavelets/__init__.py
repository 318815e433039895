"""Wavelets, scattering, phase harmonics and sparse codes of NumPy, CuPy and traced arrays."""

from wavelets.descent import adam, lbfgs, momentum
from wavelets.filters import FilterBank, littlewood_paley, morlet_bank, steerable_bank
from wavelets.harmonics import (
    from_rectified,
    harmonic_statistics,
    phase_harmonic,
    rectified_transform,
    rectifier_coefficient,
)
from wavelets.orthogonal import daubechies_filter, dwt, idwt
from wavelets.principal import Principal, principal_components
from wavelets.processes import decaying_vorticity, lognormal_cascade, multifractal_noise, random_warp, randomize_phases
from wavelets.rotations import rototranslation_scattering
from wavelets.scattering import scattering, scattering_paths
from wavelets.sparse import hard_threshold, ista, learn_dictionary, lista, soft_threshold, sparse_loss
from wavelets.synthesis import moment_distance
from wavelets.transform import inverse_wavelet_transform, wavelet_transform

__all__ = [
    "FilterBank",
    "Principal",
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
    "learn_dictionary",
    "lista",
    "littlewood_paley",
    "lognormal_cascade",
    "moment_distance",
    "momentum",
    "morlet_bank",
    "multifractal_noise",
    "phase_harmonic",
    "principal_components",
    "random_warp",
    "randomize_phases",
    "rectified_transform",
    "rectifier_coefficient",
    "rototranslation_scattering",
    "scattering",
    "scattering_paths",
    "soft_threshold",
    "sparse_loss",
    "steerable_bank",
    "wavelet_transform",
]
