r"""
A signal from its moments
=========================

With enough means and covariances of the phase harmonics of its wavelet coefficients, a sparse signal comes back, up to
a translation, which they do not see. How many are enough? The moments to beat are those of the wavelet coefficients
alone, which hold the power spectrum and no phases.

Source: S. Mallat, Multiscale Sparse Models in Deep Convolutional Networks, slides 15 and 16; `arXiv:1810.12136
<https://arxiv.org/abs/1810.12136>`_.
"""

import os

import matplotlib.pyplot as plt
import numpy as np

from wavelets import lbfgs, moment_distance, steerable_bank

SMALL = os.environ.get("HCNN_EXAMPLES") == "small"

# %%
# A signal with six jumps
# -----------------------
# It is piecewise constant. The problem is not convex: we start three times and keep the smallest distance of the
# moments, whatever the error of the signal is.

d, octaves, steps = (128, 6, 150) if SMALL else (256, 7, 300)
jumps = np.random.default_rng(1)
edges, heights = jumps.choice(d, 6, replace=False), jumps.standard_normal(6)
signal = np.cumsum(np.bincount(edges, heights, d))
signal = (signal - signal.mean()) / signal.std()

results = []
for harmonics in ((1,), (0, 1), (0, 1, 2), (0, 1, 2, 3)):
    distance, count = moment_distance(signal, steerable_bank(d, octaves), harmonics=harmonics, lags=2)
    starts = [np.random.default_rng(seed).standard_normal(d) for seed in range(3)]
    y, _ = min((lbfgs(distance, start, iterations=steps) for start in starts), key=lambda found: found[1])
    y = min((np.roll(y, shift) for shift in range(d)), key=lambda moved: np.linalg.norm(moved - signal))
    results.append((count / d, np.linalg.norm(y - signal) / np.linalg.norm(signal), y))
    print(f"harmonics {harmonics}: m / d = {results[-1][0]:.2f}, relative error {results[-1][1]:.3f}")

fig, axes = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
axes[0].semilogy([m for m, _, _ in results], [error for _, error, _ in results], "o-")
axes[0].set(xlabel="moments per sample, m / d", ylabel="relative error", title="reconstruction")
_, error, best = min(results, key=lambda result: result[1])
axes[1].plot(signal, label="signal")
axes[1].plot(best, ":", label="from moments, translated")
axes[1].set(xlabel="sample", title="the best of them")
axes[1].legend()
assert error < 0.25 < 0.5 < results[0][1]

# %%
# Wavelet coefficients alone, k = 1, do not give the signal back, and moduli with them do. Slides 15 and 16 recover
# images from m << d moments, with an error that falls like a power of m. This page does not reach that: it takes about
# as many moments as samples or more, since d is small and covariances of all pairs of rows are counted, needed or not.
# It ends in local minima, so more moments are not always better. No rate is fitted here.
