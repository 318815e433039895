"""Fixtures that run CUDA kernels without a GPU."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hcnn_core import _cuda, _patches, _plan
from tests.core.oracle import forget_plans
from tests.gpu.host import COMPILER, host_kernels
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

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_cuda, "kernel", kernel)
        for module in (_plan, _patches):
            patch.setattr(module, "library_of", lambda array: "cupy")
        forget_plans()
        yield launched
    forget_plans()
