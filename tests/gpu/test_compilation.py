"""Every variant of the CUDA kernels that the networks use compiles, without spilling registers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import pytest

from autodiff import cross_entropy, value_and_grad
from hcnn_core import backend as _backend
from hcnn_core import convolve, convolve_vjp_w, muon_update_all, precision
from hcnn_core._engines.cuda import affine
from hcnn_core._engines.cuda import launch as _cuda
from hcnn_core.updates import Term, weighted_sums
from tests.gpu.host import in_place_of_cupy
from tests.gpu.requirements import missing, required
from train.config import make_config
from train.networks.registry import build

REGISTERS = 168
"""What leaves room for three blocks of `apply` or `correlate` on a multiprocessor."""

SCALARS = 16
"""Bytes of memory that a thread may keep to itself: none of its sums."""

Variant = tuple[str, str, int]
"""A kernel's name, its text, and its bytes of dynamic shared memory."""


@pytest.fixture(scope="module")
def variants() -> Iterator[list[Variant]]:
    """What training steps launch: nothing runs, so the results are whatever memory holds."""
    found: dict[Variant, None] = {}

    def kernel(name: str, dtype: str, sizes: tuple[tuple[str, int], ...], shared: int = 0) -> Any:
        found[name, _cuda.source(dtype, dict(sizes)), shared] = None
        return lambda *arguments, **options: None

    with in_place_of_cupy(kernel), np.errstate(all="ignore"):
        for preset, boundary, dtype, exactness in (
            ("hcnn", "zero", "float32", "float32"),
            ("hcnn", "periodic", "float32", "float32"),
            ("hcnn-plus", "zero", "float32", "float32"),
            ("hcnn-best", "zero", "float32", "float32"),
            ("hcnn", "zero", "float64", "float32"),
            ("hcnn-best", "zero", "float32", "tf32"),
        ):
            network = build(make_config(preset, {"boundary": boundary, "dtype": dtype, "depth": 7}))
            parameters = network.initialize(np.random.default_rng(0))
            x = np.zeros((2, 32, 32, 3), dtype)
            step = value_and_grad(lambda p, network=network, x=x: cross_entropy(network(p, x)[0], np.zeros(2, int)))
            with precision(exactness):
                step(parameters)
        x, w = np.zeros((8, 96, 96, 8), np.float32), np.zeros((8, 3, 3, 64), np.float32)
        with precision("tf32"):  # summed channels, for which the batches above are too small
            y = convolve(x, w, (1, 2), sum_axes=0, boundary="zero", method="direct")
            convolve_vjp_w(y, x, w, (1, 2), sum_axes=0, boundary="zero", method="direct")
        for dtype in ("float32", "float64"):
            found["map_affinely", affine.source(dtype), 0] = None
            weights = [np.zeros((2, 3), dtype)]
            weighted_sums([[Term(weights[0], 1.0)]])
            muon_update_all(weights, weights, weights, rate=0.1, weight_decays=[0.0], row_axes=[None])
        yield list(found)


def test_networks_use_every_kernel(variants: list[Variant]) -> None:
    names = {"apply", "correlate", "covariance_of", "extend", "gram", "map_rows", "multiply", "normalize"}
    names |= {
        "add_terms",
        "implicit",
        "implicit_taps",
        "cross_entropy",
        "map_affinely",
        "merge",
        "merge_back",
        "normalize_back",
        "spread",
        "summed",
        "summed_taps",
        "weigh",
    }
    names |= {"join_parts", "row_sums", "channel_moments", "normalize_rows", "row_sums_back", "channel_sums_back"}
    names |= {"normalize_rows_back", "muon_grams", "muon_polynomials", "muon_moves"}
    assert {name for name, _, _ in variants} == names


@pytest.mark.slow
@pytest.mark.lot
@pytest.mark.parametrize("first", range(3))
def test_every_variant_compiles_without_spills(variants: list[Variant], first: int) -> None:
    for name, text, _ in variants[first::3]:
        registers, kept = resources(name, text)
        # two sums for each, of two numbers; or one block beside which no other is wanted
        roomy = "using real = double;" in text or name.startswith(("implicit", "summed"))
        limit = 255 if roomy else REGISTERS
        assert kept <= SCALARS and registers <= limit, f"{name} uses {registers} registers, {kept} bytes of memory"


def test_spills_are_noticed(variants: list[Variant]) -> None:
    text = next(text for name, text, _ in variants if name == "apply")
    crowded = text.replace("__launch_bounds__(THREADS)", "__launch_bounds__(1024)")
    assert resources("apply", crowded)[1] > SCALARS


@pytest.mark.lot
@pytest.mark.parametrize("architecture", ["sm_75", "sm_80", "sm_86", "sm_89", "sm_100", "sm_120"])
def test_nvrtc_compiles_for_other_architectures(variants: list[Variant], architecture: str) -> None:
    """A variant of each kernel and each way to compute it, but for tensor cores that sm_75 has not.

    Sizes do not matter to an architecture. No text asks which one it is compiled for, so what is written without its
    instructions is compiled for the oldest and the newest alone.
    """
    ways = {re.sub(r"^(#define \w+) \d+$", r"\1", text, flags=re.MULTILINE): text for _, text, _ in variants}
    assert 10 < len(ways) < len({text for _, text, _ in variants})
    of_its_own = [text for text in ways.values() if "asm" in text]
    assert not any("__CUDA_ARCH__" in text for text in ways.values())
    assert of_its_own == [text for text in ways.values() if "#define TENSOR_CORES" in text]
    for text in ways.values() if architecture in ("sm_75", "sm_120") else of_its_own:
        if architecture != "sm_75" or text not in of_its_own:
            assert nvrtc(text, architecture)[0]


def test_nvrtc_refuses_what_is_not_cuda(variants: list[Variant]) -> None:
    with pytest.raises(Exception, match="unheard_of"):
        nvrtc(variants[0][1] + "\n__global__ void f() { unheard_of(); }", "sm_90")


def test_a_kernel_that_cannot_be_compiled_is_named_with_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """By NVRTC itself, which CuPy would ask for the present device."""
    cupy = required("cupy")

    class Module:
        def __init__(self, code: str, options: tuple[str, ...]) -> None:
            self.code = code

        def get_function(self, name: str) -> Any:
            nvrtc(self.code, "sm_90")

    monkeypatch.setattr(cupy, "RawModule", Module)
    text = _cuda.source("float32", {"EXTEND": 1}) + "\n__device__ int f() {\n    return unheard_of;\n}\n"
    with pytest.raises(RuntimeError) as caught:
        _backend.compile_cuda(text, "extend", _cuda.OPTIONS)
    message = str(caught.value)
    assert "\n" not in message and "the CUDA kernel extend cannot be compiled" in message
    assert 'identifier "unheard_of" is undefined' in message and message.endswith("return unheard_of;")


@lru_cache(maxsize=64)  # a text holds several kernels
def nvrtc(text: str, architecture: str) -> tuple[bytes, str]:
    """The binary for an architecture, and the compiler's log; CuPy's public way to NVRTC asks for a device."""
    required("cupy")
    from cupy.cuda import compiler
    from cupy_backends.cuda.libs.nvrtc import getProgramLog

    try:
        program = compiler._NVRTCProgram(text, "kernels.cu")
    except (ImportError, OSError, RuntimeError) as error:
        missing(f"NVRTC: {error}")
    binary, _ = program.compile((f"-arch={architecture}", "--ptxas-options=-v", *_cuda.OPTIONS))
    return binary, getProgramLog(program.ptr)


def resources(name: str, text: str) -> tuple[int, int]:
    """Registers of a kernel, and bytes it keeps in memory for want of them."""
    binary, log = nvrtc(text, "sm_90")
    assert binary
    found = re.search(rf"'{name}'.*?(\d+) bytes stack frame, (\d+) bytes spill.*?Used (\d+) registers", log, re.DOTALL)
    assert found, log
    return int(found[3]), int(found[1]) + int(found[2])
