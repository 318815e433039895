"""The whole under one name: convolutions, their derivatives, trained networks. Imports nothing until it is used.

`hcnn.core`, `hcnn.autodiff`, `hcnn.wavelets` and `hcnn.train` are the packages `hcnn_core`, `autodiff`, `wavelets` and
`train` of this distribution, found where this one lies. A `train.py` in the working directory does no harm unless it
is imported, since a process has one module of a name. If it is imported first, `hcnn.train` raises an ImportError that
names it. If `hcnn.train` is used first, `import train` gives this package.
"""

import importlib
import sys
from typing import TYPE_CHECKING, Any

from hcnn._siblings import PACKAGES

if TYPE_CHECKING:
    import autodiff as autodiff
    import hcnn_core as core  # noqa: F401 - one of PACKAGES
    import train as train
    import wavelets as wavelets
    from autodiff import grad as grad
    from autodiff import value_and_grad as value_and_grad
    from hcnn_core import __version__ as __version__
    from hcnn_core import convolve as convolve  # the types of the function that `autodiff` traces
    from hcnn_core import correlate as correlate
    from hcnn_core import planning as planning
    from hcnn_core import translate as translate
    from hcnn_core import wisdom as wisdom
    from train import HCNNClassifier as HCNNClassifier
    from train import HCNNRegressor as HCNNRegressor
    from train import fit as fit
    from train import list_networks as list_networks
    from train import load as load

_HOMES = dict.fromkeys(("convolve", "correlate", "grad", "translate", "value_and_grad"), "autodiff")
_HOMES |= dict.fromkeys(("HCNNClassifier", "HCNNRegressor", "fit", "list_networks", "load"), "train")
_HOMES |= dict.fromkeys(("planning", "wisdom"), "core")

__all__ = [*PACKAGES, *_HOMES]


def __getattr__(name: str) -> Any:
    if name in PACKAGES:
        return importlib.import_module(f"hcnn.{name}")
    if name in _HOMES or name == "__version__":
        value = getattr(importlib.import_module(f"hcnn.{_HOMES.get(name, 'core')}"), name)
        globals()[name] = value  # nothing can be imported while the interpreter ends
        return value
    raise AttributeError(f"module 'hcnn' has no attribute {name!r}", name=name, obj=sys.modules[__name__])


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
