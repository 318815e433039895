"""Functions other than convolutions: the native one for an array's library, else the generic one.

A native module stands in the room of a device under the name of the generic one and defines the same functions. It
takes all arrays, or says in a function `supports` which ones. `devices.py` names them.
"""

from __future__ import annotations

from typing import Any

from hcnn_core._engines.devices import device_of
from hcnn_core._engines.devices import has_compiled_kernels as has_compiled_kernels


def native(name: str, like: Any, *others: Any) -> Any:
    """Return the native module of this name if it takes the array and all else that `supports` asks for, or None."""
    return device_of(like).native(name, like, *others)


def engine(name: str, like: Any, *others: Any) -> Any:
    """Return the module of `native`, or else the generic one."""
    return device_of(like).engine(name, like, *others)
