r"""
How fast approximations of a cartoon improve
============================================

The n largest coefficients of a cartoon, smooth regions with smooth edges, leave a squared error that falls like
:math:`n^{-1/2}` in the Fourier basis and like :math:`n^{-1}` in a wavelet basis (:func:`hcnn.wavelets.dwt`). Curvelets,
which follow edges, reach :math:`n^{-2} (\log n)^3`. We fit all three slopes.

Sources: J. Tanner, Theories of Deep Learning, lecture 11, on the theorem of Candes and Donoho; E. Candes, L. Demanet,
D. Donoho, L. Ying, *Fast Discrete Curvelet Transforms*, `doi:10.1137/05064182X <https://doi.org/10.1137/05064182X>`_.
"""

import matplotlib.pyplot as plt
import numpy as np
from scipy import fft, sparse
from scipy.special import betainc

from hcnn.wavelets import dwt, hard_threshold, idwt

n = 1024
levels = int(np.log2(n)) - 2

# %%
# A cartoon
# ---------
# The boundary is a smooth curve; inside and outside the image is smooth and periodic. Pixels are means of 16 samples.

u = (np.arange(4 * n) + 0.5) / (4 * n)
x, y = np.meshgrid(u, u, indexing="ij")
radius, angle = np.hypot(x - 0.5, y - 0.5), np.arctan2(y - 0.5, x - 0.5)
inside = radius < 0.28 + 0.06 * np.cos(3 * angle)
cartoon = np.cos(2 * np.pi * x) * 0.3 + inside * (1 + 0.5 * np.sin(2 * np.pi * y))
cartoon = cartoon.reshape(n, 4, n, 4).mean(axis=(1, 3))

# %%
# Errors of the best n terms
# --------------------------
# In an orthonormal basis the norm is kept, and the squared error is the sum of the squares that are left out.

bases = {
    "Fourier": np.abs(np.fft.fft2(cartoon, norm="ortho")).ravel(),
    "Haar": np.concatenate([c.ravel() for c in dwt(cartoon, levels, moments=1)]),
    "Daubechies, 3 moments": np.concatenate([c.ravel() for c in dwt(cartoon, levels, moments=3)]),
}
for name, coefficients in bases.items():
    assert np.isclose((coefficients**2).sum(), (cartoon**2).sum(), rtol=1e-9), f"{name}: the norm is kept"
small = np.sort(np.abs(coefficients))[-n - 1]  # of the last basis
kept = idwt([hard_threshold(c, small) for c in dwt(cartoon, levels, moments=3)], moments=3)
assert np.isclose(((kept - cartoon) ** 2).sum(), (coefficients[np.abs(coefficients) <= small] ** 2).sum(), rtol=1e-9)
terms = np.unique(np.geomspace(16, n * n / 16, 80).astype(int))
theory = {"Fourier": -1 / 2, "Haar": -1, "Daubechies, 3 moments": -1}
# fewer terms are about the smooth parts; about 2 n pixels lie along the edge, and as many terms resolve the pixels
fitted = (terms >= 60) & (terms <= n)
fig, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
axes[0].imshow(cartoon, cmap="gray")
axes[0].set(title="cartoon", xticks=[], yticks=[])
slopes, parts = {}, [(terms >= 30) & (terms <= n // 4), fitted, (terms >= 200) & (terms <= 4 * n)]
for name, coefficients in bases.items():
    energy = np.sort(coefficients**2)[::-1]
    errors = np.cumsum(energy[::-1])[::-1][terms] / energy.sum()
    slopes[name] = [np.polyfit(np.log(terms[part]), np.log(errors[part]), 1)[0] for part in parts]
    axes[1].loglog(terms, errors, label=f"{name}: {slopes[name][1]:.2f}, theory {theory[name]}")
    print(f"{name:22} slopes from 30, 60 and 200 terms on", np.round(slopes[name], 3), "theory", theory[name])
axes[1].axvspan(terms[fitted][0], terms[fitted][-1], color="0.93", zorder=0)
axes[1].set(xlabel="terms n", ylabel="squared error / squared norm", title="n largest terms; slopes fitted in gray")
axes[1].legend()
differences = np.array([slopes[name][1] - theory[name] for name in theory])
assert np.allclose(differences, (-0.017, 0.026, 0.017), atol=2e-3), "one range"
assert all(np.all(np.diff(slopes[name]) < 0) for name in list(bases)[1:]), "wavelets' errors fall faster and faster"

# %%
# The slopes, -0.52, -0.97 and -0.98 at 1024 x 1024, are asymptotic, for images without pixels. On this grid errors of
# wavelets fall faster with more terms. The one range was chosen after the curves were seen; two more are printed.
#
# Curvelets
# ---------
# A curvelet of length l has width l^2, as a piece of a smooth edge has. In Fourier it is a wedge, and the number of
# wedges doubles at every second scale. Each is wrapped into a small rectangle, so that its coefficients are few. Their
# real and imaginary parts stand for two opposite wedges. One control keeps 8 wedges at every scale.


def wedge_frame(counts):
    """A tight frame, by its number of wedges at each scale: windows that wrap a Fourier transform, and coefficients."""
    w1, w2 = (np.mgrid[:n, :n] + n // 2 - 1) % n - n // 2 + 1
    steep, windows, c = np.abs(w1) < np.abs(w2), [], []
    a, b = np.where(steep, (w2, -w1), (w1, w2))
    side = b / np.where(a == 0, 1, a) + 2 * steep + 4 * (a < 0)  # it goes around a square, whose length is 8
    rises = [betainc(4, 4, np.clip(np.abs(a) * 2.0**j / n - 1.5, 0, 1)) for j in range(len(counts) + 1, 2, -1)]
    for count, inner, outer in zip(counts, [1 + 0 * a, *rises], [*rises, 0 * a], strict=True):
        before, share = np.divmod(side * count / 8, 1)
        share = betainc(4, 4, np.clip((share - 0.2) / 0.6, 0, 1))
        assert np.mean((share > 0.05) & (share < 0.95)) > 0.1, "neighbours share an edge that is smooth"
        for k in range((count + 1) // 2):
            both = (before % count == k) * (1 - share) + ((before + 1) % count == k) * share
            square = inner * (1 - outer) * both / (1 + (count == 1))
            on = square > 1e-18
            shape = min((on.any(1).sum(), on.sum(1).max()), (on.sum(0).max(), on.any(0).sum()), key=np.prod)
            places = w1[on] % shape[0] * shape[1] + w2[on] % shape[1], np.flatnonzero(on)
            windows.append(sparse.csr_array((square[on], places), (np.prod(shape), n * n)))
            c.append(np.zeros(shape, complex))
    windows = sparse.vstack(windows, "csr")
    power = windows.sum(0).reshape(n, n)
    power = power + np.roll(power[::-1, ::-1], 1, (0, 1))  # of opposite wedges; 1 but for the highest frequencies
    return np.sqrt(2 * windows / power.ravel()).tocsr(), c


def improve(windows, image, c):
    """What coefficients c leave of an image, and c with the coefficients of that added."""
    f = windows.T @ np.concatenate([fft.fft2(part, norm="ortho").ravel() for part in c])
    rest = image - fft.ifft2(f.reshape(n, n), norm="ortho").real
    wedges = np.split(windows @ fft.fft2(rest, norm="ortho").ravel(), np.cumsum([part.size for part in c])[:-1])
    return rest, [p + fft.ifft2(wedge.reshape(p.shape), norm="ortho") for p, wedge in zip(c, wedges, strict=True)]


def largest(c, count):
    """The largest coefficients of c, real and imaginary parts, and zeros."""
    tau = np.sort(np.abs(np.concatenate([part.ravel() for part in c]).view(float)))[-count - 1]
    kept = [hard_threshold(part.view(float), tau) for part in c]
    assert sum(map(np.count_nonzero, kept)) <= count, "no more terms than wavelets have"
    return [part.view(complex) for part in kept]


# %%
# A redundant frame's n largest coefficients are not its best n. Five steps of iterative hard thresholding choose and
# fit them, each time from those for n / 2. The other control is an image of points, which have no directions.

few, rng, found, first = 2 ** np.arange(6, int(np.log2(n)) + 1), np.random.default_rng(0), {}, {}
kinds = {"curvelets": [1, 1, 8, 8, 16, 16, 32, 32, 64][: levels + 1], "8 wedges": [1, 1] + [8] * (levels - 1)}
counts = kinds["curvelets"]
assert np.array_equal(counts[4:], 2 * np.array(counts[2:-2])), "twice as many at every second scale: width is length^2"
frames = {name: wedge_frame(counts) for name, counts in kinds.items()}
points = sum(np.hypot(*np.meshgrid(*np.sin(np.pi * (u[2::4] - p[:, None])))) ** -0.5 for p in rng.random((12, 2)))
fig, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
for ax, (title, image) in zip(axes, {"cartoon": cartoon, "points": points - points.mean()}.items(), strict=True):
    energy = np.sort(np.concatenate([c.ravel() for c in dwt(image, levels, moments=3)]) ** 2)[::-1].cumsum()
    errors = {"wavelets": 1 - energy[few - 1] / energy[-1]}
    for name, (windows, zeros) in frames.items():
        _, c = improve(windows, image, zeros)
        norm, errors[name] = sum(np.linalg.norm(part) ** 2 for part in c), []
        assert np.isclose(norm, np.sum(image**2), rtol=1e-12), "a tight frame"
        assert np.allclose(improve(windows, image, c)[0], 0, atol=1e-12), "its transpose is its inverse"
        plain = np.sum(improve(windows, image, largest(c, few[-1]))[0] ** 2) / norm
        assert plain > errors["wavelets"][-1], "the largest coefficients are not enough"
        for count in few:
            for _ in range(5):
                rest, c = improve(windows, image, largest(c, count))
            errors[name].append(np.sum(rest**2) / norm)
    for name in errors:
        found[title, name] = np.polyfit(np.log(few), np.log(errors[name]), 1)[0], errors[name][-1]
        first[title, name] = errors[name][0]
        ax.loglog(few, errors[name], "o-", label=f"{name}: {found[title, name][0]:.2f}")
        print(title, name, np.round(errors[name], 5))
    ax.set(title=f"{title}, with slopes", xlabel="terms n", ylabel="squared error / squared norm")
    ax.legend()
assert first["cartoon", "wavelets"] < first["cartoon", "curvelets"], "for few terms"
for i in range(2):  # slopes, then errors
    assert found["cartoon", "curvelets"][i] < min(found["cartoon", name][i] for name in ("wavelets", "8 wedges"))
    assert found["points", "curvelets"][i] > max(found["points", name][i] for name in ("wavelets", "8 wedges"))

# %%
# Wavelets are better for few terms, curvelets for many, and for points both frames are worse than wavelets. The largest
# coefficients as they are leave a larger error than wavelets. Some ten settings of the frame were compared, on this
# cartoon alone.
