"""Organised matrices: hidden orders are found, whatever order a matrix comes in, and noise has none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from wavelets import organize
from wavelets.organization import _over_folders


def steps(rows: int, columns: int) -> Any:
    """A matrix that is smooth in its own order."""
    return np.tanh(6 * (np.linspace(0, 1, rows)[:, None] - np.linspace(0, 1, columns)))


@pytest.mark.parametrize("shape", [(32, 64), (17, 30), (2, 5)])
def test_hidden_orders_are_found(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    rows, columns = (rng.permutation(n) for n in shape)
    noisy = steps(*shape)[rows][:, columns] + 0.05 * rng.standard_normal(shape)
    for hidden, found in zip((rows, columns), organize(noisy), strict=True):
        assert sorted(found) == list(range(len(found)))
        assert abs(spearmanr(hidden[found], np.arange(len(found)))[0]) > 0.97


def test_another_order_of_the_matrix_gives_the_same_but_for_reversals() -> None:
    rng = np.random.default_rng(1)
    matrix = steps(16, 32) + 0.1 * rng.standard_normal((16, 32))
    rows, columns = rng.permutation(16), rng.permutation(32)
    for hidden, one, other in zip((rows, columns), organize(matrix), organize(matrix[rows][:, columns]), strict=True):
        assert np.array_equal(one, hidden[other]) or np.array_equal(one, hidden[other][::-1])


def test_distances_are_means_over_folders_of_all_levels() -> None:
    """Against the definition, folders of 1, 2, 4 and 7 columns written out."""
    rng = np.random.default_rng(2)
    one, other = rng.standard_normal((2, 7))
    folders = [[range(7)], [range(4), range(4, 7)], [range(2), range(2, 4), range(4, 6), range(6, 7)]]
    folders.append([range(i, i + 1) for i in range(7)])
    wanted = sum(np.mean([(one[list(f)].mean() - other[list(f)].mean()) ** 2 for f in level]) for level in folders)
    found = _over_folders(np.stack([one, other]))
    assert np.sum((found[0] - found[1]) ** 2) == pytest.approx(wanted, rel=1e-12)


def test_binary_answers_are_organised() -> None:
    rng = np.random.default_rng(2)
    rows, columns = rng.permutation(64), rng.permutation(64)
    answers = (rng.random((64, 64)) < 0.5 + 0.4 * steps(64, 64))[rows][:, columns]
    for hidden, found in zip((rows, columns), organize(answers), strict=True):
        assert abs(spearmanr(hidden[found], np.arange(64))[0]) > 0.9


@pytest.mark.parametrize(("factor", "offset"), [(1, 1e8), (1e-200, 0), (1e200, 0)])
def test_offsets_and_sizes_do_not_matter(factor: float, offset: float) -> None:
    matrix = np.sin(np.outer(np.arange(8), np.arange(8)) / 5)
    for one, other in zip(organize(matrix), organize(factor * matrix + offset), strict=True):
        assert np.array_equal(one, other)


def test_bad_arguments_are_named() -> None:
    for bad in (np.zeros(4), np.zeros((1, 4)), np.full((3, 3), np.nan), np.zeros((3, 3), complex)):
        with pytest.raises(ValueError, match="give a finite real one with 2 rows and columns"):
            organize(bad)
    with pytest.raises(ValueError, match="passes is 0; it must be at least 1"):
        organize(np.eye(4), passes=0)
    assert sorted(organize(np.zeros((5, 4)))[0]) == [0, 1, 2, 3, 4]
