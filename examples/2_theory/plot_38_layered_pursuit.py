r"""
Sparse codes of two layers
==========================

A signal is a sum of few local atoms, :math:`x = D_1 \gamma_1`, whose code is such a sum again, :math:`\gamma_1 = D_2
\gamma_2`. A network of two convolutional layers, :math:`\rho(D_2^T \rho(D_1^T x))` with thresholds as :math:`\rho`,
estimates both codes. How near does it come to the true ones, and what comes nearer?

Sources: V. Papyan, Y. Romano and M. Elad, `arXiv:1607.08194 <https://arxiv.org/abs/1607.08194>`_, the two-layer network
of J. Tanner, Theories of Deep Learning, lecture 11.
"""

from functools import partial

import matplotlib.pyplot as plt
import numpy as np
from scipy import signal
from skimage.util import montage

from hcnn.core import convolve, convolve_vjp_x
from hcnn.train import load
from hcnn.wavelets import ista, soft_threshold

count, sparsities = 100, (2, 4, 8, 16)
n, first, second = 64, 4, 8  # samples of a signal, filters of the two layers
rng = np.random.default_rng(0)

# %%
# Four filters of 8 taps make signals. Eight filters make codes for these; three of their 6 x 4 taps are not zero.
# Dictionaries are the convolutions as matrices; their transposes are the layers.


def sparse(shape, few):
    """Numbers 1 and -1, of which few along the last axis are not zero."""
    return rng.choice([-1, 1], shape) * (rng.random(shape).argsort(axis=-1) < few)


def dictionary(w):
    """The matrix (n * outputs, n * codes) of periodic convolutions with w (codes, taps, outputs)."""
    codes = np.eye(n * len(w)).reshape(-1, n, len(w))
    return convolve(codes, w, (1,), boundary="periodic", sum_axes=2).reshape(len(codes), -1).T


def draw(atoms):
    """Signals (count, n) with noise, and both codes; the second one has so many atoms."""
    code = sparse((count, n * second), atoms) * rng.uniform(1, 2, (count, n * second))
    return code @ (D_1 @ D_2).T + 0.05 * rng.standard_normal((count, n)), code @ D_2.T, code


w = rng.standard_normal((first, 8, 1))
w /= np.linalg.norm(w, axis=1, keepdims=True)
D_1 = dictionary(w)
D_2, another = (dictionary(sparse((second, 6 * first), 3).reshape(-1, 6, first) / 3**0.5) for _ in range(2))
x, *_ = draw(2)
layer = convolve_vjp_x(x[..., None], (count, n, first), w, (1,), boundary="periodic", sum_axes=2)
assert np.allclose(x @ D_1, layer.reshape(count, -1)), "the layer of a network"

# %%
# Thresholds are the network. *Layered pursuit* finds each code by :math:`\ell^1` minimisation, the second in the first.
# *Deep pursuit* finds the second in the signal, by the atoms of :math:`D_1 D_2`, and the first from the second. The
# control does so with another second layer. Each way has the best of five thresholds or penalties, chosen with the
# true codes. Errors are squared distances from these, relative to their squared norms.


def error(code, true):
    """Squared error, relative."""
    return np.sum((code - true) ** 2) / np.sum(true**2)


def best(way, x, D, true):
    """The code of x in a dictionary that is nearest to the true one."""
    return min((way(x, D, penalty) for penalty in (0.03, 0.1, 0.3, 1, 3)), key=lambda code: error(code, true))


ways = {"thresholds": lambda x, D, tau: soft_threshold(x @ D, tau), "layered pursuit": partial(ista, iterations=200)}
errors = {name: [] for name in (*ways, "deep pursuit", "deep pursuit, another layer")}
for atoms in sparsities:
    x, *true = draw(atoms)
    codes = {name: best(way, x, D_1, true[0]) for name, way in ways.items()}
    codes = {name: (code, best(ways[name], code, D_2, true[1])) for name, code in codes.items()}
    for name, D in (("deep pursuit", D_2), ("deep pursuit, another layer", another)):
        code = best(ways["layered pursuit"], x, D_1 @ D, true[1])
        codes[name] = code @ D.T, code
    for name, pair in codes.items():
        errors[name].append([error(*both) for both in zip(pair, true, strict=True)])
        print(f"{atoms:2} atoms, {name:27} errors {errors[name][-1][0]:.2f} and {errors[name][-1][1]:.2f}")

fig, panels = plt.subplots(1, 2, figsize=(11, 3.6), layout="constrained", sharey=True)
for k, ax in enumerate(panels):
    for name, pairs in errors.items():
        ax.plot(sparsities, [pair[k] for pair in pairs], "o-", label=name)
    ax.set(xlabel="atoms of the second layer", xticks=sparsities, title=rf"error of $\gamma_{k + 1}$", ylim=(0, 1.2))
fig.legend(*ax.get_legend_handles_labels(), loc="outside right center")
network, layered, deep, control = (np.array(pairs) for pairs in errors.values())
assert np.all(deep < layered) and np.all(layered < np.minimum(network, control)), "it takes pursuit, by the right atoms"
assert np.all(network <= 1) and np.allclose(control, 1, atol=0.02), "0 has the error 1, and no code is worse"

# %%
# Atoms resemble each other, so thresholds find little. Pursuit explains a signal by few. The right second layer helps
# to find the first code too: 16 atoms of 512 leave fewer choices than 48 of 256. With another second layer no code is
# nearer to the truth than 0 is.
#
# Atoms of :math:`D_1 D_2` are sums of atoms of the first layer. Where layers were trained on images, they are pictures:
# 16 of the second layer of a network that ships, by the transposes of its layers, beside filters of the first.

w_1, w_2 = (load("hcnn-periodic").merged[name]["w"] for name in ("layer01", "layer02"))
code = np.zeros((16, 5, 5, 8, 16))
code[range(16), 2, 2, np.arange(16) // 2, range(16)] = 1
code = convolve_vjp_x(code, (16, 5, 5, 16), w_2, (1, 2, 3), boundary=("zero", "zero", "periodic"), stride=(1, 1, 2))
atoms = convolve_vjp_x(code, (16, 5, 5, 3), w_1, (1, 2), boundary="zero", sum_axes=3)
for k, atom in enumerate(atoms):
    direct = sum(signal.convolve(w_2[None, ..., t, k], w_1[..., (k // 2 * 2 + 5 - t) % 16]) for t in range(11))
    assert np.allclose(np.moveaxis(atom, -1, 0), direct[:, ::-1, ::-1], atol=1e-5), "the sum over taps"
fig, panels = plt.subplots(1, 2, figsize=(7, 3.6), layout="constrained")
for ax, pictures in zip(panels, (np.moveaxis(w_1, (3, 0), (0, 3))[:, ::-1, ::-1], atoms), strict=True):
    pictures = 0.5 + pictures / abs(pictures).max((1, 2, 3), keepdims=True) / 2  # grey where it is 0
    ax.imshow(montage(pictures, [1, 1, 1], padding_width=1, channel_axis=-1))
    ax.set(title=f"atoms of {pictures.shape[1]} x {pictures.shape[1]} pixels", xticks=[], yticks=[])
