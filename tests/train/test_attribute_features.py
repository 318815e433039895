"""Invariant attribute arrays against plain loops, and the file that keeps them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.train.runs import finish, start
from train.attributes import features as module
from train.attributes.features import (
    V_AXES,
    Model,
    features,
    invariant_array,
    mean_array,
    smooth,
)
from train.config import make_config
from train.data import Dataset, channel_statistics
from train.networks.registry import build
from train.runs.run import RunError

rng = np.random.default_rng(0)


def random_model(dataset: Dataset) -> Model:
    """A random network of four layers, periodic."""
    config = make_config("sample", {"width": 4, "factors": 4, "depth": 5, "boundary": "periodic"})
    empty = Model(build(config), {}, {}, *channel_statistics(dataset.train_images), "")
    return empty.untrained(dataset.train_images, 0)


@pytest.fixture(scope="module")
def model(few_images: Dataset) -> Model:
    return random_model(few_images)


@pytest.mark.parametrize("axis", V_AXES)
def test_invariant_array_is_equation_9(axis: str) -> None:
    """The centre of an even number of pixels is the first of the second half."""
    x = rng.standard_normal((2, 4, 8, 3, 4, 7))
    found = invariant_array(x, axis, (0.5, 0.75))
    row, column = 2, 6
    for image in range(2):
        for a in range(3):
            for b in range(4):
                for c in range(7):
                    v_2 = sum(x[image, row, column, i, b, c] for i in range(3))
                    v_1 = sum(x[image, row, column, a, i, c] for i in range(4))
                    where: dict[str, Any] = {
                        "v_{j-1}": ((image, b, c), v_2),
                        "v_{j-2}": ((image, a, c), v_1),
                        "v_j": ((image, c, b), v_2),
                    }
                    index, expected = where[axis]
                    assert found[index] == pytest.approx(expected)


@pytest.mark.parametrize("width", [1, 2, 3, 9])
@pytest.mark.parametrize("boundary", ["periodic", "zero"])
def test_smoothing_is_a_running_mean(width: int, boundary: Any) -> None:
    arrays = rng.standard_normal((2, 5, 3))
    found = smooth(arrays, width, boundary)
    for i in range(5):
        taken = [i - (t - width // 2) for t in range(width)]
        terms = [arrays[:, k % 5] for k in taken if boundary == "periodic" or 0 <= k < 5]
        assert np.allclose(found[:, i], sum(terms, np.zeros((2, 3))) / width)


def test_features_are_those_of_the_network(model: Model, few_images: Dataset, tmp_path: Path) -> None:
    done: list[int] = []
    found = features(model, few_images, tmp_path, axis="v_{j-1}", position=(0.5, 0.5), progress=done.append)
    assert sum(done) == 70
    for part, images in (("train", few_images.train_images), ("test", few_images.test_images)):
        assert np.allclose(found.means(part, 0), model.standardised(images).mean(axis=(1, 2)), atol=1e-6)
        for layer, x in model.outputs(images):
            assert np.allclose(found.means(part, layer.j), mean_array(x), rtol=1e-5, atol=1e-6)
            if layer.j >= 3:
                assert np.allclose(found.arrays(part, layer.j), invariant_array(x), rtol=1e-5, atol=1e-6)
                assert found.arrays(part, layer.j).shape == (len(images), *layer.outputs[3:])


def test_features_are_computed_once(model: Model, few_images: Dataset, tmp_path: Path, monkeypatch: Any) -> None:
    options: dict[str, Any] = {"axis": "v_{j-1}", "position": (0.5, 0.5)}
    calls: list[int] = []
    write = module._write
    monkeypatch.setattr(module, "_write", lambda *args: (calls.append(1), write(*args)))
    first = features(model, few_images, tmp_path, **options)
    assert features(model, few_images, tmp_path, **options).path == first.path and len(calls) == 1
    others = [
        features(model, few_images, tmp_path, axis="v_j", position=(0.5, 0.5)),
        features(model, few_images, tmp_path, axis="v_{j-1}", position=(0.25, 0.5)),
        features(dataclasses.replace(model, key="other weights"), few_images, tmp_path, **options),
        features(model, dataclasses.replace(few_images, test_images=few_images.test_images[::-1]), tmp_path, **options),
    ]
    assert len({f.path for f in (first, *others)}) == 5 == len(calls)
    first.path.write_bytes(first.path.read_bytes()[:1000])  # cut off: made again
    features(model, few_images, tmp_path, **options).arrays("test", 4)
    assert len(calls) == 6


def test_untrained_networks_that_standardise_otherwise_are_told_apart(model: Model, few_images: Dataset) -> None:
    images = few_images.train_images[:2]
    others = [dataclasses.replace(model, **{name: 2 * getattr(model, name)}) for name in ("mean", "std")]
    same, *keys = (m.untrained(images, 0).key for m in (model, *others))
    assert same == model.key and len({same, *keys}) == 3


def test_damage_is_noticed(model: Model, few_images: Dataset, tmp_path: Path) -> None:
    found = features(model, few_images, tmp_path, axis="v_{j-1}", position=(0.5, 0.5))
    data = bytearray(found.path.read_bytes())
    at = data.find(found.arrays("train", 3)[0].tobytes())
    data[at] ^= 255
    found.path.write_bytes(bytes(data))
    with pytest.raises(RunError, match="damaged; remove the file"):
        found.arrays("train", 3)


FULL_DISK = """
import dataclasses, resource, signal, sys
from pathlib import Path
from tests.train.test_attribute_features import features, random_model
from train.runs.run import RunError
from train.data import load_dataset

images = load_dataset("sample")
names = [f"{part}_{kind}" for part in ("train", "test") for kind in ("images", "labels")]
images = dataclasses.replace(images, **{name: getattr(images, name)[:100] for name in names})
model = random_model(images)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
for limit in (0, 5000, 40_000):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        features(model, images, Path(sys.argv[1]), axis="v_{j-1}", position=(0.5, 0.5))
    except RunError as error:
        print(error)
"""


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    outcome = finish(start("-c", FULL_DISK, tmp_path))
    assert (outcome.status, outcome.err) == (0, "")
    lines = outcome.out.splitlines()
    assert len(lines) == 3 and all(line.startswith("cannot write the features ") for line in lines)
    assert list(tmp_path.iterdir()) == []
