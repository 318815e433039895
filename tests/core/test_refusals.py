"""What the functions of numbers refuse: one line that says what was given. New functions add their rows here."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from hcnn_core import (
    adamw_update,
    cross_entropy,
    elu,
    elu_vjp,
    log_softmax,
    marginal,
    marginal_vjp,
    max_pool,
    mean_pool,
    mean_pool_vjp,
    relu_vjp,
    sgd_update_all,
)
from tests.core.test_update_rules import muon_update, sgd_update

C, L = np.ones((2, 3, 4)), np.ones((2, 6))
W, Z = np.ones((2, 3)), np.zeros((2, 3))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: marginal(C.astype(int), 0), TypeError, "x has dtype int64; convert it to one of"),
        (lambda: marginal(C, 3), ValueError, "axes names axis 3 of an array with 3 axes; use -3 to 2"),
        (lambda: marginal(C, 0, reduction="max"), ValueError, "reduction is 'max'; choose 'sum' or 'mean'"),
        (lambda: marginal_vjp(C[0].astype(int), C, 0), TypeError, "g has dtype int64; convert it"),
        (lambda: marginal_vjp(C[0].T, C, 0), ValueError, r"g has shape \(4, 3\); the marginal has \(3, 4\)"),
        (lambda: marginal_vjp(C[0], (2, 3.0, 4), 0), TypeError, "the shape of x holds 3.0; give integers"),
        (lambda: marginal_vjp(C[0], C, 0, reduction="max"), ValueError, "reduction is 'max'; choose"),
        (lambda: elu(W.astype(int)), TypeError, "x has dtype int64; convert it to one of float32, float64"),
        (lambda: elu(W * 1j), TypeError, "x has dtype complex128; this function takes float32 or float64"),
        (lambda: elu(W, 1.0), TypeError, "1 positional argument"),
        (lambda: elu(W, bias=W.astype(bool)), TypeError, "bias has dtype bool; convert it"),
        (lambda: elu(W, bias=W * 1j), TypeError, "bias has dtype complex128; this function takes float32 or float64"),
        (lambda: elu(W, bias=np.ones(2)), ValueError, r"bias has shape \(2,\), which does not broadcast to \(2, 3\)"),
        (lambda: elu_vjp(W.astype(int), W), TypeError, "g has dtype int64; convert it"),
        (lambda: elu_vjp(W, W * 1j), TypeError, "ans has dtype complex128; this function takes"),
        (lambda: relu_vjp(W, W[0]), ValueError, r"g has shape \(2, 3\), which does not broadcast to \(3,\)"),
        (lambda: elu_vjp(W, W[0]), ValueError, r"g has shape \(2, 3\), which does not broadcast to \(3,\)"),
        (lambda: sgd_update(W, Z[0], Z, rate=0.1), ValueError, r"gradient has shape \(3,\); the weight has \(2, 3\)"),
        (lambda: adamw_update(W, Z, Z, Z[:1], rate=0.1, step=1), ValueError, r"square has shape \(1, 3\)"),
        (lambda: sgd_update(W.astype(int), Z, Z, rate=0.1), TypeError, "weight has dtype int64; convert it"),
        (lambda: muon_update(W, Z * 1j, Z, rate=0.1), TypeError, "gradient has dtype complex128; this function takes"),
        (lambda: sgd_update(W, Z, Z, rate=np.ones(1)), ValueError, r"rate has shape \(1,\); give a number"),
        (lambda: adamw_update(W, Z, Z, Z, rate=0.1, step=np.ones(2)), ValueError, r"step has shape \(2,\)"),
        (lambda: adamw_update(W, Z, Z, Z, rate=0.1, step=0), ValueError, "step is 0.0; the first step is 1"),
        (lambda: adamw_update(W, Z, Z, Z, rate=0.1, step=1, betas=(0.9, 1)), ValueError, r"betas is \(0.9, 1\); both"),
        (lambda: muon_update(W, Z, Z, rate=0.1, row_axes=3), ValueError, "row_axes is 3; it must be from 0 to 2"),
        (
            lambda: sgd_update_all([W], [Z], [], rate=0.1, weight_decays=[0.0]),
            ValueError,
            r"weights, gradients, velocities and weight_decays have lengths \(1, 1, 0, 1\); give as many of each",
        ),
        (lambda: log_softmax(Z.astype(int)), TypeError, "x has dtype int64; convert it to one of float32, float64"),
        (lambda: log_softmax(Z * 1j), TypeError, "x has dtype complex128; this function takes float32 or float64"),
        (lambda: log_softmax(np.float64(1)), ValueError, r"x has shape \(\); its last axis holds the classes"),
        (lambda: log_softmax(Z[:, :0]), ValueError, r"x has shape \(2, 0\); its last axis holds the classes"),
        (lambda: cross_entropy(Z * 1j, [0, 1]), TypeError, "logits has dtype complex128; this function takes"),
        (lambda: cross_entropy(Z, [0.0, 1.0]), TypeError, "labels have dtype float64; give integers"),
        (lambda: cross_entropy(Z, np.eye(3, dtype=int)), ValueError, r"logits have shape \(2, 3\), labels \(3, 3\)"),
        (lambda: cross_entropy(Z, [0]), ValueError, r"labels \(1,\); give \(N, classes\) and \(N,\)"),
        (lambda: cross_entropy(Z[:0], np.zeros(0, int)), ValueError, "the mean needs at least one image"),
        (lambda: cross_entropy(Z, [0, 3]), ValueError, "labels hold 3; with 3 classes they are 0 to 2"),
        (lambda: cross_entropy(Z, [0, 1], label_smoothing=1.0), ValueError, r"label_smoothing is 1.0"),
        (lambda: cross_entropy(Z, [0, 1], label_smoothing=math.nan), ValueError, "label_smoothing is nan"),
        (lambda: max_pool(L.astype(int), 1, 2), TypeError, "x has dtype int64; convert it"),
        (lambda: max_pool(L * 1j, 1, 2), TypeError, "x has dtype complex128; this function takes"),
        (lambda: mean_pool(L.astype(int), 1, 2), TypeError, "x has dtype int64; convert it"),
        (lambda: max_pool(L, 2, 2), ValueError, "axes names axis 2 of an array with 2 axes"),
        (lambda: max_pool(L, 1, 0), ValueError, "kernel_size holds 0; give 1 or more"),
        (lambda: max_pool(L, 1, 2, stride=0), ValueError, "stride holds 0; give 1 or more"),
        (lambda: mean_pool(L, 1, 3, padding=-1), ValueError, "padding holds -1; give 0 or more"),
        (lambda: max_pool(L, (0, 1), 3), ValueError, "x has length 2 along axis 0; windows of 3 with padding 0 need 3"),
        (lambda: max_pool(L[:, :0], 1, 2, padding=1), ValueError, "x has length 0 along axis 1; windows of 2 with"),
        (lambda: mean_pool(L, 1, 3, padding=2), ValueError, "padding is 2 along axis 1; windows of 3 take 1 at most"),
        (lambda: mean_pool_vjp(L, L, 1, 2), ValueError, r"g has shape \(2, 6\); the result has \(2, 3\)"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
