"""What functions of `train` refuse: one line that says what was given. New ones add their rows here."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.train.commands import made_up
from tests.train.test_architecture import Add
from tests.train.test_axes import labelled
from tests.train.test_data import dataset
from tests.train.test_targets import CLASSES, ONE_HOT, arrays
from train.attributes.contraction import _pairs
from train.attributes.features import invariant_array
from train.attributes.nearest import nearest
from train.attributes.symmetry import translation_explains
from train.config import ConfigError, make_config
from train.data import DataError, channel_statistics, load_dataset, split_validation, standardise, train_subset
from train.data.augmentation import augment
from train.data.reading import dataset_from_arrays
from train.networks import hierarchical
from train.networks.layer import IMAGES
from train.networks.linear import linear_accuracy
from train.networks.network import Network
from train.networks.registry import build
from train.runs.calibration import tempered_loss

RNG = np.random.default_rng(0)
MADE_UP, LABELS, ROWS = made_up((8, 8, 3)), dataset([2, 1, 0, 1]), np.zeros((4, 2))


def masked(array: Any) -> Any:
    return np.ma.masked_array(array, array == 0)


def explained(axis: int = 1, elements: Any = (1,), phi: Callable[..., Any] = lambda x: x) -> Any:
    """Of circles, whose translations go along their one axis."""
    x = np.random.default_rng(2).standard_normal((200, 16))
    return translation_explains(phi, lambda s, x: np.roll(x, s, axis=1), x, elements=elements, axis=axis, rng=RNG)


SETTINGS: list[tuple[str, dict[str, Any], str]] = [
    ("hcnn", {"scattering": 5}, "scattering is 5; it must be between 0 and 4"),
    ("hcnn", {"scattering": 2, "image_sizes": (16, 18)}, "image_sizes has 18; with scattering = 2 choose larger"),
    (
        "hcnn",
        {"scattering": 4, "image_sizes": (16,)},
        "image_sizes has 16; with scattering = 4 choose larger",
    ),
    ("lenet", {"width": 8}, "width is 8, which is for architecture 'hcnn'; LeNet-5 has no such setting: leave it out"),
    ("lenet", {"boundary": "periodic"}, "boundary is 'periodic'"),
    ("lenet", {"scattering": 2}, "scattering is 2"),
    ("lenet", {"moment_images": 0}, "moment_images is 0"),
    ("lenet", {"architecture": "alexnet"}, "architecture is 'alexnet' .*; choose hcnn, lenet"),
    *(
        ("hcnn", {"dataset": name}, "choose cifar10, cifar100, sample, a file FILE")
        for name in ("mnist", "images.npy", "a:b:c", ":f", "a:", "a.:f", "1a:f", "")
    ),
]
"""Of a preset: some changes."""

FIELDS: list[tuple[dict[str, Any], str]] = [
    ({"train_images": np.zeros((4, 32, 32, 3), np.int64)}, "train_images is int64 of shape"),
    ({"train_images": np.zeros((4, 3, 32, 32), np.uint8)}, "training images are 3x32x32, test images 32x32x3"),
    ({"train_images": np.zeros((4, 32, 32, 3), np.float32)}, "training images are float32, test images uint8"),
    ({"test_images": np.zeros((2, 3072), np.uint8)}, r"test_images is uint8 of shape \(2, 3072\)"),
    ({"train_labels": np.zeros(3, np.int64)}, r"train_labels .* expected int64 of shape \(4,\)"),
    ({"train_labels": np.zeros((4, 1), np.int64)}, r"train_labels .* of shape \(4, 1\)"),
    ({"test_labels": np.zeros(2, np.int32)}, "test_labels is int32"),
    ({"train_labels": np.array([0, 1, 3, 2])}, r"train_labels lie in 0\.\.3; expected 0\.\.2"),
    ({"train_labels": [0, 1, 2, 2]}, r"train_labels is a list; expected an array"),
    ({"test_images": [[[[1]]]] * 2}, r"test_images is a list; expected an array"),
    ({"class_names": ("one",), "train_labels": np.zeros(4, np.int64)}, "expected two or more different strings"),
    ({"test_labels": np.array([0, -1])}, r"test_labels lie in -1\.\.0; expected 0\.\.2"),
    ({"class_names": ("a", "a")}, r"class_names is \('a', 'a'\); expected two or more different strings"),
    ({"class_names": (0, 1)}, r"class_names is \(0, 1\)"),
    ({"class_names": ()}, r"class_names is \(\)"),
    ({"test_images": np.zeros((0, 8, 8, 1), np.uint8), "test_labels": np.zeros(0, np.int64)}, r"at least one image"),
    ({"train_images": np.zeros((2, 1, 2**15 + 1, 1), np.uint8)}, r"of at most 32768 pixels a side"),
    ({"test_labels": masked(np.array([0, 1]))}, "test_labels: expected an array without a mask"),
]
"""Of a data set of three classes."""

ARRAYS: list[tuple[dict[str, Any], str]] = [
    (labelled(np.zeros((8, 9, 7))), r"float64 of shape \(8, 9, 7\); say with an array space_axes"),
    (labelled(np.zeros((8, 9, 7, 6))), r"are images of 6 channels \(2\) or volumes of one \(3\)"),
    (labelled(np.zeros((8, 9, 7)), space_axes=3), "space_axes is 3; expected 4 axes, or 5 with channels"),
    (labelled(np.zeros((8, 9)), space_axes=4), "space_axes is 4; give 1 for signals, 2 for images, 3 for volumes"),
    (labelled(np.zeros((8, 9), np.int64)), "int64 of shape .* expected uint8 or int16 or uint16 or float32 or float64"),
    (labelled(np.array([[0.0, 1.0], [np.nan, 2.0]] * 4)), r"train_images has nan at \(1, 0, 0\); give finite numbers"),
    (arrays(np.arange(12).reshape(6, 2)), "y_train holds 0 to 11; give yes/no labels as 0 and 1"),
    (arrays([[0.5, np.nan]] * 6), r"train_labels has nan at \(0, 1\); give finite numbers"),
    (arrays(np.arange(6) % 2, np.ones(6)), r"y_train and y_test are int64 .* and float64 .*; give both of one kind"),
    (arrays(np.ones((6, 2)), np.ones((6, 3))), "give both of one kind, with as many columns"),
    (arrays(np.ones((6, 2)), class_names=np.array(["a"])), "expected 2 different strings, a name for each column"),
    (arrays(np.array(["a"] * 6)), "expected integers from 0 .*, yes/no labels .*, or numbers, floats"),
    *(({**MADE_UP, key: masked(MADE_UP[key])}, f"mine: {key} has a mask") for key in ("x_train", "y_test")),
    *(
        (arrays(labels.astype(dtype)), r"one-hot: .* give --task classes .* or its argmax\(axis=1\)")
        for dtype in (np.int64, np.uint8, bool, np.float32)
        for labels in (ONE_HOT, ONE_HOT[:, :2][CLASSES < 2])
    ),
]
"""Of which a data set is to be made."""

VALUES: list[tuple[Callable[[], Any], str]] = [
    *(
        (
            lambda size=size: train_subset(LABELS, size),
            f"train size is {size}; toy has 4 training images, choose 1",
        )
        for size in (-1, 0, 5)
    ),
    *(
        (lambda n=n: split_validation(LABELS, n, seed=0), f"validation count is {n}; .* hold out 0 to 3")
        for n in (-1, 4)
    ),
    (lambda: load_dataset("mnist"), "'mnist'; choose cifar10, cifar100, sample, a file"),
    *(
        (
            lambda shift=shift: augment(np.ones((1, 6, 5, 3)), RNG, max_shift=shift, flip=True),
            f"max_shift is {shift}; images of 6x5 allow 0",
        )
        for shift in (-1, 5, 6)
    ),
    (lambda: channel_statistics(np.zeros((0, 32, 32, 3), np.uint8)), "no pixel"),
    (lambda: standardise(LABELS.train_images, np.zeros(3), np.array([1.0, 0.0, 1.0])), "must be positive"),
    (lambda: invariant_array(np.zeros((2, 5, 5, 4, 4)), "v_j", (0.5, 0.5)), "5 axes"),
    (lambda: invariant_array(np.zeros((2, 5, 5, 4, 4, 4)), "u1", (0.5, 0.5)), "'u1'; choose v_{j-1}"),
    (lambda: invariant_array(np.zeros((2, 5, 5, 4, 4, 4)), "v_j", (0.5, 1.0)), r"\(0.5, 1.0\)"),
    (lambda: nearest(np.zeros((2, 3)), np.zeros((2, 4)), 1), r"give \(Q, D\) and \(M, D\)"),
    (lambda: nearest(np.zeros((2, 3)), np.zeros((2, 3)), 3), "3 nearest of 2"),
    (lambda: nearest(np.zeros((2, 3)), np.full((2, 3), np.nan), 1), "not finite"),
    (lambda: nearest(np.full((2, 3), np.inf), np.zeros((2, 3)), 1), "not finite"),
    (lambda: _pairs(np.arange(3), True, 3, RNG), "one class"),
    (lambda: _pairs(np.ones(2, int), False, 3, RNG), "two class"),
    (lambda: explained(elements=[]), "elements is empty"),
    *((lambda axis=axis: explained(axis), f"axis {axis} is not an attribute") for axis in (0, 2, -2)),
    *(
        (lambda value=value: explained(phi=lambda x: np.full(x.shape, value)), "no variance to explain")
        for value in (0.0, 0.1, 1.0, 1e9 / 3)
    ),
    (
        lambda: linear_accuracy(ROWS, CLASSES[:4], np.zeros((4, 3)), CLASSES[:4]),
        r"shapes \(4, 2\) and \(4, 3\), l",
    ),
    (
        lambda: linear_accuracy(ROWS, CLASSES[:4], ROWS[:0], CLASSES[:0]),
        r"4 training and 0 test images, and ridge is",
    ),
    (lambda: tempered_loss(ROWS[:1], CLASSES[:1]), "at least two"),
    *(
        (lambda table=table: Network(make_config(), table, (1, 1, 1), 2), "layer a reads")
        for table in ([Add("a", "b"), Add("b", IMAGES)], [Add("a", IMAGES), Add("a", IMAGES)])
    ),
    (lambda: hierarchical.build(make_config("lenet")), "architecture is 'lenet', no hierarchical network"),
    (lambda: hierarchical.layers(make_config("lenet"), 32, 10), "architecture is 'lenet', no hierarchical network"),
    *(
        (
            lambda size=size: build(make_config("lenet"), size),
            "LeNet-5 takes sides of at least 32 pixels that are mult",
        )
        for size in (28, 34, (32, 30))
    ),
]

CASES: list[tuple[type[Exception], Callable[[], Any], str]] = [
    *(
        (ConfigError, lambda preset=preset, changes=changes: make_config(preset, changes), m)
        for preset, changes, m in SETTINGS
    ),
    *((DataError, lambda changes=changes: dataclasses.replace(LABELS, **changes), m) for changes, m in FIELDS),
    *((DataError, lambda given=given: dataset_from_arrays("mine", given), m) for given, m in ARRAYS),
    *((ValueError, *row) for row in VALUES),
    (TypeError, lambda: standardise(LABELS.train_images, np.zeros(3), np.ones(3), "int32"), "dtype is int32"),
    (dataclasses.FrozenInstanceError, lambda: setattr(LABELS, "name", "other"), "cannot assign"),
]


@pytest.mark.parametrize(("error", "call", "message"), CASES)
def test_wrong_arguments_are_refused_in_one_line(error: type[Exception], call: Callable[[], Any], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
