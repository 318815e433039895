"""Sums over axes by the kernel, against NumPy in double precision."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hcnn_core import convolve_elu_marginal, marginal
from hcnn_core._engines.cuda import sums
from hcnn_core._tuning import tuned
from hcnn_core.loss import count_right
from tests.core.oracle import eps, noise, poisoned_memory, wide

pytestmark = pytest.mark.usefixtures("kernels_on_host")

few = settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])


@st.composite
def arrays(draw: st.DrawFn) -> tuple[Any, tuple[int, ...]]:
    """An array whose axes lie in any order in memory, some of stride 0, and axes to add up."""
    shape = draw(
        st.lists(st.sampled_from([1, 2, 3, 5, 40, 300]), min_size=1, max_size=5).filter(
            lambda s: math.prod(s) < 1 << 16
        )
    )
    dtype = draw(st.sampled_from(["float32", "float64"]))
    order = draw(st.permutations(range(len(shape))))
    alone = [1 if draw(st.integers(0, 5)) == 0 else n for n in shape]
    x = noise(draw(st.integers(0, 99)), tuple(alone[a] for a in order), dtype).transpose(np.argsort(order))
    axes = draw(st.lists(st.integers(0, len(shape) - 1), min_size=1, unique=True))
    return np.broadcast_to(x, shape), tuple(axes)


@few
@given(arrays(), st.sampled_from(["sum", "mean"]), st.sampled_from([1, 1024]), st.sampled_from([32, 256]))
def test_sums_are_numpys(
    kernels_on_host: list[str], given: tuple[Any, tuple[int, ...]], reduction: Any, blocks: int, threads: int
) -> None:
    x, axes = given
    kernels_on_host.clear()
    with tuned(device_blocks=blocks, device_threads=threads), poisoned_memory():
        found = marginal(x, axes, reduction=reduction)
    exact, sizes = (getattr(np, reduction)(a.astype(np.longdouble), axis=axes) for a in (x, np.abs(x)))
    assert found.dtype == x.dtype and found.shape == exact.shape
    assert np.all(np.abs(found - exact) <= 4 * eps(x.dtype.name) * sizes)
    assert set(kernels_on_host) == ({"add_terms"} if any(x.shape[a] > 1 for a in axes) else set())


def test_results_lie_in_the_memory_order_of_what_is_added() -> None:
    x = noise(0, (5, 4, 3, 2), "float32").transpose(3, 1, 0, 2)
    assert np.array_equal(np.argsort(marginal(x, 1).strides), np.argsort([x.strides[a] for a in (0, 2, 3)]))


def test_long_sums_are_exact_to_rounding() -> None:
    """A million times a number that float32 cannot hold: added up in float32, digits would be lost."""
    x = np.full(1 << 20, np.float32(0.1))
    assert marginal(x, 0) == np.float32(np.float64(np.float32(0.1)) * x.size)


def test_repeated_elements_are_read_once(kernels_on_host: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.broadcast_to(noise(0, (4, 1, 50), "float32"), (4, 300, 50))
    taken: list[int] = []
    add = sums.add_terms
    monkeypatch.setattr(sums, "add_terms", lambda xp, x, *of: taken.append(x.size) or add(xp, x, *of))
    assert np.array_equal(marginal(x, 1), 300 * x[:, 0])
    assert taken == [200]


def test_other_arrays_go_another_way(kernels_on_host: list[str]) -> None:
    assert np.array_equal(marginal(np.ones((2, 3), np.complex64), 1), [3, 3])
    assert marginal(np.ones((2, 0), np.float32), 1).shape == (2,)
    assert not kernels_on_host


def test_a_marginal_that_no_map_makes_is_one_kernel(kernels_on_host: list[str]) -> None:
    x, w, b = (noise(i, s, "float32") for i, s in enumerate([(4, 6, 5, 3), (3, 3, 2), (2,)]))
    y, total = convolve_elu_marginal(x, w, b, (1, 2), 2, boundary="zero", method="direct")
    assert kernels_on_host[-1] == "add_terms" and np.abs(total - wide(y).sum(axis=2)).max() <= 8 * eps("float32")


@pytest.mark.parametrize("images", [1, 700])
def test_how_many_are_right(images: int) -> None:
    logits = noise(0, (images, 4), "float32").round()  # with ties, of which the first counts
    logits[::5, 2] = np.nan
    labels = np.arange(images, dtype=np.int32) % 4
    with poisoned_memory():
        assert int(count_right(logits, labels)) == (logits.argmax(axis=1) == labels).sum()
