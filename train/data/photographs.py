"""Pictures: images of Pillow, files that it reads, stacks of TIFF, and arrays, brought to the shape a network takes."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from hcnn_core.backend import Array, array_namespace, to_numpy
from train.data.dataset import DTYPES
from train.data.readers import endings_for

if TYPE_CHECKING:
    from PIL.Image import Image

    Photograph = str | os.PathLike[str] | Image

MODES = {1: "L", 3: "RGB"}
"""What Pillow calls images of so many channels."""

NOT_READ = ("BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF")
"""Formats that Pillow opens by a program of their own, or not at all."""

ONE_PICTURE = ("MPO", "PSD")
"""Formats whose first frame is the picture, and the others are previews or layers of it."""


@functools.cache
def endings() -> frozenset[str]:
    """Return the endings of files that are read, in small letters: those of Pillow's formats and of NumPy's arrays."""
    from PIL import Image

    formats = Image.registered_extensions()
    return frozenset(
        {e for e, f in formats.items() if (f in Image.OPEN or f == "MPO") and f not in NOT_READ} | {".npy"}
    )


def as_array(images: Array | Photograph | Sequence[Photograph], shape: tuple[int, ...], values: str = "uint8") -> Array:
    """Return one photograph as `pixels` does, several as an array (N, H, W, C), and what is none of them as it is."""
    if _is_photograph(images):
        return pixels(images, shape, values)
    if isinstance(images, list | tuple) and images and all(map(_is_photograph, images)):
        return np.stack([pixels(image, shape, values) for image in images])
    array: Any = images
    return array


def pixels(image: Photograph, shape: tuple[int, ...], values: str = "uint8") -> NDArray[Any]:
    """Return the middle of a photograph in the given shape, (H, W, C), or a stack, (D, H, W, C).

    It is turned upright, cut to the proportions of the shape and brought to its size; what is transparent is white.
    `values` is "uint8" for pictures of 8 bits, or "float32" for grey ones of 16 bits and more, in their own units. A
    stack has the shape already. ValueError of any other picture.
    """
    if not shape:
        kinds = " or ".join(endings_for(2))
        raise ValueError(f"the network takes no images of bytes, so no photographs; give arrays, {kinds}")
    from PIL import Image, ImageOps

    if not isinstance(image, Image.Image):
        if os.path.isdir(image):
            raise ValueError(f"{os.fspath(image)} is a folder; give a list of files, or ask `hcnn predict`")
        if _is_array(image) or len(shape) == 4:
            array = np.load(image, allow_pickle=False) if _is_array(image) else _pages(image)
            _require_values(_held(array.dtype == np.uint8), values)
            if len(shape) == 3:
                return _fit(_with_channels(array, shape).astype(values), shape)
            if array.shape != shape:
                size, wanted = ("x".join(map(str, lengths)) for lengths in (array.shape, shape))
                raise ValueError(f"it holds {size} values; expected {wanted}")
            return array.astype(values)
        with open(image, "rb") as stream, Image.open(stream) as opened:  # a path would let Pillow map its bytes
            return pixels(opened, shape, values)
    if len(shape) != 3:
        raise ValueError("the network takes stacks of pages, and this is one picture; give the path of a stack")
    height, width, channels = shape
    if channels not in MODES:
        raise ValueError(f"the network takes {channels} channels, which no photograph has; give arrays")
    _require_values(_values_of(image), values, image.mode)
    upright = ImageOps.exif_transpose(image)
    if values != "uint8":
        return _fit(_with_channels(np.asarray(upright), shape).astype(values), shape)
    upright = upright.convert("RGBA")
    opaque = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright).convert(MODES[channels])
    return np.asarray(ImageOps.fit(opaque, (width, height))).reshape(shape)


def shape_of(path: str | os.PathLike[str]) -> tuple[tuple[int, ...], str]:
    """Return the shape of what a file holds, upright, and how its values are held: "uint8", or "float32".

    A photograph is (rows, columns, channels), of 1 channel if it is grey; a stack of TIFF has its pages before.
    """
    from PIL import Image, ImageOps

    if _is_array(path):
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        return _with_channels(array, ()).shape, _held(array.dtype == np.uint8)
    with open(path, "rb") as stream, Image.open(stream) as image:
        if image.format == "TIFF" and _frames(image) > 1:
            pages = _pages(path)
            return pages.shape, _held(pages.dtype == np.uint8)
        values, turned = _values_of(image), image.getexif().get(0x0112, 1) > 4
        if image.format == "TIFF" and turned:  # some versions of Pillow turn its size as they open it, others later
            size = ImageOps.exif_transpose(image).size[::-1]
        else:
            size = image.size if turned else image.size[::-1]
        return (*size, 1 if values != "uint8" or image.mode in ("1", "L", "LA") else 3), values


def _held(as_bytes: bool) -> str:
    return "uint8" if as_bytes else "float32"


def _is_array(path: Any) -> bool:
    return os.fspath(path).lower().endswith(".npy")


def _frames(image: Image) -> int:
    return int(getattr(image, "n_frames", 1)) if image.format not in ONE_PICTURE else 1


def _values_of(image: Image) -> str:
    """How the values of one picture are held; ValueError of several."""
    if (count := _frames(image)) > 1:
        raise ValueError(f"it has {count} pages or frames, and one picture is taken; save each in a file of its own")
    return _held(image.mode[0] not in "FI")


def _require_values(kind: str, wanted: str, mode: str = "float32") -> None:
    if kind != wanted:
        bits = {"uint8": "8 bits for each value", "float32": "more than 8 bits for each value, and grey"}
        raise ValueError(f"it has {bits[kind].partition(',')[0]} (mode {mode}); expected {bits[wanted]}: convert it")


def _pages(path: Any) -> NDArray[Any]:
    """Return what the first series of a TIFF file holds, (D, H, W, C)."""
    try:
        import tifffile
    except ModuleNotFoundError as error:
        raise ValueError("it has several pages, a stack, which needs tifffile: pip install 'hcnn[tiff]'") from error
    with tifffile.TiffFile(path) as file:
        array, axes = file.series[0].asarray(), file.series[0].axes
    if array.ndim not in (3, 4) or (array.ndim == 4) != (axes[-1] == "S"):
        raise ValueError(f"it is a stack of axes {axes} and shape {array.shape}; expected pages of grey or colour")
    return array if array.ndim == 4 else array[..., None]


def _with_channels(array: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """One image with its axis of channels, as many as a shape has."""
    if array.dtype.newbyteorder("=") not in DTYPES or array.ndim not in (2, 3) or 0 in array.shape:
        raise ValueError(f"it is {array.dtype} of shape {array.shape}; expected numbers of shape (H, W) or (H, W, C)")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError("it holds values that are not finite")
    image = array if array.ndim == 3 else array[..., None]
    if shape and image.shape[2] not in (1, shape[2]):
        raise ValueError(f"it has {image.shape[2]} channels; {shape[2]} are expected")
    return np.broadcast_to(image, (*image.shape[:2], shape[2])) if shape else image


def _fit(image: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Return the middle of one image (H, W, C), uint8 or float32, in a shape."""
    if image.shape == shape:
        return image
    from PIL import Image, ImageOps

    rows, columns, channels = shape
    planes = (Image.fromarray(np.ascontiguousarray(image[..., c])) for c in range(channels))
    return np.stack([np.asarray(ImageOps.fit(plane, (columns, rows))) for plane in planes], axis=2)


def fitted(images: Array, size: tuple[int, ...]) -> Array:
    """Return the middle of each image (N, H, W, C), uint8 or floats from 0 to 1, at another size, as `pixels` does."""
    if tuple(images.shape[1:3]) == size:
        return images
    host = to_numpy(images)
    host = host.astype(host.dtype if host.dtype == np.uint8 else np.float32)
    result = np.empty((len(host), *size, host.shape[3]), host.dtype)
    for k, image in enumerate(host):
        result[k] = _fit(image, result.shape[1:])
    return array_namespace(images).asarray(np.clip(result, 0, None if result.dtype == np.uint8 else 1))


def _is_photograph(image: Any) -> TypeGuard[Photograph]:
    """Whether it is a path or an image of Pillow, which is not imported to ask."""
    pillow = sys.modules.get("PIL.Image")
    return isinstance(image, str | os.PathLike) or (pillow is not None and isinstance(image, pillow.Image))
