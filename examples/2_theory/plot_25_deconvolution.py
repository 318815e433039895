r"""
From coarse to fine by sparse codes
===================================

If signals at the scale :math:`2^j` are sparse in a dictionary :math:`D_j`, a code :math:`\alpha` found from the next
coarser scale gives the finer one, as :math:`D_j \alpha`: a *sparse deconvolution*. Is the network that computes the
code, trained together with its dictionary, better than :math:`\ell^1` minimisation, and are both better than linear
prediction? In a *chain* each octave begins with what the one before has made. No layer of
:ref:`sphx_glr_gallery_2_theory_plot_12_autoencoder.py` has to give the signal at its scale.

Source: S. Mallat, Multiscale Sparse Models in Deep Convolutional Networks, slides 23, 24 and 31.
"""

import matplotlib.pyplot as plt
import numpy as np
from skimage.measure import block_reduce
from skimage.util import view_as_windows

from hcnn.train.data import load_dataset
from hcnn.wavelets import adam, ista, learn_dictionary, lista, sparse_loss

rng = np.random.default_rng(0)
steps, layers = 600, 8  # of descent, and of the network
training, testing = 600, 200  # images

# %%
# Periodic signals with six jumps, and grey images of CIFAR-10. Each octave replaces two neighbours along each axis by
# their mean: from 128 to 16 samples, and from 32 x 32 to 4 x 4 pixels.


def signals(count, n=128):
    """Signals (count, n) that are constant between jumps."""
    x, heights = np.zeros((count, n)), rng.standard_normal((count, 6))
    np.add.at(x, (np.arange(count)[:, None], rng.integers(0, n, (count, 6))), heights - heights.mean(1, keepdims=True))
    return x.cumsum(1)


def octaves(x):
    """Arrays (N, n, ..) at four scales."""
    return [block_reduce(x, (1, *[2**j] * (x.ndim - 1)), np.mean) for j in range(4)]


sample = load_dataset("sample")
images = [octaves(a.mean(3) / 255) for a in (sample.train_images[:training], sample.test_images[:testing])]

# %%
# A coarse window y = A x of means gives the fine one x below it, of which the inner half along each axis is kept: 16
# samples from 8, and 8 x 8 pixels from 4 x 4. The code minimises ``|y - A D a|^2 / 2 + gamma |a|_1``, with the best of
# four penalties for the training windows. The network adds a code to a linear prediction. It is that minimisation
# unrolled (LISTA); all its arrays are trained to restore x.


def windows(x, width):
    """Windows half a width apart, less their means, (N, width^d), and the means."""
    axes, mode = x.ndim - 1, "wrap" if x.ndim == 2 else "symmetric"  # so that y = A x at the ends too
    x = np.pad(x, ((0, 0), *[(width // 4,) * 2] * axes), mode=mode)
    found = view_as_windows(x, (1, *[width] * axes), (1, *[width // 2] * axes)).reshape(-1, width**axes)
    means = found.mean(1, keepdims=True)
    return found - means, means


def finer(way, x, width):
    """Arrays of twice the length: inner halves of the windows that a way makes of coarse ones, side by side."""
    y, means = windows(x, width // 2)
    axes, places = x.ndim - 1, [2 * n // (width // 2) for n in x.shape[1:]]
    blocks = (way(y) + means).reshape(len(x), *places, *[width] * axes)
    blocks = blocks[(..., *[slice(width // 4, -(width // 4))] * axes)]
    order = (0, *(i for axis in range(1, axes + 1) for i in (axis, axes + axis)))
    return blocks.transpose(order).reshape(len(x), *(2 * n for n in x.shape[1:]))


def ways_of(fine, coarse, A, atoms):
    """Four ways from coarse windows to fine ones, found from such pairs."""

    def by_code(D, penalty, y):
        code = ista(y, A.T @ D, penalty, iterations=100)
        assert sparse_loss(y, code, A.T @ D, penalty).sum() < np.sum(y**2) / 2, "less than at code 0"
        return code @ D.T

    def by_network(p, y):
        code = lista(y, A.T @ p["D"], p["encoder"], np.exp(p["log_threshold"]), iterations=layers)
        return y @ p["linear"] + code @ p["D"].T

    def loss(p, batch):
        return np.mean((by_network(p, coarse[batch]) - fine[batch]) ** 2)

    some = rng.permutation(len(fine))[:2000]
    start = fine[some][np.linalg.norm(fine[some], axis=1) > 0.1][:atoms].T
    start /= np.linalg.norm(start, axis=0)
    learned = [
        (learn_dictionary(fine[some], start, penalty, passes=8)[0], penalty) for penalty in (0.01, 0.03, 0.1, 0.3)
    ]
    D, penalty = min(learned, key=lambda pair: np.sum((by_code(*pair, coarse[some]) - fine[some]) ** 2))
    eta = 1 / np.linalg.norm(A.T @ D, 2) ** 2
    p = {"D": D, "encoder": -eta * (A.T @ D).T, "log_threshold": np.full(atoms, np.log(eta * penalty))}
    p["linear"] = linear = np.linalg.lstsq(coarse, fine, rcond=None)[0]
    p = adam(loss, p, rng.integers(0, len(fine), (steps, 200)), rate=1e-2)
    repeat = len(A) // A.shape[1] * A.T
    return {
        "repeated": lambda y: y @ repeat,
        "linear": lambda y: y @ linear,
        "l1 code": lambda y: by_code(D, penalty, y),
        "network": lambda y: by_network(p, y),
    }


def is_better(found, other):
    """Whether errors of whole arrays are smaller than other ones by more than three standard errors."""
    gain = other - found
    return gain.mean() > 3 * gain.std(ddof=1) / np.sqrt(len(gain))


def restored(known, tested, width, atoms):
    """Errors (way, begun from the truth or in the chain, array) by octave, and what the chain makes at the end."""
    one = np.kron(np.eye(width // 2), [[0.5], [0.5]])
    A = one if known[0].ndim == 2 else np.kron(one, one)
    chain, errors = {}, []
    for j in (2, 1, 0):
        (fine, _), (coarse, _) = windows(known[j], width), windows(known[j + 1], width // 2)
        ways = ways_of(fine, coarse, A, atoms)
        chain = {name: finer(way, chain.get(name, tested[3]), width) for name, way in ways.items()}
        made = [(finer(way, tested[j + 1], width), chain[name]) for name, way in ways.items()]
        squares = ((np.array(made) - tested[j]) ** 2).reshape(4, 2, len(tested[j]), -1).mean(3)
        lost = squares[0, 0].mean()
        assert j == 2 or np.all(squares[:, 1].mean(1) > squares[:, 0].mean(1)), "coarser errors stay in the chain"
        for i, title in enumerate(("from the truth", "in the chain")):
            shown = ", ".join(f"{name} {s.mean() / lost:.3f}" for name, s in zip(ways, squares[:, i], strict=True))
            print(f"to length {tested[j].shape[1]}, {title}: {shown}")
        errors.append(squares)
    return errors, chain


# %%
# Errors are relative to those of the true coarser arrays, repeated. At full size signals are drawn three times.

for _ in range(3):
    print("signals")
    jumps = octaves(signals(200)), octaves(signals(150))
    errors, chain = restored(*jumps, 16, 32)
    left = [network[0].mean() / linear[0].mean() for _, linear, _, network in errors]
    for _, (linear, _), (code, _), (network, _) in errors:
        assert is_better(network, linear) and is_better(network, code)
    assert min(left) == left[-1], "most is gained in the finest octave"
    assert is_better(errors[-1][3, 1], errors[-1][1, 1]), "and in the chain"
print("images")
errors, chain_of_images = restored(*images, 8, 64)
for _, linear, code, network in errors:
    assert is_better(linear[0], code[0])
    assert network[0].mean() > 0.95 * linear[0].mean(), "hardly anything beyond what is linear"
    assert not is_better(network[1], linear[1]), "and nothing in the chain"

fig, axes = plt.subplots(1, 2, figsize=(12, 4), layout="constrained")
rows = {"true": jumps[1][0], **chain}
for i, x in enumerate(rows.values()):
    axes[0].step(np.arange(x.shape[1]) * 128 / x.shape[1], x[0] - 4 * i, where="post")
axes[0].set(yticks=-4 * np.arange(5), yticklabels=list(rows), xlabel="sample", title="chains from 16 samples")
rows = {"true": images[1][0], **chain_of_images}
picture = np.concatenate([np.concatenate(list(x[:8]), axis=1) for x in rows.values()])
axes[1].imshow(picture, cmap="gray", vmin=0, vmax=1)
axes[1].set(yticks=16 + 32 * np.arange(5), yticklabels=list(rows), xticks=[], title="chains from 4 x 4 pixels")

# %%
# For signals the network restores much that linear prediction cannot, most of it in the finest octave: where in a
# coarse sample a jump lies. In the chain, errors of coarse octaves stay, so its lead is smaller. Codes of minimal l1
# norm restore less than the network. For images the network gains less than 5 % of the error of linear prediction
# from the truth, and nothing in the chain, which has no detail. In windows of 8 x 8, edges are not as sparse as jumps.
# Larger windows, and networks in place of windows, were not tried.
