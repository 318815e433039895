r"""
Scattering: what it keeps, and what a warp does to it
=====================================================

A scattering transform cascades wavelets and moduli, and averages: :func:`hcnn.wavelets.scattering`. We check that it
does not expand distances, that its orders share the norm, and that it changes in proportion to a small deformation:

.. math:: \|S D_\tau x - S x\| \le C \, \|\nabla \tau\|_\infty \, \|x\|, \qquad D_\tau x(u) = x(u - \tau(u))

Sources: S. Mallat, Multiscale Sparse Models in Deep Convolutional Networks, slide 22; E. Oyallon, Organising Deep
Networks, slides 8 to 11; `arXiv:1101.2286 <https://arxiv.org/abs/1101.2286>`_.
"""

from functools import partial

import matplotlib.pyplot as plt
import numpy as np
from scipy import ndimage
from skimage import data

from hcnn.wavelets import littlewood_paley, morlet_bank, random_warp, scattering, scattering_paths, wavelet_transform

n, scales = 128, 4

# %%
# Morlet wavelets leave some frequencies weak. Divided by the root of their Littlewood-Paley sum they are *tight*: the
# wavelet transform of a real image then preserves its norm, and scattering is non-expansive.

bank = morlet_bank((n, n), scales, tight=True)
plain = littlewood_paley(morlet_bank((n, n), scales))
print(f"Littlewood-Paley sum: {plain.min():.2f} to {plain.max():.2f}, of tight filters 1")
assert np.allclose(littlewood_paley(bank), 1, rtol=0, atol=1e-12)

image = ndimage.zoom(data.camera().astype(float), n / 512, order=1, grid_mode=True, mode="reflect")
x = (image - image.mean()) / image.std()
coefficients = scattering(x, bank)  # (n / 2^J, n / 2^J, paths)

wavelet = np.fft.fftshift(np.fft.ifft2(bank.psi[1, 0]))[n // 2 - 12 : n // 2 + 12, n // 2 - 12 : n // 2 + 12]
first = np.concatenate([np.concatenate(list(np.moveaxis(coefficients[..., a : a + 4], -1, 0)), 1) for a in (1, 5)])
fig, axes = plt.subplots(1, 3, figsize=(10, 3.2), layout="constrained")
pictures = {"a wavelet, real part": wavelet.real, "image": x, "first order, 8 angles": first}
for ax, (title, picture) in zip(axes, pictures.items(), strict=True):
    ax.imshow(picture, cmap="gray")
    ax.set(title=title, xticks=[], yticks=[])

# %%
# The norm, and distances
# -----------------------
# With tight filters the norm of an image is that of its average and its wavelet moduli, and so on for each modulus.
# Orders 0 to 2 hold most of it, without third moduli, and second ones of no larger scale.

low, high = wavelet_transform(x, bank)
assert np.isclose((low**2).sum() + (np.abs(high) ** 2).sum(), (x**2).sum(), rtol=1e-12)
whole = scattering(x, bank, oversampling=scales)  # no subsampling: nothing aliases
order = np.array([len(path) for path in scattering_paths(bank)])
shares = [(whole[..., order == m] ** 2).sum() / (x**2).sum() for m in range(3)]
print("share of the squared norm in orders 0, 1, 2:", ", ".join(f"{share:.1%}" for share in shares))
assert 0.8 < sum(shares) <= 1

# Distances do not grow, whatever the two images are: here the photograph, and the same with noise
rng = np.random.default_rng(0)
for distance in (1e-3, 0.1, 1.0, 10.0):
    y = x + distance * rng.standard_normal(x.shape)
    ratio = np.linalg.norm(whole - scattering(y, bank, oversampling=scales)) / np.linalg.norm(x - y)
    print(f"noise of deviation {distance:<5}: |Sx - Sy| / |x - y| = {ratio:.3f}")
    assert ratio <= 1

# %%
# Deformations
# ------------
# Random smooth warps, from weak to strong. The modulus of the Fourier transform does not see translations at all, but
# warps move high frequencies far. It, scattering and the image change in proportion to weak warps. The constant of
# scattering alone does not grow with the frequency of what is warped: to the right, wave packets of one envelope.

warps, sizes = [random_warp(n, n / 12, rng) for _ in range(3)], np.geomspace(0.005, 0.3, 8)
transforms = {
    "image": lambda x: x,
    "Fourier modulus": lambda x: np.abs(np.fft.fft2(x, norm="ortho")),
    "scattering": lambda x: 2**scales * scattering(x, bank),  # each coefficient stands for 2^J pixels along each axis
}
u, frequencies = np.indices((n, n)), 3 / 4 * np.pi / 2.0 ** np.arange(scales)[::-1]


def change(transform, f, size):
    """The largest change by warps of an image, given as a function of places, relative to its norm."""
    y = f(u)
    return max(np.linalg.norm(transform(f(u - size * tau)) - transform(y)) for tau in warps) / np.linalg.norm(y)


def packet(w):
    """A wave of frequency w in a Gaussian window, as a function of places."""
    return lambda u: np.cos(w * u[0]) * np.exp(-((u - n / 2) ** 2).sum(0) / (2 * (n / 8) ** 2))


photograph = partial(ndimage.map_coordinates, x, order=3, mode="grid-wrap")  # as a function of places
changes = {name: [change(f, photograph, size) for size in sizes] for name, f in transforms.items()}
ratios = {name: [change(f, packet(w), 0.05) / 0.05 for w in frequencies] for name, f in transforms.items()}

fig, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
for name, values in changes.items():
    left.loglog(sizes, values, "o-", label=name)
    right.loglog(frequencies, ratios[name], "o-", label=name)
left.set(xlabel="largest gradient of the warp", ylabel="change, relative to the norm", title="the photograph")
right.set(xlabel="frequency (radians per pixel)", ylabel="change / gradient", title="wave packets")
left.legend()

for of in (changes, ratios):  # moduli of an orthonormal transform are no farther apart than the images are
    assert np.all(np.array(of["Fourier modulus"]) <= of["image"]), "the Fourier modulus expands no distance"
assert max(changes["image"]) < 2, "of two images of one norm"
constants = {name: float(np.max(values / sizes).round(2)) for name, values in changes.items()}
print("largest change / gradient:", constants)
slope = np.polyfit(np.log(sizes[:5]), np.log(changes["scattering"][:5]), 1)[0]
growth = {name: float(np.round(values[-1] / values[0], 1)) for name, values in ratios.items()}
print(f"slope for weak warps {slope:.2f}, 1 in the theorem; {2 ** (scales - 1)} times the frequency:", growth)
assert constants["scattering"] < min(constants["Fourier modulus"], 0.5 * constants["image"])
assert 0.8 < slope < 1.2
assert growth["scattering"] < 0.5 * min(growth["image"], growth["Fourier modulus"])

# %%
# The constant of these few warps of one image is a lower bound of C. The theorem is about the limit of large scales; at
# a finite one its bound has a further term, in proportion to the displacement over 2^J.
