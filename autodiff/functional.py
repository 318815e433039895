"""Derivatives of functions of pytrees: grad, value_and_grad, vjp, checkpoints, check_grads."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar, TypeVarTuple, overload

import numpy as np

from autodiff._constants import PLAIN, is_array, is_foreign, kept, plain_array
from autodiff.pytree import tree_leaves, tree_map, tree_paths, tree_structure, tree_unflatten
from autodiff.tape import (
    Node,
    Trace,
    Traced,
    backward,
    defvjp_argnums,
    differentiable,
    getval,
    primitive,
    refuse_class,
    unwrap_ended,
)
from hcnn_core.backend import Array, array_namespace, library_of

__all__ = ["check_grads", "checkpoint", "grad", "value_and_grad", "vjp"]

COTANGENT = "the cotangent"

Argument = TypeVar("Argument")
Arguments = TypeVarTuple("Arguments")
Aux = TypeVar("Aux")
Out = TypeVar("Out")
P = ParamSpec("P")


@overload
def grad(
    fun: Callable[Concatenate[Argument, P], Any], argnum: Literal[0] = 0, *, has_aux: Literal[False] = False
) -> Callable[Concatenate[Argument, P], Argument]: ...


@overload
def grad(
    fun: Callable[Concatenate[Argument, P], tuple[Any, Aux]], argnum: Literal[0] = 0, *, has_aux: Literal[True]
) -> Callable[Concatenate[Argument, P], tuple[Argument, Aux]]: ...


@overload
def grad(fun: Callable[..., Any], argnum: int | Sequence[int] = 0, *, has_aux: bool = False) -> Any: ...


def grad(fun: Callable[..., Any], argnum: int | Sequence[int] = 0, *, has_aux: bool = False) -> Callable[..., Any]:
    """Return the function that computes the gradient of a scalar function.

    Parameters
    ----------
    fun : callable
        Returns a real scalar; with `has_aux`, a pair of a real scalar and any pytree.
    argnum : int or sequence of int
        The positional arguments to differentiate by: pytrees of float or complex arrays.
    has_aux : bool
        Whether `fun` returns a pair, whose second part is passed on, without its gradient.

    Returns
    -------
    callable
        Takes the arguments of `fun` and returns the gradient, a pytree like the argument, each leaf of the shape and
        dtype of the argument's; a tuple of them for a sequence of `argnum`. With `has_aux`, a pair of that and the
        second part. For a complex leaf z = x + iy the gradient is dL/dx - i dL/dy. It is zero where `fun` does not
        depend on a leaf, and differentiable again.

    Raises
    ------
    TypeError
        By the returned function: if a leaf is not of float or complex dtype, or `fun` returns no real scalar.
    """
    evaluate = value_and_grad(fun, argnum, has_aux=has_aux)

    @functools.wraps(fun)
    def gradient(*args: Any, **kwargs: Any) -> Any:
        value, gradients = evaluate(*args, **kwargs)
        return (gradients, value[1]) if has_aux else gradients

    return gradient


@overload
def value_and_grad(
    fun: Callable[Concatenate[Argument, P], Out], argnum: Literal[0] = 0, *, has_aux: Literal[False] = False
) -> Callable[Concatenate[Argument, P], tuple[Out, Argument]]: ...


@overload
def value_and_grad(
    fun: Callable[Concatenate[Argument, P], tuple[Out, Aux]], argnum: Literal[0] = 0, *, has_aux: Literal[True]
) -> Callable[Concatenate[Argument, P], tuple[tuple[Out, Aux], Argument]]: ...


@overload
def value_and_grad(fun: Callable[..., Any], argnum: int | Sequence[int] = 0, *, has_aux: bool = False) -> Any: ...


def value_and_grad(
    fun: Callable[..., Any], argnum: int | Sequence[int] = 0, *, has_aux: bool = False
) -> Callable[..., Any]:
    """Return the function that computes the value and the gradient of a scalar function.

    As `grad`, but the returned function gives a pair of the result of `fun` and the gradient.
    """
    argnums: tuple[int, ...] = tuple(argnum) if isinstance(argnum, Iterable) else (argnum,)

    @functools.wraps(fun)
    def evaluate(*args: Any, **kwargs: Any) -> Any:
        for i in argnums:
            if not 0 <= i < len(args):
                raise TypeError(f"argnum is {i}, and the call has {len(args)} positional arguments")
        with Trace() as trace:
            inputs = {i: _start(trace, args[i], f"argument {i}") for i in argnums}
            out = fun(*(inputs.get(i, arg) for i, arg in enumerate(args)), **kwargs)
            if has_aux and not (type(out) is tuple and len(out) == 2):
                raise TypeError(f"has_aux needs a function that returns a pair (value, aux), not {type(out).__name__}")
            value, end = trace.split(out[0] if has_aux else out)
            aux = tree_map(lambda leaf: trace.split(leaf)[0], out[1]) if has_aux else None
        del out
        _require_real_scalar(value)
        ends = [] if end is None else [(end, np.ones_like(value))]
        gradients = _owned(_collect([inputs[i] for i in argnums], backward(ends, release=True)), taken=[])
        return (value, aux) if has_aux else value, gradients if isinstance(argnum, Iterable) else gradients[0]

    return evaluate


@overload
def vjp(fun: Callable[[*Arguments], Out], *primals: *Arguments) -> tuple[Out, Callable[[Any], tuple[*Arguments]]]: ...


@overload
def vjp(fun: Callable[..., Out], *primals: Any) -> tuple[Out, Callable[[Any], tuple[Any, ...]]]: ...


def vjp(  # type: ignore[misc]  # mypy does not see that *primals takes *Arguments
    fun: Callable[..., Any], *primals: Any
) -> tuple[Any, Callable[[Any], tuple[Any, ...]]]:
    """Evaluate a function and prepare its transposed derivative.

    Parameters
    ----------
    fun : callable
        Takes and returns pytrees of arrays.
    *primals : pytree
        The arguments, all differentiated: their leaves are float or complex arrays. Do not change the arrays, nor those
        of `out`, while the pullback is in use.

    Returns
    -------
    out : pytree
        ``fun(*primals)``.
    pullback : callable
        Takes a cotangent, a pytree of the structure and shapes of `out`, to the tuple of the cotangents of `primals`.
        It can be called any number of times, and is differentiable.

    Raises
    ------
    TypeError
        If a leaf of `primals` is not of float or complex dtype, or the output holds something else than arrays.
    """
    return vjp_by(0, fun, *primals)


def vjp_by(first: int, fun: Callable[..., Any], *primals: Any) -> tuple[Any, Callable[[Any], tuple[Any, ...]]]:
    """`vjp`, whose messages count arguments from `first`."""
    out, transpose = _record(fun, primals, first=first)

    def pullback(cotangent: Any) -> tuple[Any, ...]:
        return _owned(transpose(cotangent), taken=tree_leaves(cotangent))

    return out, pullback


def checkpoint(fun: Callable[P, Out]) -> Callable[P, Out]:
    """Return the function that keeps only its arguments for the backward pass, and is evaluated again there.

    Parameters
    ----------
    fun : callable
        Takes and returns pytrees of arrays, by position; keywords are not differentiated. It must compute the same each
        time, leave its arguments unchanged, and use traced values only as arguments.

    Returns
    -------
    callable
        Computes the same values and derivatives as `fun`, in less memory and more time.

    Raises
    ------
    TypeError
        By the returned function: if `fun` closes over a traced value, or gets one by keyword.
    """

    @functools.wraps(fun)
    def recomputed(*args: P.args, **kwargs: P.kwargs) -> Out:
        taken = tree_structure(args)
        returned = None

        @functools.wraps(fun)
        def flat(*leaves: Any, **options: Any) -> tuple[Any, ...]:
            nonlocal returned
            out = fun(*tree_unflatten(taken, leaves), **options)
            returned = tree_structure(out)
            return tuple(tree_leaves(out))

        def maker(argnums: tuple[int, ...], ans: Any, leaves: tuple[Any, ...], options: Any) -> Callable[[Any], Any]:
            count = len(ans)

            def some(*chosen: Any) -> Any:
                values = dict(zip(argnums, chosen, strict=True))
                return flat(*(values.get(i, leaf) for i, leaf in enumerate(leaves)), **options)

            def pullback(g: dict[int, Array]) -> tuple[Any, ...]:
                transpose = _record(some, tuple(leaves[i] for i in argnums), release=True)[1]
                return transpose(tuple(g.get(i) for i in range(count)))

            return pullback

        step = primitive(flat)
        defvjp_argnums(step, maker)
        leaves = step(*tree_leaves(args), **kwargs)
        return tree_unflatten(returned, leaves)

    return recomputed


def check_grads(fun: Callable[P, Any], order: int = 2, *, rng: np.random.Generator | None = None) -> Callable[P, None]:
    """Return the function that checks derivatives against central differences.

    For each argument, a random direction v and a random cotangent w, <vjp(w), v> is compared with
    <w, (fun(x + h v) - fun(x - h v)) / 2h>, where h = eps^(1/3). Orders above the first check the vjp itself, as a
    function of the arguments and of w. The tolerance is h times the size of both sides, which leaves central
    differences, right to h^2, room for large third derivatives; plus their rounding error, eps / h times the size of
    the values.

    Parameters
    ----------
    fun : callable
        Takes and returns pytrees of float64 or complex128 arrays.
    order : int
        The highest order of derivative to check.
    rng : numpy.random.Generator, optional
        Source of the directions; ``numpy.random.default_rng(0)`` by default.

    Returns
    -------
    callable
        Takes the arguments of `fun`, which should be smooth within 1e-4 * max(1, abs(x)) of each number x in them;
        keyword arguments are passed on.

    Raises
    ------
    AssertionError
        By the returned function: if a derivative is wrong. The message says which argument, order and numbers.
    TypeError
        By the returned function: if a leaf of an argument or of the output is not float64 or complex128.
    """
    if order < 1:
        raise ValueError(f"order is {order}: check_grads checks orders from 1 up")
    generator = np.random.default_rng(0) if rng is None else rng

    def check(*args: P.args, **kwargs: P.kwargs) -> None:
        _check(functools.partial(fun, **kwargs), args, [f"argument {i}" for i in range(len(args))], order, generator)

    return check


def _check(
    fun: Callable[..., Any], args: tuple[Any, ...], names: list[str], order: int, rng: np.random.Generator
) -> None:
    """Check derivatives of the first order, then those of the vjp, up to the given order."""
    level = sum(name == COTANGENT for name in names) + 1
    eps = float(np.finfo(np.float64).eps)
    h = eps ** (1 / 3)
    for name, arg in zip(names, args, strict=True):
        _require_double(arg, name)
    out, pull = vjp(fun, *args)
    _require_double(out, "the output")
    w = tree_map(lambda leaf: _direction(leaf, rng), out)
    for i, (name, g) in enumerate(zip(names, pull(w), strict=True)):
        v = tree_map(lambda leaf: _direction(leaf, rng) * np.maximum(1.0, abs(leaf)), args[i])
        v = tree_map(lambda dx, a: np.where(np.real(a * dx) < 0, -dx, dx), v, g)  # no term of <g, v> cancels another
        moved = [tree_map(lambda x, dx, step=step: x + step * dx, args[i], v) for step in (h, -h)]
        plus, minus = (fun(*args[:i], arg, *args[i + 1 :]) for arg in moved)
        difference = tree_map(lambda a, b: (a - b) / (2 * h), plus, minus)
        numeric, exact = _inner(w, difference), _inner(g, v)
        rounding = 10 * eps / h * _norm(w) * (_norm(plus) + _norm(minus))
        tolerance = h * (_norm(w) * _norm(difference) + _norm(g) * _norm(v)) + rounding
        if not abs(numeric - exact) <= tolerance:
            raise AssertionError(
                f"order {level}, {name}: the vjp gives {exact:.12g}, central differences {numeric:.12g}: "
                f"they differ by {abs(numeric - exact):.3g}, tolerance {tolerance:.3g}"
            )
    if order > 1:
        _check(lambda *a: vjp(fun, *a[:-1])[1](a[-1]), (*args, w), [*names, COTANGENT], order - 1, rng)


def _record(
    fun: Callable[..., Any], primals: tuple[Any, ...], *, first: int = 0, release: bool = False
) -> tuple[Any, Callable[[Any], tuple[Any, ...]]]:
    """Evaluate fun and keep the tape; with release, the transpose can be called once and frees the tape on its way."""
    with Trace() as trace:
        inputs = [_start(trace, primal, f"argument {i}") for i, primal in enumerate(primals, first)]
        out = fun(*inputs)
        tree_map(_require_leaf, out)
        structure = tree_structure(out)
        split = [trace.split(leaf) for leaf in tree_leaves(out)]
    if not release:  # the way back may read an output, and the caller has it
        split = [(value if end is None else kept(value, end.watched), end) for value, end in split]
    ends = [(end, value if np.ndim(value) == 0 else None) for value, end in split]  # keeps no array alive

    def transpose(cotangent: Any) -> tuple[Any, ...]:
        cotangents: list[Any] = []
        tree_map(lambda _, leaf: cotangents.append(leaf), structure, cotangent)
        pairs = [
            (end, _as_cotangent(g, end, scalar))
            for (end, scalar), g in zip(ends, cotangents, strict=True)
            if end is not None and g is not None
        ]
        return _collect(inputs, backward(pairs, release=release))

    return tree_unflatten(structure, [value for value, _ in split]), transpose


def _start(trace: Trace, tree: Any, name: str) -> Any:
    """Return the tree with its leaves as inputs of the trace."""

    def start(leaf: Any) -> Traced:
        value = unwrap_ended(leaf)
        refuse_class(value, "an argument to differentiate by is")
        value = plain_array(value)
        if type(value) in (float, complex):
            value = np.asarray(value)[()]
        if not differentiable(value):
            path = next(p for p, x in zip(tree_paths(tree, name), tree_leaves(tree), strict=True) if x is leaf)
            what = f"dtype {value.dtype}" if hasattr(value, "dtype") else f"type {type(value).__name__}"
            raise TypeError(f"{path} has {what}: convert it to a float or complex array to differentiate by it")
        return trace.start(value)

    return tree_map(start, tree)


def _collect(inputs: Sequence[Any], cotangents: dict[Node, Array]) -> tuple[Any, ...]:
    """Return the cotangents of the inputs, zero where the outputs do not depend on one."""

    def cotangent(x: Traced) -> Array:
        return cotangents[x._node] if x._node in cotangents else np.zeros_like(getval(x))

    return tuple(tree_map(cotangent, tree) for tree in inputs)


def _owned(cotangents: tuple[Any, ...], taken: list[Any]) -> tuple[Any, ...]:
    """Return the cotangents, copied where they share memory with each other or with arrays in `taken`."""
    seen = set(map(id, taken))

    def own(g: Array | Traced) -> Array | Traced:
        if type(g) is not Traced and (id(g) in seen or getattr(g, "base", None) is not None):
            g = g.copy()
        seen.add(id(g))
        return g

    return tree_map(own, cotangents)


def _as_cotangent(g: Any, node: Node, scalar: Array | None) -> Array:
    """Return a caller's cotangent in the dtype of the output; a number becomes an array like the scalar output."""
    g = plain_array(unwrap_ended(g))
    if isinstance(g, int | float | complex) and node.shape == ():
        g = np.full_like(scalar, g, dtype=np.result_type(g))
    if not hasattr(g, "dtype") or g.shape != node.shape:
        what = f"shape {g.shape}" if hasattr(g, "dtype") else f"type {type(g).__name__}"
        raise ValueError(f"a cotangent has {what} for an output of shape {node.shape}")
    if g.dtype.kind == "c" and node.dtype.kind != "c":
        raise TypeError(f"a cotangent has dtype {g.dtype} for an output of dtype {node.dtype}: take its real part")
    return g if g.dtype == node.dtype else g.astype(node.dtype)


def _require_leaf(leaf: Any) -> None:
    """Raise TypeError if an output's class may hide a gradient."""
    if is_foreign(leaf):
        raise TypeError(
            f"the function returned {library_of(leaf)}.{type(leaf).__qualname__}, through which no gradient flows: "
            "make constants NumPy arrays first, with np.asarray(a)"
        )
    if type(leaf) not in PLAIN and not is_array(leaf):
        raise TypeError(
            f"the function returned {type(leaf).__qualname__}: give dicts, lists or tuples of arrays; "
            "a quantity with a unit or a label is no array"
        )


def _require_real_scalar(value: Any) -> None:
    """Raise TypeError unless the output of a function to be differentiated is a real number."""
    if type(value) not in (dict, set):
        _require_leaf(value)
    if not isinstance(value, int | float | complex) and not is_array(value):
        raise TypeError(f"grad needs a function that returns a real scalar, not {type(value).__name__}")
    if np.shape(value) != ():
        raise TypeError(f"grad needs a scalar output, not shape {np.shape(value)}: sum it, or use vjp")
    if np.result_type(value).kind not in "fc":
        raise TypeError(f"grad needs a float, not {np.result_type(value)}, which has no derivative")
    if np.iscomplexobj(value):
        raise TypeError("grad needs a real output, not a complex one: take its real part or absolute value, or use vjp")


def _require_double(tree: Any, name: str) -> None:
    """TypeError unless all leaves are float64 or complex128."""
    for leaf in tree_leaves(tree):
        dtype = type(leaf).__name__ if type(leaf) in (int, bool) else getattr(leaf, "dtype", np.result_type(leaf))
        if dtype not in (np.float64, np.complex128):
            raise TypeError(f"check_grads needs float64 or complex128, and {name} has {dtype}")


def _direction(x: Array, rng: np.random.Generator) -> Array:
    """Return a normal random array of the shape, dtype and namespace of x."""
    draw = rng.standard_normal(np.shape(x))
    return array_namespace(x).asarray(draw + 1j * rng.standard_normal(np.shape(x)) if np.iscomplexobj(x) else draw)


def _inner(a: Any, b: Any) -> float:
    """Return the real part of the sum of the products, without conjugation, as cotangents pair with directions."""
    return sum(float(np.sum(np.real(x * y))) for x, y in zip(tree_leaves(a), tree_leaves(b), strict=True))


def _norm(a: Any) -> float:
    """Return the Euclidean norm of all leaves together."""
    return math.sqrt(sum(float(np.sum(abs(x) ** 2)) for x in tree_leaves(a)))
