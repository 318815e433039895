r"""
Sparse codes: ISTA and LISTA
============================

A sparse code of x minimises :math:`\frac{1}{2} \|x - D a\|^2 + \gamma \|a\|_1`. Iterative soft thresholding (ISTA)
finds it in hundreds of steps. Unrolled, it is a network with thresholds as nonlinearities; trained (LISTA), it needs
few layers.

Source: S. Mallat, Multiscale Sparse Models in Deep Convolutional Networks, slide 31; K. Gregor, Y. LeCun, Learning fast
approximations of sparse coding, 2010.
"""

import matplotlib.pyplot as plt
import numpy as np

from hcnn.wavelets import adam, ista, lista, soft_threshold, sparse_loss

rng = np.random.default_rng(0)

# %%
# Sums of five random atoms of a random dictionary, and some noise.

d, m, penalty = 32, 64, 0.1
dictionary = rng.standard_normal((d, m))
dictionary /= np.linalg.norm(dictionary, axis=0)


def draw(count):
    """Signals (count, d)."""
    code = rng.standard_normal((count, m)) * (rng.random((count, m)).argsort(1) < 5)
    return code @ dictionary.T + 0.02 * rng.standard_normal((count, d))


tested = draw(500)
assert abs(np.mean(tested**2) * d / (5 + 0.02**2 * d) - 1) < 0.15, "the energy of five unit atoms and the noise"
best = ista(tested, dictionary, penalty, iterations=5000)
losses = sparse_loss(tested, best, dictionary, penalty)

# %%
# Any vector r with ``abs(D' r) <= gamma``, such as the scaled residual, bounds the loss of every code from below, by
# ``x'r - r'r / 2``. So it shows how far above the minimum a code can be: its *duality gap*.

residual = tested - best @ dictionary.T
residual *= np.minimum(1, penalty / np.abs(residual @ dictionary).max(axis=1, keepdims=True))
bounds = (tested * residual).sum(axis=1) - (residual**2).sum(axis=1) / 2
print(f"losses exceed their lower bounds by up to {np.max(losses / bounds - 1):.1e} of these")
assert np.all(bounds <= losses * (1 + 1e-12)) and np.all(losses < bounds * (1 + 1e-9)), "ISTA ended at the minimum"

# %%
# ISTA is a network. Slide 31: each layer is soft_threshold(a + W_e (D a - x)). With W_e = -eta D' it is ISTA, exactly.

eta, code = 1 / np.linalg.norm(dictionary, 2) ** 2, np.zeros_like(best)
unrolled = lista(tested, dictionary, -eta * dictionary.T, eta * penalty, iterations=20)
for _ in range(20):
    code = soft_threshold(code - eta * (code @ dictionary.T - tested) @ dictionary, eta * penalty)
assert np.array_equal(unrolled, ista(tested, dictionary, penalty, iterations=20))
assert np.abs(unrolled - code).max() < 1e-14

# %%
# LISTA learns W_e and the thresholds, not D. The loss is that of the codes after K layers, on new signals each step.

depths = (1, 2, 4, 8)
excess = {"ISTA": [], "LISTA": []}
for depth in depths:
    start = {"encoder": -eta * dictionary.T, "log_threshold": np.full(m, np.log(eta * penalty))}

    def loss_of(p, x, depth=depth):
        code = lista(x, dictionary, p["encoder"], np.exp(p["log_threshold"]), iterations=depth)
        return np.mean(sparse_loss(x, code, dictionary, penalty))

    batches = [draw(128) for _ in range(600)]
    assert not np.isin(np.concatenate(batches)[:, 0], tested[:, 0]).any(), "it learns from other signals"
    learned = adam(loss_of, start, batches, rate=3e-3)
    for name, parameters in (("ISTA", start), ("LISTA", learned)):
        excess[name].append(loss_of(parameters, tested) / losses.mean() - 1)
        print(f"{depth} layers of {name}: {excess[name][-1]:.1%} above the least loss")
    most = np.mean(np.sum(best**2, axis=1)) / (2 * eta * depth)  # theory (A. Beck and M. Teboulle, 2009, theorem 3.1)
    assert excess["ISTA"][-1] * losses.mean() < most, "ISTA loses no more than it must"
    as_it_is = sparse_loss(tested, ista(tested, dictionary, penalty, iterations=depth), dictionary, penalty)
    assert np.isclose(excess["ISTA"][-1], as_it_is.mean() / losses.mean() - 1), "it is compared with ISTA"

fig, ax = plt.subplots(figsize=(6, 3.6), layout="constrained")
for name, values in excess.items():
    ax.semilogy(depths, values, "o-", label=name)
ax.set(xlabel="layers, or iterations", ylabel="loss above the minimum, relative", title="new signals", xticks=depths)
ax.legend()
assert all(0 < a < 0.9 * b for a, b in zip(excess["LISTA"], excess["ISTA"], strict=True))

# %%
# LISTA was trained on such signals and for this dictionary; ISTA needs no training and ends at the minimum.
