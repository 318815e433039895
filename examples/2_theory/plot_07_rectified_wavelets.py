r"""
Rectified wavelets
==================

A rectifier acts on the phase of wavelet coefficients. Over the phase :math:`\alpha`, the rectified coefficients
:math:`\rho(x \star \mathrm{Re}(e^{i\alpha}\psi_\lambda))` have the Fourier coefficients
:math:`\gamma(k)\,[x \star \psi_\lambda]^k`, where :math:`[z]^k = |z| e^{i k \varphi(z)}` is a *phase harmonic* and
:math:`\gamma(k)` belongs to the rectifier alone: 1/pi, 1/4, 1/(3 pi), 0, ...

Source: S. Mallat, Multiscale Sparse Models in Deep Convolutional Networks, slides 8 to 11, whose theorem is that of
slide 11; `arXiv:1810.12136 <https://arxiv.org/abs/1810.12136>`_.
"""

import matplotlib.pyplot as plt
import numpy as np
from skimage import data

from hcnn.wavelets import phase_harmonic, rectified_transform, rectifier_coefficient, steerable_bank, wavelet_transform
from hcnn.wavelets.harmonics import from_rectified

# %%
# Eight lines of a photograph
# ---------------------------
# Each line is followed by its mirror image, so that it is periodic without an edge at its ends.

x = np.pad(data.camera()[:8].astype(float), [(0, 0), (0, 512)], mode="symmetric")  # (8 lines, 1024)
x -= x.mean(axis=1, keepdims=True)
bank = steerable_bank(x.shape[1], 6)
z = wavelet_transform(x, bank, -1)[1][..., 0]  # (8, 1024, 6 scales), complex

# %%
# One coefficient, as its wavelet is turned through all phases: before the rectifier a cosine, after it half of one.

alpha = 2 * np.pi * np.arange(64) / 64
half = rectified_transform(x, bank, -1, phases=64)[1][0, 100, 2, 0]  # (64,)
fig, ax = plt.subplots(figsize=(6, 3.2), layout="constrained")
ax.plot(alpha, (np.exp(1j * alpha) * z[0, 100, 2]).real, ":", label="wavelet coefficient")
ax.plot(alpha, half, label="rectified")
ax.set(xlabel="phase (radians)", ylabel="gray levels", title="one coefficient over the phase")
ax.legend()
assert np.allclose(half, np.maximum((np.exp(1j * alpha) * z[0, 100, 2]).real, 0))

# %%
# The theorem of the rectifier
# ----------------------------
# We sample A phases. The discrete Fourier transform over them adds the harmonics k, k + A, k - A, ...; so what it gives
# differs from gamma(k) [z]^k by at most abs(z) times the sum of the other abs(gamma). That bound is exact: it is
# reached where the aliases have one phase. Two thousand aliases are added up; the others are below 1e-3 / A^2.

print(" A  k  gamma(k)  largest error / abs(z)  aliasing bound")
for k in (0, 1, 2):
    for phases in (4, 8, 16, 32):
        rectified = rectified_transform(x, bank, -1, phases=phases)[1][..., 0, :]
        harmonic = np.fft.fft(rectified, axis=-1)[..., k] / phases  # (8, 1024, scales)
        error = np.max(np.abs(harmonic - rectifier_coefficient(k) * phase_harmonic(z, k)) / np.abs(z))
        aliases = [*range(k - 1000 * phases, k, phases), *range(k + phases, k + 1001 * phases, phases)]
        bound = sum(abs(rectifier_coefficient(q)) for q in aliases)
        print(f"{phases:2} {k:2}  {rectifier_coefficient(k):8.5f}  {error:22.6f}  {bound:14.6f}")
        assert 0.8 * bound <= error <= bound + (1e-9 if k == 1 else 1e-3 / phases**2)
gamma = [1 / np.pi, 1 / 4, 1 / (3 * np.pi), 0, -1 / (15 * np.pi)]
assert np.allclose([rectifier_coefficient(k) for k in range(5)], gamma)

# %%
# For odd k and even A all aliases are odd, and gamma(k) = 0 for all odd k but 1 and -1. So with A = 4 or more the
# harmonic k = 1, which is z itself, has no error.
#
# Nothing is lost
# ---------------
# Slide 10 prints rho(a) + rho(-a) = a. The left-hand side is abs(a); with rho(a) - rho(-a) = a the rectified
# coefficients are inverted linearly.

a = np.linspace(-2, 2, 9)
rectified, mirrored = np.maximum(a, 0), np.maximum(-a, 0)
assert np.array_equal(rectified - mirrored, a) and np.array_equal(rectified + mirrored, np.abs(a))
low, high = rectified_transform(x, bank, -1, phases=4)
lost = np.linalg.norm(from_rectified(low, high, bank, -1) - x) / np.linalg.norm(x)
print(f"the lines again, from four rectified phases: relative error {lost:.1e}")
assert lost < 1e-12

# %%
# A network gains new correlations between scales: :ref:`sphx_glr_gallery_2_theory_plot_22_phase_harmonics.py`.
