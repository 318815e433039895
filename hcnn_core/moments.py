"""Moments of spatial patches: all that Eq. (8)'s normalisation needs to know of the data.

A filter h gives at every position the number h . P, P being the patch around it. Over all positions its mean is
h . mean(P) and its variance h . cov(P) h, so batch normalisation of any number Q of filters costs one pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from hcnn_core._backend import Array, array_namespace, compiled_kernels, placement, require_real
from hcnn_core._geometry import BOUNDARIES, normalize_axes, normalize_choice, normalize_integers
from hcnn_core._parallel import parallel_for
from hcnn_core._taps import TILE, tap_pieces

__all__ = ["patch_moments", "patch_moments_vjp"]


def patch_moments(
    x: Array, axes: int | Sequence[int], kernel_size: int | Sequence[int], *, boundary: str | Sequence[str]
) -> tuple[Array, Array]:
    """Mean and covariance of the patches around every position of x.

    Parameters
    ----------
    x : array
        float32 or float64, any shape; axes not named in `axes` index independent samples.
    axes : int or sequence of int
        The axes patches extend along (space).
    kernel_size : int or sequence of int
        Patch lengths, one for all axes or one per axis. T is their product.
    boundary : {"periodic", "zero"} or sequence of them
        How x is extended for patches that reach beyond its ends.

    Returns
    -------
    mean : array, shape (T,)
        Mean of ``x[u - (t - kernel_size // 2)]`` over all u and samples, taps t in C order, as `convolve` counts them.
    covariance : array, shape (T, T)
        Their covariance, divided by the number of positions (as batch normalisation does).

    Raises
    ------
    TypeError
        If the dtype is integer or complex.
    ValueError
        If x is empty, or axes, kernel_size and boundary do not fit.

    Notes
    -----
    For a filter h, flattened, ``h @ mean`` and ``h @ covariance @ h`` are mean and variance of
    ``convolve(x, h, axes, boundary=boundary)``: m_{j,q} and sigma_{j,q}^2 of section 4.2, arXiv:1703.04140.
    """
    xp = array_namespace(x)
    x = require_real(xp, "x", x)
    mean, _, covariance = _Patches(x, axes, kernel_size, boundary).moments(xp, x, x)
    return mean, covariance


def patch_moments_vjp(
    g_mean: Array,
    g_covariance: Array,
    x: Array,
    axes: int | Sequence[int],
    kernel_size: int | Sequence[int],
    *,
    boundary: str | Sequence[str],
) -> Array:
    """Cotangent of x in ``patch_moments(x, ...)``.

    Parameters
    ----------
    g_mean, g_covariance : array, shapes (T,) and (T, T)
        Cotangents of the two results.
    x : array
        The argument.
    axes, kernel_size, boundary
        As in `patch_moments`.

    Returns
    -------
    array
        Shape and dtype of x.

    Raises
    ------
    TypeError
        If a dtype is integer or complex.
    ValueError
        If the cotangents have not the shapes of the results, or an argument does not fit as in `patch_moments`.
    """
    xp = array_namespace(g_mean, g_covariance, x)
    x = require_real(xp, "x", x)
    g_mean, g_covariance = require_real(xp, "g_mean", g_mean), require_real(xp, "g_covariance", g_covariance)
    patches = _Patches(x, axes, kernel_size, boundary)
    shapes = (patches.taps,), (patches.taps, patches.taps)
    if (g_mean.shape, g_covariance.shape) != shapes:
        raise ValueError(
            f"g_mean and g_covariance have shapes {g_mean.shape} and {g_covariance.shape}; "
            f"mean and covariance have {shapes[0]} and {shapes[1]}"
        )
    return patches.filter(xp, g_mean, g_covariance + g_covariance.T, x)


def patch_covariance(
    x: Array, y: Array, axes: int | Sequence[int], kernel_size: int | Sequence[int], *, boundary: str | Sequence[str]
) -> Array:
    """Cross-covariance (T, T) of the patches of two arrays of one shape; symmetric bilinear up to a transpose."""
    xp = array_namespace(x, y)
    return _Patches(x, axes, kernel_size, boundary).moments(xp, x, y)[2]


def patch_filter(
    constant: Array,
    matrix: Array,
    x: Array,
    axes: int | Sequence[int],
    kernel_size: int | Sequence[int],
    *,
    boundary: str | Sequence[str],
) -> Array:
    """Patches of x, centred, times a (T, T) matrix, plus a constant (T,), added back in place, over their number."""
    xp = array_namespace(constant, matrix, x)
    return _Patches(x, axes, kernel_size, boundary).filter(xp, constant, matrix, x)


class _Patches:
    """The map P from arrays of one shape to their patches, tile by tile, and its transpose."""

    def __init__(
        self, x: Array, axes: int | Sequence[int], kernel_size: int | Sequence[int], boundary: str | Sequence[str]
    ) -> None:
        axes = normalize_axes("axes", axes, x.ndim)
        if not axes:
            raise ValueError("axes names no axis; patches extend along at least one")
        if not math.prod(x.shape):
            raise ValueError(f"x has shape {x.shape}; an empty array has no moments")
        self.sizes = normalize_integers("kernel_size", kernel_size, len(axes), 1)
        self.periodic = tuple(b == "periodic" for b in normalize_choice("boundary", boundary, len(axes), BOUNDARIES))
        self.lengths = tuple(x.shape[a] for a in axes)
        self.count = math.prod(x.shape)
        self.taps = math.prod(self.sizes)
        # axes that lie inside the patch axes in memory stay there, so that taps are copied in long runs
        strides = getattr(x, "strides", None) or tuple(range(x.ndim, 0, -1))
        inner = min(abs(strides[a]) for a in axes)
        rest = sorted((a for a in range(x.ndim) if a not in axes), key=lambda a: -abs(strides[a]))
        lead = [a for a in rest if abs(strides[a]) >= inner]
        trail = [a for a in rest if abs(strides[a]) < inner]
        self.order = (*lead, *axes, *trail)
        self.shape = (math.prod(x.shape[a] for a in lead), *self.lengths, math.prod(x.shape[a] for a in trail))

    def arrange(self, xp: Any, x: Array) -> Array:
        """(samples, *patch axes, inner samples)."""
        arranged = xp.reshape(xp.permute_dims(x, self.order), self.shape)
        return np.ascontiguousarray(arranged) if xp is np else arranged

    def gather(self, xp: Any, x: Array, centre: Array | float) -> Array:
        """Patches (samples, T, positions) less `centre` of an arranged x, which is extended by zeros or by itself."""
        patches = xp.empty((x.shape[0], self.taps, *x.shape[1:]), dtype=x.dtype, **placement(xp, x))
        for index, pieces, whole in self._pieces():
            if not whole:
                patches[:, index, ...] = -centre
            for to, source in pieces:
                patches[(slice(None), index, *to, ...)] = x[(slice(None), *source, ...)] - centre
        return xp.reshape(patches, (x.shape[0], self.taps, -1))

    def scatter_add(self, xp: Any, patches: Array, x: Array) -> None:
        """Transpose of `gather`."""
        patches = xp.reshape(patches, (x.shape[0], self.taps, *x.shape[1:]))
        for index, pieces, _ in self._pieces():
            for to, source in pieces:
                x[(slice(None), *source, ...)] += patches[(slice(None), index, *to, ...)]

    def moments(self, xp: Any, x: Array, y: Array) -> tuple[Array, Array, Array]:
        """Mean patches of x and y and their covariance, summed about the arrays' own means, so that nothing cancels."""
        arranged = [self.arrange(xp, a) for a in ((x,) if x is y else (x, y))]
        centres, offsets = zip(*(self.centre(xp, a) for a in arranged), strict=True)
        sums: dict[int, Array] = {}

        def tile(part: slice) -> None:
            patches = [self.gather(xp, a[part, ...], c) for a, c in zip(arranged, centres, strict=True)]
            product = xp.matmul(patches[0], xp.permute_dims(patches[-1], (0, 2, 1)))
            sums[part.start] = xp.sum(product, axis=0, dtype=xp.float64)

        def compiled_tile(part: slice) -> None:
            product = np.zeros((*self.sizes, *self.sizes))
            more = [size - 1 for size in self.sizes]
            before = [size - 1 - size // 2 for size in self.sizes]
            for index in range(part.start, part.stop):
                padded = [
                    kernels.pad(a[index], c, *before, *more, *self.periodic)
                    for a, c in zip(arranged, centres, strict=True)
                ]
                kernels.gram(padded[0], padded[-1], *self.sizes, self.shape[-1], x is y, product)
            sums[part.start] = product[::-1, ::-1, ::-1, ::-1].reshape(self.taps, self.taps)

        kernels = self._kernels(xp)
        self._each_tile(xp, compiled_tile if kernels else tile)
        total = sum(sums[start] for start in sorted(sums))
        means = [xp.astype(o + c, x.dtype) for o, c in zip(offsets, centres, strict=True)]
        covariance = xp.astype(total / self.count - offsets[0][:, None] * offsets[-1][None, :], x.dtype)
        return means[0], means[-1], covariance

    def filter(self, xp: Any, constant: Array, matrix: Array, x: Array) -> Array:
        """P^T (constant + matrix (P x - mean P x)) / count."""
        arranged = self.arrange(xp, x)
        centre, offset = self.centre(xp, arranged)
        matrix = xp.astype(matrix, x.dtype) / self.count
        offset = xp.astype(constant, x.dtype) / self.count - xp.matmul(matrix, xp.astype(offset, x.dtype))
        result = xp.zeros(self.shape, dtype=x.dtype, **placement(xp, x))

        def tile(part: slice) -> None:
            patches = xp.matmul(matrix, self.gather(xp, arranged[part, ...], centre))
            self.scatter_add(xp, patches + offset[None, :, None], result[part, ...])

        def compiled_tile(part: slice) -> None:
            around = [size - 1 for size in self.sizes]
            coefficients = np.ascontiguousarray(matrix.reshape(*self.sizes, *self.sizes))
            for index in range(part.start, part.stop):
                padded = kernels.pad(arranged[index], centre, *around, *(2 * n for n in around), *self.periodic)
                kernels.spread(
                    padded, *self.sizes, *self.periodic, coefficients, offset.reshape(self.sizes), result[index]
                )

        kernels = self._kernels(xp)
        self._each_tile(xp, compiled_tile if kernels else tile)
        back = tuple(int(i) for i in np.argsort(self.order))
        return xp.permute_dims(xp.reshape(result, tuple(x.shape[a] for a in self.order)), back)

    def centre(self, xp: Any, x: Array) -> tuple[Array, Array]:
        """Mean of an arranged array, and its mean patch less that, in double precision."""
        guess = xp.mean(x[:1, ...])  # sums of what is left of x are exact where its mean is large
        sums: dict[int, Array] = {}

        def tile(part: slice) -> None:
            sums[part.start] = xp.sum(xp.sum(x[part, ...] - guess, axis=-1), axis=0, dtype=xp.float64)

        def compiled_tile(part: slice) -> None:
            sums[part.start] = np.zeros(self.lengths)
            kernels.position_sums(x[part], guess, sums[part.start])

        kernels = self._kernels(xp)
        self._each_tile(xp, compiled_tile if kernels else tile)
        samples = self.shape[0] * self.shape[-1]
        total = sum(sums[start] for start in sorted(sums)) + samples * xp.astype(guess, xp.float64)
        centre = xp.astype(xp.sum(total) / self.count, x.dtype)
        patches = self.gather(xp, total[None, ..., None], samples * xp.astype(centre, xp.float64))
        return centre, xp.sum(patches, axis=(0, 2)) / self.count

    def _kernels(self, xp: Any) -> Any:
        """The compiled kernels, which have two patch axes."""
        return compiled_kernels(xp) if len(self.sizes) == 2 else None

    def _pieces(self) -> Any:
        spans = tuple((0, n) for n in self.lengths)
        return tap_pieces(self.lengths, spans, (1,) * len(spans), self.sizes, self.periodic)

    def _each_tile(self, xp: Any, tile: Callable[[slice], None]) -> None:
        """Work through the samples, threads taking different ones."""
        size = max(1, TILE // (self.taps * math.prod(self.shape[1:])))

        def work(first: int, last: int) -> None:
            for begin in range(first, last, size):
                tile(slice(begin, min(last, begin + size)))

        if xp is np:
            parallel_for(work, self.shape[0], self.count * self.taps, threaded=not self._kernels(xp))
        else:
            work(0, self.shape[0])
