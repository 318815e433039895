"""Defects planted in the kernels and in what launches them: each must be noticed by the check that is named beside it.

A check passes on the text as it is, and fails on the text with the defect.
"""

from __future__ import annotations

import importlib
import json
import math
import mmap
import os
import re
import shutil
import subprocess
import sys
import tomllib
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autodiff import convolve_elu, cross_entropy, value_and_grad, vjp
from autodiff.primitives import (
    _cross_entropy_written_out,
    _merged_factors_written_out,
    _normalize_elu_written_out,
    _rectified_written_out,
    rectified_and_moments,
)
from hcnn_core import (
    convolve,
    convolve_elu_marginal,
    convolve_vjp_w,
    convolve_vjp_x,
    marginal,
    matmul,
    merge_factors,
    merge_factors_vjp,
    muon_update_all,
    normalize_elu_marginal,
    normalize_elu_vjp,
    patch_moments,
    patch_moments_vjp,
    precision,
)
from hcnn_core._engines.cuda import implicit as _implicit
from hcnn_core._engines.cuda import launch as _cuda
from hcnn_core._engines.cuda import patches as _cuda_patches
from hcnn_core._engines.cuda import plan as _cuda_plan
from hcnn_core._engines.cuda import summed as _summed
from hcnn_core._engines.cuda import tensor_plan as _tensor_plan
from hcnn_core._engines.cuda.single import SinglePlan
from hcnn_core._problem import make_problem
from hcnn_core._tuning import current, tuned
from hcnn_core.backend import memory_order
from hcnn_core.convolution import convolve_and_parts
from hcnn_core.normalization import normalized_and_moments
from tests.core.oracle import C, Problem, eps, noise, norm, poisoned_memory, wide
from tests.gpu.host import exact_noise, without_kernels
from tests.gpu.requirements import required
from tests.gpu.test_updates import muon_written_out

ROOT = Path(__file__).parents[2]
SPACE: dict[str, Any] = {"boundary": "zero", "stride": (1, 2), "method": "direct"}
SPECTRAL: dict[str, Any] = {"boundary": "zero", "stride": (1, 1, 2), "method": ("direct", "direct", "fft")}
X, W = (2, 5, 6, 40), (3, 3, 3)


def close(found: Any, expected: Any, scale: float) -> None:
    assert found.shape == expected.shape and np.isfinite(found).all()
    assert np.abs(found - expected).max() <= C * eps("float32") * scale


def maps() -> None:
    """Convolutions and both adjoints, by taps and by a DFT, few blocks taking several rounds each."""
    with tuned(device_blocks=2, device_spectrum_elements=500), poisoned_memory():
        for x_shape, w_shape, axes, options in (
            ((7, 6, 400), (3, 3, 3), (0, 1), SPACE),
            ((60, 6, 5, 8), (3, 3, 5, 3), (1, 2, 3), SPECTRAL),
            ((60, 6, 5, 8), (3, 3, 5, 3), (1, 2, 3), {**SPECTRAL, "stride": (2, 1, 2)}),
        ):
            x, w = noise(0, x_shape, "float32"), noise(1, w_shape, "float32")
            problem = Problem(x, w, axes, options)
            g = noise(2, problem.y_shape, "float32")
            close(convolve(x, w, axes, **options), problem.convolution(), norm(x) * norm(w))
            close(convolve_vjp_x(g, x, w, axes, **options), problem.transpose_x(g), norm(g) * norm(w))
            close(convolve_vjp_w(g, x, w, axes, **options), problem.transpose_w(g), norm(g) * norm(x))


def layers() -> None:
    """ELU, its derivative and the bias's sums on the way, also for the cotangent of a marginal."""
    for x_shape, w_shape, axes, options in (
        ((40, 5, 6), (3, 3, 3), (1, 2), SPACE),
        ((40, 4, 3, 8), (3, 3, 5, 3), (1, 2, 3), SPECTRAL),
        ((40, 4, 3, 8), (3, 3, 5, 3), (1, 2, 3), {**SPECTRAL, "boundary": "periodic"}),
        ((40, 4, 3, 8), (3, 3, 5, 3), (1, 2, 3), {**SPECTRAL, "method": ("direct", "fft", "fft")}),
    ):
        x, w, bias = noise(0, x_shape, "float32"), noise(1, w_shape, "float32"), noise(2, w_shape[-1:], "float32")
        problem = Problem(x, w, axes, options)
        c = problem.convolution() + wide(bias)
        y, pullback = vjp(lambda *a, axes=axes, options=options: convolve_elu(*a, axes, **options), x, w, bias)
        for axis in axes[-2:]:
            same, total = convolve_elu_marginal(x, w, bias, axes, axis, **options)
            close(total, wide(y).sum(axis=axis), norm(y))
            assert np.array_equal(same, y)
        close(y, np.where(c > 0, c, np.expm1(np.minimum(c, 0))), norm(x) * norm(w) + norm(bias))
        full = noise(3, problem.y_shape, "float32")
        for g in (full, np.broadcast_to(full.take([0], axes[-1]), full.shape)):
            inner = wide(g) * np.where(c > 0, 1, np.exp(np.minimum(c, 0)))
            g_x, g_w, g_bias = pullback(g)
            scale = norm(g) * (1 + norm(x) * norm(w) + norm(bias))
            close(g_x, problem.transpose_x(inner), scale * norm(w))
            close(g_w, problem.transpose_w(inner), scale * norm(x))
            close(g_bias, inner.reshape(-1, bias.size).sum(axis=0), scale * np.sqrt(g.size / bias.size))


def small_arguments() -> None:
    """ELU where it is close to its argument, by each kernel that ends with it."""
    x = np.linspace(-2e-4, -5e-5, 240, dtype=np.float32)
    for shape, axes, options in (((240, 1), (1,), {"method": "direct"}), ((30, 8), (1,), {"method": "fft"})):
        w = np.zeros((1, 1), np.float32) + 1
        y = convolve_elu(x.reshape(shape), w, np.zeros(1, np.float32), axes, boundary="zero", **options)
        exact = np.expm1(wide(x)).reshape(y.shape)
        assert np.abs(y / exact - 1).max() <= 32 * eps("float32")


def patches() -> None:
    """Moments and their derivative by 2 and 3 blocks of several rounds, of samples with a large mean and without."""
    for positions in (150, 250):
        x = noise(0, (5, 6, 4 * positions), "float32") + np.float32(3000)
        rows = np.moveaxis(
            Problem(wide(x), np.eye(9).reshape(3, 3, 9), (0, 1), {"boundary": "periodic"}).convolution(), -1, 0
        )
        rows = rows.reshape(9, -1)
        mean, covariance = patch_moments(x, (0, 1), (3, 3), boundary="periodic")
        assert np.abs(mean / rows.mean(axis=1) - 1).max() <= 4 * eps("float32")
        assert np.abs(covariance - np.cov(rows, bias=True)).max() <= 2e-3
    x = noise(1, (5, 6, 300), "float32") + np.float32(2)
    problem = Problem(wide(x), np.eye(9).reshape(3, 3, 9), (0, 1), {"boundary": "zero"})
    rows = np.moveaxis(problem.convolution(), -1, 0).reshape(9, -1)
    close(patch_moments(x, (0, 1), (3, 3), boundary="zero")[1], np.cov(rows, bias=True), np.abs(rows).max() ** 2)
    g_mean, g_covariance = noise(2, (9,), "float32"), noise(3, (9, 9), "float32")
    shares = g_mean[:, None] + wide(g_covariance + g_covariance.T) @ (rows - rows.mean(axis=1, keepdims=True))
    expected = problem.transpose_x(np.moveaxis((shares / rows.shape[1]).reshape(9, *x.shape), 0, -1))
    found = patch_moments_vjp(g_mean, g_covariance, x, (0, 1), (3, 3), boundary="zero")
    close(found, expected, 9 * (norm(g_mean) + norm(g_covariance) * np.abs(rows).max()) / rows.shape[1])


def products() -> None:
    """Products of matrices whose sides fill no block; one is so small that no operand fills one either."""
    for m, depth, n in ((33, 40, 5), (3, 70, 65), (5, 7, 6)):
        a, b = noise(0, (m, depth), "float32"), noise(1, (depth, n), "float32")
        with poisoned_memory():
            close(matmul(a, b), wide(a) @ wide(b), norm(a) * norm(b))


def single_filters() -> None:
    """One filter along four axes, whose last has five samples and 13 taps: by several blocks, and by few."""
    x, w = noise(0, (3, 4, 5, 5), "float32"), noise(1, (2, 3, 2, 13), "float32")
    options: dict[str, Any] = {"boundary": ("zero", "zero", "periodic", "periodic"), "method": "direct"}
    problem = Problem(x, w, (0, 1, 2, 3), options)
    g = noise(2, problem.y_shape, "float32")
    for blocks in (1024, 4):
        with tuned(device_blocks=blocks), poisoned_memory():
            found = convolve_vjp_w(g, x, w, problem.axes, **options)
        close(found, problem.transpose_w(g), norm(g) * norm(x))
    with poisoned_memory():
        close(convolve(x, w, problem.axes, **options), problem.convolution(), norm(x) * norm(w))
        close(convolve_vjp_x(g, x, w, problem.axes, **options), problem.transpose_x(g), norm(g) * norm(w))


def infinite_samples() -> None:
    """A sample that no tap of a result reads leaves its product alone, also when it is infinite."""
    x, w = np.zeros(20, np.float32), np.ones(5, np.float32)
    x[-1] = np.inf
    found = convolve_vjp_w(np.ones(10, np.float32), x, w, 0, boundary="zero", stride=2, method="direct")
    assert not np.isnan(found).any() and np.isinf(found).sum() == 1


def far_samples() -> None:
    """Samples of a single filter that lie 2^32 elements apart."""
    apart, n = (1 << 32) + 64, 8
    x = np.lib.stride_tricks.as_strided(far(apart + n), (2, n), (4 * apart, 4))
    x[1] = np.arange(n)
    y = convolve(x, np.ones(1, np.float32), 1, boundary="zero", method="direct")
    assert np.array_equal(y, x)


def far_results() -> None:
    """Results of a single filter that lie 2^32 elements apart."""
    apart, n = (1 << 32) + 64, 8
    x, y = noise(0, (2, n), "float32"), np.lib.stride_tricks.as_strided(far(apart + n), (2, n), (4 * apart, 4))
    options: dict[str, Any] = {"boundary": "zero", "sum_axes": (), "stride": 1, "method": "direct"}
    plan = SinglePlan(make_problem((2, n), (1,), (1,), **options), current())
    plan._convolve(x, y, np.ones(1, np.float32), plan.along)
    assert np.array_equal(y, x)


def views(build: Callable[..., Any]) -> None:
    """Arrays whose first number lies beyond a multiple of 16 bytes: kernels, whose accesses ask, move one at a time."""

    def view(seed: int, shape: tuple[int, ...], dtype: str = "float32") -> Any:
        array = exact_noise(seed, (math.prod(shape) + 4,)).astype(dtype)
        first = next(k for k in range(4) if array[k:].ctypes.data % 16 == 4)
        return array[first : first + math.prod(shape)].reshape(shape)

    with precision("tf32"), tuned(device_blocks=12), pytest.MonkeyPatch.context() as patch:
        patch.setattr(_cuda, "kernel", build.checked())  # type: ignore[attr-defined]
        patch.setattr(_tensor_plan, "SLOWER", 0)
        patch.setattr(_tensor_plan, "seconds_by_spectra", lambda *_: np.inf)
        for x_shape, w_shape, axes, options in (
            ((5, 5, 3, 4, 8), (3, 1, 5, 5, 8), (1, 2, 3, 4), {"method": ("direct", "direct", "fft", "fft")}),
            ((20, 17, 12), (20, 3, 20), (1,), {"sum_axes": 0, "method": "direct"}),
        ):
            x, w = view(0, x_shape).swapaxes(0, -1) if "sum_axes" not in options else view(0, x_shape), view(1, w_shape)
            problem = Problem(x, w, axes, {"boundary": "zero", **options})
            y = problem.run(convolve, x, w)
            order = memory_order(y)
            g = view(2, tuple(y.shape[a] for a in order)).transpose(np.argsort(order))  # so that nobody copies it
            close(y, problem.convolution(), norm(x) * norm(w))
            close(problem.run(convolve_vjp_x, g, x, w), problem.transpose_x(g), norm(g) * norm(w))
            close(problem.run(convolve_vjp_w, g, x, w), problem.transpose_w(g), norm(g) * norm(x))
        x = view(3, (5, 6, 40))
        patch_moments_vjp(*patch_moments(x, (0, 1), (3, 3), boundary="zero"), x, (0, 1), (3, 3), boundary="zero")


def merging() -> None:
    """Merged factors and their cotangents, at a boundary that some taps reach beyond."""
    given = [noise(seed, shape, "float32") for seed, shape in enumerate([(5, 3), (5, 6, 3), (3,), (3, 3), (3,)])]
    given[3] = given[3] @ given[3].T
    options: dict[str, Any] = {"lengths": (7,), "stride": 2, "boundary": "zero", "epsilon": 1.0}
    with without_kernels():
        exact, pullback = vjp(lambda *a: _merged_factors_written_out(*a, **options), *map(wide, given))
        g = tuple(noise(5 + i, a.shape, "float32") for i, a in enumerate(exact))
        cotangents = pullback(tuple(map(wide, g)))
    with poisoned_memory():
        found = *merge_factors(*given, **options), *merge_factors_vjp(*g, *given, **options)
    for one, other in zip(found, (*exact, *cotangents), strict=True):
        close(one, other, 5 * norm(other))


def losses() -> None:
    """Cross-entropy with smoothed labels, and its gradient, of more images than a block has threads."""
    logits, labels = (3 * noise(0, (300, 8), "float32") + np.float32(100))[:, ::2], np.arange(300) % 4
    with without_kernels():
        exact, gradient = value_and_grad(lambda x: _cross_entropy_written_out(x, labels, 0.2))(wide(logits))
    with poisoned_memory():
        loss, found = value_and_grad(lambda x: cross_entropy(x, labels, label_smoothing=0.2))(logits)
    close(loss, exact, 10)
    close(found, gradient, 1 / 300)


def of_long_sums() -> Iterator[Any]:
    """Sums of positive numbers by tensor cores, results and cotangents of filters, over what they should be."""
    attribute: dict[str, Any] = {"boundary": "zero", "method": ("direct", "fft")}
    for x_shape, w_shape, axes, options in (
        ((2, 60, 16), (99, 11, 2), (1, 2), attribute),
        ((256, 16, 8), (3, 5, 2), (1, 2), attribute),
        ((512, 24), (512, 3, 2), (1,), {"boundary": "zero", "method": "direct", "sum_axes": 0}),
        ((2, 16, 512), (2, 3, 2), (1,), {"boundary": "zero", "method": "direct", "sum_axes": 0}),
    ):
        x, w = (np.abs(noise(seed, shape, "float32")) + np.float32(1) for seed, shape in enumerate((x_shape, w_shape)))
        problem = Problem(x, w, axes, options)
        g = np.abs(noise(2, problem.y_shape, "float32")) + np.float32(1)
        with pytest.MonkeyPatch.context() as patch, precision("tf32"), tuned(device_blocks=1):
            patch.setattr(_tensor_plan.TensorPlan, "supports", lambda *_: True)  # whatever is faster
            y, of_w = convolve(x, w, axes, **options), convolve_vjp_w(g, x, w, axes, **options)
        yield from (y / problem.convolution(), of_w / problem.transpose_w(g))


def rounding() -> None:
    """Operands are rounded to the nearest of TensorFloat-32, so that errors of many cancel; what is cut off adds up."""
    assert all(abs(ratios.mean() - 1) < 2.0**-13 for ratios in of_long_sums())


def sliding() -> None:
    """Filters that slide along attributes: results, their marginal, and both adjoints, by few blocks."""
    x, w, bias = exact_noise(0, (5, 5, 3, 4, 20)), exact_noise(1, (3, 1, 5, 5, 9)), noise(2, (9,), "float32")
    options: dict[str, Any] = {"boundary": "zero", "stride": (1, 1, 2, 2), "method": ("direct", "direct", "fft", "fft")}
    problem = Problem(x, w, (1, 2, 3, 4), options)
    g = exact_noise(3, problem.y_shape)
    with precision("tf32"), tuned(device_blocks=12), poisoned_memory():
        close(convolve(x, w, problem.axes, **options), problem.convolution(), norm(x) * norm(w))
        y, total = convolve_elu_marginal(x, w, bias, problem.axes, 3, **options)
        close(total, wide(y).sum(axis=3), norm(y))
        y, parts = convolve_and_parts(noise(4, (15, 4, 3, 4, 20), "float32") + 100, w, problem.axes, **options)
        moments = normalized_and_moments(y, bias, bias, bias, epsilon=0.1, parts=parts)[3]
        exact, over = wide(y), tuple(range(y.ndim - 1))
        close(moments[0], exact.mean(axis=over) + bias, exact.std())
        close(moments[1], exact.var(axis=over), exact.var())
        close(convolve_vjp_x(g, x, w, problem.axes, **options), problem.transpose_x(g), norm(g) * norm(w))
        close(convolve_vjp_w(g, x, w, problem.axes, **options), problem.transpose_w(g), norm(g) * norm(x))
        options["stride"] = 2, 1, 2, 2  # so that a phase of x meets some of the taps
        problem, g = Problem(x, w, problem.axes, options), g[:, ::2]
        close(convolve_vjp_x(g, x, w, problem.axes, **options), problem.transpose_x(g), norm(g) * norm(w))


def summing() -> None:
    """Summed channels by tensor cores, of several stages and phases: results and both adjoints, by few blocks."""
    x, w = exact_noise(0, (20, 17, 12)), exact_noise(1, (20, 3, 18))
    options: dict[str, Any] = {"boundary": "zero", "stride": 2, "sum_axes": 0, "method": "direct"}
    problem = Problem(x, w, (1,), options)
    g = exact_noise(2, problem.y_shape)
    with pytest.MonkeyPatch.context() as patch, precision("tf32"), tuned(device_blocks=2), poisoned_memory():
        patch.setattr(_tensor_plan, "SLOWER", 0)  # as if it paid for arrays so small
        close(convolve(x, w, 1, **options), problem.convolution(), norm(x) * norm(w))
        close(convolve_vjp_x(g, x, w, 1, **options), problem.transpose_x(g), norm(g) * norm(w))
        close(convolve_vjp_w(g, x, w, 1, **options), problem.transpose_w(g), norm(g) * norm(x))


def normalizing() -> None:
    """Normalised rows of several blocks and their derivative, of a cotangent that repeats its rows too; with ReLU."""
    y = noise(0, (3, 4, 300), "float32").transpose(2, 0, 1)
    args = y, noise(1, (3, 8), "float32")[:, ::2], noise(2, (8,), "float32")[::2], noise(3, (8,), "float32")[1::2]
    others = np.broadcast_to(noise(4, (3, 1, 300), "float32"), (3, 4, 300)).transpose(2, 0, 1)
    pieces = noise(4, (3, 4, 600), "float32")[..., ::2].transpose(2, 0, 1)
    repeated = np.broadcast_to(noise(4, (1, 4, 300), "float32"), (3, 4, 300)).transpose(2, 0, 1)
    with tuned(device_threads=32, device_sum_positions=1), poisoned_memory():
        found = normalized_and_moments(*args, epsilon=0.1)
        close(normalize_elu_marginal(*args, 1, epsilon=0.1)[0], wide(found[0]).sum(axis=1), 30)
        for g in (repeated, others, repeated[..., ::-1], np.ascontiguousarray(repeated), pieces):
            given = g, noise(5, (4,), "float32"), noise(6, (4,), "float32")
            cotangents = normalize_elu_vjp(*given, *args, found[3], epsilon=0.1)
            with without_kernels():
                exact, pullback = vjp(lambda *a: _normalize_elu_written_out(*a, epsilon=0.1), *map(wide, args))
                expected = pullback(tuple(map(wide, given)))
            for one, other in zip((*found[:3], *cotangents), (*exact, *expected), strict=True):
                close(one, other, 30 * norm(other))
        y, _, *more = (*args, noise(7, y.shape, "float32"))
        ans, pullback = vjp(lambda *a: rectified_and_moments(*a, epsilon=0.1)[0], y, *more)
        cotangents = pullback(repeated)
        with without_kernels():
            exact, expected = vjp(lambda *a: _rectified_written_out(*a, epsilon=0.1)[0], *map(wide, (y, *more)))
            for one, other in zip((ans, *cotangents), (exact, *expected(wide(repeated))), strict=True):
                close(one, other, 30 * norm(other))
        y[0, 0, 0] = np.nan
        assert np.isnan(rectified_and_moments(y, *more, epsilon=0.1)[0][..., 0]).all()


def adding() -> None:
    """Sums by several blocks and of several, of which the last has few terms."""
    x = noise(0, (3, 1100, 40), "float32")
    with tuned(device_blocks=64), poisoned_memory():
        close(marginal(x, 1), wide(x).sum(axis=1), 30)
        close(marginal(x, (0, 1), reduction="mean"), wide(x).mean(axis=(0, 1)), 1)


def descending() -> None:
    """A step of Muon of a tall matrix and a wide one."""
    given = [[noise(2 * k + i, shape, "float32") for i, shape in enumerate([(40, 6), (4, 50)])] for k in range(3)]
    options: dict[str, Any] = {"rate": 0.1, "momentum": 0.9, "nesterov": True}
    with poisoned_memory():
        found = muon_update_all(*given, **options, weight_decays=[0.1, 0.2], row_axes=[1, 1])
    for number, (w, g, v) in enumerate(zip(*given, strict=True)):
        for one, other in zip(
            (found[0][number], found[1][number]), muon_written_out(w, g, v, 0.1 + 0.1 * number, 1, True), strict=True
        ):
            close(one, other, 10)


def instruction() -> None:
    """The product of tensor cores as the PTX manual has it: d, a, b, c; tests on the processor run another."""
    text = _cuda.source("float32", {"TENSOR_CORES": 1, "FILTERS": 1})
    found = re.search(r'asm volatile\("mma\.([^ ]+) ([^;]+);"\s*:(.*?):(.*?)\);', text, re.DOTALL)
    assert found
    kind, operands, outputs, inputs = found.groups()
    assert kind == "sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32"
    assert re.sub(r"\s", "", operands) == "{%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3}"
    assert re.findall(r'"\+f"\((\w+\[\d\])\)', outputs) == [f"sum[{i}]" for i in range(4)]
    assert re.findall(r'"r"\((\w+\[\d\])\)', inputs) == [*(f"a[{i}]" for i in range(4)), "b[0]", "b[1]"]
    assert re.search(r"cvt\.rna\.tf32\.f32 %0, %1;", text)
    assert "define SHARED_MEMORY extern __shared__ __align__(16) unsigned char shared_memory[]\n" in text
    shuffles = re.findall(r"__shfl_sync\((\w+)", text)
    assert shuffles and set(shuffles) == {"0xffffffffu"}  # of whole warps, all of whose lanes take part
    assert _cuda.OPTIONS == ("-std=c++17",)
    assert "__shared__ __align__(16) real factors[DEPTH]" in text  # which are read by packs
    text += "".join(_cuda._text(f"{name}.cu") for name in ("summed", "single"))
    bounds = set(re.findall(r"__launch_bounds__\(([^,)]*)", text))
    assert all(re.fullmatch(r"\w+|SIDE \* SIDE / 4", bound) for bound in bounds), (
        bounds
    )  # as `launch` is told, no fewer
    assert re.findall(r'asm volatile\("(cp[^;]*;)" ::\s*(.*?)\);', text, re.DOTALL) == [
        (
            "cp.async.ca.shared.global [%0], [%1], %2, %3;",
            '"r"((unsigned)__cvta_generic_to_shared(to)), "l"(from), "n"(4 * COUNT), '
            '"r"(taken ? 4 * COUNT : 0) : "memory"',
        ),
        ("cp.async.commit_group;", ': "memory"'),
        ("cp.async.wait_group 1;", ': "memory"'),
    ]


def far(elements: int) -> np.ndarray[Any, Any]:
    """So many numbers, of which the system keeps only the pages that are written."""
    memory = mmap.mmap(
        -1, 4 * elements, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0x4000)
    )
    return np.frombuffer(memory, np.float32)


def large_arrays(build: Callable[..., Any]) -> None:
    """Entries and rows that begin beyond 2^32 elements."""
    entry, run = (1 << 32) + 64, 32  # which 32 bits make 64
    x = far(2 * entry)
    x[entry : entry + run] = np.arange(run)
    sizes = _cuda.product_sizes("float32", 1)
    zero = np.zeros(1, np.int32)
    out = np.full((2, run), np.nan, np.float32)
    numbers = (*map(np.int32, (1, 1, run, run)), *map(np.int64, (entry, 0, run, run)))
    arguments = (x, np.full(1, 2, np.float32), zero, zero, zero, np.uintp(0), out, *numbers)
    build("apply", "float32", tuple(sizes.items()))((1, 2, 1), (sizes["THREADS"],), arguments)
    assert np.array_equal(out[1], 2 * np.arange(run)) and not out[0].any()
    shared, ones = _cuda.shared_bytes_of_correlate("float32"), np.ones(run, np.float32)
    for operands in ((x, ones), (ones, x)):
        out, steps = np.full(2, np.nan, np.float32), [np.int64(entry if a is x else 0) for a in operands]
        arguments = (
            *operands,
            zero,
            zero,
            zero,
            out,
            *map(np.int32, (1, 1, run, run)),
            steps[0],
            np.int64(0),
            steps[1],
        )
        build("correlate", "float32", tuple(sizes.items()))((1, 2, 1), (sizes["THREADS"],), arguments, shared)
        assert out[1] == np.arange(run).sum() and not out[0]
    out = np.full((2, run), np.nan, np.float32)
    arguments = (x, np.uintp(0), np.uintp(0), np.uintp(0), out, *map(np.int32, (run, 1, 2)), np.int64(entry))
    build("extend", "float32", (("EXTEND", 256),))((1, 2), (256,), arguments)
    assert np.array_equal(out[1], np.arange(run)) and not out[0].any()


def large_rows(build: Callable[..., Any]) -> None:
    """Rows of `map_rows` that lie 2^32 elements apart, a DFT of two numbers that changes nothing."""
    run, apart = 32, (1 << 32) + 64
    groups = {"GROUPS": 1, "ROWS": 2, "DEPTH": 2, "READ_STEP": 1, "WRITE_STEP": 1}
    sizes = {"MAP_TILE": 32, "MAP_THREADS": 32, "MAP_TALL": 8, "IN_ROWS": 2}
    sizes |= {f"{stage}_{name}": value for stage in ("FIRST", "SECOND") for name, value in groups.items()}
    kernel = build("map_rows", "float32", tuple(sizes.items()))
    identity = np.zeros((2, 8), np.float32)
    identity[:, :2] = np.eye(2)
    x, out, null = far(apart + run), far(apart + run), np.uintp(0)
    x[:run], x[apart:] = noise(0, (2, run), "float32")
    numbers = (*map(np.int32, (run, 1, 2, 1, 1)), np.int64(apart), np.int64(apart))
    arguments = x, null, identity, identity, np.zeros(4, np.int32), null, null, null, out, null, *numbers
    kernel((1, 1), (32,), arguments, 4 * 2 * 2 * 32)
    assert np.array_equal(out[:run], x[:run]) and np.array_equal(out[apart:], x[apart:])


def large_parts(build: Callable[..., Any]) -> None:
    """Parts of `correlate` that begin beyond 2^32 elements: what the last block writes."""
    sizes = _cuda.product_sizes("float32", 64)
    blocks, rows, columns = 1 << 20, 64, 65
    kernel = build("correlate", "float32", tuple(sizes.items()))
    positions = blocks * sizes["THREADS"]
    g, x, zeros = np.ones(rows, np.float32), np.ones(columns, np.float32), np.zeros(1 << 27, np.int32)
    parts = far(blocks * columns * rows)
    offsets = np.zeros(columns, np.int32)
    numbers = (*map(np.int32, (rows, columns, positions, 1)), np.int64(0), np.int64(1), np.int64(0))
    arguments = g, x, offsets, zeros, zeros, parts, *numbers
    kernel(
        (blocks, 1, 1), (sizes["THREADS"],), arguments, _cuda.shared_bytes_of_correlate("float32"), (blocks - 1, 0, 0)
    )
    written = parts.reshape(blocks, columns, rows)[-1, :, :32]  # by the first tile
    assert np.array_equal(written, np.full_like(written, sizes["THREADS"]))


def large_sums(build: Callable[..., Any]) -> None:
    """Rows of sums and of what is normalised that begin at 2^32 elements: what the last block makes of the last one."""
    run, positions, rows, threads = 32, 1 << 30, 5, 32
    x, out = far(rows * positions), far(rows * positions)
    values = noise(0, (run,), "float32")
    numbers = tuple(map(np.int32, (rows, positions)))

    def launch(name: str, sizes: dict[str, int], grid: tuple[int, ...], *arguments: Any) -> None:
        first = (*(n - 1 for n in grid), 0)
        build(name, "float32", tuple(sizes.items()))(grid, (threads,), arguments, 0, first)

    norm_sizes, zeros, ones = {"NORM_THREADS": threads, "RHO": 1}, np.zeros(rows, np.float32), np.ones(rows, np.float32)
    x[-positions : run - positions] = values  # the first of the last row
    parts = np.full((rows, 1, 2), np.nan)
    launch("row_sums", norm_sizes, (1, rows), x, parts, numbers[1], np.int32(run))
    assert np.allclose(parts[-1, 0], [wide(values).mean(), run * wide(values).var()], rtol=1e-12)
    x[-run:] = values
    blocks, moments = positions // threads, np.stack([np.zeros(rows), np.ones(rows)])
    arguments = x, np.uintp(0), moments, ones, zeros, np.uintp(0), out, *numbers, np.int32(1), np.int32(1)
    launch("normalize_rows", norm_sizes, (blocks, rows), *arguments, np.float64(0))
    elu = np.where(values > 0, values, np.expm1(np.minimum(values, 0)))
    assert np.abs(out[-run:] - elu).max() <= 4 * eps("float32")
    arguments = *arguments[:5], x, *arguments[6:]  # beside what skips a ReLU
    launch("normalize_rows", norm_sizes | {"RHO": 2}, (blocks, rows), *arguments, np.float64(0))
    assert np.array_equal(out[-run:], np.maximum(2 * values, 0))
    g, null = (x[-positions:], np.zeros(rows, np.int32)), np.uintp(0)
    y, sums = (x, null, moments, ones, zeros), far(6 * blocks * rows).view(np.float64)
    launch("row_sums_back", norm_sizes, (blocks, rows), *g, *y, null, null, sums, *numbers, np.float64(0))
    assert np.allclose(sums[-1], wide(values).sum())
    rest = zeros, zeros, null, out, null, *numbers, np.int32(1), np.float64(1), np.float64(0)
    launch("normalize_rows_back", norm_sizes | {"RHO": 0}, (blocks, rows), *g, zeros, zeros, *y, *rest)
    assert np.array_equal(out[-run:], values)
    out[-run:] = 0
    row = np.uintp(0), np.uintp(0), np.uintp(0), out, numbers[1], np.int32(1), np.int32(1), np.int64(0)
    launch("extend", {"EXTEND": threads}, (blocks, rows), x[-positions:], *row)
    assert np.array_equal(out[-run:], values)
    x[-run:] = 0  # of five terms of 2^30 elements each, the last has values where the first block adds up
    arguments = x, out, *map(np.int32, (1, rows, positions, threads)), np.float64(1)
    build("add_terms", "float32", (("ADDERS", threads),))((1, 1), (threads,), arguments)
    assert np.array_equal(out[:run], values)


def large_patches(build: Callable[..., Any]) -> None:
    """Patches of 2^31 - 8 samples: what the last block makes of the last ones, all others zeros."""
    samples, places, inner, taps, steps, threads = 3, 4, 178_956_970, 3, 5, 128
    sizes = {"TAPS": taps, "STEPS": steps, "OWN": 1, "SAME": 1, "PATCH_THREADS": threads, "PATCH_BLOCKS": 1}
    sizes["PIECE"] = 1
    variant, numbers = tuple(sizes.items()), tuple(map(np.int32, (places, inner, samples)))
    reads, *tables = (a.astype(np.int32) for a in _cuda_patches._spreading((places,), (taps,), (True,)))
    x = far(samples * places * inner)
    last = x.reshape(samples, places, inner)[-1, :, -60:]
    last[...] = noise(0, last.shape, "float32")
    patches = wide(last)[reads]  # (taps, places, 60)

    blocks = -(-x.size // threads)
    kinds = taps * (taps + 3) // 2  # of sums
    sums, centres = far(2 * blocks * kinds).view(np.float64), np.zeros(2, np.float32)
    arguments = x, x, reads, sums, centres, *numbers
    build("gram", "float32", variant)((blocks,), (threads,), arguments, 4 * kinds * threads, (blocks - 1, 0, 0))
    own = patches[:, -1]  # all that this block has, of the last place
    expected = np.array([*(own @ own.T)[np.triu_indices(taps)], *own.sum(axis=1)])
    assert np.abs(sums[-kinds:] - expected).max() <= C * eps("float32") * norm(own) ** 2

    width = 64
    rows = samples * -(-inner // width)
    sizes |= {"TILE": places, "HALO": tables[1].shape[1], "WIDTH": width}
    y, matrix = far(x.size), noise(1, (taps, taps), "float32")
    more = *tables, np.uintp(0), y, *numbers, np.int32(0)
    arguments = x, np.zeros(taps), matrix, np.zeros(taps, np.float32), *more
    shared = 4 * sizes["HALO"] * width
    build("spread", "float32", tuple(sizes.items()))((1, rows), (threads,), arguments, shared, (0, rows - 1, 0))
    shares = np.einsum("ts,spi->tpi", wide(matrix), patches) / x.size
    expected = sum(shares[t, u] for t, u in zip(*np.nonzero(reads == places - 1), strict=True))
    written = inner % width
    assert np.abs(y[-written:] - expected[-written:]).max() <= C * eps("float32") * norm(matrix) * norm(last) / x.size


def limits() -> None:
    """What no kernel can carry out goes another way."""
    from hcnn_core._engines import dispatch
    from hcnn_core._engines.devices import CUPY, Request, _gathered

    def kind(x_shape: tuple[int, ...], w_shape: tuple[int, ...], axes: tuple[int, ...], **options: Any) -> str:
        defaults: dict[str, Any] = {"boundary": "zero", "sum_axes": (), "stride": 1, "method": "direct"}
        problem = make_problem(x_shape, w_shape, axes, **defaults | options)
        request = Request(problem, True, ((), problem.batch_axes), CUPY, current())
        return CUPY.by_axis(problem.method, request).engine.__name__

    assert kind((4, 9), (3,), (1,)) == "CudaPlan"
    assert kind((4, 9), (3,), (1,), boundary="periodic", stride=2) == "SubsampledPlan"
    assert kind((4, 3000), (129,), (1,), method="fft") == "Plan"
    wide: Any = ((8, 32, 32, 96), (96, 3, 3, 96), (1, 2))
    assert kind(*wide, sum_axes=3) == "CudaPlan"
    assert kind(*wide, sum_axes=3, method="fft") == "Plan"  # more shared memory than a block of any card has
    assert kind((9, 5, 1 << 10), (9, 3), (1,), sum_axes=0) == "CudaPlan"
    assert kind((9, 5, 1 << 26), (9, 3), (1,), sum_axes=0) == "Plan"  # offsets beyond 31 bits
    assert kind((1 << 16, 5, 4), (1 << 16, 3), (1,), sum_axes=0) == "Plan"  # too many rows of blocks

    for out, slides in (((1 << 13) - 1, True), (1 << 13, False)):  # eight attributes each: rows of blocks
        problem = make_problem((64, 8), (1, out), (1,), boundary="zero", sum_axes=(), stride=1, method="fft")
        request = Request(problem, True, ((), problem.batch_axes), CUPY, current(), _cuda_plan.LARGEST)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_tensor_plan, "seconds_by_spectra", lambda *_: np.inf)
            patch.setattr(_tensor_plan.Implicit, "fits", lambda *_: True)
            found = CUPY.by_axis(problem.method, request).engine.__name__
            assert found == ("TensorPlan" if slides else "CudaPlan")

    slides: dict[str, Any] = {"sum_axes": (), "method": "fft"}
    for kernels, w_shape, options, elements in (
        (_implicit.Implicit, (3, 3), slides, 24),  # a result of eight attributes by three filters
        (_summed.Summed, (9, 3), {"sum_axes": 0}, 45),
    ):
        for more, fits in ((0, True), (1, False)):
            n = ((1 << 31) - 1) // elements + more
            x_shape = (n, 8) if kernels is _implicit.Implicit else (9, 5, n)
            defaults: dict[str, Any] = {"boundary": "zero", "sum_axes": (), "stride": 1, "method": "direct"}
            problem = make_problem(x_shape, w_shape, (1,), **defaults | options)
            request = Request(problem, True, ((), problem.batch_axes), CUPY, current())
            assert kernels.supports(_gathered(problem.method, request)[0]) == fits  # offsets of 31 bits

    def patches(samples: int) -> str:
        x = np.broadcast_to(np.float32(0), (4, samples))
        return dispatch.engine("patches", x, 0, 3, "zero").make.__name__

    assert patches((1 << 29) - 1) == "CudaPatches"
    assert patches(1 << 29) == "Patches"  # indices beyond 31 bits


def tables(tmp: Path, defect: Callable[[str], str], file: str) -> None:
    """A table is on the device when it can first be read, on whichever stream."""
    finds_nothing(
        tmp,
        defect,
        file,
        """
from hcnn_core.backend import DeviceTables
DeviceTables().beside(cupy.empty(1), "table", lambda: np.arange(100, dtype=np.int32))
print(sorted(driver.busy))
""",
    )


def shared_memory(tmp: Path, defect: Callable[[str], str], file: str) -> None:
    """Kernels of one text share the limit of their function: they ask for much shared memory, for less, and again."""
    finds_nothing(
        tmp,
        defect,
        file,
        """
import hcnn_core
zeros = lambda *shape: cupy.zeros(shape, "f")
for stride, across, out in ((1, 11, 16), (2, 5, 16), (1, 11, 16), (2, 5, 32), (1, 5, 32)):
    x, w = zeros(4, 8, 8, 8, 16), zeros(3, 3, 7, 11, out)
    options = dict(boundary="zero", stride=(stride, stride, 2, 2), method=("direct", "direct", "fft", "fft"))
    with hcnn_core.precision("tf32"):
        y = hcnn_core.convolve(x, w, (1, 2, 3, 4), **options)
        hcnn_core.convolve_vjp_x(y, x, w, (1, 2, 3, 4), **options)
    operands = zeros(32, 3, 3), zeros(32, 1, across, 16), zeros(9), zeros(9, 9), zeros(16)
    hcnn_core.merge_factors(*operands, lengths=(1, 40), stride=1, boundary="zero", epsilon=1.0)
print(driver.refused)
""",
    )


def devices(tmp: Path, defect: Callable[[str], str], file: str) -> None:
    """Two devices, of which the second has less shared memory: layers on each, and a table beside an array."""
    finds_nothing(
        tmp,
        defect,
        file,
        """
from hcnn_core import convolve, convolve_vjp_w, convolve_vjp_x
from hcnn_core.backend import DeviceTables
found = []
for number in (0, 1, 0):
    with cupy.cuda.Device(number):
        for dtype in ("f", "d"):
            x, w = cupy.zeros((4, 8, 8, 8, 16), dtype), cupy.zeros((3, 3, 7, 11, 16), dtype)
            method = "direct", "direct", "fft", "fft"
            options = dict(boundary="zero", stride=(1, 1, 2, 2), method=method)
            like = convolve(x, w, (1, 2, 3, 4), **options)
            for adjoint in (convolve_vjp_x, convolve_vjp_w):
                adjoint(like, x, w, (1, 2, 3, 4), **options)
    tables = DeviceTables()
    with cupy.cuda.Device(1 - number):
        table = tables.beside(like, "table", lambda: np.arange(100, dtype=np.int32))
    found += [] if table.device == like.device else [table.device]
print(driver.refused + found)
""",
        'device="H100,RTX 3090"',
    )


def finds_nothing(tmp: Path, defect: Callable[[str], str], file: str, work: str, settings: str = "") -> None:
    """Lines on a stand-in for the driver, of a copy of the project with the defect, print an empty list."""
    required("cupy")
    folder = copied(tmp, defect, file)
    text = f"""
import os, sys
import numpy as np
from benchmarks.gpu.driverless import without_driver
cupy, driver = without_driver({settings})
{work}
sys.stdout.flush()
os._exit(0)
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", text], cwd=folder, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(folder)},
    )  # fmt: skip
    assert done.stdout == "[]\n", done.stdout + done.stderr


def stand_in(tmp: Path, defect: Callable[[str], str], file: str) -> None:
    """Steps by CuPy on a stand-in for the driver, of a copy of the project with the defect."""
    required("cupy")
    folder = copied(tmp, defect, file)
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "benchmarks.gpu.driverless",
        json.dumps({"preset": "hcnn", "depth": 5}),
    ]
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, "PYTHONPATH": str(folder)}, capture_output=True, text=True
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    found = json.loads(done.stdout)
    assert found["recorded"] and not found["refused"], found
    assert found["launches"][4] == 0


def copied(tmp: Path, defect: Callable[[str], str], file: str) -> Path:
    """A copy of the project with the defect."""
    folder = tmp / "project"
    for package in ("hcnn_core", "autodiff", "wavelets", "train", "benchmarks/gpu"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__", "sample"))
    for module in ("__init__", "step", "machine"):
        shutil.copy(ROOT / "benchmarks" / f"{module}.py", folder / "benchmarks")
    path = folder / file
    path.write_text(defect(path.read_text("utf-8")), "utf-8")
    return folder


@dataclass(frozen=True)
class Defect:
    """Something wrong, where it is, what stands there and what in its place, and the check that notices."""

    what: str
    file: str
    text: str
    planted: str
    check: Callable[..., None]

    def __str__(self) -> str:
        return self.what

    def plant(self, text: str) -> str:
        assert text.count(self.text) >= 1, f"{self.text!r} is not in {self.file}"
        return text.replace(self.text, self.planted, 1)


CUDA = "hcnn_core/_engines/cuda"
PLANTED = tomllib.loads((ROOT / "tests" / "gpu" / "planted.toml").read_text("utf-8"))

DEFECTS = [
    Defect(row["what"], row["file"], row["old"], row["new"], globals()[row["check"]]) for row in PLANTED["defect"]
]


def pairs_of_functions(ours: Any, planted: Any, module: str) -> Iterator[tuple[Any, Any]]:
    """Functions of a module and of its classes, each with that of the same name in another version of it."""
    for name, value in dict(ours).items():
        if isinstance(value, types.FunctionType) and value.__module__ == module:
            yield value, planted[name]
        elif isinstance(value, type) and value.__module__ == module:
            yield from pairs_of_functions(vars(value), vars(planted[name]), module)


def run(check: Callable[..., None], build: Callable[..., Any]) -> None:
    check(build) if check.__code__.co_argcount else check()


LAUNCHING = stand_in, tables, shared_memory, devices
ON_HOST = [defect for defect in DEFECTS if defect.check not in LAUNCHING]


@pytest.mark.parametrize("check", [limits, *dict.fromkeys(d.check for d in ON_HOST)], ids=lambda c: c.__name__)
def test_checks_pass_on_what_there_is(
    kernels_on_host: list[str], check: Callable[..., None], compiled_kernels: Callable[..., Any]
) -> None:
    run(check, compiled_kernels)


@pytest.mark.slow  # all together
@pytest.mark.lot
@pytest.mark.parametrize("defect", ON_HOST, ids=str)
def test_defects_of_kernels_are_noticed(
    kernels_on_host: list[str], defect: Defect, compiled_kernels: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = _cuda._text
    name = Path(defect.file).name
    if name.endswith(".py"):  # what launches kernels, planted where it is loaded
        module = importlib.import_module(defect.file.removesuffix(".py").replace("/", "."))
        planted = dict(vars(module))
        exec(defect.plant((ROOT / defect.file).read_text("utf-8")), planted)
        for one, other in pairs_of_functions(vars(module), planted, module.__name__):
            monkeypatch.setattr(one, "__code__", other.__code__)
    monkeypatch.setattr(_cuda, "_text", lambda asked: defect.plant(text(asked)) if asked == name else text(asked))
    with pytest.raises(AssertionError):  # and no CalledProcessError: the text with the defect compiles
        run(defect.check, compiled_kernels)


def test_every_defect_is_planted_in_one_place() -> None:
    for defect in DEFECTS:
        found = (ROOT / defect.file).read_text("utf-8").count(defect.text)
        assert found == 1, f"{defect}: {defect.text!r} is {found} times in {defect.file}"


@pytest.mark.lot
@pytest.mark.parametrize("defect", [d for d in DEFECTS if d.check in LAUNCHING], ids=str)
def test_defects_of_launches_are_noticed(defect: Defect, tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        defect.check(tmp_path, defect.plant, defect.file)


@pytest.mark.parametrize("check", LAUNCHING)
def test_the_stand_in_refuses_nothing_of_what_there_is(check: Callable[..., None], tmp_path: Path) -> None:
    check(tmp_path, lambda text: text, f"{CUDA}/launch.py")


@pytest.mark.parametrize("kernels", [_implicit, _summed])
def test_offsets_of_more_than_31_bits_are_noticed(
    kernels_on_host: list[str], kernels: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "MOST_OFFSETS", 1 << 32)
    with pytest.raises(AssertionError):
        limits()


@pytest.mark.parametrize("engine", [_cuda_plan.CudaPlan, _cuda_patches])
def test_suits_always_true_is_noticed(kernels_on_host: list[str], engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "supports", lambda *_: True)
    with pytest.raises(Exception):  # noqa: B017 - another plan, or none that can be made
        limits()
