"""A picture of images as training sees them."""

from __future__ import annotations

import math

import numpy as np

from autodiff import tree_map
from hcnn_core.backend import array_namespace, to_numpy
from train.config import Config
from train.data import Images, spread
from train.pages import image_png
from train.recipes.augmentations import Position, batch_of, draw_batch

SHOWN = 32
"""Images in the picture of a report."""


def augmented(config: Config, images: Images, count: int = SHOWN) -> bytes | None:
    """Return a PNG file of some images of a set, augmented as in the first epoch, in rows of at most eight.

    They are drawn apart from all that a run draws. What cutout or a shift leaves empty has the mean colour. None of
    data that are no images of bytes.
    """
    total, *shape = images.images.shape
    if len(shape) != 3 or images.images.dtype != np.uint8:
        return None
    index = spread(total, min(count, total))
    drawn = draw_batch(config, np.random.default_rng(config.seed), Position(index, tuple(shape), 0, total))
    batch = batch_of(config, images, tree_map(array_namespace(images.labels).asarray, drawn))
    pixels = np.clip(np.rint(to_numpy(batch.images) * images.std + images.mean), 0, 255).astype(np.uint8)
    columns = min(8, len(index))
    rows = math.ceil(len(index) / columns)
    height, width, channels = shape
    page = np.full((rows * columns, height + 2, width + 2, channels), 255, np.uint8)
    page[: len(index), 1:-1, 1:-1] = pixels
    page = page.reshape(rows, columns, height + 2, width + 2, channels).swapaxes(1, 2)
    return image_png(page.reshape(rows * (height + 2), columns * (width + 2), channels))
