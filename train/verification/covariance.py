"""Proposition 3.1 for networks with strides and boundaries: the exact translations, and a network's errors.

The proposition (section 3 of arXiv:1703.04140) has no strides: translating x_j translates x_{J-1}, whose sum (Eq. 7)
stays. With strides a translation reaches the next layer as one only if it is a multiple of the stride, and so on until
the axis is summed. Which translations are exact follows from the table of layers; how much the others change is
measured.
"""

from __future__ import annotations

import functools
import math
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np

from autodiff import tree_map
from hcnn_core import translate
from hcnn_core.backend import Array, array_namespace, to_numpy
from hcnn_core.testing import rounding_bound
from hcnn_core.typing import Boundary
from train.networks.hierarchical import HierarchicalLayer, hierarchy
from train.networks.layer import IMAGES, Layer, Moments, Parameters, Weights
from train.networks.network import Network
from train.networks.registry import build

MODES = ("evaluation", "training")
ROW_KINDS = ("exact", "inside", "written out", "aliased", "boundary")

SHIFTS_IN_SPACE = (1, 2, 3, 4, 5, 6, 7, 8)
"""Translations along u that are tried, in samples: the images' axes are long, and the pattern repeats."""

WINDOWS = 24
"""Outputs of a layer, along each axis, that are compared with the layer written out; both ends are among them."""

DECISIVE = 0.1
"""A larger relative bound decides nothing; nor does one of 0, of a network that does not react to its input."""


def exact_multiple(length: int, strides: Sequence[int]) -> int:
    """Return the m such that translations by multiples of m alone survive subsampling and a sum."""
    if not strides:
        return 1
    stride, *later = strides
    if length % stride:
        return length
    return stride * exact_multiple(length // stride, later)


@dataclass(frozen=True)
class Axis:
    """An axis of x_j along which translations reach the final sum."""

    position: int  # of the axis in the array x_j
    name: str  # u1, u2, u3, v_j, v_{j-1} or v_{j-2}
    length: int  # samples
    strides: tuple[int, ...]  # subsamplings still to come before the axis is summed
    boundary: Boundary  # how layers extend the array along it
    whole: bool  # whether x_{j-1}, where it skips x_j, has a stride's samples for each of x_j's, and so moves with it

    @property
    def exact(self) -> int:
        """Translations by multiples of this leave x_J as it is where the boundary is periodic."""
        return exact_multiple(self.length, self.strides) if self.whole else self.length

    @property
    def shifts(self) -> tuple[int, ...]:
        """The translations that are tried, the smallest exact one always among them."""
        tried = {*SHIFTS_IN_SPACE, self.exact} if self.name[0] == "u" else range(self.length)
        return tuple(s for s in sorted(tried) if 0 < s < self.length)


def axes(table: Sequence[HierarchicalLayer], j: int) -> list[Axis]:
    """Return the axes of x_j that Proposition 3.1 speaks of."""
    shape, later, count = table[j - 1].outputs if j else table[0].inputs, table[j:], len(table[0].space)
    in_space, along_attributes = table[-1].boundary[0], table[-1].boundary[-1]

    def whole(place: int, before: int) -> bool:
        skipped, layer = bool(j and later) and len(later[0].reads) > 1, table[j - 1]
        return not skipped or layer.inputs[before] == layer.outputs[place] * layer.stride[before]

    steps = [tuple(layer.stride[i] for layer in later) for i in range(count)]
    listed = [Axis(1 + i, f"u{i + 1}", shape[i], steps[i], in_space, whole(i, i)) for i in range(count)]
    attributes = shape[count:] if j else ()
    for index, length in enumerate(attributes):
        place, strides = index, []
        for layer in later:
            place -= layer.j > 3  # Eq. (6) sums the first of three attributes
            if place < 0:
                break
            strides.append(layer.stride[count + place])
        age = len(attributes) - 1 - index
        if later or age:
            name = f"v_{{j-{age}}}" if age else "v_j"
            moves = age == 0 or whole(count + index, -age)
            listed.append(Axis(1 + count + index, name, length, tuple(strides), along_attributes, moves))
    return listed


@dataclass(frozen=True)
class Subject:
    """A network with weights, and images to try it on."""

    network: Network  # the layers
    parameters: Parameters  # their weights
    moments: Moments  # running moments, for evaluation mode
    images: Array  # standardised

    @classmethod
    def of(cls, network: Network, weights: Parameters, moments: Moments, images: Array, **changes: Any) -> Self:
        """Return a subject with some settings of a network changed, and its weights in their dtype; images stay."""
        *size, channels = network.image_shape
        changed = build(replace(network.config, **changes), tuple(size), network.classes, channels)
        xp, dtype = array_namespace(images), changed.config.dtype
        parameters, moments = tree_map(lambda a: xp.asarray(a, dtype=dtype), (weights, moments))
        return cls(changed, parameters, moments, images)

    def tail(self, j: int, mode: str, moved: tuple[Axis, int] | None = None) -> Callable[[Array], Array]:
        """Return x_j -> x_J, the logits. `moved`, an axis and samples of x_j, translates a skip over x_j too."""
        return lambda x: deque((y for _, y, _ in self.trace(x, j, mode, moved)), maxlen=1).pop()

    def layer(self, j: int, mode: str, moved: tuple[Axis, int] | None = None) -> Callable[[Array], Array]:
        """Return x_{j-1} -> x_j, with a skip over x_{j-1} as in `tail`."""
        return lambda x: next(y for layer, y, _ in self.trace(x, j - 1, mode, moved) if layer.name == self.name(j))

    @functools.cached_property
    def table(self) -> list[HierarchicalLayer]:
        """The layers j = 1 .. J-1."""
        return hierarchy(self.network)

    def name(self, j: int) -> str:
        """Return the name of x_j in a state."""
        return self.table[j - 1].name if j else self.table[0].reads[0]

    @functools.cached_property
    def activations(self) -> list[Array]:
        """x_0 (the images, or their scattering coefficients) to x_{J-1}, in evaluation mode."""
        outputs = {layer.name: x for layer, x, _ in self.network.trace(self.parameters, self.images, self.moments)}
        return [({IMAGES: self.images} | outputs)[self.name(j)] for j in range(len(self.table) + 1)]

    def beside(self, j: int) -> Array | None:
        """Return x_{j-1} where layer j+1 reads it beside x_j."""
        later = self.table[j:]
        return self.activations[j - 1] if later and len(later[0].reads) > 1 else None

    def trace(
        self, x: Array, j: int, mode: str, moved: tuple[Axis, int] | None = None
    ) -> Iterator[tuple[Layer, Array, Weights]]:
        """Return the walk from x_j to x_J, see `Network.trace`; a skip over x_j is translated as in `tail`."""
        state = {self.name(j): x}
        if (skipping := self.beside(j)) is not None:
            state[self.name(j - 1)] = skipping if moved is None else self._moved(skipping, j, *moved)
        return self.network.trace(self.parameters, state, self.moments if mode == "evaluation" else None)

    def _moved(self, before: Array, j: int, axis: Axis, shift: int) -> Array:
        """x_{j-1} translated so that its samples in x_j move by a shift along an axis; without that axis, as it is."""
        stride = self.table[j - 1].stride
        if axis.name[0] == "u":
            return translate(before, shift * stride[axis.position - 1], axis.position, boundary=axis.boundary)
        age = int(axis.name[len("v_{j-") : -1] or 0) if axis.name != "v_j" else 0
        position = before.ndim - age  # v_{j-1} is the last axis of x_{j-1}
        if age == 0 or position <= len(self.table[0].space):
            return before
        return translate(before, shift * stride[-1], position, boundary=axis.boundary)


def largest(values: Iterable[float]) -> float:
    """Return the largest value."""
    return max(values, key=lambda value: math.inf if math.isnan(value) else value, default=math.nan)


@dataclass(frozen=True)
class Row:
    """One translation of one axis of x_j: the expected change, and the measured one in every example."""

    # Of x_J (Proposition 3.1), or of x_{j+1} alone, the step of its induction; or that x_{j+1} is Eq. (3), (4), (8).
    statement: str
    boundary: Boundary  # of the network along the axis, and what enters where a translation leaves
    mode: str  # whose moments normalise
    j: int  # depth of the array that is translated
    axis: str  # its axis
    shift: int  # samples it is translated by; 0 in a definition
    strides: tuple[int, ...]  # subsamplings still to come before the axis is summed; in a covariance, the layer's own
    # exact by the algebra of sampling; exact because only zeros leave; compared with the layer written out at windows
    # along the axis; not a multiple of the strides still to come; not exact because values leave at a zero boundary
    kind: str
    # per example: largest change relative to the largest value, and what rounding explains of it
    errors: tuple[float, ...] = ()
    bounds: tuple[float, ...] = ()
    changed: tuple[float, ...] = ()  # per example of an invariance: share of the images that are given another class

    def merged(self, others: Iterable[Row]) -> Row:
        """Return this row with the measurements of others after its own."""
        rows, names = [self, *others], ("errors", "bounds", "changed")
        measured: Any = {name: sum((getattr(row, name) for row in rows), ()) for name in names}
        return replace(self, **measured)

    @property
    def must_hold(self) -> bool:
        """Whether the theory says that nothing changes but by rounding."""
        return self.kind in ("exact", "inside", "written out")

    @property
    def within(self) -> bool:
        """Whether every error is within its bound; NaN is not."""
        return all(error <= bound for error, bound in zip(self.errors, self.bounds, strict=True))

    @property
    def holds(self) -> bool:
        """Whether every error is within its bound, and the bound decides."""
        return self.within and all(0 < bound <= DECISIVE for bound in self.bounds)

    @property
    def verdict(self) -> str:
        """Verdict: holds, FAILS or undecided where something must hold, else measured."""
        if not self.must_hold:
            return "measured"
        return "holds" if self.holds else "undecided" if self.within else "FAILS"

    @property
    def largest(self) -> float:
        """Largest error; NaN if there is one."""
        return largest(self.errors)

    @property
    def mean(self) -> float:
        """Mean error."""
        return math.fsum(self.errors) / len(self.errors)


@dataclass(frozen=True)
class Example:
    """One measurement of a row, with its arrays."""

    row: Row  # with the one error and bound
    result: np.ndarray[Any, Any] = field(repr=False)  # the result for x_j translated, and what it should be
    expected: np.ndarray[Any, Any] = field(repr=False)


def measure(subject: Subject) -> Iterator[Example]:
    """Measure what Proposition 3.1 says of a network, step by step and as a whole, in both modes."""
    for j, x in enumerate(subject.activations):
        for mode in MODES:
            if j < len(subject.table):
                yield from _layer_inside(subject, mode, j, x)
                yield from _layer(subject, mode, j, x)
            yield from invariance(subject, mode, j, x)


def _layer(subject: Subject, mode: str, j: int, x: Array) -> Iterator[Example]:
    """Check layer j + 1 along each axis, by translations where the boundary is periodic, else by the equations.

    Where it is periodic, translating x_j by a stride translates x_{j+1} by one sample. Where it is zero, hardly a
    translation along an attribute is exact: x_{j+1} is compared with Eq. (3), (4) or (8), written out with one bias
    per v_{j+1} and one deviation per factor. There this alone notices results that depend on the position, and arrays
    that are extended otherwise.
    """
    reference = None
    for axis in axes(subject.table, j):
        if not axis.strides:
            continue
        strides, stride = axis.strides[:1], axis.strides[0]
        if axis.boundary == "zero":
            row = Row("definition", "zero", mode, j, axis.name, 0, strides, "written out")
        elif axis.whole and axis.length % stride == 0 and axis.length > stride:
            row = Row("covariance", "periodic", mode, j, axis.name, stride, strides, "exact")
        else:
            continue
        reference = reference or _reference(subject, row, x)
        yield examine(subject, row, x, reference)


def _layer_inside(subject: Subject, mode: str, j: int, x: Array) -> Iterator[Example]:
    """Check translations at zero boundaries, on arrays that are 0 where the layer reads beyond an end or values leave.

    Along u alone, since Eq. (8) subtracts the mean also where x is zero: its share is an array over v.
    """
    if subject.beside(j) is not None:  # which would have to be zero there too
        return
    layer = subject.table[j]
    for index, axis in enumerate(axes(subject.table, j)[: len(layer.space)]):
        reach, stride = layer.kernel_size[index] // 2 + layer.blurs, layer.stride[index]
        if axis.boundary == "zero" and axis.length > 2 * reach + stride:
            inside, before = x.copy(), (slice(None),) * axis.position
            inside[(*before, slice(0, reach))] = 0
            inside[(*before, slice(axis.length - reach - stride, None))] = 0
            yield examine(subject, Row("covariance", "zero", mode, j, axis.name, stride, (stride,), "inside"), inside)


def _windows(layer: HierarchicalLayer, index: int) -> np.ndarray[Any, Any]:
    """Positions (m, WINDOWS) of outputs of a layer: along axis `index` from both ends inwards, at random elsewhere."""
    lengths = layer.outputs[:-1]
    rng = np.random.default_rng([layer.j, index])
    positions = np.stack([rng.integers(n, size=WINDOWS) for n in lengths])
    steps = np.arange(WINDOWS) // 2 % lengths[index]
    positions[index] = np.where(np.arange(WINDOWS) % 2, lengths[index] - 1 - steps, steps)
    return positions


def _written_out(subject: Subject, row: Row, x: Array, windows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """x_{j+1} at windows, (N, WINDOWS, K): sums over taps in double precision, of x_j extended as the layer does.

    It shares no code with the layers on purpose, since they are checked against it.
    """
    network, layer = subject.network, subject.table[row.j]
    config, rho = network.config, layer.activation.rho
    weights = {name: np.asarray(to_numpy(a)) for name, a in layer.weights_in(subject.parameters).items()}
    wide = np.result_type(*weights.values(), np.float64)
    outputs: dict[str, tuple[Array, Weights]] = {subject.name(row.j): (x, {})}
    outputs |= {la.name: (y, moments) for la, y, moments in subject.trace(x, row.j, row.mode)}
    signal = to_numpy(outputs[layer.reads[0]][0]).astype(wide)
    count = len(layer.space)
    if signal.ndim == count + 4:
        signal = signal.mean(axis=1 + count) if config.reduction == "mean" else signal.sum(axis=1 + count)
    for axis in range(1, 1 + count if layer.blurs else 1):
        mode: Any = "wrap" if layer.boundary[axis - 1] == "periodic" else "constant"
        wider = np.moveaxis(np.pad(signal, [(int(a == axis),) * 2 for a in range(signal.ndim)], mode), axis, 0)
        signal = np.moveaxis((wider[:-2] + 2 * wider[1:-1] + wider[2:]) / 4, 0, axis)
    patches, inside = _patches(signal, layer.kernel_size, layer.stride, layer.boundary, windows)
    if layer.factors:
        mean, covariance = _moments(subject, row, signal)
        h = weights["h"].reshape(len(weights["h"]), -1).astype(wide)  # (Q, T)
        sigma = np.sqrt(np.einsum("qs,st,qt->q", h, covariance, h) + config.epsilon)
        flat = patches.reshape(*patches.shape[:2], -1, *patches.shape[2 + count :])
        z = (np.tensordot(flat, h, (2, 1)) - h @ mean) / sigma  # (N, WINDOWS, s1, s2, Q)
        if "h_scale" in weights:
            z = z * weights["h_scale"] + weights["h_bias"]
        z = rho(z) if layer.nonlinear else z
        along_v = inside[-2][:, :, None] & inside[-1][:, None, :]
        y = np.einsum("nwstq,qstk->nwk", np.where(along_v[..., None], z, 0), weights["g"], optimize=True)
    else:
        w = np.moveaxis(weights["w"], 0, -2) if layer.attributes == 0 else weights["w"]
        y = np.tensordot(patches, w, w.ndim - 1)
    if dense := layer.skip is not None and bool(layer.skip.taps):
        y = y + _connection(subject, row, windows, weights["connection"])
    if config.normalization == "both":  # by the moments that the layer says it used
        moments = outputs[layer.name][1]
        deviation = np.sqrt(to_numpy(moments["output_variance"]) + config.epsilon)
        y = (y - to_numpy(moments["output_mean"])) * weights["scale"] / deviation
    result = np.asarray(rho(y + weights["bias"]))
    return result if layer.skip is None or dense else result + _skipping(subject, row, x, windows)


def _connection(subject: Subject, row: Row, windows: np.ndarray[Any, Any], w: np.ndarray[Any, Any]) -> Any:
    """Return what a dense connection adds before rho at windows, (N, WINDOWS, K): x_{j-1}'s mean, and its filters."""
    layer, count = subject.table[row.j], len(subject.table[0].space)
    x = to_numpy(subject.beside(row.j))
    means = x.astype(np.result_type(x, np.float64)).mean(axis=tuple(range(1 + count, x.ndim - 1)))
    strides = [r * s for r, s in zip(layer.stride, subject.table[row.j - 1].stride[: 1 + count], strict=False)]
    return np.tensordot(_patches(means, w.shape[:-1], strides, layer.boundary, windows)[0], w, w.ndim - 1)


def _skipping(subject: Subject, row: Row, x: Array, windows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return a skip's part of x_{j+1} at windows, (N, WINDOWS, 1): samples of x_j or x_{j-1}, or means of them."""
    layer, aside = subject.table[row.j], subject.beside(row.j)
    assert layer.skip
    count, shared = len(layer.space), 3 - layer.skip.back  # attributes that it has in common with x_{j+1}
    skipping = to_numpy(x if aside is None else aside)
    skipping = skipping.astype(np.result_type(skipping, np.float64))
    means = skipping.reshape(*skipping.shape[: 1 + count], -1, *skipping.shape[-shared:]).mean(axis=1 + count)
    between = subject.table[row.j - len(layer.reads) + 1 : row.j + 1]
    samples = [math.prod(one.stride[axis] for one in between) * windows[axis] for axis in range(count)]
    step = subject.network.config.attribute_stride ** len(between)
    near = np.arange(step) - (step - 1) // 2 if layer.skip.means else np.zeros(1, int)  # neighbours, if they exist
    for axis, positions in zip(range(1 + count, 1 + count + shared), windows[count:], strict=False):
        n = means.shape[axis]
        place = step * np.arange(-(-n // step)) + near[:, None]
        weight = (place >= 0) & (place < n) | (layer.boundary[-1] == "periodic")
        means = np.moveaxis(np.einsum("ko,ko...->o...", weight, np.moveaxis(means, axis, 0)[place % n]), 0, axis)
        means, samples = means / len(near), [*samples, positions]
    return means[(slice(None), *samples)][..., None]


def _patches(
    x: np.ndarray[Any, Any], kernel: Sequence[int], strides: Sequence[int], boundary: Sequence[Boundary], windows: Any
) -> tuple[np.ndarray[Any, Any], list[Any]]:
    """Return what the taps of each window meet, (N, WINDOWS, s1, .., sm), at j = 0 with colours, 0 where x has ended.

    And for each convolved axis, (WINDOWS, s), whether it has not.
    """
    inside, mesh, exists = [], [], np.ones((), bool)
    for axis, (size, stride, positions) in enumerate(zip(kernel, strides, windows, strict=False)):
        n, shape = x.shape[1 + axis], (len(positions), *(size if a == axis else 1 for a in range(len(kernel))))
        place = stride * positions[:, None] - (np.arange(size) - size // 2)
        inside.append((place >= 0) & (place < n) | (boundary[axis] == "periodic"))
        mesh.append((place % n).reshape(shape))
        exists = exists & inside[-1].reshape(shape)
    patches = x[(slice(None), *mesh)]
    return np.where(exists.reshape(exists.shape + (1,) * (patches.ndim - 1 - exists.ndim)), patches, 0), inside


def _moments(subject: Subject, row: Row, x: np.ndarray[Any, Any]) -> tuple[Any, Any]:
    """Mean (T,) and covariance (T, T) of the spatial patches of x: the running ones, or those of x tap by tap."""
    layer = subject.table[row.j]
    if row.mode == "evaluation":
        running = subject.moments[layer.name]
        return to_numpy(running["mean"]), to_numpy(running["covariance"])
    count = len(layer.space)
    everywhere = np.indices(x.shape[1 : 1 + count]).reshape(count, -1)
    zero: list[Boundary] = ["zero"] * count
    patches, _ = _patches(x, layer.kernel_size[:count], (1,) * count, zero, everywhere)
    patches = np.moveaxis(patches, range(2, 2 + count), range(count)).reshape(math.prod(layer.kernel_size[:count]), -1)
    mean = patches.mean(axis=1)
    centred = patches - mean[:, None]
    return mean, centred @ centred.T / centred.shape[1]


def invariance(
    subject: Subject, mode: str, j: int, x: Array, names: Collection[str] | None = None
) -> Iterator[Example]:
    """Measure how translating x_j changes x_J."""
    reference = None
    for axis in axes(subject.table, j):
        if names is not None and axis.name not in names:
            continue
        for shift in axis.shifts:
            kind = "boundary" if axis.boundary == "zero" else "aliased" if shift % axis.exact else "exact"
            row = Row("invariance", axis.boundary, mode, j, axis.name, shift, axis.strides, kind)
            reference = reference or _reference(subject, row, x)
            yield examine(subject, row, x, reference)
        if axis.boundary == "zero" and not axis.strides and axis.length > 1 and subject.beside(j) is None:
            leaves = (slice(None),) * axis.position + (slice(-1, None),)
            inside = x.copy()
            inside[leaves] = 0
            yield examine(subject, Row("invariance", "zero", mode, j, axis.name, 1, (), "inside"), inside)


def examine(
    subject: Subject, row: Row, x: Array, reference: tuple[np.ndarray[Any, Any], float] | None = None
) -> Example:
    """Measure one translation."""
    (axis,) = (a for a in axes(subject.table, row.j) if a.name == row.axis)
    expected, bound = reference or _reference(subject, row, x)
    position = axis.position - (axis.name[0] == "v" and row.j > 2)  # in x_{j+1}: Eq. (6) sums one of three attributes
    changed: tuple[float, ...] = ()
    if row.statement == "definition":
        windows = _windows(subject.table[row.j], position - 1)
        result, expected = expected[:, *windows], _written_out(subject, row, x, windows)
    else:
        moved = translate(x, row.shift, axis.position, boundary=row.boundary)
        result = to_numpy(_operator(subject, row, (axis, row.shift))(moved))
    if row.statement == "covariance":
        steps = row.shift // row.strides[0]
        expected = translate(expected, steps, position, boundary=row.boundary)
        if row.boundary == "zero":  # what enters is not a sample of the result but rho of the bias
            entered = (slice(None),) * position + (slice(0, steps),)
            expected[entered] = result[entered]
    elif row.statement == "invariance":
        changed = (float(np.mean(result.argmax(axis=1) != expected.argmax(axis=1))),)
    scale, error = float(np.max(np.abs(expected))) or 1.0, float(np.max(np.abs(result - expected)))
    measured = replace(row, errors=(error / scale,), bounds=(bound / scale,), changed=changed)
    return Example(measured, result, expected)


def _operator(subject: Subject, row: Row, moved: tuple[Axis, int] | None = None) -> Callable[[Array], Array]:
    if row.statement == "invariance":
        return subject.tail(row.j, row.mode, moved)
    return subject.layer(row.j + 1, row.mode, moved)


def _reference(subject: Subject, row: Row, x: Array) -> tuple[np.ndarray[Any, Any], float]:
    """Return the result for x itself, and the rounding errors of two such; a layer of Eq. (8) is two stages."""
    op = _operator(subject, row)
    y = to_numpy(op(x))
    layers = len(subject.table) + 1 - row.j if row.statement == "invariance" else 1
    return y, rounding_bound(op, x, y, stages=2 * layers)
