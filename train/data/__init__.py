"""Image data: CIFAR-10, CIFAR-100 and an embedded sample, their splits, and augmented batches of them."""

from train.data.augmentation import augment, channel_statistics, standardise
from train.data.cifar import load_dataset
from train.data.dataset import DataError, Dataset, split_validation, train_subset

__all__ = [
    "DataError",
    "Dataset",
    "augment",
    "channel_statistics",
    "load_dataset",
    "split_validation",
    "standardise",
    "train_subset",
]
