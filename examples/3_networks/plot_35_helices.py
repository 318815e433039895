r"""
Left and right helices
======================

Volumes have three axes of space, and the paper's x(u) may have any number of them. A left helix is the mirror image of
a right one, and no rotation makes one of the other. Can a network with 27 taps in space tell noisy ones apart, and does
it call a mirrored volume by the other name?
"""

import os
import tempfile

import matplotlib.pyplot as plt
import numpy as np

from train import Dataset, fit, make_config

SMALL = os.environ.get("HCNN_EXAMPLES") == "small"
SIDE, count, epochs = 12, 40 if SMALL else 300, 1 if SMALL else 8
rng = np.random.default_rng(0)

# %%
# A point of a helix is :math:`(t, r \cos(s \omega t + \phi), r \sin(s \omega t + \phi))`, with s = 1 or -1. Radius,
# frequency, phase, place and axis differ from volume to volume.


def helix(sign):
    """A volume (SIDE, SIDE, SIDE) with a helix of this handedness and noise."""
    t = np.linspace(0, SIDE - 1, 200)
    radius, turn = rng.uniform(2.5, 4), sign * rng.uniform(0.8, 1.2) * t + rng.uniform(0, 2 * np.pi)
    middle = (SIDE - 1) / 2 + rng.uniform(-1, 1, 2)
    line = np.stack([t, middle[0] + radius * np.cos(turn), middle[1] + radius * np.sin(turn)])
    grid = np.stack(np.meshgrid(*[np.arange(SIDE)] * 3, indexing="ij"))[..., None]
    distance = np.square(grid - line[:, None, None, None]).sum(0).min(-1)
    turned = np.transpose(np.exp(-distance / 1.5), np.roll([0, 1, 2], rng.integers(3)))  # which keeps the handedness
    return turned + 0.1 * rng.standard_normal(turned.shape)


labels = np.arange(count + 100) % 2
volumes = np.stack([helix(2 * k - 1) for k in labels]).astype(np.float32)[..., None]
data = Dataset("helices", ("left", "right"), volumes[100:], labels[100:], volumes[:100], labels[:100])

fig, panels = plt.subplots(1, 2, figsize=(6, 3), layout="constrained")
for ax, volume, name in zip(panels, volumes, data.class_names, strict=False):
    ax.imshow(volume[..., 0].max(0), cmap="Greys")
    ax.set(title=f"{name}, seen along u1", xticks=[], yticks=[])

# %%
# The preset ``volume`` mirrors nothing, since a mirror changes the class.

config = make_config("volume", {"width": 6, "depth": 5, "strided_layers": (2, 3), "epochs": epochs, "batch_size": 20})
curve: list[dict] = []
with tempfile.TemporaryDirectory() as folder:
    network = fit(config, data, out=f"{folder}/run", on_epoch=curve.append)
found = network.logits(data.test_images).argmax(1)
mirrored = network.logits(data.test_images[:, ::-1].copy()).argmax(1)
right = np.mean(found == data.test_labels)
print(f"{100 * right:.0f} % of {len(found)} volumes; mirrored, {100 * np.mean(mirrored != data.test_labels):.0f} %")
assert network.features(data.test_images[:1], 3).shape == (1, 3, 3, 3, 2, 3, 6), "three axes of space, three attributes"
if not SMALL:
    assert curve[-1]["train_loss"] < curve[0]["train_loss"], "it learns"
    assert right > 0.9 and np.mean(mirrored != data.test_labels) > 0.9, "a mirror changes the name"

# %%
# This shows that the same network tells volumes apart by what mirrors exchange. It does not show how it compares with
# others, nor what it does with volumes that nobody made.
