"""Local support vectors, against their definition by loops."""

from __future__ import annotations

import numpy as np
import pytest

from wavelets import local_support_vectors


def test_equals_its_definition() -> None:
    rng = np.random.default_rng(0)
    x, labels = 100 + rng.standard_normal((30, 2, 2)), rng.integers(0, 3, 30)
    found = local_support_vectors(x, labels, 7)
    for i in range(30):
        by_distance = sorted((np.linalg.norm(x[i] - x[n]), n) for n in range(30) if n != i)
        for k in range(1, 8):
            others = sum(labels[n] != labels[i] for _, n in by_distance[:k])
            assert found[i, k - 1] == (others > k / 2)
    assert found.any() and not found.all()


def test_separate_classes_have_none_and_equal_ones_have_many() -> None:
    rng = np.random.default_rng(1)
    x, labels = rng.standard_normal((200, 3)), np.arange(200) % 2
    assert 0.35 < local_support_vectors(x, labels, 5).mean() < 0.65
    assert not local_support_vectors(x + 10 * labels[:, None], labels, 5).any()


@pytest.mark.parametrize("factor", [1e-200, 1e200])
def test_sizes_do_not_matter(factor: float) -> None:
    x, labels = np.random.default_rng(2).standard_normal((50, 3)), np.arange(50) % 2
    assert np.array_equal(local_support_vectors(factor * x, labels, 5), local_support_vectors(x, labels, 5))


def test_bad_arguments_are_named() -> None:
    x, labels = np.zeros((4, 2)), np.arange(4)
    with pytest.raises(ValueError, match=r"labels \(3,\); expected"):
        local_support_vectors(x, labels[:3], 1)
    for neighbours in (0, 4):
        with pytest.raises(ValueError, match=f"neighbours is {neighbours}; it must be from 1 to 3"):
            local_support_vectors(x, labels, neighbours)
    with pytest.raises(ValueError, match="not finite"):
        local_support_vectors(np.full((4, 2), np.nan), labels, 1)
    with pytest.raises(TypeError, match="x has dtype complex128; give a real array"):
        local_support_vectors(x + 1j, labels, 1)
