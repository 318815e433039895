"""Random processes that models are tried on: cascades, multifractal walks, a flow, warps, and Gaussian surrogates."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from hcnn_core.backend import array_namespace
from hcnn_core.typing import NumpyArray

__all__ = ["decaying_vorticity", "lognormal_cascade", "multifractal_noise", "random_warp", "randomize_phases"]

Float64 = NumpyArray[np.float64]


def randomize_phases(x: NumpyArray[Any], rng: np.random.Generator) -> NumpyArray[Any]:
    """Return a periodic array with the power spectrum of another and the phases of white noise.

    It is a sample of the Gaussian model of S. Mallat, Multiscale Sparse Models in Deep Convolutional Networks, slide
    17, conditioned on its power spectrum.

    Parameters
    ----------
    x : numpy.ndarray
        Real, with any number of axes.
    rng : numpy.random.Generator
        Source of the phases.

    Returns
    -------
    numpy.ndarray
        Of the shape and dtype of x, with its mean.

    Raises
    ------
    TypeError
        If x is not real.
    """
    array_namespace(x)  # refuses masks
    if np.asarray(x).dtype.kind != "f":
        raise TypeError(f"x has dtype {np.asarray(x).dtype}; give a real array of floats")
    noise = np.fft.fftn(rng.standard_normal(x.shape))
    origin = (0,) * x.ndim
    noise[origin] = 1
    spectrum = np.fft.fftn(x)
    y = np.fft.ifftn(np.abs(spectrum) * noise / np.abs(noise)).real
    return np.asarray(y - y.mean() + x.mean(), x.dtype)


def decaying_vorticity(
    n: int, rng: np.random.Generator, *, time: float = 1.5, viscosity: float = 1e-3, speed: float = 8.0
) -> Float64:
    """Return the vorticity of a two-dimensional flow that began as smooth noise.

    The Navier-Stokes equation of an incompressible fluid on a periodic square of side 2 pi, dw/dt + u . grad w =
    viscosity laplace(w), is solved by the pseudo-spectral method with Heun's steps; two thirds of the frequencies are
    kept, so that products do not alias.

    Parameters
    ----------
    n : int
        Samples along each side.
    rng : numpy.random.Generator
        Source of the beginning.
    time : float, optional
        How long the flow decays. It turns over in a time of about ``2 pi / speed``.
    viscosity : float, optional
        Of the fluid.
    speed : float, optional
        Root mean square of the vorticity at the beginning.

    Returns
    -------
    numpy.ndarray, shape (n, n)
        Float64, of mean zero.

    Raises
    ------
    ValueError
        If n is below 8, a number is not positive and finite, or the solution grows without bound.
    """
    if n < 8 or not all(0 < number < math.inf for number in (time, viscosity, speed)):
        raise ValueError(
            f"n is {n}, time {time}, viscosity {viscosity}, speed {speed}; "
            "n is at least 8, the others are positive and finite"
        )
    k = np.fft.fftfreq(n, 1 / n)
    kx, ky = np.meshgrid(k, k, indexing="ij")
    square = kx**2 + ky**2
    inverse = np.divide(1, square, out=np.zeros_like(square), where=square > 0)
    band = np.maximum(abs(kx), abs(ky)) < n / 3
    w = np.fft.fft2(rng.standard_normal((n, n))) * np.sqrt(square) * np.exp(-square / 50) * band
    w *= speed / np.sqrt((np.fft.ifft2(w).real ** 2).mean())
    steps = math.ceil(time * speed * n / 3)  # the fastest fluid crosses about half of a sample in each
    step = time / steps
    decay = np.exp(-viscosity * square * step)

    def transport(w: Any) -> Any:
        # u = (d psi / dy, -d psi / dx) with -laplace(psi) = w
        u, v, wx, wy = (np.fft.ifft2(1j * f).real for f in (ky * w * inverse, -kx * w * inverse, kx * w, ky * w))
        return -np.fft.fft2(u * wx + v * wy) * band

    for _ in range(steps):
        slope = transport(w)
        ahead = (w + step * slope) * decay
        w = (w + step / 2 * slope) * decay + step / 2 * transport(ahead)
        if not np.isfinite(w[0, 1]):
            raise ValueError(
                f"the flow cannot be resolved by n = {n} samples; take more, or a viscosity above {viscosity}"
            )
    return np.asarray(np.fft.ifft2(w).real)


def random_warp(n: int, smoothness: float, rng: np.random.Generator) -> Float64:
    """Return displacements tau(u) of the samples of a periodic square, whose largest gradient is 1.

    Each of their two components is white noise, smoothed by a Gaussian. Times s, they warp an image x to x(u - s
    tau(u)), which is invertible for s < 1.

    Parameters
    ----------
    n : int
        Samples along each side, at least 2.
    smoothness : float
        Standard deviation of the Gaussian, in samples; positive, and at most n, beyond which rounding errors would vary
        more than the noise.
    rng : numpy.random.Generator
        Source of the noise.

    Returns
    -------
    numpy.ndarray, shape (2, n, n)
        Displacements along each axis, in samples. The largest spectral norm of the matrix of their differences between
        neighbours is 1.

    Raises
    ------
    ValueError
        If `n` is too small, or `smoothness` too small or too large.
    """
    if n < 2 or not 0 < smoothness <= n:
        raise ValueError(f"n is {n} and smoothness {smoothness}; n is at least 2, smoothness positive and at most n")
    from scipy import ndimage  # slow to import, and training does without

    tau = ndimage.gaussian_filter(rng.standard_normal((2, n, n)), (0, smoothness, smoothness), mode="wrap")
    gradient = np.stack([np.roll(tau, -1, axis) - tau for axis in (1, 2)], axis=1)  # (2 displacements, 2 axes, n, n)
    return np.asarray(tau / np.linalg.norm(gradient, ord=2, axis=(0, 1)).max())


def lognormal_cascade(levels: int, intermittency: float, rng: np.random.Generator) -> Float64:
    """Return the density of a multiplicative cascade (B. Mandelbrot, 1974).

    At each level every interval is halved, and the density of each half is multiplied by an independent log-normal
    weight of mean 1, whose logarithm has the variance `intermittency`. The integral X of the density scales like
    E abs(X(t + l) - X(t))^q ~ l^zeta(q) with zeta(q) = q - intermittency q (q - 1) / (2 ln 2).

    Parameters
    ----------
    levels : int
        Halvings.
    intermittency : float
        Variance of the logarithm of a weight; below 2 ln 2, beyond which all mass is lost.
    rng : numpy.random.Generator
        Source of the weights.

    Returns
    -------
    numpy.ndarray, shape (2 ** levels,)
        Positive, of expectation 1.

    Raises
    ------
    ValueError
        If `levels` is negative or `intermittency` out of range.
    """
    if levels < 0 or not 0 <= intermittency < 2 * math.log(2):
        raise ValueError(
            f"levels is {levels} and intermittency {intermittency}; levels are at least 0, intermittency from 0 to 1.38"
        )
    density = np.ones(1)
    for _ in range(levels):
        density = np.repeat(density, 2)
        density *= np.exp(rng.normal(-intermittency / 2, math.sqrt(intermittency), density.size))
    return density


def multifractal_noise(
    n: int, intermittency: float, rng: np.random.Generator, *, scale: int | None = None, leverage: float = 0.0
) -> Float64:
    """Return the increments of a multifractal random walk (E. Bacry, J. Delour, J. F. Muzy, cond-mat/0005405).

    They are e(t) exp(w(t)), with white noise e and a Gaussian process w, whose covariance is intermittency
    ln(scale / (1 + lag)) for lags below `scale`, and 0 beyond. Their sum X scales like E abs(X(t + l) - X(t))^q ~
    l^zeta(q) with zeta(q) = q/2 - intermittency q (q - 2) / 2. With `leverage` K, past increments act on later
    variances: w(t) is lowered by K sum_s e(t - s) / sqrt(s), 0 < s < scale (B. Pochart, J.-P. Bouchaud,
    cond-mat/0204047).

    Parameters
    ----------
    n : int
        Samples.
    intermittency : float
        The square of lambda; 0 is white noise.
    rng : numpy.random.Generator
        Source.
    scale : int, optional
        The integral scale in samples, at most n / 2; n / 8 by default, and at least 2.
    leverage : float, optional
        K: with it, falls are followed by larger variances than rises.

    Returns
    -------
    numpy.ndarray, shape (n,)
        Periodic but for the leverage; its variance is 1 without leverage.

    Raises
    ------
    ValueError
        If `n` is below 8, `scale` not from 2 to n / 2, or `intermittency` negative or not finite.
    """
    scale = max(n // 8, 2) if scale is None else scale
    if n < 8 or not 2 <= scale <= n // 2 or not 0 <= intermittency < math.inf:
        raise ValueError(
            f"n is {n}, scale {scale}, intermittency {intermittency}; n is at least 8, scale from 2 to n / 2, "
            "intermittency not negative and finite"
        )
    lag = np.minimum(np.arange(n), n - np.arange(n))
    covariance = np.maximum(np.log(scale / (1 + lag)), 0)
    # the spectrum of a convex falling covariance is not negative but for rounding
    spectrum = np.maximum(np.fft.fft(covariance).real, 0)
    w = np.fft.ifft(np.sqrt(spectrum) * np.fft.fft(rng.standard_normal(n))).real * math.sqrt(intermittency)
    e = rng.standard_normal(n)
    w -= intermittency * math.log(scale)  # E exp(2 w) = 1
    if leverage:
        kernel = np.concatenate([[0], 1 / np.sqrt(np.arange(1, scale))])
        w -= leverage * np.fft.irfft(np.fft.rfft(e, 2 * n) * np.fft.rfft(kernel, 2 * n), 2 * n)[:n]
    return np.asarray(e * np.exp(w))
