r"""
A 4-D filter fitted by gradient descent
=======================================

A signal over space and time, ``x(u1, u2, u3, t)``, goes through an unknown linear system and is observed with noise.
We find the system's 4-D filter by gradient descent, with gradients of :func:`hcnn.autodiff.convolve`. The result is
compared with the least-squares solution, which NumPy finds from a design matrix.

The system is Eq. 2 of `arXiv:1703.04140 <https://arxiv.org/abs/1703.04140>`_ along four axes.
"""

import matplotlib.pyplot as plt
import numpy as np
from scipy import ndimage
from skimage.util import montage

from hcnn.autodiff import convolve, value_and_grad
from hcnn.core import translate

rng = np.random.default_rng(0)
lengths = (12, 12, 12, 24)  # u1, u2, u3, t
size, axes = (3, 3, 3, 4), (0, 1, 2, 3)

# %%
# The system and what is observed
# -------------------------------
# The filter is a drop of heat that widens, drifts and fades. The signal is noise, smoothed along time, so the 108
# coefficients are not equally easy to find.

u = np.stack(np.meshgrid(*[np.arange(-1, 2)] * 3, indexing="ij"))  # (3, 3, 3, 3)
drift = np.array([0.5, -0.5, 0.0]).reshape(3, 1, 1, 1)
drops = [np.exp(-((u - t * drift) ** 2).sum(axis=0) / (0.5 + t)) / (1 + t) for t in range(size[3])]
w_true = np.stack(drops, axis=-1)  # (3, 3, 3, 4)

x = ndimage.gaussian_filter1d(rng.standard_normal(lengths), 0.6, axis=3, mode="wrap")
along = [np.mean(x * np.roll(x, 1, axis)) / x.var() for axis in axes]
assert along[3] > 0.3 and max(map(abs, along[:3])) < 0.2, "neighbours along time are alike, others are not"
y = convolve(x, w_true, axes, boundary="periodic")
y = y + 0.1 * y.std() * rng.standard_normal(lengths)

# %%
# Gradient descent, by the largest step that is safe
# --------------------------------------------------
# With periodic boundaries the Hessian of half the mean squared error is an autocorrelation of x. Its eigenvalues are at
# most the largest power of a frequency of x, and descent converges for steps below twice the reciprocal.


def loss_of(w):
    """Half the mean squared error of a filter."""
    return 0.5 * np.mean((convolve(x, w, axes, boundary="periodic") - y) ** 2)


largest = np.max(abs(np.fft.fftn(x)) ** 2) / x.size
steps = 400
w, losses, distances = np.zeros(size), [], []

# %%
# The oracle: least squares with a column for each coefficient, which is x translated to where its tap meets it.

taps = list(np.ndindex(size))
columns = [translate(x, np.array(t) - np.array(size) // 2, axes, boundary="periodic").ravel() for t in taps]
w_best = np.linalg.lstsq(np.stack(columns, axis=1), y.ravel(), rcond=None)[0].reshape(size)

for _ in range(steps):
    loss, gradient = value_and_grad(loss_of)(w)
    w = w - gradient / largest
    losses.append(loss)
    distances.append(np.linalg.norm(w - w_best) / np.linalg.norm(w_best))

error = np.linalg.norm(w_best - w_true) / np.linalg.norm(w_true)
print(f"from least squares after {steps} steps: {distances[-1]:.1e}; least squares from the truth: {error:.1%}")
assert np.isclose(losses[0], 0.5 * np.mean(y**2)), "descent begins with the filter 0"
assert np.all(np.diff(losses) <= 1e-12 * losses[0]), "such steps never raise the loss, but for rounding"
assert distances[-1] < 0.1 * error, "what descent has still to go is small against the error of noise"

# %%
# The truth (above) and the fit (below) in the plane u3 = 0 at each time, and how the distance falls.

fig, (left, right) = plt.subplots(1, 2, figsize=(11, 3), layout="constrained")
planes = np.moveaxis(np.concatenate([w_true[:, :, 1], w[:, :, 1]], axis=-1), -1, 0)  # (8, 3, 3)
left.imshow(montage(planes, np.nan, grid_shape=(2, size[3]), padding_width=1), vmin=0, cmap="magma")
left.set(xticks=4 * np.arange(size[3]) + 2, xticklabels=[f"t = {t}" for t in range(size[3])])
left.set(yticks=[2, 6], yticklabels=["truth", "fit"])
right.semilogy(distances, label="from least squares")
right.axhline(error, color="gray", ls="--", label="least squares from the truth")
right.set(xlabel="step", ylabel="relative distance")
right.legend()

# %%
# Conjugate gradients (:ref:`sphx_glr_gallery_1_arrays_plot_05_deconvolution.py`) would need far fewer steps.
