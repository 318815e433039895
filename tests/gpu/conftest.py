"""Fixtures that run CUDA kernels without a GPU."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.gpu.host import COMPILER, host_kernels, in_place_of_cupy, precompile_header
from tests.gpu.requirements import missing


@pytest.fixture(scope="session")
def compiled_kernels(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Kernels compiled for the processor, in a folder that all processes of this test run share."""
    if COMPILER is None:
        missing("no g++, to compile the CUDA kernels for the processor")
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "kernels"
    folder.mkdir(exist_ok=True)
    precompile_header(folder)
    return host_kernels(folder)


@pytest.fixture(scope="module")
def kernels_in_module(compiled_kernels: Callable[..., Any]) -> Iterator[list[str]]:
    """NumPy arrays go the way of CuPy's, through the same kernels compiled for the processor; the names launched."""
    launched: list[str] = []

    def kernel(name: str, *arguments: object) -> object:
        launched.append(name)
        return compiled_kernels(name, *arguments)

    with in_place_of_cupy(kernel):
        yield launched


@pytest.fixture
def kernels_on_host(kernels_in_module: list[str]) -> list[str]:
    """The names of the kernels that a test has launched in this way."""
    kernels_in_module.clear()
    return kernels_in_module


@pytest.fixture(params=["the library", "kernels"])
def by(request: pytest.FixtureRequest) -> str:
    """What computes: NumPy, or kernels compiled for the processor."""
    if request.param == "kernels":
        request.getfixturevalue("kernels_on_host")
    return str(request.param)
