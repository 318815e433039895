"""Engines for NumPy, CuPy and array-API arrays without compiled kernels."""
