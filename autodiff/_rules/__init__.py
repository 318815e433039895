"""Derivatives of NumPy's functions, a module for each theme; importing it enters them in the tape's table."""

import importlib

from autodiff._rules import constants, elementwise, fft, indexing, joining, linalg, products, reductions, shapes

__all__ = ["constants", "elementwise", "fft", "indexing", "joining", "linalg", "products", "reductions", "shapes"]
from autodiff.tape import LATE_RULES

LATE_RULES["scipy.special"] = lambda: importlib.import_module("autodiff._rules.special")
