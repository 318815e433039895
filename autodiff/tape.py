"""The tape: traced values, primitives with their derivatives, and the walk back.

A traced value is an array together with the node that made it. A primitive called on traced values works on the arrays,
then records a node: the nodes of its traced arguments, and the pullback, which takes a cotangent of the answer to
cotangents of those arguments. Traces nest: an array under an inner trace may itself be traced by an outer one, so
pullbacks are recorded like anything else and derivatives are differentiable.

Convention for complex numbers: a pullback is the transpose, without conjugation; for holomorphic f it is g * f'(z). A
real loss L(x + iy) has the gradient dL/dx - i dL/dy, whose conjugate is the direction of steepest ascent.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import operator
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Any, NoReturn

import numpy as np

from autodiff._constants import FIXED, PLAIN, Watched, is_array, kept, plain_array, require_unchanged, watch
from autodiff.pytree import tree_map
from hcnn_core.activations import total
from hcnn_core.backend import Array, library_of
from hcnn_core.marginals import marginal

__all__ = ["defvjp", "defvjp_argnums", "getval", "primitive"]

Pullback = Callable[[Any], Iterable[Any]]
JointMaker = Callable[[tuple[int, ...], Any, tuple[Any, ...], dict[str, Any]], Pullback]

HANDLERS: dict[Any, Callable[..., Any]] = {}
"""Handlers of NumPy functions and operators whose arguments are traced; autodiff._rules fills the table."""

OF_LISTS = (np.array, np.asarray, np.asanyarray, np.ascontiguousarray, np.asfortranarray)
"""Functions whose argument may be a nest of lists with arrays of any library."""

LATE_RULES: dict[str, Callable[[], object]] = {}
"""Functions that load the rules of a library, by its name; autodiff._rules fills the table."""

_next_index = itertools.count().__next__


class Trace:
    """One differentiation in progress. A value traced by it is a constant once it has ended."""

    __slots__ = ("ended", "level", "watched")

    def __init__(self) -> None:
        self.level = _next_index()  # a trace begun inside another has the higher level
        self.ended = False
        self.watched: list[Watched] = []  # inputs

    def __enter__(self) -> Trace:
        return self

    def __exit__(self, *_: object) -> None:
        self.ended = True

    def start(self, value: Array) -> Traced:
        """Return an array of float or complex dtype as an input of this trace."""
        if isinstance(value, np.ndarray):
            watch(value, self.watched)
        return Traced(value, Node(self, (), None, "input", value))

    def split(self, x: Any) -> tuple[Any, Node | None]:
        """Return a value without this trace, and the node that made it in this trace, None where nothing did."""
        x = unwrap_ended(x)
        return (x._value, x._node) if type(x) is Traced and x._node.trace is self else (x, None)


@dataclass(frozen=True)
class FusedSum:
    """A plain cotangent that adds itself to an earlier sum, of its argument's shape and dtype: make(sum).

    That takes less time than adding it afterwards. Without an earlier sum, or with a traced one, it is make(None).
    """

    make: Callable[[Array | None], Array]


class Node:
    """One recorded call: its place in the order of calls, and the way back from it."""

    __slots__ = ("dtype", "index", "name", "parents", "pullback", "shape", "trace", "watched")

    def __init__(
        self,
        trace: Trace,
        parents: tuple[Node, ...],
        pullback: Pullback | None,
        name: str,
        ans: Any,
        watched: list[Watched] | None = None,
    ) -> None:
        self.trace = trace
        self.index = _next_index()
        self.parents = parents
        self.pullback = pullback  # None marks an input
        self.name = name
        self.watched = watched or []  # arrays that may not change before the way back
        self.shape: Any = None  # for a tuple, whose cotangent is a dict from position to cotangent
        self.dtype: Any = None
        if type(ans) is not tuple:
            self.shape, self.dtype = ans.shape, ans.dtype


class Primitive:
    """A function of arrays whose calls are recorded; made by `primitive`."""

    def __init__(self, fun: Callable[..., Any]) -> None:
        functools.update_wrapper(self, fun)
        self._fun = fun
        self._name = getattr(fun, "__name__", repr(fun))
        self._make_pullback: JointMaker | None = None

    def __repr__(self) -> str:
        """Show the function's signature, or its name where it has none."""
        try:
            known = inspect.signature(self._fun)
        except ValueError:
            return f"<differentiable {self._name}>"
        bare = [p.replace(annotation=p.empty) for p in known.parameters.values()]
        return f"<differentiable {self._name}{known.replace(parameters=bare, return_annotation=known.empty)}>"

    def __reduce__(self) -> str:
        """Pickle by name, like a function."""
        return getattr(self, "__qualname__", self._name)

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """Bind like a function. `help` shows a signature only for objects that have this method."""
        return self if instance is None else types.MethodType(self, instance)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function, on the arrays under the innermost trace where arguments are traced."""
        top: Trace | None = None
        level = -1
        for arg in args:
            if type(arg) is Traced:
                trace = arg._node.trace
                if trace.ended:
                    return self(*map(unwrap_ended, args), **kwargs)
                if trace.level > level:
                    top, level = trace, trace.level
        if top is None:
            return self._call_plain(args, kwargs)
        parents = []
        argnums = []
        watched: list[Watched] = []
        values = list(args)
        for argnum, arg in enumerate(args):
            if type(arg) is Traced and arg._node.trace is top:
                values[argnum] = arg._value
                parents.append(arg._node)
                argnums.append(argnum)
            elif type(arg) not in PLAIN and type(arg) is not Traced:
                refuse_class(arg, f"{self._name} got")
                values[argnum] = plain_array(arg)
        ans = self(*values, **kwargs) if Traced in map(type, values) else self._call_plain(values, kwargs)
        if type(ans) is tuple:
            ans = self._parts(ans)
        else:
            ans = self._array(ans)
            if ans.dtype.kind in "biu":
                return ans  # integers and booleans have no derivative
        values = [v if type(v) in FIXED or i in argnums else kept(v, watched) for i, v in enumerate(values)]
        if kwargs:
            kwargs = {key: kept(value, watched) for key, value in kwargs.items()}
        pullback = self.pullback(tuple(argnums), ans, tuple(values), kwargs)
        node = Node(top, tuple(parents), pullback, self._name, ans, watched)
        return Traced(ans, node) if type(ans) is not tuple else _traced_parts(ans, node)

    def _parts(self, ans: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return an answer of several parts, those that are no plain constants as arrays."""
        return tuple(a if type(a) in (bool, int, str, type(None)) else self._array(a) for a in ans)

    def _array(self, ans: Any) -> Array:
        """Return an answer as an array, numbers too; TypeError for what would lose its gradient."""
        if type(ans) in (bool, int, float, complex):
            ans = np.asarray(ans)[()]
        if type(ans) is not np.ndarray and not is_array(ans):
            raise TypeError(
                f"{self._name} returned {type(ans).__name__}; a primitive returns arrays, several as a tuple"
            )
        if ans.dtype.kind not in "biufc":
            raise TypeError(
                f"{self._name} of these operands has dtype {ans.dtype}, which has no derivative: "
                "make them floats or arrays of floats first"
            )
        return ans

    def pullback(self, argnums: tuple[int, ...], ans: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the way back from an answer to the cotangents of some arguments."""
        if self._make_pullback is None:
            raise TypeError(f"{self._name} has no derivative: give it one with autodiff.defvjp")
        return self._make_pullback(argnums, ans, args, kwargs)

    def _call_plain(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Return the function's own answer; an answer that is traced all the same would lose its gradient."""
        for name, value in kwargs.items():
            if type(value) is Traced:
                raise TypeError(f"{self._name} got a traced value as keyword {name!r}: pass it by position")
        ans = self._fun(*args, **kwargs)
        for a in ans if type(ans) is tuple else (ans,):
            if type(a) is Traced:
                raise TypeError(
                    f"{self._name} uses a traced value from a closure, a keyword or a list: pass it as an argument"
                )
        return ans


def _traced_parts(ans: tuple[Any, ...], node: Node) -> tuple[Any, ...]:
    """Return the parts of an answer, each traced that is differentiable, with a node that leads to the answer's."""
    return tuple(
        Traced(a, Node(node.trace, (node,), functools.partial(_at_position, i), node.name, a))
        if differentiable(a)
        else a
        for i, a in enumerate(ans)
    )


def primitive(fun: Callable[..., Any]) -> Primitive:
    """Make a function of plain arrays callable on traced ones.

    Parameters
    ----------
    fun : callable
        Takes arrays by position, anything else by position or keyword, and returns a new array, or a tuple of arrays
        where its derivative is given with `defvjp_argnums`.

    Returns
    -------
    Primitive
        Callable like `fun`, with its name, its docstring and ``__wrapped__``. Differentiable once `defvjp` has given
        the derivative. It raises TypeError when a traced value reaches `fun` other than as a positional argument.
    """
    return Primitive(fun)


def defvjp(fun: Primitive, *vjpmakers: Callable[..., Any] | None, argnums: Iterable[int] | None = None) -> None:
    """Give a primitive its derivative, argument by argument.

    Parameters
    ----------
    fun : Primitive
        The primitive.
    *vjpmakers : callable or None
        ``vjpmaker(ans, *args, **kwargs)`` returns the function from the cotangent ``g`` of the answer to the cotangent
        of one argument; None says the derivative is zero. The cotangent is summed over the axes along which the
        argument was broadcast, and cast to its dtype, the real part for a real argument. What the function captures
        lives until the backward pass: capture only what it uses.
    argnums : iterable of int, optional
        The positional arguments meant; 0, 1, 2, ... by default.

    Raises
    ------
    TypeError
        If `fun` is no primitive.
    ValueError
        If `argnums` are not as many as the derivatives.
    """
    makers = dict(zip(range(len(vjpmakers)) if argnums is None else argnums, vjpmakers, strict=True))

    def make_pullback(
        argnums: tuple[int, ...], ans: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Callable[[Any], Iterator[Any]]:
        pullbacks = []
        for argnum in argnums:
            if argnum not in makers:
                raise TypeError(f"{fun._name} has no derivative for argument {argnum}: give one with autodiff.defvjp")
            maker = makers[argnum]
            pullbacks.append(maker and maker(ans, *args, **kwargs))
        return lambda g: (pullback and pullback(g) for pullback in pullbacks)

    defvjp_argnums(fun, make_pullback)


def defvjp_argnums(fun: Primitive, maker: JointMaker) -> None:
    """Give a primitive one derivative for all its arguments, which may share work.

    Parameters
    ----------
    fun : Primitive
        The primitive.
    maker : callable
        ``maker(argnums, ans, args, kwargs)`` returns the function from the cotangent ``g`` of the answer to the
        cotangents of the arguments `argnums`, in that order, None for zero. For an answer that is a tuple, ``g`` is a
        dict from position to cotangent, without the positions whose cotangent is zero.

    Raises
    ------
    TypeError
        If `fun` is no primitive.
    """
    if not isinstance(fun, Primitive):
        raise TypeError(f"{fun!r} is no primitive, so its derivative would not be used: take autodiff.primitive of it")
    fun._make_pullback = maker


def getval(x: Any) -> Any:
    """Return the plain array under a traced value; no gradient flows through it.

    Parameters
    ----------
    x : object
        A traced value or anything else.

    Returns
    -------
    object
        The array, or `x` itself where it is not traced.
    """
    while type(x) is Traced:
        x = x._value
    return x


def backward(ends: Iterable[tuple[Node, Array]], *, release: bool) -> dict[Node, Array]:
    """Carry the cotangents of nodes at the ends of a trace to its inputs; return those of the inputs they depend on.

    With `release`, each node's pullback, and the arrays it captured, are dropped once it has been used.
    """
    inputs: dict[Node, Array] = {}
    cotangents: dict[Node, Any] = {}
    summed: set[Node] = set()  # their cotangents were made here, so further terms may be added in place
    heap: list[tuple[int, Node]] = []  # the latest call first: all that used its answer came later, and is done

    def add(node: Node, term: Any) -> None:
        if node not in cotangents:
            cotangents[node] = term
            heappush(heap, (-node.index, node))
        elif node.shape is None:
            cotangents[node] = cotangents[node] | term
        elif node in summed and type(term) is not Traced and type(cotangents[node]) is not Traced:
            cotangents[node] += term
        else:
            cotangents[node] = total(cotangents[node], term)
            summed.add(node)

    def step(node: Node, g: Any) -> None:
        assert node.pullback is not None
        require_unchanged(node.watched, node.name)
        for parent, term in zip(node.parents, node.pullback(g), strict=True):
            other = cotangents.get(parent)
            if type(term) is not FusedSum:
                if term is not None:
                    add(parent, term if parent.shape is None else fit(term, parent, node.name))
            elif other is None or type(other) is Traced:
                add(parent, fit(term.make(None), parent, node.name))
            else:
                cotangents[parent] = fit(term.make(other), parent, node.name)
        if release:
            node.parents, node.pullback, node.watched = (), None, []

    for node, g in ends:
        require_unchanged(node.trace.watched, "the function")
        add(node, g)
    while heap:
        _, node = heappop(heap)
        if node.pullback is None:
            inputs[node] = cotangents.pop(node)
        else:
            step(node, cotangents.pop(node))
    return inputs


WIDE = {"float16": np.float32, "float32": np.float64, "complex64": np.complex128}
"""Dtypes of sums over rows: NumPy adds row to row, so that rounding errors would add up."""


def fit(g: Array, node: Node, name: str) -> Array:
    """Return the cotangent in its node's shape, summed over what was broadcast, and in its node's dtype."""
    try:
        shape, dtype = g.shape, g.dtype
    except AttributeError:
        raise TypeError(f"the derivative of {name} returned {type(g).__name__} where an array is needed") from None
    if shape != node.shape:
        extra = len(shape) - len(node.shape)
        trailing = shape[extra:] if extra >= 0 else ()
        if len(trailing) != len(node.shape) or any(n not in (1, m) for n, m in zip(node.shape, trailing, strict=True)):
            raise ValueError(f"the derivative of {name} has shape {shape} for an argument of shape {node.shape}")
        stretched = [extra + i for i, (n, m) in enumerate(zip(node.shape, trailing, strict=True)) if n != m]
        summed = (*range(extra), *stretched)
        if any(shape[axis] != 1 for axis in summed):
            g = sum_over(g, summed)
        if g.shape != node.shape or not g.shape:  # a view would be copied where a caller may write to it
            g = np.reshape(g, node.shape)
    if dtype != node.dtype:
        if dtype.kind == "c" and node.dtype.kind == "f":
            g = g.real
        g = g.astype(node.dtype)
    return g


def sum_over(g: Array, axes: tuple[int, ...]) -> Array:
    """Return the sum over some axes, by the kernels of the array's library where it has some."""
    library = library_of(getval(g))
    if library == "cupy" and g is getval(g) and g.dtype.kind in "fc":
        return marginal(g, axes)
    wide = WIDE.get(g.dtype.name) if library == "numpy" else None
    return np.sum(g, axis=axes) if wide is None else np.sum(g, axis=axes, dtype=wide).astype(g.dtype)


def _at_position(i: int, g: Array) -> tuple[dict[int, Array]]:
    """Return the cotangent of a tuple whose position i has the cotangent g."""
    return ({i: g},)


def differentiable(x: Any) -> bool:
    """Return whether x is an array of real or complex floating-point numbers."""
    return getattr(getattr(x, "dtype", None), "kind", None) in ("f", "c")


def refuse_class(x: Any, where: str) -> None:
    """TypeError for an array of a class whose own rules, for shapes or for masks, the derivatives do not follow."""
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError(f"{where} a masked array: fill it, x.filled(0), and sum with where=mask")
    if isinstance(x, np.matrix):
        raise TypeError(f"{where} a numpy.matrix: pass np.asarray(x), and multiply with @")


def unwrap_ended(x: Any) -> Any:
    """Return the value without the traces that have ended."""
    while type(x) is Traced and x._node.trace.ended:
        x = x._value
    return x


def _method(function: Any) -> Callable[..., Any]:
    """Return a method that is the NumPy function or operator, the traced value first."""

    def method(self: Traced, *args: Any, **kwargs: Any) -> Any:
        return _answer(function, (self, *args), kwargs)

    return method


def _reshape(x: Any, *shape: Any, order: str = "C") -> Any:
    """Return the method reshape, which takes the lengths one by one or as a tuple."""
    return HANDLERS[np.reshape](x, shape[0] if len(shape) == 1 else shape, order=order)


def _transpose(x: Any, *axes: Any) -> Any:
    """Return the method transpose, which takes the axes one by one, as a tuple, or not at all."""
    return HANDLERS[np.transpose](
        x, axes[0] if len(axes) == 1 and not isinstance(axes[0], int | np.integer) else axes or None
    )


def _attribute(name: str, doc: str) -> property:
    """Return a property that reads the array's attribute."""
    return property(operator.attrgetter(f"_value.{name}"), doc=doc)


def _listed(x: Any, beside: Any) -> Any:
    """Return an operand, as an array where it is a list or a tuple."""
    return HANDLERS[np.array](x, like=beside) if isinstance(x, list | tuple) else x


def _operator(function: Any) -> Callable[..., Any]:
    """Return an operator, the traced value first."""

    def method(self: Traced, other: Any) -> Any:
        return HANDLERS[function](self, _listed(other, self))

    return method


def _reflected(function: Any) -> Callable[..., Any]:
    """Return a reflected operator, the traced value second."""

    def method(self: Traced, other: Any) -> Any:
        return HANDLERS[function](_listed(other, self), self)

    return method


def _refused(what: str, instead: str) -> Callable[..., NoReturn]:
    """Return a method that would need a number, or lose the gradient: an error that says what to do instead."""

    def method(self: Traced, *_args: Any, **_kwargs: Any) -> NoReturn:
        raise TypeError(f"{what} of a traced value: {instead}, or take autodiff.getval(x) where no gradient is wanted")

    return method


_number = functools.partial(_refused, instead="stay with NumPy functions and operators")


def in_place(*_: Any, **__: Any) -> NoReturn:
    """Refuse a write into an array, from which no gradient would come back."""
    raise TypeError(
        "traced values cannot take part in in-place writes (x[i] = y, x += y, out=): make a new array, with x = x + y, "
        "np.where, np.stack or np.concatenate"
    )


def _answer(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return the answer of a NumPy function's handler."""
    handler = HANDLERS.get(function)
    if handler is None:
        raise _no_rule(_full_name(function))
    if kwargs or len(args) > 2:  # by position, out and dtype come third or later
        return _checked(function, handler, args, kwargs)
    return handler(*args, **kwargs)


def _checked(function: Any, handler: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return a handler's answer; refuse an array to write into, and keywords that a rule does not know.

    Results of integers or booleans have no derivative, so NumPy itself computes them.
    """
    known: tuple[str, ...] = getattr(handler, "keywords", tuple(kwargs))
    options = dict(zip(known, args, strict=False)) | kwargs
    if options.get("out") is not None:
        in_place()
    unknown = [key for key in kwargs if key not in known]
    if unknown:
        others = [key for key in known[1:] if key != "out"]
        raise TypeError(
            f"{_full_name(function)} on traced values does not take {', '.join(unknown)}"
            + (f"; it takes {', '.join(others)}" if others else "")
        )
    if options.get("dtype") is not None and np.dtype(options["dtype"]).kind in "biu" and function not in OF_LISTS:
        return function(*tree_map(getval, args), **tree_map(getval, kwargs))
    return handler(*args, **kwargs)


def _full_name(function: Any) -> str:
    """Return the name a user calls a NumPy function or ufunc by."""
    name: str = function.__name__
    if isinstance(function, np.ufunc):
        return f"numpy.{name}" if getattr(np, name, None) is function else name
    return f"{getattr(function, '__module__', 'numpy.ndarray')}.{name}"


def _handler(ufunc: Any) -> Any:
    """Return a ufunc's handler; rules of a library that is slow to import are loaded once the user has imported it."""
    if ufunc not in HANDLERS:
        for library, load in LATE_RULES.items():
            if library in sys.modules:
                load()
    return HANDLERS.get(ufunc)


def _no_rule(name: str) -> TypeError:
    return TypeError(
        f"{name} has no derivative here: use other NumPy functions, "
        "or make it an autodiff.primitive and give its derivative with autodiff.defvjp"
    )


INSTEAD = {
    "flat": "call x.ravel()",
    "view": "x.astype(dtype) converts values, x.reshape(shape) changes the shape",
    "compress": "index with the mask, x[mask]",
    "choose": "call np.where",
    "resize": "call np.reshape or np.tile",
    "byteswap": "bytes have no derivative",
    "tobytes": "autodiff.getval(x) is the plain array",
    "tofile": "autodiff.getval(x) is the plain array",
}
"""Advice for attributes of arrays that traced values lack."""


class Traced:
    """An array under differentiation: NumPy functions and operators on it are recorded."""

    __slots__ = ("_node", "_value")
    __array_priority__ = 1000.0
    __hash__ = None  # type: ignore[assignment]  # as for arrays, == is elementwise

    def __init__(self, value: Array, node: Node) -> None:
        self._value = value
        self._node = node

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        function = ufunc if method == "__call__" else getattr(ufunc, method)
        if kwargs.get("out") is not None:
            in_place()
        if (handler := _handler(function)) is None:
            raise _no_rule(_full_name(ufunc) + ("" if method == "__call__" else f".{method}"))
        if function is not ufunc:
            return _checked(function, handler, inputs, kwargs)
        if kwargs:
            raise TypeError(f"{_full_name(ufunc)} on traced values does not take {', '.join(kwargs)}")
        return handler(*(_listed(x, self) for x in inputs))

    def __array_function__(self, func: Any, types: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return _answer(func, args, kwargs)

    __reduce__ = _refused("pickling", "differentiate in one process")
    __array__ = _refused(
        "np.asarray, np.array or assignment into an array",
        "build arrays with np.stack, np.where or autodiff.numpy.array; autodiff.scipy has functions of SciPy's; beside "
        "operands of pandas or xarray put the traced value first",
    )
    __bool__ = _refused("bool()", "compare it first, x > 0 gives a plain array, or use np.where")
    __float__ = _refused("float()", "stay with NumPy functions; for y[0] = x[0], build y with np.stack or np.where")
    __round__ = _refused("round()", "call np.round(x), whose derivative is 0")
    __int__ = _number("int()")
    __complex__ = _number("complex()")
    __index__ = _number("an index")
    item = _number("item()")
    tolist = _number("tolist()")

    def __repr__(self) -> str:
        return f"Traced({self._value!r})"

    def __format__(self, spec: str) -> str:
        return f"Traced({format(getval(self), spec)})" if spec else repr(self)  # float() of it would lose the gradient

    def __copy__(self) -> Traced:
        return self

    def __deepcopy__(self, memo: Any) -> Traced:
        return self  # a copied node would be another trace's

    def __getattr__(self, name: str) -> NoReturn:
        hint = INSTEAD.get(name, "use NumPy functions and operators")
        raise AttributeError(f"traced values have no {name!r}: {hint}")

    def __len__(self) -> int:
        return len(self._value)

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    shape = _attribute("shape", "Shape of the array.")
    ndim = _attribute("ndim", "Number of axes.")
    size = _attribute("size", "Number of elements.")
    dtype = _attribute("dtype", "Dtype of the array.")
    itemsize = _attribute("itemsize", "Bytes an element takes.")
    nbytes = _attribute("nbytes", "Bytes all elements take.")
    T = property(_method(np.transpose), doc="The array with its axes reversed.")
    mT = property(_method(np.matrix_transpose), doc="The array with its last two axes swapped.")
    real = property(_method(np.real), doc="The real part.")
    imag = property(_method(np.imag), doc="The imaginary part.")

    reshape = _reshape
    transpose = _transpose
    __getitem__ = _method(operator.getitem)
    astype = _method(np.ndarray.astype)
    flatten = _method(np.ravel)

    __neg__ = _method(np.negative)
    __pos__ = _method(np.positive)
    __abs__ = _method(np.absolute)
    __add__, __radd__ = _operator(np.add), _reflected(np.add)
    __sub__, __rsub__ = _operator(np.subtract), _reflected(np.subtract)
    __mul__, __rmul__ = _operator(np.multiply), _reflected(np.multiply)
    __truediv__, __rtruediv__ = _operator(np.divide), _reflected(np.divide)
    __floordiv__, __rfloordiv__ = _operator(np.floor_divide), _reflected(np.floor_divide)
    __mod__, __rmod__ = _operator(np.remainder), _reflected(np.remainder)
    __pow__, __rpow__ = _operator(np.power), _reflected(np.power)
    __matmul__, __rmatmul__ = _operator(np.matmul), _reflected(np.matmul)
    __lt__, __le__ = _operator(np.less), _operator(np.less_equal)
    __gt__, __ge__ = _operator(np.greater), _operator(np.greater_equal)
    __eq__, __ne__ = _operator(np.equal), _operator(np.not_equal)

    __setitem__ = __delitem__ = sort = partition = fill = put = in_place
    __iadd__ = __isub__ = __imul__ = __itruediv__ = __ifloordiv__ = __imod__ = __ipow__ = __imatmul__ = in_place


METHODS = (
    *("sum", "mean", "prod", "var", "std", "max", "min", "cumsum", "squeeze", "swapaxes", "copy", "dot"),
    *("clip", "argmax", "argmin", "take", "repeat", "trace", "diagonal", "round", "argsort", "argpartition"),
    *("searchsorted", "nonzero", "any", "all", "conj", "conjugate", "ravel"),
)
"""Methods of arrays that are functions of NumPy, by name."""

for _name in METHODS:
    setattr(Traced, _name, _method(getattr(np, _name)))
