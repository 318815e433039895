"""Runs of version 0.1.0 before train had rooms: their checkpoints are read, and their training goes on.

``frozen/NAME`` holds a run's directory after one of two epochs, trained by the code of commit f56248c;
``frozen/expected/NAME.h5`` is the checkpoint after the second epoch, by the same code. The commands are in
``frozen/README.md``.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from train import load, resume
from train.runs import checkpoint as checkpoints
from train.runs.run import Run, versions

FROZEN = Path(__file__).parent / "frozen"
RUNS = sorted(path.parent.name for path in FROZEN.glob("*/config.toml"))

PER_STEP = 1024
"""Units of eps by which a step may differ with the order of sums, which depends on the processor; see
test_distributed.py."""


def raw(path: Path) -> dict[str, np.ndarray]:
    """Every array of a file by its name, read without the package."""
    found = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = np.asarray(item[()])

    with h5py.File(path) as file:
        file.visititems(visit)
    return found


def arrays_of(checkpoint: checkpoints.Checkpoint) -> dict[str, np.ndarray]:
    """Every array of a checkpoint by the name that its file has for it."""
    state = checkpoint.state
    trees = {"parameters": state.parameters, "moments": state.moments, "average": state.average}
    trees |= {f"optimizer/{name}": tree for name, tree in state.optimizer.items()}
    found = {
        f"{kind}/{layer}/{name}": np.asarray(array)
        for kind, tree in trees.items()
        for layer, arrays in tree.items()
        for name, array in arrays.items()
    }
    statistics = {"channel_mean": checkpoint.channel_mean, "channel_std": checkpoint.channel_std}
    return found | {f"data/{name}": a for name, a in statistics.items()} | {"epoch/order": state.order}


def same_bits(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> bool:
    return found.keys() == expected.keys() and all(
        (found[name].dtype, found[name].shape, found[name].tobytes()) == (a.dtype, a.shape, a.tobytes())
        for name, a in expected.items()
    )


def test_there_is_a_run_of_every_kind() -> None:
    assert RUNS == ["lenet", "muon", "plus", "released", "scattering", "sgd"]


@pytest.mark.parametrize("name", RUNS)
def test_checkpoints_are_read_bit_for_bit(name: str) -> None:
    path = FROZEN / name / "epoch0001-step000000.h5"
    expected, found = raw(path), arrays_of(checkpoints.load(path))
    assert same_bits(found, expected) and len(expected) > 15
    array = found[max(found, key=lambda key: found[key].size)]
    array.reshape(-1).view(np.uint8)[0] ^= 1  # negative control: one bit
    assert not same_bits(found, expected)


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n == "released")) for n in RUNS])
def test_training_goes_on_as_it_did(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FROZEN)  # the runs name their images in this folder
    shutil.copytree(FROZEN / name, tmp_path / "run")
    classifier = resume(tmp_path / "run")
    expected = checkpoints.load(FROZEN / "expected" / f"{name}.h5")
    found = classifier.checkpoint
    assert found.state.epoch == expected.state.epoch == 2
    assert found.state.generator == expected.state.generator
    ours, theirs = arrays_of(found), arrays_of(expected)
    bound = 3 * PER_STEP * float(np.finfo(expected.config.dtype).eps)
    for key, array in theirs.items():
        scale = max(float(np.abs(array).max(initial=0)), 1.0)
        assert float(np.abs(ours[key] - array).max(initial=0)) <= bound * scale, key
    start = arrays_of(checkpoints.load(FROZEN / name / "epoch0001-step000000.h5"))
    assert max(float(np.abs(start[key] - a).max()) for key, a in theirs.items() if key.startswith("parameters")) > bound


@pytest.mark.parametrize("name", RUNS)
def test_logits_are_what_they_were(name: str) -> None:
    classifier = load(FROZEN / "expected" / f"{name}.h5")
    with (
        np.load(FROZEN / "logits.npz") as logits,
        np.load(FROZEN / f"images{classifier.network.image_shape[0]}.npz") as x,
    ):
        found, expected = classifier.logits(x["x_test"]), logits[name]
    eps = float(np.finfo(classifier.checkpoint.config.dtype).eps)
    np.testing.assert_allclose(found, expected, rtol=0, atol=PER_STEP * eps * np.abs(expected).max())
    assert np.ptp(expected, axis=0).max() > 1e-3 * np.abs(expected).max()  # they tell images apart


def as_recorded(path: Path) -> tuple[list[dict[str, Any]], list[list[float]]]:
    """Records of metrics.jsonl without times, each with its numbers apart."""
    records = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    numbers = [[v for v in record.values() if isinstance(v, float)] for record in map(timeless, records)]
    return [timeless(record) for record in records], numbers


def timeless(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if not re.search("second", name)}


def test_a_run_of_a_folder_ends_as_it_would_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commit 46b3e9a1 stopped it in the third of four epochs; on its machine every bit is as by that commit.

    The recorded split, flips, shifts, dtype, weights of classes and score hold: best.h5 stays the first of two epochs
    with the same accuracy.
    """
    monkeypatch.chdir(tmp_path)
    with np.load(FROZEN / "images8.npz") as file:
        images = np.concatenate([file["x_train"], file["x_test"]])
    for k, image in enumerate([*images, *np.rot90(images, 2, (1, 2))]):
        (path := Path("pictures", f"{k % 3 % 2}", f"{k:02}.ppm")).parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"P6 8 8 255\n" + image.tobytes())
    run = Path(shutil.copytree(FROZEN / "folder" / "half", "run"))
    found = resume(run).checkpoint
    expected = checkpoints.load(FROZEN / "folder" / "end.h5")
    assert (found.config, found.state.best, found.data) == (expected.config, 0.75, expected.data)
    assert found.state.generator == expected.state.generator
    assert same_bits(raw(run / "best.h5"), raw(FROZEN / "folder" / "half" / "best.h5"))
    assert (run / "samples.json").read_bytes() == (FROZEN / "folder" / "half" / "samples.json").read_bytes()
    (records, numbers), (wanted, of_wanted) = map(as_recorded, (run / "metrics.jsonl", FROZEN / "folder" / "end.jsonl"))
    ours, theirs = arrays_of(found), arrays_of(expected)
    computed = "numpy", "scipy", "numba", "machine", "processor"
    if {name: Run(run).machine().get(name) for name in computed} == {n: versions("numpy")[n] for n in computed}:
        assert records == wanted and same_bits(ours, theirs)
    assert [[*record] for record in records] == [[*record] for record in wanted]
    for a, b in zip(numbers, of_wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3)
    for key, array in theirs.items():
        bound = 2 * PER_STEP * np.finfo(np.float32).eps * max(float(np.abs(array).max(initial=0)), 1.0)
        assert ours[key].dtype == array.dtype and float(np.abs(ours[key] - array).max(initial=0)) <= bound, key
