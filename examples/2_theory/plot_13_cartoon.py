r"""
How fast approximations of a cartoon improve
============================================

The n largest coefficients of a cartoon, smooth regions with smooth edges, leave a squared error that falls like
:math:`n^{-1/2}` in the Fourier basis and like :math:`n^{-1}` in a wavelet basis (:func:`wavelets.dwt`). We fit both
slopes, and remove noise by thresholds.

Source: J. Tanner, Theories of Deep Learning, lecture 11: the theorem of Candes and Donoho, and the formulas of
:math:`\sigma_{hard}` and :math:`\sigma_{soft}`, whose signs for :math:`x < -\tau` are misprinted there.
"""

import os
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
from skimage.metrics import peak_signal_noise_ratio

from wavelets import dwt, hard_threshold, idwt, soft_threshold

SMALL = os.environ.get("HCNN_EXAMPLES") == "small"
n = 256 if SMALL else 1024
levels = int(np.log2(n)) - 2

# %%
# A cartoon
# ---------
# The boundary is a smooth curve; inside and outside the image is smooth and periodic. Pixels are means of 16 samples.

u = (np.arange(4 * n) + 0.5) / (4 * n)
x, y = np.meshgrid(u, u, indexing="ij")
radius, angle = np.hypot(x - 0.5, y - 0.5), np.arctan2(y - 0.5, x - 0.5)
inside = radius < 0.28 + 0.06 * np.cos(3 * angle)
cartoon = np.cos(2 * np.pi * x) * 0.3 + inside * (1 + 0.5 * np.sin(2 * np.pi * y))
cartoon = cartoon.reshape(n, 4, n, 4).mean(axis=(1, 3))

# %%
# Errors of the best n terms
# --------------------------
# In an orthonormal basis the norm is kept, and the squared error is the sum of the squares that are left out.

bases = {
    "Fourier": np.abs(np.fft.fft2(cartoon, norm="ortho")).ravel(),
    "Haar": np.concatenate([c.ravel() for c in dwt(cartoon, levels, moments=1)]),
    "Daubechies, 3 moments": np.concatenate([c.ravel() for c in dwt(cartoon, levels, moments=3)]),
}
for name, coefficients in bases.items():
    assert np.isclose((coefficients**2).sum(), (cartoon**2).sum(), rtol=1e-9), f"{name}: the norm is kept"
small = np.sort(np.abs(coefficients))[-n - 1]  # of the last basis
kept = idwt([hard_threshold(c, small) for c in dwt(cartoon, levels, moments=3)], moments=3)
assert np.isclose(((kept - cartoon) ** 2).sum(), (coefficients[np.abs(coefficients) <= small] ** 2).sum(), rtol=1e-9)
terms = np.unique(np.geomspace(16, n * n / 16, 80).astype(int))
theory = {"Fourier": -1 / 2, "Haar": -1, "Daubechies, 3 moments": -1}
# fewer terms are about the smooth parts; about 2 n pixels lie along the edge, and as many terms resolve the pixels
fitted = (terms >= 60) & (terms <= n)
fig, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
axes[0].imshow(cartoon, cmap="gray")
axes[0].set(title="cartoon", xticks=[], yticks=[])
slopes = {}
for name, coefficients in bases.items():
    energy = np.sort(coefficients**2)[::-1]
    errors = np.cumsum(energy[::-1])[::-1][terms] / energy.sum()
    slopes[name] = np.polyfit(np.log(terms[fitted]), np.log(errors[fitted]), 1)[0]
    axes[1].loglog(terms, errors, label=f"{name}: {slopes[name]:.2f}, theory {theory[name]}")
    parts = (terms >= 30) & (terms <= n // 4), (terms >= 200) & (terms <= 4 * n)
    others = [np.polyfit(np.log(terms[part]), np.log(errors[part]), 1)[0].round(2) for part in parts]
    print(f"{name:22} slope {slopes[name]:.2f}, theory {theory[name]}; from 30 and 200 terms on", *others)
axes[1].axvspan(terms[fitted][0], terms[fitted][-1], color="0.93", zorder=0)
axes[1].set(xlabel="terms n", ylabel="squared error / squared norm", title="n largest terms; slopes fitted in gray")
axes[1].legend()
assert all(abs(slopes[name] - theory[name]) < 0.1 for name in theory)

# %%
# The slopes are asymptotic, for images without pixels. On a grid errors of wavelets fall faster beyond n terms, where
# the edge's pixels are reached. The range was chosen after the curves had been seen; two more are printed.
#
# Thresholds remove noise
# -----------------------
# Noise spreads evenly over an orthonormal basis, while the cartoon is in few coefficients. Thresholds keep these.

rng = np.random.default_rng(0)
sigma = 0.3
noisy = cartoon + sigma * rng.standard_normal(cartoon.shape)


def denoised(threshold, tau):
    """The image whose wavelet coefficients, but not the low-pass ones, are thresholded."""
    low, *details = dwt(noisy, levels, moments=3)
    return idwt([low, *(threshold(c, tau) for c in details)], moments=3)


psnr = partial(peak_signal_noise_ratio, cartoon, data_range=np.ptp(cartoon))  # in dB
universal = sigma * np.sqrt(2 * np.log(n * n))  # below which all of the noise stays with high probability
results = {"noisy": noisy, "soft threshold": denoised(soft_threshold, universal / 2)}
results["hard threshold"] = denoised(hard_threshold, universal)
fig, axes = plt.subplots(1, 3, figsize=(10, 3.6), layout="constrained")
for ax, (name, image) in zip(axes, results.items(), strict=True):
    ax.imshow(image[n // 4 : n // 2, n // 4 : n // 2], cmap="gray", vmin=cartoon.min(), vmax=cartoon.max())
    ax.set(title=f"{name}: {psnr(image):.1f} dB", xticks=[], yticks=[])
assert min(psnr(results["soft threshold"]), psnr(results["hard threshold"])) > psnr(noisy) + 8

# %%
# Thresholds as a nonlinearity are in :ref:`sphx_glr_gallery_2_theory_plot_21_linear_classifier.py`.
