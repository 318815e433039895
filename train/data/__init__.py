"""Image data: CIFAR-10, CIFAR-100, an embedded sample and one's own, their splits, and augmented batches of them."""

from train.data.augmentation import (
    augment,
    channel_statistics,
    draw_holes,
    draw_sources,
    hide,
    interpolate,
    move,
    recolour,
    resize,
    standardise,
    views,
)
from train.data.cifar import INFO, load_dataset
from train.data.custom import UNNAMED, dataset_from_arrays, has_axes, is_custom, is_function
from train.data.dataset import (
    DataError,
    Dataset,
    DatasetInfo,
    Samples,
    balanced_weights,
    class_notes,
    require_varying,
    require_varying_numbers,
    split_validation,
    spread,
    train_subset,
)
from train.data.images import Images
from train.data.mapped import MappedImages
from train.data.targets import Targets

__all__ = [
    "INFO",
    "UNNAMED",
    "DataError",
    "Dataset",
    "DatasetInfo",
    "Images",
    "MappedImages",
    "Samples",
    "Targets",
    "augment",
    "balanced_weights",
    "channel_statistics",
    "class_notes",
    "dataset_from_arrays",
    "draw_holes",
    "draw_sources",
    "has_axes",
    "hide",
    "interpolate",
    "is_custom",
    "is_function",
    "load_dataset",
    "move",
    "recolour",
    "require_varying",
    "require_varying_numbers",
    "resize",
    "split_validation",
    "spread",
    "standardise",
    "train_subset",
    "views",
]
