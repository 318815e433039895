"""Instructions counted in machine code: loops, what they hold, and how often they are passed."""

from __future__ import annotations

import pytest

from benchmarks.gpu.driverless import Launch
from tests.gpu.requirements import required

required("cupy")
instructions = pytest.importorskip("benchmarks.gpu.instructions")

LISTING = """
        /*0000*/                   MOV R1, c[0x0][0x28] ;
.L_x_2:
        /*0010*/                   LDG.E R2, desc[UR4][R2.64] ;
        /*0020*/              @!P0 BRA `(.L_x_1) ;
        /*0030*/                   HMMA.1688.F32.TF32 R4, R8, R2, R4 ;
        /*0040*/                   HMMA.1688.F32.TF32 R4, R8, R2, R4 ;
.L_x_1:
        /*0050*/                   LDGSTS.E [R2], desc[UR4][R6.64] ;
        /*0060*/               @P0 BRA `(.L_x_1) ;
        /*0070*/               @P1 BRA `(.L_x_2) ;
        /*0080*/                   STG.E desc[UR4][R2.64], R5 ;
        /*0090*/                   EXIT ;
.L_x_3:
        /*00a0*/                   BRA `(.L_x_3) ;
        /*00b0*/                   NOP ;
"""


def test_a_pass_counts_branches_by_tiles_and_inner_loops_by_copies() -> None:
    code = instructions.code_of(LISTING)
    assert [code.blocks[first][0].split()[0] for first, _ in code.loops] == ["LDG.E", "LDGSTS.E"]  # not what ends it
    assert (code.count("HMMA"), code.count("LDG")) == (2, 2)
    passes = instructions.Passes(count=3, mma=2, met=1, copies=5)
    # two instructions once, two mma where one of two tiles is met, an inner loop of two, five times, and a branch
    assert instructions.pass_instructions(code, passes) == 2 + 2 / 2 + 5 * 2 + 1


def test_tiles_that_results_meet() -> None:
    axis = {"SAMPLES_1": 16, "RESULTS_1": 8, "TAPS_1": 11, "STEP_1": 2, "WRAP_1": 0}
    assert sum(map(len, instructions.met(axis, 1, 1))) == 6 + 8 + 10 + 11 + 11 + 11 + 9 + 7
    assert [len(tiles) for tiles in instructions.met(axis, 1, 8)] == [1, 1, 2, 2, 2, 2, 2, 1]
    assert sum(map(len, instructions.met({**axis, "WRAP_1": 1}, 1, 1))) == 8 * 11


def test_passes_of_a_launch_do_all_its_products() -> None:
    """Where every tile meets taps, mma of all warps are those of whole tiles."""
    sizes = {"SUMMED": 64, "BACK": 0, "TILES": 2, "PLACES": 16, "EXT": 36, "ALL_TAPS": 9}
    sizes |= {"CHANNELS": 20, "RESULTS": 32, "PIECE": 4, "W_PIECE": 4}
    text = "\n".join(f"#define {name} {value}" for name, value in sizes.items())
    passes = instructions.passes_of(Launch("summed", text, (10, 1, 1), 64, 0, {}))
    made = passes.count * passes.met * 2 * instructions.MMA  # of a block's two warps
    assert made == 9 * 24 * 32 * 16 * 8  # taps, channels in eights, rows, places, elements
