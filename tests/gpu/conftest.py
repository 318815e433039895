"""Fixtures that run CUDA kernels without a GPU."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.gpu.host import COMPILER, host_kernels, in_place_of_cupy
from tests.gpu.requirements import missing


@pytest.fixture(scope="module")
def kernels_on_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """NumPy arrays go the way of CuPy's, through the same kernels compiled for the processor; the names launched."""
    if COMPILER is None:
        missing("no g++, to compile the CUDA kernels for the processor")
    launched: list[str] = []
    build = host_kernels(tmp_path_factory.mktemp("kernels"))

    def kernel(name: str, *arguments: object) -> object:
        launched.append(name)
        return build(name, *arguments)

    with in_place_of_cupy(kernel):
        yield launched
