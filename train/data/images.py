"""A labelled set on the device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hcnn_core.backend import Array, array_namespace, to_numpy
from train.data.augmentation import standardise
from train.data.mapped import MappedImages
from train.data.targets import CLASSES, Targets


@dataclass(frozen=True)
class Images:
    """A labelled set on the device, with the statistics that standardise it."""

    images: Array  # pixels; or MappedImages, which are read when they are taken
    labels: Array  # classes (N,), yes/no labels (N, L), or standardised numbers (N, T)
    mean: Any  # of each channel, in units of a pixel value
    std: Any
    dtype: str  # of standardised images
    weights: Array | None = None  # weights of images, (N,), 1 in the mean; None: all alike
    targets: Targets = CLASSES
    by: str = "channel"  # what they are standardised by, see `STANDARDS`

    def take(self, index: Array | slice) -> tuple[Array, Array]:
        """Return standardised images and labels."""
        if isinstance(self.images, MappedImages):
            chosen = self.images[index if isinstance(index, slice) else to_numpy(index)]
            images = array_namespace(self.labels).asarray(np.asarray(chosen))
        else:
            images = self.images[index]
        return standardise(images, self.mean, self.std, self.dtype, self.by), self.labels[index]
