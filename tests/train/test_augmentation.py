"""Standardisation, augmentation and batches: against loops, exact fractions, and one backend against another."""

from __future__ import annotations

import itertools
import statistics
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import array_api_strict
import numpy as np
import pytest
from scipy.stats import chi2

from hcnn_core.backend import get_namespace, to_numpy
from train.data import channel_statistics, resize, standardise, views
from train.data.augmentation import augment, draw_holes, hide
from train.recipes.augmentations import Affine, Position


def distinct_images(count: int, height: int, width: int, channels: int) -> np.ndarray[Any, Any]:
    """Images in which no value occurs twice, and none is zero."""
    size = count * height * width * channels
    return np.arange(1, size + 1, dtype=np.float64).reshape(count, height, width, channels)


def moved(image: np.ndarray[Any, Any], down: int, right: int, mirror: bool) -> np.ndarray[Any, Any]:
    """Mirror, then move, pixel by pixel."""
    height, width, _ = image.shape
    result = np.zeros_like(image)
    for row, column in np.ndindex(height, width):
        if 0 <= row - down < height and 0 <= column - right < width:
            source = column - right
            result[row, column] = image[row - down, width - 1 - source if mirror else source]
    return result


@pytest.mark.parametrize("max_shift", [0, 1, 3])
@pytest.mark.parametrize("flip", [False, True])
def test_augmented_image_is_a_mirrored_and_moved_one(max_shift: int, flip: bool) -> None:
    images = distinct_images(30, 6, 5, 3)
    before = images.copy()
    result = augment(images, np.random.default_rng(1), max_shift=max_shift, flip=flip)
    assert result.dtype == images.dtype
    np.testing.assert_array_equal(images, before)
    shifts = range(-max_shift, max_shift + 1)
    chosen = set()
    for image, got in zip(images, result, strict=True):
        ways = itertools.product(shifts, shifts, [False, True] if flip else [False])
        (way,) = (way for way in ways if np.array_equal(moved(image, *way), got))
        chosen.add(way)
    assert len(chosen) > 1 or (max_shift == 0 and not flip)


def test_shifts_and_mirrors_are_uniform_and_independent() -> None:
    max_shift, count, side = 2, 20_000, 9
    row, column = np.divmod(np.arange(side * side, dtype=np.float32), side)
    image = np.stack([row + 1, column + 1], axis=-1).reshape(1, side, side, 2)
    result = augment(np.repeat(image, count, 0), np.random.default_rng(2), max_shift=max_shift, flip=True)
    centre = side // 2
    down = centre + 1 - result[:, centre, centre, 0]
    mirror = result[:, centre, centre, 1] < result[:, centre, centre - 1, 1]
    right = np.where(mirror, -1, 1) * (centre + 1 - result[:, centre, centre, 1])
    cases, observed = np.unique(np.stack([down, right, mirror]), axis=1, return_counts=True)
    assert cases.shape[1] == 50
    expected = count / 50
    assert np.sum((observed - expected) ** 2 / expected) < chi2.isf(1e-6, 49)


def test_fill_is_zero_after_standardisation() -> None:
    images = np.full((200, 4, 4, 3), 200, dtype=np.uint8)
    batch = standardise(images, np.array([90.0, 100.0, 110.0]), np.array([60.0, 61.0, 62.0]), "float32")
    result = augment(batch, np.random.default_rng(3), max_shift=3, flip=True)
    filled = result == 0
    assert filled.any() and not filled.all()
    np.testing.assert_array_equal(result[~filled], np.broadcast_to(batch, result.shape)[~filled])


@pytest.mark.parametrize("side", [1, 2, 3, 5])
def test_cutout_hides_a_square_about_any_pixel(side: int) -> None:
    """Every pixel is the centre equally often; an even square has one row and column more before it."""
    count, height, width = 6000, 5, 6
    rows, columns = draw_holes(np.random.default_rng(8), (count, height, width, 2), side)
    images = distinct_images(count, height, width, 2)
    result = hide(images, rows, columns)
    assert ((result == images) | (result == 0)).all()
    hidden = (result == 0).all(axis=-1)
    np.testing.assert_array_equal(hidden, (result == 0).any(axis=-1))
    expected = np.zeros((height, width, height, width), bool)
    for row, column in np.ndindex(height, width):
        top, left = row - side // 2, column - side // 2
        expected[row, column, max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)] = True
    centre = np.array([np.flatnonzero((expected.reshape(-1, height, width) == one).all((1, 2)))[0] for one in hidden])
    observed, mean = np.bincount(centre, minlength=height * width), count / (height * width)
    assert np.sum((observed - mean) ** 2 / mean) < chi2.isf(1e-6, height * width - 1)


def test_array_api_hides_what_numpy_does() -> None:
    images, chosen = distinct_images(20, 5, 6, 2), draw_holes(np.random.default_rng(9), (20, 5, 6, 2), 3)
    result = hide(array_api_strict.asarray(images), *map(array_api_strict.asarray, chosen))
    np.testing.assert_array_equal(np.asarray(result), hide(images, *chosen), strict=True)


def augmented(xp: Any, dtype: str) -> Any:
    """A batch standardised and augmented by one backend."""
    images = np.random.default_rng(4).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
    mean, std = channel_statistics(images)
    batch = standardise(xp.asarray(images), mean, std, dtype)
    return augment(batch, np.random.default_rng(5), max_shift=6, flip=True)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_array_api_computes_what_numpy_does(dtype: str) -> None:
    result = augmented(array_api_strict, dtype)
    assert type(result).__module__.startswith("array_api_strict")
    np.testing.assert_array_equal(np.asarray(result), augmented(np, dtype), strict=True)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_cupy_computes_what_numpy_does(dtype: str) -> None:
    result = to_numpy(augmented(get_namespace("cupy"), dtype))
    expected = augmented(np, dtype)
    # One subtraction and one division each, of numbers below 256 in units of std > 1.
    eps = float(np.finfo(dtype).eps)
    np.testing.assert_allclose(result, expected, rtol=4 * eps, atol=256 * eps)
    np.testing.assert_array_equal(result == 0, expected == 0)


def test_statistics_are_exact() -> None:
    images = np.random.default_rng(6).integers(0, 256, (3, 5, 7, 3), dtype=np.uint8)
    mean, std = channel_statistics(images)
    for channel in range(3):
        pixels = [Fraction(int(pixel)) for pixel in images[..., channel].ravel()]
        assert mean[channel] == float(statistics.mean(pixels))
        assert std[channel] == np.sqrt(float(statistics.pvariance(pixels)))


def test_statistics_of_many_pixels_do_not_overflow() -> None:
    checks = np.array([0, 255], dtype=np.uint8).reshape(1, 2, 1, 1)
    images = np.broadcast_to(checks, (10_000, 2, 1024, 1))  # count * sum of squares = 1.4e19 > 2**63
    mean, std = channel_statistics(images)
    assert mean.tolist() == std.tolist() == [127.5]


@pytest.mark.parametrize("dtype", ["float32", "float64", np.float32, np.dtype("float64")])
@pytest.mark.parametrize("levels", [256, 2])
def test_standardised_is_minus_mean_over_std(dtype: Any, levels: int) -> None:
    images = np.random.default_rng(7).integers(0, levels, (4, 8, 8, 3), dtype=np.uint8)
    mean, std = channel_statistics(images)
    assert (std < 1).all() == (levels == 2)
    result = standardise(images, mean, std, dtype)
    assert result.dtype == np.dtype(dtype)
    exact = (images.astype(np.float64) - mean) / std
    # Rounded: the mean and the difference (below 255), the deviation and the quotient (relative).
    bound = np.finfo(result.dtype).eps * (255 / std + 2 * np.abs(exact))
    assert np.all(np.abs(result - exact) <= bound)


def test_resizing_takes_means_over_areas() -> None:
    images = np.random.default_rng(11).standard_normal((2, 6, 6, 3))
    halved = images.reshape(2, 3, 2, 3, 2, 3).mean((2, 4))
    np.testing.assert_allclose(resize(images, 3), halved, rtol=0, atol=1e-14)
    fine = np.repeat(np.repeat(images, 2, axis=1), 2, axis=2)  # a quarter of a pixel is a whole one here
    np.testing.assert_allclose(resize(images, 4), fine.reshape(2, 4, 3, 4, 3, 3).mean((2, 4)), rtol=0, atol=1e-14)
    np.testing.assert_allclose(resize(images, 12), fine, rtol=0, atol=1e-14)
    assert resize(images, 6) is images
    assert resize(images.astype(np.float32), 5).dtype == np.float32


def test_views_are_moved_and_mirrored() -> None:
    images = np.random.default_rng(12).standard_normal((2, 5, 4, 3))
    moved = {step: np.zeros_like(images) for step in (-1, 1)}
    moved[1][:, 1:, 1:], moved[-1][:, :-1, :-1] = images[:, :-1, :-1], images[:, 1:, 1:]
    flipped = images[:, :, ::-1]
    expected = [flipped, moved[-1], moved[-1][:, :, ::-1], moved[1], moved[1][:, :, ::-1]]
    for options, known in (
        ({}, expected),
        ({"flip": False}, [moved[-1], moved[1]]),
        ({"shift": 0}, [flipped]),
        ({"flip": False, "shift": 0}, []),
    ):
        for found, view in zip(views(images, **options), known, strict=True):  # type: ignore[arg-type]
            np.testing.assert_array_equal(found, view)


def test_one_image_in_six_is_mapped_in_each_way() -> None:
    """Rotations are orthogonal, shears leave one axis as it is, and zooms are multiples of the identity."""
    position = Position(np.arange(6000), (8, 8, 3), 0, 6000)

    def moved(**strengths: float) -> np.ndarray[Any, Any]:
        settings = SimpleNamespace(**{"rotate": 0.0, "shear": 0.0, "zoom": 0.0, "dtype": "float64", **strengths})
        matrices = Affine().draw(settings, np.random.default_rng(13), position)["affine"]
        found = matrices[np.any(matrices != np.eye(2), axis=(1, 2))]
        ways = 2 if "shear" in strengths else 1
        assert abs(len(found) - 1000 * ways) < 6 * np.sqrt(6000 * ways / 6 * (1 - ways / 6))
        return found

    rotated, sheared, zoomed = moved(rotate=0.5), moved(shear=0.4), moved(zoom=0.3)
    np.testing.assert_allclose(rotated @ rotated.swapaxes(1, 2), np.broadcast_to(np.eye(2), rotated.shape), atol=1e-15)
    np.testing.assert_array_equal(np.diagonal(sheared, axis1=1, axis2=2), 1)
    down, across = sheared[:, 0, 1], sheared[:, 1, 0]
    assert np.all((down == 0) != (across == 0)) and 0.35 < np.abs(down).max() <= 0.4 >= np.abs(across).max() > 0.35
    np.testing.assert_array_equal(zoomed, zoomed[:, :1, :1] * np.eye(2))
