r"""
Multifractal scaling and leverage
=================================

The moments of wavelet coefficients of a multifractal process grow like :math:`E|X \star \psi_j|^q \sim 2^{j \zeta(q)}`
with an exponent that is not linear in q. We measure :math:`\zeta(q)` of a Brownian motion, a random cascade and a
multifractal random walk, and the leverage :math:`L(\tau) = E[X(t+\tau)^2 X(t)] / E[X^2]^{3/2}` of returns.

Source: S. Mallat, Multiscale Sparse Models in Deep Convolutional Networks, slide 20. The slide has the returns of the
S&P 500; here are simulated ones, since prices cannot be shipped.
"""

import os

import matplotlib.pyplot as plt
import numpy as np

from wavelets import leverage, lognormal_cascade, multifractal_noise, randomize_phases, steerable_bank
from wavelets.scaling import scaling_exponents, structure_functions

SMALL = os.environ.get("HCNN_EXAMPLES") == "small"
levels, realisations = (15, 8) if SMALL else (17, 16)
n = 2**levels
rng = np.random.default_rng(0)
orders = np.arange(0.5, 4.1, 0.5)

# %%
# Three processes
# ---------------
# Each is a sum of increments. The straight line from its first to its last value is subtracted, so that it is periodic.

s2, lambda2 = 0.08, 0.03
increments = {
    "Brownian motion": lambda: rng.standard_normal(n),
    "cascade": lambda: lognormal_cascade(levels, s2, rng),
    "multifractal walk": lambda: multifractal_noise(n, lambda2, rng),
}
theory = {
    "Brownian motion": orders / 2,
    "cascade": orders - s2 * orders * (orders - 1) / (2 * np.log(2)),
    "multifractal walk": orders / 2 - lambda2 * orders * (orders - 2) / 2,
}
steps = {name: np.stack([make() for _ in range(realisations)]) for name, make in increments.items()}
fields = {name: np.cumsum(x - x.mean(axis=1, keepdims=True), axis=1) for name, x in steps.items()}
fig, axes = plt.subplots(2, 3, figsize=(11, 4), sharex=True, layout="constrained")
for (above, below), (name, x) in zip(axes.T, fields.items(), strict=True):
    above.plot(np.arange(0, n, n // 4096), x[0, :: n // 4096])
    above.set(title=name, yticks=[])
    below.plot(np.arange(n - 1), np.diff(x[0]), lw=0.2)
    below.set(xlabel="sample", ylabel="increments", xticks=[0, n // 2], yticks=[])

# %%
# Scaling exponents
# -----------------
# Slopes over scales 2^2 to 2^(J-3). The standard error is that of the mean over realisations, each fitted alone. The
# curvature 2 zeta(1) - zeta(2), 0 where zeta is linear since zeta(0) = 0, agrees with the theory within four of its
# standard errors. Exponents may be off by more: finite scales bias all of them alike.

octaves = levels - 5
bank = steerable_bank(n, octaves)
fig, ax = plt.subplots(figsize=(6, 4), layout="constrained")
curvature = {}
for color, (name, x) in zip(("C0", "C1", "C2"), fields.items(), strict=True):
    moments = np.stack([structure_functions(y, bank, orders) for y in x])  # (realisations, J, Q)
    zeta = scaling_exponents(moments.mean(0), 2, octaves - 3)
    each = np.stack([scaling_exponents(m, 2, octaves - 3) for m in moments])
    error = each.std(axis=0, ddof=1) / np.sqrt(realisations)
    ax.errorbar(orders, zeta, 2 * error, fmt=color + "o", capsize=3, label=name)
    ax.plot(orders, theory[name], color)
    curvature[name], predicted = (2 * z[1] - z[3] for z in (zeta, theory[name]))
    spread = np.std(2 * each[:, 1] - each[:, 3], ddof=1) / np.sqrt(realisations)
    print(f"{name}: zeta(q) measured, its standard error, theory")
    for i in (1, 3, 5, 7):
        print(f"  q = {orders[i]:.0f}: {zeta[i]:.3f} +- {error[i]:.3f}, {theory[name][i]:.3f}")
    print(f"  2 zeta(1) - zeta(2): {curvature[name]:.4f} +- {spread:.4f}, {predicted:.4f}")
    assert np.all(np.abs(zeta - theory[name])[orders <= 2] < 0.06) and abs(curvature[name] - predicted) < 4 * spread
ax.set(xlabel="q", ylabel="zeta(q)", title="measured, with two standard errors; theory: lines")
assert abs(curvature["Brownian motion"]) < 0.02 < min(curvature["cascade"], curvature["multifractal walk"])

# A Gaussian process with the same power spectrum keeps zeta(2) and loses the curvature
surrogate = np.stack([randomize_phases(x, rng) for x in fields["cascade"]])
zeta = scaling_exponents(structure_functions(surrogate, bank, orders), 2, octaves - 3)
ax.plot(orders, zeta, "k:", label="cascade, random phases")
ax.legend()
print(f"cascade with random phases: 2 zeta(1) - zeta(2) = {2 * zeta[1] - zeta[3]:.3f}")
assert abs(2 * zeta[1] - zeta[3]) < 0.02

# %%
# High orders depend on few large values. Beyond some q the exponents of a finite sample become linear in q, so they
# are asserted for q <= 2 alone, and the table shows what remains above.
#
# Leverage
# --------
# With leverage, falls raise later variances. The correlation is negative for positive lags and zero for negative ones:
# time has a direction.

lags = 60
fig, ax = plt.subplots(figsize=(6, 4), layout="constrained")
for color, strength in (("C3", 0.08), ("C0", 0.0)):
    x = np.stack([multifractal_noise(n, lambda2, rng, scale=512, leverage=strength) for _ in range(realisations)])
    each = np.stack([leverage(y, lags) for y in x])
    mean, error = each.mean(0), each.std(0, ddof=1) / np.sqrt(realisations)
    ax.plot(np.arange(-lags, lags + 1), mean, color, label=f"strength {strength}")
    ax.fill_between(np.arange(-lags, lags + 1), mean - 2 * error, mean + 2 * error, color=color, alpha=0.2)
    for name, part in (("1 to 20", slice(lags + 1, lags + 21)), ("-20 to -1", slice(lags - 20, lags))):
        values = each[:, part].mean(1)
        ratio = values.mean() / (values.std(ddof=1) / np.sqrt(realisations))
        print(f"strength {strength}: mean of L over lags {name}: {values.mean():+.3f}, {ratio:+.1f} standard errors")
        assert ratio < -5 if strength and name == "1 to 20" else abs(ratio) < 4
ax.set(xlabel="lag (samples)", title="leverage L, with two standard errors", ylim=(-0.4, 0.2))
ax.legend()

# %%
# That these processes reproduce market data, as the slide says of its model, is not shown here.
