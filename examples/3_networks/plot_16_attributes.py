r"""
Rotation and pitch as translations of an attribute
==================================================

Section 3 of `arXiv:1703.04140 <https://arxiv.org/abs/1703.04140>`_ gives two examples of what a translation along the
attribute v\ :sub:`1` can mean: a rotation of an image, where filters are rotated, and a transposition of a sound, where
filters are wavelets along log-frequency. Both are checked here, with the word of caution that the paper adds.
"""

import matplotlib.pyplot as plt
import numpy as np
from skimage.data import camera
from skimage.transform import resize

from hcnn.core import convolve, translate
from hcnn.core.testing import rounding_bound

# %%
# Complex Gabor filters at multiples of 45 degrees. Rotating the image by 90 degrees, two of eight angles, rotates each
# map in space and moves the attribute by two:
#
# .. math:: x_1(u, v_1 - \tau) = \rho(x_\tau \star w_{v_1}(r_\tau u)) \quad\text{with}\quad x_\tau(u) = x(r_\tau^{-1} u)

n = 96
image = resize(camera() / 255.0, (n, n), anti_aliasing=True)
v, h = np.mgrid[-6:7, -6:7]  # down, and to the right
angles = np.arange(8) * np.pi / 4  # counter-clockwise, as numpy.rot90 turns
along = h[..., None] * np.cos(angles) - v[..., None] * np.sin(angles)
w = np.exp(-(h**2 + v**2)[..., None] / 8 + 1.4j * along)  # (13, 13, 8)


def first_layer(x):
    """Return x_1(u, v_1), rho being the modulus."""
    return abs(convolve(x.astype(complex), w, (0, 1), boundary="periodic"))


x1 = first_layer(image)
turned = first_layer(np.rot90(image))
moved = translate(np.rot90(x1), 2, 2, boundary="periodic")
print(f"rotation: relative difference {np.linalg.norm(turned - moved) / np.linalg.norm(turned):.1e}")
assert abs(turned - moved).max() <= rounding_bound(first_layer, image)

# %%
# The caution: a translation along the attribute alone is no transformation of the image. The linear layer shows it.
# ``x' * w_v = y_v`` are eight equations for each frequency of x'. Their least-squares solution solves them where y
# comes from an image, but not where the maps are moved without being rotated in space.

W = np.fft.fft2(np.pad(w, [(0, n - 13), (0, n - 13), (0, 0)]), axes=(0, 1))


def unexplained(y):
    """Part of the norm of y(u, v_1) that no image explains."""
    Y = np.fft.fft2(y, axes=(0, 1))
    best = np.sum(W.conj() * Y, axis=2, keepdims=True) / np.sum(abs(W) ** 2, axis=2, keepdims=True)
    return np.linalg.norm(Y - W * best) / np.linalg.norm(Y)


linear = convolve(image.astype(complex), w, (0, 1), boundary="periodic")
alone = unexplained(translate(linear, 2, 2, boundary="periodic"))
with_space = unexplained(translate(np.rot90(linear), 2, 2, boundary="periodic"))
print(f"no image explains {alone:.0%} of the moved layer, {with_space:.0e} of the moved and rotated one")
assert alone > 0.5 and with_space < 1e-9

# %%
# Sounds: a tune of harmonic notes, and the same three semitones higher at the same speed. Filters are Gabor wavelets at
# every semitone, dilated copies of one: their width along time is proportional to the period.

rate, bands, transposition = 4000, 48, 3  # samples per second, semitones
semitones = [0, 4, 7, 12, 7, 4, 0, 5, 9, 12]
time = np.arange(int(0.25 * rate)) / rate


def tune(by):
    """The tune, transposed by a number of semitones: each note has three harmonics that swell and fade."""
    phases = [2 * np.pi * 150 * 2 ** ((s + by) / 12) * time for s in semitones]
    return np.concatenate([sum(np.sin(k * p) / k for k in (1, 2, 3)) * np.hanning(len(time)) for p in phases])


centers = 100 * 2 ** (np.arange(bands) / 12)  # Hz
t = (np.arange(1601) - 800) / rate
wavelets = np.exp(-((t[:, None] * centers) ** 2) / (2 * 3**2) + 2j * np.pi * t[:, None] * centers) * centers


def spectrogram(x):
    """Return x_1(u, v_1): time, and log-frequency in semitones."""
    return abs(convolve(x.astype(complex), wavelets, 0, boundary="zero"))


low, high = spectrogram(tune(0)), spectrogram(tune(transposition))
shifts = np.arange(-12, 13)
errors = [np.linalg.norm(high - translate(low, s, 1, boundary="zero")) / np.linalg.norm(high) for s in shifts]
best = shifts[np.argmin(errors)]
print(f"pitch: best translation {best} semitones, relative difference {min(errors):.1%}, {errors[12]:.0%} without one")
assert best == transposition and min(errors) < 0.15 * errors[12]

fig, panels = plt.subplots(1, 3, figsize=(12, 3.4), layout="constrained")
for ax, picture, title in zip(panels, (low, high), ("the tune", "three semitones higher"), strict=False):
    ax.imshow(picture.T, origin="lower", aspect="auto", cmap="magma", extent=(0, len(low) / rate, 0, bands))
    ax.set(title=title, xlabel="time (s)", ylabel="$v_1$ (semitones)")
panels[2].plot(shifts, errors)
panels[2].axvline(transposition, color="gray", ls="--")
panels[2].set(xlabel="translation along $v_1$ (semitones)", ylabel="relative difference")

# %%
# The rotation is exact up to rounding. The transposition is not: higher wavelets are shorter, so they follow the
# swelling of a note more closely. As the paper says, for general sounds no x' has the moved layer.
