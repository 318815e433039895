"""How many blocks of a kernel a multiprocessor holds beside each other, from the kernel's binary.

NVRTC compiles without a GPU. The binary is an ELF file: its section `.nv.info` has the registers of a kernel's threads,
its section `.nv.shared.NAME` is as large as the shared memory that the kernel declares, with what the driver takes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from hcnn_core._engines.cuda.tensor_plan import BANDWIDTH, MULTIPLY_ADDS

LANES, SCHEDULERS, RESERVED = 32, 4, 1 << 10
"""Threads of a warp; schedulers of a multiprocessor; bytes of shared memory that are taken of it a block."""

REGISTERS = 65_536
"""Of a multiprocessor; they belong to its schedulers."""


@dataclass(frozen=True)
class Device:
    """What a device has: of limits, those that the stand-in `limits` has; the rest from data sheets or measured."""

    name: str
    architecture: str
    limits: str
    multiprocessors: int
    clock: float
    bandwidth: float
    multiply_adds: float
    shared: int
    threads: int
    blocks: int


DEVICES = (
    Device("A100", "sm_80", "A100", 108, 1.41e9, 2.0e12, 7.8e13, 164 << 10, 2048, 32),
    Device("H200", "sm_90", "H100", 132, 1.755e9, BANDWIDTH, MULTIPLY_ADDS, 228 << 10, 2048, 32),
    Device("RTX 5090", "sm_120", "RTX 5090", 170, 2.407e9, 1.79e12, 5.24e13, 100 << 10, 1536, 24),
)

REGISTER_COUNT, WITH_VALUES = 0x2F, 4
"""Numbers of an attribute and of a format in `.nv.info`."""


@lru_cache(maxsize=512)
def resources(text: str, name: str) -> tuple[int, int]:
    """Registers of a thread, and bytes of shared memory that a block takes beside what its launch asks for."""
    from cupy.cuda import compiler

    from hcnn_core._engines.cuda.launch import OPTIONS

    program = compiler._NVRTCProgram(text, "kernels.cu", method="cubin")
    binary: bytes = program.compile(("-arch=sm_90", *OPTIONS))[0]
    parts = sections(binary)
    symbols, names = parts[".symtab"], parts[".strtab"]
    registers = 0
    for attribute, values in _attributes(parts[".nv.info"]):
        if attribute == REGISTER_COUNT:
            symbol, count = struct.unpack("<II", values)
            (label,) = struct.unpack_from("<I", symbols, 24 * symbol)
            registers = count if _string(names, label) == name else registers
    assert registers, f"the binary tells no registers of {name}"
    return registers, max(RESERVED, len(parts.get(f".nv.shared.{name}", b"")))


def sections(binary: bytes) -> dict[str, bytes]:
    (begin,), (count, index) = struct.unpack_from("<Q", binary, 0x28), struct.unpack_from("<HH", binary, 0x3C)
    heads = [struct.unpack_from("<IIQQQQ", binary, begin + 64 * i) for i in range(count)]
    names = binary[heads[index][4] :]
    # a section that holds nothing yet, such as shared memory, is no part of the file
    return {_string(names, h[0]): binary[h[4] : h[4] + h[5]] if h[1] != 8 else bytes(h[5]) for h in heads}


def _attributes(info: bytes) -> Iterable[tuple[int, bytes]]:
    at = 0
    while at < len(info):
        kind, attribute, size = struct.unpack_from("<BBH", info, at)
        size = size if kind == WITH_VALUES else 0
        yield attribute, info[at + 4 : at + 4 + size]
        at += 4 + size


def _string(names: bytes, at: int) -> str:
    return names[at : names.index(b"\0", at)].decode()


def blocks_beside(threads: int, registers: int, shared: int, device: Device = DEVICES[1]) -> int:
    """Blocks on a multiprocessor: registers are given to warps in units of 256, shared memory in units of 128 bytes."""
    of_warp = -(-registers * LANES // 256) * 256
    warps = REGISTERS // SCHEDULERS // of_warp * SCHEDULERS
    by_memory = device.shared // (-(-shared // 128) * 128)
    return min(warps // -(-threads // LANES), by_memory, device.threads // threads, device.blocks)
