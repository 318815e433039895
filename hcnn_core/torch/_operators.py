"""The three derivatives of the trilinear form as operators of PyTorch, which are each other's gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from hcnn_core._problem import Problem, make_problem
from hcnn_core.backend import cuda_stream
from hcnn_core.convolution import NAMES, OPERANDS, Role, derivative, mapped, shape

SCHEMA = (
    "(Tensor a, Tensor b, SymInt[] x_shape, SymInt[] w_shape, "
    "int[] axes, int[] sum_axes, int[] stride, str[] boundary, str[] method) -> Tensor"
)
"""The schema of all three operators: after the arrays, the first fields of `Problem` in order."""

Calls: TypeAlias = dict[Role, Callable[..., Tensor]]


def problem_of(role: Role, a: Tensor, b: Tensor, options: Sequence[Any]) -> Problem:
    """Return the problem of the options; ValueError or TypeError if the arrays do not fit it."""
    x_shape, w_shape, axes, sum_axes, stride, boundary, method = options
    problem = make_problem(
        tuple(x_shape), tuple(w_shape), axes, boundary=boundary, sum_axes=sum_axes, stride=stride, method=method
    )
    for letter, array in zip(OPERANDS[role], (a, b), strict=True):
        if tuple(array.shape) != shape(letter, problem):
            raise ValueError(f"{letter} has shape {tuple(array.shape)}; this convolution has {shape(letter, problem)}")
    if a.dtype != b.dtype:
        raise TypeError(f"arrays of {a.dtype} and {b.dtype} in one call: make them of one dtype first")
    return problem


def memory_order(role: Role, problem: Problem) -> tuple[int, ...]:
    """Axes of the derivative in the order in which they lie in memory.

    Axes keep their order, but new axes of a convolution lie where the first summed axis of the signal was: from a
    signal (N, C, *space) follows (N, K, *space).
    """
    axes = tuple(range(len(shape(role, problem))))
    if role != "y" or not problem.sum_axes:
        return axes
    front, count = sum(a < problem.sum_axes[0] for a in problem.kept_axes), len(problem.kept_axes)
    return (*axes[:front], *axes[count:], *axes[front:count])


def on_host(role: Role, a: Tensor, b: Tensor, *options: Any) -> Tensor:
    """Return the derivative of tensors on the CPU, which are not copied, in new memory."""
    problem = problem_of(role, a, b, [tuple(option) for option in options])
    arrays = (t.detach().resolve_conj().resolve_neg().numpy() for t in (a, b))
    order = memory_order(role, problem)
    result = np.ascontiguousarray(derivative(np, role, problem, *arrays).transpose(order))
    return torch.from_numpy(result.transpose(np.argsort(order)))


def on_gpu(role: Role, a: Tensor, b: Tensor, *options: Any) -> Tensor:
    """Return the derivative of tensors on a GPU, by CuPy on PyTorch's current stream."""
    problem = problem_of(role, a, b, [tuple(option) for option in options])
    order = memory_order(role, problem)
    with cuda_stream(a.device.index, torch.cuda.current_stream(a.device)) as cupy:
        arrays = (cupy.from_dlpack(t.detach().resolve_conj().resolve_neg()) for t in (a, b))
        result = cupy.ascontiguousarray(derivative(cupy, role, problem, *arrays).transpose(order))
        return torch.from_dlpack(result.transpose(np.argsort(order).tolist()))


def without_values(role: Role, a: Tensor, b: Tensor, *options: Any) -> Tensor:
    """Return a tensor of the shape, dtype and strides of the derivative; lengths may be symbols."""
    problem = problem_of(role, a, b, options)
    order, lengths = memory_order(role, problem), shape(role, problem)
    return a.new_empty([lengths[axis] for axis in order]).permute(np.argsort(order).tolist())


def remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    """Save what `cotangents` and `tangent` need."""
    a, b, *ctx.options = inputs
    ctx.save_for_backward(a, b)
    ctx.save_for_forward(a, b)


def cotangents(role: Role, calls: Calls, ctx: Any, h: Tensor) -> tuple[Tensor | None, ...]:
    """Cotangents of both operands: the form's two other derivatives, at h and the other operand."""
    arrays = dict(zip(OPERANDS[role], (saved.conj() for saved in ctx.saved_tensors), strict=True))
    arrays[role] = h
    of_operands = [
        calls[letter](*(arrays[operand] for operand in OPERANDS[letter]), *ctx.options) if wanted else None
        for letter, wanted in zip(OPERANDS[role], ctx.needs_input_grad, strict=False)
    ]
    return (*of_operands, *(None for _ in ctx.options))


def tangent(role: Role, calls: Calls, ctx: Any, of_a: Tensor | None, of_b: Tensor | None) -> Tensor:
    """Tangent of a derivative: it is bilinear."""
    a, b = ctx.saved_tensors
    pairs = [pair for pair in ((of_a, b), (a, of_b)) if pair[0] is not None and pair[1] is not None]
    first, *others = (calls[role](*pair, *ctx.options) for pair in pairs)
    return first + others[0] if others else first


def over_batch(
    role: Role, calls: Calls, info: Any, in_dims: tuple[Any, ...], a: Tensor, b: Tensor, *options: Any
) -> tuple[Tensor, int]:
    """Return the derivative at many operands: one call if only one operand is mapped, else one call for each pair."""
    of_a, of_b = in_dims[:2]
    x_shape, w_shape, axes, sum_axes, stride, boundary, method = map(tuple, options)
    problem = Problem(x_shape, w_shape, axes, sum_axes, stride, boundary, method)
    if of_a is not None and of_b is not None:
        if not info.batch_size:
            return a.new_empty((0, *shape(role, problem))), 0
        pairs = ((a.select(of_a, i), b.select(of_b, i)) for i in range(info.batch_size))
        return torch.stack([calls[role](*pair, *options) for pair in pairs]), 0
    first, second = OPERANDS[role]
    wider, place = mapped({role, second if of_a is None else first}, problem, info.batch_size)
    if of_a is None:
        b = b.movedim(of_b, place)
    else:
        a = a.movedim(of_a, place)
    names = (field.name for field in fields(wider)[: len(options)])
    result = calls[role](a, b, *(list(getattr(wider, name)) for name in names))
    return result, place % result.ndim


def registered() -> Calls:
    """Return the derivatives as operators of the namespace ``torch.ops.hcnn``, which compilers see through."""
    calls: Calls = {}
    for role, name in NAMES.items():
        op: Any = torch.library.custom_op(
            f"hcnn::{name}", partial(on_host, role), mutates_args=(), device_types="cpu", schema=SCHEMA
        )
        op.register_kernel("cuda", partial(on_gpu, role))
        op.register_fake(partial(without_values, role))
        op.register_autograd(lambda ctx, h, role=role: cotangents(role, calls, ctx, h), setup_context=remember)
        op.register_vmap(partial(over_batch, role, calls))
        calls[role] = op
    return calls


def functions(registered: Calls) -> Calls:
    """Return the derivatives as `torch.autograd.Function`, which the transforms of ``torch.func`` see through."""
    calls: Calls = {}
    for role in NAMES:
        calls[role] = _function(role, registered[role], calls)
    return calls


def _function(role: Role, op: Callable[..., Tensor], calls: Calls) -> Callable[..., Tensor]:
    """One of the derivatives; its gradients are the others of `calls`."""

    class Derivative(torch.autograd.Function):
        @staticmethod
        def forward(a: Tensor, b: Tensor, *options: Any) -> Tensor:
            return op(a, b, *options)

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
            remember(ctx, inputs, output)

        @staticmethod
        def backward(ctx: Any, h: Tensor) -> tuple[Tensor | None, ...]:
            return cotangents(role, calls, ctx, h)

        @staticmethod
        def jvp(ctx: Any, of_a: Tensor | None, of_b: Tensor | None, *_: Any) -> Tensor:
            return tangent(role, calls, ctx, of_a, of_b)

        @staticmethod
        def vmap(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> tuple[Tensor, int]:
            return over_batch(role, calls, info, in_dims, *arguments)

    def call(a: Tensor, b: Tensor, *options: Any) -> Tensor:
        return Derivative.apply(a, b, *options)

    return torch.compiler.allow_in_graph(call)  # the compiler would look into the function, and fail


def inside_a_transform() -> bool:
    """Whether a transform of ``torch.func`` or forward mode is active, under which registered operators fail."""
    return torch._C._functorch.get_dynamic_layer_stack_depth() > 0 or torch.autograd.forward_ad._current_level >= 0


REGISTERED = registered()
FUNCTIONS = functions(REGISTERED)
