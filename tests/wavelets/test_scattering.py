"""Scattering against Kymatio's, against its definition, and what the theory says of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autodiff import check_grads
from hcnn_core.testing import assert_translation_covariant
from tests.core.oracle import C, eps, noise
from wavelets import FilterBank, morlet_bank, scattering, scattering_paths, wavelet_transform


@pytest.mark.parametrize(
    ("shape", "scales", "angles", "order"),
    [
        ((32, 32), 2, 8, 2),
        ((32, 32), 3, 4, 2),
        ((16, 16), 1, 6, 2),
        ((32, 32), 2, 4, 1),
        ((28, 28), 3, 4, 2),
        ((29, 18), 2, 3, 2),
        ((9, 15), 3, 2, 2),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values_are_kymatios_on_the_same_filters(
    shape: tuple[int, int], scales: int, angles: int, order: int, dtype: str
) -> None:
    """Kymatio's NumPy frontend alone: its package cannot be imported as a whole with SciPy 1.17."""
    kymatio = pytest.importorskip("kymatio.scattering2d.frontend.numpy_frontend")
    theirs = kymatio.ScatteringNumPy2D(J=scales, L=angles, shape=shape, max_order=order)
    padded = tuple((n // 2**scales + 2) * 2**scales for n in shape)
    psi = np.array([f["levels"][0] for f in theirs.psi]).reshape(scales, angles, *padded)
    bank = FilterBank(theirs.phi["levels"][0].astype(dtype), psi.astype(dtype))
    x = noise(0, (3, *shape), dtype)
    found = scattering(x, bank, (1, 2), order=order, boundary="reflect")
    expected = np.moveaxis(theirs(x), -3, -1)
    assert found.shape == expected.shape and found.dtype == dtype
    assert np.abs(found - expected).max() <= C * eps(dtype) * np.linalg.norm(x[0])


@pytest.mark.parametrize("length", [16, 17, 18, 19])
def test_coefficients_stand_where_the_docstring_says(length: int) -> None:
    """Without subsampling the first and last coefficients are those of the samples in the middle."""
    bank = morlet_bank((24,), 2)
    start = (length - 16 + 1) // 2
    for position in (start, start + 15):
        x = np.zeros(length)
        x[position] = 1
        low = scattering(x, bank, 0, order=0, oversampling=2, boundary="reflect")
        assert low.shape == (16, 1) and low[:, 0].argmax() == position - start


@pytest.mark.parametrize(("shape", "axes"), [((16, 8), (1, 2)), ((8, 16), (2, 1)), ((16,), 1)])
@pytest.mark.parametrize("order", [0, 1, 2])
def test_without_subsampling_it_is_the_definition(shape: tuple[int, ...], axes: Any, order: int) -> None:
    x, bank = noise(1, (2, 16, 8, 3), "float64"), morlet_bank(shape, 3, 3)
    found = scattering(x, bank, axes, order=order, oversampling=3)
    paths = scattering_paths(bank, order)
    assert found.shape == (*x.shape, len(paths)) and len(set(paths)) == len(paths)
    for path, values in zip(paths, np.moveaxis(found, -1, 0), strict=True):
        u = x
        for j, k in path:
            u = np.abs(wavelet_transform(u, bank, axes)[1][..., j, k])
        assert np.abs(values - wavelet_transform(u, bank, axes)[0]).max() <= C * eps("float64") * np.linalg.norm(x)


@pytest.mark.parametrize("oversampling", [0, 1, 2])
def test_subsampling_aliases_little(oversampling: int) -> None:
    """The moduli are not band-limited, so subsampled values are near, but not equal to every n-th of the others."""
    x, bank = noise(2, (16, 16), "float64"), morlet_bank((16, 16), 2, 4)
    whole, found = (scattering(x, bank, oversampling=n) for n in (2, oversampling))
    assert np.array_equal(scattering(x, bank, oversampling=np.uint8(oversampling)), found)
    step = 2 ** max(2 - oversampling, 0)
    assert found.shape[:2] == (16 // step, 16 // step)
    difference = np.linalg.norm(found - whole[::step, ::step]) / np.linalg.norm(whole[::step, ::step])
    assert difference == 0 if oversampling == 2 else difference < 0.1


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 1e-3, 1.0]))
def test_a_tight_bank_makes_it_non_expansive(seed: int, distance: float) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((16, 16))
    y = x + distance * rng.standard_normal((16, 16))
    bank = morlet_bank((16, 16), 2, 4, tight=True)
    apart = np.linalg.norm(scattering(x, bank, oversampling=2) - scattering(y, bank, oversampling=2))
    assert apart <= np.linalg.norm(x - y) * (1 + C * eps("float64"))


def test_the_norm_is_that_of_the_orders_and_of_what_is_left() -> None:
    """abs(x)^2 = abs(S_0 x)^2 + abs(U_1 x)^2, and the same of U_1 x with all second wavelets."""
    x, bank = noise(4, (16, 16), "float64"), morlet_bank((16, 16), 2, 4, tight=True)
    first, moduli = wavelet_transform(x, bank)
    energy = (first**2).sum()
    second, left = wavelet_transform(np.abs(moduli), bank, (0, 1))
    energy += (second**2).sum() + (np.abs(left) ** 2).sum()
    assert energy == pytest.approx((x**2).sum(), rel=1e-12)
    orders = scattering(x, bank, oversampling=2, order=1)
    assert (orders**2).sum() == pytest.approx((first**2).sum() + (second**2).sum(), rel=1e-12)


@pytest.mark.parametrize(("oversampling", "stride"), [(0, 4), (1, 2), (2, 1)])
def test_it_is_covariant_to_translations_by_its_stride(oversampling: int, stride: int) -> None:
    bank = morlet_bank((16, 16), 2, 3)
    assert_translation_covariant(
        lambda x: scattering(x, bank, (1, 2), oversampling=oversampling),
        noise(5, (2, 16, 16), "float64"),
        in_axes=(1, 2),
        shift=(stride, -2 * stride),
        stride=(stride, stride),
    )


def test_many_images_are_the_same_as_one_by_one() -> None:
    """They go by several threads, in parts."""
    x, bank = noise(6, (97, 16, 2, 16), "float32"), morlet_bank((16, 16), 2, 8)
    found = scattering(x, bank, (1, 3))
    assert np.array_equal(found[50], scattering(x[50], bank, (0, 2)))


@pytest.mark.parametrize("order", [0, 1, 2])
def test_no_images_have_no_coefficients(order: int) -> None:
    bank = morlet_bank((8, 8), 2, 3)
    assert scattering(np.zeros((0, 8, 8)), bank, (1, 2), order=order).shape == (
        0,
        2,
        2,
        len(scattering_paths(bank, order)),
    )


@pytest.mark.parametrize(("boundary", "shape"), [("periodic", (8, 8)), ("reflect", (12, 12))])
def test_derivatives(boundary: str, shape: tuple[int, int]) -> None:
    bank = morlet_bank(shape, 1, 2)
    check_grads(lambda x: scattering(x, bank, (0, 2), boundary=boundary), 1)(noise(7, (8, 2, 8), "float64"))


@pytest.mark.parametrize("length", [4, 8])
def test_a_mirrored_array_is_numpys(length: int) -> None:
    x = noise(8, (2, length, 8), "float64")
    bank = morlet_bank((length + 4, 12), 1, 2)
    mirrored = np.pad(x, ((0, 0), (2, 2), (2, 2)), mode="reflect")
    inner = scattering(mirrored, bank, (1, 2))[:, 1:-1, 1:-1]
    assert np.array_equal(scattering(x, bank, (1, 2), boundary="reflect"), inner)
