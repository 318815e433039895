"""Derivatives of functions with many outputs, and of second order: jacobian, jvp, hessian and their kin."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Concatenate, Literal, overload

import numpy as np

from autodiff.functional import Argument, Arguments, Out, P, grad, vjp, vjp_by
from autodiff.pytree import tree_leaves, tree_map
from autodiff.tape import differentiable, getval
from hcnn_core.backend import Array, array_namespace

__all__ = ["elementwise_grad", "hessian", "hessian_vector_product", "jacobian", "jvp"]


@overload
def jvp(
    fun: Callable[[*Arguments], Out], primals: tuple[*Arguments], tangents: tuple[*Arguments]
) -> tuple[Out, Out]: ...


@overload
def jvp(fun: Callable[..., Out], primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Out, Out]: ...


def jvp(fun: Callable[..., Any], primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Any, Any]:
    """Evaluate a function and its derivative along a direction.

    It transposes the transpose, so it takes about three evaluations of `fun` in time, and its memory.

    Parameters
    ----------
    fun : callable
        Takes and returns pytrees of float or complex arrays.
    primals : tuple of pytree
        The arguments.
    tangents : tuple of pytree
        The direction: a tree of the structure, shapes and dtypes of each argument.

    Returns
    -------
    out : pytree
        ``fun(*primals)``.
    tangent : pytree
        The derivative of `out` along `tangents`, of the structure and shapes of `out`; differentiable again.

    Raises
    ------
    ValueError
        If a direction has another structure or shape than its argument.
    TypeError
        If a leaf of `primals` or of the output is not of float or complex dtype, or a direction alone is complex.
    """
    if len(primals) != len(tangents):
        raise ValueError(f"{len(tangents)} tangents for {len(primals)} arguments")
    _require_direction("a tangent", tuple(primals), tuple(tangents))
    out, pull = vjp(fun, *primals)
    tree_map(lambda leaf: _require_array(leaf, "jvp", "float or complex arrays"), out)
    _, push = vjp(pull, tree_map(np.zeros_like, out))
    return out, push(tuple(tangents))[0]


def jacobian(fun: Callable[P, Any], argnum: int = 0) -> Callable[P, Any]:
    """Return the function that computes the Jacobian, with one backward pass for each number of the output.

    Parameters
    ----------
    fun : callable
        Returns one array of float or complex dtype.
    argnum : int
        The positional argument to differentiate by: a pytree of float or complex arrays. For a complex output and a
        complex argument, `fun` must be holomorphic.

    Returns
    -------
    callable
        Takes the arguments of `fun` and returns the derivatives, a pytree like the argument: a leaf has the shape
        ``(*out.shape, *leaf.shape)``. Differentiable again.

    Raises
    ------
    TypeError
        By the returned function: if the output is not one float or complex array, or as `vjp`.
    """

    @functools.wraps(fun)
    def derivatives(*args: P.args, **kwargs: P.kwargs) -> Any:
        out, pull = vjp_by(argnum, *_of_one(fun, argnum, args, kwargs))
        _require_array(out, "jacobian")
        plain = np.multiply(getval(out), 1.0) if isinstance(out, float | complex) else getval(out)
        asarray, size = array_namespace(plain).asarray, int(np.size(plain))

        def rows(scale: complex) -> list[Any]:
            flat = np.zeros(size, plain.dtype)
            gradients = []
            for i in range(size):
                flat[i] = scale
                gradients.append(pull(asarray(flat.reshape(np.shape(plain)).copy()))[0])
                flat[i] = 0
            return gradients

        def joint(leaf: Any, *parts: Array) -> Array:
            stacked = np.stack(parts) if parts else np.zeros_like(leaf, shape=(0, *np.shape(leaf)))
            return np.reshape(stacked, (*np.shape(plain), *np.shape(leaf)))

        real = tree_map(joint, args[argnum], *rows(1))
        if not np.iscomplexobj(plain):
            return real
        # a real argument has a real cotangent, so the imaginary part of its derivative takes a second pass
        imaginary = tree_map(joint, args[argnum], *rows(-1j))
        return tree_map(lambda a, b: a if np.iscomplexobj(a) else a + 1j * b, real, imaginary)

    return derivatives


def hessian(fun: Callable[P, Any], argnum: int = 0) -> Callable[P, Any]:
    """Return the function that computes the second derivatives of a real scalar function by one float array x.

    It takes the arguments of `fun` and returns an array of shape ``(*x.shape, *x.shape)``; argument `argnum` is x.
    TypeError, by the returned function, if x is no float array, or `fun` returns no real scalar.
    """
    derivatives = jacobian(grad(fun, argnum), argnum)

    @functools.wraps(fun)
    def second(*args: P.args, **kwargs: P.kwargs) -> Any:
        x = _of_one(fun, argnum, args, kwargs)[1]
        if isinstance(x, tuple | list | dict):
            raise TypeError(f"hessian is by one float array, not a {type(x).__name__}: use hessian_vector_product")
        _require_real(x)
        return derivatives(*args, **kwargs)

    return second


@overload
def hessian_vector_product(
    fun: Callable[[Argument], Any], argnum: Literal[0] = 0
) -> Callable[[Argument, Argument], Argument]: ...


@overload
def hessian_vector_product(fun: Callable[..., Any], argnum: int = 0) -> Any: ...


def hessian_vector_product(fun: Callable[..., Any], argnum: int = 0) -> Callable[..., Any]:
    """Return the function that multiplies the `hessian` by a vector, without the matrix.

    The argument may be a pytree of float arrays, and the vector, which follows the arguments of `fun`, is one of its
    structure and shapes, else ValueError; so is the product. It takes about four evaluations of `fun`.
    """
    gradient = grad(fun, argnum)

    @functools.wraps(fun)
    def product(*args: Any, **kwargs: Any) -> Any:
        if len(args) < 2:
            raise TypeError(f"{len(args)} positional arguments: give those of the function and then the vector")
        of_one, x = _of_one(gradient, argnum, args[:-1], kwargs)
        _require_real(x)
        _require_direction("the vector", x, args[-1])
        return vjp_by(argnum, of_one, x)[1](args[-1])[0]

    return product


def _require_real(argument: Any) -> None:
    """Raise TypeError for complex leaves: the gradient by them is conjugated, so it has no such derivatives."""
    for leaf in tree_leaves(argument):
        if np.iscomplexobj(getval(leaf)):
            dtype = getattr(getval(leaf), "dtype", "complex")
            raise TypeError(f"second derivatives are by real arrays, not by one of {dtype}")


@overload
def elementwise_grad(
    fun: Callable[Concatenate[Argument, P], Any], argnum: Literal[0] = 0
) -> Callable[Concatenate[Argument, P], Argument]: ...


@overload
def elementwise_grad(fun: Callable[..., Any], argnum: int = 0) -> Any: ...


def elementwise_grad(fun: Callable[..., Any], argnum: int = 0) -> Callable[..., Any]:
    """Return the function that computes the derivative of each output by its own input.

    `fun` returns one array, each element of which depends on the element of the argument at its place, so that the
    `jacobian` is diagonal. Where it is not, the result is the sum of its rows. The argument is a float array, or a
    complex one where `fun` is holomorphic; so is the result, which is differentiable again. TypeError, by the returned
    function, if the output is not a float array, or is complex and the argument real.
    """

    @functools.wraps(fun)
    def derivatives(*args: Any, **kwargs: Any) -> Any:
        out, pull = vjp_by(argnum, *_of_one(fun, argnum, args, kwargs))
        _require_array(out, "elementwise_grad")
        if np.iscomplexobj(out) and not np.iscomplexobj(args[argnum]):
            raise TypeError("elementwise_grad of a complex output by a real argument: take the real and imaginary part")
        return pull(np.ones_like(out))[0]

    return derivatives


def _of_one(fun: Callable[..., Any], argnum: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
    """Return the function of one argument alone, and that argument."""
    if np.iterable(argnum):
        raise TypeError(f"argnum is {argnum}: give one integer; grad and value_and_grad take several")
    if not 0 <= argnum < len(args):
        raise TypeError(f"argnum is {argnum}, and the call has {len(args)} positional arguments")
    return lambda x: fun(*args[:argnum], x, *args[argnum + 1 :], **kwargs), args[argnum]


def _require_direction(name: str, argument: Any, direction: Any) -> None:
    """ValueError unless a direction has the argument's structure and shapes, TypeError if it alone is complex."""

    def check(x: Any, along: Any) -> None:
        if not isinstance(along, int | float | complex) and not hasattr(along, "dtype"):
            raise ValueError(f"{name} has type {type(along).__name__} for an argument of shape {np.shape(x)}")
        if np.shape(x) != np.shape(along):
            raise ValueError(f"{name} has shape {np.shape(along)} for an argument of shape {np.shape(x)}")
        if np.iscomplexobj(getval(along)) and not np.iscomplexobj(getval(x)):
            raise TypeError(f"{name} is complex for a real argument: take its real part")

    tree_map(check, argument, direction)


def _require_array(out: Any, name: str, wanted: str = "one float or complex array") -> None:
    """TypeError unless a function's result, or a leaf of it, is an array that can be differentiated."""
    if not (isinstance(out, float | complex) or differentiable(out)):
        what = f"dtype {out.dtype}" if hasattr(out, "dtype") else type(out).__name__
        raise TypeError(f"{name} needs a function that returns {wanted}, not {what}")
