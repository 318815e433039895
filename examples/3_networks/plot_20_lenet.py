r"""
LeNet-5 on this tape
====================

LeNet-5 (LeCun, Bottou, Bengio and Haffner, *Gradient-based learning applied to document recognition*, 1998; Figure 2
and Table 1 there) is the first network of Tanner's lecture *Visualising the filters and response, memory, in a CNN*.
It is written here in functions of NumPy and :func:`autodiff.convolve`, with the paper's partial connections and fixed
output codes, and has the 60,000 trainable numbers that the paper counts. It is trained on grey images of CIFAR-10.
"""

import os

import matplotlib.pyplot as plt
import numpy as np

from autodiff import convolve, cross_entropy, tree_leaves, tree_map, value_and_grad
from train.data import load_dataset

SMALL = os.environ.get("HCNN_EXAMPLES") == "small"
count, epochs = (500, 2) if SMALL else (2000, 8)
rng = np.random.default_rng(0)

sample = load_dataset("sample")
grey = [images.astype("float32").mean(axis=3, keepdims=True) for images in (sample.train_images, sample.test_images)]
train, test = ((images - grey[0].mean()) / grey[0].std() for images in grey)  # (N, 32, 32, 1)
train, classes = train[:count], sample.train_labels[:count]

# %%
# Which maps of S2 each map of C3 sees
# ------------------------------------
# Table I of the paper. Maps that see different inputs are forced to learn different features.

rows = [{k % 6, (k + 1) % 6, (k + 2) % 6} for k in range(6)]
rows += [{(k + i) % 6 for i in range(4)} for k in range(6)] + [{0, 1, 3, 4}, {1, 2, 4, 5}, {0, 2, 3, 5}, set(range(6))]
seen = np.array([[s in row for row in rows] for s in range(6)], "float32")[:, None, None, :]  # (6, 1, 1, 16)

# %%
# The network
# -----------
# Convolutions without padding: the zero boundary, without the two samples at each end that see it. S2 and S4 add up
# blocks of 2 x 2 samples, multiply by a weight and add a bias. C5 sees all of its input. The output units measure the
# distance to codes of -1 and 1 that are not trained; the paper draws digits, here they are random.


def draw(*shape):
    """Weights within 2.4 / inputs, as the paper draws them."""
    return rng.uniform(-2.4, 2.4, shape).astype("float32") / np.prod(shape[:-1])


def pooling(maps):
    """A weight and a bias for each map."""
    return {"w": np.full(maps, 0.25, "float32"), "bias": np.zeros(maps, "float32")}


parameters = {
    "C1": {"w": draw(1, 5, 5, 6), "bias": np.zeros(6, "float32")},
    "S2": pooling(6),
    "C3": {"w": draw(6, 5, 5, 16) * seen, "bias": np.zeros(16, "float32")},
    "S4": pooling(16),
    "C5": {"w": draw(16, 5, 5, 120), "bias": np.zeros(120, "float32")},
    "F6": {"w": draw(120, 84), "bias": np.zeros(84, "float32")},
}
codes = rng.choice(np.float32([-1, 1]), (84, 10))

sizes = {name: sum(a.size for a in tree_leaves(arrays)) for name, arrays in parameters.items()}
sizes["C3"] -= int(np.sum(seen == 0)) * 25
print(sizes, sum(sizes.values()))
assert list(sizes.values()) == [156, 12, 1516, 32, 48120, 10164]
assert sum(sizes.values()) == 60_000


def squash(a):
    """The paper's sigmoid, 1.7159 tanh(2 a / 3)."""
    return np.float32(1.7159) * np.tanh(np.float32(2 / 3) * a)


def convolved(x, p):
    """Convolution by filters of 5 x 5 taps where they see no border: 4 samples fewer along each side."""
    return convolve(x, p["w"], (1, 2), sum_axes=3, boundary="zero")[:, 2:-2, 2:-2] + p["bias"]


def pooled(x, p):
    """Sums of blocks of 2 x 2 samples, weighted."""
    n, a, b, maps = x.shape
    return squash(np.sum(np.reshape(x, (n, a // 2, 2, b // 2, 2, maps)), axis=(2, 4)) * p["w"] + p["bias"])


def logits_of(p, x):
    """Minus the distance to the codes; gives classes as the paper's output units do."""
    x = pooled(squash(convolved(x, p["C1"])), p["S2"])  # (N, 14, 14, 6)
    x = pooled(squash(convolved(x, {**p["C3"], "w": p["C3"]["w"] * seen})), p["S4"])  # (N, 5, 5, 16)
    x = squash(convolved(x, p["C5"]))[:, 0, 0]  # (N, 120)
    x = squash(x @ p["F6"]["w"] + p["F6"]["bias"])  # (N, 84)
    return -np.sum((np.reshape(x, (-1, 84, 1)) - codes) ** 2, axis=1) / 8


# %%
# Training
# --------
# Gradient descent with momentum on the cross-entropy, in place of the paper's second-order method.

loss_of = value_and_grad(lambda p, x, targets: cross_entropy(logits_of(p, x), targets))
velocity, curve = tree_map(np.zeros_like, parameters), []
first, _ = loss_of(parameters, train[:200], classes[:200])
for epoch in range(epochs):
    rate = np.float32(0.01 * (1 - epoch / epochs))
    losses = []
    for index in np.array_split(rng.permutation(count), count // 20):
        loss, gradient = loss_of(parameters, train[index], classes[index])
        velocity = tree_map(lambda v, g, rate=rate: np.float32(0.9) * v - rate * g, velocity, gradient)
        parameters = tree_map(np.add, parameters, velocity)
        losses.append(loss)
    right = [
        np.mean(logits_of(parameters, x).argmax(1) == t) for x, t in ((train, classes), (test, sample.test_labels))
    ]
    curve.append(right)
    print(f"epoch {epoch + 1}: loss {np.mean(losses):.3f}, accuracy {right[0]:.1%} training, {right[1]:.1%} test")

fig, panels = plt.subplots(1, 7, figsize=(11, 2), layout="constrained", width_ratios=[1] * 6 + [2.5])
for k, ax in enumerate(panels[:6]):
    ax.imshow(parameters["C1"]["w"][0, :, :, k], cmap="gray")
    ax.set(title=f"C1, {k + 1}", xticks=[], yticks=[])
panels[6].plot(range(1, epochs + 1), curve, label=["training", "test"])
panels[6].set(xlabel="epoch", ylabel="accuracy")
panels[6].legend()
assert loss_of(parameters, train[:200], classes[:200])[0] < first, "it learns"
if not SMALL:
    assert curve[-1][1] > 0.2, "twice as good as chance on images that it has not seen"

# %%
# This shows that a classical network takes a page of NumPy on this tape. It does not show what LeNet-5 can do: it was
# made for digits, its error there is below one percent, and 2,000 photographs without colour are few and hard.
