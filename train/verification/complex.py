"""Hierarchical networks with complex weights, to verify what needs no training.

rho acts on real and imaginary parts; variances of patches are Hermitian.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from hcnn_core import patch_moments
from hcnn_core.backend import Array
from hcnn_core.moments import patch_covariance
from train.networks.activations import Activation
from train.networks.hierarchical import FactoredLayer, HierarchicalLayer, Kinds, NonlinearLayer, build
from train.networks.layer import Moments, Parameters
from train.networks.network import Network


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


def _of_parts(activation: Activation) -> Activation:
    """The activation on real and imaginary parts, of which there is no fused form."""
    return activation._replace(rho=lambda z: activation.rho(z.real) + 1j * activation.rho(z.imag), fused=None)


def _normalized(y: Array, scale: Array, bias: Array, epsilon: float) -> tuple[Array, Array, Array]:
    everywhere = tuple(range(y.ndim - 1))
    mean = np.mean(y, axis=everywhere)
    variance = np.mean(np.square((y - mean).real) + np.square((y - mean).imag), axis=everywhere)
    return (y - mean) * (scale / np.sqrt(variance + epsilon)) + bias, mean, variance


@dataclass(frozen=True, eq=False)
class _Complex(HierarchicalLayer):
    _normalized = staticmethod(_normalized)


@dataclass(frozen=True, eq=False)
class _ComplexFactored(_Complex, FactoredLayer):
    def _moments_of_patches(self, x: Array, sharing: dict[str, Any]) -> tuple[Array, Array]:
        options: dict[str, Any] = {"axes": self.space, "kernel_size": self.kernel_size[0], "boundary": self.boundary[0]}
        (mean_r, cov_r), (mean_i, cov_i) = (patch_moments(part, **options) for part in (x.real, x.imag))
        cross = patch_covariance(x.imag, x.real, **options)
        return mean_r + 1j * mean_i, cov_r + cov_i + 1j * (cross - cross.T)


@dataclass(frozen=True, eq=False)
class _ComplexNonlinear(_ComplexFactored, NonlinearLayer):
    pass


build_complex = functools.partial(
    build, kinds=Kinds(_Complex, _ComplexFactored, _ComplexNonlinear, activation=_of_parts), network=ComplexNetwork
)
"""As `train.networks.hierarchical.build`; the dtype of the settings is that of real and imaginary parts."""
