r"""
A circulant layer
=================

A fully connected layer of d units has d x d weights. Cheng et al. (2015; section 5.2 of `arXiv:1703.04140
<https://arxiv.org/abs/1703.04140>`_) use a circulant matrix instead, with d weights, and report no loss of accuracy. A
product with a circulant matrix is a periodic convolution with a filter as long as the axis, which
:func:`hcnn_core.convolve` computes. We train both layers and compare.
"""

import os

import matplotlib.pyplot as plt
import numpy as np
from scipy.linalg import circulant

from autodiff import convolve, cross_entropy
from train.data import channel_statistics, load_dataset, resize, standardise
from wavelets import momentum

SMALL = os.environ.get("HCNN_EXAMPLES") == "small"
epochs, seeds = (4, 1) if SMALL else (10, 3)

# %%
# Images of 10 x 10 pixels and three colours, 2,000 for training and 500 for testing.

sample = load_dataset("sample")
statistics = channel_statistics(sample.train_images)
train, test = (
    np.asarray(resize(standardise(images, *statistics), 10)).reshape(len(images), -1)
    for images in (sample.train_images, sample.test_images)
)
d = train.shape[1]

# %%
# The two layers
# --------------
# Signs drawn at random come before the circulant matrix, since it treats all units alike (Cheng et al., section 3).

signs = np.random.default_rng(0).choice(np.float32([-1, 1]), d)


def dense(x, w):
    """d x d weights."""
    return x @ w


def circular(x, w):
    """d weights: a filter along all d units."""
    return convolve(x * signs, w, 1, boundary="periodic")


w = np.random.default_rng(1).standard_normal(d)
shifted = np.roll(w, -(d // 2))  # tap d // 2 of a filter is the one that does not move
assert np.allclose(circular(train[:5].astype(float), w), (train[:5] * signs) @ circulant(shifted).T)


def fit(layer, shape, trained, seed):
    """Train a network of one hidden layer; return its accuracy on training and test images."""
    rng = np.random.default_rng(seed)
    hidden = np.float32(rng.standard_normal(shape) / np.sqrt(d))
    parameters = {"bias": np.zeros(d, np.float32), "out": np.float32(rng.standard_normal((d, 10)) / np.sqrt(d))}
    parameters |= {"hidden": hidden} if trained else {}
    batches = [i for _ in range(epochs) for i in np.array_split(rng.permutation(len(train)), len(train) // 50)]

    def logits_of(p, x):
        return np.maximum(layer(x, p.get("hidden", hidden)) + p["bias"], 0) @ p["out"]

    def loss(p, index):
        return cross_entropy(logits_of(p, train[index]), sample.train_labels[index])

    parameters = momentum(loss, parameters, batches, rate=0.02)
    pairs = ((train, sample.train_labels), (test, sample.test_labels))
    return [np.mean(logits_of(parameters, x).argmax(axis=1) == classes) for x, classes in pairs]


# %%
# The control is a circulant layer that stays as it was drawn: only the bias and the last layer are trained.

kinds = {
    "dense": (dense, (d, d), True),
    "circulant": (circular, (d,), True),
    "circulant, not trained": (circular, (d,), False),
}
found = {name: np.array([fit(*kind, seed) for seed in range(seeds)]) for name, kind in kinds.items()}
fig, ax = plt.subplots(figsize=(6, 3.6), layout="constrained")
for name, (_, shape, _) in kinds.items():
    on_train, on_test = found[name].mean(axis=0)
    label = f"{name}, {np.prod(shape):,} weights"
    print(f"{label:36}: accuracy {on_train:.1%} in training, {on_test:.1%} on the test set")
    ax.scatter(*found[name].T, label=label)
ax.set(xlabel="accuracy on 2,000 training images", ylabel="on 500 test images")
ax.legend()

fitted = [found[name][:, 0].mean() for name in kinds]
assert fitted[0] > fitted[1] > fitted[2] + 0.05, "300 weights learn, and 90,000 learn the training set better"

# %%
# With one weight in place of 300 the layer learns, but not "with no loss": it fits the training set less well than a
# dense layer. On the test set the three differ by little more than their seeds do, since 2,000 images are too few for
# either to matter. Cheng et al. replace layers of far larger networks; this page does not test that.
