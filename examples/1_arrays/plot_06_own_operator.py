r"""
Check an operator of your own
=============================

You have written a layer and believe that it is covariant to translations, or an operator with its adjoint.
:mod:`hcnn.core.testing` tests this with `Hypothesis <https://hypothesis.readthedocs.io>`_, which searches for a
counterexample and reduces it to a small one. The bounds follow from the rounding errors of your dtype; there is no
tolerance to choose. The property is that of Section 3 of `arXiv:1703.04140 <https://arxiv.org/abs/1703.04140>`_.
"""

import matplotlib.pyplot as plt
import numpy as np
from hypothesis import given, seed, settings

from hcnn.core import translate
from hcnn.core.testing import arrays, assert_adjoint, check_translation_covariant

# %%
# A layer that forgets the border
# -------------------------------
# Pooling by twos after a smoothing with three taps. The layer pads with the edge's values where it should be periodic.


def pooled(x, mode):
    """Smooth the last axis of x by (1, 2, 1) / 4, take the maximum with 0, and keep every second sample."""
    padded = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(1, 1)], mode=mode)
    smooth = (padded[..., :-2] + 2 * padded[..., 1:-1] + padded[..., 2:]) / 4
    return np.maximum(smooth, 0)[..., ::2]


check_translation_covariant(lambda x: pooled(x, "wrap"), (3, 8), in_axes=1, stride=2)

try:
    check_translation_covariant(lambda x: pooled(x, "edge"), (3, 8), in_axes=1, stride=2)
except AssertionError as error:
    notes = error.__notes__
    print("padded with 'edge':", error, *notes, sep="\n")
else:
    raise AssertionError("a layer that is not periodic passed as covariant")

# %%
# The notes of the error are two lines of Python, the simplest array and the translation. Paste them, and look.

counterexample = {"np": np}
exec("\n".join(notes), counterexample)
x, (shift,) = counterexample["x"], counterexample["shift"]
moved_then_pooled = pooled(translate(x, shift, 1, boundary="periodic"), "edge")
pooled_then_moved = translate(pooled(x, "edge"), shift // 2, 1, boundary="periodic")
assert np.count_nonzero(x) == 1, "one sample is enough"
assert abs(moved_then_pooled - pooled_then_moved).max() == 0.25, "an edge padded with itself counts it once too often"

fig, panels = plt.subplots(1, 3, figsize=(11, 2.6), layout="constrained")
pictures = {"counterexample x": x, "moved, then pooled": moved_then_pooled, "pooled, then moved": pooled_then_moved}
for ax, (title, shown) in zip(panels, pictures.items(), strict=True):
    ax.imshow(shown, cmap="gray", vmin=0, vmax=1)
    ax.set(title=title, xlabel="sample", yticks=[])

# %%
# An operator and its adjoint
# ---------------------------
# The dot test needs no matrix: ``<D x, y> = <x, D' y>`` for random x and y. D is ``numpy.diff``; Hypothesis draws the
# values of x and their dtype.


def difference_adjoint(y):
    """The adjoint of forward differences along axis 0."""
    return np.concatenate([-y[:1], y[:-1] - y[1:], y[-1:]])


@seed(0)
@settings(max_examples=100, database=None, deadline=None)
@given(x=arrays((5, 2)))
def test_adjoint(adjoint, x):
    """The dot test, for an array x that Hypothesis draws."""
    rng = np.random.default_rng(0)
    assert_adjoint(lambda x: np.diff(x, axis=0), adjoint, x, rng.standard_normal((4, 2)).astype(x.dtype))


test_adjoint(difference_adjoint)
try:
    test_adjoint(lambda y: np.concatenate([-y[:1], y[:-1] - y[1:], 0 * y[-1:]]))  # the last sample is forgotten
except AssertionError as error:
    print("the forgotten sample:", str(error).splitlines()[0])
else:
    raise AssertionError("a wrong adjoint passed the dot test")

# %%
# Passing is evidence and no proof: the search draws arrays and shifts of the shapes that you give it.
