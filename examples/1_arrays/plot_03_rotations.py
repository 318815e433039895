r"""
A convolution over space and angle
==================================

A function of position and angle, ``f(u, a)``, is rotated by rotating space *and* moving the angle. A layer that
respects this is a convolution over the group of translations and rotations by 90 degrees. We build one from
:func:`hcnn.core.convolve`, with the periodic boundary of an angle, and check it with :mod:`hcnn.core.testing`.

Section 3 of `arXiv:1703.04140 <https://arxiv.org/abs/1703.04140>`_ names rotated filters as its first example of an
attribute. Group convolutions of networks are those of `arXiv:1602.07576 <https://arxiv.org/abs/1602.07576>`_.
"""

import matplotlib.pyplot as plt
import numpy as np
from skimage.data import camera
from skimage.transform import resize

from hcnn.core import convolve
from hcnn.core.testing import assert_translation_covariant, covariance_deviations, rounding_bound

n = 128
image = resize(camera() / 255.0, (n, n), anti_aliasing=True)

# %%
# From an image to space and angle
# --------------------------------
# One filter, an edge detector, at four angles. The angle ``a`` is the new attribute, the last axis.

edge = np.outer(np.arange(3, -4, -1), np.ones(7))
w = np.stack([np.rot90(edge, a) for a in range(4)], axis=-1)  # (7, 7, 4)


def lift(x):
    """Layer from x(u) to f(u, a)."""
    return np.maximum(convolve(x, w, (0, 1), boundary="periodic"), 0)


f, f_rotated = lift(image), lift(np.rot90(image))
difference = abs(f_rotated - np.roll(np.rot90(f), 1, axis=2)).max()
print(f"rotating the image rotates f and moves its angle by one: difference {difference:.1e}")
assert difference <= rounding_bound(lift, image)
assert lift(np.outer(np.arange(n), np.ones(n)))[n // 2, n // 2].argmax() == 0, "angle 0 sees what rises along u1"
assert abs(f[..., 0] - f[..., 2]).max() > 0.1 * f.max(), "opposite edges have opposite angles"

fig, panels = plt.subplots(2, 2, figsize=(11, 4.6), width_ratios=(1, 4), layout="constrained")
for row, x, maps in zip(panels, (image, np.rot90(image)), (f, f_rotated), strict=True):
    row[0].imshow(x, cmap="gray")
    row[1].imshow(np.concatenate(np.moveaxis(maps, 2, 0), axis=1), cmap="magma")
plt.setp(panels, xticks=[], yticks=[])
plt.setp(panels[:, 1], xticks=n * (np.arange(4) + 0.5), xticklabels=[f"angle {90 * a}°" for a in range(4)])

# %%
# From space and angle to the same
# --------------------------------
# The group convolution is ``y(u, a) = sum over b of f(., b) * g_a(., b)``, where filter ``g_a`` is ``g`` rotated ``a``
# times: its planes are rotated and moved along the angle. The angle of f is summed; the filters' ``a`` is the new one.

rng = np.random.default_rng(0)
g = rng.standard_normal((4, 5, 5))  # angle, u1, u2
g_rotated = np.stack([np.roll(np.rot90(g, a, axes=(1, 2)), a, axis=0) for a in range(4)], axis=-1)  # (4, 5, 5, 4)


def group_layer(f):
    """Layer from f(u, a) to y(u, a), covariant to rotations and translations."""
    return np.maximum(convolve(f, g_rotated, (0, 1), sum_axes=2, boundary="periodic"), 0)


# %%
# The check
# ---------
# Write f in a frame that turns with the angle: plane ``a`` is rotated back ``a`` times. There, a rotation of f is a
# translation along the angle, for :func:`hcnn.core.testing.assert_translation_covariant`.


def turned(f, sign):
    """Planes of f, each rotated by its own angle (sign 1) or back (-1)."""
    return np.stack([np.rot90(f[..., a], sign * a) for a in range(4)], axis=-1)


def in_frame(layer):
    """The layer, between functions in the turning frame."""
    return lambda f: turned(layer(turned(f, 1)), -1)


noise = rng.standard_normal((9, 9, 4))
assert_translation_covariant(in_frame(group_layer), noise, in_axes=2)
assert_translation_covariant(group_layer, noise, in_axes=(0, 1))

# %%
# A negative control: the same convolution along u and a, with filters that do not turn. It is covariant to translations
# of the angle, as every layer of the paper is, but these are not rotations of the image.


def flat_layer(f):
    """A convolution along u1, u2 and the angle."""
    return np.maximum(convolve(f, g.transpose(1, 2, 0), (0, 1, 2), boundary="periodic"), 0)


assert_translation_covariant(flat_layer, noise, in_axes=(0, 1, 2))
deviations = list(covariance_deviations(in_frame(flat_layer), noise, in_axes=2))
print("filters that do not turn:", deviations[0])
assert not deviations[0].holds, "a layer whose filters do not turn is not covariant to rotations"

# %%
# Rotations by 90 degrees map the grid onto itself, so all of this is exact. Other angles need interpolation, and would
# hold only approximately; this page does not show them.
