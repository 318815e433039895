r"""
Rectified wavelets and phase harmonics
======================================

A rectifier acts on the phase of wavelet coefficients. Over the phase :math:`\alpha`, the rectified coefficients
:math:`\rho(x \star \mathrm{Re}(e^{i\alpha}\psi_\lambda))` have the Fourier coefficients
:math:`\gamma(k)\,[x \star \psi_\lambda]^k`. The *phase harmonic* :math:`[z]^k = |z| e^{i k \varphi(z)}` transposes
frequencies: scales that were not correlated become so.

Sources: S. Mallat, Multiscale Sparse Models in Deep Convolutional Networks, slides 8 to 13, whose theorem is that of
slide 11; `arXiv:1810.12136 <https://arxiv.org/abs/1810.12136>`_.
"""

import matplotlib.pyplot as plt
import numpy as np
from skimage import data

from wavelets import (
    from_rectified,
    phase_harmonic,
    rectified_transform,
    rectifier_coefficient,
    steerable_bank,
    wavelet_transform,
)

# %%
# Wavelet coefficients of the lines of a photograph
# -------------------------------------------------
# Each line is followed by its mirror image, so that it is periodic without an edge at its ends.

image = data.camera().astype(float)
x = np.concatenate([image, image[:, ::-1]], axis=1)  # (512 lines, 1024)
x -= x.mean(axis=1, keepdims=True)
scales = 6
bank = steerable_bank(x.shape[1], scales)
z = wavelet_transform(x, bank, -1)[1][..., 0]  # (512, 1024, scales), complex

# %%
# The theorem of the rectifier
# ----------------------------
# We sample A phases. The discrete Fourier transform over them adds the harmonics k, k + A, k - A, ...; so what it gives
# differs from gamma(k) [z]^k by at most abs(z) times the sum of the other abs(gamma). That bound is exact: it is
# reached where the aliases have one phase.

few = slice(0, 8)
print(" A  k  gamma(k)  largest error / abs(z)  aliasing bound")
for phases in (4, 8, 16, 32):
    rectified = rectified_transform(x[few], bank, -1, phases=phases)[1][..., 0, :]
    harmonics = np.fft.fft(rectified, axis=-1) / phases  # (8, 1024, scales, phases)
    for k in (0, 1, 2):
        error = np.abs(harmonics[..., k] - rectifier_coefficient(k) * phase_harmonic(z[few], k))
        aliases = k + phases * np.concatenate([np.arange(-5000, 0), np.arange(1, 5001)])
        bound = sum(abs(rectifier_coefficient(int(q))) for q in aliases)
        ratio = np.max(error / np.abs(z[few]))
        print(f"{phases:2} {k:2}  {rectifier_coefficient(k):8.5f}  {ratio:22.6f}  {bound:14.6f}")
        assert ratio <= bound + 1e-4 / phases  # aliases beyond the 10,000th, and rounding
        assert ratio > 0.8 * bound  # the bound says how large the error is
assert np.allclose(
    [rectifier_coefficient(k) for k in range(5)], [1 / np.pi, 1 / 4, 1 / (3 * np.pi), 0, -1 / (15 * np.pi)]
)

# %%
# For odd k and even A all aliases are odd, and gamma(k) = 0 for all odd k but 1 and -1. So with A = 4 or more the
# harmonic k = 1, which is z itself, has no error.
#
# Nothing is lost
# ---------------
# Slide 10 prints rho(a) + rho(-a) = a. The left-hand side is abs(a); with rho(a) - rho(-a) = a the rectified
# coefficients are inverted linearly.

a = np.linspace(-2, 2, 9)
rho = lambda a: np.maximum(a, 0)  # noqa: E731
assert np.array_equal(rho(a) - rho(-a), a) and np.array_equal(rho(a) + rho(-a), np.abs(a))
low, high = rectified_transform(x[few], bank, -1, phases=4)
assert np.abs(from_rectified(low, high, bank, -1) - x[few]).max() < 1e-12 * np.linalg.norm(x[few])

# %%
# Transposed frequencies
# ----------------------
# The wavelet of scale j has frequencies around xi = 1.4 / 2^j. The harmonic k = 2 has them around 2 xi, where the next
# finer wavelet is, and is as long as before: it is not dilated in space.

j = 3
fig, axes = plt.subplots(1, 2, figsize=(11, 3.6), layout="constrained")
w = 2 * np.pi * np.arange(x.shape[1] // 2) / x.shape[1]
centers = []
for k in (1, 2, 3):
    power = (np.abs(np.fft.fft(phase_harmonic(z[..., j], k), axis=1)) ** 2).mean(0)[: len(w)]
    centers.append((w * power).sum() / power.sum())
    axes[0].semilogx(w[1:], power[1:] / power.max(), label=f"$[x \\star \\psi]^{k}$")
axes[0].semilogx(
    w[1:], (bank.psi[j - 1, 0, 1 : len(w)] / bank.psi[j - 1, 0].max()) ** 2, "k:", label="next finer wavelet"
)
axes[0].set(xlabel="frequency (radians per pixel)", title="mean power, over its maximum")
axes[0].legend()
print("mean frequency of k = 1, 2, 3:", ", ".join(f"{c:.3f}" for c in centers))
assert 1.6 < centers[1] / centers[0] < 2.4 and 2.4 < centers[2] / centers[0] < 3.6

# %%
# Correlations across scales
# --------------------------
# Wavelet coefficients of scales two octaves apart are not correlated, whatever the image is, for their spectra do not
# overlap. Rectified coefficients are. To see what of that is due to the image, we compare with Gaussian lines, which
# have the mean power spectrum of the image's lines and random phases.


def correlation(a, b):
    """Modulus of the correlation coefficient of two arrays, over all positions."""
    a, b = a - a.mean(), b - b.mean()
    return np.abs((a * b.conj()).mean()) / np.sqrt((np.abs(a) ** 2).mean() * (np.abs(b) ** 2).mean())


rng = np.random.default_rng(0)
filtered = np.sqrt((np.abs(np.fft.rfft(x)) ** 2).mean(0)) * np.fft.rfft(rng.standard_normal(x.shape))
gaussian = wavelet_transform(np.fft.irfft(filtered), bank, -1)[1][..., 0]
operations = {
    "wavelets, two octaves": lambda z, j: correlation(z[..., j], z[..., j - 2]),
    "rectified, two octaves": lambda z, j: correlation(rho(z[..., j].real), rho(z[..., j - 2].real)),
    "$[z_j]^2$ with $z_{j-1}$": lambda z, j: correlation(phase_harmonic(z[..., j], 2), z[..., j - 1]),
}
steps = np.arange(2, scales)
for (name, function), marker in zip(operations.items(), "o^s", strict=True):
    of_image, of_gaussian = ([function(field, j) for j in steps] for field in (z, gaussian))
    print(
        f"{name:25} image " + " ".join(f"{c:.3f}" for c in of_image), "| Gaussian", *(f"{c:.3f}" for c in of_gaussian)
    )
    axes[1].plot(steps, of_image, f"C0{marker}-", label=name)
    axes[1].plot(steps, of_gaussian, f"C1{marker}:")
    if name.startswith("wavelets"):
        assert max(of_image) < 1e-12  # zero before
    else:
        assert np.mean(of_image) > 5 * np.mean(of_gaussian)  # and not after
axes[1].set(xlabel="scale j", xticks=steps, title="correlations: photograph (blue), Gaussian (orange)")
axes[1].legend(fontsize=8)

neighbours = [[correlation(f[..., j], f[..., j - 1]) for j in steps] for f in (z, gaussian)]
print(f"neighbouring octaves correlate at up to {max(neighbours[0]):.2f}, in Gaussian lines {max(neighbours[1]):.2f}")
assert np.allclose(*neighbours, rtol=0.1)

# %%
# Slide 8 says "approximately zero" for any two wavelets. Neighbouring octaves of these filters overlap, and their
# coefficients correlate as much as the power spectrum demands, with or without edges; so the page compares octaves two
# apart. The correlations of [z]^2 are small: a harmonic agrees with the next octave near edges only, which are few.
