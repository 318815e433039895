"""A labelled set on the device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hcnn_core.backend import Array
from train.data.augmentation import standardise


@dataclass(frozen=True)
class Images:
    """A labelled set on the device, with the statistics that standardise it.

    Parameters
    ----------
    images : array of uint8, shape (N, H, W, C)
        Pixels.
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

    def take(self, index: Array) -> tuple[Array, Array]:
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
        return standardise(self.images[index], self.mean, self.std, self.dtype), self.labels[index]
