r"""
Scattering: what it keeps, and what a warp does to it
=====================================================

A scattering transform cascades wavelets and moduli, and averages: :func:`wavelets.scattering`. We check that it does
not expand distances, that its orders share the norm, and that it changes in proportion to a small deformation:

.. math:: \|S D_\tau x - S x\| \le C \, \|\nabla \tau\|_\infty \, \|x\|, \qquad D_\tau x(u) = x(u - \tau(u))

Sources: S. Mallat, Multiscale Sparse Models in Deep Convolutional Networks, slide 22; E. Oyallon, Organising Deep
Networks, slides 8 to 11; `arXiv:1101.2286 <https://arxiv.org/abs/1101.2286>`_.
"""

import os

import matplotlib.pyplot as plt
import numpy as np
from scipy import ndimage
from skimage import data

from wavelets import littlewood_paley, morlet_bank, random_warp, scattering, scattering_paths, wavelet_transform

SMALL = os.environ.get("HCNN_EXAMPLES") == "small"
n, scales = (64, 3) if SMALL else (128, 4)

# %%
# Filters
# -------
# Morlet wavelets leave some frequencies weak. Divided by the root of their Littlewood-Paley sum they are *tight*: the
# wavelet transform of a real image then preserves its norm, and scattering is non-expansive.

bank = morlet_bank((n, n), scales, tight=True)
plain = littlewood_paley(morlet_bank((n, n), scales))
print(f"Littlewood-Paley sum: {plain.min():.2f} to {plain.max():.2f}, of tight filters 1")
assert np.allclose(littlewood_paley(bank), 1, rtol=0, atol=1e-12)

image = ndimage.zoom(data.camera().astype(float), n / 512, order=1, grid_mode=True, mode="reflect")
x = (image - image.mean()) / image.std()
coefficients = scattering(x, bank)  # (n / 2^J, n / 2^J, paths)

fig, axes = plt.subplots(1, 4, figsize=(12, 3.2), layout="constrained")
wavelet = np.fft.fftshift(np.fft.ifft2(bank.psi[1, 0]))[n // 2 - 12 : n // 2 + 12, n // 2 - 12 : n // 2 + 12]
axes[0].imshow(wavelet.real, cmap="RdBu", vmin=-abs(wavelet).max(), vmax=abs(wavelet).max())
axes[1].imshow(np.fft.fftshift(plain), cmap="gray")
axes[2].imshow(x, cmap="gray")
first = np.concatenate([np.concatenate(list(np.moveaxis(coefficients[..., a : a + 4], -1, 0)), 1) for a in (1, 5)])
axes[3].imshow(first, cmap="gray")
for ax, title in zip(
    axes, ("a wavelet, real part", "Littlewood-Paley sum, not tight", "image", "first order, 8 angles"), strict=True
):
    ax.set(title=title, xticks=[], yticks=[])

# %%
# The norm
# --------
# With tight filters the norm of an image is that of its average and its wavelet moduli, and so on for each modulus. So
# orders 0 to 2 hold most of it. What is missing are third moduli, and second ones of no larger scale, which
# :func:`~wavelets.scattering` leaves out.

low, high = wavelet_transform(x, bank)
assert np.isclose((low**2).sum() + (np.abs(high) ** 2).sum(), (x**2).sum(), rtol=1e-12)
whole = scattering(x, bank, oversampling=scales)  # no subsampling: nothing aliases
order = np.array([len(path) for path in scattering_paths(bank)])
shares = [(whole[..., order == m] ** 2).sum() / (x**2).sum() for m in range(3)]
print("share of the squared norm in orders 0, 1, 2:", ", ".join(f"{share:.1%}" for share in shares))
assert 0.8 < sum(shares) <= 1

# %%
# Distances do not grow
# ---------------------
# Any two images: here the photograph, noise, and sums of both.

rng = np.random.default_rng(0)
for distance in (1e-3, 0.1, 1.0, 10.0):
    y = x + distance * rng.standard_normal(x.shape)
    ratio = np.linalg.norm(whole - scattering(y, bank, oversampling=scales)) / np.linalg.norm(x - y)
    print(f"noise of deviation {distance:<5}: |Sx - Sy| / |x - y| = {ratio:.3f}")
    assert ratio <= 1

# %%
# Deformations
# ------------
# Random smooth warps, from weak to strong. We compare the scattering transform with the image itself and with the
# modulus of its Fourier transform. That modulus does not see translations at all, but warps move high frequencies far.

warps, sizes = [random_warp(n, n / 12, rng) for _ in range(3)], np.geomspace(0.005, 0.3, 8)
transforms = {
    "image": lambda x: x,
    "Fourier modulus": lambda x: np.abs(np.fft.fft2(x, norm="ortho")),
    "scattering": lambda x: 2**scales * scattering(x, bank),  # each coefficient stands for 2^J pixels along each axis
}
changes = {name: [] for name in transforms}
for size in sizes:
    warped = [ndimage.map_coordinates(x, np.indices((n, n)) - size * tau, order=3, mode="grid-wrap") for tau in warps]
    for name, transform in transforms.items():
        changes[name].append(max(np.linalg.norm(transform(y) - transform(x)) for y in warped) / np.linalg.norm(x))

fig, ax = plt.subplots(figsize=(6, 4), layout="constrained")
for name, values in changes.items():
    ax.loglog(sizes, values, "o-", label=name)
ax.set(xlabel="largest gradient of the warp", ylabel="change, relative to the image's norm", title="Stability to warps")
ax.legend()

constants = {name: np.max(values / sizes) for name, values in changes.items()}
print("largest change / gradient:", ", ".join(f"{name} {c:.2f}" for name, c in constants.items()))
slope = np.polyfit(np.log(sizes[:5]), np.log(changes["scattering"][:5]), 1)[0]
print(f"slope of scattering for weak warps: {slope:.2f}; 1 in the theorem")
assert constants["scattering"] < constants["Fourier modulus"]
assert constants["scattering"] < 0.5 * constants["image"]
assert 0.8 < slope < 1.2

# %%
# The constant is the largest of these few warps of one image, so it is a lower bound of the C in the theorem. The
# theorem is about the limit of large scales 2^J. At this finite scale its bound has a further term, in proportion to
# the displacement over 2^J.
# The functions take CuPy arrays as well; this page ran on NumPy's. Values equal to Kymatio's on the same filters are a
# test of the package, not of this page. What scattering does for a classifier is in
# :ref:`sphx_glr_gallery_2_theory_plot_21_linear_classifier.py`.
