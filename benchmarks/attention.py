"""Soft targets and attention transfer beside training alone, on few images; docs/recipes.md has the protocol.

    python -m benchmarks.attention --data data --out benchmarks/results/attention

Students see 5,000 of the images that the teacher, `hcnn-fast`, was trained on, at 16 x 16 pixels; the teacher sees them
at its own 32 x 32. Students are tested on the 1,000 training images that it held out, at 16 x 16 as they were trained
and at 32 x 32; the test set is not read. A teacher of random weights is the control of attention.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from autodiff import tree_map
from benchmarks.reduced import reduced
from benchmarks.runner import Row, command_line, publish, records, run, tables
from train import Classifier, fit, load, load_dataset, make_config
from train.data import Dataset, split_validation, standardise
from train.networks.registry import build

ARMS: dict[str, dict[str, Any]] = {
    "alone": {},
    "soft targets": {"teacher": "hcnn-fast"},
    "attention, 1": {"teacher": "hcnn-fast", "teacher_share": 0.0, "attention_transfer": 1.0},
    "attention, 10": {"teacher": "hcnn-fast", "teacher_share": 0.0, "attention_transfer": 10.0},
    "random attention, 1": {"teacher": "random", "teacher_share": 0.0, "attention_transfer": 1.0},
    "random attention, 10": {"teacher": "random", "teacher_share": 0.0, "attention_transfer": 10.0},
}
COMPARED = [(arm, "alone") for arm in list(ARMS)[1:4]] + [
    (f"attention, {w}", f"random attention, {w}") for w in (1, 10)
]
SIZE, BATCH, BATCHES = 16, 50, 20
STUDENT = {"width": 8, "epochs": 8, "image_sizes": [SIZE], "validation_size": 0, "test": False}
Found = dict[tuple[str, int], float]


def images(data: str, count: int) -> Dataset:
    """Return training images that the teacher has seen, and, as test images, those that it held out."""
    whole, config = load_dataset("cifar10", data), load("hcnn-fast").checkpoint.config
    seen, held_out = split_validation(whole, config.held_out(len(whole.train_labels)), config.seed)
    seen = seen[np.random.default_rng(0).permutation(len(seen))[:count]]
    parts = [(whole.train_images[k], whole.train_labels[k]) for k in (seen, held_out)]
    return Dataset("held out by hcnn-fast", whole.class_names, *parts[0], *parts[1])


def accuracy_at(network: Classifier, dataset: Dataset, size: int) -> float:
    """Return the part of held-out images that is right at a size, with moments of training images of that size."""
    checkpoint = network.checkpoint
    weights, mean, std = checkpoint.state.evaluated, checkpoint.channel_mean, checkpoint.channel_std
    one = build(checkpoint.config, size, len(dataset.class_names), 3)

    def inputs(images: np.ndarray[Any, Any]) -> Any:
        return standardise(reduced(images, size), mean, std)

    batches = np.split(dataset.train_images[: BATCH * BATCHES], BATCHES)
    moments = tree_map(lambda *of: sum(of) / BATCHES, *(one(weights, inputs(x))[1] for x in batches))
    right = [
        one(weights, inputs(x), moments)[0].argmax(axis=1) == y
        for x, y in zip(np.split(dataset.test_images, 10), np.split(dataset.test_labels, 10), strict=True)
    ]
    return float(np.mean(right))


def compared(accuracies: Found, arm: str, other: str, of: int) -> tuple[Any, ...]:
    """Return a row on the differences of two arms over seeds, in points, with an interval corrected for several."""
    seeds = sorted({seed for name, seed in accuracies if name == arm} & {seed for a, seed in accuracies if a == other})
    differences = 100 * np.array([accuracies[arm, seed] - accuracies[other, seed] for seed in seeds])
    mean, error = differences.mean(), stats.sem(differences)
    low, high = mean + error * stats.t.ppf([0.025 / of, 1 - 0.025 / of], len(seeds) - 1)
    return f"{arm} - {other}", len(seeds), f"{mean:+.2f}", f"{low:+.2f} to {high:+.2f}"


def table(accuracies: Found, pairs: list[tuple[str, str]]) -> str:
    """Return accuracies of the arms, and the comparisons, of the seeds that all arms have."""
    arms = dict.fromkeys(arm for arm, _ in accuracies)
    whole = {seed for _, seed in accuracies if all((arm, seed) in accuracies for arm in arms)}
    of = {arm: [100 * a for (name, seed), a in accuracies.items() if name == arm and seed in whole] for arm in arms}
    shown = ((arm, len(a), f"{np.mean(a):.2f} ({min(a):.1f} to {max(a):.1f})") for arm, a in of.items() if a)
    known = {key: a for key, a in accuracies.items() if key[1] in whole}
    rows = (compared(known, *pair, len(pairs)) for pair in pairs if len(of.get(pair[0], ())) > 1)
    return tables(("arm | networks | accuracy, %", shown), ("compared | pairs | points | interval", rows))


def text(file: Path, pairs: list[tuple[str, str]]) -> str:
    """Return the tables of a record, at both sizes."""
    found = records(file, "arm", "seed")
    sizes = {key: {(row["arm"], int(row["seed"])): float(row[key]) for row in found} for key in ("at 16", "at 32")}
    return "\n".join(f"{key} pixels\n\n{table(values, pairs)}" for key, values in sizes.items())


def main(about: str, arms: dict[str, dict[str, Any]], pairs: list[tuple[str, str]], seeds: int, epochs: int) -> None:
    """Run the command line of a comparison of students."""
    options = command_line(
        *(about, arms),
        data=("data", "folder with CIFAR-10 [DEFAULT]"),
        images=(5000, "for training [DEFAULT]"),
        seeds=(list(range(seeds)), "DEFAULT"),
        epochs=(epochs, "of each student [DEFAULT]"),
    )
    dataset, file = images(options.data, options.images), options.out / "networks.csv"
    with tempfile.TemporaryDirectory() as folder:
        if any(settings.get("teacher") == "random" for settings in arms.values()):
            still = {"epochs": 1, "learning_rate": 1e-12, "validation_size": 0, "test": False, "seed": 1000}
            fit(make_config("hcnn-fast", still), dataset, out=f"{folder}/random")  # for its moments; its weights stay

        def one(arm: str, seed: int) -> list[Row]:
            settings = STUDENT | {"epochs": options.epochs} | arms[arm] | {"seed": seed}
            if settings.get("teacher") == "random":
                settings["teacher"] = f"{folder}/random"
            network = fit(make_config("hcnn-fast", settings), dataset, out=f"{folder}/{arm}-{seed}")
            assert network.checkpoint.state.epoch == options.epochs, "as many epochs as every other arm"
            return [{"arm": arm, "seed": seed} | {f"at {n}": accuracy_at(network, dataset, n) for n in (SIZE, 32)}]

        run(file, ("arm", "seed"), [(arm, seed) for seed in options.seeds for arm in options.arms], one)
    publish(options.out, text(file, pairs))


if __name__ == "__main__":
    main(__doc__ or "", ARMS, COMPARED, seeds=6, epochs=STUDENT["epochs"])
