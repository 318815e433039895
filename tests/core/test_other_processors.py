"""Processors without AVX-512: the width of vectors that Numba's settings choose, and code for 64-bit Arm.

``make narrow`` runs the tests of convolution at 256 bits.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba")

import llvmlite.binding as llvm
import numba
from numba import types

from hcnn_core._engines.cpu.kernels import gemm
from hcnn_core._engines.cpu.kernels.operands import Factors
from hcnn_core._engines.cpu.kernels.vectors import vector_bytes

AVX512, AVX2 = ({"avx": True, "avx2": True, "avx512f": wide} for wide in (True, False))


@pytest.mark.parametrize(
    ("host", "name", "features", "width"),
    [
        (AVX512, None, None, 64),
        (AVX2, None, None, 32),
        ({"avx": True, "avx2": False}, None, None, 16),
        ({"neon": True}, None, None, 16),  # 64-bit Arm
        ({}, None, None, 16),  # where LLVM does not know the processor
        (AVX512, None, "-avx512f", 32),
        (AVX512, None, "-avx2,+fma", 16),
        (AVX512, None, "-avx", 16),
        (AVX2, None, "-avx512f", 32),
        (AVX512, "haswell", None, 64),  # Numba then adds all that this processor has
        (AVX512, "haswell", "+avx2,+fma", 32),
        (AVX512, "generic", "", 16),
        (AVX2, "sapphirerapids", "+avx512f", 64),
    ],
)
def test_the_width_of_vectors(host: dict[str, bool], name: str | None, features: str | None, width: int) -> None:
    assert vector_bytes(host, name, features) == width


def loops(assembly: str) -> list[list[str]]:
    """The instructions of each basic block that jumps back to its own beginning."""
    blocks = re.split(r"^(\.?\w+):.*$", assembly, flags=re.MULTILINE)[1:]
    bodies = zip(blocks[::2], blocks[1::2], strict=True)
    return [
        [line.strip() for line in body.splitlines() if line.startswith("\t") and not line.startswith("\t.")]
        for label, body in bodies
        if re.search(rf"^\tb\S+\t.*{re.escape(label)}$", body, flags=re.MULTILINE)
    ]


@pytest.mark.parametrize(("rows", "vectors", "spills"), [(8, 3, False), (8, 6, True)])
def test_on_64_bit_arm_a_tile_stays_in_registers(
    rows: int, vectors: int, spills: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its code, compiled for Arm: a multiply-add of four numbers for each sum, and no sum in memory.

    A tile of twice as many sums than registers is the negative control.
    """
    monkeypatch.setattr(gemm, "VECTOR_BYTES", 16)  # one of Arm's vectors
    how = gemm.SET

    @numba.njit(_nrt=False)  # type: ignore[untyped-decorator]
    def tile(out: int, out_stride: int, x: int, factors: Factors) -> None:
        gemm.gemm_tile(how, rows, vectors, out, out_stride, x, factors)

    like = numba.typeof(Factors(np.empty((1, 1), np.float32), 0, 0, 0, 0, 0))
    tile.compile((types.int64, types.int64, types.int64, like))
    (ir,) = tile.inspect_llvm().values()
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    machine = llvm.Target.from_triple("aarch64-unknown-linux-gnu").create_target_machine(cpu="neoverse-n1", opt=3)
    ir = re.sub(r'^target (triple|datalayout) = ".*"$', "", ir, flags=re.MULTILINE)
    ir = re.sub(r'"target-(cpu|features)"="[^"]*"', "", ir)
    module: Any = llvm.parse_assembly(ir)
    module.triple, module.data_layout = machine.triple, str(machine.target_data)
    found = [body for body in loops(machine.emit_assembly(module)) if any("fmla" in line for line in body)]
    (body,) = found
    assert sum(line.startswith("fmla") and ".4s" in line for line in body) == rows * vectors
    assert any(re.search(r"\[sp\b", line) for line in body) == spills
