"""All ways of `benchmarks.frameworks` compute the same, and a wrong one is noticed before it is timed."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.frameworks import CASES, WAYS, Operands, lines, require_ours

NEEDS = {"arrays": "numpy", "lax": "jax", "hcnn_core.jax": "jax"}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("way", WAYS)
def test_every_way_computes_the_same(way: str, case: Any) -> None:
    pytest.importorskip(NEEDS.get(way, "torch"))
    operands = Operands(case.small())
    require_ours(operands, WAYS[way](operands)())


def test_a_wrong_way_is_refused() -> None:
    operands = Operands(CASES[0].small())
    y, of_x, of_w = WAYS["arrays"](operands)()
    with pytest.raises(SystemExit, match="a result is off by"):
        require_ours(operands, (y, of_x, of_w[:, :, ::-1]))


def test_the_table_says_what_was_skipped() -> None:
    ways = {"module": {"ms": 2.0, "mib": 0.0}, "lax": {"ms": 5.0, "mib": 3.0}, "unfold and matmul": {"skipped": "no"}}
    table = lines([{"case": "fMRI", "ways": ways}])
    assert table[2:] == [
        "| fMRI | module | 2.0 | 1.00x | 0 | nanx |",
        "| fMRI | lax | 5.0 | 2.50x | 3 | nanx |",
        "| fMRI | unfold and matmul | - | - | - | no |",
    ]
