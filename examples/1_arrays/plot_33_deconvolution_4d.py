r"""
Events in space and time, found by deconvolution
================================================

A few events happen in a volume over time. Each is seen blurred along three axes of space, and it fades along time.
:func:`hcnn_core.linear_operator` makes the blur an operator of SciPy, with its exact adjoint. PyLops finds the events
by conjugate gradients, which know nothing of them, and by FISTA, which knows that they are few.
"""

import os

import matplotlib.pyplot as plt
import numpy as np
import pylops

from hcnn_core import linear_operator
from hcnn_core.testing import assert_adjoint

SMALL = os.environ.get("HCNN_EXAMPLES") == "small"
rng = np.random.default_rng(0)
shape = (8, 8, 8, 12) if SMALL else (14, 14, 14, 24)  # u1, u2, u3, t
events = 6 if SMALL else 20

# %%
# A Gaussian along space, and an exponential decay after the event. A tap t of a filter with s taps reads sample
# ``i - (t - s // 2)``, so the decay begins with the middle tap.

gauss = np.exp(-(np.arange(-2, 3) ** 2) / 2)
decay = np.where(np.arange(9) < 4, 0.0, np.exp(-(np.arange(9) - 4) / 1.5))
w = np.einsum("i,j,k,t->ijkt", gauss, gauss, gauss, decay)  # (5, 5, 5, 9)
w /= np.linalg.norm(w)

blur = linear_operator(w, shape, (0, 1, 2, 3), boundary="zero")

x = np.zeros(shape)
x.flat[rng.choice(x.size, events, replace=False)] = rng.choice([-1, 1], events) * rng.uniform(1, 2, events)
y = blur @ x.ravel() + 0.02 * rng.standard_normal(x.size)
assert_adjoint(blur.matvec, blur.rmatvec, x.ravel(), y)

# %%
# CGLS minimises ``|K x - y|^2 + damp^2 |x|^2``. FISTA minimises ``|K x - y|^2 / 2 + eps |x|_1``. For its step it needs
# a bound on the norm of the blur, which is the largest frequency response of the filter.

step = 1 / np.abs(np.fft.fftn(w, [2 * n for n in shape])).max() ** 2
by_cgls = pylops.cgls(blur, y, niter=60, damp=0.5)[0].reshape(shape)
by_fista = pylops.optimization.sparsity.fista(blur, y, niter=200, eps=0.1, alpha=step)[0].reshape(shape)

found = set(np.argsort(-abs(by_fista.ravel()))[:events])
true = set(np.flatnonzero(x))
for name, estimate in (("CGLS", by_cgls), ("FISTA", by_fista)):
    error, strongest = np.linalg.norm(estimate - x) / np.linalg.norm(x), np.argsort(-abs(estimate.ravel()))[:events]
    print(
        f"{name:5}: relative error {error:.2f}, {len(true & set(strongest))} of the {events} largest samples are events"
    )
assert np.linalg.norm(by_fista - x) < 0.8 * np.linalg.norm(by_cgls - x)
assert len(found & true) >= 0.7 * events

fig, panels = plt.subplots(1, 4, figsize=(12, 3), layout="constrained", sharey=True)
volumes = {"events": x, "seen": y.reshape(shape), "CGLS": by_cgls, "FISTA": by_fista}
for ax, (title, volume) in zip(panels, volumes.items(), strict=True):
    flat = volume.reshape(shape[0], -1, shape[3])
    strongest = np.take_along_axis(flat, abs(flat).argmax(1)[:, None], 1)[:, 0]
    ax.imshow(strongest, cmap="RdBu", aspect="auto", vmin=-2, vmax=2)
    ax.set(title=title, xlabel="t")
panels[0].set_ylabel("first axis of space")

# %%
# The blur is known, and the weights of both penalties were chosen on these data. The penalty of FISTA makes strong
# events too weak. A last least-squares step over the samples that it chose would mend that.
