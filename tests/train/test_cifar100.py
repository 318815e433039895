"""CIFAR-100 (Table 2) from its files to its report: made-up images in the official binary format, 100 classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import log_softmax

from tests.train.runs import metrics, run_here, run_plainly
from train import load

SMALL = (
    *("--preset", "hcnn", "--dataset", "cifar100", "--depth", "5", "--width", "8", "--strided-layers", "1", "2"),
    *("--factors", "2", "--epochs", "1", "--batch-size", "20", "--learning-rate", "0.01"),
)
"""Of 200 images, at 8 x 8 pixels from layer 2 on: the axes of attributes, of 4 and 8 values, meet 11 x 11 taps."""


def write(folder: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Write the folder cifar-100-binary; return the test images (N, 32, 32, 3) and their fine labels.

    A record is the coarse label, the fine one, then all red pixels row by row, all green and all blue ones. Fine labels
    tell a class's colour, and coarse labels, 0 to 19, are of no use.
    """
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (100, 3))
    (folder / "cifar-100-binary").mkdir(parents=True)
    count = 200  # two images of each class
    for name in ("train.bin", "test.bin"):
        fine = rng.permutation(np.arange(count) % 100).astype(np.uint8)
        coarse = rng.integers(0, 20, count, np.uint8)
        noise = rng.normal(0, 40, (count, 3, 32, 32))
        planes = np.clip(colours[fine][:, :, None, None] + noise, 0, 255).astype(np.uint8)
        records = np.concatenate([coarse[:, None], fine[:, None], planes.reshape(count, -1)], axis=1)
        assert records.shape == (count, 3074)
        (folder / "cifar-100-binary" / name).write_bytes(records.tobytes())
    return planes.transpose(0, 2, 3, 1), fine


def test_the_whole_path(tmp_path: Path) -> None:
    """It trains, and what evaluation, report and explorer say is computed anew from the bytes of the files."""
    images, labels = write(tmp_path / "data")
    run = tmp_path / "run"
    data = ("--data-dir", str(tmp_path / "data"))
    said = run_plainly((*SMALL, *data, "--out", run), None).success()
    assert "hcnn on 200 images of cifar100" in said
    assert "attribute_kernel = [11, 11]" in (run / "config.toml").read_text()

    classifier = load(run)
    assert classifier.class_names[0] == "apple" and classifier.class_names[99] == "worm"
    last = classifier.network["layer04"]
    assert classifier.merged["layer03"]["w"].shape == (3, 3, 11, 11, 8) and last.outputs[-1] == 100
    logits = classifier.logits(images)
    loss = -log_softmax(logits.astype(float), axis=1)[np.arange(200), labels].mean()
    hits = np.count_nonzero(logits.argmax(axis=1) == labels)
    record = metrics(run)[-1]
    assert record["test_loss"] == pytest.approx(loss, rel=1e-5) and record["test_accuracy"] == hits / 200
    wrong = -log_softmax(logits.astype(float), axis=1)[np.arange(200), np.roll(labels, 1)].mean()
    assert abs(wrong - loss) > 1e-3  # negative control: other labels have another loss

    result = f"test: accuracy {hits / 2:.2f} %, loss {loss:.4f} nats, 200 images"
    assert result in said and result in run_here(("--evaluate", run, *data), None).success()
    (run / "report.html").unlink()
    run_here(("report", run, *data), None).success()
    assert f"{hits} of 200 are right" in (run / "report.html").read_text("utf-8")
