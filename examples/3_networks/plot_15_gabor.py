r"""
Filters of a first layer and Gabor functions
============================================

First layers are said to learn filters "similar to Gabor/Wavelet filters" (Tanner's lecture *Visualising the filters
and response, memory, in a CNN*, on VGG's first layer, `arXiv:1512.02017 <https://arxiv.org/abs/1512.02017>`_). We fit
Gabor functions to filters and give the part of their energy that is explained, R\ :sup:`2`, beside that of filters with
the same spectra and random phases. Without such a control, R\ :sup:`2` says little.

The first layer is trained here, without labels: a linear layer with tied weights and a sparse response (reconstruction
ICA, Le, Karpenko, Ngiam and Ng, 2011), by L-BFGS on gradients of :mod:`autodiff`.
"""

import os

import matplotlib.pyplot as plt
import numpy as np
from scipy.optimize import least_squares, minimize
from skimage import color, data

from autodiff import value_and_grad
from train import load

SMALL = os.environ.get("HCNN_EXAMPLES") == "small"
rng = np.random.default_rng(0)
side, filters = (8, 12) if SMALL else (9, 36)  # taps along each side; filters
patches, iterations = (2000, 40) if SMALL else (8000, 120)

# %%
# Train the layer
# ---------------
# Patches of photographs, whitened: their principal components have variance 1. The cost is
# ``|W'W x - x|^2 + strength sum log cosh(W x)``, a mean over patches x.

photographs = [color.rgb2gray(picture()) for picture in (data.astronaut, data.coffee, data.chelsea, data.rocket)]
corners = [
    (p, *rng.integers(0, np.array(p.shape) - side)) for p in photographs for _ in range(patches // len(photographs))
]
x = np.stack([p[i : i + side, j : j + side].ravel() for p, i, j in corners])
x -= x.mean(axis=1, keepdims=True)
x /= np.sqrt(x.var(axis=1, keepdims=True) + 1e-3)
values, vectors = np.linalg.eigh(np.cov(x.T))
keep = slice(-filters, None)
whiten = vectors[:, keep] / np.sqrt(values[keep])  # (taps, filters)
white = x @ whiten


@value_and_grad
def cost(w):
    """Reconstruction error and sparsity of the responses to all patches."""
    response = white @ w.T
    sparse = np.mean(np.sum(np.logaddexp(response, -response), axis=1))  # log cosh, but for a constant
    return np.mean(np.sum((response @ w - white) ** 2, axis=1)) + 0.3 * sparse


def flat(w):
    """The cost and its gradient as SciPy wants them."""
    value, gradient = cost(w.reshape(filters, filters))
    return float(value), gradient.ravel()


start = np.linalg.qr(rng.standard_normal((filters, filters)))[0]
found = minimize(flat, start.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": iterations})
unwhiten = vectors[:, keep] * np.sqrt(values[keep])  # what a filter looks like, its pattern in the picture
learned = (found.x.reshape(filters, filters) @ unwhiten.T).reshape(-1, side, side)
print(f"cost {flat(start.ravel())[0]:.2f} at the start, {found.fun:.2f} after {found.nit} iterations")
assert found.fun < flat(start.ravel())[0]

# %%
# Fit Gabor functions
# -------------------
# A Gabor function is a plane wave in a Gaussian window. Amplitude and phase follow by linear least squares from the six
# other numbers: center, widths, angle and frequency. Several starts avoid poor local minima.


def gabor_fit(f):
    """Return the Gabor function nearest to a filter, and R^2."""
    n = len(f)
    grid = np.arange(n) - (n - 1) / 2
    u, v = np.meshgrid(grid, grid, indexing="ij")

    def best(p):
        along = (u - p[0]) * np.cos(p[4]) + (v - p[1]) * np.sin(p[4])
        across = (v - p[1]) * np.cos(p[4]) - (u - p[0]) * np.sin(p[4])
        width, height = np.exp(np.clip(p[2:4], np.log(0.4), np.log(2 * n)))
        wave = np.exp(-((along / width) ** 2 + (across / height) ** 2) / 2 + 1j * p[5] * along).ravel()
        real, imaginary = wave.real, wave.imag
        gram = np.array([[real @ real, real @ imaginary], [real @ imaginary, imaginary @ imaginary]])
        amplitudes = np.linalg.solve(gram + 1e-9 * np.eye(2), [real @ f.ravel(), imaginary @ f.ravel()])
        return (amplitudes[0] * real + amplitudes[1] * imaginary).reshape(f.shape)

    peak = np.array(np.unravel_index(np.argmax(abs(f)), f.shape)) - (n - 1) / 2
    starts = [(*peak, *np.log([n / 5, n / 5]), a, w) for a in np.arange(8) * np.pi / 8 for w in (0.7, 1.4, 2.2)]
    starts = sorted(starts, key=lambda p: np.sum((best(p) - f) ** 2))[:2]
    fits = [least_squares(lambda p: (best(p) - f).ravel(), s, method="lm", max_nfev=250) for s in starts]
    fit = best(min(fits, key=lambda r: r.cost).x)
    return fit, 1 - np.sum((fit - f) ** 2) / np.sum(f**2)


def random_phases(f):
    """A filter with the amplitudes of f's Fourier transform and the phases of noise."""
    noise = np.fft.fft2(rng.standard_normal(f.shape))
    return np.fft.ifft2(abs(np.fft.fft2(f)) * noise / abs(noise)).real


fits, r2 = zip(*map(gabor_fit, learned), strict=True)
control = [gabor_fit(random_phases(f))[1] for f in learned]
print(f"median R^2 of {filters} learned filters: {np.median(r2):.2f}, with random phases: {np.median(control):.2f}")
assert np.median(r2) > np.median(control) + 0.1

# %%
# Filters of three by three taps
# ------------------------------
# The networks of this package have 3 x 3 taps in their first layer. Eight numbers fit nine values well, learned or not,
# so the good fit of the network that ships says nothing.

w = load("hcnn-fast").merged["layer01"]["w"]  # (colours, 3, 3, filters)
shipped = np.moveaxis(w, -1, 1).reshape(-1, 3, 3)
shipped = shipped[:12] if SMALL else shipped
small = [np.median([gabor_fit(f)[1] for f in kind]) for kind in (shipped, rng.standard_normal(shipped.shape))]
print(f"median R^2 at 3 x 3 taps: {small[0]:.3f} trained, {small[1]:.3f} random numbers")
assert small[0] - small[1] < (np.median(r2) - np.median(control)) / 2, "so few taps hardly tell"

fig = plt.figure(figsize=(11, 4.2), layout="constrained")
left, middle, right = fig.subfigures(1, 3)
order = np.argsort(r2)[::-1][:12]
for part, pictures, title in ((left, learned, "filters"), (middle, np.array(fits), "nearest Gabor functions")):
    part.suptitle(title)
    for ax, k in zip(part.subplots(3, 4).flat, order, strict=True):
        ax.imshow(pictures[k], cmap="gray", vmin=-abs(learned[k]).max(), vmax=abs(learned[k]).max())
        ax.set(xticks=[], yticks=[], title=f"{r2[k]:.2f}" if part is middle else "")
ax = right.subplots()
ax.hist([r2, control], bins=np.linspace(0, 1, 11), label=["learned", "random phases"])
ax.set(xlabel="$R^2$", ylabel="filters")
ax.legend()

# %%
# The twelve filters with the largest R\ :sup:`2` are shown. A fit this good says that the filters are localised,
# oriented waves. It does not say that a network must learn them: another cost, or another whitening, gives others.
