r"""
A signal from few moments
=========================

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
    """The frequencies that n samples hold, or that x has, as n samples."""
    return np.fft.irfft(np.fft.rfft(x)[: n // 2], n) * (n / len(x))


def squared_error(y, x):
    """The relative squared error of y, moved to where it is nearest to x."""
    correlation = np.fft.ifft(np.fft.fft(x) * np.fft.fft(y).conj()).real.max()
    return (x @ x + y @ y - 2 * correlation) / (x @ x)


# %%
# The problem is not convex. We draw noise until the moments of the three coarsest scales are met, whatever the error is
# then. Each step adds the moments of the next finer scale, and noise at its frequencies. The finest are left out.


def problem(j):
    """The distance of moments of scale j and coarser, how many they are, and how many samples have all of them."""
    n = 2 * d >> j
    return *moment_distance(resample(signal, n), steerable_bank(n, octaves - j + 1), first=1), n


distance, _, n = problem(octaves - 3)
draws = (lbfgs(distance, rng.standard_normal(n), iterations=steps) for _ in range(50))
y = resample(next(y for y, value in draws if value < 1e-4), n // 2)
found = []
for j in range(octaves - 3, finest - 1, -1):
    distance, m, n = problem(j)
    noise = rng.standard_normal(n)
    start = resample(y, n) + noise - resample(resample(noise, len(y)), n)
    y, value = lbfgs(distance, start, iterations=steps)
    assert value < 1e-3, "the moments are met"
    y = resample(y, n // 2)  # moments of finer scales would say the rest
    lowest = np.fft.irfft(np.fft.rfft(signal)[: m // 2 + 1], d)
    resolved = resample(resample(signal, n // 2), d)
    errors = [squared_error(x, signal) for x in (resample(y, d), lowest, resolved)]
    found.append((m, *errors))
    print(f"scales {j} to {octaves - 1}: m / d = {m / d:.3f}, distance {value:.0e}, squared errors", end=" ")
    print("{:.4f} (moments), {:.4f} (m lowest frequencies), {:.4f} (all that these scales see)".format(*errors))

m, of_moments, of_frequencies, of_scales = np.array(found).T
slopes = [np.polyfit(np.log(m), np.log(errors), 1)[0] for errors in (of_moments, of_frequencies)]
print("squared errors fall like m^{:.2f} (moments), m^{:.2f} (lowest frequencies)".format(*slopes))
fig, axes = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
axes[0].loglog(m / d, of_moments, "o-", label=f"moments, slope {slopes[0]:.1f}")
axes[0].loglog(m / d, of_frequencies, "s:", label=f"lowest frequencies, slope {slopes[1]:.1f}")
axes[0].loglog(m / d, of_scales, "k:", label="all that these scales see")
axes[0].set(xlabel="numbers kept, m / d", ylabel="relative squared error")
axes[0].legend()
y = resample(y, d)
shift = np.fft.ifft(np.fft.fft(signal) * np.fft.fft(y).conj()).real.argmax()
assert d // 16 < shift < 15 * d // 16, "noise does not know the place of the signal"
axes[1].plot(signal, label="signal")
axes[1].plot(np.roll(y, shift), ":", label=f"from {int(m[-1])} moments, translated")
axes[1].set(xlabel="sample", title=f"{d} samples")
axes[1].legend()

assert abs(slopes[1] + 1) < 0.2, "a jump has frequencies of modulus 1 / w"
assert slopes[0] < slopes[1], "moments of one more scale are few, and halve the samples in which a jump may lie"
assert np.all(of_frequencies < of_moments), "not at these m"
assert np.all(of_moments < 2 * of_scales), "what is lost is mostly what finer scales would say"

# %%
# The error falls faster than that of the lowest frequencies, which at these m are still nearer to the signal. Slide 15
# has m^(-2), the best rate of squared errors for signals of bounded variation; few scales say little of a rate. Images,
# m^(-1) on slide 16, are not tried.
