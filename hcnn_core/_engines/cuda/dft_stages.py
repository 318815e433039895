"""DFTs by matrices as two stages. A stage multiplies several groups of evenly spaced rows by one matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hcnn_core._engines.generic.dft import MatrixDFT
from hcnn_core._engines.taps import Integers
from hcnn_core.backend import Array


@dataclass(frozen=True)
class Stage:
    """One matrix for several groups of rows: the first row that each group reads and writes, and the row steps."""

    matrix: Array
    reads: Integers
    read_step: int
    writes: Integers
    write_step: int

    def transposed(self) -> Stage:
        return Stage(self.matrix.T, self.writes, self.write_step, self.reads, self.read_step)


def stages_of(transform: MatrixDFT, dtype: Any) -> tuple[tuple[Stage, Stage, int], ...]:
    """Analysis, its transpose, synthesis and its transpose: two stages each, and the number of rows between them."""
    d = transform
    across, along, back1, back2 = d.matrices(np.empty(0, dtype))[:4]
    p, n1, n2, o1, o2, fold = d.planes, d.n1, d.last.n, d.o1, d.last.kept, d.last.fold
    entries, rows1, rows2 = d.kept, along.shape[0], across.shape[0]
    groups = np.arange(entries * fold)
    analysis = (
        Stage(across, np.arange(n1) * n2, 1, np.arange(n1), n1),
        Stage(along, groups * p * n1, 1, groups // fold * rows1 * fold + groups % fold, fold),
        rows2 * n1,
    )
    synthesis = (
        Stage(back1, np.arange(entries) * back1.shape[1], 1, np.arange(entries) * p * o1, 1),
        Stage(back2, np.arange(o1), o1, np.arange(o1) * o2, 1),
        entries * p * o1,
    )
    return analysis, _transposed(*analysis), synthesis, _transposed(*synthesis)


def _transposed(first: Stage, second: Stage, rows_between: int) -> tuple[Stage, Stage, int]:
    return second.transposed(), first.transposed(), rows_between
