r"""
Signals with the estimator of scikit-learn
==========================================

:class:`hcnn.HCNNClassifier` takes arrays X and y like any other estimator: it goes into pipelines, searches and
cross-validation. Here it tells the three shapes of Saito's problem apart (*Local feature extraction and its
applications*, 1994): a cylinder is a plateau, a bell rises slowly and falls at once, a funnel the other way round.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.model_selection import train_test_split
from sklearn.svm import SVC

from hcnn import HCNNClassifier

epochs = 25

# %%
# 128 samples each. Where a shape begins and ends is drawn at random for every signal, so no single sample tells the
# shape.

SHAPES = ("cylinder", "bell", "funnel")


def signal(kind: int, rng: np.random.Generator) -> np.ndarray:
    """Return one signal of Saito's three kinds."""
    t, begin = np.arange(128), rng.integers(16, 33)
    end = begin + rng.integers(32, 97)
    rise = (t - begin) / (end - begin)
    shape = (np.ones(128), rise, 1 - rise)[kind]
    return (6 + rng.standard_normal()) * shape * ((t >= begin) & (t <= end)) + rng.standard_normal(128)


rng = np.random.default_rng(0)
y = np.arange(330) % 3
X = np.array([signal(kind, rng) for kind in y])
X_train, X_test, y_train, y_test = train_test_split(X, y, train_size=90, stratify=y, random_state=0)

fig, axes = plt.subplots(1, 3, figsize=(10, 2.4), sharey=True, layout="constrained")
for kind, (ax, name) in enumerate(zip(axes, SHAPES, strict=True)):
    ax.plot(X_train[y_train == kind][:3].T, linewidth=0.8)
    ax.set(title=name, xlabel="sample")

# %%
# X has two axes, so the samples are signals of one channel, and the preset is ``signal``. Nothing is written to disk.

network = HCNNClassifier(epochs=epochs, random_state=0).fit(X_train, y_train)
own, other = network.score(X_test, y_test), SVC().fit(X_train, y_train).score(X_test, y_test)
print(f"of {len(y_test)} signals: network {100 * own:.1f} %, support vector machine {100 * other:.1f} %")
assert own > 0.9, "from 90 signals it tells the three shapes apart"
assert other > 1 / 3 + 3 * np.sqrt(2 / 9 / len(y_test)), "and so does the other, beyond chance"

# %%
# The signals that it is least sure of, with the probability of each shape.

p = network.predict_proba(X_test)
doubtful = np.argsort(p.max(1))[:3]
fig, axes = plt.subplots(1, 3, figsize=(10, 2.4), sharey=True, layout="constrained")
for ax, k in zip(axes, doubtful, strict=True):
    ax.plot(X_test[k], linewidth=0.8)
    ax.set(title=f"{SHAPES[y_test[k]]}: " + ", ".join(f"{name} {v:.2f}" for name, v in zip(SHAPES, p[k], strict=True)))
    ax.title.set_fontsize(8)
assert np.allclose(p.sum(1), 1)
