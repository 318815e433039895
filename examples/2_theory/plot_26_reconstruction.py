r"""
Signals and images from few moments
===================================

Means and covariances of the phase harmonics of wavelet coefficients do not see where a signal is, but they see all
else: a sparse signal of d samples comes back, up to a translation, from m << d of them. How fast does the error fall
with m? The numbers to beat are the m lowest frequencies, whose squared error falls like 1 / m for signals with jumps.

Source: S. Mallat, Multiscale Sparse Models in Deep Convolutional Networks, slides 15 and 16; `arXiv:1810.12136
<https://arxiv.org/abs/1810.12136>`_.
"""

import matplotlib.pyplot as plt
import numpy as np

from hcnn.wavelets import lbfgs, moment_distance, steerable_bank

# %%
# A signal with six jumps.

finest, (d, octaves, steps) = 4, (4096, 11, 300)
rng = np.random.default_rng(0)
places, heights = rng.choice(d, 6, replace=False), rng.standard_normal(6)
signal = np.cumsum(np.bincount(places, heights - heights.mean(), d))
signal = (signal - signal.mean()) / signal.std()


def resample(x, n):
    """The frequencies that n samples along each axis hold, or that x has, as n samples along each."""
    half = min(n, len(x)) // 2
    held = np.ix_(*(np.arange(1 - half, half),) * x.ndim)
    spectrum = np.zeros((n,) * x.ndim, complex)
    spectrum[held] = np.fft.fftn(x)[held]
    return np.fft.ifftn(spectrum).real * (n / len(x)) ** x.ndim


def lowest(x, m):
    """The m lowest frequencies."""
    radius = sum(w**2 for w in np.meshgrid(*(np.fft.fftfreq(len(x)),) * x.ndim))
    rank = radius.argsort(axis=None, kind="stable").argsort().reshape(x.shape)
    return np.fft.ifftn(np.fft.fftn(x) * (rank < m)).real


def squared_error(y, x):
    """The relative squared error of y, moved to where it is nearest to x."""
    correlation = np.fft.ifftn(np.fft.fftn(x) * np.fft.fftn(y).conj()).real.max()
    return ((x**2).sum() + (y**2).sum() - 2 * correlation) / (x**2).sum()


# %%
# The problem is not convex. We draw noise until the moments of the coarsest scales are met, whatever the error is
# then. Each step adds the moments of the next finer scale, and noise at its frequencies. The finest are left out.


def from_moments(x, octaves, scales, steps, angles, harmonics):
    """What comes back of x, and for each scale: m, errors from moments, from lowest frequencies, of the scales."""
    problems, found = {}, []
    for j in scales:  # the distance of moments of scale j and coarser, how many they are, and the samples they need
        n = 2 * len(x) >> j
        bank = steerable_bank((n,) * x.ndim, octaves - j + 1, angles)
        problems[j] = *moment_distance(resample(x, n), bank, harmonics=harmonics, first=1), n
    y = None
    for j, (distance, m, n) in problems.items():
        assert distance(resample(x, n)) < 1e-9, "moments are of frequencies that these samples hold"
        if y is None:
            draws = (lbfgs(distance, rng.standard_normal((n,) * x.ndim), iterations=steps) for _ in range(50))
            y = resample(next(y for y, value in draws if value < 1e-4), n // 2)
        fine = rng.standard_normal((n,) * x.ndim)
        start = resample(y, n) + fine - resample(resample(fine, len(y)), n)
        y, value = lbfgs(distance, start, iterations=steps)
        assert value < 1e-3, "the moments are met"
        y = resample(y, n // 2)  # moments of finer scales would say the rest
        forms = resample(y, len(x)), lowest(x, m), resample(resample(x, n // 2), len(x))
        found.append((m, *(squared_error(form, x) for form in forms)))
        print(f"scales {j} to {octaves - 1}: m = {m}, m / d = {m / x.size:.3f}, distance {value:.0e}", end=", ")
        print("errors {:.4f} (moments), {:.4f} (lowest), {:.4f} (all that these scales see)".format(*found[-1][1:]))
    return forms[0], np.array(found).T


def draw(ax, m, errors, size):
    """Draw errors against m, and return the slopes of moments and of the lowest frequencies."""
    slopes = [np.polyfit(np.log(m), np.log(error), 1)[0] for error in errors[:2]]
    names = f"moments, slope {slopes[0]:.1f}", f"lowest frequencies, slope {slopes[1]:.1f}", "all that these scales see"
    for error, name, style in zip(errors, names, ("o-", "s:", "k:"), strict=True):
        ax.loglog(m, error, style, label=name)
    ax.set(xlabel=f"numbers kept, m, of d = {size}", ylabel="relative squared error")
    ax.legend()
    return slopes


y, (m, *errors) = from_moments(signal, octaves, range(octaves - 3, finest - 1, -1), steps, 1, (0, 1, 2))
fig, axes = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
slopes = draw(axes[0], m, errors, d)
print("squared errors fall like m^{:.2f} (moments), m^{:.2f} (lowest frequencies)".format(*slopes))
shift = np.fft.ifft(np.fft.fft(signal) * np.fft.fft(y).conj()).real.argmax()
assert d // 16 < shift < 15 * d // 16, "noise does not know the place of the signal"
axes[1].plot(signal, label="signal")
axes[1].plot(np.roll(y, shift), ":", label=f"from {int(m[-1])} moments, translated")
axes[1].set(xlabel="sample", title=f"{d} samples")
axes[1].legend()

of_moments, of_frequencies, of_scales = errors
assert abs(slopes[1] + 1) < 0.2, "a jump has frequencies of modulus 1 / w"
assert slopes[0] < slopes[1], "moments of one more scale are few, and halve the samples in which a jump may lie"
assert np.all(of_frequencies < of_moments), "not at these m"
assert np.all(of_moments < 2 * of_scales), "what is lost is mostly what finer scales would say"

# %%
# The error falls faster than that of the lowest frequencies, which at these m are still nearer to the signal. Slide 15
# has m^(-2), the best rate of squared errors for signals of bounded variation; few scales say little of a rate.
#
# A cartoon
# ---------
# An ellipse and a polygon, on 64 x 64 samples, by the same steps from harmonics 0 and 1 of three orientations. Slide 16
# has m^(-1), and draws errors against log(m / d).

side = 64
v, u = np.indices((side, side)) / side
ellipse = ((v - 0.35) / 0.22) ** 2 + ((u - 0.4) / 0.15) ** 2 < 1
polygon = (u + v > 0.9) & (v - 0.3 * u < 0.7) & (u < 0.85) & (v > 0.2) & (u - 0.2 * v > 0.4)
cartoon = ellipse - 0.7 * polygon
cartoon = (cartoon - cartoon.mean()) / cartoon.std()
picture, (m, *errors) = from_moments(cartoon, 5, (3, 2), 400, 3, (0, 1))
fig, axes = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
slopes = draw(axes[0], m, errors, cartoon.size)
for ax, shown, title in zip(axes[1:], (cartoon, picture), ("cartoon", f"from {int(m[-1])} moments"), strict=True):
    ax.imshow(shown, cmap="gray")
    ax.set(title=title, xticks=[], yticks=[])

of_moments, of_frequencies, of_scales = errors
assert abs(slopes[1] + 1 / 2) < 0.15, "an edge has twice as many frequencies of half the error"
assert slopes[0] < slopes[1] and np.all(of_frequencies < of_moments), "as for the signal"
assert np.all(of_moments < 2 * of_scales), "what is lost is mostly what finer scales would say"

# %%
# Errors are measured against m, at one d: the moments see as many samples as their scales need, whatever d is, so that
# log(m / d) is log m and a constant here. Two scales are two points, and no rate: the error falls faster than that of
# the lowest frequencies, which are nearer to the cartoon at both.
