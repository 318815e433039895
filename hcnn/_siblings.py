"""Finds the other packages of this distribution beside this one, whatever else on the path has their names."""

from __future__ import annotations

import importlib.util
import os
import sys
from importlib.abc import Loader
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

__all__ = ["PACKAGES", "claim"]

PLACE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

PACKAGES = {"core": "hcnn_core", "autodiff": "autodiff", "wavelets": "wavelets", "train": "train"}
"""The packages by their names below `hcnn`; each imports those before it, and none after it."""

_claimed: set[str] = set()


def claim(package: str) -> None:
    """Let imports of a package, and of those it imports, find this distribution's from now on.

    Only what is used is claimed: a program that convolves can have a module `train` of its own.
    """
    names = list(PACKAGES.values())
    for name in names[: names.index(package) + 1]:
        module = sys.modules.get(name)
        if module is not None and (origin := _origin(module)) != _origin(PathFinder.find_spec(name, [PLACE])):
            raise ImportError(
                f"hcnn needs its own package {name}, and another module {name} has been imported before, from "
                f"{origin}: rename that one, since a process has one module of a name",
                name=name,
                path=origin,
            )
        _claimed.add(name)


def _origin(module: Any) -> str:
    """Return the file that a module, or its specification, comes from; of a package without one, its folder."""
    spec = getattr(module, "__spec__", module)
    origin = getattr(module, "__file__", None) or getattr(spec, "origin", None)
    folders = [*(getattr(spec, "submodule_search_locations", None) or ()), "nowhere"]
    return os.path.realpath(origin or folders[0])


class _Finder:
    """Finds the packages that are claimed, and modules below `hcnn`, which are those of the packages."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Return where a module is, or None for others to look."""
        if name in _claimed:
            return PathFinder.find_spec(name, [PLACE])
        parts = name.split(".")
        if parts[0] != "hcnn" or len(parts) < 2 or parts[1] not in PACKAGES:
            return None
        claim(PACKAGES[parts[1]])
        other = importlib.util.find_spec(".".join([PACKAGES[parts[1]], *parts[2:]]))
        return None if other is None else ModuleSpec(name, _Other(other), origin=other.origin)


class _Other(Loader):
    """Loads a module by another name, so that it is one module with two names, not two."""

    def __init__(self, spec: ModuleSpec) -> None:
        self.spec = spec

    def exec_module(self, module: ModuleType) -> None:
        """Import the other one, and put it in the place of the module that Python has made."""
        sys.modules[module.__name__] = importlib.import_module(self.spec.name)

    def get_code(self, name: str) -> Any:
        """Return the other module's code, which ``python -m hcnn.train.cifar`` runs."""
        assert self.spec.loader is not None
        return self.spec.loader.get_code(self.spec.name)  # type: ignore[attr-defined]


sys.meta_path.insert(0, _Finder)
