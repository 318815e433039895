"""Verify Proposition 3.1 of arXiv:1703.04140 on a network, and measure where it ends: `python -m hcnn verify`."""

import argparse
import dataclasses
import re
import shlex
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from autodiff import tree_map
from train.commands.command_line import NETWORK, Parser, at_least, command, given_path, say
from train.config import PRESETS, Config, ConfigError, make_config
from train.data import FILE, INFO, Dataset, channel_statistics, is_custom, load, require_varying, standardise
from train.data.progress import progress_bar
from train.networks.layer import times
from train.networks.network import Network
from train.networks.registry import ATTRIBUTES, architecture_of, build
from train.runs.checkpoint import Checkpoint
from train.runs.fit import namespace
from train.runs.run import Interrupted, RunError, TrainingError, take_name, versions, writing
from train.runs.trained import Trained, require_named
from train.storage.files import make_folder, remove_partial_files, write_atomically
from train.verification.covariance import Row, Subject, measure
from train.verification.report import as_json, page, summary_table

BOUNDARIES = ("periodic", "zero")
DTYPE = "float64"
"""The default dtype: its rounding leaves twelve digits, that of float32 few."""

BIAS_SCALE = 0.5
"""Standard deviation of random networks' biases, which training begins at zero."""

LAYER_SETTINGS = (
    *("depth", "width", "factors", "space_kernel", "attribute_kernel", "attribute_stride", "strided_layers"),
    *("activation", "nonlinear_factors", "normalization", "head", "skip", "hypernetwork", "scattering", "epsilon"),
)
"""Settings of the network in the description of a verification."""

JSON, PAGE = "verify.json", "verify.html"


def _arguments(parser: Parser) -> None:
    choices = {f.name: f.metadata["choices"] for f in dataclasses.fields(Config)}
    which = parser.add_mutually_exclusive_group()
    which.add_argument("network", type=given_path, nargs="?", metavar="NETWORK", help=NETWORK)
    which.add_argument("--preset", choices=tuple(PRESETS), help="verify random networks of this kind [hcnn]")
    parser.add_argument(
        "--dataset",
        metavar=FILE,
        help="images to try it on: such a file, or MODULE:FUNCTION [those it was trained on; for CIFAR, and random "
        "networks, the built-in sample's]",
    )
    parser.add_argument("--backend", choices=("auto", "numpy", "cupy"), help="array library [auto]")
    parser.add_argument("--dtype", choices=("float32", "float64"), help=f"of weights and arrays [{DTYPE}]")
    parser.add_argument(
        "--boundary",
        choices=(*BOUNDARIES, "attributes", "both"),
        help="how arrays are extended; attributes: periodic along attributes, by zeros in space; both: periodic, then "
        "by zeros [the checkpoint's, or both]",
    )
    parser.add_argument("--reduction", choices=choices["reduction"], help="marginal over v_{j-3} [the network's]")
    parser.add_argument("--skip", choices=choices["skip"], help="what layers add to their outputs [the network's]")
    parser.add_argument("--hypernetwork", type=at_least(1), metavar="N", help="numbers z_j of a layer [the network's]")
    parser.add_argument(
        "--max-examples", type=at_least(1), default=1, metavar="N", help="random networks, or sets of images [1]"
    )
    parser.add_argument("--images", type=at_least(1), default=1, metavar="N", help="images in each of them [1]")
    parser.add_argument("--seed", type=at_least(0), default=0, metavar="N", help="of weights and images [0]")
    parser.add_argument("--out", type=given_path, metavar="DIR", help="new directory for the report [runs/verify-TIME]")


@command(_arguments, "fewer --max-examples, or a preset with a smaller width, may do")
def main(options: argparse.Namespace) -> int:
    """Verify that translations of the attributes of a network leave its result (Proposition 3.1 of arXiv:1703.04140).

    They do where strides and boundaries let them; how much they change it elsewhere is measured. The exit status is 1
    also where a check that must hold fails or is undecided.
    """
    backend = options.backend or "auto"
    names = "reduction", "skip", "hypernetwork"
    changes = {name: value for name in names if (value := getattr(options, name))}
    trained = Trained.open(options.network, {"backend": backend, **changes}, say) if options.network else None
    xp = trained.xp if trained else namespace(backend)
    recipe = trained.config if trained else make_config(options.preset or "hcnn", changes)
    if ATTRIBUTES in (architecture := architecture_of(recipe)).lacks:
        raise ConfigError(
            f"{architecture.title} has no attributes, which section 3 is about; verify a hierarchical network"
        )
    boundary = options.boundary or (recipe.boundary if trained else "both")
    boundaries = BOUNDARIES if boundary == "both" else (boundary,)
    dataset = _dataset(options, recipe, trained)
    subjects = (
        (f"{boundary}, network {number + 1}", _subject(options, xp, recipe, trained, dataset, boundary, number))
        for boundary in boundaries
        for number in range(options.max_examples)
    )
    first = next(subjects)  # what cannot be verified is refused before anything is made
    out = _make(options.out)
    rows: dict[Row, Row] = {}
    begin = time.monotonic()
    try:
        for row in _measured(chain([first], subjects), len(boundaries) * options.max_examples):
            key = dataclasses.replace(row, errors=(), bounds=(), changed=())
            rows[key] = rows.get(key, key).merged([row])
    except KeyboardInterrupt as error:
        raise Interrupted(f"stopped; nothing is written to {out}, begin again") from error
    except MemoryError as error:
        raise TrainingError("not enough memory; fewer --images, or a preset with a smaller width, may do") from error
    config = first[1].network.config
    description = {
        "command": shlex.join(["python", "-m", "hcnn", "verify", *main.parser.given(options)]),
        "network": str(options.network) if trained else f"preset {config.preset}, random weights",
        "trained": _trained(trained.checkpoint) if trained else "no",
        "measured at boundary": ", ".join(boundaries),
        "marginal": config.reduction,
        "dtype": options.dtype or DTYPE,
        "images": f"{options.images} of the test images of {_named(dataset)}, {options.max_examples} times",
        "seed": options.seed,
        "layers": {name: getattr(config, name) for name in LAYER_SETTINGS},
        "seconds": round(time.monotonic() - begin, 1),
        "versions": versions(xp.__name__),
    }
    return _report(out, list(rows.values()), description)


def _dataset(options: argparse.Namespace, recipe: Config, trained: Trained | None) -> Dataset:
    """Load the images that are asked for, else those of the network, for CIFAR the sample's."""
    if options.dataset is not None and not is_custom(options.dataset):
        reason = f"{options.dataset!r} is neither a file {FILE} nor MODULE:FUNCTION"
        raise ConfigError(f"--dataset: {reason}; leave it out for CIFAR's images")
    name = recipe.dataset if trained and recipe.dataset not in INFO else "sample"
    require_named(name, bool(options.dataset), str(options.network))
    reading = trained.checkpoint.reading(recipe) if trained else recipe.reading
    dataset = load(options.dataset or name, reading, download=False)
    if trained and trained.checkpoint.image_shape != dataset.image_shape:
        wanted, size = map(times, (trained.checkpoint.image_shape, dataset.image_shape))
        raise ConfigError(
            f"{options.network} takes images of {wanted}, those of {_named(dataset)} are {size}; name its own with "
            "--dataset"
        )
    if options.images > len(dataset.test_images):
        raise ConfigError(
            f"--images is {options.images}; {_named(dataset)} has {len(dataset.test_images)} to test with"
        )
    return dataset


def _named(dataset: Dataset) -> str:
    return "the built-in CIFAR-10 sample" if dataset.name == "sample" else dataset.name


def _trained(checkpoint: Checkpoint) -> str:
    config = checkpoint.config
    return f"{checkpoint.state.epoch} epochs, {config.boundary} boundary, {config.reduction}, {config.dtype}"


def _subject(
    options: argparse.Namespace,
    xp: Any,
    recipe: Config,
    trained: Trained | None,
    dataset: Dataset,
    boundary: str,
    number: int,
) -> Subject:
    """Make a network, loaded or random, and images to try it on."""
    dtype = options.dtype or DTYPE
    config = dataclasses.replace(recipe, boundary=boundary, dtype=dtype)
    rng = np.random.default_rng([options.seed, number])
    chosen = np.sort(rng.choice(len(dataset.test_images), options.images, replace=False))
    if trained:
        mean, std = trained.checkpoint.channel_mean, trained.checkpoint.channel_std
    else:
        mean, std = channel_statistics(dataset.train_images)
        require_varying(dataset.name, mean, std)
    images = standardise(xp.asarray(dataset.test_images[chosen]), mean, std, dtype, config.standardize)
    if trained:
        of = trained.network, trained.parameters, trained.moments, images
        return Subject.of(*of, boundary=boundary, dtype=dtype)
    *size, channels = dataset.image_shape
    network = build(config, tuple(size), len(dataset.class_names), channels)
    parameters = tree_map(xp.asarray, _random_weights(network, rng))
    return Subject(network, parameters, network(parameters, images)[1], images)


def _random_weights(network: Network, rng: np.random.Generator) -> Any:
    """Draw initial weights, and biases that are not zero."""
    parameters = network.initialize(rng)
    for arrays in parameters.values():
        if "bias" in arrays:
            bias = arrays["bias"]
            arrays["bias"] = bias + (BIAS_SCALE * rng.standard_normal(bias.shape)).astype(bias.dtype)
    return parameters


def _measured(subjects: Iterable[tuple[str, Subject]], count: int) -> Iterator[Row]:
    """Measure every network, showing progress on a terminal."""
    with progress_bar(count, bar_format="{desc}: {percentage:3.0f} %|{bar}| [{elapsed}<{remaining}]") as bar:
        for name, subject in subjects:
            depth, layer = len(subject.table) + 1, 0
            for row in (example.row for example in measure(subject)):
                if row.j + 1 > layer:
                    layer = row.j + 1
                    bar.set_description(f"{name}, layer {layer} of {depth}")
                    bar.update(1 / depth)
                yield row


def _report(out: Path, rows: list[Row], description: dict[str, Any]) -> int:
    """Write and print everything; the status says whether all that must hold holds."""
    with writing(f"to {out}"):
        write_atomically(out / PAGE, page(rows, description).encode(errors="backslashreplace"))
        write_atomically(out / JSON, as_json(rows, description))
    say(f"{summary_table(rows)}\n\n{out / PAGE}\n{out / JSON}")
    verdicts = Counter(row.verdict for row in rows if row.must_hold)
    if failed := verdicts["FAILS"]:
        print(f"train.verify: {failed} of {verdicts.total()} checks failed; see {out / PAGE}", file=sys.stderr)
    elif undecided := verdicts["undecided"]:
        print(
            f"train.verify: {undecided} of {verdicts.total()} statements are undecided: the result does not react to "
            "x_j, or rounding explains too much; --dtype float64 decides more",
            file=sys.stderr,
        )
    return int(verdicts["holds"] < verdicts.total())


def _make(asked: Path | None) -> Path:
    """Make a new directory, or take one that is there without a verification in it."""
    if asked is None:
        out = Path("runs") / f"verify-{time.strftime('%Y%m%d-%H%M%S')}"
        return take_name(out, f"to {out}")
    names = JSON, PAGE
    if asked.is_file():
        raise RunError(f"--out {asked} is a file; name a new directory")
    if any((asked / name).exists() for name in names):
        raise RunError(f"--out {asked} holds a verification; name a new directory")
    with writing(f"to {asked}"):
        make_folder(asked, exist_ok=True)
        remove_partial_files(asked, *map(re.escape, names))  # of one that was killed
        (asked / JSON).touch()  # whether it can be written shows now, not after the work
        (asked / JSON).unlink()
    return asked
