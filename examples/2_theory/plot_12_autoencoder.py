r"""
A multiscale autoencoder
========================

The encoder is fixed: scattering coefficients at the scale :math:`2^J`, decorrelated and reduced at each place, are the
*innovations* Z. A network of transposed convolutions, :func:`hcnn.autodiff.convolve_vjp_x`, is trained to give CIFAR-10
images back. The larger the scale, the more phase it has to invent.

Source: S. Mallat, Multiscale Sparse Models in Deep Convolutional Networks, slides 21 to 28.
"""

import itertools
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
from skimage.metrics import peak_signal_noise_ratio

from hcnn.autodiff import convolve_vjp_x
from hcnn.train.data import load_dataset
from hcnn.wavelets import adam, morlet_bank, principal_components, scattering

count, tested, steps, hidden = 1500, 300, 400, 24
sample = load_dataset("sample")
train, test = (a.astype(np.float32) / 255 for a in (sample.train_images[:count], sample.test_images[:tested]))

# %%
# Encoder: at the scale 2^J an image has (32 / 2^J)^2 places. At each, coefficients are projected on their 6 * 2^J
# principal components and whitened; over places they stay correlated. Each octave halves the numbers in Z, from an
# image's 3,072.


def encoder(scales):
    """The map from images to Z (N, n, n, C), n = 32 / 2^J, C = 6 * 2^J."""
    size, channels = 32 // 2**scales, 6 * 2**scales
    bank = morlet_bank((32 + 2 * 2**scales,) * 2, scales, angles=4, dtype=np.float32)

    def coefficients(images):
        y = scattering(images, bank, (1, 2), boundary="reflect")
        return y.reshape(-1, y.shape[3] * y.shape[4])

    mean, whiten, _ = principal_components(coefficients(train), channels)
    return lambda images: ((coefficients(images) - mean) @ whiten).reshape(-1, size, size, channels)


# %%
# Generator: each layer doubles both sides: it is the transpose of a convolution with stride 2. Hidden layers are
# rectified.


def generate(parameters, z):
    """Images (N, 32, 32, 3) from codes (N, n, n, C)."""
    for i, (w, bias) in enumerate(parameters):
        shape = (len(z), 2 * z.shape[1], 2 * z.shape[2], w.shape[0])
        z = convolve_vjp_x(z, shape, w, (1, 2), boundary="zero", sum_axes=3, stride=2) + bias
        z = np.maximum(z, 0) if i + 1 < len(parameters) else z
    return z


def initial(channels, layers, rng):
    """Weights (made channels, 5, 5, given channels) and biases of each layer."""
    found = []
    for given, made in itertools.pairwise([channels, *[hidden] * (layers - 1), 3]):
        w = rng.standard_normal((made, 5, 5, given)) * np.sqrt(2 / (25 / 4 * given))
        w *= 0.1 if made == 3 else 1  # so that it begins near the mean of all images
        found.append([w.astype(np.float32), np.full(made, 0.45 if made == 3 else 0, np.float32)])
    return found


# %%
psnr = partial(peak_signal_noise_ratio, data_range=1)  # over all images, in dB
results, pictures = {}, [test[:8]]
for scales in (1, 2, 3):
    encode, rng = encoder(scales), np.random.default_rng(scales)
    z_train, z = encode(train), encode(test)
    covariance = np.cov(z_train.reshape(-1, z.shape[-1]), rowvar=False)
    assert np.allclose(covariance, np.eye(z.shape[-1]), atol=0.01), "white over components, on the training images"
    batches = [rng.choice(count, 32, replace=False) for _ in range(steps)]
    assert (z[0].size, len(batches)) == (train[0].size // 2 ** (scales - 1), steps), "half the numbers, as many steps"

    def loss(parameters, batch, z=z_train):
        return np.mean((generate(parameters, z[batch]) - train[batch]) ** 2)

    parameters = adam(loss, initial(z.shape[-1], scales, rng), batches, rate=5e-3)
    results[scales] = psnr(train, generate(parameters, z_train)), psnr(test, generate(parameters, z))
    on_train, on_test, kurtosis = *results[scales], np.mean(z**4) / np.mean(z**2) ** 2
    assert kurtosis > 3.3, "not Gaussian"
    print(f"J = {scales}: PSNR {on_train:.1f} dB (training), {on_test:.1f} dB (test); kurtosis of Z {kurtosis:.1f}")
    pictures.append(np.clip(generate(parameters, z[:8]), 0, 1))

flat = psnr(test, np.broadcast_to(test.mean(axis=(1, 2), keepdims=True), test.shape))
print(f"mean colours: PSNR {flat:.1f} dB (test)")
assert np.isclose(flat, -10 * np.log10(test.var(axis=(1, 2)).mean()), rtol=1e-3), "white is 1"
fig, ax = plt.subplots(figsize=(8, 4), layout="constrained")
ax.imshow(np.concatenate([np.concatenate(row, axis=1) for row in pictures]))
ax.set(yticks=16 + 32 * np.arange(4), yticklabels=["test images", "J = 1", "J = 2", "J = 3"], xticks=[])
assert results[1][1] > results[2][1] > results[3][1] > flat  # phases of ever larger scales are lost

# %%
# Images generated from convex combinations of two codes (slide 27), and from white noise in the place of Z (slide 28).

t = np.linspace(0, 1, 8, dtype=np.float32).reshape(8, 1, 1, 1)
rows = [generate(parameters, (1 - t) * z[a] + t * z[b]) for a, b in ((0, 1), (2, 3))]
rows.append(generate(parameters, rng.standard_normal((8, *z.shape[1:])).astype(np.float32)))
fig, ax = plt.subplots(figsize=(8, 3.2), layout="constrained")
ax.imshow(np.clip(np.concatenate([np.concatenate(row, axis=1) for row in rows]), 0, 1))
ax.set(yticks=16 + 32 * np.arange(3), yticklabels=["between two", "between two", "white noise"], xticks=[])

# %%
# PSNR falls with depth, by the average and by the reduction together. The kurtosis of Z is above 3, that of a Gaussian,
# so innovations of such small images are not the white noise of slide 23. Samples from noise look like textures: Z is
# whitened at each place alone, and the network is small.
