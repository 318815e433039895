r"""
A volume, smoothed and differentiated
=====================================

One call of :func:`hcnn.core.convolve` smooths a 3-D volume and takes its three derivatives. The values are those of
:mod:`scipy.ndimage`, at all five boundaries. From the derivatives we measure the surface of the balls in the volume.

The operator is Eq. 2 of `arXiv:1703.04140 <https://arxiv.org/abs/1703.04140>`_ along three axes, with four filters.
"""

import matplotlib.pyplot as plt
import numpy as np
from scipy import ndimage

from hcnn.core import convolve, convolve_vjp_x

n = 64

# %%
# A volume with a known surface
# -----------------------------
# Two balls lie in a periodic cube. The larger one leaves the cube on one side and comes in on the other. Voxels at the
# surface hold the fraction of them that is inside, to a good approximation.

centers = n * np.array([[0.25, 0.35, 0.30], [0.65, 0.92, 0.36]])
radii = n * np.array([0.17, 0.27])
grid = np.stack(np.meshgrid(*[np.arange(n)] * 3, indexing="ij"), axis=-1)  # (n, n, n, 3)

volume = np.zeros((n, n, n))
for center, radius in zip(centers, radii, strict=True):
    offset = (grid - center + n / 2) % n - n / 2  # the nearest copy of the center
    volume += np.clip(radius - np.linalg.norm(offset, axis=-1) + 0.5, 0, 1)

# %%
# Four filters
# ------------
# SciPy's response to an impulse is the filter itself. The four filters, a Gaussian and its three partial derivatives,
# are the last axis of ``w``, and so of the result.

sigma = 1.5
impulse = np.pad(np.ones((1, 1, 1)), 6)  # SciPy cuts a Gaussian off after four standard deviations
orders = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
w = np.stack([ndimage.gaussian_filter(impulse, sigma, order) for order in orders], axis=-1)  # (13, 13, 13, 4)

y = convolve(volume, w, (0, 1, 2), boundary="periodic")  # (n, n, n, 4)

# %%
# The same values as SciPy's
# --------------------------
# ``mode="wrap"`` is the periodic boundary, ``mode="constant"`` the zero boundary; the other three have SciPy's names.
# One filter is also applied tap by tap. The libraries differ by rounding errors, which grow with the operands' norms.

bound = 8 * np.finfo(float).eps * np.linalg.norm(volume) * np.linalg.norm(w)
modes = {"periodic": "wrap", "zero": "constant", "reflect": "reflect", "nearest": "nearest", "mirror": "mirror"}
for boundary, mode in modes.items():
    ours = convolve(volume, w, (0, 1, 2), boundary=boundary)
    errors = [abs(ours[..., 1] - ndimage.convolve(volume, w[..., 1], mode=mode)).max()]
    for k, order in enumerate(orders):
        errors.append(abs(ours[..., k] - ndimage.gaussian_filter(volume, sigma, order, mode=mode)).max())
    print(f"{boundary:8}: largest difference {max(errors):.1e}, bound {bound:.1e}")
    assert max(errors) <= bound

# %%
# The surface
# -----------
# The integral of the gradient's norm is the area of the surface (the coarea formula). It is exact for a sphere smoothed
# by a narrow Gaussian up to terms of order (sigma / radius)^2.

gradient = np.linalg.norm(y[..., 1:], axis=-1)
area, true_area = gradient.sum(), 4 * np.pi * np.sum(radii**2)
print(f"area {area:.0f} voxel faces, {true_area:.0f} by the radii: {area / true_area - 1:+.1%}")
assert abs(area / true_area - 1) < 2 * np.max((sigma / radii) ** 2)

fig, axes = plt.subplots(1, 4, figsize=(12, 3.3), layout="constrained")
pictures = {"volume": volume, "smoothed": y[..., 0], "derivative along axis 1": y[..., 2], "norm of gradient": gradient}
for ax, (title, picture) in zip(axes, pictures.items(), strict=True):
    ax.imshow(picture[:, :, n // 3], cmap="RdBu" if "deriv" in title else "gray")
    ax.set(title=title, xticks=[], yticks=[])

# %%
# And back
# --------
# The adjoint, which SciPy does not have, is :func:`hcnn.core.convolve_vjp_x`: ``<y, Wx> = <W'y, x>``.

back = convolve_vjp_x(y, volume.shape, w, (0, 1, 2), boundary="periodic")
assert np.isclose(np.vdot(y, y), np.vdot(back, volume), rtol=1e-12)

# %%
# `The measured times of both <../../performance.html>`_ depend on the size and on the filters.
