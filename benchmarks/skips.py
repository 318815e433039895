"""What translations that alias do to networks with skips and without: `python -m benchmarks.skips`.

Networks have periodic boundaries, strides of 2 along attributes, and random weights, and see images of the sample at
8 x 8 pixels. An array x_j, j from 3 to 8 or to the last layer but one, is translated by one sample along one attribute,
which is no multiple of the strides to come. What skips it is translated with it. The figure is the largest change of a
logit over the largest logit, of each image, in the mean over depths and images; the table shows its mean over networks,
the least and the most, and in how many it is below that of the same weights without skips. Moments are those of the
images before the translation ("evaluation"), or of the batch as it comes ("training"). "previous, no means" takes one
of two neighbours of x_{j-1} where "previous" takes their mean.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np

from hcnn_core import translate
from train.config import make_config
from train.data import channel_statistics, load_dataset, resize, standardise
from train.networks.hierarchical import HierarchicalLayer
from train.networks.network import Network
from train.networks.registry import build
from train.verification.covariance import Subject, axes

KINDS = ("none", "aligned", "aligned-mean", "previous, no means", "previous")


def subject(kind: str, options: argparse.Namespace, seed: int) -> Subject:
    """A network of a kind with random weights, in double precision, and random images."""
    settings = {name: getattr(options, name) for name in ("width", "depth", "normalization")}
    settings |= {"boundary": "periodic", "dtype": "float64", "skip": kind.partition(",")[0]}
    network = build(make_config("hcnn", settings), 8)
    if kind.endswith("no means"):
        table = [
            replace(layer, skip=layer.skip._replace(means=None))
            if isinstance(layer, HierarchicalLayer) and layer.skip
            else layer
            for layer in network.table
        ]
        network = Network(network.config, table, network.image_shape, network.classes, [], ())
    rng = np.random.default_rng(seed)
    weights, sample = network.initialize(rng), load_dataset("sample")
    for arrays in weights.values():
        if "bias" in arrays:
            arrays["bias"] = options.biases * rng.standard_normal(arrays["bias"].shape)
    pixels = sample.test_images[rng.permutation(len(sample.test_images))[: options.images]]
    x = np.asarray(resize(standardise(pixels, *channel_statistics(sample.train_images), "float64"), 8))
    return Subject(network, weights, network(weights, x)[1], x)


def changes(one: Subject, mode: str) -> Iterator[tuple[str, float]]:
    """Yield attributes, and what translating along them changes, of each depth."""
    for j in range(3, min(9, len(one.table))):
        x = one.activations()[j]
        expected = np.asarray(one.tail(j, mode)(x))
        for axis in axes(one.table, j):
            if axis.name[0] == "v" and axis.exact > 1:
                moved = translate(x, 1, axis.position, boundary=axis.boundary)
                found = np.asarray(one.tail(j, mode, (axis, 1))(moved))
                largest = np.abs(expected).max(axis=1)
                yield axis.name, float(np.mean(np.abs(found - expected).max(axis=1) / largest))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--width", type=int, default=16, help="K")
    parser.add_argument("--depth", type=int, default=12, help="J")
    parser.add_argument("--normalization", default="factors", choices=("factors", "both"))
    parser.add_argument("--biases", type=float, default=0.0, help="deviation of random biases; hcnn verify takes 0.5")
    parser.add_argument("--networks", type=int, default=5)
    parser.add_argument("--images", type=int, default=4)
    options = parser.parse_args()
    said = f"K = {options.width}, J = {options.depth}, {options.networks} networks, biases of {options.biases:g}"
    print(f"{said}, {options.normalization} normalised")
    found: dict[tuple[str, str], list[dict[str, list[float]]]] = {}
    for seed, kind in product(range(options.networks), KINDS):
        one = subject(kind, options, seed)
        for mode in ("evaluation", "training"):
            by_axis: dict[str, list[float]] = {}
            for name, change in changes(one, mode):
                by_axis.setdefault(name, []).append(change)
            found.setdefault((mode, kind), []).append(by_axis)
    names: Any = sorted({name for runs in found.values() for name in runs[0]})
    print(f"{'moments':11}{'skip':21}" + "".join(f"{name:>24}{'below':>9}" for name in names))
    for (mode, kind), runs in sorted(found.items(), key=lambda item: item[0][0]):
        line = f"{mode:11}{kind:21}"
        for name in names:
            c, without = (np.array([100 * np.mean(run[name]) for run in of]) for of in (runs, found[mode, "none"]))
            below = "" if kind == "none" else f"{np.sum(c < without)} of {len(c)}"
            line += f"{f'{c.mean():.1f} % ({c.min():.1f} to {c.max():.1f})':>24}{below:>9}"
        print(line.rstrip())


if __name__ == "__main__":
    main()
