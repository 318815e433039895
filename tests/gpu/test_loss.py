"""Cross-entropy and its gradient by one kernel, against what is written out."""

from __future__ import annotations

import numpy as np
import pytest

from autodiff import check_grads, cross_entropy, value_and_grad
from autodiff.primitives import _cross_entropy_written_out
from tests.core.oracle import eps, noise, poisoned_memory, wide

pytestmark = pytest.mark.usefixtures("kernels_on_host")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("images", "classes"), [(1, 1), (7, 10), (600, 3)])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_value_and_gradient(
    kernels_on_host: list[str], images: int, classes: int, smoothing: float, dtype: str
) -> None:
    logits = 5 * noise(0, (images, classes), dtype) + np.asarray(40, dtype)
    labels = np.arange(images, dtype=np.int32) * 7 % classes
    exact, gradient = value_and_grad(lambda x: _cross_entropy_written_out(x, labels, smoothing))(wide(logits))
    with poisoned_memory():
        loss, found = value_and_grad(lambda x: cross_entropy(x, labels, label_smoothing=smoothing) * 2)(logits)
    assert kernels_on_host == ["cross_entropy"]
    assert loss.dtype == found.dtype == dtype
    assert abs(loss - 2 * exact) <= 200 * eps(dtype)
    assert np.abs(found - 2 * gradient).max() <= 200 * eps(dtype) / images


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_out_of_range_makes_the_loss_nan(label: int) -> None:
    loss = cross_entropy(noise(0, (2, 3), "float32"), np.array([0, label]))
    assert np.isnan(loss)


def test_a_class_that_is_masked_costs_nothing_where_it_is_not_the_label() -> None:
    logits = np.array([[0, -np.inf]], "float32")
    assert value_and_grad(lambda x: cross_entropy(x, np.array([0])))(logits)[0] == 0
    assert value_and_grad(lambda x: cross_entropy(x, np.array([1])))(logits)[0] == np.inf


def test_derivatives_of_every_order() -> None:
    logits, labels = noise(0, (4, 3), "float64"), np.array([0, 2, 1, 1])
    check_grads(lambda x: cross_entropy(x, labels, label_smoothing=0.1), order=2)(logits)
