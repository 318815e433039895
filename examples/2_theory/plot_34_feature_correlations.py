r"""
Textures from correlations of a network's features
==================================================

Images with the same correlations of a trained network's features look like the same texture (Gatys, Ecker and Bethge,
`arXiv:1505.07376 <https://arxiv.org/abs/1505.07376>`_). Is it the training? And do phase harmonics of wavelets do as
well with fewer moments? The network is this package's, of CIFAR-10, beside one with the same layers and random weights.

Source: S. Mallat, Multiscale Sparse Models in Deep Convolutional Networks, slides 3 and 19; of random filters,
`arXiv:1606.00021 <https://arxiv.org/abs/1606.00021>`_.
"""

from itertools import islice

import matplotlib.pyplot as plt
import numpy as np
from skimage import data

from hcnn.train import load
from hcnn.train.data import load_dataset, standardise
from hcnn.wavelets import lbfgs, moment_distance, randomize_phases, steerable_bank, wavelet_transform

n, scales, layers, iterations = 128, 4, 5, 100
rng = np.random.default_rng(0)

gravel = data.gravel()[:256, :256].astype(float).reshape(n, 256 // n, n, 256 // n).mean(axis=(1, 3))
assert np.isclose(gravel.mean(), data.gravel()[:256, :256].mean()), "each pixel counts"
gravel = ((gravel - gravel.mean()) / gravel.std()).astype(np.float32)

# %%
# Both networks are folded into plain filters and biases, and normalised by their own moments of some images.

classifier = load("hcnn-fast")
network, checkpoint = classifier.network, classifier.checkpoint
images = standardise(load_dataset("sample").train_images[:50], checkpoint.channel_mean, checkpoint.channel_std)
by_chance = network.initialize(rng)
filters = {"trained": classifier.merged, "random": network.merged(by_chance, network(by_chance, images)[1])}

# %%
# Correlations of the first layers: products of every two channels, averaged over space. Distances are relative.


def correlations(weights, x):
    """A matrix (channels, channels) of each layer, of a gray image (n, n)."""
    traced = islice(network.folded().trace(weights, np.stack([x, x, x], axis=-1)[None]), layers)
    flat = [np.reshape(y, (y.shape[1] * y.shape[2], -1)) for _, y, _ in traced]
    return [a.T @ a / a.shape[0] for a in flat]


def correlation_distance(weights):
    """The squared distance of an image's correlations to those of gravel, and how many they are."""
    wanted = correlations(weights, gravel)

    def distance(x):
        found = correlations(weights, x)
        return sum(np.sum((a - b) ** 2) / np.sum(b**2) for a, b in zip(found, wanted, strict=True))

    return distance, sum(len(matrix) * (len(matrix) + 1) // 2 for matrix in wanted)


# %%
# From the same white noise, by L-BFGS. No model asks for flatness, a fourth moment of the finest wavelet coefficients.

bank = steerable_bank((n, n), scales, dtype=np.float32)


def flatness(x):
    """Mean of ``E |z|^4 / (E |z|^2)^2`` over orientations; 2 for a Gaussian field."""
    power = np.abs(wavelet_transform(x, bank)[1][..., 0, :]) ** 2
    return float(np.mean((power**2).mean((0, 1)) / power.mean((0, 1)) ** 2))


models = {name: correlation_distance(weights) for name, weights in filters.items()}
models["harmonics"] = moment_distance(gravel, bank)
noise, gaussian = rng.standard_normal(gravel.shape).astype(np.float32), randomize_phases(gravel, rng)
fields = {"original": gravel, "random phases": gaussian}
assert np.allclose(*(np.abs(np.fft.fft2(a)) for a in (gravel, gaussian)), rtol=1e-3, atol=0.1), "one power spectrum"
left = {}  # of the random phases' distance, by model that was asked for and model that measures
for name, (distance, count) in models.items():
    fields[name], _ = lbfgs(distance, noise, iterations=iterations)
    left |= {(name, other): float(of(fields[name]) / of(gaussian)) for other, (of, _) in models.items()}
    print(f"{name:9} {count:6,} moments of {gravel.size:,} pixels; of the random phases' distance are left:", end="")
    print("".join(f"  {left[name, other]:.4f} ({other})" for other in models))

fig, axes = plt.subplots(1, 5, figsize=(13, 3), layout="constrained")
flat = {name: flatness(field) for name, field in fields.items()}
for ax, (name, field) in zip(axes, fields.items(), strict=True):
    ax.imshow(field, cmap="gray", vmin=-3, vmax=3)
    ax.set(title=f"{name}, flatness {flat[name]:.2f}", xticks=[], yticks=[])

assert models["harmonics"][1] < gravel.size < models["trained"][1] == models["random"][1]
for name in models:
    assert left[name, name] < 0.1, "the moments are met, and random phases do not have them"
    assert abs(flat[name] - flat["original"]) < abs(flat["random phases"] - flat["original"])
assert abs(flat["random phases"] - 2) < 8 / n, "Gaussian, by four standard errors"
for name in filters:
    assert left["harmonics", name] < left[name, "harmonics"], "harmonics say more of the others than these of them"

# %%
# All three make gravel, and random phases do not. Training is not what does it: random filters, normalised alike, do it
# too. Phase harmonics need fewer moments than the image has pixels, and the networks more. An image by harmonics comes
# nearer to the correlations of either network than images by networks to the harmonics' moments. With one texture, one
# draw of noise and one of filters, the better network is not settled.
