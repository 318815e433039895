"""Types of the arguments and results of hcnn_core's functions, for type checkers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, Required, TypeAlias, TypedDict, TypeVar

import numpy as np

from hcnn_core._problem import Boundary as Boundary
from hcnn_core._problem import Extension as Extension
from hcnn_core._problem import Method as Method


class Array(Protocol):
    """An n-dimensional array of NumPy, CuPy or another array-API library: what they all have, and no more.

    `strides` is missing here because array-API libraries need not have it.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""

    @property
    def dtype(self) -> Any:
        """Type of the elements."""

    @property
    def ndim(self) -> int:
        """Number of axes."""

    @property
    def T(self) -> Any:
        """A matrix with its axes swapped."""

    def __getitem__(self, key: Any, /) -> Any: ...
    def __neg__(self) -> Any: ...
    def __add__(self, other: Any, /) -> Any: ...
    def __sub__(self, other: Any, /) -> Any: ...
    def __mul__(self, other: Any, /) -> Any: ...
    def __truediv__(self, other: Any, /) -> Any: ...
    def __matmul__(self, other: Any, /) -> Any: ...


AnyArray = TypeVar("AnyArray", bound=Array)
"""One kind of array, for functions whose result is of the kind, shape and dtype of an argument."""

Scalar = TypeVar("Scalar", bound=np.inexact[Any])
"""Element type of a NumPy array: float32, float64, complex64 or complex128."""

NumpyArray: TypeAlias = np.ndarray[Any, np.dtype[Scalar]]
"""A NumPy array with elements of type `Scalar`, with any number of axes."""

Shape: TypeAlias = Sequence[int]
Axes: TypeAlias = int | Sequence[int]
"""One integer, or one per axis."""

Boundaries: TypeAlias = Boundary | Sequence[Boundary]
"""One boundary for all axes, or one per axis."""

Extensions: TypeAlias = Extension | Sequence[Extension]
"""The same, of all boundaries that convolutions, correlations and translations take."""

Methods: TypeAlias = Method | Sequence[Method]
"""One method for all axes, or one per axis."""


class ConvolveOptions(TypedDict, total=False):
    """Keyword arguments that `convolve`, `correlate` and their VJPs share."""

    boundary: Required[Extensions]
    sum_axes: Axes
    stride: Axes
    method: Methods


class TranslateOptions(TypedDict):
    """Keyword arguments that `translate` and its VJP share."""

    boundary: Extensions
