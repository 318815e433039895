"""Put properties that mean nothing through the images that a network's translations find, and test them.

    python -m benchmarks.found_noise --data-dir DIR --out benchmarks/results/explorer/noise.txt

The images are those that `python -m train.explore` finds for this network, hubs included. Their properties are normal
noise, or those of other images: each image's properties together, in random order. Tests by blocks are counted one by
one, where 5 % are expected to be significant, and after correction, where 5 % of the draws are expected to have any.
Permutations are tried on normal noise, a few times, since they take longer.
"""

import argparse
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hcnn_core.plans import user_cache
from train.attributes.blocks import LARGEST, blocks_differ
from train.attributes.decisions import LEVEL, corrected
from train.attributes.features import AXES, Model, boundary_of, features
from train.attributes.hubs import effective_number
from train.attributes.meaning import found_images_differ, properties
from train.attributes.study import Settings
from train.attributes.translations import Search, agreement
from train.data import Dataset, load_dataset
from train.runs import checkpoint as checkpoints
from train.runs.shipped import find
from train.runs.training import restore

Values = dict[str, np.ndarray[Any, Any]]
Found = Mapping[tuple[int, str], np.ndarray[Any, Any]]


def found_images(name: Path, dataset: Dataset, cache: Path) -> Found:
    """Return what the explorer's queries find at each depth, (queries, translations)."""
    path = find(name)
    checkpoint = checkpoints.load(path)
    network, parameters, moments = restore(path, checkpoint, checkpoint.config, np)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    model = Model(network, parameters, moments, checkpoint.channel_mean, checkpoint.channel_std, digest)
    settings, labels = Settings((), "train", tuple(model.depths)), dataset.train_labels
    arrays = features(model, dataset, cache, axis=settings.axis, position=settings.position)
    search = Search(settings.width, boundary_of(model), settings.quantile)
    chosen = np.random.default_rng([settings.seed, 2]).permutation(len(labels))[: settings.agreement]
    found = {}
    for j in settings.depths:
        database, rng = arrays.arrays("train", j), np.random.default_rng([settings.seed, 3, j])
        measured = agreement(j, database[chosen], labels[chosen], database, labels, search, own=chosen, rng=rng)
        found[j, settings.axis] = measured.found
    return found


def by_blocks(found: Found, values: Values, rng: np.random.Generator) -> tuple[int, int, int]:
    """Return how many translations there are, and how many are significant one by one and after correction."""
    alone = [
        blocks_differ({key: indices[:, [0, tau]]}, values, rng)[0]
        for key, indices in found.items()
        for tau in range(1, indices.shape[1])
    ]
    ps = corrected([b.p for b in alone], [1.0 if b.largest > LARGEST else b.smallest_p for b in alone])
    return len(alone), sum(b.p <= LEVEL for b in alone), sum(p <= LEVEL for p in ps)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, default=Path("hcnn-periodic"), metavar="FILE")
    parser.add_argument("--data-dir", type=Path, required=True, metavar="DIR", help="folder of CIFAR-10")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="as of train.explore [the user's cache folder]")
    parser.add_argument("--draws", type=int, default=20, metavar="N", help="of each kind of properties [20]")
    parser.add_argument("--permuted", type=int, default=3, metavar="N", help="of noise, for permutations [3]")
    parser.add_argument("--out", type=Path, help="text to write")
    options = parser.parse_args()
    lines: list[str] = []

    def say(line: str) -> None:
        print(line, flush=True)
        lines.append(line)
        if options.out:
            options.out.write_text("\n".join(lines) + "\n", "utf-8")

    dataset = load_dataset("cifar10", options.data_dir)
    found = found_images(options.checkpoint, dataset, options.cache or user_cache())
    say(f"{options.checkpoint}, translations along {AXES[0]}; effective number of images found by each")
    for (j, _), indices in found.items():
        still, *moved = (effective_number(column) for column in indices.T)
        say(f"depth {j:2}: {still:.0f} without a translation, {min(moved):.0f} to {max(moved):.0f} with one")

    own, rng = properties(dataset.train_images), np.random.default_rng(0)
    many = len(dataset.train_images)

    def noise() -> Values:
        return {name: rng.standard_normal(many) for name in own}

    def exchanged() -> Values:
        order = rng.permutation(many)
        return {name: values[order] for name, values in own.items()}

    say("by blocks, significant one by one, and after correction")
    say("the images' own properties: {1} and {2} of {0}".format(*by_blocks(found, own, rng)))
    for name, draw in (("normal noise", noise), ("properties of other images", exchanged)):
        for _ in range(options.draws):
            say(f"{name}: {{1}} and {{2}} of {{0}}".format(*by_blocks(found, draw(), rng)))
    say("by permutations of images, after correction")
    for _ in range(options.permuted):
        findings = found_images_differ(found, noise(), rng)
        say(f"normal noise: {sum(f.significant for f in findings)} of {sum(f.decided for f in findings)}")


if __name__ == "__main__":
    main()
