"""Which versions of the frameworks are tested, and which framework is missing."""

from __future__ import annotations

from importlib import metadata


def pytest_report_header() -> list[str]:
    lines = []
    for name in ("torch", "jax", "jaxlib", "numpy", "scipy", "numba", "pylops"):
        try:
            lines.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            lines.append(f"{name} is not installed, and its tests are skipped")
    return lines
