#!/usr/bin/env python3
"""Validate the docstring of every public name of the packages with numpydoc, whose checks pyproject.toml selects.

Public is what a module without underscore lists in ``__all__``, or else defines without underscore, and the public
methods and properties of such classes. ``numpydoc lint`` reads the source alone: it takes properties for functions,
does not see the parameters of dataclasses, and cannot tell what a package exports from a private module.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from numpydoc.docscrape import get_doc_object
from numpydoc.hooks.validate_docstrings import parse_config
from numpydoc.validate import Validator, validate

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("hcnn_core", "autodiff", "wavelets", "train")  # hcnn has names of these
INTERNAL = ("hcnn_core.backend", "hcnn_core.environment", "hcnn_core.files")  # for autodiff and train, not for users
FACADES = ("train",)  # packages whose users import from the package itself
FRAMEWORKS = {"hcnn_core.jax": "jax", "hcnn_core.torch": "torch", "train.runs.torch_module": "torch"}  # where installed
ESTIMATORS = ("HCNNClassifier", "HCNNRegressor")  # checked where scikit-learn is installed
TWINS = re.compile(
    r"_vjp(_[xw])?$|_update_all$|_elu_marginal$|_invariant$|^autodiff\.(numpy\.|scipy\.|cross_entropy$)|[.]tree_(?!map$)"
    r"|^hcnn_core\.(jax|torch)\.(convolve|conv_transpose_nd|Conv\w+\.forward|ConvTransposeNd)$"
    r"|[.](HCNNRegressor|assert_linear|batch_normalize|convolve_elu|correlate|covariance_deviations|elementwise_grad)$"
    r"|[.](hessian|hessian_vector_product|Shard\.sum|mean_pool|relu|value_and_grad)$"
    r"|[.](main|idwt|inverse_wavelet_transform|resume|probabilities|predict(_proba)?)$"
    r"|[.](hard_threshold|ista|lista|scattering_paths|momentum|steerable_bank|rectified_transform|from_rectified)$"
)
"""Functions whose docstring says how they differ from the one that it refers to for parameters and results."""

MEMBERS = (property, functools.cached_property, classmethod, staticmethod)


class Docstring(Validator):
    """One object's docstring; a dataclass may describe its parameters as attributes."""

    def __init__(self, obj_name: Any) -> None:
        super().__init__(get_doc_object(obj_name))

    @property
    def signature_parameters(self) -> tuple[str, ...]:
        return () if getattr(self.obj, "_is_protocol", False) else super().signature_parameters

    @property
    def doc_all_parameters(self) -> dict[str, tuple[str, str]]:
        parameters = dict(super().doc_all_parameters)
        if dataclasses.is_dataclass(self.obj):
            for names, kind, text in self.doc["Attributes"]:
                parameters |= {name: (kind, text) for name in names.split(", ") if name in self.signature_parameters}
        return parameters


def public_modules() -> Iterator[ModuleType]:
    """Every module of the packages whose dotted name has no part with an underscore in front, but for INTERNAL."""
    for package in map(importlib.import_module, PACKAGES):
        yield package
        if package.__name__ in FACADES:
            continue
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if "._" not in module.name and module.name not in INTERNAL:
                if module.name in FRAMEWORKS and find_spec(FRAMEWORKS[module.name]) is None:
                    continue
                yield importlib.import_module(module.name)


def public_objects() -> Iterator[tuple[str, Any]]:
    """Public functions, classes and members of classes, each once, under its shortest name."""
    seen = set()
    for module in sorted(public_modules(), key=lambda module: module.__name__.count(".")):
        names = [name for name, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__]
        for name in getattr(module, "__all__", [name for name in names if not name.startswith("_")]):
            if name in ESTIMATORS and find_spec("sklearn") is None:
                continue
            value = getattr(module, name)
            home = str(getattr(value, "__module__", "")).partition(".")[0]
            if not callable(value) or home not in PACKAGES or id(value) in seen:
                continue
            if not inspect.isclass(value) and value.__doc__ == type(value).__doc__:
                continue  # an object of a class, such as a law of probability, not a function
            seen.add(id(value))
            yield f"{module.__name__}.{name}", value
            for member, inner in vars(value).items() if inspect.isclass(value) else ():
                if not member.startswith("_") and (inspect.isroutine(inner) or isinstance(inner, MEMBERS)):
                    yield f"{module.__name__}.{name}.{member}", getattr(value, member)


def main() -> int:
    """Print one line per finding; return 1 if there is one, else 0."""
    sys.path.insert(0, str(ROOT))
    checks = parse_config(ROOT)["checks"]
    objects = dict(public_objects())
    findings = [
        (name, *error)
        for name, value in objects.items()
        for error in validate(value, Docstring)["errors"]
        if error[0] in checks and not (TWINS.search(name) and error[0] in ("PR01", "PR07", "RT01", "YD01"))
    ]
    for name, code, message in findings:
        print(f"{name}: {code} {message}")
    print(f"{len(objects)} public names, {len(findings)} findings")
    return int(bool(findings))


if __name__ == "__main__":
    sys.exit(main())
