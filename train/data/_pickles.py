"""Reading the pickles of CIFAR without running what a pickle may name.

An unpickler that admitted NumPy's own constructors would hand them states of a stranger's making. This one builds
arrays of integers from stand-ins for those constructors, and refuses every other name.
"""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np
from numpy.typing import NDArray

from train.data.dataset import DataError

INTEGERS = frozenset(np.dtype(code).str[1:] for code in np.typecodes["AllInteger"])  # "i1", "u1", "i2", ..


def load_pickle(data: bytes) -> Any:
    """Return what a pickle holds, if that is made of integer arrays and built-in containers and scalars alone.

    Strings of Python 2 become bytes, arrays have the attribute `value`; DataError for anything else.
    """
    try:
        return _Unpickler(io.BytesIO(data), encoding="bytes").load()
    except Exception as error:  # a pickle is a program: there is no list of what a broken one raises
        reason = " ".join(str(error).split())
        raise DataError(f"not a readable pickle of arrays and built-in types ({reason})") from error


class PickledArray:
    """Stand-in for numpy.ndarray, with the array itself as `value`."""

    value: NDArray[Any]

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, raw = state
        self.value = np.frombuffer(raw, dtype.value).reshape(shape, order="F" if fortran else "C")


class _PickledDtype:
    """Stand-in for numpy.dtype: integers only."""

    def __init__(self, code: str | bytes, align: bool = False, copy: bool = False) -> None:
        text = _text(code)
        if text not in INTEGERS:
            raise pickle.UnpicklingError(f"dtype {text!r}, expected integers")
        self.value = np.dtype(text)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.value = np.dtype(_text(state[1]) + self.value.str[1:])


def _text(string: str | bytes) -> str:
    """Return a string that Python 2 may have written."""
    return string.decode("latin1") if isinstance(string, bytes) else string


def _reconstruct(kind: Any, shape: Any, code: Any) -> PickledArray:
    """Stand in for the function of that name: an array whose state follows."""
    return PickledArray()


def _frombuffer(raw: bytes, dtype: _PickledDtype, shape: tuple[int, ...], order: str) -> PickledArray:
    """Stand in for the function of that name: how protocol 5 writes an array."""
    array = PickledArray()
    array.__setstate__((None, shape, dtype, order == "F", raw))
    return array


def _scalar(dtype: _PickledDtype, raw: bytes) -> Any:
    """Stand in for the function of that name, with a Python integer."""
    return np.frombuffer(raw, dtype.value)[0].item()


def _encode(text: str, encoding: str) -> bytes:
    """Stand in for codecs.encode: how protocols below 3 write bytes."""
    return text.encode("latin1")


ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): PickledArray,
    ("numpy", "dtype"): _PickledDtype,
    ("_codecs", "encode"): _encode,
} | {
    (f"numpy.{core}.{module}", name): stand_in
    for core in ("core", "_core")  # before NumPy 2, and since
    for module, name, stand_in in (
        ("multiarray", "_reconstruct", _reconstruct),
        ("multiarray", "scalar", _scalar),
        ("numeric", "_frombuffer", _frombuffer),
    )
}


class _Unpickler(pickle.Unpickler):
    """Finds the stand-ins and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in; refuse any other name, before anything is imported."""
        if (module, name) not in ADMITTED:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return ADMITTED[module, name]
