"""Wavelets, scattering, phase harmonics and sparse codes of NumPy, CuPy and traced arrays."""

from wavelets.descent import adam as adam
from wavelets.descent import lbfgs as lbfgs
from wavelets.descent import momentum as momentum
from wavelets.filters import FilterBank as FilterBank
from wavelets.filters import littlewood_paley as littlewood_paley
from wavelets.filters import morlet_bank as morlet_bank
from wavelets.filters import steerable_bank as steerable_bank
from wavelets.harmonics import from_rectified as from_rectified
from wavelets.harmonics import harmonic_statistics as harmonic_statistics
from wavelets.harmonics import phase_harmonic as phase_harmonic
from wavelets.harmonics import rectified_transform as rectified_transform
from wavelets.harmonics import rectifier_coefficient as rectifier_coefficient
from wavelets.orthogonal import daubechies_filter as daubechies_filter
from wavelets.orthogonal import dwt as dwt
from wavelets.orthogonal import idwt as idwt
from wavelets.principal import Principal as Principal
from wavelets.principal import principal_components as principal_components
from wavelets.processes import decaying_vorticity as decaying_vorticity
from wavelets.processes import lognormal_cascade as lognormal_cascade
from wavelets.processes import multifractal_noise as multifractal_noise
from wavelets.processes import random_warp as random_warp
from wavelets.processes import randomize_phases as randomize_phases
from wavelets.rotations import rototranslation_scattering as rototranslation_scattering
from wavelets.scattering import scattering as scattering
from wavelets.scattering import scattering_paths as scattering_paths
from wavelets.sparse import hard_threshold as hard_threshold
from wavelets.sparse import ista as ista
from wavelets.sparse import learn_dictionary as learn_dictionary
from wavelets.sparse import lista as lista
from wavelets.sparse import soft_threshold as soft_threshold
from wavelets.sparse import sparse_loss as sparse_loss
from wavelets.synthesis import moment_distance as moment_distance
from wavelets.transform import inverse_wavelet_transform as inverse_wavelet_transform
from wavelets.transform import wavelet_transform as wavelet_transform

__all__ = [name for name, value in vars().items() if callable(value) and name[0] != "_"]
