"""Images of Pillow, files that it reads, and arrays, brought to the size that a network was trained on."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from hcnn_core.backend import Array, array_namespace, to_numpy

if TYPE_CHECKING:
    from PIL.Image import Image

    Photograph = str | os.PathLike[str] | Image

MODES = {1: "L", 3: "RGB"}
"""What Pillow calls images of so many channels."""


def as_array(images: Array | Photograph | Sequence[Photograph], shape: tuple[int, ...]) -> Array:
    """Return one photograph as `pixels` does, several as an array (N, H, W, C), and what is none of them as it is."""
    if _is_photograph(images):
        return pixels(images, shape)
    if isinstance(images, list | tuple) and images and all(map(_is_photograph, images)):
        return np.stack([pixels(image, shape) for image in images])
    array: Any = images
    return array


def pixels(image: Photograph, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return the middle of a photograph, uint8 in the given shape, (H, W, C).

    It is turned upright, cut to the proportions of the shape and brought to its size; what is transparent is white.
    """
    if len(shape) != 3:
        raise ValueError("the network takes no images of bytes, so no photographs; give arrays, .npy or .npz")
    from PIL import Image, ImageOps

    if not isinstance(image, Image.Image):
        if os.fspath(image).endswith(".npy"):
            return _of_array(image, shape)
        if os.path.isdir(image):
            raise ValueError(f"{os.fspath(image)} is a folder; give a list of files, or ask `hcnn predict`")
        with Image.open(image) as opened:
            return pixels(opened, shape)
    height, width, channels = shape
    if channels not in MODES:
        raise ValueError(f"the network takes {channels} channels, which no photograph has; give arrays")
    _require_bytes(image)
    upright = ImageOps.exif_transpose(image).convert("RGBA")
    opaque = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright).convert(MODES[channels])
    return np.asarray(ImageOps.fit(opaque, (width, height))).reshape(shape)


def shape_of(path: str | os.PathLike[str]) -> tuple[int, int, int]:
    """Return rows, columns and channels of a photograph in a file, upright, or of an array: 1 channel if it is grey."""
    from PIL import Image

    if os.fspath(path).endswith(".npy"):
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        _require_image(array)
        rows, columns, *channels = array.shape
        return rows, columns, *(channels or [1])
    with Image.open(path) as image:
        _require_bytes(image)
        turned = image.getexif().get(0x0112, 1) > 4  # which the orientation lays on its side
        rows, columns = image.size if turned else image.size[::-1]
        return rows, columns, 1 if image.mode in ("1", "L", "LA") else 3


def _of_array(path: str | os.PathLike[str], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """`pixels` of an array in a file."""
    array = np.load(path, allow_pickle=False)
    _require_image(array)
    image = array.reshape(1, *array.shape[:2], -1)
    if image.shape[3] != shape[2] and image.shape[3] != 1:
        raise ValueError(f"it has {image.shape[3]} channels; {shape[2]} are expected")
    return np.asarray(np.broadcast_to(fitted(image, shape[:2])[0], shape))


def _require_bytes(image: Image) -> None:
    if image.mode[0] in "FI":
        raise ValueError(f"the image has mode {image.mode}, not 8 bits for each value; convert it to 8 bits")


def _require_image(array: NDArray[Any]) -> None:
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or 0 in array.shape:
        raise ValueError(f"it is {array.dtype} of shape {array.shape}; expected uint8 of shape (H, W) or (H, W, C)")


def fitted(images: Array, size: tuple[int, ...]) -> Array:
    """Return the middle of each image (N, H, W, C), uint8 or floats from 0 to 1, at another size, as `pixels` does."""
    if tuple(images.shape[1:3]) == size:
        return images
    from PIL import Image, ImageOps

    host, (rows, columns) = to_numpy(images), size
    planes = np.moveaxis(host.astype(host.dtype if host.dtype == np.uint8 else np.float32), 3, 1)
    made = np.empty((*planes.shape[:2], rows, columns), planes.dtype)
    for place in np.ndindex(made.shape[:2]):
        made[place] = ImageOps.fit(Image.fromarray(planes[place]), (columns, rows))
    return array_namespace(images).asarray(np.moveaxis(np.clip(made, 0, None if made.dtype == np.uint8 else 1), 1, 3))


def _is_photograph(image: Any) -> TypeGuard[Photograph]:
    """Whether it is a path or an image of Pillow, which is not imported to ask."""
    pillow = sys.modules.get("PIL.Image")
    return isinstance(image, str | os.PathLike) or (pillow is not None and isinstance(image, pillow.Image))
