"""The hierarchical network (sections 3 and 4 of arXiv:1703.04140): its settings, its layers, and their table."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from autodiff import (
    batch_normalize,
    convolve,
    defvjp_argnums,
    getval,
    marginal,
    merge_factors,
    normalize_filters,
    patch_moments,
    primitive,
)
from autodiff.primitives import convolve_and_parts
from hcnn_core.backend import Array, DeviceTables, lasting_zeros
from hcnn_core.factored import EXPANSION_ELEMENTS, factor_options
from hcnn_core.shards import Shard
from hcnn_core.typing import Boundary
from hcnn_core.updates import Term, weighted_sums
from train.networks.activations import ACTIVATIONS, Activation
from train.networks.architecture import ARCHITECTURES, Architecture, ArchitectureSettings
from train.networks.layer import DEFAULT_CALL, IMAGES, Call, Layer, Parameters, Signal, Size, Weights, times
from train.networks.network import Network
from train.networks.presets import HIERARCHICAL
from train.networks.scattering import ScatteringLayer, scattering_channels
from train.networks.skips import SKIPS, AlignedSkip, added_to
from train.settings import ConfigError, MomentSettings, setting


class NormalizationSettings(MomentSettings):
    """Settings of networks that normalise what layers make."""

    epsilon: float = setting(1e-5, "added to the variances that layers divide by", low=0.0)


class HierarchicalSettings(NormalizationSettings, ArchitectureSettings):
    """Settings of hierarchical networks alone."""

    scattering: int = setting(
        0, "octaves of a scattering transform before layer 1, mirrored at boundary zero; 0: none", low=0, high=4
    )
    depth: int = setting(12, "J, layers with the final sum (Eq. 7)", low=4, high=99)
    width: int = setting(16, "K, values of each attribute v_j", low=1)
    factors: int = setting(32, "Q, separable filters in the sum of Eq. (8)", low=1)
    space_kernel: int = setting(3, "taps of each filter along each space axis u", low=1)
    attribute_kernel: tuple[int, int] = setting(
        (7, 11), "taps along v_{j-2} and v_{j-1}; the last alone at j = 2", low=1
    )
    attribute_stride: int = setting(2, "subsampling of v_{j-2} and v_{j-1} at each layer", low=1)
    strided_layers: tuple[int, ...] = setting((5, 9), "layers j that subsample space by 2, where they exist", low=1)
    blur: bool = setting(
        False, "a fixed low-pass, [1, 2, 1]/4 along each u, before the layers that subsample space (arXiv:1904.11486)"
    )
    activation: str = setting(
        "elu", "rho, the nonlinearity of each layer; gelu takes more passes over memory", choices=ACTIVATIONS.keys()
    )
    nonlinear_factors: bool = setting(False, "the (+) network: rho between the two factors of Eq. (8)")
    boundary: str = setting(
        "zero",
        "how arrays are extended beyond their ends; attributes: periodic along attributes, by zeros in space",
        choices=("zero", "periodic", "attributes"),
    )
    reduction: str = setting("mean", "marginal over v_{j-3} (Eq. 6)", choices=("mean", "sum"))
    head: str = setting(
        "mean",
        "final marginal (Eq. 7): the sum itself, or the mean by a learned scale; or K means and a dense layer",
        choices=("mean", "sum", "dense"),
    )
    logit_scale: float = setting(1.0, "initial scale of the logits where head is mean", low=0.0)
    normalization: str = setting(
        "factors",
        "outputs that are normalised: of the first factors of Eq. (8), or of all filters too",
        choices=("factors", "both"),
    )
    skip: str = setting(
        "none",
        "what layers j = 3 to J-2 add, along the axes that it shares with x_j: aligned, x_{j-2} at the samples that "
        "strides keep; aligned-mean, means of x_{j-2} instead; previous, such means of x_{j-1}; dense, before rho, "
        "convolutions of x_{j-2} along u and v_{j-2} by filters for each v_j",
        choices=SKIPS.keys(),
    )
    hypernetwork: int = setting(
        0, "numbers z_j from which one linear map makes the filters of layer j = 4 to J-2; 0: each has its own", low=0
    )

    @property
    def boundaries(self) -> tuple[Boundary, Boundary]:
        """How arrays are extended in space, and along attributes."""
        return (
            "periodic" if self.boundary == "periodic" else "zero",
            "zero" if self.boundary == "zero" else "periodic",
        )


_low_passes = DeviceTables()


def low_pass(axes: int) -> NDArray[np.float64]:
    """Return the taps of the setting `blur`: [1, 2, 1]/4 along each of `axes` axes."""
    return np.asarray(math.prod(np.ix_(*(np.array([1, 2, 1]) / 4,) * axes)))


EMBEDDED = 4
"""The first layer whose factors a HyperNetwork makes; the linear map is among its weights."""


def name_of(j: int) -> str:
    """Return the name of x_j in a state."""
    return f"layer{j:02d}" if j else IMAGES


@dataclass(frozen=True, eq=False)
class HierarchicalLayer(Layer):
    """x_j from x_{j-1} by filters that are not factored: Eq. (3) at j = 1, where channels are summed, and Eq. (4)."""

    j: int
    reads: tuple[str, ...]
    inputs: tuple[int, ...]  # one to three axes u, then channels or attributes, after the marginal of Eq. (6)
    attributes: int  # how many of them are convolved: 0 (Eq. 3), 1, or 2
    kernel_size: tuple[int, ...]  # taps along each convolved axis
    stride: tuple[int, ...]
    boundary: tuple[Boundary, ...]
    filters: int  # values of the new attribute v_j
    normalizes: bool  # whether outputs are normalised, before the bias
    epsilon: float  # added to variances
    dtype: str
    reduction: str = "mean"  # of the marginal of Eq. (6)
    terms: int = 1
    """The number of terms in the marginal of x_{j-1}, if that is a mean; else 1.

    The mean is computed as a sum. Eq. (8) divides by the deviation of its input, so with epsilon times `terms` squared
    the result is the same, and no cotangent has to be divided.
    """
    reduces: bool = False  # whether to make the next layer's marginal on the way
    factors: int = 0  # Q of Eq. (8); 0 where filters are not factored
    tells_classes: bool = False
    blurs: bool = False  # whether its input is low-passed along u first
    skip: AlignedSkip | None = None  # from x_{j-2}, which is read too, or from x_{j-1}
    embedded: int = 0  # numbers in z_j, of which the linear map of layer EMBEDDED makes its factors; 0: it has its own
    activation: Activation = ACTIVATIONS["elu"]  # rho

    nonlinear = False
    """Whether rho stands between the factors: the (+) layer."""

    @cached_property
    def name(self) -> str:  # type: ignore[override]
        return name_of(self.j)

    @property
    def label(self) -> str:
        return f"layer {self.j}"

    @property
    def outputs(self) -> tuple[int, ...]:  # type: ignore[override]
        """Lengths of the axes of x_j: u, the attributes, v_j."""
        lengths = self.inputs[: len(self.stride)]
        return (*(-(-n // r) for n, r in zip(lengths, self.stride, strict=True)), self.filters)

    @property
    def space(self) -> tuple[int, ...]:
        """The axes u of its input."""
        return tuple(range(1, 1 + len(self.stride) - self.attributes))

    @property
    def along(self) -> tuple[int, ...]:
        """The axes of the attributes that it convolves."""
        return tuple(range(1 + len(self.space), 1 + len(self.stride)))

    @property
    def counted(self) -> int:
        """Filter coefficients as the paper counts them: effective filters, or both factors in the (+) network."""
        own = math.prod(self.kernel_size) * self.filters * (1 if self.attributes else self.inputs[-1])
        return own + self.connecting

    @property
    def connecting(self) -> int:
        """Coefficients of the filters of a dense connection."""
        return math.prod(self.skip.taps) * self.filters if self.skip and self.skip.taps else 0

    @property
    def trained(self) -> int:
        """Filter coefficients that are trained: those of both factors wherever there are two."""
        return self.counted

    @property
    def trainable(self) -> int:  # type: ignore[override]
        """Coefficients, biases and scales."""
        return self.trained + self.filters * (1 + self.normalizes)

    @property
    def multiply_adds(self) -> int:  # type: ignore[override]
        """Products per image if every filter were applied tap by tap (with both factors in the (+) network)."""
        per_output = math.prod(self.kernel_size) * (1 if self.attributes else self.inputs[-1])
        return per_output * math.prod(self.outputs) + self.connecting * math.prod(self.outputs[:-2])

    @property
    def support(self) -> str:  # type: ignore[override]
        """Taps, and whether channels are summed."""
        return times(self.kernel_size) + ("" if self.attributes else " sum")

    @property
    def steps(self) -> str:  # type: ignore[override]
        return times(self.stride)

    def initialize(self, rng: np.random.Generator) -> Weights:
        """Draw filters with the variance that gives the output, before rho, the second moment 1.

        That is the reciprocal of the number of terms that meet data (fewer at zero boundaries, on average over outputs)
        times the second moment of each term. Terms are standardised images at j = 1, rho of a standard normal at j = 2,
        normalised by Eq. (8) at j > 2, and rho of such in the (+) network. Biases are zero, scales 1. The arrays are w,
        or the factors h (Q, s, s) and g (Q, s1, s2, K); bias (K,), and scale (K,) where outputs are normalised.
        """
        weights = {**self._draw_filters(rng), "bias": np.zeros(self.filters, self.dtype)}
        if self.skip and self.skip.taps:
            variance = 1 / (math.prod(self.skip.taps) * self.activation.second_moment)
            drawn = rng.standard_normal((*self.skip.taps, self.filters)) * math.sqrt(variance)
            weights["connection"] = drawn.astype(self.dtype)
        return weights | ({"scale": np.ones(self.filters, self.dtype)} if self.normalizes else {})

    @property
    def copies(self) -> float:  # type: ignore[override]
        """Two more, the argument of rho and its result, where rho has no fused form or a dense connection is added."""
        return 2.5 if self.activation.fused and not self.connecting else 4.5

    def _draw_filters(self, rng: np.random.Generator) -> Weights:
        summed = self.inputs[-1:] if self.attributes == 0 else ()
        second_moment = 1.0 if self.j == 1 else self.activation.second_moment
        w = rng.standard_normal((*summed, *self.kernel_size, self.filters))
        terms = math.prod(summed) * self._terms_that_meet_data(0)
        return {"w": (w / math.sqrt(terms * second_moment)).astype(self.dtype)}

    def _terms_that_meet_data(self, first: int) -> float:
        """Taps of the axes from the first on that meet data, averaged over outputs."""
        axes = zip(self.inputs, self.kernel_size, self.stride, self.boundary, strict=False)
        return math.prod(_average_taps(*axis) for axis in list(axes)[first:])

    def moments(self) -> Weights:
        """Return the moments of standardised outputs, where outputs are normalised."""
        if not self.normalizes:
            return {}
        return {"output_mean": np.zeros(self.filters, self.dtype), "output_variance": np.ones(self.filters, self.dtype)}

    def __call__(
        self, weights: Weights, inputs: Sequence[Signal], moments: Weights | None = None, call: Call = DEFAULT_CALL
    ) -> tuple[Signal, Weights]:
        """Return x_j, and the moments of patches and outputs that it was normalised by."""
        if moments is not None:
            return self.by_filters(self._merged(weights, moments, self.terms), inputs), dict(moments)
        x = self._reduced(inputs[0])
        of_sums, used = self._patch_moments(x, call.shard)
        filters = self._filters(weights, of_sums, self.epsilon * self.terms**2, x.shape[1 + len(self.space) :])
        filters = self._connected(filters, weights, inputs)
        if not self.normalizes:
            return self.joined(self.made_by(filters, x), inputs), used
        shift, scale, bias = filters.pop("bias"), weights["scale"], weights["bias"]
        fused, sharing = self.activation.fused, {} if call.shard is None else {"shard": call.shard}
        y, parts = self._filtered_and_parts(filters, x) if fused else (self._summed(filters, x), {})
        if fused and self.reduces and not call.whole:
            operands = y, shift, scale, bias, self.along[0]
            total, mean, variance = fused.normalize_marginal(*operands, epsilon=self.epsilon, **sharing, **parts)
            return Signal(None, total), {**used, "output_mean": mean, "output_variance": variance}
        if fused:
            y, mean, variance = fused.normalize(y, shift, scale, bias, epsilon=self.epsilon, **sharing, **parts)
        else:
            y, mean, variance = batch_normalize(y + shift, scale, bias, epsilon=self.epsilon, **sharing)
            y = self.activation.rho(y)
        return self.joined(Signal(y), inputs), {**used, "output_mean": mean, "output_variance": variance}

    def _reduced(self, signal: Signal, reduction: Any = "sum") -> Array:
        """Sum or mean of x_{j-1} over v_{j-3} (Eq. 6), where it has that axis; low-passed with the setting `blur`.

        The low-pass removes the highest frequencies along u, which a stride of 2 would fold onto low ones. It is a
        convolution with the layer's boundary, so the layer is as covariant as without it.
        """
        x = signal.x if signal.reduced is None else signal.reduced
        if x.ndim == len(self.space) + 4:
            x = marginal(x, self.along[0], reduction=reduction)
        if not self.blurs:
            return x
        axes, like = len(self.space), getval(x)
        taps = _low_passes.beside(like, (axes, like.dtype), lambda: low_pass(axes).astype(like.dtype))
        return convolve(x, taps, self.space, boundary=self.boundary[:axes])

    def _patch_moments(self, x: Array, shard: Shard | None) -> tuple[tuple[Array, Array] | None, Weights]:
        """Moments of the input's patches, and of those of its mean; none here, since no factor is normalised."""
        return None, {}

    def _filters(
        self, weights: Weights, of_patches: tuple[Array, Array] | None, epsilon: float, lengths: tuple[int, ...]
    ) -> Weights:
        """Return the filters w of x, and the bias added to the result."""
        return {"w": weights["w"], "bias": self._offset(weights)}

    def _offset(self, weights: Weights) -> Array:
        """Return the bias added after filters, or zeros where outputs are normalised first."""
        bias = weights["bias"]
        return lasting_zeros(getval(bias)) if self.normalizes else bias

    def _fold(self, filters: Weights, weights: Weights, moments: Weights) -> Weights:
        """Return filters and bias before rho, which normalise outputs by the given moments if the layer does."""
        if "connection" in weights:
            filters = {**filters, "connection": weights["connection"]}
        if not self.normalizes:
            return filters
        slope = weights["scale"] / np.sqrt(moments["output_variance"] + self.epsilon)
        bias = weights["bias"] + slope * (filters["bias"] - moments["output_mean"])
        last = {"g" if "g" in filters else "w", "connection"} & filters.keys()
        return {**filters, **{name: filters[name] * slope for name in last}, "bias": bias}

    def _connected(self, filters: Weights, weights: Weights, inputs: Sequence[Signal]) -> Weights:
        """Return filters, with the result of the dense connection as "added", if the layer has one."""
        if self.skip is None or not self.skip.taps:
            return filters
        return {**filters, "added": self.skip(inputs[-1].x, weights["connection"])}

    def _summed(self, filters: Weights, x: Array) -> Array:
        """Return the result of the filters plus that of the dense connection, before bias and rho."""
        y = self._filtered(filters, x)
        return added_to(y, filters["added"]) if "added" in filters else y

    @property
    def _axes(self) -> tuple[int, ...]:
        return self.space + self.along

    @property
    def _options(self) -> dict[str, Any]:
        options: dict[str, Any] = {"boundary": self.boundary, "stride": self.stride}
        return options if self.attributes else options | {"sum_axes": 1 + len(self.space)}

    def _filtered(self, filters: Weights, x: Array) -> Array:
        """Filter x, before bias and rho."""
        return convolve(x, filters["w"], self._axes, **self._options)

    def _filtered_and_parts(self, filters: Weights, x: Array) -> tuple[Array, dict[str, Array]]:
        """Return `_filtered`, and parts of its moments where a GPU makes these on the way."""
        if "w" not in filters or "added" in filters:
            return self._summed(filters, x), {}
        y, parts = convolve_and_parts(x, filters["w"], self._axes, **self._options)
        return y, {} if parts is None else {"parts": getval(parts)}

    def made_by(self, filters: Weights, x: Array) -> Signal:
        """Return x_j from x, the reduced input, by merged filters and a bias."""
        if (fused := self.activation.fused) is None or "added" in filters:
            return Signal(self.activation.rho(self._summed(filters, x) + filters["bias"]))
        operands = x, filters["w"], filters["bias"], self._axes
        if self.reduces:
            return Signal(*fused.convolve_marginal(*operands, self.along[0], **self._options))
        return Signal(fused.convolve(*operands, **self._options))

    def joined(self, signal: Signal, inputs: Sequence[Signal]) -> Signal:
        """Return the output plus the skip, if the layer has one that is added after rho."""
        return signal if self.skip is None or self.skip.taps else Signal(added_to(signal.x, self.skip(inputs[-1].x)))

    def merged(self, weights: Weights, moments: Weights) -> Weights:
        """Return the layer as filters and biases: x_j is rho(convolve(x, w, ...) + bias) for the marginal x.

        A (+) layer has filters h (s, s, Q) with a shift that is added, rho, and g with the bias.
        """
        return self._merged(weights, moments, 1)

    def _merged(self, weights: Weights, moments: Weights, terms: int) -> Weights:
        """Return filters and biases at evaluation, for `terms` times the marginal."""
        of_patches = _of_multiple((moments["mean"], moments["covariance"]), terms) if self.factors else None
        filters = self._filters(weights, of_patches, self.epsilon * terms**2, self.inputs[len(self.space) :])
        return self._fold(filters, weights, moments)

    def by_filters(self, filters: Weights, inputs: Sequence[Signal], reduction: str = "sum") -> Signal:
        """Return the output by filters merged for this reduction over v_{j-3}, plus the skip."""
        x = self._reduced(inputs[0], reduction)
        return self.joined(self.made_by(self._connected(filters, filters, inputs), x), inputs)

    def opened(self, weights: Weights, moments: Weights) -> Layer:
        """Return the layer with its filters merged."""
        return MergedLayer(self, self._merged(weights, moments, self.terms))

    def folded(self) -> Layer:
        """Return the layer that takes merged filters."""
        return MergedLayer(self)

    def linear_maps(self, merged: Weights) -> list[Callable[[Array], Array]]:
        """Return the layer without biases and rho: the marginal (Eq. 6), the low-pass, and a convolution."""
        return [lambda x: convolve(self.marginal(x), merged["w"], self._axes, **self._options)]

    def marginal(self, x: Array) -> Array:
        """Return the marginal of x_{j-1} over v_{j-3} (Eq. 6), where it has that axis; low-passed with `blur`."""
        return self._reduced(Signal(x), self.reduction)


@dataclass(frozen=True, eq=False)
class FactoredLayer(HierarchicalLayer):
    """Eq. (8): Q filters h in space, whose results are normalised, and g along attributes; merged into one filter."""

    row_axes: ClassVar[Mapping[str, int]] = {"h": 1, "h_map": 1, "g_map": 1}  # from taps to factors, from z_j to both

    @property
    def taps(self) -> int:
        """Coefficients of a filter in space."""
        return math.prod(self.kernel_size[: len(self.space)])

    @property
    def trained(self) -> int:
        """Coefficients of both factors, or of z_j and the linear map; and of a dense connection."""
        own = self.factors * (self.taps + math.prod(self.kernel_size[len(self.space) :]) * self.filters)
        if self.embedded:
            own = self.embedded * (1 + own * (self.j == EMBEDDED))
        return own + self.connecting

    @property
    def counted(self) -> int:
        """Coefficients of the merged filter; of both factors in a (+) layer; of z_j and the map in a HyperNetwork."""
        return self.trained if self.embedded or self.nonlinear else super().counted

    def weights_in(self, parameters: Parameters) -> Weights:
        """Return the layer's weights; a HyperNetwork makes the factors from z_j."""
        weights = super().weights_in(parameters)
        if not self.embedded:
            return weights
        maps = parameters[name_of(EMBEDDED)]
        return weights | {name: np.tensordot(weights["z"], maps[f"{name}_map"], 1) for name in "hg"}

    def _draw_filters(self, rng: np.random.Generator) -> Weights:
        """Draw the factors, or z_j, whose mean squared norm is 1; at layer `EMBEDDED` draw the linear map too."""
        if not self.embedded:
            return self._draw_factors(rng)
        z = rng.standard_normal(self.embedded) / math.sqrt(self.embedded)
        drawn = [self._draw_factors(rng) for _ in range(self.embedded if self.j == EMBEDDED else 0)]
        maps = {f"{name}_map": np.stack([factors[name] for factors in drawn]) for name in "hg" if drawn}
        return {"z": z.astype(self.dtype), **maps}

    def _draw_factors(self, rng: np.random.Generator) -> Weights:
        count = len(self.space)
        space, attributes = self.kernel_size[:count], self.kernel_size[count:]
        second_moment = self.activation.second_moment if self.nonlinear else 1.0
        h = rng.standard_normal((self.factors, *space)) / math.sqrt(math.prod(space))
        g = rng.standard_normal((self.factors, *attributes, self.filters))
        g /= math.sqrt(self.factors * self._terms_that_meet_data(count) * second_moment)
        return {"h": h.astype(self.dtype), "g": g.astype(self.dtype)}

    def moments(self) -> Weights:
        """Return the moments of standardised, uncorrelated patches of T taps: "mean" (T,) and "covariance" (T, T)."""
        mean, covariance = np.zeros(self.taps, self.dtype), np.eye(self.taps, dtype=self.dtype)
        return {"mean": mean, "covariance": covariance, **super().moments()}

    def retained(self, batch_size: int) -> float:
        """Its output, and copies of the covariance of the taps along space."""
        return super().retained(batch_size) + 8 * self.taps**2

    def _patch_moments(self, x: Array, shard: Shard | None) -> tuple[tuple[Array, Array] | None, Weights]:
        kernel, sharing = self.kernel_size[: len(self.space)], {} if shard is None else {"shard": shard}
        of_sums = patch_moments(x, self.space, kernel, boundary=self.boundary[0], **sharing)
        mean, covariance = _of_multiple(of_sums, 1 / self.terms)  # (T,), (T, T)
        return of_sums, {"mean": mean, "covariance": covariance}

    def _filters(
        self, weights: Weights, of_patches: tuple[Array, Array] | None, epsilon: float, lengths: tuple[int, ...]
    ) -> Weights:
        assert of_patches is not None
        w, bias = merge_factors(
            weights["h"],
            weights["g"],
            *of_patches,
            self._offset(weights),
            lengths=lengths,
            stride=self.stride[-2:],
            boundary=self.boundary[-2:],
            epsilon=epsilon,
        )
        return {"w": w, "bias": bias}


@dataclass(frozen=True, eq=False)
class NonlinearLayer(FactoredLayer):
    """The (+) layer, rho(W^g rho(W^h x)): its Q copies are made some positions at a time, again on the way back."""

    nonlinear = True

    @property
    def trainable(self) -> int:  # type: ignore[override]
        """Coefficients, biases and scales, those of the first factors too where outputs are normalised."""
        return super().trainable + 2 * self.factors * self.normalizes

    @property
    def multiply_adds(self) -> int:  # type: ignore[override]
        """Products per image of both factors."""
        along_attributes = math.prod(self.kernel_size[-2:]) * self.factors * math.prod(self.outputs)
        return self.taps * self._expanded + along_attributes + self.connecting * math.prod(self.outputs[:-2])

    @property
    def _expanded(self) -> int:
        """Numbers in the Q copies of an image."""
        count = len(self.space)
        return math.prod(self.outputs[:count]) * math.prod(self.inputs[count:]) * self.factors

    def retained(self, batch_size: int) -> float:
        """Its output, and where rho has no fused form the Q copies before and after it."""
        return super().retained(batch_size) + (0 if self.activation.fused else 3 * batch_size * self._expanded)

    def workspace(self, batch_size: int) -> int:
        """Count the numbers in the copies of a tile that is expanded."""
        return 8 * min(batch_size * self._expanded, max(EXPANSION_ELEMENTS, self._expanded))

    def initialize(self, rng: np.random.Generator) -> Weights:
        """Draw weights; where outputs are normalised there are h_scale and h_bias (Q,) too."""
        scales = {"h_scale": np.ones(self.factors, self.dtype), "h_bias": np.zeros(self.factors, self.dtype)}
        return super().initialize(rng) | (scales if self.normalizes else {})

    def _filters(
        self, weights: Weights, of_patches: tuple[Array, Array] | None, epsilon: float, lengths: tuple[int, ...]
    ) -> Weights:
        assert of_patches is not None
        h, mean = normalize_filters(weights["h"], *of_patches, epsilon=epsilon)
        shift = -mean
        if "h_scale" in weights:
            h, shift = h * weights["h_scale"], weights["h_bias"] - mean * weights["h_scale"]
        return {"h": h, "shift": shift, "g": weights["g"], "bias": self._offset(weights)}

    def _filtered(self, filters: Weights, x: Array) -> Array:
        h, shift, g = (filters[name] for name in ("h", "shift", "g"))
        if fused := self.activation.fused:
            return fused.factored(x, h, shift, g, None, self.space, self.along, **self._options)
        of_h, of_g = factor_options(x.ndim, self.space, self.along, **self._options)
        return convolve(self.activation.rho(convolve(x, h, **of_h) + shift), g, **of_g)

    def made_by(self, filters: Weights, x: Array) -> Signal:
        """Return x_j from x, the reduced input, by both filters."""
        if (fused := self.activation.fused) is None or "added" in filters:
            return super().made_by(filters, x)
        operands = (filters[name] for name in ("h", "shift", "g", "bias"))
        return Signal(fused.factored(x, *operands, self.space, self.along, **self._options))

    def linear_maps(self, merged: Weights) -> list[Callable[[Array], Array]]:
        """Return the marginal (Eq. 6) and the convolution with h, and that with g."""
        of_h, of_g = factor_options(3 + len(self.space), self.space, self.along, **self._options)
        return [lambda x: convolve(self.marginal(x), merged["h"], **of_h), lambda x: convolve(x, merged["g"], **of_g)]


class MergedLayer(Layer):
    """A layer at evaluation. Its weights are the merged filters, unless it is given filters for sums over v_{j-3}."""

    def __init__(self, layer: HierarchicalLayer, filters: Weights | None = None) -> None:
        self.name, self.reads, self.inputs, self.outputs = layer.name, layer.reads, layer.inputs, layer.outputs
        self._layer, self._filters = layer if filters else replace(layer, reduces=False), filters

    def __call__(
        self, weights: Weights, inputs: Sequence[Signal], moments: Weights | None = None, call: Call = DEFAULT_CALL
    ) -> tuple[Signal, Weights]:
        filters, reduction = (self._filters, "sum") if self._filters else (weights, self._layer.reduction)
        return self._layer.by_filters(filters, inputs, reduction), moments or {}


class Head(Layer):
    """The sum of x_{J-1} over everything but the class (Eq. 7), or the mean by a scale or through a dense layer."""

    name, label, counted, tells_classes = "head", "the logits", 0, True

    def __init__(
        self, kind: str, reads: str, inputs: tuple[int, ...], classes: int, logit_scale: float, dtype: str
    ) -> None:
        self.kind, self.reads, self.inputs, self.outputs = kind, (reads,), inputs, (classes,)
        self.support, self.logit_scale, self.dtype = kind, logit_scale, dtype
        self.trainable = {"mean": 1, "dense": (inputs[-1] + 1) * classes}.get(kind, 0)

    def initialize(self, rng: np.random.Generator) -> Weights:
        """Draw the scale of the logits, where it is learned; or w (K, C) and bias (C,) of a dense layer."""
        if self.kind == "mean":
            return {"scale": np.asarray(self.logit_scale, self.dtype)}
        if self.kind == "sum":
            return {}
        filters, (classes,) = self.inputs[-1], self.outputs
        w = rng.standard_normal((filters, classes)) * self.logit_scale / math.sqrt(filters)
        return {"w": w.astype(self.dtype), "bias": np.zeros(classes, self.dtype)}

    def apply(self, weights: Weights, *inputs: Array) -> Array:
        (x,) = inputs
        axes = tuple(range(1, x.ndim - 1))
        if self.kind == "sum":
            return marginal(x, axes)
        means = marginal(x, axes, reduction="mean")
        if self.kind == "dense":
            return means @ weights["w"] + weights["bias"]
        return means * weights["scale"]


def _of_multiple(moments: tuple[Array, Array], factor: float) -> tuple[Array, Array]:
    """Mean and covariance of patches with these moments, times a factor."""
    return moments if factor == 1 else _scaled(*moments, factor)


@primitive
def _scaled(mean: Array, covariance: Array, factor: float) -> tuple[Array, Array]:
    """Scale mean and covariance, by one kernel on a GPU."""
    mean, covariance = weighted_sums([[Term(mean, factor)], [Term(covariance, factor**2)]])
    return mean, covariance


defvjp_argnums(
    _scaled,
    lambda argnums, ans, args, kwargs: lambda g: [g[i] * args[2] ** (i + 1) if i in g else None for i in argnums],
)


def _average_taps(n: int, size: int, stride: int, boundary: Boundary) -> float:
    """Taps of a filter that meet data, averaged over its outputs along an axis of length n."""
    if boundary == "periodic":
        return float(size)
    newest = np.arange(0, n, stride) + size // 2  # the sample that tap 0 meets; tap t meets the one t before
    met = np.minimum(newest, size - 1) - np.maximum(newest - n + 1, 0) + 1
    return float(np.maximum(met, 0).mean())


def layers(config: HierarchicalSettings, image_size: Size, classes: int, channels: int = 3) -> list[HierarchicalLayer]:
    """Return the table of the convolutional layers j = 1 .. J-1.

    Layer J-1 has a filter for each class, its last attribute (Eq. 7), or K where the head is dense.
    """
    if HierarchicalSettings not in ARCHITECTURES[config.architecture].sections:
        raise ConfigError(f"architecture is {config.architecture!r}, no hierarchical network: take another preset")
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    x_0 = (*(n // 2**config.scattering for n in size), scattering_channels(config.scattering, channels))
    last, table = config.depth - 1, list[HierarchicalLayer]()
    names = [ScatteringLayer.name if config.scattering else IMAGES, *map(name_of, range(1, last))]  # of x_0 .. x_{J-2}
    factored = NonlinearLayer if config.nonlinear_factors else FactoredLayer
    means = None if config.skip in ("aligned", "dense") else config.boundaries[1]
    dense = len(size) + 1 if config.skip == "dense" else 0  # axes of the filters of dense connections
    for j in range(1, config.depth):
        convolved = _convolved(config, j, table[-1].outputs if table else x_0, len(size))
        back = SKIPS[config.skip] if 2 < j < last else 0
        strides = [*(layer.stride for layer in table), convolved["stride"]][-back:]
        trained = {"taps": convolved["kernel_size"][:dense], "boundary": convolved["boundary"][:dense]}
        table.append(
            (HierarchicalLayer if j < 3 else factored)(
                j=j,
                reads=tuple(names[j - 1 - i] for i in range(max(back, 1))),
                **convolved,
                filters=classes if j == last and config.head != "dense" else config.width,
                normalizes=config.normalization == "both",
                epsilon=config.epsilon,
                dtype=config.dtype,
                reduction=config.reduction,
                reduces=2 < j < last and not (config.nonlinear_factors or back),
                tells_classes=j == last,
                activation=ACTIVATIONS[config.activation],
                skip=AlignedSkip.over(*(s[: len(size) + 1] for s in strides), means=means, **trained) if back else None,
                embedded=config.hypernetwork if EMBEDDED <= j < last else 0,
            )
        )
    return table


def _convolved(config: HierarchicalSettings, j: int, before: tuple[int, ...], axes: int) -> dict[str, Any]:
    """Return the input of layer j, x_{j-1} of the lengths `before`, with its kernel, strides and boundaries."""
    attributes, (in_space, along_attributes) = min(j - 1, 2), config.boundaries
    step = 2 if j in config.strided_layers else 1
    is_mean = config.reduction == "mean" and len(before) == axes + 3  # of three attributes, the first goes (Eq. 6)
    return {
        "inputs": before[:axes] + before[-max(attributes, 1) :],
        "attributes": attributes,
        "kernel_size": (*(config.space_kernel,) * axes, *config.attribute_kernel[2 - attributes :]),
        "stride": (*(step,) * axes, *(config.attribute_stride,) * attributes),
        "boundary": (*(in_space,) * axes, *(along_attributes,) * attributes),
        "terms": before[axes] if is_mean else 1,
        "factors": config.factors if attributes == 2 else 0,
        "blurs": config.blur and step > 1,
    }


def hierarchy(network: Network) -> list[HierarchicalLayer]:
    """Return the layers j = 1 .. J-1 of a network, whatever rows stand between them.

    x_0 is the input of layer 1: the images, or their scattering coefficients. ConfigError if a row between them changes
    axes, so that translations of a layer's output do not translate the next layer's input.
    """
    table = [layer for layer in network.table if isinstance(layer, HierarchicalLayer)]
    for before, layer in pairwise(table):
        shape = before.outputs
        axes = len(layer.space)
        if layer.inputs not in (shape, shape[:axes] + shape[axes + 1 :]):  # Eq. (6) sums the first of three attributes
            raise ConfigError(
                f"what stands between layers {before.j} and {layer.j} makes {times(layer.inputs)} of {times(shape)}; "
                "translations are followed through rows that keep axes"
            )
    return table


def build(config: HierarchicalSettings, image_size: Size = 32, classes: int = 10, channels: int = 3) -> Network:
    """Return the network of some settings."""
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    if config.scattering and len(size) != 2:
        raise ConfigError(f"scattering is {config.scattering}, for images; these data have {len(size)} axes of space")
    hidden = layers(config, size, classes, channels)
    head = Head(config.head, hidden[-1].name, hidden[-1].outputs, classes, config.logit_scale, config.dtype)
    first: list[Layer] = []
    if config.scattering:
        first = [ScatteringLayer(config.scattering, (*size, channels), config.boundaries[0], config.dtype)]
    trained = sum(layer.trained for layer in hidden)
    notes = [f"Trained coefficients, factors h and g counted: {trained:,} (Q = {config.factors})."]
    rho, shape = hidden[0].activation, (*size, channels)
    slow = f"{rho.title} has no fused form: it takes passes of its own after each layer's convolution."
    return Network(config, [*first, *hidden, head], shape, classes, notes, () if rho.fused else (slow,))


def _check(config: HierarchicalSettings) -> None:
    """Refuse sizes of images that a scattering transform does not take, and a HyperNetwork without layers."""
    if config.hypernetwork and config.depth < EMBEDDED + 2:
        where = f"layers {EMBEDDED} to J-2; depth is {config.depth}: take {EMBEDDED + 2} or more"
        raise ConfigError(f"hypernetwork is {config.hypernetwork}, for {where}")
    if unfit := [n for n in config.image_sizes if n % 2**config.scattering or n <= 2**config.scattering]:
        raise ConfigError(
            f"image_sizes has {unfit[0]}; with scattering = {config.scattering} choose larger multiples of "
            f"{2**config.scattering}"
        )


def _refuse(config: HierarchicalSettings, size: tuple[int, ...], classes: int, channels: int) -> None:
    """Refuse images that scattering does not take, and periodic axes that a stride does not divide.

    There a subsampled axis is no longer periodic, and Proposition 3.1 does not hold.
    """
    height, width = size[0], size[-1]
    if config.scattering and (height != width or height % 2**config.scattering):
        raise ConfigError(
            f"scattering is {config.scattering}, for square images of a multiple of {2**config.scattering} pixels a "
            f"side; these have {height}x{width}"
        )
    for layer in layers(config, size, classes, channels) if config.boundary != "zero" else []:
        along = zip(layer.inputs, layer.stride, layer.boundary, strict=False)
        for axis, (length, stride, boundary) in enumerate(along):
            if boundary == "periodic" and length > 1 and length % stride:
                what = f"images of {times(size)}" if axis < len(size) else f"--width {config.width}"
                raise ConfigError(
                    f"{what} cannot be periodic: layer {layer.j} subsamples an axis of {length} by {stride}, which "
                    f"does not divide it; take another {'size' if axis < len(size) else 'width'}, or --boundary zero"
                )


ARCHITECTURE = Architecture(
    title="a hierarchical network",
    build=build,
    presets=HIERARCHICAL,
    sections=(HierarchicalSettings, NormalizationSettings, MomentSettings),
    of_dataset={"cifar100": {"attribute_kernel": (11, 11)}},  # section 4.2
    check=_check,
    refuse=_refuse,
    axes=(1, 2, 3),
)
