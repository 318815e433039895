"""Images of Pillow, and files that it reads, as arrays of the size that a network was trained on."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from hcnn_core.backend import Array

if TYPE_CHECKING:
    from PIL.Image import Image

    Photograph = str | os.PathLike[str] | Image

__all__ = ["as_array", "pixels"]

MODES = {1: "L", 3: "RGB"}
"""What Pillow calls images of so many channels."""


def as_array(images: Array | Photograph | Sequence[Photograph], shape: tuple[int, int, int]) -> Array:
    """Return one photograph as `pixels` does, several as an array (N, H, W, C), and what is none of them as it is."""
    if _is_photograph(images):
        return pixels(images, shape)
    if isinstance(images, list | tuple) and images and all(map(_is_photograph, images)):
        return np.stack([pixels(image, shape) for image in images])
    array: Any = images
    return array


def pixels(image: Photograph, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Return the middle of a photograph, uint8 in the given shape, (H, W, C).

    It is turned upright, cut to the proportions of the shape and brought to its size; what is transparent is white.
    """
    from PIL import Image, ImageOps

    if not isinstance(image, Image.Image):
        with Image.open(image) as opened:
            return pixels(opened, shape)
    height, width, channels = shape
    if channels not in MODES:
        raise ValueError(f"the network takes {channels} channels, which no photograph has; give arrays")
    if image.mode[0] in "FI":
        raise ValueError(
            f"the image has mode {image.mode}, not 8 bits for each value; give an array of floats from 0 to 1"
        )
    upright = ImageOps.exif_transpose(image).convert("RGBA")
    opaque = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright).convert(MODES[channels])
    return np.asarray(ImageOps.fit(opaque, (width, height))).reshape(shape)


def _is_photograph(image: Any) -> TypeGuard[Photograph]:
    """Whether it is a path or an image of Pillow, which is not imported to ask."""
    pillow = sys.modules.get("PIL.Image")
    return isinstance(image, str | os.PathLike) or (pillow is not None and isinstance(image, pillow.Image))
