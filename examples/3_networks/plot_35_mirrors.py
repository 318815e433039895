r"""
Helices and chirps that a mirror exchanges
==========================================

The paper's x(u) may have any number of axes of space. Left and right helices in volumes are mirror images, of which no
rotation makes the other; chirps that rise and fall are signals with the same power spectrum. Does a network tell noisy
ones apart, and does it call the mirrored ones by the other name?
"""

import tempfile

import matplotlib.pyplot as plt
import numpy as np

from hcnn.train import Dataset, fit, make_config
from hcnn.train.networks.linear import linear_accuracy

SIDE, LENGTH, of_volumes, of_signals, epochs = 12, 96, 300, 200, 8
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


labels = np.arange(of_volumes + 100) % 2
volumes = np.stack([helix(2 * k - 1) for k in labels]).astype(np.float32)[..., None]
helices = Dataset("helices", ("left", "right"), volumes[100:], labels[100:], volumes[:100], labels[:100])

# %%
# Frequencies of chirps go from 0.05 to 0.25 cycles a sample, or back; phase, place and noise differ.

labels = np.arange(of_signals + 200) % 2
t = np.arange(LENGTH) - LENGTH / 2
place, phase = rng.uniform(-15, 15, (len(labels), 1)), rng.uniform(0, 2 * np.pi, (len(labels), 1))
rate = np.where(labels == 1, 1, -1)[:, None] * 0.1 / LENGTH
signals = np.sin(2 * np.pi * (0.15 * t + rate * (t - place) ** 2) + phase)
signals = (signals + 0.7 * rng.standard_normal(signals.shape)).astype(np.float32)[..., None]  # (N, u1, channels)
high = np.mean(np.abs(np.fft.rfft(signals[..., 0]))[:, LENGTH // 3 : -1] ** 2)
assert abs(high / (LENGTH * 0.7**2) - 1) < 0.1, "above 1/3 cycle a sample there is noise alone"
chirps = Dataset("chirps", ("falling", "rising"), signals[200:], labels[200:], signals[:200], labels[:200])

fig, panels = plt.subplots(1, 4, figsize=(12, 3), layout="constrained")
for k in range(2):
    panels[k].imshow(volumes[k, ..., 0].max(0), cmap="Greys")
    panels[k].set(title=f"{helices.class_names[k]}, seen along u1", xticks=[], yticks=[])
    panels[2 + k].plot(signals[k, :, 0], linewidth=1)
    panels[2 + k].set(title=chirps.class_names[k], yticks=[])

# %%
# The presets ``volume`` and ``signal`` mirror nothing, since a mirror changes the class. The control of chirps is a
# linear classifier of their spectra.


def learned(data, preset, settings):
    """A network; the part of test arrays that it names right, and of mirrored ones that it gives the other name."""
    curve: list[dict] = []
    with tempfile.TemporaryDirectory() as folder:
        config = make_config(preset, {**settings, "width": 6, "epochs": epochs})
        network = fit(config, data, out=f"{folder}/run", on_epoch=curve.append)
    assert curve[-1]["train_loss"] < curve[0]["train_loss"], "it learns"
    found, mirrored = (network.logits(x).argmax(1) for x in (data.test_images, data.test_images[:, ::-1].copy()))
    right, exchanged = np.mean(found == data.test_labels), np.mean(mirrored != data.test_labels)
    print(f"{data.name}: {right:.0%} of {len(found)} right; mirrored, {exchanged:.0%} get the other name")
    return network, right, exchanged


of_helices, *parts = learned(helices, "volume", {"depth": 5, "strided_layers": (2, 3), "batch_size": 20})
settings = {"depth": 6, "strided_layers": (2, 3, 4), "validation_size": 0}  # no tenth of 200 signals is held out
of_chirps, *others = learned(chirps, "signal", settings)
spectra, tested = (np.abs(np.fft.rfft(x[..., 0])) for x in (chirps.train_images, chirps.test_images))
by_spectrum = linear_accuracy(spectra, chirps.train_labels, tested, chirps.test_labels)
print(f"chirps by their spectra: {by_spectrum:.0%}")
assert of_helices.features(volumes[:1], 3).shape == (1, 3, 3, 3, 2, 3, 6), "three axes of space, three attributes"
assert of_chirps.axes(4) == ("n", "u1", "v2", "v3", "v4")
assert min(*parts, *others) > 0.9, "the order of frequencies"
assert abs(by_spectrum - 1 / 2) < 3 * 0.5 / np.sqrt(len(tested)), "not which there are: chance"

# %%
# Nothing here is measured; ``python -m benchmarks.signals`` is for series that people measured.
