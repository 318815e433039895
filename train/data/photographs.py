"""Pictures: images of Pillow, files that it reads, stacks of TIFF, and arrays, brought to the shape a network takes."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from hcnn_core.backend import Array, array_namespace, to_numpy
from train.data.dataset import MOST_COLOURS, UNITS
from train.data.readers import READERS, endings_for, reader_of

if TYPE_CHECKING:
    from PIL.Image import Image

    Photograph = str | os.PathLike[str] | Image

MODES = {1: "L", 3: "RGB"}
"""Pillow's modes by number of channels."""

NOT_READ = ("BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF")
"""Formats that Pillow opens by a program of their own, or not at all."""

ONE_PICTURE = ("MPO", "PSD")
"""Formats whose later frames are previews or layers of the first."""


@functools.cache
def endings() -> frozenset[str]:
    """Return the endings of files that folders may hold, in small letters: of Pillow's formats, and of arrays."""
    from PIL import Image

    formats = Image.registered_extensions()
    pictures = {e for e, f in formats.items() if (f in Image.OPEN or f == "MPO") and f not in NOT_READ}
    return frozenset(pictures | {ending for ending, reader in READERS.items() if reader.in_folders})


def as_array(images: Array | Photograph | Sequence[Photograph], shape: tuple[int, ...], values: str = "uint8") -> Array:
    """Return one photograph as `pixels` does, several as an array (N, H, W, C), and anything else as it is."""
    if _is_photograph(images):
        return pixels(images, shape, values)
    if isinstance(images, list | tuple) and images and all(map(_is_photograph, images)):
        return np.stack([pixels(image, shape, values) for image in images])
    array: Any = images
    return array


def pixels(image: Photograph, shape: tuple[int, ...], values: str = "uint8") -> NDArray[Any]:
    """Return the middle of a photograph in the given shape, (H, W, C); or a volume (D, H, W, C), or a signal (T, C).

    It is turned upright, cut to the proportions of the shape and brought to its size; what is transparent is white.
    `values` is "uint8" for pictures of 8 bits, or "float32" or "float64" for grey ones of more, in their own units.
    Volumes and signals have the shape already. ValueError of any other picture.
    """
    if not shape:
        kinds = " or ".join(endings_for(2))
        raise ValueError(f"the network takes no images of bytes, so no photographs; give arrays, {kinds}")
    from PIL import Image, ImageOps

    if not isinstance(image, Image.Image):
        if os.path.isdir(image):
            raise ValueError(f"{os.fspath(image)} is a folder; give a list of files, or ask `hcnn predict`")
        if is_array(image) or len(shape) != 3:
            array = _array_of(image, len(shape) - 1, shape[-1])
            _require_values(array.dtype, values)
            if len(shape) == 3:
                return _fit(_as(array, values), shape)
            if array.shape != shape:
                size, wanted = ("x".join(map(str, lengths)) for lengths in (array.shape, shape))
                raise ValueError(f"it holds {size} values; expected {wanted}")
            return _as(array, values)
        with open(image, "rb") as stream, Image.open(stream) as opened:  # a path would let Pillow map its bytes
            return pixels(opened, shape, values)
    if len(shape) != 3:
        raise ValueError("the network takes stacks of pages, and this is one picture; give the path of a stack")
    height, width, channels = shape
    if channels not in MODES:
        raise ValueError(f"the network takes {channels} channels, which no photograph has; give arrays")
    _require_values(_dtype_of(image), values, f"mode {image.mode}")
    upright = ImageOps.exif_transpose(image)
    if values != "uint8":
        return _fit(_as(_with_channels(np.asarray(upright), 2, channels), values), shape)
    upright = upright.convert("RGBA")
    opaque = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright).convert(MODES[channels])
    return np.asarray(ImageOps.fit(opaque, (width, height))).reshape(shape)


def shape_of(path: str | os.PathLike[str], axes: int = 0) -> tuple[tuple[int, ...], str]:
    """Return the shape of a file's picture, upright, and the dtype that keeps its values: see `HELD`.

    A photograph is (rows, columns, channels), of 1 channel if it is grey; a stack of TIFF has its pages before. `axes`
    are those of space of an array; where that is 0 its shape says it.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    if is_array(path):
        array = _array_of(path, axes)
        return array.shape, held(array.dtype)
    with open(path, "rb") as stream:
        try:
            image = Image.open(stream)
        except UnidentifiedImageError:
            if not os.fspath(path).lower().endswith((".tif", ".tiff")):
                raise
            image = None  # a stack of float64, for one
        if image is None or (image.format == "TIFF" and _frames(image) > 1):
            pages = _array_of(path, 3)
            return pages.shape, held(pages.dtype)
        values, turned = held(_dtype_of(image)), image.getexif().get(0x0112, 1) > 4
        if image.format == "TIFF" and turned:  # some versions of Pillow turn its size as they open it, others later
            size = ImageOps.exif_transpose(image).size[::-1]
        else:
            size = image.size if turned else image.size[::-1]
        return (*size, 1 if values != "uint8" or image.mode in ("1", "L", "LA") else 3), values


HELD = {"uint8": "uint8"} | dict.fromkeys(("bool", "int8", "int16", "uint16", "float16", "float32"), "float32")
"""The dtype that keeps values of a dtype unchanged; for all others float64."""


def held(dtype: Any) -> str:
    """Return the dtype that keeps values of another dtype."""
    return HELD.get(np.dtype(dtype).name, "float64")


def is_array(path: Any) -> bool:
    """Return whether a file of a folder holds an array."""
    reader = reader_of(path)
    return reader is not None and reader.in_folders


def _array_of(path: Any, axes: int, channels: int = 0) -> NDArray[Any]:
    """Return a file's array, or its stack of TIFF, with an axis of channels; its numbers are finite."""
    reader = reader_of(path)
    if reader is None or not reader.in_folders:
        return _finite(_pages(path))
    array = reader.samples(Path(path))[0]
    if array.dtype.newbyteorder("=") not in reader.dtypes:
        kind = np.result_type(array.dtype, np.float32).name
        advice = f"array.astype('{kind}')" if array.dtype.kind in "biuf" else "an array of such numbers"
        raise ValueError(f"it holds {array.dtype}; expected {' or '.join(reader.dtypes)}: save {advice}")
    return _with_channels(array, axes or (reader.axes[0] if len(reader.axes) == 1 else 0), channels)


def _frames(image: Image) -> int:
    return int(getattr(image, "n_frames", 1)) if image.format not in ONE_PICTURE else 1


def _dtype_of(image: Image) -> Any:
    """Return the dtype of a picture's values; ValueError if it has several."""
    if (count := _frames(image)) > 1:
        raise ValueError(f"it has {count} pages or frames, and one picture is taken; save each in a file of its own")
    if image.mode == "L" and 2 in getattr(image, "tag_v2", {}).get(339, ()):  # signed numbers
        raise ValueError("it holds int8, which Pillow reads as uint8; save it as int16 or float32")
    if image.mode == "I" and image.format == "TIFF":
        return np.dtype(np.int32)
    return np.dtype({"F": np.float32, "I": np.uint16}.get(image.mode[0], np.uint8))


def _require_values(dtype: Any, wanted: str, said: str = "") -> None:
    """Raise ValueError for bytes where other values are wanted, and for others where bytes are."""
    if (dtype == np.uint8) != (wanted == "uint8"):
        bits = {True: "8 bits for each value", False: "more than 8 bits for each value, and grey"}
        has = bits[dtype == np.uint8].partition(",")[0]
        raise ValueError(f"it has {has} ({said or dtype}); expected {bits[wanted == 'uint8']}: convert it")


def _as(array: NDArray[Any], values: str) -> NDArray[Any]:
    """Return an array in another dtype; ValueError where its numbers are too large for that."""
    with np.errstate(over="ignore"):
        result = array.astype(values)
    if array.dtype.kind == "f" and not np.isfinite(result).all():
        largest = np.abs(array).max()
        raise ValueError(f"it holds numbers up to {largest:.3g}, too large for {values}")
    return result


def _pages(path: Any) -> NDArray[Any]:
    """Return the first series of a TIFF file, (D, H, W, C)."""
    try:
        import tifffile
    except ModuleNotFoundError as error:
        raise ValueError("it is a stack, or no picture of Pillow's; tifffile: pip install 'hcnn[tiff]'") from error
    with tifffile.TiffFile(path) as file:
        array, axes = file.series[0].asarray(), file.series[0].axes
    if array.ndim not in (3, 4) or (array.ndim == 4) != (axes[-1] == "S"):
        raise ValueError(f"it is {array.dtype} {array.shape}, axes {axes}; expected pages, or one page of float32")
    if array.dtype.kind not in "biuf":
        raise ValueError(f"it is a stack of {array.dtype}; expected real numbers")
    return array if array.ndim == 4 else array[..., None]


def _with_channels(array: NDArray[Any], axes: int, channels: int = 0) -> NDArray[Any]:
    """One sample with its axis of channels, as many as are wanted; where `axes` is 0 its shape says what it is."""
    space = axes or {2: 2, 3: 2, 4: 3}.get(array.ndim, 0)
    if not space or array.ndim - space not in (0, 1) or 0 in array.shape:
        wanted = {1: "(T,) or (T, C)", 2: "(H, W) or (H, W, C)", 3: "(D, H, W) or (D, H, W, C)"}
        kind = f"{UNITS[axes]} of shape {wanted[axes]}" if axes else " or ".join(wanted.values())
        raise ValueError(f"it has the shape {array.shape}; expected {kind}")
    first, last = array.shape[0], array.shape[-1]
    if axes != 2 and array.ndim == space + 1 and first <= MOST_COLOURS and first < last:
        raise ValueError(
            f"it has the shape {array.shape}, with channels first it seems; channels are the last of its axes: save "
            f"np.moveaxis(array, 0, -1), or give hcnn.train.load_dataset axes={space} if there are {last} channels"
        )
    sample = _finite(array if array.ndim > space else array[..., None])
    if channels and sample.shape[-1] not in (1, channels):
        raise ValueError(f"it has {sample.shape[-1]} channels; {channels} are expected")
    return np.broadcast_to(sample, (*sample.shape[:-1], channels)) if channels else sample


def _finite(array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError("it holds values that are not finite")
    return array


def _fit(image: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Return the middle of one image (H, W, C), of bytes or floats, in a shape."""
    if image.shape == shape:
        return image
    from PIL import Image, ImageOps

    rows, columns, channels = shape
    if image.dtype == np.float64:  # Pillow resizes float32
        mean = image.mean(axis=(0, 1))
        return _fit((image - mean).astype(np.float32), shape) + mean
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
