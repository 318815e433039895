"""Image data: CIFAR-10, CIFAR-100, an embedded sample and one's own, their splits, and augmented batches of them."""

from train.data.augmentation import channel_statistics as channel_statistics
from train.data.augmentation import other_pixels as other_pixels
from train.data.augmentation import resize as resize
from train.data.augmentation import standardise as standardise
from train.data.augmentation import value_range as value_range
from train.data.augmentation import views as views
from train.data.cifar import INFO as INFO
from train.data.dataset import DataError as DataError
from train.data.dataset import Dataset as Dataset
from train.data.dataset import DatasetInfo as DatasetInfo
from train.data.dataset import Samples as Samples
from train.data.dataset import require_varying as require_varying
from train.data.dataset import split_validation as split_validation
from train.data.dataset import spread as spread
from train.data.dataset import train_subset as train_subset
from train.data.images import Images as Images
from train.data.mapped import MappedImages as MappedImages
from train.data.readers import FILE as FILE
from train.data.reading import UNNAMED as UNNAMED
from train.data.reading import has_axes as has_axes
from train.data.reading import is_custom as is_custom
from train.data.reading import is_function as is_function
from train.data.reading import load as load
from train.data.reading import load_dataset as load_dataset
from train.data.targets import Targets as Targets
