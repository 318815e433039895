r"""
Phase harmonics correlate scales
================================

The *phase harmonic* :math:`[z]^k = |z| e^{i k \varphi(z)}` of wavelet coefficients transposes frequencies: scales that
were not correlated become so. This is what a rectifier does
(:ref:`sphx_glr_gallery_2_theory_plot_07_rectified_wavelets.py`), and what makes models of it see edges.

Source: S. Mallat, Multiscale Sparse Models in Deep Convolutional Networks, slides 8 to 13; `arXiv:1810.12136
<https://arxiv.org/abs/1810.12136>`_.
"""

import matplotlib.pyplot as plt
import numpy as np
from skimage import data

from hcnn.wavelets import phase_harmonic, randomize_phases, steerable_bank, wavelet_transform

# %%
# Each line is followed by its mirror image. Gaussian lines have the power spectrum of the photograph and random phases.

photograph = np.pad(data.camera().astype(float), [(0, 0), (0, 512)], mode="symmetric")  # (512 lines, 1024)
photograph -= photograph.mean(axis=1, keepdims=True)
lines = {"photograph": photograph, "Gaussian": randomize_phases(photograph, np.random.default_rng(0))}
scales = 6
bank = steerable_bank(photograph.shape[1], scales)
z = {name: wavelet_transform(x, bank, -1)[1][..., 0] for name, x in lines.items()}  # (512, 1024, scales), complex

# %%
# The wavelet of scale j has frequencies around xi = 2.2 / 2^j. The harmonic k = 2 has them around 2 xi, where the next
# finer wavelet is, and is as long as before: it is not dilated in space.

j = 3
fig, ax = plt.subplots(figsize=(6, 3.6), layout="constrained")
w = 2 * np.pi * np.arange(photograph.shape[1] // 2) / photograph.shape[1]
assert abs(w[bank.psi[j, 0, : len(w)].argmax()] * 2**j / 2.2 - 1) < 0.02, "where the wavelet is largest"
centers = []
for k in (1, 2, 3):
    harmonic = phase_harmonic(z["photograph"][..., j], k)
    assert np.allclose(np.abs(harmonic), np.abs(z["photograph"][..., j])), "the modulus is kept"
    power = (np.abs(np.fft.fft(harmonic, axis=1)) ** 2).mean(0)[: len(w)]
    centers.append((w * power).sum() / power.sum())
    ax.semilogx(w[1:], power[1:] / power.max(), label=f"$[x \\star \\psi]^{k}$")
finer = bank.psi[j - 1, 0, 1 : len(w)] ** 2
ax.semilogx(w[1:], finer / finer.max(), "k:", label="next finer wavelet")
ax.set(xlabel="frequency (radians per pixel)", ylabel="mean power, over its maximum", title="harmonics of scale 3")
ax.legend()
print("mean frequency of k = 1, 2, 3:", ", ".join(f"{c:.3f}" for c in centers))
assert 1.6 < centers[1] / centers[0] < 2.4 and 2.4 < centers[2] / centers[0] < 3.6

# %%
# Spectra of scales two octaves apart do not overlap, so their coefficients are not correlated. Rectified ones are.


def correlation(a, b):
    """Modulus of the correlation coefficient of two arrays, over all positions."""
    a, b = a - a.mean(), b - b.mean()
    return np.abs((a * b.conj()).mean()) / np.sqrt((np.abs(a) ** 2).mean() * (np.abs(b) ** 2).mean())


operations = {
    "wavelets, two octaves": lambda z, j: correlation(z[..., j], z[..., j - 2]),
    "rectified, two octaves": lambda z, j: correlation(*(np.maximum(z[..., i].real, 0) for i in (j, j - 2))),
    "$[z_j]^2$ with $z_{j-1}$": lambda z, j: correlation(phase_harmonic(z[..., j], 2), z[..., j - 1]),
}
steps = np.arange(2, scales)
fig, ax = plt.subplots(figsize=(8, 4), layout="constrained")
for (name, function), marker in zip(operations.items(), "o^s", strict=True):
    found = {kind: [function(coefficients, j) for j in steps] for kind, coefficients in z.items()}
    for kind, style in (("photograph", f"C0{marker}-"), ("Gaussian", f"C1{marker}:")):
        print(f"{name:25} {kind:10}", *(f"{c:.3f}" for c in found[kind]))
        ax.plot(steps, found[kind], style, label=f"{name}, {kind}")
    if name.startswith("wavelets"):
        assert max(found["photograph"]) < 1e-12  # zero before
    else:
        assert np.mean(found["photograph"]) > 5 * np.mean(found["Gaussian"])  # and not after
ax.set(xlabel="scale j", xticks=steps, ylabel="modulus of the correlation", title="correlations across scales")
ax.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))

neighbours = [[correlation(f[..., j], f[..., j - 1]) for j in steps] for f in z.values()]
print(f"neighbouring octaves correlate at up to {max(neighbours[0]):.2f}, in Gaussian lines {max(neighbours[1]):.2f}")
assert np.allclose(*neighbours, rtol=0.1)

# %%
# Slide 8 says "approximately zero"; neighbouring octaves overlap, and correlate as the power spectrum demands.
