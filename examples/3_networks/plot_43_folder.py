r"""
From a folder of pictures to a table of predictions
===================================================

``hcnn train --dataset pictures/`` takes a folder of pictures for each class, and ``hcnn predict RUN more/`` writes a
row for each picture. Here they are the small digits of scikit-learn, and both commands run as in a terminal.
"""

import csv
import io
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

epochs, per_class = "30", 80

# %%
# Digits 3, 5 and 8, of 16 x 16 pixels, are written as PNG files: some for training, 30 of each for later.

digits = load_digits()
place = tempfile.TemporaryDirectory()
root = Path(place.name)
for digit in (3, 5, 8):
    chosen = np.flatnonzero(digits.target == digit)[: per_class + 30]
    for number, k in enumerate(chosen):
        folder = root / ("pictures" if number < per_class else "more") / str(digit)
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.kron(digits.images[k] * 255 / 16, np.ones((2, 2)))
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number:03d}.png")
print(*sorted(str(path.relative_to(root)) for path in root.glob("*/*")))


def hcnn(*arguments: str) -> str:
    """Run a command in the folder, and return what it printed."""
    command = [sys.executable, "-m", "hcnn", *arguments]
    return subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout


# %%
# About one picture in five is for the test, a tenth of the others is held out, and the run says so. A mirrored
# 3 is no 3, so nothing is mirrored.

flags = ("--preset", "hcnn-fast", "--width", "8", "--depth", "8", "--factors", "16", "--batch-size", "20", "--no-flip")
text = hcnn("train", "--dataset", "pictures/", *flags, "--epochs", epochs, "--out", "run")
print(*text.splitlines()[:4], "...", *(line for line in text.splitlines() if line.startswith("test: ")), sep="\n")

# %%
# The table has a row for each file: its path, and the classes from the most probable on.

table = hcnn("predict", "run", "more")
print(*table.splitlines()[:4], "...", sep="\n")
rows = list(csv.DictReader(io.StringIO(table)))
right = np.mean([Path(row["path"]).parent.name == row["class"] for row in rows])
print(f"{len(rows)} pictures, {100 * right:.0f} % right")
assert len(rows) == 90
assert right > 0.9, "most of the pictures that it has not seen"

# %%
# The pictures that it is least sure of.

rows.sort(key=lambda row: float(row["probability"]))
fig, axes = plt.subplots(1, 6, figsize=(10, 2.2), layout="constrained")
for ax, row in zip(axes, rows, strict=False):
    ax.imshow(Image.open(root / row["path"]), cmap="gray_r")
    ax.set_title(f"{row['class']}: {100 * float(row['probability']):.0f} %, {row['class_2']}: "
                 f"{100 * float(row['probability_2']):.0f} %", fontsize=8)  # fmt: skip
    ax.set_axis_off()
place.cleanup()
