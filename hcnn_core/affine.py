"""Affine maps of images, bilinear between pixels."""

from __future__ import annotations

from hcnn_core._engines.dispatch import engine
from hcnn_core.backend import Array, array_namespace, require_real

__all__ = ["map_affinely"]


def map_affinely(images: Array, matrices: Array, /) -> Array:
    """Return images under affine maps about their centres, bilinear between pixels, with zeros outside.

    The pixel at p is the value at ``c + matrices[n] (p - c)`` of image n, where c is its centre.

    Parameters
    ----------
    images : array, shape (N, H, W, C)
        float32 or float64.
    matrices : array, shape (N, 2, 2)
        Of the same dtype and library, rows and columns in the order of the images' axes.

    Returns
    -------
    array, shape (N, H, W, C)
        Of the same dtype.

    Raises
    ------
    ValueError
        If the shapes do not fit each other.
    TypeError
        If the arrays are of different libraries or dtypes, or not float32 or float64.

    Notes
    -----
    As ``scipy.ndimage.affine_transform`` with order 1 and mode "grid-constant".
    """
    xp = array_namespace(images, matrices)
    images, matrices = require_real(xp, "images", images), require_real(xp, "matrices", matrices)
    if images.dtype != matrices.dtype:
        raise TypeError(f"images have dtype {images.dtype}, matrices {matrices.dtype}; give both one dtype")
    if images.ndim != 4 or matrices.shape != (images.shape[0], 2, 2):
        raise ValueError(
            f"images have shape {images.shape}, matrices {matrices.shape}; give (N, H, W, C) and (N, 2, 2)"
        )
    mapped: Array = engine("affine", images).map_affinely(xp, images, matrices)
    return mapped
