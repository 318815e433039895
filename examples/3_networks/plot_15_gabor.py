r"""
Filters of a first layer and Gabor functions
============================================

First layers are said to learn filters "similar to Gabor/Wavelet filters" (Tanner's lecture *Visualising the filters
and response, memory, in a CNN*, on VGG's first layer, `arXiv:1512.02017 <https://arxiv.org/abs/1512.02017>`_). We fit
Gabor functions to filters and give the part of their energy that is explained, R\ :sup:`2`, beside that of filters with
the same spectra and random phases. Without such a control, R\ :sup:`2` says little.

The layer is linear, with tied weights and a sparse response (reconstruction ICA, Le, Karpenko, Ngiam and Ng, 2011), and
trained without labels. Functions are fitted to its atoms, what filters look for; whitening makes filters rougher.
"""

import matplotlib.pyplot as plt
import numpy as np
from scipy.optimize import least_squares
from skimage import color, data

from hcnn.train import load
from hcnn.wavelets import lbfgs, principal_components, randomize_phases

rng = np.random.default_rng(0)
side, filters = 9, 36  # taps along each side; filters
patches, iterations = 8000, 120

# %%
# Patches of photographs, whitened: their principal components have variance 1. The cost is
# ``|W'W x - x|^2 + strength sum log cosh(W x)``, a mean over patches x.

photographs = [color.rgb2gray(picture()) for picture in (data.astronaut, data.coffee, data.chelsea, data.rocket)]
corners = [(p, *rng.integers(0, np.array(p.shape) - side)) for p in photographs for _ in range(patches // 4)]
x = np.stack([p[i : i + side, j : j + side].ravel() for p, i, j in corners])
x -= x.mean(axis=1, keepdims=True)
x /= np.sqrt(x.var(axis=1, keepdims=True) + 1e-3)
mean, whiten, unwhiten = principal_components(x, filters)
white = (x - mean) @ whiten


def cost(w):
    """Reconstruction error and sparsity of the responses to all patches."""
    response = white @ w.T
    sparse = np.mean(np.sum(np.logaddexp(response, -response), axis=1))  # log cosh, but for a constant
    return np.mean(np.sum((response @ w - white) ** 2, axis=1)) + 0.3 * sparse


start = np.linalg.qr(rng.standard_normal((filters, filters)))[0]
w, least = lbfgs(cost, start, iterations=iterations)
learned = (w @ unwhiten).reshape(-1, side, side)  # atoms: what the filters look for in a picture
assert least < cost(start)

# %%
# A Gabor function is a plane wave in a Gaussian window, of eight numbers: center, widths, angle, frequency, amplitude
# and phase. Amplitude and phase follow linearly from the six others, which are found by Levenberg-Marquardt, from the
# two best of 24 starts at the filter's largest sample. No window is narrower than 0.4 samples.


def fit_gabor(f):
    """Return the Gabor function nearest to a filter (n, n), and the part of the filter's energy that it explains."""
    n = len(f)
    u, v = np.meshgrid(*[np.arange(n) - (n - 1) / 2] * 2, indexing="ij")

    def nearest(p):
        """The Gabor function of given center (0, 1), log widths (2, 3), angle (4) and frequency (5)."""
        along = (u - p[0]) * np.cos(p[4]) + (v - p[1]) * np.sin(p[4])
        across = (v - p[1]) * np.cos(p[4]) - (u - p[0]) * np.sin(p[4])
        width, height = np.exp(np.clip(p[2:4], np.log(0.4), np.log(2 * n)))
        wave = np.exp(-((along / width) ** 2 + (across / height) ** 2) / 2 + 1j * p[5] * along)
        waves = np.stack([wave.real.ravel(), wave.imag.ravel()])
        return (np.linalg.solve(waves @ waves.T + 1e-9 * np.eye(2), waves @ f.ravel()) @ waves).reshape(n, n)

    peak = np.array(np.unravel_index(np.argmax(np.abs(f)), f.shape)) - (n - 1) / 2
    starts = [(*peak, *np.log([n / 5, n / 5]), k * np.pi / 8, w) for k in range(8) for w in (0.7, 1.4, 2.2)]
    starts = sorted(starts, key=lambda p: np.sum((nearest(p) - f) ** 2))[:2]
    fits = [least_squares(lambda p: (nearest(p) - f).ravel(), p, method="lm", max_nfev=250) for p in starts]
    fit = nearest(min(fits, key=lambda result: result.cost).x)
    return fit, 1 - np.sum((fit - f) ** 2) / np.sum(f**2)


fits, r2 = zip(*map(fit_gabor, learned), strict=True)
random = [randomize_phases(f, rng) for f in learned]
assert np.allclose(np.abs(np.fft.fft2(random)), np.abs(np.fft.fft2(learned)), atol=1e-9), "one power spectrum"
control = [fit_gabor(f)[1] for f in random]
print(f"median R^2 of {filters} learned atoms: {np.median(r2):.2f}, with random phases: {np.median(control):.2f}")
assert np.median(r2) > np.median(control) + 0.1

# %%
# The networks of this package have 3 x 3 taps in their first layer. Eight numbers fit nine values well, learned or not,
# so the good fit of the network that ships says nothing.

w = load("hcnn-fast").merged["layer01"]["w"]  # (colours, 3, 3, filters)
shipped = np.moveaxis(w, -1, 1).reshape(-1, 3, 3)
small = [np.median([fit_gabor(f)[1] for f in kind]) for kind in (shipped, rng.standard_normal(shipped.shape))]
print(f"median R^2 at 3 x 3 taps: {small[0]:.3f} trained, {small[1]:.3f} random numbers")
assert small[0] - small[1] < (np.median(r2) - np.median(control)) / 2, "so few taps hardly tell"

fig = plt.figure(figsize=(11, 4.2), layout="constrained")
left, middle, right = fig.subfigures(1, 3)
order = np.argsort(r2)[::-1][:12]
for part, pictures, title in ((left, learned, "atoms"), (middle, np.array(fits), "nearest Gabor functions")):
    part.suptitle(title)
    for ax, k in zip(part.subplots(3, 4).flat, order, strict=True):
        ax.imshow(pictures[k], cmap="gray", vmin=-abs(learned[k]).max(), vmax=abs(learned[k]).max())
        ax.set(xticks=[], yticks=[], title=f"{r2[k]:.2f}" if part is middle else "")
ax = right.subplots()
ax.hist([r2, control], bins=np.linspace(0, 1, 11), label=["learned", "random phases"])
ax.set(xlabel="$R^2$", ylabel="atoms")
ax.legend()

# %%
# The twelve atoms with the largest R\ :sup:`2` are shown. A fit this good says that the atoms are localised,
# oriented waves. It does not say that a network must learn them: another cost, or another whitening, gives others.
