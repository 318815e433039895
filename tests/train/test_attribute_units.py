"""Filters as pictures, receptive fields against gradients, and ascent that climbs."""

from __future__ import annotations

import numpy as np
import pytest

from autodiff import vjp
from tests.train.test_attribute_features import random_model
from train.attributes.features import Model, invariant_array
from train.attributes.units import attribute_filters, first_filters, maximise, patch_of, receptive_field
from train.config import make_config
from train.data import Dataset
from train.networks.hierarchical import hierarchy, layers, name_of


@pytest.fixture(scope="module")
def model(few_images: Dataset) -> Model:
    return random_model(few_images)


def test_first_filters_correlate_with_images(model: Model, few_images: Dataset) -> None:
    """The picture of a filter excites it more than any other picture of its size and scale."""
    filters = first_filters(model)
    assert filters.shape == (4, 3, 3, 3)
    assert np.allclose(np.abs(2 * filters - 1).max(axis=(1, 2, 3)), 1)
    w = model.network.merged(model.parameters, model.moments)["layer01"]
    for k in range(4):
        x = np.zeros((1, 32, 32, 3), np.float32)
        x[0, 15:18, 15:18] = 2 * filters[k] - 1
        ((_, y),) = [
            (la, y) for la, y, _ in model.network.trace(model.parameters, x, model.moments) if la.name == "layer01"
        ]
        at_centre = y[0, 16, 16, k]
        size = np.abs(w["w"][..., k]).max()
        expected = (w["w"][..., k].astype(float) ** 2).sum() / size  # sum of w times its own scaled copy
        assert at_centre == pytest.approx(expected, rel=1e-4)


def test_attribute_filters_are_the_central_taps(model: Model) -> None:
    w = model.network.merged(model.parameters, model.moments)["layer04"]["w"]
    found = attribute_filters(model, 4)
    assert found.shape == (10, 7, 11)
    assert np.allclose(found[3], w[1, 1, :, :, 3])


def test_receptive_fields() -> None:
    table = layers(make_config("hcnn", {"strided_layers": (2,)}), 32, 10)
    assert [receptive_field(table, j) for j in (1, 2, 3)] == [(3, 1), (5, 2), (9, 2)]
    image = np.zeros((32, 32, 3))
    assert patch_of(image, table, 3, (0.5, 0.5)).shape == (9, 9, 3)
    assert patch_of(image, table, 3, (0.0, 0.5)).shape == (5, 9, 3)
    assert patch_of(image, table, 11, (0.5, 0.5)).shape == (32, 32, 3)


def test_a_unit_sees_its_receptive_field_alone(model: Model, few_images: Dataset) -> None:
    x = model.standardised(few_images.train_images[:1])
    j = 4

    def unit(x: np.ndarray) -> np.ndarray:
        return next(y for la, y, _ in model.network.trace(model.parameters, x, model.moments) if la.name == name_of(j))

    y, pull = vjp(unit, x)
    at = np.zeros_like(y)
    at[:, y.shape[1] // 2, y.shape[2] // 2] = 1
    seen = np.argwhere(np.abs(pull(at)[0][0]).sum(axis=-1) > 0)
    size, step = receptive_field(hierarchy(model.network), j)
    centre = y.shape[1] // 2 * step
    assert (
        seen.min(axis=0).tolist() == [centre - size // 2] * 2 and seen.max(axis=0).tolist() == [centre + size // 2] * 2
    )


def test_ascent_climbs(model: Model, few_images: Dataset) -> None:
    units = [(0, 1), (1, 2)]
    images = few_images.train_images
    made, activations = maximise(model, 3, units, images, steps=64, rng=np.random.default_rng(0))
    assert made.shape == (2, 32, 32, 3) and made.dtype == np.uint8
    (x,) = (x for layer, x in model.outputs(made) if layer.j == 3)
    arrays = invariant_array(x)
    assert np.allclose([arrays[i, b, k] for i, (b, k) in enumerate(units)], activations[1], rtol=0.05, atol=0.05)
    (of_training,) = (invariant_array(x) for layer, x in model.outputs(images) if layer.j == 3)
    for index, (b, k) in enumerate(units):
        assert activations[1, index] > activations[0, index]
        assert activations[1, index] > of_training[:, b, k].max()
    again, _ = maximise(model, 3, units, images, steps=64, rng=np.random.default_rng(0))
    assert np.array_equal(again, made)


def test_images_are_smooth(model: Model, few_images: Dataset) -> None:
    """The parametrisation keeps high frequencies small, where ascent on pixels makes noise."""
    made, _ = maximise(model, 3, [(0, 1)], few_images.train_images, steps=64, rng=np.random.default_rng(0))
    power = np.abs(np.fft.fft2(made[0].mean(axis=-1) - made[0].mean())) ** 2
    radius = np.hypot(*np.meshgrid(np.fft.fftfreq(32), np.fft.fftfreq(32)))
    assert power[radius > 0.35].sum() < 0.2 * power.sum()
