r"""
Filters of low rank, and as Gaussian derivatives
================================================

The 4-D filters of a trained network, ``w(u1, u2, v1, v2)`` for each new attribute, are matrices of 9 taps in space by
77 taps along attributes. How many separable terms do they need? And how much of them is in a few derivatives of a
Gaussian, of which structured receptive fields are made (Jacobsen, van Gemert, Lou and Smeulders, 2016)? We keep such
parts of the filters of all layers and count the images that are still classified right.

The filters of one layer share their spatial factors in Eq. 8 of `arXiv:1703.04140
<https://arxiv.org/abs/1703.04140>`_, whose rank is at most 9. Section 5.2 calls approximations of trained filters *a
posteriori* (Denton et al., 2014; Jaderberg et al., 2014).
"""

import matplotlib.pyplot as plt
import numpy as np
from scipy.ndimage import gaussian_filter

from hcnn.train import load
from hcnn.train.data import load_dataset, standardise
from hcnn.train.networks.hierarchical import hierarchy

count = 300

# %%
# ``merged`` has the 4-D filters that the normalised factors of each layer fold into. ``apply_merged`` is the network
# made of such filters.

classifier = load("hcnn-fast")
network, filters = classifier.network, classifier.merged
sample = load_dataset("sample")
x = standardise(sample.test_images[:count], classifier.checkpoint.channel_mean, classifier.checkpoint.channel_std)
factored = [layer for layer in hierarchy(network) if layer.factors]


def accuracy(changed):
    """Part of the images that filters, some of them changed, classify right."""
    logits = np.concatenate([network.apply_merged(filters | changed, x[i : i + 100]) for i in range(0, count, 100)])
    return np.mean(logits.argmax(axis=1) == sample.test_labels[:count])


logits = network.apply_merged(filters, x[:20])
assert np.allclose(logits, classifier(sample.test_images[:20]), atol=1e-3 * abs(logits).max())

# %%
# *Own terms*: r separable terms for each filter. *Shared*: r spatial factors for all filters of a layer, from the SVD
# of their matrix of 9 rows. *Shared, weighted*: the same, but the error is measured where images are. With C for the
# second moments of the patches that a layer meets, the matrix is multiplied by a root of C before the SVD, and by its
# inverse after it. No r spatial factors explain more. Two bases are the same for all layers: *derivatives* of orders
# (a, b) with a, b <= 2, those of lowest total order first, and *random* functions. Nine of each span everything.

impulse = np.pad([[1.0]], 4)
orders = sorted(((a, b) for a in range(3) for b in range(3)), key=sum)
derivatives = np.stack([gaussian_filter(impulse, 0.8, order)[3:6, 3:6] for order in orders])
bases = {"derivatives": derivatives.reshape(9, 9).T, "random": np.random.default_rng(1).standard_normal((9, 9))}

fig, panels = plt.subplots(1, 9, figsize=(11, 1.6), layout="constrained")
for ax, order, shown in zip(panels, orders, derivatives, strict=True):
    ax.imshow(shown, cmap="RdBu", vmin=-abs(shown).max(), vmax=abs(shown).max())
    ax.set(title=str(order), xticks=[], yticks=[])


def cut(layer, rank, way):
    """A layer's filters of lower rank, their numbers, and the part of the energy on patches."""
    w, moments = filters[layer.name]["w"].astype(float), classifier.moments[layer.name]  # (3, 3, s1, s2, K)
    second = moments["covariance"] + np.outer(moments["mean"], moments["mean"]) + 1e-6 * np.eye(9)
    root, whole = np.linalg.cholesky(second).T, w.reshape(9, -1)
    weight = root if way in ("shared, weighted", *bases) else np.eye(9)
    target = weight @ (whole[None] if way != "own terms" else np.moveaxis(w.reshape(9, -1, w.shape[-1]), -1, 0))
    u, s, _ = np.linalg.svd(target, full_matrices=False)
    u = np.linalg.qr(weight @ bases[way][:, :rank])[0] if way in bases else u[..., :rank]
    low = u @ (np.swapaxes(u, -1, -2) @ target)
    assert way in bases or np.isclose(np.linalg.norm(low - target), np.linalg.norm(s[:, rank:]), atol=1e-9 * s.max())
    low = np.moveaxis(np.linalg.solve(weight, low), 0, -1).reshape(w.shape)
    energy = 1 - np.sum((root @ (low.reshape(9, -1) - whole)) ** 2) / np.sum((root @ whole) ** 2)
    return low.astype("float32"), len(target) * rank * (9 * (way not in bases) + target.shape[-1]), energy


ranks = (3, 4, 5, 6, 7, 8, 9)
found = {}
for way in ("own terms", "shared", "shared, weighted", *bases):
    for rank in ranks:
        low, numbers, energy = zip(*(cut(layer, rank, way) for layer in factored), strict=True)
        changed = {la.name: {**filters[la.name], "w": w} for la, w in zip(factored, low, strict=True)}
        found[way, rank] = sum(numbers), np.mean(energy), accuracy(changed)
        print("{:16} rank {}: {:6,} numbers, {:.1%} of the energy, {:.1%} right".format(way, rank, *found[way, rank]))

whole = accuracy({})
assert abs(whole - 0.8677) < 3 * np.sqrt(0.8677 * 0.1323 / count), "the network's accuracy on all 10,000 test images"
assert all(abs(f[2] - whole) <= 2 / count for (_, rank), f in found.items() if rank == 9), "rank 9 is everything"
assert found["shared", 6][2] < whole - 0.1, "six terms of nine are not enough"
assert found["shared, weighted", 6][2] > found["shared", 6][2], "it matters where the error is measured"
for rank in (3, 6):
    assert found["shared, weighted", rank][1] >= found["derivatives", rank][1] > found["random", rank][1]
assert found["derivatives", 6][1] > 0.9

fig, panels = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
for part, ax, name in zip((1, 2), panels, ("explained energy", "accuracy"), strict=True):
    for way in dict.fromkeys(way for way, _ in found):
        ax.plot(ranks, [found[way, rank][part] for rank in ranks], marker="o", label=way)
    ax.set(xlabel="rank, or functions", ylabel=name)
panels[0].legend(loc="lower right")

# %%
# Section 5.2's references cut larger filters to a fraction of their rank. Filters with 3 x 3 taps in space leave little
# room: at rank 6 they lose accuracy in all ways, least where the error is measured on patches. Six derivatives explain
# more than nine tenths, far more than random functions; what is missing still costs accuracy, since errors of all
# layers add up. Training on after the cut, or with this basis, was not tried, and the Gaussian's width was not tuned.
