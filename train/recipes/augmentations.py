"""How a step's batch is augmented: a table of parts, each with its settings, its random numbers and its map.

Random numbers are drawn on the host, so that all backends and numbers of ranks see the same batches. Each array of them
has the images of the batch along its first axis, so that ranks can share it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from hcnn_core.backend import Array, array_namespace, dtype_name
from hcnn_core.translation import map_affinely
from train.data import DatasetInfo, Images, resize
from train.data.augmentation import draw_holes, draw_sources, hide, interpolate, move, recolour
from train.settings import ConfigError, RunSettings, Section, setting

S = TypeVar("S", bound=Section)

Drawn = dict[str, Any]
"""Random numbers by name, arrays (N, ...) or dictionaries of such."""


class Batch(NamedTuple):
    """The images and labels of a step."""

    images: Array  # (N, u1, .., channels), standardised
    labels: Array  # (N,), what counts as right
    others: Array | None = None  # (N,), second labels, where images are mixed
    weight: Array | None = None  # (N,), part of the first labels in the targets
    counts: Array | None = None  # (N,), weights of images; None: all alike


@dataclass(frozen=True)
class Position:
    """Which images a step takes, and when."""

    index: NDArray[np.int64]  # (N,), of the batch's images in the set
    shape: tuple[int, ...]  # lengths of the axes of an image: those of space, and channels
    epoch: int
    count: int  # images of the set


class Augmentation(Generic[S]):
    """A part that changes images; S is the class that has all of its settings."""

    sections: ClassVar[tuple[type[Section], ...]]
    """Its settings."""
    switches: ClassVar[tuple[str, ...]] = ()
    """Settings of which one must be on for it, and its other settings, to do anything; none: always."""
    pixels: ClassVar[tuple[str, ...]] = ()
    """Settings in pixels: they are scaled with the size of the images, and must be below their shortest side."""
    of_images: ClassVar[bool] = False
    """Whether it is for images alone, and not for signals or volumes."""

    def is_on(self, settings: Section) -> bool:
        """Whether these settings switch it on."""
        return not self.switches or any(map(vars(settings).get, self.switches))

    def check(self, settings: S, info: DatasetInfo) -> None:
        """Raise ConfigError where its settings do not suit images, signals or volumes of such sizes and values."""
        *size, _ = info.image_shape
        for name in self.pixels:
            if (value := getattr(settings, name)) >= min(size):
                raise ConfigError(f"{name} is {value}; images of {'x'.join(map(str, size))} allow 0 to {min(size) - 1}")
        if self.of_images and len(size) != 2 and self.is_on(settings):
            *names, last = self.switches
            what = f"{', '.join(names)} and {last} are for images"
            raise ConfigError(f"{what}, which have two axes of space; these data have {len(size)}")

    def draw(self, settings: S, rng: np.random.Generator, position: Position) -> Drawn:
        """Draw its random numbers for the images of a batch."""
        raise NotImplementedError

    def apply(self, settings: S, images: Array, drawn: Mapping[str, Array], data: Images) -> Array:
        """Return changed images; `data` has the statistics that standardised them."""
        raise NotImplementedError


class MoveSettings(RunSettings):
    """Settings of translations and reflections."""

    shift: int = setting(6, "largest random translation, pixels along each axis; less than an image has", low=0)
    flip: bool = setting(True, "mirror half of the training images")
    made_for: int = setting(
        32,
        "shorter side, in pixels, of the images that a preset's shift and cutout are meant for: for images of another "
        "size both are scaled; 0: never",
        low=0,
    )


class AlternationSettings(MoveSettings):
    """Settings of reflections."""

    needs = "flip"
    alternate_flips: bool = setting(
        False, "with flip: mirror each image every other epoch, rather than by chance (arXiv:2404.00498)"
    )


class AffineSettings(RunSettings):
    """Settings of affine maps: with probability 1/6 each a rotation, a shear along an axis or the other, a scale."""

    rotate: float = setting(
        0.0, "largest rotation of training images, radians; one in six is rotated", low=0.0, high=3.2
    )
    shear: float = setting(0.0, "largest shear of training images; one in six along each axis", low=0.0, high=2.0)
    zoom: float = setting(
        0.0, "largest logarithm of a scale of training images; one in six is scaled", low=0.0, high=2.0
    )


class ColourSettings(RunSettings):
    """Settings of random colours."""

    brightness: float = setting(
        0.0, "largest number added to standardised training images, one for each", low=0.0, high=10.0
    )
    contrast: float = setting(
        0.0, "largest change of the factor of differences from a training image's mean", low=0.0, high=1.0
    )
    saturation: float = setting(
        0.0, "largest change of the factor of differences from a pixel's mean over colours", low=0.0, high=1.0
    )


class CutoutSettings(RunSettings):
    """Settings of hidden squares."""

    cutout: int = setting(
        0, "side in pixels of the square of each training image that is hidden (arXiv:1708.04552); 0: none", low=0
    )


class ResampleSettings(RunSettings):
    """Settings of stretched axes of space."""

    resample: float = setting(
        0.0,
        "largest logarithm of the factor that each axis of space of a training image is stretched by about its centre; "
        "its ends are repeated",
        low=0.0,
        high=2.0,
    )


class NoiseSettings(RunSettings):
    """Settings of noise."""

    noise: float = setting(
        0.0, "standard deviation of normal noise that is added to standardised training images", low=0.0, high=10.0
    )


class MixupSettings(RunSettings):
    """Settings of mixed images."""

    mixup: float = setting(
        0.0,
        "both parameters of the beta distribution by which each training image, and its label, is mixed with another's "
        "(arXiv:1710.09412); 0: none",
        low=0.0,
        high=100.0,
    )


SPACE_NAMES = "rows", "columns", "slices"
"""Names of the axes of space; signals have the first, volumes all."""


class Move(Augmentation[AlternationSettings]):
    """Translations with zeros, and reflections."""

    sections, pixels = (MoveSettings, AlternationSettings), ("shift",)

    def draw(self, settings: AlternationSettings, rng: np.random.Generator, position: Position) -> Drawn:
        """Draw where the positions of each image come from, along each axis."""
        flip: Any = settings.flip
        if settings.flip and settings.alternate_flips:
            flip = first_mirrored(settings.seed, position.count)[position.index] ^ bool(position.epoch % 2)
        shape = len(position.index), *position.shape
        return dict(zip(SPACE_NAMES, draw_sources(rng, shape, max_shift=settings.shift, flip=flip), strict=False))

    def apply(self, settings: AlternationSettings, images: Array, drawn: Mapping[str, Array], data: Images) -> Array:
        return move(images, *(drawn[axis] for axis in SPACE_NAMES[: images.ndim - 2]), max_shift=settings.shift)


@functools.lru_cache(maxsize=4)
def first_mirrored(seed: int, count: int) -> NDArray[np.bool_]:
    """Draw which images are mirrored in the first epoch, where flips alternate, from a generator of their own."""
    return np.random.default_rng([seed, 1]).integers(2, size=count).astype(bool)


class Affine(Augmentation[AffineSettings]):
    """One affine map of each image about its centre, bilinear, with zeros outside."""

    sections, switches, of_images = (AffineSettings,), ("rotate", "shear", "zoom"), True

    def draw(self, settings: AffineSettings, rng: np.random.Generator, position: Position) -> Drawn:
        """Draw the matrix of each image, (N, 2, 2): from a place in it to the place it comes from."""
        count = len(position.index)
        kind, strength = rng.integers(6, size=count), rng.uniform(-1, 1, count)
        angle = np.where(kind == 0, settings.rotate * strength, 0.0)
        scale = np.exp(np.where(kind == 3, settings.zoom * strength, 0.0))
        matrices = np.empty((count, 2, 2))
        matrices[:, 0, 0] = matrices[:, 1, 1] = np.cos(angle) * scale
        matrices[:, 0, 1] = np.where(kind == 1, settings.shear * strength, -np.sin(angle))
        matrices[:, 1, 0] = np.where(kind == 2, settings.shear * strength, np.sin(angle))
        return {"affine": matrices.astype(settings.dtype)}

    def apply(self, settings: AffineSettings, images: Array, drawn: Mapping[str, Array], data: Images) -> Array:
        return map_affinely(images, drawn["affine"])


class Colour(Augmentation[ColourSettings]):
    """Brightness, contrast and saturation of each image."""

    sections, switches, of_images = (ColourSettings,), ("brightness", "contrast", "saturation"), True

    def draw(self, settings: ColourSettings, rng: np.random.Generator, position: Position) -> Drawn:
        """Draw each image's brightness, and the differences of its two factors from 1, (N, 3)."""
        largest = settings.brightness, settings.contrast, settings.saturation
        return {"colour": (rng.uniform(-1, 1, (len(position.index), 3)) * largest).astype(settings.dtype)}

    def apply(self, settings: ColourSettings, images: Array, drawn: Mapping[str, Array], data: Images) -> Array:
        return recolour(images, drawn["colour"])


class Cutout(Augmentation[CutoutSettings]):
    """A hidden square."""

    sections, switches, pixels = (CutoutSettings,), ("cutout",), ("cutout",)

    def draw(self, settings: CutoutSettings, rng: np.random.Generator, position: Position) -> Drawn:
        """Draw which positions along each axis are hidden where they meet."""
        holes = draw_holes(rng, (len(position.index), *position.shape), settings.cutout)
        return {f"hidden_{axis}": along for axis, along in zip(SPACE_NAMES, holes, strict=False)}

    def apply(self, settings: CutoutSettings, images: Array, drawn: Mapping[str, Array], data: Images) -> Array:
        return hide(images, *(drawn[f"hidden_{axis}"] for axis in SPACE_NAMES[: images.ndim - 2]))


class Resample(Augmentation[ResampleSettings]):
    """Each axis of space stretched about its centre, by linear interpolation."""

    sections, switches = (ResampleSettings,), ("resample",)

    def draw(self, settings: ResampleSettings, rng: np.random.Generator, position: Position) -> Drawn:
        """Draw along each axis which samples meet, (N, length), and the part of the later one."""
        drawn: Drawn = {}
        for axis, length in zip(SPACE_NAMES, position.shape[:-1], strict=False):
            factor = np.exp(rng.uniform(-settings.resample, settings.resample, (len(position.index), 1)))
            centre = (length - 1) / 2
            place = np.clip(centre + (np.arange(length) - centre) / factor, 0, length - 1)
            first = np.minimum(place.astype(np.int64), max(length - 2, 0))
            drawn |= {f"first_{axis}": first, f"later_{axis}": (place - first).astype(settings.dtype)}
        return drawn

    def apply(self, settings: ResampleSettings, images: Array, drawn: Mapping[str, Array], data: Images) -> Array:
        for k, axis in enumerate(SPACE_NAMES[: images.ndim - 2], 1):
            images = interpolate(images, k, drawn[f"first_{axis}"], drawn[f"later_{axis}"])
        return images


class Noise(Augmentation[NoiseSettings]):
    """Normal noise, added to each value."""

    sections, switches = (NoiseSettings,), ("noise",)

    def draw(self, settings: NoiseSettings, rng: np.random.Generator, position: Position) -> Drawn:
        noise = rng.standard_normal((len(position.index), *position.shape), np.dtype(settings.dtype))
        return {"added": noise * np.asarray(settings.noise, settings.dtype)}

    def apply(self, settings: NoiseSettings, images: Array, drawn: Mapping[str, Array], data: Images) -> Array:
        return images + array_namespace(images).asarray(drawn["added"])


AUGMENTATIONS: dict[str, Augmentation[Any]] = {
    "move": Move(),
    "affine": Affine(),
    "resample": Resample(),
    "colour": Colour(),
    "cutout": Cutout(),
    "noise": Noise(),
}
"""Every part, in the order in which it draws its numbers and changes images."""


def _chosen(settings: RunSettings) -> Iterator[Augmentation[Any]]:
    return (part for part in AUGMENTATIONS.values() if part.is_on(settings))


def draw_batch(settings: MixupSettings, rng: np.random.Generator, position: Position) -> Drawn:
    """Draw the random numbers of a step's images; each array has them along its first axis.

    With mixup, "partner" holds the numbers of the other image of the batch that each is mixed with, and "weight" the
    part of the image itself, at least 1/2: so a rank that has one image of a pair can make the other too.
    """
    drawn: Drawn = {"index": position.index}
    for part in _chosen(settings):
        drawn |= part.draw(settings, rng, position)
    if settings.mixup:
        count = len(position.index)
        other, weight = rng.permutation(count), rng.beta(settings.mixup, settings.mixup, count)
        drawn["partner"] = {name: array[other] for name, array in drawn.items()}
        drawn["weight"] = np.maximum(weight, 1 - weight).astype(settings.dtype)
    return drawn


def _augmented(settings: RunSettings, images: Images, drawn: Mapping[str, Any]) -> tuple[Array, Array]:
    x, labels = images.take(drawn["index"])
    for part in _chosen(settings):
        x = part.apply(settings, x, drawn, images)
    return x, labels


def batch_of(settings: MixupSettings, images: Images, drawn: Drawn, size: tuple[int, ...] | None = None) -> Batch:
    """Return a step's augmented images with their labels, by the numbers of `draw_batch`; in another size if given."""
    x, labels = _augmented(settings, images, drawn)
    others = weight = None
    counts = None if images.weights is None else images.weights[drawn["index"]]
    if settings.mixup:
        xp = array_namespace(x)
        y, others = _augmented(settings, images, drawn["partner"])
        weight = xp.asarray(drawn["weight"])
        x = y + (x - y) * xp.reshape(weight, (-1, *(1,) * (x.ndim - 1)))
        if counts is not None and images.weights is not None:  # each label by what its own image counts
            one = weight * counts
            counts = one + (1 - weight) * images.weights[drawn["partner"]["index"]]
            weight = one / xp.maximum(counts, np.finfo(dtype_name(counts.dtype)).tiny)
    return Batch(resize(x, size or x.shape[1:-1]), labels, others, weight, counts)
