"""Compiled kernels, by theme."""
