"""Engines for CuPy arrays by CUDA kernels."""
