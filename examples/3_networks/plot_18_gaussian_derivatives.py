r"""
Filters as Gaussian derivatives
===============================

Structured receptive fields write filters as sums of derivatives of a Gaussian (Jacobsen, van Gemert, Lou and Smeulders,
2016; section 5.2 of `arXiv:1703.04140 <https://arxiv.org/abs/1703.04140>`_). The filters of the network that ships were
trained without that structure. How much of them do a few derivatives explain, and how many images are classified right
by the explained part alone?

The basis is the same for every layer and takes no numbers of its own. Two others show what that is worth: random
functions, and the best basis for each layer.
"""

import os

import matplotlib.pyplot as plt
import numpy as np
from scipy.ndimage import gaussian_filter

from train import load
from train.data import load_dataset, standardise
from train.networks.hierarchical import hierarchy

SMALL = os.environ.get("HCNN_EXAMPLES") == "small"
count = 60 if SMALL else 300
rng = np.random.default_rng(0)

classifier = load("hcnn-fast")
network, filters = classifier.network, classifier.merged
sample = load_dataset("sample")
labels = sample.test_labels[:count]
x = standardise(sample.test_images[:count], classifier.checkpoint.channel_mean, classifier.checkpoint.channel_std)
factored = [layer for layer in hierarchy(network) if layer.factors]

# %%
# The basis
# ---------
# Derivatives of order (a, b) with a, b <= 2, the ones of lowest total order first. On 3 x 3 taps there are nine, which
# span everything.

impulse = np.zeros((9, 9))
impulse[4, 4] = 1
orders = sorted(((a, b) for a in range(3) for b in range(3)), key=sum)
derivatives = np.stack([gaussian_filter(impulse, 0.8, order)[3:6, 3:6] for order in orders])
assert np.linalg.matrix_rank(derivatives.reshape(9, 9)) == 9

fig, panels = plt.subplots(1, 9, figsize=(11, 1.6), layout="constrained")
for ax, order, shown in zip(panels, orders, derivatives, strict=True):
    ax.imshow(shown, cmap="RdBu", vmin=-abs(shown).max(), vmax=abs(shown).max())
    ax.set(title=str(order), xticks=[], yticks=[])

# %%
# Projections
# -----------
# The error is measured where images are, as in :ref:`sphx_glr_gallery_3_networks_plot_17_low_rank.py`: R'R is the
# matrix of the second moments of the patches that a layer meets.


def root(layer):
    """The matrix R, (9, 9)."""
    moments = classifier.moments[layer.name]
    return np.linalg.cholesky(moments["covariance"] + np.outer(moments["mean"], moments["mean"]) + 1e-6 * np.eye(9)).T


def basis(kind, size, layer):
    """Some functions on 3 x 3 taps, as columns (9, size)."""
    if kind == "Gaussian derivatives":
        return derivatives[:size].reshape(size, 9).T
    if kind == "random":
        return np.random.default_rng(1).standard_normal((9, 9))[:, :size]
    w = filters[layer.name]["w"].reshape(9, -1)
    return np.linalg.solve(root(layer), np.linalg.svd(root(layer) @ w, full_matrices=False)[0][:, :size])


def explained(kind, size):
    """Return filters projected onto a basis, and the explained part of the energy, a mean over layers."""
    changed, parts = {}, []
    for layer in factored:
        w = filters[layer.name]["w"]
        target, columns = root(layer) @ w.reshape(9, -1), root(layer) @ basis(kind, size, layer)
        numbers = np.linalg.lstsq(columns, target, rcond=None)[0]
        parts.append(1 - np.sum((columns @ numbers - target) ** 2) / np.sum(target**2))
        low = (basis(kind, size, layer) @ numbers).reshape(w.shape).astype("float32")
        changed[layer.name] = {**filters[layer.name], "w": low}
    return changed, np.mean(parts)


def accuracy(changed):
    """Part of the images that filters, some of them changed, classify right."""
    logits = np.concatenate([network.apply_merged(filters | changed, x[i : i + 100]) for i in range(0, count, 100)])
    return np.mean(logits.argmax(axis=1) == labels)


sizes = (3, 6, 9) if SMALL else (1, 3, 6, 8, 9)
found = {}
for kind in ("best for each layer", "Gaussian derivatives", "random"):
    for size in sizes:
        changed, energy = explained(kind, size)
        found[kind, size] = energy, accuracy(changed)
        print(f"{kind:20} {size} functions: {energy:6.1%} of the energy, {found[kind, size][1]:.1%} of {count} images")

whole = accuracy({})
assert abs(whole - 0.8677) < 3 * np.sqrt(0.8677 * 0.1323 / count), "the network's accuracy on all 10,000 test images"
for kind in ("best for each layer", "Gaussian derivatives", "random"):
    assert abs(found[kind, 9][1] - whole) <= 2 / count, "nine functions are everything"
for size in (3, 6):
    assert found["best for each layer", size][0] >= found["Gaussian derivatives", size][0] > found["random", size][0]
assert found["Gaussian derivatives", 6][0] > 0.9

fig, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
for kind in ("best for each layer", "Gaussian derivatives", "random"):
    left.plot(sizes, [found[kind, size][0] for size in sizes], marker="o", label=kind)
    right.plot(sizes, [found[kind, size][1] for size in sizes], marker="o", label=kind)
left.set(xlabel="functions", ylabel="explained energy")
right.set(xlabel="functions", ylabel="accuracy")
right.legend()

# %%
# Derivatives up to total order 2, six functions, explain more than nine tenths of these filters, far more than random
# functions do. What is missing still costs accuracy, since errors of all layers add up. Networks that are trained with
# this basis from the start, which is what structured receptive fields are, may do without the rest; none is trained
# here. The width of the Gaussian, 0.8 pixels, was not tuned.
