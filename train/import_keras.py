"""Convert weights of the authors' program (Keras 1, TensorFlow) to a checkpoint: `python -m hcnn import-keras`."""

import argparse
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from train.commands.command_line import Parser, given_path, run_command, say
from train.config import make_config
from train.data.cifar import CLASS_NAMES
from train.networks.registry import build
from train.runs import checkpoint as checkpoints
from train.runs.checkpoint import Checkpoint, CheckpointError, State
from train.runs.run import RunError, versions
from train.storage.files import remove_partial_files
from train.storage.hdf5 import opened, read_array, unreadable

NAMES = tuple(CLASS_NAMES["cifar10"].split())
IMAGE_SHAPE = (32, 32, 3)
CHANNEL_MEAN, CHANNEL_STD = (125.3, 123.0, 113.9), (63.0, 62.1, 66.7)
"""What the authors' program standardises CIFAR-10 by."""

EPSILON = 1e-3
"""What Keras 1 adds to variances."""

STRIDED = (4, 8)

Array = np.ndarray[Any, Any]


def import_keras(source: Path) -> Checkpoint:
    """Read the weights of the network of arXiv:1703.04140 as its authors' program saves them.

    The network that comes out computes the same function in evaluation. The program correlates, so taps are reversed.
    At stride 2 and even lengths, TensorFlow's "same" padding begins at the second sample, where this package begins at
    the first. So filters are laid into ones with two more taps along each axis, which are zero: 5 taps in place of 3, 9
    and 13 in place of 7 and 11. Keras keeps the mean and variance of what each filter makes. They go into its scale
    and bias, since a layer here normalises its first filters by the moments of patches, which Keras has not kept.
    Training can go on from these weights, but begins with first filters of other scales.
    """
    layers = _read(source)
    if len(layers) < 9 or len(layers) % 4 != 1:
        raise _other_network(source, f"{len(layers)} layers with weights")
    *convolutions, dense = layers
    pairs = list(zip(convolutions[::2], convolutions[1::2], strict=True))
    try:
        parameters, moments = _parameters(pairs, dense)
        width, factors = dense[0].shape[0], pairs[2][0][0].shape[-1]
        if width % 4:  # TensorFlow's strides then begin elsewhere
            raise ValueError(f"width {width}, no multiple of 4")
    except (ValueError, IndexError) as error:
        raise _other_network(source, str(error)) from error
    depth = 2 + (len(pairs) - 2) // 2 + 1
    taps = pairs[3][0][0].shape[:2]
    config = make_config(
        "released",
        {
            "depth": depth,
            "width": width,
            "factors": factors,
            "space_kernel": pairs[0][0][0].shape[0] + 2,
            "attribute_kernel": (taps[0] + 2, taps[1] + 2),
            "strided_layers": STRIDED,
            "epsilon": EPSILON,
        },
    )
    network = build(config, IMAGE_SHAPE[:2], len(NAMES))
    expected = network.initialize(np.random.default_rng(0))
    checkpoints.require_same_arrays(source, parameters, expected, "parameters")
    checkpoints.require_same_arrays(source, moments, network.initial_moments(), "moments")
    checkpoints.require_finite(source, parameters, "parameters")
    checkpoints.require_finite(source, moments, "moments")
    state = State(parameters, {}, moments, dict(np.random.default_rng(0).bit_generator.state))
    return Checkpoint(state, config, NAMES, IMAGE_SHAPE, np.array(CHANNEL_MEAN), np.array(CHANNEL_STD))


def _parameters(pairs: Sequence[tuple[list[Array], list[Array]]], dense: list[Array]) -> Any:
    """Weights and moments by layer, from (filters, normalisation) pairs: j = 1, j = 2, then h and g of each j > 2."""
    parameters: dict[str, dict[str, Array]] = {}
    moments: dict[str, dict[str, Array]] = {}
    (first,), (second,) = pairs[0][0], pairs[1][0]
    filters = {
        "layer01": {"w": np.moveaxis(_embedded(first, (1, 1)), 2, 0)},  # (s, s, 3, K) -> (3, s, s, K)
        "layer02": {"w": _embedded(second[:, :, :, 0], (1, 1, 2))},  # (s, s, s2, 1, K) -> (s, s, s2, K)
    }
    for index in range(2, len(pairs), 2):
        j = 2 + index // 2
        ((h,), (gamma, beta, mean, variance)), ((g,), _) = pairs[index : index + 2]
        h = _embedded(h[:, :, 0], (2, 2) if j in STRIDED else (1, 1))
        h = np.ascontiguousarray(np.moveaxis(h, -1, 0))  # (s, s, Q) -> (Q, s, s)
        g = np.moveaxis(_embedded(g, (2, 2)), 2, 0)  # (s1, s2, Q, K) -> (Q, s1, s2, K)
        deviation = np.sqrt(variance + EPSILON)
        # with moments of uncorrelated patches the layer divides by the norm of h; its scale takes that back
        norm = np.sqrt(np.sum(np.square(h.astype(float)), axis=(1, 2)) + EPSILON)
        scale = {"h_scale": gamma * norm / deviation, "h_bias": beta - gamma * mean / deviation}
        name, taps = f"layer{j:02d}", h[0].size
        filters[name] = {"h": h, "g": g, **scale}
        moments[name] = {"mean": np.zeros(taps), "covariance": np.eye(taps)}
    of_outputs = [pairs[0][1], pairs[1][1], *(normalization for _, normalization in pairs[3::2])]
    for (name, own), (gamma, beta, mean, variance) in zip(filters.items(), of_outputs, strict=True):
        parameters[name] = {**own, "scale": gamma, "bias": beta}
        moments[name] = moments.get(name, {}) | {"output_mean": mean, "output_variance": variance}
    parameters["head"] = {"w": dense[0], "bias": dense[1]}
    return tuple(
        {layer: {name: np.asarray(a, np.float32) for name, a in arrays.items()} for layer, arrays in tree.items()}
        for tree in (parameters, moments)
    )


def _embedded(w: Array, stride: Sequence[int]) -> Array:
    """Filters of a correlation with TensorFlow's padding as those of a convolution with two more taps along each axis.

    Tap t of a correlation meets sample ``stride * i + t - before`` of output i, where ``before`` zeros are in front.
    Tap T - t' of a convolution of size 2 T + 1 meets sample ``stride * i + t'``.
    """
    size = [n + 2 for n in w.shape[: len(stride)]]
    result = np.zeros((*size, *w.shape[len(stride) :]), w.dtype)
    places = []
    for n, r, larger in zip(w.shape, stride, size, strict=False):
        before = (n - r) // 2  # of n - r zeros in all, at lengths that the stride divides
        places.append(larger // 2 - (np.arange(n) - before))
    result[np.ix_(*places)] = w
    return result


def _read(source: Path) -> list[list[Array]]:
    """The arrays of each layer that has some, in the order of the layers."""
    if not source.is_file():
        raise CheckpointError(f"there is no file {source}")
    try:
        with opened(source) as file:
            if "layer_names" not in file.attrs:
                raise CheckpointError(f"{source} has no attribute 'layer_names'; give a file of Keras's save_weights")
            return [arrays for arrays in _layers(file) if arrays]
    except (CheckpointError, MemoryError):
        raise
    except Exception as error:  # h5py and what reads a damaged file fail in many ways
        if why := unreadable(error):
            raise CheckpointError(f"cannot read {source}: {why}") from error
        raise CheckpointError(f"{source} is not a whole file of weights: truncated, damaged or of no HDF5") from error


def _layers(file: Any) -> Iterator[list[Array]]:
    for layer in file.attrs["layer_names"]:
        group = file[layer]
        yield [read_array(group[name]) for name in group.attrs["weight_names"]]


def _other_network(source: Path, found: str) -> CheckpointError:
    return CheckpointError(
        f"{source} holds another network ({found}); the authors' has a filter and a normalisation of four arrays by "
        "turns, two pairs for each layer from the third on, and a dense layer"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    return run_command(_parser(), arguments, _act, "the file is small; close other programs")


def _act(options: argparse.Namespace) -> int:
    checkpoint = import_keras(options.weights)
    if os.path.lexists(options.out):
        raise RunError(f"{options.out} is there already; name a new file")
    remove_partial_files(options.out.parent, re.escape(options.out.name))  # of a conversion that was killed
    checkpoints.save(options.out, checkpoint, versions("numpy"))
    say(f"{options.out}: evaluate it with python -m hcnn evaluate {options.out}")
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="python -m train.import_keras",
        description="Convert weights of the authors' program (Keras 1, TensorFlow) to a checkpoint.",
        epilog="Exit status: 0; 1 it failed; 2 the command line is wrong.",
    )
    parser.add_argument("weights", type=given_path, metavar="WEIGHTS", help="HDF5 file of Model.save_weights")
    parser.add_argument("out", type=given_path, metavar="CHECKPOINT", help="HDF5 file to write")
    return parser
