r"""
The smallest step to another class, with true labels and random ones
====================================================================

A network has to contract space, and yet to keep classes apart (E. Oyallon, Organising Deep Networks). But small steps
change the class (`arXiv:1312.6199 <https://arxiv.org/abs/1312.6199>`_), and random labels are fitted as well as true
ones (`arXiv:1611.03530 <https://arxiv.org/abs/1611.03530>`_). How well does each layer separate both? How far is it
moved by the smallest step that changes the class (`arXiv:1511.04599 <https://arxiv.org/abs/1511.04599>`_), and by a
random step of the same length?
"""

from functools import partial

import matplotlib.pyplot as plt
import numpy as np
from scipy.spatial.distance import cdist

from hcnn.autodiff import convolve, grad
from hcnn.train.data import channel_statistics, load_dataset, resize, standardise
from hcnn.wavelets import adam

count, steps, seeds = 400, 400, 3

# %%
# As many vehicles (+1) as animals (-1). Random labels are the true ones in random order. All networks have two
# convolutions with stride 2, two full layers, and a sum whose sign is the class. A third kind is not trained.

sample, truth = load_dataset("sample"), np.repeat(np.float32([[1], [-1]]), count // 2, axis=0)
sets = []  # images (count, 432)
for images, classes in ((sample.train_images, sample.train_labels), (sample.test_images, sample.test_labels)):
    parts = [np.flatnonzero(np.isin(classes, part))[: count // 2] for part in ((0, 1, 8, 9), (2, 3, 4, 5, 6, 7))]
    chosen = standardise(images[np.concatenate(parts)], *channel_statistics(sample.train_images))
    sets.append(np.asarray(resize(chosen, 12)).reshape(count, -1))
x, unseen = sets


def layers(p, x):
    """What layers 0 (the images) to 4 and the last make, each (N, ...) as vectors."""
    found, x = [x], x.reshape(-1, 12, 12, 3)
    for w, bias in p:
        x = convolve(x, w, (1, 2), boundary="zero", sum_axes=3, stride=2) if w.ndim == 4 else found[-1] @ w
        x = np.maximum(x + bias, 0) if w.shape[-1] > 1 else x + bias
        found.append(x.reshape(len(x), -1))
    return found


def train(labels, rng, steps):
    """Weights (filters and biases of each layer) after some steps of Adam on the logistic loss."""
    shapes = (3, 3, 3, 16), (16, 3, 3, 32), (288, 100), (100, 100), (100, 1)
    p = [(np.float32(rng.normal(0, np.sqrt(2 / np.prod(s[:-1])), s)), np.zeros(s[-1], "float32")) for s in shapes]
    batches = [rng.choice(count, 50, replace=False) for _ in range(steps)]
    return adam(lambda p, i: np.logaddexp(0, -labels[i] * layers(p, x[i])[-1]).mean(), p, batches, rate=3e-3)


# %%
# If the logit f is linear with the gradient g, the smallest step to f = 0 is :math:`-f g / |g|^2`. It is not, so such
# steps are added up, each 2 % too long, until the class has changed.

norms = partial(np.linalg.norm, axis=1, keepdims=True)  # of vectors, (N, 1)


def smallest_step(p, before):
    """A step for each training image, of the shape of x, from the logits before it."""
    moved = x
    for _ in range(20):
        f, g = layers(p, moved)[-1], grad(lambda z: layers(p, z)[-1].sum())(moved)
        moved = moved - 1.02 * np.where(f * before > 0, f, 0) * g / np.maximum(norms(g) ** 2, 1e-12)
    return moved - x


def nearest(known, labels, found, wanted):
    """The part of vectors whose nearest known one, other than themselves, has the label that is wanted."""
    distances = cdist(found, known)
    return np.mean(labels[np.where(distances > 0, distances, np.inf).argmin(1)] == wanted)


results = {"true labels": [], "random labels": [], "untrained": []}  # of each seed: (4 measures, layers)
for kind in [*results] * seeds:
    rng = np.random.default_rng(len(results[kind]))
    labels = rng.permutation(truth) if kind == "random labels" else truth
    p = train(labels, rng, 0 if kind == "untrained" else steps)
    (*known, logits), (*new, of_unseen) = layers(p, x), layers(p, unseen)
    found = [[nearest(a, labels, a, labels) for a in known], list(map(nearest, known, [labels] * 5, new, [truth] * 5))]
    step, noise = smallest_step(p, logits), rng.standard_normal(x.shape).astype("float32")
    shorter = layers(p, x + 0.8 * step)[-1]
    assert np.mean(shorter * logits < 0) < 0.05, "nothing much shorter does"
    for move, flips in ((step, True), (noise * norms(step) / norms(noise), False)):
        *moved, after = layers(p, x + move)
        found += [[np.mean(norms(b - a) / norms(a - a.mean(0))) for a, b in zip(known, moved, strict=True)]]
        assert np.mean((after * logits < 0) == flips) > 0.95, "smallest steps change classes, and random ones do not"
    fit, right = np.mean(logits * labels > 0), np.mean(of_unseen * truth > 0)
    print(f"{kind:13} right: {fit:4.0%} of training images, {right:.0%} of others; smallest step {found[2][0]:.1%}")
    assert kind == "untrained" or fit == 1, "both kinds of labels are learned"
    results[kind].append(found)

fig, panels = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
for kind, colour in zip(results, ("C0", "C1", "0.6"), strict=True):
    results[kind] = np.array(results[kind])
    for k, line in enumerate(results[kind].mean(axis=0)):
        y, style = line if k < 2 else line / line[0], "o--" if k % 2 else "o-"
        panels[k // 2].plot(y, style, color=colour, label=None if k % 2 else kind)
panels[0].set(title="label of the nearest training image", ylabel="part right (dashed: unseen images)")
panels[1].set(title="how far a step moves $x_j$", ylabel="over the pixels (dashed: random step)", yscale="log")
plt.setp(panels, xlabel="layer j", xticks=range(5))
panels[0].legend()

true, random, untrained = results.values()  # (seeds, 4, layers)
assert min(true[:, 0, -1].min(), random[:, 0, -1].min()) > 0.95, "the last layer separates what was learned"
chance = 0.5 + 3 * 0.5 / np.sqrt(count)  # and three standard errors
assert min(true[:, 1, -1]) > chance > max(random[:, 1, -1]), "and generalises from true labels alone"
assert min(random[:, 1, -1]) > 1 - chance, "random ones say nothing of unseen images"
assert all(true[:, 2, 0] > random[:, 2, 0]), "random labels leave smaller margins"
growth = [runs[:, 3, -1] / runs[:, 3, 0] for runs in (true, random, untrained)]
assert all(growth[0] < growth[1]) and all(growth[1] < growth[2]), "true labels contract random steps most"
assert all(true[:, 2, -1] > 2 * true[:, 3, -1]), "and not the smallest step"

# %%
# With true labels the last layer separates classes, of unseen images too; random labels are separated on the training
# images alone, and the smallest step that changes them is shorter. Random steps grow less with true labels than with
# random ones, and most without training. So true labels make a network contract most directions, and not the one that
# changes the class.
