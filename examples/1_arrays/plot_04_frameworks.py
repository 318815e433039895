r"""
Inside PyTorch and JAX
======================

:func:`hcnn.core.convolve` as a function of PyTorch and of JAX, along four axes, more than PyTorch convolves. Each
framework checks the gradients by its own finite differences, and both agree with :func:`hcnn.autodiff.grad`.

This page needs PyTorch and JAX. Where one of them is missing, the site shows the script without its results.
:doc:`/frameworks` says what else there is.
"""

# sphinx_gallery_thumbnail_path = '_static/thumbnails/plot_04_frameworks.png'

from functools import partial

import jax
import jax.numpy as jnp
import jax.test_util
import matplotlib.pyplot as plt
import numpy as np
import torch

import hcnn.core.jax
import hcnn.core.torch

jax.config.update("jax_enable_x64", True)
n = 6
options = {"axes": (0, 1, 2, 3), "boundary": "periodic"}

rng = np.random.default_rng(0)
x, w = rng.standard_normal((n, n, 3, 4)), rng.standard_normal((3, 3, 2, 3, 2))  # 2 filters, each with 4 axes

# %%
# PyTorch
# -------
# Tensors on the CPU go in without a copy. A derivative is such a convolution again, so it has derivatives.

x_torch, w_torch = (torch.tensor(a, requires_grad=True) for a in (x, w))
in_torch = partial(hcnn.core.torch.convolve, **options)
assert torch.autograd.gradcheck(in_torch, (x_torch, w_torch), fast_mode=True)
assert torch.autograd.gradgradcheck(in_torch, (x_torch, w_torch), fast_mode=True)

# %%
# JAX
# ---
# The function is a primitive of JAX with a rule for each mode, forward and reverse.

in_jax = partial(hcnn.core.jax.convolve, **options)
jax.test_util.check_grads(in_jax, (jnp.asarray(x), jnp.asarray(w)), order=2, modes=["fwd", "rev"])

# %%
# Three tapes, one gradient
# -------------------------
# The loss is that of a ReLU layer, a function that each tape knows by its own name.

torch.relu(in_torch(x_torch, w_torch)).square().sum().backward()
loss_jax = jax.jit(lambda w: jnp.sum(jax.nn.relu(in_jax(x, w)) ** 2))

gradients = {
    "autodiff": hcnn.grad(lambda w: np.sum(np.maximum(hcnn.convolve(x, w, **options), 0) ** 2))(w),
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
# What this does not show: arrays on a GPU, and mapping over a batch.
