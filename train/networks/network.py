"""The hierarchical network as one table, its weights, and its layers (sections 3 and 4 of arXiv:1703.04140)."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from autodiff import (
    convolve,
    convolve_elu,
    convolve_elu_marginal,
    factored_layer,
    getval,
    marginal,
    merge_factors,
    normalize_elu,
    normalize_filters,
    patch_moments,
)
from hcnn_core.backend import Array
from hcnn_core.shards import Shard
from hcnn_core.typing import Boundary
from train.config import Config, ConfigError
from train.networks.scattering import ScatteringStage, scattering_channels

__all__ = ["Layer", "Moments", "Network", "Parameters", "describe", "layers", "merge_factors"]

SPACE = (1, 2)
ATTRIBUTES = (3, 4)
OUTPUT_MOMENTS = {"output_mean", "output_variance"}
ELU_SECOND_MOMENT = 0.6449419
"""E[elu(z)^2] for a standard normal z: 1/2 + e^2 Phi(-2) - 2 sqrt(e) Phi(-1) + 1/2."""

Parameters = dict[str, dict[str, Array]]
Moments = dict[str, dict[str, Array]]
"""Per layer: "mean" (T,) and "covariance" (T, T) of the patches it filters, where it has factors; "output_mean" and
"output_variance" (K,) of what its filters make, where that is normalised."""


@dataclass(frozen=True)
class Layer:
    """One row of the table: x_j from x_{j-1}."""

    j: int  # depth
    # Lengths of the axes convolved or summed: u1, u2, then channels or attributes, after the marginal of Eq. (6).
    inputs: tuple[int, ...]
    attributes: int  # How many attribute axes are convolved: 0 (Eq. 3, channels are summed), 1, or 2.
    kernel_size: tuple[int, ...]  # taps along each convolved axis
    stride: tuple[int, ...]  # subsampling along each convolved axis
    boundary: tuple[Boundary, ...]  # how the array is extended along each convolved axis
    filters: int  # values of the new attribute v_j
    factors: int  # Q of Eq. (8), or 0 where filters are not factored (j = 1, 2).
    nonlinear: bool  # whether rho stands between the factors: the (+) layer

    @property
    def name(self) -> str:
        """Key of the layer's weights."""
        return f"layer{self.j:02d}"

    @property
    def outputs(self) -> tuple[int, ...]:
        """Lengths of the axes of x_j: u1, u2, the attributes, v_j."""
        lengths = self.inputs[: 2 + self.attributes]
        return (*(-(-n // r) for n, r in zip(lengths, self.stride, strict=True)), self.filters)

    @property
    def parameters(self) -> int:
        """Filter coefficients as the paper counts them: effective filters, or both factors in the (+) network."""
        if self.nonlinear:
            return self.trained
        return math.prod(self.kernel_size) * self.filters * (1 if self.attributes else self.inputs[2])

    @property
    def trained(self) -> int:
        """Filter coefficients that are trained: those of both factors wherever there are two."""
        if not self.factors:
            return self.parameters
        return self.factors * (math.prod(self.kernel_size[:2]) + math.prod(self.kernel_size[2:]) * self.filters)

    @property
    def multiply_adds(self) -> int:
        """Products per image if every filter were applied tap by tap (with both factors in the (+) network)."""
        if not self.nonlinear:
            per_output = math.prod(self.kernel_size) * (1 if self.attributes else self.inputs[2])
            return per_output * math.prod(self.outputs)
        space = (
            math.prod(self.kernel_size[:2]) * self.factors * math.prod(self.outputs[:2]) * math.prod(self.inputs[2:])
        )
        return space + math.prod(self.kernel_size[2:]) * self.factors * math.prod(self.outputs)


def layers(config: Config, image_size: int | tuple[int, int], classes: int, channels: int = 3) -> list[Layer]:
    """Return the table of the convolutional layers j = 1 .. J-1."""
    if config.architecture != "hcnn":
        raise ConfigError(f"architecture is {config.architecture!r}, no hierarchical network: take another preset")
    k, r = config.width, config.attribute_stride
    in_space, along_attributes = config.boundaries
    space = (config.space_kernel, config.space_kernel)
    pixels = (image_size, image_size) if isinstance(image_size, int) else image_size
    table: list[Layer] = []
    for j in range(1, config.depth):
        u = table[-1].outputs[:2] if table else (pixels[0] // 2**config.scattering, pixels[1] // 2**config.scattering)
        attributes = min(j - 1, 2)
        v = (scattering_channels(config.scattering, channels),) if j == 1 else table[-1].outputs[-attributes:]
        steps = (2, 2) if j in config.strided_layers else (1, 1)
        table.append(
            Layer(
                j,
                (*u, *v),
                attributes,
                (*space, *config.attribute_kernel[2 - attributes :]),
                (*steps, *(r,) * attributes),
                (in_space, in_space, *(along_attributes,) * attributes),
                classes if j == config.depth - 1 and config.head != "dense" else k,
                config.factors if attributes == 2 else 0,
                config.nonlinear_factors and attributes == 2,
            )
        )
    return table


class Network:
    """The layers of one configuration, on arrays of any backend, traced or not."""

    _rho: Callable[..., Any] = staticmethod(convolve_elu)
    """The pointwise nonlinearity of a convolution and a bias: of x, w, bias, axes, and options of `convolve`."""

    _factored: Callable[..., Any] = staticmethod(factored_layer)
    """A (+) layer: of x, h, shift, g, bias, the axes of h and g, and options of `factored_layer`."""

    _normalized: Callable[..., Any] = staticmethod(normalize_elu)
    """Normalisation of what filters made, and rho: of y, shift, scale, bias and epsilon."""

    _sharing: Mapping[str, Any] = MappingProxyType({})
    """The option `shard` of moments, where several processes share a batch."""

    def __init__(
        self, config: Config, image_size: int | tuple[int, int] = 32, classes: int = 10, channels: int = 3
    ) -> None:
        self.config = config
        self.table = layers(config, image_size, classes, channels)
        self.classes = classes
        rows, columns = (image_size, image_size) if isinstance(image_size, int) else image_size
        self.image_shape = (rows, columns, channels)
        """Rows, columns and channels of the images it is made for."""
        self._stages: dict[int, ScatteringStage] = {}

    def describe(self) -> str:
        """Return the table of the layers as text, see `train.networks.network.describe`."""
        return describe(self.config, self.image_shape[:2], self.classes, self.image_shape[2])

    def on_shard(self, shard: Shard) -> Network:
        """Return the network for one part of a batch: in training, moments are those of the whole batch."""
        network = copy.copy(self)
        network._sharing = {"shard": shard}
        return network

    def initialize(self, rng: np.random.Generator) -> Parameters:
        """Draw initial weights on the host.

        Filters are normal with the variance that gives every layer's output, before rho, the second moment 1: the
        reciprocal of the number of terms that meet data (fewer at zero boundaries, on average over outputs) times the
        second moment of each term. Terms are standardised images at j = 1, rho of a standard normal at j = 2,
        normalised by Eq. (8) at j > 2, and rho of such in the (+) network. Biases are zero, scales 1.
        """
        dtype = self.config.dtype
        parameters: Parameters = {}
        for layer in self.table:
            terms = math.prod(
                _average_taps(*axis)
                for axis in zip(layer.inputs, layer.kernel_size, layer.stride, layer.boundary, strict=False)
            )
            space, attributes = layer.kernel_size[:2], layer.kernel_size[2:]
            if layer.factors:
                per_filter = math.prod(
                    _average_taps(*axis)
                    for axis in zip(layer.inputs[2:], attributes, layer.stride[2:], layer.boundary[2:], strict=True)
                )
                second_moment = ELU_SECOND_MOMENT if layer.nonlinear else 1.0
                h = rng.standard_normal((layer.factors, *space)) / math.sqrt(math.prod(space))
                g = rng.standard_normal((layer.factors, *attributes, layer.filters))
                g /= math.sqrt(layer.factors * per_filter * second_moment)
                weights = {"h": h.astype(dtype), "g": g.astype(dtype)}
            else:
                summed = layer.inputs[2:3] if layer.attributes == 0 else ()
                second_moment = 1.0 if layer.j == 1 else ELU_SECOND_MOMENT
                w = rng.standard_normal((*summed, *space, *attributes, layer.filters))
                weights = {"w": (w / math.sqrt(math.prod(summed) * terms * second_moment)).astype(dtype)}
            parameters[layer.name] = {**weights, "bias": np.zeros(layer.filters, dtype)}
            if self.config.normalization == "both":
                parameters[layer.name]["scale"] = np.ones(layer.filters, dtype)
                if layer.nonlinear:
                    parameters[layer.name]["h_scale"] = np.ones(layer.factors, dtype)
                    parameters[layer.name]["h_bias"] = np.zeros(layer.factors, dtype)
        if self.config.head == "mean":
            parameters["head"] = {"scale": np.asarray(self.config.logit_scale, dtype)}
        elif self.config.head == "dense":
            filters = self.table[-1].filters
            w = rng.standard_normal((filters, self.classes)) * self.config.logit_scale / math.sqrt(filters)
            parameters["head"] = {"w": w.astype(dtype), "bias": np.zeros(self.classes, dtype)}
        return parameters

    def initial_moments(self) -> Moments:
        """Return the running moments before the first step: of standardised, uncorrelated patches and outputs."""
        taps, dtype = self.config.space_kernel**2, self.config.dtype
        found: Moments = {}
        for la in self.table:
            if la.factors:
                found[la.name] = {"mean": np.zeros(taps, dtype), "covariance": np.eye(taps, dtype=dtype)}
            if self.config.normalization == "both":
                outputs = {"output_mean": np.zeros(la.filters, dtype), "output_variance": np.ones(la.filters, dtype)}
                found[la.name] = found.get(la.name, {}) | outputs
        return found

    def trace(
        self, parameters: Parameters, x: Array, moments: Moments | None = None, *, after: int = 0
    ) -> Iterator[tuple[Layer, Array, dict[str, Array]]]:
        """Yield each layer, its output x_j, and the moments it was normalised with."""
        if after == 0:
            x = self._scattered(x)
        reduced: Array | None = None
        for layer in self.table[after:]:
            terms = self._averaged(x)
            x = self._reduce(x) if reduced is None else reduced
            own: dict[str, Array] = dict(moments[layer.name]) if moments and layer.name in moments else {}
            of_sums = None
            if layer.factors and moments:
                of_sums = _moments_of_multiple((own["mean"], own["covariance"]), terms)
            elif layer.factors:
                of_sums = self._patch_moments(x)
                own["mean"], own["covariance"] = _moments_of_multiple(of_sums, 1 / terms)
            x, reduced = self._apply(layer, parameters[layer.name], x, of_sums, self.config.epsilon * terms**2, own)
            yield layer, x, own

    def __call__(self, parameters: Parameters, x: Array, moments: Moments | None = None) -> tuple[Array, Moments]:
        """Return the logits (N, C) of standardised images (N, u1, u2, channels), and the moments used per layer."""
        used: Moments = {}
        last = x
        for layer, last, own in self.trace(parameters, x, moments):  # noqa: B007 - the last x_j is what counts
            if own:
                used[layer.name] = own
        return self.logits(parameters, last), used

    def _scattered(self, x: Array) -> Array:
        """The scattering coefficients that layer 1 filters, or the images where there is no such stage."""
        config, size = self.config, int(x.shape[1])
        if not config.scattering:
            return x
        if size not in self._stages:
            self._stages[size] = ScatteringStage(config.scattering, size, config.boundaries[0], config.dtype)
        return self._stages[size](x)

    def _averaged(self, x: Array) -> int:
        """How many terms the marginal of x_{j-1} is a mean of, if it is one.

        It is taken as their sum: Eq. (8) divides by the deviation of what it filters, so its result is that of the mean
        if epsilon grows by the square of their number, and no cotangent of a mean has to be divided.
        """
        return int(x.shape[ATTRIBUTES[0]]) if x.ndim == 6 and self.config.reduction == "mean" else 1

    def _reduce(self, x: Array) -> Array:
        """Sum of x_{j-1} over v_{j-3} (Eq. 6), where it has that axis."""
        return marginal(x, ATTRIBUTES[0]) if x.ndim == 6 else x

    def _patch_moments(self, x: Array) -> tuple[Array, Array]:
        """Mean (T,) and covariance (T, T) of the spatial patches of a layer's input."""
        size = self.config.space_kernel
        mean, covariance = patch_moments(x, SPACE, (size, size), boundary=self.config.boundaries[0], **self._sharing)
        return mean, covariance

    def _apply(
        self,
        layer: Layer,
        weights: dict[str, Array],
        x: Array,
        moments: tuple[Array, Array] | None,
        epsilon: float,
        own: dict[str, Array],
    ) -> tuple[Array, Array | None]:
        """The output x_j of layer j from its input: Eq. (3) at j = 1, Eq. (4) at j = 2, Eq. (8) from j = 3 on.

        With it comes the marginal that the next layer takes of x_j, where it is made on the way. Where outputs are
        normalised, by moments in `own` or by the batch's, which are put there.
        """
        options: dict[str, Any] = {"boundary": layer.boundary, "stride": layer.stride}
        axes: tuple[int, ...] = SPACE
        if layer.nonlinear:
            assert moments is not None
            return self._nonlinear(layer, weights, x, moments, epsilon, own), None
        if layer.attributes == 0:
            options["sum_axes"] = 3
        else:
            axes = (*SPACE, *ATTRIBUTES)[: 2 + layer.attributes]
        w, offset = self._filters(layer, weights, moments, epsilon, x.shape[3:])
        if self.config.normalization == "factors" or own.keys() >= OUTPUT_MOMENTS:
            w, bias = self._folded(w, offset, weights, own)
            if layer.attributes == 2 and layer is not self.table[-1] and self._reduces_layers():
                return convolve_elu_marginal(x, w, bias, axes, ATTRIBUTES[0], **options)
            return self._rho(x, w, bias, axes, **options), None
        return self._normalize(convolve(x, w, axes, **options), offset, weights, own), None

    def _reduces_layers(self) -> bool:
        """Whether rho and the marginal are the paper's, which one function makes."""
        return self._rho is convolve_elu and type(self)._reduce is Network._reduce

    def _filters(
        self,
        layer: Layer,
        weights: dict[str, Array],
        moments: tuple[Array, Array] | None,
        epsilon: float,
        lengths: tuple[int, ...],
    ) -> tuple[Array, Array]:
        """Filters of a layer, merged where it has factors, and what is added to what they make."""
        if not layer.factors:
            return weights["w"], self._offset(weights)
        assert moments is not None
        return merge_factors(
            weights["h"],
            weights["g"],
            *moments,
            self._offset(weights),
            lengths=lengths,
            stride=layer.stride[2:],
            boundary=layer.boundary[2:],
            epsilon=epsilon,
        )

    def _offset(self, weights: dict[str, Array]) -> Array:
        """What is added to what filters make: the bias, or zeros where outputs are normalised before it is added."""
        bias = weights["bias"]
        return bias if self.config.normalization == "factors" else np.zeros_like(getval(bias))

    def _folded(self, w: Array, offset: Array, weights: dict[str, Array], own: dict[str, Array]) -> tuple[Array, Array]:
        """Filters and bias that make what rho is taken of, the output normalised by given moments where it is."""
        if self.config.normalization == "factors":
            return w, offset
        slope = weights["scale"] / np.sqrt(own["output_variance"] + self.config.epsilon)
        return w * slope, weights["bias"] + slope * (offset - own["output_mean"])

    def merged(self, parameters: Parameters, moments: Moments) -> Parameters:
        """Return the filters and biases that a network at evaluation folds into.

        Layer j is rho(convolve(x, w, ...) + bias) of the marginal x of x_{j-1}; a (+) layer has filters h with a shift
        that is added, rho, and g with the bias.
        """
        found: Parameters = {}
        for layer in self.table:
            weights, own = parameters[layer.name], moments.get(layer.name, {})
            of_patches = (own["mean"], own["covariance"]) if layer.factors else None
            if layer.nonlinear:
                assert of_patches is not None
                h, shift = _first_filters(weights, of_patches, self.config.epsilon)
                g, bias = self._folded(weights["g"], self._offset(weights), weights, own)
                found[layer.name] = {"h": h, "shift": shift, "g": g, "bias": bias}
            else:
                w, offset = self._filters(layer, weights, of_patches, self.config.epsilon, layer.inputs[2:])
                w, bias = self._folded(w, offset, weights, own)
                found[layer.name] = {"w": w, "bias": bias}
        return found | {name: arrays for name, arrays in parameters.items() if name == "head"}

    def apply_merged(self, merged: Parameters, x: Array) -> Array:
        """Return the logits that merged filters give, those of `merged` or others in their shapes."""
        for layer in self.table:
            weights = merged[layer.name]
            options: dict[str, Any] = {"boundary": layer.boundary, "stride": layer.stride}
            if x.ndim == 6:
                x = marginal(x, ATTRIBUTES[0], reduction=self.config.reduction)
            if layer.nonlinear:
                h, shift, g, bias = (weights[name] for name in ("h", "shift", "g", "bias"))
                x = self._factored(x, h, shift, g, bias, SPACE, ATTRIBUTES, **options)
                continue
            axes = (*SPACE, *ATTRIBUTES)[: 2 + layer.attributes]
            x = self._rho(x, weights["w"], weights["bias"], axes, sum_axes=() if layer.attributes else 3, **options)
        return self.logits(merged, x)

    def _nonlinear(
        self,
        layer: Layer,
        weights: dict[str, Array],
        x: Array,
        moments: tuple[Array, Array],
        epsilon: float,
        own: dict[str, Array],
    ) -> Array:
        """The (+) layer, rho(W^g rho(W^h x)); the backward pass expands x again."""
        h, shift = _first_filters(weights, moments, epsilon)
        options = {"boundary": layer.boundary, "stride": layer.stride}
        offset = self._offset(weights)
        if self.config.normalization == "factors" or own.keys() >= OUTPUT_MOMENTS:
            g, bias = self._folded(weights["g"], offset, weights, own)
            return self._factored(x, h, shift, g, bias, SPACE, ATTRIBUTES, **options)
        y = self._factored(x, h, shift, weights["g"], None, SPACE, ATTRIBUTES, **options)
        return self._normalize(y, offset, weights, own)

    def _normalize(self, y: Array, shift: Array, weights: dict[str, Array], own: dict[str, Array]) -> Array:
        """Rho of y + shift, normalised by the batch's moments, which are put into `own`."""
        y, own["output_mean"], own["output_variance"] = self._normalized(
            y, shift, weights["scale"], weights["bias"], epsilon=self.config.epsilon, **self._sharing
        )
        return y

    def logits(self, parameters: Parameters, x: Array) -> Array:
        """Return the sum of x_{J-1} over everything but the class (Eq. 7), or what the head makes of the mean."""
        axes = tuple(range(1, x.ndim - 1))
        if self.config.head == "sum":
            return marginal(x, axes)
        means = marginal(x, axes, reduction="mean")
        if self.config.head == "dense":
            return means @ parameters["head"]["w"] + parameters["head"]["bias"]
        return means * parameters["head"]["scale"]


def _moments_of_multiple(moments: tuple[Array, Array], factor: float) -> tuple[Array, Array]:
    """Mean and covariance of so many times what has these."""
    mean, covariance = moments
    return moments if factor == 1 else (mean * factor, covariance * factor**2)


def _first_filters(weights: dict[str, Array], moments: tuple[Array, Array], epsilon: float) -> tuple[Array, Array]:
    """Filters h of a (+) layer, normalised and scaled, (s, s, Q), and what is added to what they make (Q,)."""
    h, mean = normalize_filters(weights["h"], *moments, epsilon=epsilon)
    if "h_scale" not in weights:
        return h, -mean
    return h * weights["h_scale"], weights["h_bias"] - mean * weights["h_scale"]


def _average_taps(n: int, size: int, stride: int, boundary: Boundary) -> float:
    """Taps of a filter that meet data, averaged over its outputs along an axis of length n."""
    if boundary == "periodic":
        return float(size)
    newest = np.arange(0, n, stride) + size // 2  # the sample that tap 0 meets; tap t meets the one t before
    met = np.minimum(newest, size - 1) - np.maximum(newest - n + 1, 0) + 1
    return float(np.maximum(met, 0).mean())


def describe(config: Config, image_size: int | tuple[int, int], classes: int, channels: int = 3) -> str:
    """Return the table of a network as text: axes, support, stride, parameters, GMAC and memory per layer, totals."""
    table = layers(config, image_size, classes, channels)
    size = np.dtype(config.dtype).itemsize * config.batch_size / 2**20
    rows = [("j", "input", "support", "stride", "output", "parameters", "GMAC", "MiB/batch")]
    for la in table:
        rows.append(
            (
                str(la.j),
                _times(la.inputs),
                _times(la.kernel_size) + (" sum" if la.attributes == 0 else ""),
                _times(la.stride),
                _times(la.outputs),
                f"{la.parameters:,}",
                f"{la.multiply_adds / 1e9:.4f}",
                f"{math.prod(la.outputs) * size:.1f}",
            )
        )
    rows.append((str(config.depth), _times(table[-1].outputs), config.head, "", str(classes), "", "", ""))
    total = [sum(getattr(la, key) for la in table) for key in ("parameters", "multiply_adds")]
    memory = sum(math.prod(la.outputs) for la in table) * size
    rows.append(("all", "", "", "", "", f"{total[0]:,}", f"{total[1] / 1e9:.4f}", f"{memory:.1f}"))
    trained = sum(la.trained for la in table)
    trainable = _trainable(config, table, classes)
    lines = [
        *aligned(rows),
        "",
        f"Trained coefficients, factors h and g counted: {trained:,} (Q = {config.factors}).",
        f"Trainable numbers, with biases, scales and the head: {trainable:,}.",
        "GMAC: 10^9 multiply-adds per image, were the filters applied tap by tap. MiB: outputs of one batch.",
    ]
    return "\n".join(lines)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the rows of a table as lines, each column aligned at its right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]


def _trainable(config: Config, table: list[Layer], classes: int) -> int:
    """Numbers in what `Network.initialize` returns, without making it."""
    both = config.normalization == "both"
    count = sum(la.trained + la.filters * (1 + both) + 2 * la.factors * (both and la.nonlinear) for la in table)
    return count + {"mean": 1, "dense": (table[-1].filters + 1) * classes}.get(config.head, 0)


def _times(lengths: tuple[int, ...]) -> str:
    return "x".join(map(str, lengths))
