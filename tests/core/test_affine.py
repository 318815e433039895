"""Affine maps of images against SciPy's and by hand."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given
from hypothesis import strategies as st

from hcnn_core._engines.cuda import affine as cuda
from hcnn_core.translation import map_affinely
from tests.gpu.host import COMPILER


def by_scipy(images: Any, matrices: Any) -> Any:
    centre = (np.array(images.shape[1:3]) - 1) / 2
    found = np.empty_like(images)
    for n, c in np.ndindex(images.shape[0], images.shape[3]):
        offset = centre - matrices[n] @ centre
        found[n, :, :, c] = scipy.ndimage.affine_transform(
            images[n, :, :, c], matrices[n], offset, order=1, mode="grid-constant"
        )
    return found


def drawn(seed: int, height: int, width: int, channels: int = 2, dtype: str = "float64") -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    matrices = np.eye(2) + rng.normal(0, 0.7, (3, 2, 2))
    return rng.standard_normal((3, height, width, channels)).astype(dtype), matrices.astype(dtype)


@given(seed=st.integers(0, 999), height=st.integers(1, 7), width=st.integers(1, 7))
def test_they_are_those_of_scipy(seed: int, height: int, width: int) -> None:
    images, matrices = drawn(seed, height, width)
    found = map_affinely(images, matrices)
    np.testing.assert_allclose(found, by_scipy(images, matrices), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_whole_pixels_move_as_the_matrix_says(dtype: str) -> None:
    image = np.arange(9).reshape(1, 3, 3, 1).astype(dtype)
    quarter = np.array([[[0, -1], [1, 0]]], dtype)
    found = map_affinely(image, quarter)
    assert found.dtype == dtype and np.array_equal(found[0, :, :, 0], np.rot90(image[0, :, :, 0], -1))
    assert np.array_equal(map_affinely(image, np.eye(2, dtype=dtype)[None]), image)
    assert not np.array_equal(found, np.rot90(image, axes=(1, 2)))  # negative control: the other way round


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_cuda_kernel_computes_the_same(tmp_path: Path, dtype: str) -> None:
    """Its text, compiled for the processor, block by block and thread by thread."""
    if COMPILER is None:
        pytest.skip("no g++, to compile the CUDA kernel for the processor")
    head = """
#include <algorithm>
#include <cmath>
#define __global__
using std::max; using std::min;
static struct { unsigned x; } blockIdx, blockDim, threadIdx;
"""
    loop = """
extern "C" void run(const real* a, const real* b, real* c, int h, int w, int k, long long n, int blocks, int threads) {
    blockDim.x = threads;
    for (blockIdx.x = 0; blockIdx.x < (unsigned)blocks; ++blockIdx.x)
        for (threadIdx.x = 0; threadIdx.x < (unsigned)threads; ++threadIdx.x) map_affinely(a, b, c, h, w, k, n);
}
"""
    (tmp_path / "affine.cpp").write_text(head + cuda.source(dtype) + loop)
    command = [COMPILER, "-std=c++17", "-O1", "-ffp-contract=off", "-shared", "-fPIC", "affine.cpp", "-o", "affine.so"]
    subprocess.run(command, cwd=tmp_path, check=True)
    run = ctypes.CDLL(str(tmp_path / "affine.so")).run
    images, matrices = drawn(1, 9, 7, 3, dtype)
    found = np.full_like(images, 7)
    pointers = (ctypes.c_void_p(a.ctypes.data) for a in (images, matrices, found))
    run(*pointers, 9, 7, 3, ctypes.c_longlong(images.size), -(-images.size // cuda.THREADS), cuda.THREADS)
    expected = by_scipy(images.astype("float64"), matrices.astype("float64"))
    np.testing.assert_allclose(found, expected, rtol=0, atol=64 * np.finfo(dtype).eps * np.abs(images).max())


def test_what_does_not_fit_is_refused() -> None:
    images, matrices = drawn(2, 4, 4)
    with pytest.raises(ValueError, match=r"images have shape \(3, 4, 4, 2\), matrices \(2, 2, 2\)"):
        map_affinely(images, matrices[:2])
    with pytest.raises(TypeError):
        map_affinely(images.astype(int), matrices)
    assert map_affinely(images[:0], matrices[:0]).shape == (0, 4, 4, 2)
