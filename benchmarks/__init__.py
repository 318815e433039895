"""Measurements; each file is one command, and `benchmarks/results/` holds what they printed."""
