"""Explore the attributes of a trained network (section 5.3 of arXiv:1703.04140): `python -m hcnn explore`."""

import argparse
import dataclasses
import hashlib
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hcnn_core.plans import user_cache
from train.attributes import report
from train.attributes.features import FIRST, V_AXES, Features, Model, features
from train.attributes.study import ANALYSES, Settings, Study
from train.commands.command_line import NETWORK, Parser, at_least, command, given_path, say
from train.config import ConfigError
from train.data import FILE, INFO, DataError, Dataset, spread, train_subset
from train.data.progress import progress_bar
from train.networks.hierarchical import hierarchy
from train.networks.registry import ATTRIBUTES, architecture_of
from train.runs.checkpoint import CheckpointError
from train.runs.run import RunError, versions, writing
from train.runs.trained import Trained
from train.storage.files import flush_entries, made_whole, make_folder, remove_partial_files

PER_CLASS = 2
"""Images of each class, unless others are asked for."""

OF_MOMENTS = 200
"""Images for the moments of the untrained network."""

ORDER = ("v_{j-2}", "v_{j-1}", "v_j")
"""Attributes of x_j, in the order of its axes."""

WARNING = (
    "this network was trained at zero boundaries, for which Proposition 3.1 does not hold: translations of its "
    "attributes change its result (docs/aliasing.md)"
)


def _arguments(parser: Parser) -> None:
    count, natural = at_least(1), at_least(0)
    parser.add_argument("network", type=given_path, metavar="NETWORK", help=NETWORK)
    parser.add_argument(
        "--dataset",
        metavar="NAME",
        help=f"{', '.join(INFO)}, a file {FILE}, or MODULE:FUNCTION [images it was trained on]",
    )
    parser.add_argument("--data-dir", type=given_path, metavar="DIR", help="folder of the data set [the run's]")
    parser.add_argument("--train-size", type=natural, default=0, metavar="N", help="search the first N images [all]")
    parser.add_argument(
        "--images", type=natural, nargs="+", metavar="INDEX", help="images to translate [two of each class]"
    )
    parser.add_argument(
        "--queries", choices=("train", "test"), default="train", help="set that the translated images are from [train]"
    )
    parser.add_argument("--depths", type=natural, nargs="+", metavar="J", help="depths [3 to J-1]")
    parser.add_argument("--axis", choices=V_AXES, default=V_AXES[0], help=f"attribute to translate [{V_AXES[0]}]")
    parser.add_argument("--smooth", type=count, default=2, metavar="N", help="samples averaged along the axis [2]")
    parser.add_argument(
        "--threshold", type=float, default=0.05, metavar="PART", help="random pairs as close as a small distance [0.05]"
    )
    parser.add_argument(
        "--agreement", type=count, default=2000, metavar="N", help="images class agreement is measured on [2000]"
    )
    parser.add_argument("--skip", choices=ANALYSES, nargs="+", default=[], help="parts to leave out [none]")
    parser.add_argument("--backend", choices=("auto", "numpy", "cupy"), default="auto", help="array library [auto]")
    parser.add_argument("--seed", type=natural, default=0, metavar="N", help="of everything that is drawn [0]")
    parser.add_argument(
        "--cache", type=given_path, metavar="DIR", help="where arrays of all images are kept [the user's cache folder]"
    )
    parser.add_argument("--out", type=given_path, metavar="DIR", help="new folder [runs/explore-TIME]")


@command(_arguments, "a smaller --train-size may do")
def main(options: argparse.Namespace) -> None:
    """Translate the attributes of a trained network, and measure what each layer does.

    Finds the images that have such arrays (Eq. 9, Figures 3 and 4 of arXiv:1703.04140). Writes one folder: a page that
    opens without a network, pictures, and numbers as JSON and CSV.
    """
    begin = time.monotonic()
    given = {name: str(value) for name in ("backend", "dataset", "data_dir") if (value := getattr(options, name))}
    trained = Trained.open(options.network, given, say)
    path, checkpoint, xp = trained.path, trained.checkpoint, trained.xp
    architecture = architecture_of(checkpoint.config)
    if ATTRIBUTES in architecture.lacks:
        raise CheckpointError(
            f"{path} is {architecture.title}, which has no attributes; explore a hierarchical network"
        )
    if not checkpoint.task.ranks:
        raise CheckpointError(f"{path} predicts {checkpoint.task.name}; explore a network that tells classes apart")
    if checkpoint.config.scattering:
        raise CheckpointError(
            f"{path} begins with scattering: what its filters see is no part of an image that could be shown; explore "
            "a network without"
        )
    size = checkpoint.image_size
    if (len(size), checkpoint.channels, checkpoint.values) != (2, 3, "uint8") or min(size) < 2:
        shape = "x".join(map(str, checkpoint.image_shape))
        raise CheckpointError(
            f"{path} takes images of {shape}; only those of RGB, 2 pixels or more a side, are explored"
        )
    out = options.out or Path("runs") / f"explore-{time.strftime('%Y%m%d-%H%M%S')}"
    if out.exists():
        raise RunError(f"--out {out} is there already; name a new directory")
    dataset = _dataset(options, trained)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    weights = trained.parameters, trained.moments
    model = Model(trained.network, *weights, checkpoint.channel_mean, checkpoint.channel_std, digest)
    settings = _settings(options, model, dataset)
    images = f"{dataset.name}: {len(dataset.train_images):,} to search, {len(dataset.test_images):,} to test with"
    if checkpoint.config.boundaries[1] == "zero":
        print(f"train.explore: {WARNING}", file=sys.stderr)
    cache = options.cache or user_cache()
    of_moments = spread(len(dataset.train_images), OF_MOMENTS)
    untrained = model.untrained(xp.asarray(dataset.train_images[of_moments]), options.seed)
    arrays, untrained_arrays = _features([model, untrained], dataset, cache, settings, xp)
    study = Study(model, untrained, arrays, untrained_arrays, dataset, settings, xp)
    seconds: dict[str, float] = {"features": time.monotonic() - begin}
    parts = tuple(part for part in ANALYSES if part not in options.skip)
    with progress_bar(len(parts) + 1, unit=" parts") as bar:

        def measure(name: str, action: Callable[[], None]) -> None:
            bar.set_description(name)
            begin = time.monotonic()
            action()
            seconds[name] = time.monotonic() - begin
            bar.update()

        study.run(parts, measure)
    description = {
        "command": shlex.join(["python", "-m", "hcnn", "explore", *main.parser.given(options, "cache")]),
        "network": str(options.network),
        "trained": f"{checkpoint.state.epoch} epochs, {checkpoint.config.boundary} boundary",
        "recorded": checkpoint.figures or "nothing",
        "weights": f"SHA-256 {digest}",
        "images": images,
        "settings": dataclasses.asdict(settings),
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "versions": versions(xp.__name__),
    }
    remove_partial_files(out.parent, re.escape(out.name), r"explore-\d{8}-\d{6}")  # of processes that were killed
    with writing(f"to {out}"):
        with made_whole(out) as folder:
            make_folder(folder)
            report.write(folder, study, description, WARNING)
        flush_entries(out.parent)
    say("\n".join(report.summary(study)))
    say(f"\n{out / report.PAGE}")


def _dataset(options: argparse.Namespace, trained: Trained) -> Dataset:
    """Load the images, of the classes that the network knows."""
    dataset = trained.data(f"{options.network}", say, named=bool(options.dataset), use="")
    if options.train_size:
        try:
            dataset = train_subset(dataset, options.train_size)
        except ValueError as error:
            raise DataError(f"--train-size: {error}") from error
    if (count := len(dataset.train_images)) < 2:
        raise DataError(f"{count} image is there to be searched; distances are those of 2 or more")
    return dataset


def _settings(options: argparse.Namespace, model: Model, dataset: Dataset) -> Settings:
    """Return the settings of a study; ConfigError where the network or the images lack something they name."""
    labels = dataset.train_labels if options.queries == "train" else dataset.test_labels
    depths = tuple(sorted(set(options.depths or model.depths)))
    for j in depths:
        if j not in model.depths:
            raise ConfigError(
                f"--depths has {j}; this network has arrays of three attributes at depths {FIRST} to {model.depths[-1]}"
            )
        length = hierarchy(model.network)[j - 1].outputs[2 + ORDER.index(options.axis)]
        if length < 2:
            raise ConfigError(
                f"{options.axis} has {length} sample at depth {j}, so there is no translation; "
                "choose other --depths or another --axis"
            )
    first = (int(k) for c in np.unique(labels) for k in np.flatnonzero(labels == c)[:PER_CLASS])
    images = tuple(options.images or first)
    for index in images:
        if not 0 <= index < len(labels):
            raise ConfigError(f"--images has {index}; the {options.queries} images are 0 to {len(labels) - 1}")
    if not 0 < options.threshold < 1:
        raise ConfigError(f"--threshold is {options.threshold}; give a part of the random pairs between 0 and 1")
    measures = {"width": options.smooth, "quantile": options.threshold, "agreement": options.agreement}
    return Settings(images, options.queries, depths, options.axis, **measures, seed=options.seed)


def _features(
    models: Sequence[Model], dataset: Dataset, folder: Path, settings: Settings, xp: Any
) -> Iterator[Features]:
    """Yield the arrays of each network, showing progress on a terminal."""
    for name, model in zip(("trained", "untrained"), models, strict=True):
        total = len(dataset.train_images) + len(dataset.test_images)
        with progress_bar(total, f"arrays of the {name} network") as bar:
            yield features(
                model, dataset, folder, axis=settings.axis, position=settings.position, xp=xp, progress=bar.update
            )
