r"""
LeNet-5 on this tape
====================

LeNet-5 (LeCun, Bottou, Bengio and Haffner, *Gradient-based learning applied to document recognition*, 1998; Figure 2
and Table I there) is the first network of Tanner's lecture *Visualising the filters and response, memory, in a CNN*. We
count its numbers, train it, and look at its filters and at its responses to an image. ``train/networks/lenet.py`` has
its layers, in functions of NumPy and :func:`hcnn.autodiff.convolve`.
"""

import tempfile

import matplotlib.pyplot as plt
import numpy as np
from skimage.util import montage

from hcnn.train import fit, load_dataset, make_config
from hcnn.train.networks.lenet import CONNECTIONS, build

epochs = 10

# %%
# On grey images the layers have the trainable numbers that the paper counts. Our last layer is dense; the paper's
# compares with fixed drawings of the ten digits, which CIFAR-10 does not have.

grey = build(make_config("lenet"), (32, 32), channels=1)
print(grey.describe())
trained = [layer.trainable for layer in grey.table]
assert trained == [156, 12, 1516, 32, 48120, 10164, 850] and sum(trained[:-1]) == 60_000

# %%
# Table I says which maps of S2 each map of C3 sees. Maps that see different inputs learn different features.

fig, ax = plt.subplots(figsize=(6, 2.6), layout="constrained")
ax.imshow(CONNECTIONS, cmap="Greys")
ax.set(xlabel="map of C3", ylabel="map of S2", xticks=range(16), yticks=range(6))
assert CONNECTIONS.sum() == 60

# %%
# :func:`hcnn.train.fit` does what ``python -m hcnn train --preset lenet`` does. Here it learns the 2,000 images that
# ship, of which 200 are held out, by gradient descent with a momentum of 0.9; the paper has a second-order method of
# its own.

config = make_config("lenet", {"dataset": "sample", "validation_size": 200, "batch_size": 20, "epochs": epochs})
curve: list[dict] = []
with tempfile.TemporaryDirectory() as folder:
    classifier = fit(config, out=f"{folder}/run", on_epoch=curve.append)
assert len(curve) == epochs and curve[-1]["train_loss"] < curve[0]["train_loss"], "it learns, once"
assert classifier.checkpoint.config.learning_rate == 0.03 and config.momentum == 0.9, "the preset's"

sample = load_dataset("sample")
right = np.mean(classifier.logits(sample.test_images).argmax(axis=1) == sample.test_labels)
print(f"{100 * right:.1f} % of {len(sample.test_labels)} test images")
assert right == classifier.figures["test_accuracy"] and abs(right - 0.4) < 0.05

# %%
# The six filters of C1 in colour, and what C1, S2, C3 and S4 make of a test image.

parameters = classifier.checkpoint.state.evaluated
image = sample.test_images[1]
assert not parameters["C3"]["w"].transpose(0, 3, 1, 2)[~CONNECTIONS].any(), "what is not connected learns nothing"

fig, panels = plt.subplots(1, 6, figsize=(12, 2.8), layout="constrained", width_ratios=[1, 1.5, 1.5, 1.5, 1.5, 1.5])
panels[0].imshow(image)
panels[0].set_title(f"image: {sample.class_names[sample.test_labels[1]]}")
w = parameters["C1"]["w"].transpose(3, 1, 2, 0)  # (6, 5, 5, colours)
panels[1].imshow(montage(0.5 + w / (2 * abs(w).max()), [1, 1, 1], grid_shape=(2, 3), padding_width=1, channel_axis=-1))
panels[1].set_title("filters of C1")
for ax, (name, rows) in zip(panels[2:], {"C1": 2, "S2": 2, "C3": 4, "S4": 4}.items(), strict=True):
    maps = classifier.features(image, name).transpose(2, 0, 1)
    tiles = montage(maps, 1.72, grid_shape=(rows, len(maps) // rows), padding_width=1)
    ax.imshow(tiles, cmap="gray", vmin=-1.72)
    ax.set_title(f"responses of {name}")
    assert ax.images[0].get_array().min() < 0 < maps.max(), "of both signs"
plt.setp(panels, xticks=[], yticks=[])

# %%
# This shows that a classical network is trained by the same commands. It does not show what LeNet-5 can do: it was made
# for digits, and 2,000 photographs are few and hard.
