r"""
Rising and falling chirps
=========================

A signal has one axis of space, time. Chirps that rise and chirps that fall have the same power spectrum, so what tells
them apart is the order of their frequencies. Does a network with nine taps along time find it, where a linear
classifier of the spectrum cannot?
"""

import os
import tempfile

import matplotlib.pyplot as plt
import numpy as np

from train import Dataset, fit, make_config
from train.networks.linear import linear_accuracy

SMALL = os.environ.get("HCNN_EXAMPLES") == "small"
LENGTH, count, epochs = 96, 40 if SMALL else 200, 1 if SMALL else 8
rng = np.random.default_rng(0)

# %%
# Frequencies go from 0.05 to 0.25 cycles a sample, or back; phase, place and noise differ.

labels = np.arange(count + 200) % 2
t = np.arange(LENGTH) - LENGTH / 2
place, phase = rng.uniform(-15, 15, (len(labels), 1)), rng.uniform(0, 2 * np.pi, (len(labels), 1))
rate = np.where(labels == 1, 1, -1)[:, None] * 0.1 / LENGTH
signals = np.sin(2 * np.pi * (0.15 * t + rate * (t - place) ** 2) + phase)
signals = (signals + 0.7 * rng.standard_normal(signals.shape)).astype(np.float32)[..., None]  # (N, u1, channels)
data = Dataset("chirps", ("falling", "rising"), signals[200:], labels[200:], signals[:200], labels[:200])

fig, panels = plt.subplots(2, 1, figsize=(7, 3), layout="constrained", sharex=True)
for ax, signal, name in zip(panels, signals, data.class_names, strict=False):
    ax.plot(signal[:, 0], linewidth=1)
    ax.set(ylabel=name, yticks=[])

# %%
# The power spectrum says nothing of the order. The network sees it.

spectra, tested = (np.abs(np.fft.rfft(x[..., 0])) for x in (data.train_images, data.test_images))
by_spectrum = linear_accuracy(spectra, data.train_labels, tested, data.test_labels)

small = {"width": 6, "depth": 6, "strided_layers": (2, 3, 4), "epochs": epochs}
config = make_config("signal", {**small, "validation_size": 0})  # no tenth of 200 signals is held out
curve: list[dict] = []
with tempfile.TemporaryDirectory() as folder:
    network = fit(config, data, out=f"{folder}/run", on_epoch=curve.append)
right = np.mean(network.logits(data.test_images).argmax(1) == data.test_labels)
backwards = np.mean(network.logits(data.test_images[:, ::-1].copy()).argmax(1) != data.test_labels)
print(f"spectrum {by_spectrum:.0%}, network {right:.0%}; played backwards, {backwards:.0%} get the other name")
assert network.axes(4) == ("n", "u1", "v2", "v3", "v4")
if not SMALL:
    assert curve[-1]["train_loss"] < curve[0]["train_loss"], "it learns"
    assert by_spectrum < 0.65 and right > 0.9, "the order of frequencies, not which there are"
    assert backwards > 0.9, "a chirp that is played backwards is the other"

# %%
# This shows that a network along time uses the order in which things come. It does not show how it does on series that
# people measured; ``python -m benchmarks.signals`` is for those.
