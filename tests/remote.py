"""A stand-in for CuPy's arrays: NumPy's protocols on array-api-strict's second device."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from types import FunctionType, ModuleType
from typing import Any

import array_api_strict
import numpy as np
import scipy.special as sp
from numpy.lib.mixins import NDArrayOperatorsMixin

from autodiff import tree_map
from autodiff.tape import Traced

DEVICE = array_api_strict.Device("device1")
NOT_IN_CUPY = {sp.dawsn, sp.jv, sp.yv, sp.yn, sp.iv, sp.kv, sp.ive}


class Remote(NDArrayOperatorsMixin):
    """What the tape and the network ask of CuPy's arrays: NumPy's protocols, without conversion or mixing.

    Inside it is array-api-strict's, on its second device, and so is the namespace that hcnn_core finds. While a CUDA
    graph is `recording`, it refuses what cannot be recorded.
    """

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, array: Any) -> None:
        self.array = array

    shape = property(lambda self: self.array.shape)
    ndim = property(lambda self: self.array.ndim)
    size = property(lambda self: self.array.size)
    device = property(lambda self: self.array.device)
    dtype = property(lambda self: np.dtype(str(self.array.dtype).rpartition(".")[2]))
    T = property(lambda self: Remote(self.array.T))
    base = property(lambda self: take(self).base)
    real = property(lambda self: put(take(self).real))
    imag = property(lambda self: put(take(self).imag))

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError("implicit conversion to a NumPy array is not allowed")

    def __array_namespace__(self) -> Any:
        return REMOTE

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = (), **kwargs: Any) -> Any:
        if any(isinstance(x, Traced) for x in inputs):
            return NotImplemented
        assert method == "__call__"
        if ufunc in NOT_IN_CUPY:
            return NotImplemented
        if ufunc is np.matmul:
            require_replayable("cuBLAS")
        result = put(ufunc(*map(take, inputs), **kwargs))
        if not out:
            return result
        out[0][...] = result
        return out[0]

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if any(issubclass(kind, Traced) for kind in types):
            return NotImplemented
        if function in (np.concatenate, np.stack, np.tensordot, np.einsum, np.dot):
            require_replayable(function.__name__)
        return put(function(*take(args), **take(kwargs)))

    def __getitem__(self, key: Any) -> Any:
        return put(take(self)[take(key)])  # a view, in whatever forms CuPy takes an index

    def __setitem__(self, key: Any, value: Any) -> None:
        take(self)[take(key)] = take(value)

    def __len__(self) -> int:
        return len(take(self))

    def __float__(self) -> float:
        require_replayable("waiting for a value")
        return float(self.array)

    def __bool__(self) -> bool:
        require_replayable("waiting for a value")
        return bool(self.array)

    def __int__(self) -> int:
        require_replayable("waiting for a value")
        return int(self.array)

    def all(self) -> Remote:
        return Remote(array_api_strict.all(self.array))

    def astype(self, dtype: Any) -> Remote:
        return Remote(array_api_strict.astype(self.array, inside(np.dtype(dtype))))

    def set(self, values: Any) -> None:
        if (values.shape, values.dtype) != (self.shape, self.dtype):
            raise ValueError(f"{values.dtype} {values.shape} cannot be set in {self.dtype} {self.shape}")
        self[...] = put(values)

    def copy(self) -> Remote:
        return Remote(array_api_strict.asarray(self.array, copy=True))


def put(x: Any) -> Any:
    """NumPy's arrays, or a tree of them, as Remote ones."""

    def there(leaf: Any) -> Any:
        is_array = isinstance(leaf, np.ndarray | np.generic)
        return Remote(array_api_strict.asarray(leaf, device=DEVICE)) if is_array else leaf

    return tree_map(there, x)


def take(x: Any) -> Any:
    """Remote arrays, or a tree of them, as NumPy's, of which none may be among them."""

    def here(leaf: Any) -> Any:
        if isinstance(leaf, np.ndarray):
            raise TypeError("a NumPy array among arrays of another device")
        if not isinstance(leaf, Remote):
            return leaf
        return np.asarray(array_api_strict.asarray(leaf.array, device=array_api_strict.Device("CPU_DEVICE")))

    return tree_map(here, x)


def inside(x: Any) -> Any:
    """Remote arrays and NumPy's dtypes, or a tree of them, as array-api-strict's."""

    def strict(leaf: Any) -> Any:
        if isinstance(leaf, np.dtype):
            return getattr(array_api_strict, leaf.name)
        return leaf.array if isinstance(leaf, Remote) else leaf

    return tree_map(strict, x)


def outside(x: Any) -> Any:
    """array-api-strict's arrays, or a tree of them, as Remote ones."""
    kind = type(array_api_strict.asarray(0))
    return tree_map(lambda leaf: Remote(leaf) if isinstance(leaf, kind) else leaf, x)


class Namespace:
    """The functions of array-api-strict on Remote arrays."""

    def __init__(self, module: ModuleType, name: str) -> None:
        self.module, self.__name__ = module, name

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.module, name)
        if isinstance(value, ModuleType):
            return Namespace(value, f"{self.__name__}.{name}")
        if not isinstance(value, FunctionType):
            return value

        def function(*args: Any, **kwargs: Any) -> Any:
            if name == "asarray" and not isinstance(args[0], Remote):
                require_replayable("a transfer from the host")
                return put(np.asarray(args[0]))
            if name in ("concat", "stack") or (name == "matmul" and max(x.ndim for x in args) < 3):
                require_replayable(name)
            return outside(value(*inside(args), **inside(kwargs)))

        function.at = add_at  # type: ignore[attr-defined]
        return function


def add_at(out: Any, index: Any, g: Any) -> None:
    assert out.dtype.kind == "f", "CuPy adds real numbers only"
    np.add.at(take(out), take(index), take(g))


REMOTE = Namespace(array_api_strict, "remote")  # its own name, since hcnn_core keeps matrices by that


class NotReplayable(RuntimeError):
    """Something that a CUDA graph cannot record."""


_recording = [False]


def require_replayable(what: str) -> None:
    """Refuse something while a graph is recording."""
    if _recording[0]:
        raise NotReplayable(f"{what} cannot be recorded")


@contextlib.contextmanager
def recording() -> Iterator[None]:
    """What happens inside is to be recorded as a CUDA graph."""
    _recording[0] = True
    try:
        yield
    finally:
        _recording[0] = False


def rehearse_and_repeat(work: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
    """In place of `hcnn_core.backend.record`: the work itself is launched again, its results in their place."""
    work()
    with recording():
        results = tuple(np.array(r) if isinstance(r, np.generic) else r for r in work())

    def launch() -> None:
        with recording():
            again = work()
        for held, new in zip(results, again, strict=True):
            held[...] = new

    return launch, results
