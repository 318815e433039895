"""Networks opened for use: merged filters and the like are computed once, and kept until the weights change."""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from autodiff import tree_map
from hcnn_core.backend import Array, array_namespace, constant, parallel_for
from train.networks import lenet, plain
from train.networks.hierarchical import FactoredLayer, Head, HierarchicalLayer
from train.networks.layer import Moments, Parameters
from train.networks.network import Network
from train.runs import dense

DENSE_MACS = 28_000_000
"""Up to this many multiply-adds of a batch and row of the table, ordinary convolutions by NumPy's matrix products take
less time than layers that transform attributes: those of 4 images of hcnn-fast, 6 of volume, 140 of signal."""

CACHED_MACS = 1 << 25
"""About this many multiply-adds are computed at a time, so that samples of windows stay in the cache."""

ORDINARY_COSTS = 10
"""A multiply-add of ordinary layers, which transform nothing, counts as this many: up to 2 images of resnet20, 34 of
lenet."""

MACS_OF_AN_ADDITION = 14
"""Multiply-adds that take as long as one addition of elements in cache, by which threads are shared out."""

MOST_SHAPES = 4
"""Shapes of batches whose memory is kept."""


class Opened:
    """A network with its weights as a function of standardised images, for several threads.

    Kept arrays depend on the weights, which are compared byte by byte at each call (0.03 ms for 0.9 MB; their CRC
    takes 0.14 ms). Whether ordinary convolutions are taken depends on the network and the batch's shape alone.

    Parameters
    ----------
    network : Network
        Its layers.
    parameters, moments : dict
        Weights and running moments, NumPy arrays, which may change, in place too.
    """

    def __init__(self, network: Network, parameters: Parameters, moments: Moments) -> None:
        self.network, self.parameters, self.moments = network, parameters, moments
        self._lock, self._weights, self._kept = threading.Lock(), list[bytes](), dict[Any, Any]()
        self._macs = _dense_macs(network)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle and copy no kept arrays."""
        return Opened, (self.network, self.parameters, self.moments)

    def __call__(self, x: Array) -> Array:
        """Return the logits (N, C) of standardised images (N, *space, channels), of NumPy or CuPy.

        For few images on NumPy ordinary convolutions compute them, which differ from the network's by rounding.
        """
        if isinstance(x, np.ndarray) and self._is_dense(x):
            return self._by_convolutions(x)
        network, parameters, moments = self._on_device(x)
        return network(parameters, x, moments)[0]

    def output(self, name: str, x: Array) -> Array:
        """Return the named layer's output for such images, bit for bit as the network's."""
        network, parameters, moments = self._on_device(x)
        return network.output(name, parameters, x, moments)

    def _bytes(self) -> list[bytes]:
        trees: Any = self.parameters, self.moments
        return [a.tobytes() for tree in trees for weights in tree.values() for a in weights.values()]

    def _keep(self, key: Any, make: Callable[[], Any]) -> Any:
        """Return the value kept under a key, made anew where weights have changed."""
        weights = self._bytes()
        with self._lock:
            if weights != self._weights:
                self._weights, self._kept = weights, {}
            if key in self._kept:
                return self._kept[key]
            value = make()
            if weights == self._bytes():  # or it is partly of others, which another thread has written
                self._kept[key] = value
            return value

    def _on_device(self, x: Array) -> tuple[Network, Parameters, Moments]:
        """Return the network with its filters merged, and the weights, on the device of x."""
        xp, device = array_namespace(x), getattr(x, "device", None)

        def make() -> tuple[Network, Parameters, Moments]:
            parameters, moments = tree_map(lambda a: constant(xp, a, device), (self.parameters, self.moments))
            return self.network.opened(parameters, moments), parameters, moments

        return self._keep((xp.__name__, str(device)), make)

    def _is_dense(self, x: dense.Float) -> bool:
        """Whether ordinary convolutions take less time: a count, so that it is the same in every process."""
        fits = x.dtype == np.float32 and x.shape[1:] == self.network.image_shape
        return fits and 0 < len(x) * self._macs <= DENSE_MACS * len(self.network.table)

    def _by_convolutions(self, x: dense.Float) -> dense.Float:
        steps, programs = self._keep("dense", lambda: (dense.steps_of(self.network, self.parameters, self.moments), {}))
        logits = np.empty((len(x), self.network.classes), np.float32)
        most = max(1, round(CACHED_MACS / self._macs))

        def work(begin: int, end: int) -> None:
            for first in range(begin, end, most):
                some = slice(first, min(first + most, end))
                try:
                    program = programs[x[some].shape].pop()
                except (KeyError, IndexError):  # the first, or other threads have it
                    program = _Program(steps, x[some].shape)
                np.copyto(program.arrays[0], x[some])
                for call in program.calls:
                    call()
                logits[some] = program.arrays[-1]
                with self._lock:
                    programs.setdefault(x[some].shape, []).append(program)
                    while len(programs) > MOST_SHAPES:
                        programs.pop(next(iter(programs)))

        with np.errstate(all="ignore"):
            parallel_for(work, len(x), round(len(x) * self._macs / MACS_OF_AN_ADDITION), threaded=True)
        return logits


ORDINARY = {plain.Convolution, plain.Normalization, plain.Whole, plain.Dense}
ORDINARY |= {lenet.SquashedConvolution, lenet.Average, lenet.Dense}


def _dense_macs(network: Network) -> float:
    """Multiply-adds of an image by ordinary convolutions, infinite for a network that `_Program` does not take."""
    config, macs = network.config, 0.0
    for layer in network.table:
        if type(layer) not in {HierarchicalLayer, FactoredLayer, Head, *ORDINARY}:
            return math.inf
        macs += ORDINARY_COSTS * layer.multiply_adds * (type(layer) in ORDINARY)
        if isinstance(layer, HierarchicalLayer):
            axes = len(layer.space)
            macs += math.prod(layer.outputs + layer.inputs[axes:] + layer.kernel_size[:axes])
    usual = config.activation == "elu" and config.boundaries[0] == "zero" and config.skip == "none" and not config.blur
    return macs if usual else math.inf


class _Program:
    """Memory for images (N, *space, channels), and calls that compute from it.

    Channels stay last, so that the samples of a window lie in few runs. A correlation is one matrix product: of these
    samples and a one, a row for each position, with the filters and biases.
    """

    def __init__(self, steps: Sequence[dense.Step], shape: tuple[int, ...]) -> None:
        self.arrays, self.calls = [np.empty(shape, np.float32)], list[Callable[[], Any]]()
        readers = Counter(read for _, reads in steps for read in reads)
        for operation, (read, *others) in steps:
            x = self.arrays[read]
            y = x if readers[read] == 1 else np.empty_like(x)  # where it can be computed in place
            self.arrays.append(self._added(operation, x, y, *(self.arrays[other] for other in others)))

    def _then(self, function: Callable[..., Any], *operands: Any, **options: Any) -> None:
        self.calls.append(partial(function, *operands, **options))

    def _reduced(self, kind: str, x: dense.Float, *axes: int) -> dense.Float:
        """Add the sum, the mean or the maximum over axes."""
        y = np.empty([n for axis, n in enumerate(x.shape) if axis not in axes], np.float32)
        self._then((np.maximum if kind == "max" else np.add).reduce, x, axis=axes, out=y)
        if kind == "mean":
            self._then(np.divide, y, np.float32(x.size // y.size), out=y)
        return y

    def _added(self, operation: dense.Operation, x: dense.Float, y: dense.Float, *others: dense.Float) -> dense.Float:
        """Add an operation on x, and return its result, which may be y."""
        match operation:
            case dense.Convolve():
                return self._correlated(operation, x)
            case dense.Activation("squash"):
                self._then(np.multiply, x, np.float32(2 / 3), out=y)
                self._then(np.tanh, y, out=y)
                self._then(np.multiply, y, np.float32(1.7159), out=y)
            case dense.Activation(name):
                below = zeros = np.zeros_like(x)  # NumPy has no vectors for one number
                if name == "elu":
                    below = np.empty_like(x)
                    self._then(np.minimum, x, zeros, out=below)
                    self._then(np.expm1, below, out=below)
                self._then(np.maximum, x, below, out=y)
            case dense.Scale(factor, offset):
                self._then(np.multiply, x, factor.reshape(-1), out=y)
                self._then(np.add, y, offset.reshape(-1), out=y)
            case dense.Add():
                self._then(np.add, x, *others, out=y)
            case dense.Reduce(kind, parts):
                return self._reduced(kind, x.reshape(*x.shape[:-1], parts, -1), x.ndim - 1)
            case dense.Pool(kind, taps, stride):
                windows = sliding_window_view(x, taps, (1, 2))[:, :: stride[0], :: stride[1]]
                return self._reduced(kind, windows, 4, 5)
            case dense.Whole(kind):
                return self._reduced(kind, x.reshape(len(x), -1, x.shape[-1]), 1)
            case dense.Linear(matrix, offset):
                y = np.empty((len(x), len(offset)), np.float32)
                self._then(np.matmul, x, matrix, out=y)
                self._then(np.add, y, offset, out=y)
        return y

    def _correlated(self, filters: dense.Convolve, x: dense.Float) -> dense.Float:
        weight, bias, stride, (before, after), *_ = filters
        space = tuple(range(1, x.ndim - 1))
        padded = np.zeros((len(x), *(n + before + after for n in x.shape[1:-1]), x.shape[-1]), np.float32)
        windows = np.moveaxis(sliding_window_view(padded, weight.shape[2:], space), x.ndim - 1, -1)
        windows = windows[(slice(None), *(slice(None, None, r) for r in stride))]
        matrix = np.moveaxis(weight, (0, 1), (-1, -2)).reshape(-1, len(weight))
        matrix = np.concatenate([matrix, np.zeros((1, len(weight)), np.float32) if bias is None else bias[None]])
        y = np.empty((*windows.shape[: x.ndim - 1], len(weight)), np.float32)
        samples = np.ones((y.size // len(weight), len(matrix)), np.float32)
        self._then(np.copyto, padded[(slice(None), *(slice(before, before + n) for n in x.shape[1:-1]))], x)
        self._then(np.copyto, samples[:, :-1].reshape(windows.shape), windows)
        self._then(np.matmul, samples, matrix, out=y.reshape(len(samples), -1))
        return y
