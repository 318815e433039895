r"""
Pictures of units by a deconvnet
================================

What does a unit look for? A *deconvnet* sets all other units of its layer to zero and goes back to pixels, through the
transpose of each layer and a rectifier. :mod:`hcnn.core` has every adjoint, so this takes a few lines. Do such pictures
show the unit, or the image? Sources: M. D. Zeiler and R. Fergus, `arXiv:1311.2901 <https://arxiv.org/abs/1311.2901>`_;
W. Nie, Y. Zhang and A. Patel, `arXiv:1805.07039 <https://arxiv.org/abs/1805.07039>`_, who find that it is the image.
"""

from functools import reduce

import matplotlib.pyplot as plt
import numpy as np
from skimage.util import montage

from hcnn.autodiff import vjp
from hcnn.core import convolve_vjp_x, elu_vjp, marginal_vjp, relu
from hcnn.train import load
from hcnn.train.data import load_dataset, standardise
from hcnn.train.networks.hierarchical import hierarchy

count, many, depth = 200, 24, 6
rng = np.random.default_rng(0)
classifier = load("hcnn-periodic")
network, layers, trained = classifier.network, hierarchy(classifier.network)[:depth], classifier.merged
statistics = classifier.checkpoint.channel_mean, classifier.checkpoint.channel_std
images = standardise(load_dataset("sample").test_images[:count], *statistics)

# %%
# A layer is a mean over the oldest attribute, a convolution, a bias and ELU. We take the transposes of the first two.
# At ELU there is a choice. A *deconvnet* rectifies what comes back, since layers with ReLU make nothing negative.
# Layers with ELU do, so we also go back without a rectifier, by the *adjoint*: the picture is a linear combination of
# filters of the first layer. The *gradient* takes the slopes of ELU at the image, and *guided* backpropagation
# (`arXiv:1412.6806 <https://arxiv.org/abs/1412.6806>`_) takes them and rectifies. No layer pools, so the image enters
# the last two alone.

rules = {"deconvnet": lambda g, y: relu(g), "adjoint": lambda g, y: g, "gradient": elu_vjp}
rules["guided"] = lambda g, y: elu_vjp(relu(g), y)


def back(rule, weights, xs, g):
    """From g, like the last of x_0, ..., x_j, to pixels."""
    for layer, x, y in zip(layers[len(xs) - 2 :: -1], xs[-2::-1], xs[:0:-1], strict=True):
        averages, options = x.ndim == 6, {} if layer.attributes else {"sum_axes": 3}
        shape, w, axes = x.shape[:3] + x.shape[3 + averages :], weights[layer.name]["w"], layer.space + layer.along
        g = convolve_vjp_x(rules[rule](g, y), shape, w, axes, boundary=layer.boundary, stride=layer.stride, **options)
        g = marginal_vjp(g, x.shape, 3, reduction="mean") if averages else g
    return g


def outputs(weights, x):
    """The list of x_0, x_1, ... of these layers."""
    return [x, *(y for _, (_, y, _) in zip(layers, network.folded().trace(weights, x), strict=False))]


def receptive_field():
    """How many pixels, along rows and columns, a unit of the last of these layers sees."""
    size, step = 1, 1
    for layer in layers:
        size += (layer.kernel_size[0] - 1) * step
        step *= layer.stride[0]
    return size


field, xs = receptive_field(), outputs(trained, images[:10])
part = slice(16 - field // 2, 17 + field // 2)  # what a unit in the middle sees of rows and columns
x = rng.standard_normal(xs[0].shape, np.float32)
y = reduce(lambda x, layer: layer.linear_maps(trained[layer.name])[0](x), layers, x)  # without biases and ELU
assert np.isclose(np.vdot(y, y), np.vdot(x, back("adjoint", trained, xs, y)), rtol=1e-4), "the dot test"
by_tape = vjp(lambda x: outputs(trained, x)[-1], xs[0])[1](y)[0]
assert np.allclose(back("gradient", trained, xs, y), by_tape, atol=1e-5 * abs(by_tape).max()), "as autodiff has it"


def pictures_of(units, rule, weights, xs):
    """Of each unit in the middle of its layer, alone: (N, field, field, 3)."""
    g, p = np.zeros(xs[-1].shape, np.float32), xs[-1].shape[1] // 2
    g[(range(len(g)), p, p, *units.T)] = 1
    whole = back(rule, weights, xs, g)
    assert np.isclose(np.linalg.norm(whole), np.linalg.norm(whole[:, part, part])), "nothing lies outside"
    return whole[:, part, part]


# %%
# Each unit is taken at the image where it is largest. Below its pictures are mean cosines with that of another unit,
# with the image, with another image, and with itself moved by a pixel. The control has random weights.

by_chance = network.merged(network.initialize(rng), network.initial_moments())
units, p = rng.integers(xs[-1].shape[3:], size=(many, 3)), xs[-1].shape[1] // 2
fig, panels = plt.subplots(1, 2, figsize=(11, 5), layout="constrained")
like = {}
for ax, kind, weights in zip(panels, ("trained", "random"), (trained, by_chance), strict=True):
    xs = outputs(weights, images)
    strongest = [xs[-1][:, p, p, *unit].argmax() for unit in units]
    xs = [x[strongest] for x in xs]
    shown = {"image": xs[0][:, part, part]}
    image = shown["image"] - shown["image"].mean((1, 2), keepdims=True)
    for rule in rules:
        a, another = (pictures_of(u, rule, weights, xs) for u in (units, np.roll(units, 1, axis=0)))
        pairs = (a, another), (a, image), (a, np.roll(image, 1, axis=0)), (a[:, 1:], a[:, :-1])
        sums = [[(p * q).sum((1, 2, 3)) for p, q in ((a, b), (a, a), (b, b))] for a, b in pairs]
        like[kind, rule] = [ab / np.sqrt(aa * bb) for ab, aa, bb in sums]
        shown["\n".join([rule, *(f"{c.mean():.2f}" for c in like[kind, rule])])] = a
    rows = np.stack(list(shown.values()), axis=1)[:5].reshape(25, field, field, 3)
    rows = 0.5 + rows / abs(rows).max((1, 2, 3), keepdims=True) / 2  # grey where it is 0
    ax.imshow(montage(rows, [1, 1, 1], grid_shape=(5, 5), padding_width=1, channel_axis=-1))
    ax.set(title=f"{kind} weights", yticks=[], xticks=(np.arange(5) + 0.5) * (field + 1), xticklabels=shown)

guided, free = like["trained", "guided"], like["random", "guided"]
claims = {
    "two units have one picture": guided[0] - like["trained", "gradient"][0],
    "with random weights too": free[0] - like["random", "gradient"][0],
    "it is the image": guided[1] - guided[2],
    "which takes no training": free[1] - np.maximum(guided[1], free[2]),
    "training makes atoms smooth": like["trained", "adjoint"][3] - like["random", "adjoint"][3],
}
for claim, difference in claims.items():
    assert difference.mean() > 3 * difference.std(ddof=1) / many**0.5, claim

# %%
# Guided pictures say least of the unit: those of two units at one place are nearly the same, and they show the image,
# with random weights better than with trained ones. Adjoint and gradient tell units apart; training makes the adjoint
# smoother.
