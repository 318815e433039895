r"""
Train one layer, freeze the rest
================================

"Accuracy of a random network is improved most by training earlier layers" (Raghu et al., `arXiv:1611.08083
<https://arxiv.org/abs/1611.08083>`_, as quoted in Tanner's lecture *Visualising the filters and response, memory, in a
CNN*). They trained one layer of fully connected networks on MNIST, and left all others as they were drawn. We do so
with a fully connected and a hierarchical network of `arXiv:1703.04140 <https://arxiv.org/abs/1703.04140>`_ on CIFAR-10.
"""

import matplotlib.pyplot as plt
import numpy as np

from hcnn.autodiff import cross_entropy
from hcnn.train.config import make_config
from hcnn.train.data import channel_statistics, load_dataset, resize, standardise
from hcnn.train.networks.registry import build
from hcnn.wavelets import momentum

count, epochs = 500, 4
side, depth, rates, draws = 12, 6, (0.03, 0.1), 3

sample = load_dataset("sample")
statistics = channel_statistics(sample.train_images)
train, test = (resize(standardise(x, *statistics), side) for x in (sample.train_images[:count], sample.test_images))
classes = sample.train_labels[:count]

# %%
# Both networks have five layers with weights. The last of the hierarchical one makes the logits, which are means of its
# output. The fully connected one sees 6 x 6 pixels, so that its first four layers have equally many weights.

layers = [f"layer{j:02d}" for j in range(1, depth)]
settings = {"depth": depth, "width": 8, "factors": 9, "strided_layers": (3, 5), "logit_scale": 10.0}
hcnn = build(make_config("hcnn", settings), side)


def dense_initial(rng):
    """Weights of five fully connected layers, of the scale that ReLUs keep."""
    n, parameters = 3 * 6 * 6, {}
    for name in layers:
        w = rng.standard_normal((n, n if name < layers[-1] else 10)) * np.sqrt(2 / n)
        parameters[name] = {"w": w.astype("float32"), "bias": np.zeros(w.shape[1], "float32")}
    return parameters


def dense_logits(parameters, x):
    """Five fully connected layers with ReLUs between them."""
    x = np.asarray(resize(x, 6)).reshape(len(x), -1)
    for name in sorted(parameters):
        x = (x if name == "layer01" else np.maximum(x, 0)) @ parameters[name]["w"] + parameters[name]["bias"]
    return x


both = [dense_logits(dense_initial(np.random.default_rng(0)), sign * train[:9]) for sign in (1, -1)]
assert abs(sum(both)).max() > 0.1, "the network is not linear: it has no bias yet"


# %%
# The gradient is taken of some layers' weights alone. Layers differ in how steep the loss is, so each is trained at
# two learning rates, and the one that fits the training images best counts. The test set chooses nothing.


def fit(logits_of, parameters, names, rate):
    """Train the layers of some names; return the accuracy on training and on test images."""
    rng = np.random.default_rng(1)
    batches = [index for _ in range(epochs) for index in np.array_split(rng.permutation(count), count // 50)]

    assert len(batches) == epochs * count // 50, "all layers have as many steps"

    def loss(chosen, index):
        return cross_entropy(logits_of(parameters | chosen, train[index]), classes[index])

    chosen = momentum(loss, {name: parameters[name] for name in names}, batches, rate=rate)
    pairs = (train, classes), (test, sample.test_labels)
    return [np.mean(logits_of(parameters | chosen, x).argmax(axis=1) == targets) for x, targets in pairs]


networks = {
    "fully connected": (dense_initial, dense_logits),
    "hierarchical": (hcnn.initialize, lambda parameters, x: hcnn(parameters, x)[0]),  # normalised by the batch
}
every = {kind: [] for kind in networks}  # of each draw, accuracies on training and test images by what was trained
for kind, (initialize, logits_of) in networks.items():
    for draw in range(draws):
        parameters = initialize(np.random.default_rng(draw))
        found = {}
        for names in ([], *([name] for name in layers), layers):
            trials = [fit(logits_of, parameters, names, rate) for rate in (rates if names else rates[:1])]
            label = "none" if not names else "all" if len(names) > 1 else names[0][-1]
            found[label] = max(trials, key=lambda trial: trial[0])
        every[kind].append(found)
        print(f"{kind:15} draw {draw}:", ", ".join(f"{label} {pair[0]:.1%}" for label, pair in found.items()))
results = {(kind, k): np.mean([found[k] for found in runs], axis=0) for kind, runs in every.items() for k in runs[0]}

# %%
# The training accuracies of the first two layers together, minus those of the last two.

assert all(results[kind, "all"][0] > results[kind, "none"][0] + 0.1 for kind in networks), "training fits the images"
for kind in networks:
    sums = [[found[a][0] + found[b][0] for a, b in ("12", "45")] for found in every[kind]]
    print(f"{kind:15} early minus late:", ", ".join(f"{early - late:+.2f}" for early, late in sums))
    assert all((early > late) == (kind == "fully connected") for early, late in sums), "in every draw"

fig, panels = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained", sharey=True)
for ax, kind in zip(panels, networks, strict=True):
    for part, name in enumerate(("training images", "test images")):
        ax.plot(range(1, depth), [results[kind, k][part] for k in "12345"], "o-", color=f"C{part}", label=name)
        ax.axhline(results[kind, "all"][part], ls="--", color=f"C{part}")
    ax.axhline(0.1, color="gray", ls=":")
    ax.set(title=kind, xlabel="the trained layer", xticks=range(1, depth))
panels[0].set_ylabel("accuracy (dashed: all layers trained)")
panels[1].legend()

# %%
# In all three draws earlier layers of the fully connected network matter more, as Raghu et al. found, and those of the
# hierarchical network less. Draws and images are few, training is short, and the networks differ in more: in the number
# of weights (few in the first hierarchical layer, whose 3 x 3 pixels see no shapes) and in the normalisation by a
# batch.
