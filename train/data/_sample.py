"""The embedded sample: real CIFAR-10 images, coded without loss, read with NumPy and the standard library.

The images become planes of G, R - G + 128 and B - G + 128 (modulo 256), each pixel the residual of a prediction
from its neighbours west, north and northwest (LOCO-I's median of w, n and w + n - nw), each residual folded to
0, -1, 1, -2, .. -> 0, 1, 2, 3, .., then LZMA.
"""

from __future__ import annotations

import hashlib
import json
import lzma
from importlib import resources
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from train.data.dataset import IMAGE_SHAPE, DataError

Bytes: TypeAlias = NDArray[np.uint8]

DATA_FILE = "cifar10.xz"
MANIFEST_FILE = "cifar10.json"


def decode(data: bytes) -> tuple[Bytes, NDArray[np.int64]]:
    """Return the images (N, 32, 32, 3) and labels (N,) of a compressed string."""
    coded = np.frombuffer(lzma.decompress(data), np.uint8)
    labels, coded_images = np.split(coded, [coded.size // (1 + int(np.prod(IMAGE_SHAPE)))])
    folded = coded_images.reshape(3, len(labels), *IMAGE_SHAPE[:2]).transpose(2, 3, 0, 1)
    planes = np.ascontiguousarray((folded >> 1) ^ -(folded & 1))  # (32, 32, 3, N), residuals until predicted
    for row, column in np.ndindex(planes.shape[:2]):
        planes[row, column] += _predict(planes, row, column)
    green = planes[:, :, 0]
    red, blue = planes[:, :, 1] + green - np.uint8(128), planes[:, :, 2] + green - np.uint8(128)
    return np.ascontiguousarray(np.stack([red, green, blue]).transpose(3, 1, 2, 0)), labels.astype(np.int64)


def _predict(planes: Bytes, row: int, column: int) -> Bytes:
    """Predict the pixel (row, column) of all planes from the pixels before it."""
    if row == 0 or column == 0:
        return planes[row, column - 1] if column else planes[row - 1, 0] if row else np.zeros_like(planes[0, 0])
    west, north, northwest = planes[row, column - 1], planes[row - 1, column], planes[row - 1, column - 1]
    slope = west.astype(np.int16) + north - northwest
    median: Bytes = np.clip(slope, np.minimum(west, north), np.maximum(west, north)).astype(np.uint8)
    return median


def digest(images: Bytes, labels: NDArray[np.int64]) -> str:
    """SHA-256 of the labels, a byte each, then the pixels."""
    return hashlib.sha256(labels.astype(np.uint8).tobytes() + images.tobytes()).hexdigest()


def load() -> tuple[Bytes, NDArray[np.int64], int]:
    """Return images and labels of the embedded sample, and how many of them are for training."""
    folder = resources.files("train.data") / "sample"
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST_FILE).read_text("utf-8"))
        images, labels = decode((folder / DATA_FILE).read_bytes())
        intact = digest(images, labels) == manifest["sha256"]
        train_count = len(manifest["train_indices"])
    except (OSError, EOFError, lzma.LZMAError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"the embedded sample cannot be read ({error}): install the package again") from error
    if not intact:
        raise DataError("the embedded sample's SHA-256 is not the recorded one: install the package again")
    return images, labels, train_count
