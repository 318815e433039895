"""Engines for NumPy arrays by compiled kernels."""
