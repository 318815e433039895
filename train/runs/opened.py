"""Networks that are opened for use: what follows from weights alone is made once, and kept until they change."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from autodiff import tree_map
from hcnn_core.backend import Array, array_namespace, constant, parallel_for
from train.networks.hierarchical import FactoredLayer, Head, HierarchicalLayer
from train.networks.layer import Moments, Parameters
from train.networks.network import Network
from train.runs.dense import Activation, Convolve, Float, Linear, Parts, Step, Whole, steps_of

DENSE_MACS = 28_000_000
"""Up to this many multiply-adds of a batch and row of the table, ordinary convolutions by NumPy's matrix products take
less time than layers that transform attributes: those of 4 images of hcnn-fast, 6 of volume, 140 of signal."""

CACHED_MACS = 1 << 25
"""About so many are made at a time, so that samples of windows stay in the cache."""

MACS_OF_AN_ADDITION = 14
"""Multiply-adds that take as long as one addition of elements in cache, by which threads are shared out."""

MOST_SHAPES = 4
"""Shapes of batches whose memory is kept."""


class Opened:
    """A network with its weights as a function of standardised images, for several threads.

    What is kept depends on the weights, which are compared byte by byte at each call (0.03 ms for 0.9 MB; their CRC
    takes 0.14 ms), and which way is taken on the network and the shape of the batch alone.

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
        """Pickle and copy nothing that is kept."""
        return Opened, (self.network, self.parameters, self.moments)

    def __call__(self, x: Array) -> Array:
        """Return the logits (N, C) of standardised images (N, *space, channels), of NumPy or CuPy.

        Those of few images on NumPy are by ordinary convolutions, and differ from those of the network by rounding.
        """
        if isinstance(x, np.ndarray) and self._is_dense(x):
            return self._by_convolutions(x)
        network, parameters, moments = self._on_device(x)
        return network(parameters, x, moments)[0]

    def output(self, name: str, x: Array) -> Array:
        """Return what the layer of a name makes of such images, the network's bits."""
        network, parameters, moments = self._on_device(x)
        return network.output(name, parameters, x, moments)

    def _bytes(self) -> list[bytes]:
        trees: Any = self.parameters, self.moments
        return [a.tobytes() for tree in trees for weights in tree.values() for a in weights.values()]

    def _keep(self, key: Any, make: Callable[[], Any]) -> Any:
        """Return what is kept under a key, made anew where weights have changed."""
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
            parameters, moments = (
                tree_map(lambda a: constant(xp, a, device), tree) for tree in (self.parameters, self.moments)
            )
            return self.network.opened(parameters, moments), parameters, moments

        return self._keep((xp.__name__, str(device)), make)

    def _is_dense(self, x: Float) -> bool:
        """Whether ordinary convolutions take less time: a count, so that it is the same in every process."""
        fits = x.dtype == np.float32 and x.shape[1:] == self.network.image_shape
        return fits and 0 < len(x) * self._macs <= DENSE_MACS * len(self.network.table)

    def _by_convolutions(self, x: Float) -> Float:
        steps, programs = self._keep("dense", lambda: (steps_of(self.network, self.parameters, self.moments), {}))
        logits = np.empty((len(x), self.network.classes), np.float32)
        most = max(1, round(CACHED_MACS / self._macs))

        def work(begin: int, end: int) -> None:
            for first in range(begin, end, most):
                some = slice(first, min(first + most, end))
                try:
                    program = programs[x[some].shape].pop()
                except (KeyError, IndexError):  # the first, or other threads have it
                    program = _program(steps, x[some].shape)
                source, calls, result = program
                np.copyto(source, x[some])
                for call in calls:
                    call()
                logits[some] = result
                with self._lock:
                    programs.setdefault(x[some].shape, []).append(program)
                    while len(programs) > MOST_SHAPES:
                        programs.pop(next(iter(programs)))

        with np.errstate(all="ignore"):
            parallel_for(work, len(x), round(len(x) * self._macs / MACS_OF_AN_ADDITION), threaded=True)
        return logits


def _dense_macs(network: Network) -> float:
    """Multiply-adds of an image by ordinary convolutions, infinite for a network that `_program` does not take."""
    config, macs = network.config, 0
    for layer in network.table:
        if type(layer) not in (HierarchicalLayer, FactoredLayer, Head):
            return math.inf
        if isinstance(layer, HierarchicalLayer):
            axes = len(layer.space)
            macs += math.prod(layer.outputs + layer.inputs[axes:] + layer.kernel_size[:axes])
    plain = config.activation == "elu" and config.boundaries[0] == "zero" and config.skip == "none" and not config.blur
    return macs if plain else math.inf


def _program(steps: Iterable[Step], shape: tuple[int, ...]) -> tuple[Float, list[Callable[[], Any]], Float]:
    """Return memory for images (N, *space, channels), calls that compute from it, and the logits.

    Channels stay last, so that the samples of a window lie in few runs. A correlation is one matrix product: of these
    samples and a one, a row for each position, with the filters and biases.
    """
    arrays, calls = [np.empty(shape, np.float32)], list[Callable[[], Any]]()

    def then(function: Callable[..., Any], *operands: Any, **options: Any) -> None:
        calls.append(partial(function, *operands, **options))

    def mean_or_sum(kind: str, x: Float, axis: int) -> Float:
        y = np.empty((*x.shape[:axis], *x.shape[axis + 1 :]), np.float32)
        then(np.add.reduce, x, axis=axis, out=y)
        if kind == "mean":
            then(np.divide, y, np.float32(x.shape[axis]), out=y)
        return y

    for operation, (read, *_) in steps:
        x = y = arrays[read]
        match operation:
            case Convolve(weight, bias, stride, (before, after)):
                space = tuple(range(1, x.ndim - 1))
                padded = np.zeros((len(x), *(n + before + after for n in x.shape[1:-1]), x.shape[-1]), np.float32)
                windows = np.moveaxis(sliding_window_view(padded, weight.shape[2:], space), x.ndim - 1, -1)
                windows = windows[(slice(None), *(slice(None, None, r) for r in stride))]
                filters = np.moveaxis(weight, (0, 1), (-1, -2)).reshape(-1, len(weight))
                filters = np.concatenate([filters, np.asarray(bias, np.float32)[None]])
                y = np.empty((*windows.shape[: x.ndim - 1], len(weight)), np.float32)
                samples = np.ones((y.size // len(weight), len(filters)), np.float32)
                then(np.copyto, padded[(slice(None), *(slice(before, before + n) for n in x.shape[1:-1]))], x)
                then(np.copyto, samples[:, :-1].reshape(windows.shape), windows)
                then(np.matmul, samples, filters, out=y.reshape(len(samples), -1))
            case Activation():
                negative, zeros = np.empty_like(x), np.zeros_like(x)  # NumPy has no vectors for one number
                then(np.minimum, x, zeros, out=negative)
                then(np.expm1, negative, out=negative)
                then(np.maximum, x, negative, out=x)
            case Parts(kind, parts):
                y = mean_or_sum(kind, x.reshape(*x.shape[:-1], parts, -1), x.ndim - 1)
            case Whole(kind):
                y = mean_or_sum(kind, x.reshape(len(x), -1, x.shape[-1]), 1)
            case Linear(matrix, offset):
                y = np.empty((len(x), len(offset)), np.float32)
                then(np.matmul, x, matrix, out=y)
                then(np.add, y, offset, out=y)
        arrays.append(y)
    return arrays[0], calls, arrays[-1]
