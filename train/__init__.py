"""Networks, data, training and command lines. Imports nothing at first, so that a command can set up its process."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from train.classifier import Classifier as Classifier
    from train.classifier import fit as fit
    from train.classifier import load as load
    from train.classifier import resume as resume
    from train.config import Config as Config
    from train.config import make_config as make_config
    from train.data import Dataset as Dataset
    from train.data import load_dataset as load_dataset
    from train.estimators import HCNNClassifier as HCNNClassifier
    from train.estimators import HCNNRegressor as HCNNRegressor
    from train.runs.shipped import list_networks as list_networks

_HOMES = dict.fromkeys(("Classifier", "fit", "load", "resume"), "train.classifier")
_HOMES |= dict.fromkeys(("Config", "make_config"), "train.config")
_HOMES |= dict.fromkeys(("Dataset", "load_dataset"), "train.data")
_HOMES |= dict.fromkeys(("HCNNClassifier", "HCNNRegressor"), "train.estimators")
_HOMES |= {"list_networks": "train.runs.shipped"}

__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'train' has no attribute {name!r}")
