"""A scattering transform before the first layer: its values, runs with it, and what refuses it."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from autodiff import check_grads, cross_entropy
from tests.core.oracle import noise
from tests.train.commands import Command
from train import load
from train.config import make_config
from train.networks.hierarchical import layers
from train.networks.layer import Signal
from train.networks.registry import build
from train.networks.scattering import ScatteringLayer, scattering_channels
from wavelets import morlet_bank, scattering, scattering_paths


def stage(x: np.ndarray, scales: int, boundary: str) -> np.ndarray:
    """What the layer makes of images of one size."""
    layer = ScatteringLayer(scales, x.shape[1:], boundary, str(x.dtype))
    return np.asarray(layer({}, [Signal(x)])[0].x)


TINY = {"scattering": 1, "depth": 4, "width": 3, "factors": 2, "strided_layers": (), "dtype": "float64"}
RUN = ("--preset", "sample", "--scattering", 2, "--depth", 4, "--width", 3, "--factors", 2, "--validation-size", 10)


@pytest.mark.parametrize("scales", range(4))
def test_channels_are_paths_times_colours(scales: int) -> None:
    paths = len(scattering_paths(morlet_bank((16, 16), scales))) if scales else 1
    assert scattering_channels(scales) == 3 * paths
    (first, *_) = layers(make_config("hcnn", {"scattering": scales}), 32, 10)
    assert first.inputs == (32 // 2**scales, 32 // 2**scales, 3 * paths)


@pytest.mark.parametrize(("boundary", "size"), [("zero", 12), ("periodic", 8)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_stage_standardises_scattering_coefficients(boundary: str, size: int, dtype: str) -> None:
    x = noise(0, (2, 8, 8, 3), dtype)
    y = stage(x, 1, boundary)
    assert y.shape == (2, 4, 4, 27) and y.dtype == dtype
    bank = morlet_bank((size, size), 1, dtype=dtype)
    plain = scattering(x, bank, (1, 2), boundary="reflect" if boundary == "zero" else "periodic")
    for colour in range(3):
        for path in range(9):
            found, given = y[..., 9 * colour + path].ravel(), plain[..., colour, path].ravel()
            slope = np.polyfit(given, found, 1)
            assert slope[0] > 0 and np.abs(np.polyval(slope, given) - found).max() < 1e-3 * np.abs(found).max()


def test_coefficients_of_images_like_photographs_are_standardised() -> None:
    """On Gaussian images that the constants were not made of, with power over the square of the frequency."""
    n, rng = 32, np.random.default_rng(1)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(n), np.fft.fftfreq(n)))
    amplitude = np.where(frequency > 0, 1 / np.maximum(frequency, 1 / n), 0)
    x = np.fft.ifft2(np.fft.fft2(rng.standard_normal((60, n, n))) * amplitude).real[..., None]
    y = stage(x / x.std(), 2, "periodic")
    assert np.abs(y.mean((0, 1, 2))).max() < 0.4
    assert y.std((0, 1, 2)).min() > 0.7 and y.std((0, 1, 2)).max() < 1.4


@pytest.mark.parametrize("boundary", ["zero", "periodic"])
def test_a_network_filters_what_the_stage_makes(boundary: str) -> None:
    network = build(make_config("hcnn", {**TINY, "boundary": boundary}), image_size=8, classes=3)
    parameters = network.initialize(np.random.default_rng(0))
    x, labels = noise(1, (4, 8, 8, 3), "float64"), np.arange(4) % 3
    logits, moments = network(parameters, x)
    assert np.array_equal(network(parameters, {"scattering": stage(x, 1, boundary)})[0], logits)
    assert parameters["layer01"]["w"].shape == (27, 3, 3, 3) and "layer03" in moments
    check_grads(lambda p: cross_entropy(network(p, x)[0], labels), 1)(parameters)
    assert network(parameters, noise(2, (2, 12, 12, 3), "float64"))[0].shape == (2, 3)  # other sizes of images too


class OnDevice:
    """What is needed of a CuPy array, without a GPU: NumPy cannot convert it."""

    __module__ = "cupy"

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def get(self) -> np.ndarray:
        return self.values

    def __array__(self, *args: object, **kwargs: object) -> np.ndarray:
        raise TypeError("implicit conversion to a NumPy array is not allowed")


def test_a_stage_that_was_on_a_gpu_takes_images_on_the_host() -> None:
    x = noise(0, (2, 8, 8, 3), "float64")
    layer = ScatteringLayer(1, (8, 8, 3), "periodic", "float64")
    (expected, _), _ = layer({}, [Signal(x)])
    (stage,) = layer._stages.values()
    stage._mean, stage._scale = OnDevice(stage._mean), OnDevice(stage._scale)
    stage._bank = copy.copy(stage._bank)
    for name in ("phi", "psi"):
        object.__setattr__(stage._bank, name, OnDevice(getattr(stage._bank, name)))
    assert np.array_equal(stage(x), expected)


def test_a_run_resumes_exactly_and_is_loaded(command: Command, tmp_path: Path) -> None:
    whole, part = tmp_path / "whole", tmp_path / "part"
    command(*RUN, "--epochs", 2, "--out", whole).success()
    part.mkdir()
    for name in ("config.toml", "metrics.jsonl", "epoch0001-step000000.h5"):
        shutil.copy(whole / name, part)
    command("--resume", part).success()
    last = "epoch0002-step000000.h5"
    with h5py.File(whole / last) as one, h5py.File(part / last) as other:
        assert np.array_equal(one["parameters/layer01/w"][()], other["parameters/layer01/w"][()])
        assert one["parameters/layer01/w"].shape == (243, 3, 3, 3)
    network = load(whole / last)
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    assert network.network.image_shape == (32, 32, 3) and network.logits(images).shape == (3, 10)
    exported = command("export", whole / "best.h5", tmp_path / "net.safetensors")
    exported.one_line(1, "this network filters scattering coefficients", "export .h5")
    assert not (tmp_path / "net.safetensors").exists()
