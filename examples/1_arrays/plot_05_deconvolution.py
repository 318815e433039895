r"""
Deconvolution by conjugate gradients
====================================

A blurred, noisy picture is restored by solving a linear system. :func:`hcnn.core.linear_operator` makes the blur an
operator K of SciPy with its exact adjoint, which solvers of SciPy and of PyLops take. At periodic boundaries the
Fourier transform gives the exact solution, which both must reach: the x that minimises ``|K x - y|^2 + damp |x|^2``,
by Tikhonov's regularisation.
"""

import os

import matplotlib.pyplot as plt
import numpy as np
from scipy.sparse.linalg import LinearOperator, cg
from skimage.data import camera
from skimage.metrics import peak_signal_noise_ratio
from skimage.transform import resize

from hcnn.core import linear_operator
from hcnn.core.testing import assert_adjoint

os.environ.setdefault("CUPY_PYLOPS", "0")  # PyLops imports CuPy where it is installed, which fails without a card
import pylops

n = 256
rng = np.random.default_rng(0)
picture = resize(camera() / 255.0, (n, n), anti_aliasing=True)

# %%
# Motion blur along a diagonal, which is not symmetric, so the adjoint differs from the blur itself.

w = np.diag(np.linspace(1.0, 0.2, 9)) / 5.4  # of sum 1
K, K_zero = (linear_operator(w, (n, n), (0, 1), boundary=boundary) for boundary in ("periodic", "zero"))
draws = rng.standard_normal((2, n * n))
for blur in (K, K_zero):
    assert_adjoint(blur.matvec, blur.rmatvec, *draws)

# %%
# SciPy and PyLops
# ----------------
# The normal equations ``(K'K + damp) x = K'y`` are symmetric and positive, so conjugate gradients solve them. ``cgls``
# of PyLops never forms ``K'K``.

damp, iterations = 0.01, 1000
y = (K @ picture.ravel()).reshape(n, n) + 0.01 * rng.standard_normal((n, n))
normal = LinearOperator(K.shape, lambda x: K.H @ (K @ x) + damp * x, dtype=y.dtype)
right, iterates = K.H @ y.ravel(), []
restored, _ = cg(normal, right, rtol=1e-8, maxiter=iterations, callback=lambda x: iterates.append(x.copy()))
by_pylops, _, used, *_ = pylops.cgls(K, y.ravel(), niter=iterations, damp=damp**0.5, tol=1e-12)
restored, by_pylops = (x.reshape(n, n) for x in (restored, by_pylops))
assert max(used, len(iterates)) < iterations, "both have ended by their own rule"

# %%
# The oracle, one division for each frequency
# -------------------------------------------
# The error is at most the residual divided by damp, since no eigenvalue of the system is smaller.

transfer = np.fft.fft2((K @ np.eye(1, n * n)[0]).reshape(n, n))  # of an impulse


def solved(y):
    """The minimiser for what is seen, (n, n)."""
    return np.fft.ifft2(transfer.conj() * np.fft.fft2(y) / (abs(transfer) ** 2 + damp)).real


exact = solved(y)
size = np.linalg.norm(exact)
for name, found in (("SciPy", restored), ("PyLops", by_pylops)):
    error, bound = np.linalg.norm(found - exact), np.linalg.norm(normal @ found.ravel() - right) / damp
    print(f"{name:6} relative error {error / size:.1e}, bound {bound / size:.1e}")
    assert error <= bound + 1e-12 * size / damp and error < 1e-6 * size

# %%
# Priors that the Fourier transform cannot have
# ---------------------------------------------
# At zero boundaries the blur is not a circulant matrix, and there is no formula. PyLops penalises the gradient instead
# of the picture: ``|K x - y|^2 + weight^2 |gradient x|^2``. Of points, FISTA knows that they are few: it minimises
# ``|K x - y|^2 + eps |x|_1``.

y_zero = (K_zero @ picture.ravel()).reshape(n, n) + 0.01 * rng.standard_normal((n, n))
smooth, stopped, *_ = pylops.optimization.leastsquares.regularized_inversion(
    K_zero, y_zero.ravel(), [pylops.Gradient((n, n), kind="forward")], epsRs=[0.1], iter_lim=iterations
)
assert stopped in (1, 2), "by its own rule, not by the limit"
smooth = smooth.reshape(n, n)
inner = np.s_[8:-8, 8:-8]  # what no border is mixed into
for name, pair in {"Tikhonov": (y, restored), "zero boundary, gradient": (y_zero, smooth)}.items():
    before, after = (peak_signal_noise_ratio(picture[inner], np.clip(p[inner], 0, 1), data_range=1) for p in pair)
    print(f"{name}: PSNR {before:.1f} dB blurred, {after:.1f} dB restored")
    assert after > before + 3

points = np.where(rng.random((n, n)) < 0.01, 1.0, 0.0)
seen = K @ points.ravel() + 0.01 * rng.standard_normal(n * n)
eps, equal = 0.01, {"niter": 200, "tol": 0}
by_fista, *used = pylops.optimization.sparsity.fista(K, seen, eps=eps, alpha=1.0, **equal)  # step 1, since |K| = 1
by_cgls, _, as_many, *_ = pylops.cgls(K, seen, damp=damp**0.5, **equal)
assert used[0] == as_many == equal["niter"], "both have as many iterations"
of_cgls, of_fista = (np.linalg.norm(x.reshape(n, n) - points) / np.linalg.norm(points) for x in (by_cgls, by_fista))
print(f"points: relative error {of_cgls:.2f} by CGLS, {of_fista:.2f} by FISTA")
slope = abs(K.H @ (seen - K @ by_fista)) / (eps / 2)  # at the minimum 1 where x is not 0, and 1 at most elsewhere
assert slope.max() < 1.02 and slope[by_fista != 0].min() > 0.98, "FISTA is near its minimum"
assert np.allclose(by_cgls.reshape(n, n), solved(seen.reshape(n, n)), atol=1e-9), "and CGLS at its own"
assert of_fista < of_cgls < 1, "no points at all have the error 1"

fig, panels = plt.subplots(1, 4, figsize=(12, 3.3), layout="constrained")
shown = {"blurred": y, "Tikhonov": restored, "zero boundary, gradient": smooth}
for ax, (title, found) in zip(panels, shown.items(), strict=False):
    ax.imshow(found, cmap="gray", vmin=0, vmax=1)
    ax.set(title=title, xticks=[], yticks=[])
panels[3].semilogy([np.linalg.norm(x - exact.ravel()) / size for x in iterates])
panels[3].set(title="conjugate gradients", xlabel="iteration", ylabel="relative error")

# %%
# The blur is known here. The weights were chosen on these pictures, so their errors say little about others.
