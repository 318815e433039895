r"""
The boundary between classes, layer by layer
============================================

A network has to contract space and to keep classes apart. How complex is the boundary that is left, at each depth? A
*k-local support vector* is an image most of whose k nearest neighbours are of other classes; the fewer, the simpler the
boundary. We count them in the layers of the network that ships, and in one with random weights.

Source: E. Oyallon, Organising Deep Networks, under "Complexity measure"; `arXiv:1703.01775
<https://arxiv.org/abs/1703.01775>`_.
"""

import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import ttest_rel

from hcnn.train import load
from hcnn.train.data import load_dataset, standardise

count, neighbours = 500, 9

classifier = load("hcnn-fast")
network = classifier.network
sample = load_dataset("sample")
labels = sample.test_labels[:count]
images = standardise(sample.test_images[:count], classifier.checkpoint.channel_mean, classifier.checkpoint.channel_std)

# %%
# Of each layer the mean over the oldest attribute is kept, which is what the next layer reads, Eq. 6. Both networks
# are made of merged filters; the random one has moments for its normalisation as before the first step of training.

by_chance = network.initialize(np.random.default_rng(0))
filters = {"trained": classifier.merged, "random": network.merged(by_chance, network.initial_moments())}


def features(weights):
    """What is read of x_0, x_1, ... of all images, each (images, ...)."""
    batches = []
    for x in np.split(images, count // 50):
        outputs = [y for _, y, _ in network.folded().trace(weights, x)][:-1]  # the last is the logits
        batches.append([x, *(y.mean(axis=3) if y.ndim == 6 else y for y in outputs)])
    return [np.concatenate(of_depth) for of_depth in zip(*batches, strict=True)]


# %%
# Beside the number of support vectors stands the contraction: the mean squared distance of two images of one class,
# over that of two images of different classes.


def spread(x, labels):
    """The mean squared distance within classes, over that between classes."""
    x = x.reshape(len(x), -1) - x.reshape(len(x), -1).mean(0)
    squares = (x**2).sum(1)
    distances = squares[:, None] + squares - 2 * x @ x.T
    same = labels[:, None] == labels
    return distances[same & ~np.eye(len(x), dtype=bool)].mean() / distances[~same].mean()


def local_support_vectors(x, labels):
    """Whether most of the k nearest of the others are of other classes, for k = 1, 2, ...: (images, neighbours)."""
    x = x.reshape(len(x), -1).astype(float)
    x -= x.mean(0)  # or squares of what all have in common take the digits
    squares = (x**2).sum(1)
    distances = squares[:, None] + squares - 2 * x @ x.T
    np.fill_diagonal(distances, np.inf)
    nearest = np.argsort(distances, axis=1, kind="stable")[:, :neighbours]
    return 2 * np.cumsum(labels[nearest] != labels[:, None], axis=1) > np.arange(1, neighbours + 1)


shares, ratios, changes = {}, {}, {}
for name, weights in filters.items():
    found = features(weights)
    counted = [local_support_vectors(x, labels).astype(float) for x in found]
    vectors = [c.mean(0) for c in counted]
    shares[name], ratios[name] = np.array(vectors), [spread(x, labels) for x in found]
    groups = np.array([[spread(x[k::5], labels[k::5]) for k in range(5)] for x in (found[0], found[-1])])
    pairs = (counted[-1][:, -1], counted[0][:, -1]), groups[::-1]
    changes[name] = [ttest_rel(*pair).statistic for pair in pairs]  # mean paired differences, in standard errors
    print(f"{name:8} {neighbours}-local support vectors:", " ".join(f"{v[-1]:.2f}" for v in vectors))
    print(f"{name:8} distances within, over between:", " ".join(f"{r:.2f}" for r in ratios[name]))

fig, panels = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
for j in range(0, len(shares["trained"]), 2):
    panels[0].plot(range(1, neighbours + 1), shares["trained"][j], color=plt.cm.viridis(j / 11), label=f"$x_{{{j}}}$")
panels[0].set(xlabel="neighbours k", ylabel="part of the images", title="k-local support vectors, trained")
panels[0].legend(fontsize="small", ncols=2)
for name in shares:
    panels[1].plot(shares[name][:, -1], "o-", label=name)
    panels[2].plot(ratios[name], "o-", label=name)
panels[1].set(xlabel="depth j", title=f"{neighbours}-local support vectors", ylim=(0, 1))
panels[2].set(xlabel="depth j", title="distances within, over between")
panels[1].legend()
for name, (vectors, ratio) in changes.items():
    print(f"{name:8} from the pixels to the last layer, in standard errors: {vectors:+.1f} and {ratio:+.1f}")
assert max(changes["trained"]) < -3, "the boundary becomes simpler, and classes contract"
assert min(changes["random"]) > -3, "which takes training"

# %%
# With random weights the last layer is no simpler than the pixels. The images are few and of the test set: with more,
# nearest neighbours would be nearer, and numbers smaller.
