r"""
Predict fine scales from coarse ones
====================================

Wavelet coefficients two octaves apart are not correlated, so nothing linear predicts one from the other. Their phase
harmonics are correlated. So a rectifier makes a linear autoregressive model from low to high frequencies possible, as
models of moments contain it. How much of a fine scale does it predict, and of which signals?

Source: S. Mallat, Multiscale Sparse Models in Deep Convolutional Networks, slides 12 to 14; `arXiv:1810.12136
<https://arxiv.org/abs/1810.12136>`_.
"""

import matplotlib.pyplot as plt
import numpy as np
from skimage import data

from hcnn.wavelets import phase_harmonic, randomize_phases, steerable_bank, wavelet_transform

n, lines = 1024, 384
rng = np.random.default_rng(0)

# %%
# Steps: piecewise constant, with 12 jumps. A photograph: its lines, each followed by its mirror image. Gaussian: the
# photograph's power spectrum with random phases. Bands of 32 lines are for the fit and for the test in turn.

places, heights = rng.integers(0, n, (lines, 12)), rng.standard_normal((lines, 12))
jumps = np.stack([np.bincount(*pair, n) for pair in zip(places, heights - heights.mean(1, keepdims=True), strict=True)])
photograph = np.pad(data.camera()[:lines].astype(float), [(0, 0), (0, 512)], mode="symmetric")
photograph -= photograph.mean(axis=1, keepdims=True)
signals = {"steps": np.cumsum(jumps, axis=1), "photograph": photograph, "Gaussian": randomize_phases(photograph, rng)}
is_known = np.arange(lines) % 64 < 32
scales = 6
bank = steerable_bank(n, scales)
z = {kind: wavelet_transform(x, bank, -1)[1][..., 0] for kind, x in signals.items()}  # (lines, n, J)

# %%
# Coefficients of scale j - 2, or their moduli, are predicted from harmonics k = 0 to 4 of scale j, which a rectifier
# makes, or from k = 1, the wavelet coefficient itself, at five places that are 2^(j-1) apart. R2 is the predicted part
# of the variance on lines not seen by the fit. The control predicts from lines moved by bands: what it finds is chance.


def predict(z, j, harmonics, of=lambda z: z, coarse=None):
    """R2, and what is predicted of the lines of the test; from `coarse` coefficients in the place of their own."""
    coarse = z if coarse is None else coarse
    rows = [np.ones_like(z[..., 0])]
    for k in harmonics:
        rows += [np.roll(phase_harmonic(coarse[..., j], k), m * 2 ** (j - 1), axis=1) for m in range(-2, 3)]
    known, tested = (np.stack([row[part].ravel() for row in rows], 1) for part in (is_known, ~is_known))
    target = of(z[..., j - 2])
    gram = known.conj().T @ known
    gram += 1e-6 * np.trace(gram).real / len(gram) * np.eye(len(gram))
    found = (tested @ np.linalg.solve(gram, known.conj().T @ target[is_known].ravel())).reshape(-1, n)
    target = target[~is_known]
    return 1 - np.mean(np.abs(target - found) ** 2) / np.mean(np.abs(target - target.mean()) ** 2), found


models = {
    "coefficients from wavelets": ((1,), lambda z: z),
    "coefficients from harmonics": ((0, 1, 2, 3, 4), lambda z: z),
    "moduli from harmonics": ((0, 1, 2, 3, 4), np.abs),
}
fig, axes = plt.subplots(1, 3, figsize=(11, 3.4), sharey=True, layout="constrained")
moves = np.repeat(rng.integers(n // 8, n - n // 8, lines // 32), 32)[:, None]
scores, control = {}, {}
for ax, (kind, coefficients) in zip(axes, z.items(), strict=True):
    moved = coefficients[np.arange(lines)[:, None], (np.arange(n) - moves) % n]
    for name, model in models.items():
        scores[kind, name] = [predict(coefficients, j, *model)[0] for j in range(2, scales)]
        print(f"{kind:10} {name:27} R2 of scales 0 to 3:", " ".join(f"{r:6.3f}" for r in scores[kind, name]))
        ax.plot(range(scales - 2), scores[kind, name], "o-", label=name)
        control[kind, name] = [predict(coefficients, j, *model, coarse=moved)[0] for j in range(2, scales)]
        print(f"{'':10} {'  control':27} R2 of scales 0 to 3:", " ".join(f"{r:6.3f}" for r in control[kind, name]))
    ax.set(title=kind, xlabel="predicted scale", xticks=range(scales - 2))
axes[0].set_ylabel("predicted part of the variance, R2")
axes[2].legend()

linear, harmonic, moduli = models
rounding = n * np.finfo(float).eps  # of sums over a line
assert all(np.abs(scores[kind, linear]).max() < rounding for kind in z), "spectra two octaves apart do not overlap"
for name in (harmonic, moduli):
    chance = {kind: np.abs(control[kind, name]) for kind in z}
    assert max(scores["Gaussian", name]) < max(chance["Gaussian"]), "the power spectrum alone tells nothing"
    assert scores["steps", name][0] > scores["photograph", name][0] + 0.1, "a photograph has few edges so sharp"
    for kind in ("steps", "photograph"):
        assert np.all(scores[kind, name] > chance[kind]), "edges tell something at every scale"
        assert np.all(np.array(scores[kind, moduli]) >= scores[kind, name]), "moduli are easier"

# %%
# Where the prediction comes from: the edges of one line of the test.

line, shown = 8, slice(0, 512)
fig, ax = plt.subplots(figsize=(9, 3.2), layout="constrained")
ax.plot(z["photograph"][~is_known][line, shown, 1].real, "0.6", label="scale 1, real part")
ax.plot(predict(z["photograph"], 3, *models[harmonic])[1][line, shown].real, "C1", label="from harmonics of scale 3")
ax.set(xlabel="sample", ylabel="gray levels")
ax.legend()

# %%
# At edges the phases of all scales agree, and the fourth harmonic of a scale has the frequency of the one two octaves
# finer. For steps this predicts more of the finest scale than for a photograph, which has few edges so sharp. What is
# left is the *innovation* of the finer scale. Models of such moments make textures in
# :ref:`sphx_glr_gallery_2_theory_plot_09_synthesis.py`.
