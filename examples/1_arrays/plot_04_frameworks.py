r"""
Inside PyTorch and JAX
======================

:func:`hcnn_core.convolve` becomes a function of PyTorch by ``torch.autograd.Function``, and a function of JAX by
``jax.pure_callback``. Each framework then checks the gradients by its own finite differences, and both agree with
:func:`autodiff.grad`. The convolution here is along four axes, more than either framework convolves.

This page needs PyTorch and JAX. Where one of them is missing, the site shows the script without its results.
:doc:`/frameworks` has longer recipes, with derivatives of every order.
"""

import os
from functools import partial

import jax
import jax.numpy as jnp
import jax.test_util
import matplotlib.pyplot as plt
import numpy as np
import torch

import autodiff
from hcnn_core import convolve, convolve_vjp_w, convolve_vjp_x

jax.config.update("jax_enable_x64", True)
SMALL = os.environ.get("HCNN_EXAMPLES") == "small"
n = 4 if SMALL else 6
axes, boundary = (0, 1, 2, 3), "periodic"

# %%
# PyTorch
# -------
# Tensors on the CPU go in without a copy. The backward pass is the two adjoints.


class Convolve(torch.autograd.Function):
    """Convolution of a tensor along `axes`, with gradients of first order."""

    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        return torch.from_numpy(np.ascontiguousarray(convolve(x.detach(), w.detach(), axes, boundary=boundary)))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        x, w = (saved.detach() for saved in ctx.saved_tensors)
        of_x = convolve_vjp_x(g, x.shape, w, axes, boundary=boundary)
        of_w = convolve_vjp_w(g, x, w.shape, axes, boundary=boundary)
        return torch.from_numpy(np.ascontiguousarray(of_x)), torch.from_numpy(np.ascontiguousarray(of_w))


rng = np.random.default_rng(0)
x, w = rng.standard_normal((n, n, 3, 4)), rng.standard_normal((3, 3, 2, 3, 2))  # 2 filters, each with 4 axes
x_torch, w_torch = (torch.tensor(a, requires_grad=True) for a in (x, w))
assert torch.autograd.gradcheck(Convolve.apply, (x_torch, w_torch), fast_mode=True)

# %%
# JAX
# ---
# ``pure_callback`` calls NumPy from compiled code; ``custom_vjp`` says what the derivative is.


def called(function, shape, *arrays):
    """The result of a function of NumPy arrays, within code that JAX compiles."""
    result = jax.ShapeDtypeStruct(shape, jnp.float64)
    return jax.pure_callback(lambda *a: function(*map(np.asarray, a)), result, *arrays, vmap_method="sequential")


@jax.custom_vjp
def convolve_jax(x, w):
    """Convolution of a JAX array along `axes`, with gradients of first order."""
    return called(partial(convolve, axes=axes, boundary=boundary), (*x.shape, *w.shape[len(axes) :]), x, w)


def backward(saved, g):
    """Cotangents of x and w."""
    x, w = saved
    of_x = called(lambda g, w: convolve_vjp_x(g, x.shape, w, axes, boundary=boundary), x.shape, g, w)
    of_w = called(lambda g, x: convolve_vjp_w(g, x, w.shape, axes, boundary=boundary), w.shape, g, x)
    return of_x, of_w


convolve_jax.defvjp(lambda x, w: (convolve_jax(x, w), (x, w)), backward)
jax.test_util.check_grads(convolve_jax, (jnp.asarray(x), jnp.asarray(w)), order=1, modes=["rev"])

# %%
# Three tapes, one gradient
# -------------------------
# The loss is that of a ReLU layer, a function that each tape knows by its own name. All three call the same adjoint.

loss_torch = torch.relu(Convolve.apply(x_torch, w_torch)).square().sum()
loss_torch.backward()
loss_jax = jax.jit(lambda w: jnp.sum(jax.nn.relu(convolve_jax(jnp.asarray(x), w)) ** 2))

gradients = {
    "autodiff": autodiff.grad(lambda w: np.sum(np.maximum(autodiff.convolve(x, w, axes, boundary=boundary), 0) ** 2))(
        w
    ),
    "PyTorch": w_torch.grad.numpy(),
    "JAX": np.asarray(jax.grad(loss_jax)(w)),
}
for name, gradient in gradients.items():
    difference = abs(gradient - gradients["autodiff"]).max() / abs(gradient).max()
    print(f"{name:8} relative difference from autodiff: {difference:.1e}")
    assert difference < 1e3 * np.finfo(float).eps

fig, ax = plt.subplots(figsize=(5, 4), layout="constrained")
for marker, name in (("o", "PyTorch"), ("x", "JAX")):
    ax.plot(gradients["autodiff"].ravel(), gradients[name].ravel(), marker, mfc="none", label=name)
ax.set(xlabel="gradient by autodiff", ylabel="gradient by a framework", title=f"{w.size} coefficients of the filters")
ax.legend()

# %%
# What this does not show: arrays on a GPU, second derivatives, and mapping over a batch.
