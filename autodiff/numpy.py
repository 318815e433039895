"""NumPy under another name, whose functions take lists of traced values too: ``import autodiff.numpy as np``.

NumPy's own functions work on traced values as they are. Those that make arrays of lists, or of a value to fill with,
give NumPy no way to ask its arguments, and neither does a list of traced values among the arguments of any function;
here such lists are made arrays first. ``numpy.array(x, like=y)`` with a traced y does the same. Everything else is
NumPy's.
"""

from __future__ import annotations

import functools
from collections.abc import Hashable
from typing import Any

import numpy

from autodiff._rules.joining import array as _array
from autodiff.pytree import tree_leaves
from autodiff.tape import HANDLERS, Traced

__all__ = ["array", "asanyarray", "asarray", "ascontiguousarray", "asfortranarray", "c_", "fft", "full", "linalg", "r_"]

SEQUENCES = {
    *(numpy.concatenate, numpy.stack, numpy.vstack, numpy.hstack, numpy.dstack, numpy.column_stack),
}
"""Functions of sequences of arrays: a list among their arguments is no array, but those in it are."""


def full(shape: Any, fill_value: Any, dtype: Any = None, order: str = "C") -> Any:
    """Return an array filled with a value, as `numpy.full`.

    Traced where `fill_value` is; `order` is for values that are not traced.
    """
    make: Any = numpy.broadcast_to
    if not isinstance(fill_value, Traced):
        make = numpy.full
        return make(shape, fill_value, dtype, order)
    filled = make(fill_value, shape)
    return filled if dtype is None else filled.astype(dtype)


class _Brackets:
    """NumPy's r_ and c_, for traced values too."""

    def __init__(self, plain: Any, columns: bool) -> None:
        self._plain, self._columns = plain, columns

    def __getitem__(self, parts: Any) -> Any:
        parts = parts if isinstance(parts, tuple) else (parts,)
        if not any(isinstance(leaf, Traced) for leaf in tree_leaves(parts)):
            return self._plain[parts]
        if isinstance(parts[0], str):
            raise TypeError(f"np.r_ of traced values takes no directive {parts[0]!r}: use np.concatenate or np.stack")
        arrays = [numpy.r_[part] if isinstance(part, slice) else numpy.atleast_1d(asarray(part)) for part in parts]
        if self._columns:
            arrays = [numpy.reshape(a, (-1, 1)) if numpy.ndim(a) == 1 else a for a in arrays]
        return numpy.concatenate(arrays, -1 if self._columns else 0)


r_, c_ = _Brackets(numpy.r_, columns=False), _Brackets(numpy.c_, columns=True)


def _as(function: Any) -> Any:
    """NumPy's function, which takes traced values and nested lists of them too."""

    @functools.wraps(function)
    def made(a: Any, *args: Any, **kwargs: Any) -> Any:
        traced = any(isinstance(leaf, Traced) for leaf in tree_leaves(a))
        return (_array if traced else function)(a, *args, **kwargs)

    return made


array, asarray, asanyarray, ascontiguousarray, asfortranarray = map(
    _as, (numpy.array, numpy.asarray, numpy.asanyarray, numpy.ascontiguousarray, numpy.asfortranarray)
)


class _Function:
    """A function of NumPy's, which takes lists of traced values too; its attributes are its own."""

    def __init__(self, function: Any) -> None:
        functools.update_wrapper(self, function)
        self._depth = 1 if function in SEQUENCES else 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        args = tuple(_without_lists(arg, self._depth) for arg in args)
        return self.__wrapped__(*args, **{name: _without_lists(arg, self._depth) for name, arg in kwargs.items()})

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["__wrapped__"], name)

    def __repr__(self) -> str:
        return repr(self.__wrapped__)

    def __reduce__(self) -> Any:
        return _function, (self.__wrapped__,)


@functools.cache
def _function(function: Any) -> _Function:
    """Return the `_Function` of a function of NumPy's."""
    return _Function(function)


def _without_lists(x: Any, depth: int) -> Any:
    """Return the argument, as an array where it is a list that holds a traced value; below some levels of lists."""
    if not isinstance(x, list | tuple) or not any(isinstance(leaf, Traced) for leaf in tree_leaves(x)):
        return x
    return [_without_lists(part, depth - 1) for part in x] if depth else _array(x)


def _of_numpy(value: Any) -> Any:
    """Return NumPy's attribute of a name; its functions with a derivative take lists here."""
    return _function(value) if isinstance(value, Hashable) and value in HANDLERS else value


class _Namespace:
    """A module of NumPy's, with the functions that have derivatives taking lists of traced values."""

    def __init__(self, module: Any) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return _of_numpy(getattr(self.__dict__["_module"], name))

    def __dir__(self) -> list[str]:
        return dir(self._module)


linalg, fft = _Namespace(numpy.linalg), _Namespace(numpy.fft)


def __getattr__(name: str) -> Any:
    return _of_numpy(getattr(numpy, name))


def __dir__() -> list[str]:
    return sorted({*globals(), *dir(numpy)})
