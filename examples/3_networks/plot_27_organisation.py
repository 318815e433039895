r"""
Organise what has no order
==========================

"Organization is a key": of a questionnaire, put people side by side who answer alike, and questions that are answered
alike, each with the help of the other. A hierarchical network of `arXiv:1703.04140
<https://arxiv.org/abs/1703.04140>`_ convolves along its attributes, so these have an order already. Is it an order in
which neighbours are alike?

Source: E. Oyallon, Organising Deep Networks; R. R. Coifman, M. Gavish, Harmonic analysis of digital data bases, 2011.
"""

import matplotlib.pyplot as plt
import numpy as np
from scipy.spatial.distance import cdist

from hcnn.train import load
from hcnn.train.data import load_dataset, standardise
from hcnn.wavelets import dwt

count = 240  # images
rng = np.random.default_rng(0)

# %%
# An order stands for a binary tree, whose folders are its halves, their halves and so on. The distance of two rows is
# that of their means over the folders of columns, all levels together. Rows are ordered by the second eigenvector of
# their affinities, and each half again by itself. Rows and columns take turns.


def over_folders(vectors):
    """Means over the folders of all levels, whose squared distances add up to a mean over folders for each level."""
    n = vectors.shape[1]
    levels = []
    for folders in (min(2**level, n) for level in range(int(np.ceil(np.log2(n))) + 1)):
        begins = [part[0] for part in np.array_split(np.arange(n), folders)]
        levels.append(np.add.reduceat(vectors, begins, axis=1) / np.diff([*begins, n]) / np.sqrt(folders))
    return np.concatenate(levels, axis=1)


def halved(affinity, members):
    """Members by the second eigenvector of their affinities, and each half of them again, in the direction given."""
    if len(members) < 3:
        return members
    near = affinity[np.ix_(members, members)]
    root = np.sqrt(near.sum(1))
    second = np.linalg.eigh(near / np.outer(root, root))[1][:, -2] / root
    members = members[np.argsort(second * np.sign(second @ (2 * np.arange(len(members)) - len(members) + 1)))]
    half = (len(members) + 1) // 2
    return np.concatenate([halved(affinity, members[:half]), halved(affinity, members[half:])])


def ordered(vectors):
    """An order of vectors in which neighbours are near each other."""
    distances = cdist(vectors, vectors, "sqeuclidean")
    scale = np.median(distances[~np.eye(len(vectors), dtype=bool)])
    return halved(np.exp(-distances / scale), np.arange(len(vectors)))


def organize(matrix):
    """Orders of rows and columns; the first is by the entries alone."""
    rows = ordered(matrix)
    for _ in range(2):
        columns = ordered(over_folders(matrix[rows].T))
        rows = ordered(over_folders(matrix[:, columns]))
    return rows, ordered(over_folders(matrix[rows].T))


# %%
# 64 people answer 128 questions with yes or no. The chance of a yes is smooth in an order of people and questions that
# is then hidden. In an organised matrix large folders say most: beyond the mean answer of each person and to each
# question, we give the part of the energy that is in the 8 x 8 coarsest products of Haar functions of people and of
# questions. The control has random answers, with nothing to organise.


def coarse_part(matrix):
    """The part of the energy in the 8 x 8 coarsest products of Haar functions, without means of rows and columns."""
    matrix = matrix - matrix.mean(axis=0) - matrix.mean(axis=1, keepdims=True) + matrix.mean()
    energy = np.sum(matrix**2)
    for axis in (0, 1):
        low, *details = dwt(matrix, int(np.log2(matrix.shape[axis])), axis, moments=1)
        matrix = np.concatenate([low, *(detail[..., 0] for detail in details)], axis=axis)
    return np.sum(matrix[:8, :8] ** 2) / energy


s, t = np.arange(64)[:, None] / 64, np.arange(128) / 128
chances = {"smooth": 0.5 + 0.45 * np.tanh(8 * (s - t)) * np.cos(3 * t), "random": 0.5 + 0 * (s + t)}
fig, axes = plt.subplots(1, 3, figsize=(11, 2.8), layout="constrained")
for kind, chance in chances.items():
    answers = np.where(rng.random(chance.shape) < chance, 1.0, -1.0)
    people, questions = rng.permutation(64), rng.permutation(128)
    hidden = answers[people][:, questions]
    rows, columns = organize(hidden)
    found = hidden[rows][:, columns]
    shown = {"as it was": answers, "as it comes": hidden, "organised": found}
    parts = [coarse_part(m) for m in shown.values()]
    correlation = abs(np.corrcoef(people[rows], np.arange(64))[0, 1])
    print(f"{kind} answers: coarse part {parts[0]:.3f}, hidden {parts[1]:.3f}, organised {parts[2]:.3f}")
    print(f"    correlation with the order of people {correlation:.2f}")
    if kind == "random":
        assert parts[2] < 0.1 and correlation < 0.5
        break
    assert correlation > 0.9 and parts[2] > 0.9 * parts[0] > 5 * parts[1]
    for ax, (title, m) in zip(axes, shown.items(), strict=True):
        ax.imshow(m, cmap="gray", aspect="auto", interpolation="nearest")
        ax.set(title=title, xlabel="questions", ylabel="people", xticks=[], yticks=[])

# %%
# Of each layer x_j, means over space and v_{j-2} are kept, and centred over images. *Roughness* is the mean squared
# distance of neighbours along an attribute, over that of all pairs: 1 on average for orders by chance. The order is
# chosen on one half of the images, and its roughness is measured on the other half.

classifier = load("hcnn-fast")
images = load_dataset("sample").test_images[:count]
x = standardise(images, classifier.checkpoint.channel_mean, classifier.checkpoint.channel_std)
responses = {}  # by depth j: (images, v_{j-1}, v_j)
for _, y, _ in classifier.network.folded().trace(classifier.merged, x):
    if y.ndim == 6:
        kept = y.mean(axis=(1, 2, 3), dtype=float)
        responses[len(responses) + 3] = kept - kept.mean(axis=0)


def roughness(vectors, order):
    """Of vectors (n, d) in an order."""
    y = vectors[order]
    pairs = np.sum((y[:, None] - y) ** 2, axis=2)
    return np.trace(pairs, 1) / (len(y) - 1) / (pairs.sum() / len(y) / (len(y) - 1))


table = {}
for j, y in responses.items():
    for axis, name in ((1, "v_{j-1}"), (2, "v_j")):
        parts = [np.moveaxis(part, axis, 0).reshape(y.shape[axis], -1) for part in (y[::2], y[1::2])]
        natural, order = np.arange(y.shape[axis]), organize(parts[0])[0]
        chance = [roughness(parts[1], rng.permutation(len(natural))) for _ in range(200)]
        table[name, j] = roughness(parts[1], natural), roughness(parts[1], order), *np.quantile(chance, (0.025, 0.975))

fig, axes = plt.subplots(1, 2, figsize=(10, 3.4), sharey=True, layout="constrained")
depths = list(responses)
for ax, name in zip(axes, ("v_{j-1}", "v_j"), strict=True):
    natural, organised, low, high = np.transpose([table[name, j] for j in depths])
    ax.fill_between(depths, low, high, color="0.85", label="orders by chance, 95 %")
    ax.plot(depths, natural, "o-", label="natural order")
    ax.plot(depths, organised, "s-", label="organised")
    ax.set(xlabel="depth j", title=f"along ${name}$", xticks=depths)
axes[0].set_ylabel("roughness on other images")
axes[1].legend(fontsize="small")

of_new = [table["v_j", j] for j in responses]
assert all(organised < natural for natural, organised, *_ in of_new), "along v_j there is an order to be found"
assert sum(organised < low for _, organised, low, _ in of_new) > len(of_new) / 2, "and not by chance"
assert sum(natural < low for natural, _, low, _ in table.values()) <= 4, "of 18; the natural order is not that order"

# %%
# Neighbours along an attribute are no more alike than any two of its values. Convolutions along attributes ask for
# covariance, not for smoothness: no training puts similar filters side by side. An order in which they are alike exists
# along the new attribute v_j, on images that had no part in choosing it. Along v_{j-1}, whose five values are every
# second sample of the layer before, there is hardly one. One network was looked at, on few images.
