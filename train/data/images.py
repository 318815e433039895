"""A labelled set on the device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hcnn_core.backend import Array, array_namespace, to_numpy
from train.data.augmentation import standardise
from train.data.mapped import MappedImages


@dataclass(frozen=True)
class Images:
    """A labelled set on the device, with the statistics that standardise it.

    Parameters
    ----------
    images : array of uint8, shape (N, H, W, C)
        Pixels; or MappedImages, which are read when they are taken.
    labels : array of int, shape (N,)
        Classes.
    mean, std : array, shape (C,)
        Of each channel, in units of a pixel value.
    dtype : str
        Of standardised images.
    """

    images: Array
    labels: Array
    mean: Any
    std: Any
    dtype: str

    def take(self, index: Array | slice) -> tuple[Array, Array]:
        """Return standardised images and labels.

        Parameters
        ----------
        index : array of int or slice
            Which.

        Returns
        -------
        images, labels : array
            Shapes (n, H, W, C) and (n,).
        """
        if isinstance(self.images, MappedImages):
            chosen = self.images[index if isinstance(index, slice) else to_numpy(index)]
            images = array_namespace(self.labels).asarray(np.asarray(chosen))
        else:
            images = self.images[index]
        return standardise(images, self.mean, self.std, self.dtype), self.labels[index]
