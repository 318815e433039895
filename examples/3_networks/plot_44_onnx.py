r"""
A trained network in onnxruntime
================================

``hcnn export NETWORK net.onnx`` writes a network as ordinary convolutions, which programs without this package can run.
The file takes images as they are, bytes as numbers from 0 to 255, and gives the logits. It needs the extra ``onnx``;
this page also needs ``onnxruntime``.
"""

# sphinx_gallery_thumbnail_path = '_static/thumbnails/plot_44_onnx.png'

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import onnxruntime

from hcnn.train import load, load_dataset

# %%
# One file holds the weights, the standardisation and, as metadata, the names of the classes.

place = tempfile.TemporaryDirectory()
file = Path(place.name) / "net.onnx"
subprocess.run([sys.executable, "-m", "hcnn", "export", "hcnn-fast", str(file)], check=True, capture_output=True)
session = onnxruntime.InferenceSession(str(file))
(taken,), (given,) = session.get_inputs(), session.get_outputs()
print(f"{file.stat().st_size / 1e6:.1f} MB: {taken.name} {taken.type} {taken.shape} -> {given.name} {given.shape}")
known = session.get_modelmeta().custom_metadata_map
print(sorted(known))

# %%
# The logits are the network's own, up to rounding in single precision.

sample, network = load_dataset("sample"), load("hcnn-fast")
images = sample.test_images[:100]
(logits,) = session.run(None, {taken.name: images.astype(np.float32)})
own = network.logits(images)
error = np.abs(logits - own).max() / np.abs(own).max()
right = np.mean(logits.argmax(1) == sample.test_labels[:100])
print(f"largest difference {error:.1e} of the largest logit; {right:.0%} right")
assert error < 1e-4 and (logits.argmax(1) == own.argmax(1)).all()

# %%
# The same four images, classified by the file alone.

names = json.loads(known["class_names"])
fig, axes = plt.subplots(1, 4, figsize=(8, 2.4), layout="constrained")
for ax, image, row in zip(axes, images, logits, strict=False):
    ax.imshow(image)
    ax.set_title(names[int(row.argmax())])
    ax.set_axis_off()
place.cleanup()
