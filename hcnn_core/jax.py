"""Convolution of JAX's arrays along 1 to 6 axes, under jit, grad, jvp and vmap of every order.

Nothing else imports this module; it needs JAX, which the extra ``jax`` installs.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

if find_spec("jax") is None:
    raise ModuleNotFoundError("hcnn_core.jax needs JAX: install it, or hcnn with the extra jax", name="jax")

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import ShapedArray
from jax.experimental.buffer_callback import buffer_callback
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jax.sharding import PartitionSpec

from hcnn_core._problem import Problem, make_problem
from hcnn_core.backend import FLOATING_DTYPES, cuda_stream
from hcnn_core.convolution import OPERANDS, Role, derivative, mapped, shape
from hcnn_core.typing import Axes, Boundaries, Methods

__all__ = ["convolve"]


def convolve(
    x: Any,
    w: Any,
    /,
    axes: Axes,
    *,
    boundary: Boundaries,
    sum_axes: Axes = (),
    stride: Axes = 1,
    method: Methods = "auto",
) -> jax.Array:
    """`hcnn_core.convolve` of JAX's arrays, with derivatives of every order in both modes; errors are its own.

    JAX has double precision where ``jax_enable_x64`` is set. Filters are flipped, which
    `jax.lax.conv_general_dilated` does not do.
    """
    x, w = map(_of_integers, (x, w))
    for name, array in (("x", x), ("w", w)):
        if str(array.dtype) not in FLOATING_DTYPES:
            raise TypeError(f"{name} has dtype {array.dtype}; convert it to one of {', '.join(FLOATING_DTYPES)}")
    dtype = jnp.promote_types(x.dtype, w.dtype)
    x, w = (_whole(array.astype(dtype)) for array in (x, w))
    problem = make_problem(x.shape, w.shape, axes, boundary=boundary, sum_axes=sum_axes, stride=stride, method=method)
    return _derivative(x, w, "y", problem)


def _of_integers(array: Any) -> jax.Array:
    """Return an array of JAX's: of integers or bools in the widest precision that is on, others in their own."""
    array = jnp.asarray(array)
    exact = any(jnp.issubdtype(array.dtype, kind) for kind in (jnp.integer, jnp.bool_))
    return array.astype(float) if exact else array


def _whole(array: Any) -> Any:
    """Return an array that is sharded over explicit axes of a mesh, on every device; its cotangent is sharded again."""
    sharding = jax.typeof(array).sharding
    if all(axes is None for axes in sharding.spec):
        return array
    return jax.sharding.reshard(array, sharding.update(spec=PartitionSpec(*(None,) * array.ndim)))


def _derivative(a: Any, b: Any, role: Role, problem: Problem) -> Any:
    """Bind the primitive to operands that vary over the same axes of a mesh: replicated ones are cast.

    The transpose of that cast sums over the devices.
    """
    of_a, of_b = jax.typeof(a).mat.varying, jax.typeof(b).mat.varying
    if of_a != of_b:
        a = jax.lax.pcast(a, tuple(of_b - of_a), to="varying")
        b = jax.lax.pcast(b, tuple(of_a - of_b), to="varying")
    return derivative_p.bind(a, b, role=role, problem=problem)


derivative_p = Primitive("hcnn_convolve")
"""A derivative of the trilinear form: its parameter `role` says which."""

_compiled = jax.jit(derivative_p.bind, static_argnames=("role", "problem"))


@derivative_p.def_impl
def _evaluated(a: Any, b: Any, *, role: Role, problem: Problem) -> Any:
    """Return the value, which XLA computes also where `jax.disable_jit` is on."""
    with jax.disable_jit(False):
        return _compiled(a, b, role=role, problem=problem)


@derivative_p.def_abstract_eval
def _result(a: Any, b: Any, *, role: Role, problem: Problem) -> ShapedArray:
    result = ShapedArray(shape(role, problem), a.dtype)
    if not a.mat.varying:
        return result
    return result.update(sharding=a.sharding.update(spec=PartitionSpec(*(None,) * result.ndim)), manual_axis_type=a.mat)


def _cotangent(at: int) -> Any:
    """Return the rule for the cotangent of operand `at`: another derivative of the form."""

    def rule(h: Any, a: Any, b: Any, *, role: Role, problem: Problem) -> Any:
        letter, arrays = OPERANDS[role][at], {**dict(zip(OPERANDS[role], (a, b), strict=True)), role: h}
        a, b = (arrays[operand] for operand in OPERANDS[letter])
        return _derivative(a, b, letter, problem)

    return rule


ad.defbilinear(derivative_p, _cotangent(0), _cotangent(1))


def _over_batch(arrays: Any, dims: Any, *, role: Role, problem: Problem) -> tuple[Any, int]:
    """Return the derivative at many operands: one call if only one operand is mapped, else one call for each pair."""
    (a, b), (of_a, of_b) = arrays, dims
    if of_a is not None and of_b is not None:
        pairs = jnp.moveaxis(a, of_a, 0), jnp.moveaxis(b, of_b, 0)
        return jax.lax.map(lambda pair: _derivative(pair[0], pair[1], role, problem), pairs), 0
    first, second = OPERANDS[role]
    size = b.shape[of_b] if of_a is None else a.shape[of_a]
    wider, place = mapped({role, second if of_a is None else first}, problem, size)
    if of_a is None:
        b = jnp.moveaxis(b, of_b, place)
    else:
        a = jnp.moveaxis(a, of_a, place)
    return _derivative(a, b, role, wider), place % len(shape(role, wider))


batching.primitive_batchers[derivative_p] = _over_batch


def on_host(context: Any, out: Any, a: Any, b: Any, *, role: Role, problem: Problem) -> None:
    """Write the derivative into a buffer of JAX's on the CPU; none is copied."""
    np.asarray(out)[...] = derivative(np, role, problem, np.asarray(a), np.asarray(b))


def on_gpu(context: Any, out: Any, a: Any, b: Any, *, role: Role, problem: Problem) -> None:
    """Write the derivative on a GPU, by CuPy on XLA's stream."""
    with cuda_stream(out.__dlpack_device__()[1], Stream(context.stream)) as cupy:
        cupy.asarray(out)[...] = derivative(cupy, role, problem, cupy.asarray(a), cupy.asarray(b))


class Stream:
    """A CUDA stream by its address, as CuPy takes it."""

    def __init__(self, address: int) -> None:
        self.address = address

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self.address


def _lowered(callback: Any) -> Any:
    def compute(a: Any, b: Any, *, role: Role, problem: Problem) -> Any:
        def call(*buffers: Any) -> None:
            callback(*buffers, role=role, problem=problem)

        return buffer_callback(call, jax.ShapeDtypeStruct(shape(role, problem), a.dtype))(a, b)

    return mlir.lower_fun(compute, multiple_results=False)


mlir.register_lowering(derivative_p, _lowered(on_host), platform="cpu")
mlir.register_lowering(derivative_p, _lowered(on_gpu), platform="cuda")
