"""The discrete Fourier transform along some axes, of NumPy, CuPy and traced arrays."""

from __future__ import annotations

from autodiff import defvjp, primitive
from hcnn_core.backend import Array, array_namespace, fft_namespace


def _transform(name: str, x: Array, axes: tuple[int, ...]) -> Array:
    # SciPy's transforms several lines at once, by vector instructions, which NumPy's does not
    return getattr(fft_namespace(array_namespace(x)), name)(x, axes=axes)


@primitive
def fftn(x: Array, axes: tuple[int, ...]) -> Array:
    """Return the complex transform of an array, of its precision."""
    return _transform("fftn", x, axes)


@primitive
def ifftn(x: Array, axes: tuple[int, ...]) -> Array:
    """Return the inverse transform of an array, of its precision, complex."""
    return _transform("ifftn", x, axes)


defvjp(fftn, lambda ans, x, axes: lambda g: fftn(g, axes), None)  # their matrices are symmetric
defvjp(ifftn, lambda ans, x, axes: lambda g: ifftn(g, axes), None)
