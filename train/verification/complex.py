"""Hierarchical networks with complex weights, to verify what needs no training.

rho acts on real and imaginary parts; variances of patches are Hermitian.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from autodiff import convolve, elu
from hcnn_core import patch_moments
from hcnn_core.backend import Array
from hcnn_core.factored import factor_options
from hcnn_core.moments import patch_covariance
from train.networks.hierarchical import SPACE, FactoredLayer, HierarchicalLayer, Kinds, NonlinearLayer, build
from train.networks.layer import Moments, Parameters
from train.networks.network import Network

__all__ = ["ComplexNetwork", "build_complex"]


class ComplexNetwork(Network):
    """A network whose layers are complex."""

    def initialize(self, rng: np.random.Generator) -> Parameters:
        """Draw real and imaginary parts of the weights, each as `Network` does; the logits' scale is real."""
        real, imaginary = super().initialize(rng), super().initialize(rng)
        return {
            layer: {
                name: a if name == "scale" else (a + 1j * imaginary[layer][name]) / np.sqrt(a.dtype.type(2))
                for name, a in arrays.items()
            }
            for layer, arrays in real.items()
        }

    def initial_moments(self) -> Moments:
        """Return the running moments of `Network.initial_moments`, complex but for variances of outputs."""
        return {
            layer: {name: a if name == "output_variance" else a + 0j for name, a in arrays.items()}
            for layer, arrays in super().initial_moments().items()
        }


def _rho(x: Array, w: Array, bias: Array, axes: tuple[int, ...], **options: Any) -> Array:
    x = convolve(x, w, axes, **options) + bias
    return elu(x.real) + 1j * elu(x.imag)


def _factored(
    x: Array, h: Array, shift: Array, g: Array, bias: Array | None, h_axes: Any, g_axes: Any, **options: Any
) -> Array:
    for_h, for_g = factor_options(x.ndim, h_axes, g_axes, **options)
    z = _rho(x, h, shift, **for_h)
    return convolve(z, g, **for_g) if bias is None else _rho(z, g, bias, **for_g)


def _normalized(y: Array, shift: Array, scale: Array, bias: Array, epsilon: float) -> tuple[Array, Array, Array]:
    everywhere = tuple(range(y.ndim - 1))
    y = y + shift
    mean = np.mean(y, axis=everywhere)
    variance = np.mean(np.square((y - mean).real) + np.square((y - mean).imag), axis=everywhere)
    y = (y - mean) * (scale / np.sqrt(variance + epsilon)) + bias
    return elu(y.real) + 1j * elu(y.imag), mean, variance


@dataclass(frozen=True, eq=False)
class _Complex(HierarchicalLayer):
    _rho = staticmethod(_rho)
    _normalized = staticmethod(_normalized)


@dataclass(frozen=True, eq=False)
class _ComplexFactored(_Complex, FactoredLayer):
    def _moments_of_patches(self, x: Array, sharing: dict[str, Any]) -> tuple[Array, Array]:
        options: dict[str, Any] = {"axes": SPACE, "kernel_size": self.kernel_size[0], "boundary": self.boundary[0]}
        (mean_r, cov_r), (mean_i, cov_i) = (patch_moments(part, **options) for part in (x.real, x.imag))
        cross = patch_covariance(x.imag, x.real, **options)
        return mean_r + 1j * mean_i, cov_r + cov_i + 1j * (cross - cross.T)


@dataclass(frozen=True, eq=False)
class _ComplexNonlinear(_ComplexFactored, NonlinearLayer):
    _factored = staticmethod(_factored)


build_complex = functools.partial(
    build, kinds=Kinds(_Complex, _ComplexFactored, _ComplexNonlinear, reduces=False), network=ComplexNetwork
)
"""As `train.networks.hierarchical.build`; the dtype of the settings is that of real and imaginary parts."""
