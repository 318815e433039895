"""Nonlinearities rho of hierarchical networks: their functions, second moments, slopes, and fused forms."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from autodiff import (
    convolve_elu,
    convolve_elu_marginal,
    defvjp,
    factored_layer,
    normalize_elu,
    normalize_elu_marginal,
    primitive,
)
from hcnn_core.backend import Array


class Fused(NamedTuple):
    """Functions that compute rho in one pass with the operation before it, like those of `hcnn_core` for ELU."""

    convolve: Callable[..., Any]  # rho(convolve(x, w, axes, ...) + bias), as `convolve_elu`
    convolve_marginal: Callable[..., Any]  # the same and its sum over an axis, as `convolve_elu_marginal`
    normalize: Callable[..., Any]  # rho of what a batch normalises, as `normalize_elu`
    normalize_marginal: Callable[..., Any]  # the sum of the same over an axis alone, as `normalize_elu_marginal`
    factored: Callable[..., Any]  # the (+) layer, as `factored_layer`


class Activation(NamedTuple):
    """A function of each number.

    Layers take the fused form where there is one, and else `rho` after each convolution and normalisation.
    """

    title: str
    rho: Callable[[Array], Array]  # written in functions of NumPy that the tape differentiates
    second_moment: float  # E[rho(z)^2] for a standard normal z, so that weights keep the variance
    slope: float  # the largest of its derivative, its Lipschitz constant
    fused: Fused | None = None


def _elu(x: Array) -> Array:
    return np.where(x < 0, np.expm1(np.minimum(x, 0)), x)


def _inner(x: Array) -> Array:
    return np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x))


@primitive
def _gelu(x: Array) -> Array:
    return x * (0.5 + 0.5 * _inner(x))


def _gelu_slope(x: Array) -> Array:
    t = _inner(x)
    return 0.5 + 0.5 * t + x * (1 - t * t) * (math.sqrt(0.5 / math.pi) * (1 + 3 * 0.044715 * x * x))


defvjp(_gelu, lambda ans, x: lambda g: g * _gelu_slope(x))


ACTIVATIONS: dict[str, Activation] = {
    # 1 + e^2 Phi(-2) - 2 sqrt(e) Phi(-1) to five digits, by which weights have been drawn since the first version
    "elu": Activation(
        "ELU",
        _elu,
        0.6449419,
        1.0,
        Fused(convolve_elu, convolve_elu_marginal, normalize_elu, normalize_elu_marginal, factored_layer),
    ),
    "gelu": Activation("GELU", _gelu, 0.4251937, 1.1289931),  # arXiv:1606.08415, section 2, by the tanh
}
"""Activations by their names in the setting `activation`."""
