"""Networks, data, training and command lines. Imports nothing at first, so that a command can set up its process."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from train.classifier import load as load

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    if name == "load":
        from train.classifier import load

        return load
    raise AttributeError(f"module 'train' has no attribute {name!r}")
