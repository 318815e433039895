"""How small shifts change a network's answers: `python -m benchmarks.shifts --data-dir DIR NETWORK ...`.

Each network, a checkpoint, a run or a name, classifies the images it held out and the first of those it trained on: as
they are, and by the mean of the logits of nine shifts, by 2, 0 or -2 pixels along each axis, zeros (the mean colour)
coming in. Losses are as they are, and tempered: after one temperature that the other half of the images chose. Test
images are not read.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator

import numpy as np

from hcnn_core import log_softmax
from hcnn_core.backend import Array
from train import load_dataset
from train.data import split_validation, standardise, train_subset
from train.data.augmentation import move
from train.networks.layer import Moments, Parameters
from train.networks.network import Network
from train.runs.calibration import tempered_loss
from train.runs.checkpoint import Checkpoint
from train.runs.shipped import open_network
from train.runs.training import restore

BATCH = 100
FAR = 2
"""Pixels of a shift along an axis."""


def shifted(images: Array) -> Iterator[Array]:
    """Yield images (N, H, W, C) at nine places."""
    count, height, width, _ = images.shape
    for down, right in itertools.product((-FAR, 0, FAR), repeat=2):
        rows, columns = np.arange(height) - down, np.arange(width) - right
        yield move(images, np.tile(rows, (count, 1)), np.tile(columns, (count, 1)), max_shift=FAR)


def losses(
    network: Network, parameters: Parameters, moments: Moments, checkpoint: Checkpoint, images: Array, labels: Array
) -> dict[str, tuple[float, float, float]]:
    """Return accuracy, loss and tempered loss, of images as they are and of the mean of nine shifts."""
    logits_of: dict[str, list[Array]] = {"as they are": [], "nine shifts": []}
    for begin in range(0, len(images), BATCH):
        pixels = images[begin : begin + BATCH]
        x = standardise(pixels, checkpoint.channel_mean, checkpoint.channel_std, checkpoint.config.dtype)
        logits = [network(parameters, y, moments)[0] for y in shifted(x)]
        logits_of["as they are"].append(logits[len(logits) // 2])
        logits_of["nine shifts"].append(np.mean(logits, axis=0))
    found = {}
    for how, batches in logits_of.items():
        logits = np.concatenate(batches)
        right = np.mean(np.argmax(logits, axis=1) == labels)
        loss = -np.mean(log_softmax(logits)[np.arange(len(labels)), labels])
        found[how] = float(right), float(loss), tempered_loss(logits, labels)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("networks", nargs="+", help="checkpoints, runs or names")
    parser.add_argument("--data-dir", default="data", help="folder of the data set")
    parser.add_argument("--training", type=int, default=2000, help="training images, the first ones")
    options = parser.parse_args()
    print("network                    images                          right     loss in nats, tempered")
    for name in options.networks:
        path, checkpoint, _ = open_network(name)
        config = checkpoint.config
        network, parameters, moments = restore(path, checkpoint, config, np)
        dataset = load_dataset(config.dataset, options.data_dir)
        if config.train_size:
            dataset = train_subset(dataset, config.train_size)
        count = config.held_out(len(dataset.train_labels))
        trained, held_out = split_validation(dataset, count, config.seed)
        for part, chosen in (("held out", held_out), ("trained on", trained[: options.training])):
            if not len(chosen):
                continue
            images, labels = dataset.train_images[chosen], dataset.train_labels[chosen]
            found = losses(network, parameters, moments, checkpoint, images, labels)
            for how, (right, loss, tempered) in found.items():
                line = f"{name:26} {len(labels)} {part + ',':11} {how:14} {100 * right:6.2f} %   {loss:.4f}"
                print(f"{line}        {tempered:.4f}", flush=True)


if __name__ == "__main__":
    main()
