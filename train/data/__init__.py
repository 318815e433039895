"""Image data: CIFAR-10, CIFAR-100 and an embedded sample, their splits, and augmented batches of them."""

from train.data.augmentation import augment, channel_statistics, draw_sources, move, resize, standardise, views
from train.data.cifar import load_dataset
from train.data.dataset import DataError, Dataset, split_validation, train_subset
from train.data.images import Images
from train.data.mapped import MappedImages

__all__ = [
    "DataError",
    "Dataset",
    "Images",
    "MappedImages",
    "augment",
    "channel_statistics",
    "draw_sources",
    "load_dataset",
    "move",
    "resize",
    "split_validation",
    "standardise",
    "train_subset",
    "views",
]
