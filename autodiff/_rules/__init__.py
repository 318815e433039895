"""Derivatives of NumPy's functions, a module for each theme; importing it enters them in the tape's table."""

from autodiff._rules import (
    constants,
    elementwise,
    fft,
    indexing,
    joining,
    linalg,
    products,
    reductions,
    shapes,
)

__all__ = ["constants", "elementwise", "fft", "indexing", "joining", "linalg", "products", "reductions", "shapes"]
