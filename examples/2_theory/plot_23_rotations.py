r"""
Textures at any orientation
===========================

Scattering coefficients of a texture change when it is rotated. Averages over angles do not, but they forget which
angles meet at one place. Wavelets along rotations and translations together are invariant and keep that:
:func:`hcnn.wavelets.rototranslation_scattering`. We classify textures of short bars, each image with its own
orientation, and then textures of another scale than those that were trained on.

Sources: L. Sifre, S. Mallat, Rotation, Scaling and Deformation Invariant Scattering for Texture Discrimination, 2013,
quoted by E. Oyallon, Organising Deep Networks, under "All variabilities are known".
"""

import matplotlib.pyplot as plt
import numpy as np

from hcnn.train.networks.linear import linear_accuracy
from hcnn.wavelets import morlet_bank, rototranslation_scattering, scattering, scattering_paths

n, scales, angles = 32, 3, 8
sizes, tested = (8, 16, 32), 60  # images of each class
rng = np.random.default_rng(0)

# %%
# Four textures
# -------------
# Bars at random places of a periodic square, half of them at a random angle of the image, the other half at a right
# angle to it: strewn, crossed in pairs, or joined to corners. In the fourth, all angles are random.


def bars(places, theta, scale):
    """Bars (n, n) of a scale at some places (B, 2), each at an angle (B,)."""
    offset = (np.indices((n, n)).transpose(1, 2, 0)[..., None, :] - places + n / 2) % n - n / 2  # (n, n, B, 2)
    z = offset @ [1, 1j] * np.exp(-1j * theta) / scale  # along and across a bar
    return np.exp(-((z.real / 4) ** 4) - (z.imag / 0.8) ** 2).sum(2)


def texture(kind, scale=1.0):
    """An image of 2 x 12 bars, or of fewer and larger ones, of mean 0 and deviation 1."""
    pairs = round(12 / scale**2)
    places, other = rng.uniform(0, n, (2, pairs, 2))
    theta = rng.uniform(0, np.pi) + np.zeros(pairs)
    end = 4 * scale * np.stack([np.cos(theta) - np.sin(theta), np.sin(theta) + np.cos(theta)], 1)
    second = {"strewn": other, "crossed": places, "corners": places + end, "random": other}[kind]
    angles = rng.uniform(0, np.pi, 2 * pairs) if kind == "random" else np.concatenate([theta, theta + np.pi / 2])
    x = bars(np.concatenate([places, second]), angles, scale)
    return (x - x.mean()) / x.std()


kinds, count = ("strewn", "crossed", "corners", "random"), sizes[-1] + tested
images = np.stack([texture(kind) for _ in range(count) for kind in kinds]).astype(np.float32)
labels = np.tile(np.arange(len(kinds)), count)
fig, axes = plt.subplots(2, 4, figsize=(9, 4.8), layout="constrained")
for ax, image, label in zip(axes.flat, images, labels, strict=False):
    ax.imshow(image, cmap="gray")
    ax.set(title=kinds[label], xticks=[], yticks=[])

# %%
# Three representations
# ---------------------
# All are means over places; the second also over angles, at equal differences of the two angles of a path.

bank = morlet_bank((n, n), scales, angles, dtype=np.float32)
plain = scattering(images, bank).mean((1, 2))
alike = {}  # paths of the same scales and difference of angles
for i, path in enumerate(scattering_paths(bank)):
    alike.setdefault((*(j for j, _ in path), (path[-1][1] - path[0][1]) % angles if path else 0), []).append(i)
averaged = np.stack([plain[:, places].mean(1) for places in alike.values()], axis=1)


def joint(images):
    """Means over places of roto-translation scattering, of a few images at a time."""
    parts = np.array_split(images, len(images) // 20)
    return np.concatenate([rototranslation_scattering(part, bank).mean((1, 2)) for part in parts])


representations = {"scattering": plain, "averaged over angles": averaged, "roto-translation": joint(images)}

# %%
# A quarter turn of an image, around one of its pixels, shows the invariance. Other turns do not keep the grid.

turned = np.roll(np.rot90(images[:8], axes=(1, 2)), 1, axis=1)
for name, transform in (("scattering", scattering), ("roto-translation", rototranslation_scattering)):
    one, other = (transform(x, bank).mean((1, 2)) for x in (images[:8], turned))
    change = np.linalg.norm(one - other) / np.linalg.norm(one)
    print(f"{name}: a quarter turn changes the coefficients by {change:.1e}")
    assert change > 0.01 if name == "scattering" else change < 1e-5

# %%
# Few training images
# -------------------
# A linear classifier on the logarithms of the coefficients, whose ridge is the same for all. Its accuracies on other
# images are printed for 8, 16 and 32 training images of each class; by chance they are 25 %.

tests = slice(4 * sizes[-1], None)
accuracy = {}
for name, y in representations.items():
    y = np.log(np.maximum(y, 1e-6))  # the first coefficient is the mean, 0
    pairs = [(y[: 4 * size], labels[: 4 * size], y[tests], labels[tests]) for size in sizes]
    accuracy[name] = [linear_accuracy(*pair, ridge=0.01) for pair in pairs]
    print(f"{name:21} {y.shape[1]:3} numbers:", ", ".join(f"{a:.1%}" for a in accuracy[name]))

error = np.sqrt(0.25 / (4 * tested))  # the largest standard error of an accuracy
last = {name: values[-1] for name, values in accuracy.items()}
assert last["roto-translation"] > max(last["scattering"], last["averaged over angles"]) + 3 * error
assert min(last.values()) > 1 / 4 + 3 * error, "all are better than chance"

# %%
# Plain scattering has to learn every orientation. Averages over angles need not, but they take bars that cross for bars
# that are strewn more often than roto-translation scattering does.
#
# Other scales
# ------------
# Trained on bars of scale 1, the same classifier gets bars 1.4 and 2 times as large. A larger texture moves the
# coefficients to larger scales j1 and j2. Their mean along scale, at equal j2 - j1, is to see less of that. Scale is
# averaged here, not a group of the grid: there are only three scales, and what moves beyond the last one is lost.

octaves = [("low",), *[("first",)] * scales, *(("angular", k) for _ in range(scales) for k in range(2))]
between = [j2 - j1 for j1 in range(scales) for j2 in range(j1 + 1, scales)]
octaves += [(step, beta, k) for step in between for beta in range(angles) for k in range(3)]
assert len(octaves) == representations["roto-translation"].shape[1], "the paths, as the function returns them"


def along_scale(y):
    """Means of coefficients (N, paths) over the paths that differ in scale alone."""
    return np.stack([y[:, [key == other for other in octaves]].mean(1) for key in dict.fromkeys(octaves)], axis=1)


known, unknown = np.split(representations["roto-translation"], [4 * sizes[-1]])
dilated = {1: unknown}
for scale in (1.4, 2):
    larger = np.stack([texture(kind, scale) for _ in range(tested) for kind in kinds]).astype(np.float32)
    dilated[scale] = joint(larger)
of_scales = {}
for name, mean in (("as it is", lambda y: y), ("mean along scale", along_scale)):
    train, *others = (np.log(np.maximum(mean(y), 1e-6)) for y in (known, *dilated.values()))
    of_scales[name] = [linear_accuracy(train, labels[: len(train)], y, labels[tests], ridge=0.01) for y in others]
    print(f"{name:16} {train.shape[1]:3} numbers, scales 1, 1.4, 2:", ", ".join(f"{a:.1%}" for a in of_scales[name]))

fixed, mean = of_scales.values()
assert fixed[0] == last["roto-translation"], "the same classifier on the same images"
for right in (*fixed[1:], *mean[1:]):
    assert 1 / 4 - 3 * error < right < fixed[0] - 3 * error, "neither is invariant to a change of scale"

# %%
# Trained at scale 1, the classifier is right about 43 % of bars 1.4 times as large, and about 26 % of those twice as
# large, near chance. The mean along scale loses accuracy at scale 1. Its gain at 1.4 is 30 points here and 5 with the
# seed 1, so no gain is shown. Three scales are too few for a mean that is invariant. No photographs were tried.
