"""What the functions of numbers refuse: one line that says what was given. New functions add their rows here."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import array_api_strict
import numpy as np
import pytest

from hcnn_core import (
    adamw_update,
    batch_normalize,
    batch_normalize_vjp,
    convolve,
    convolve_elu,
    convolve_vjp_w,
    convolve_vjp_x,
    cross_entropy,
    elu,
    elu_vjp,
    linear_operator,
    log_softmax,
    marginal,
    marginal_vjp,
    max_pool,
    mean_pool,
    mean_pool_vjp,
    merge_factors,
    normalize_elu,
    normalize_elu_marginal,
    normalize_elu_vjp,
    patch_moments,
    patch_moments_vjp,
    precision,
    relu_vjp,
    sgd_update_all,
    translate,
)
from hcnn_core.testing import (
    arrays,
    assert_adjoint,
    assert_linear,
    assert_translation_invariant,
    check_translation_covariant,
    rounding_bound,
    shifts,
)
from tests.core.test_update_rules import muon_update, sgd_update

C, L = np.ones((2, 3, 4)), np.ones((2, 6))
W, Z, B = np.ones((2, 3)), np.zeros((2, 3)), np.ones((4, 6))

Y, K, X, F, Q = np.ones((2, 3, 4)), np.ones(4), np.ones((4, 5, 6)), np.ones((3, 3)), np.ones((3, 5, 4))
NINE, ALONE = (np.ones(9), np.ones((9, 9))), "every translation is the identity, so that nothing can be tested"
ZERO: dict[str, Any] = {"boundary": "zero"}


def raising(x: Any) -> Any:
    raise KeyError("no such\n   thing")


CONVOLUTIONS: list[tuple[Callable[[], Any], type[Exception], str]] = [
    *(
        (call, error, f"the shape of {name} {message}")
        for shape, error, message in (
            ([4.0, 5.0, 6.0], TypeError, "holds 4.0; give integers"),
            ((4, 5, -6), ValueError, "holds -6; give 0 or more"),
            (None, TypeError, "is None; give an integer, or one per axis"),
        )
        for name, call in (
            ("x", lambda shape=shape: convolve_vjp_x(X, shape, F, (0, 1), **ZERO)),
            ("w", lambda shape=shape: convolve_vjp_w(X, X, shape, (0, 1), **ZERO)),
        )
    ),
    *(
        (lambda f=f, g=g: f(g, X, F, (0, 1), **ZERO), ValueError, r"the result of this convolution has \(4, 5, 6\)")
        for g in map(np.ones, [(4, 5), (4, 5, 6, 1), (1, 5, 6), (4, 6, 5), ()])
        for f in (convolve_vjp_x, convolve_vjp_w)
    ),
    (
        lambda: convolve(np.ones((1,) * 7), np.ones((1,) * 7), range(7), **ZERO),
        ValueError,
        "axes names 7 axes; b",
    ),
    (lambda: convolve_vjp_x(K.astype(object), (4,), K, 0, **ZERO), TypeError, "g has dtype object; convert it"),
    (lambda: convolve_vjp_x(K, (4,), K.astype("U1"), 0, **ZERO), TypeError, "w has dtype <U1; convert it"),
    (lambda: convolve_vjp_w(K.astype("f2"), K, (3,), 0, **ZERO), TypeError, "g has dtype float16; convert it"),
    (lambda: convolve_vjp_w(K, K.astype(object), (3,), 0, **ZERO), TypeError, "x has dtype object; convert it"),
    (lambda: convolve_elu(K * 1j, K, np.ones(()), 0, **ZERO), TypeError, "x has dtype complex128; this function takes"),
    (lambda: convolve_elu(K, K, np.ones(()) * 1j, 0, **ZERO), TypeError, "bias has dtype complex128; this function"),
    (
        lambda: convolve_elu(K, F, K, 0, **ZERO),
        ValueError,
        r"bias has shape \(4,\), which does not broadcast to",
    ),
    (lambda: linear_operator(K.astype("f2"), (4,), 0, **ZERO), TypeError, "w has dtype float16; convert it to one of"),
    (lambda: linear_operator(K, (4, -1), 0, **ZERO), ValueError, "the shape of x holds -1; give 0 or more"),
    (lambda: linear_operator(K, 2.5, 0, **ZERO), TypeError, "the shape of x is 2.5; give an integer, or one per axis"),  # type: ignore[arg-type]
    (lambda: linear_operator(np.ones(()), (4,), 0, **ZERO), ValueError, "it needs 0 summed and 1 convolved axes"),
    (lambda: linear_operator(array_api_strict.ones(3), (4,), 0, **ZERO), TypeError, "is an array of array_api_strict"),
    (lambda: translate(F, 1, 2, **ZERO), ValueError, "axes names axis 2 of an array with 2 axes; use -2 to 1"),
    (
        lambda: translate(F, (1, 2, 3), (0, 1), **ZERO),
        ValueError,
        "shift has 3 entries for 2 axes; give one, or one",
    ),
    (lambda: translate(F, 1, 0, boundary="odd"), ValueError, "boundary is 'odd'; choose 'periodic' or 'zero' or 'refl"),  # type: ignore[arg-type]
    (lambda: translate(F, 1.5, 0, **ZERO), TypeError, "shift is 1.5; give an integer, or one per axis"),  # type: ignore[arg-type]
    (lambda: translate(F, True, 0, **ZERO), TypeError, "shift is True; give an integer"),
    *(
        (lambda g=g: patch_moments_vjp(*map(np.ones, g), Q, (1, 2), 3, **ZERO), ValueError, r"have \(9,\) and \(9, 9\)")
        for g in (((), (9, 9)), ((9,), (1, 9)), ((9,), (9,)), ((1, 9), (9, 9)))
    ),
    (lambda: patch_moments_vjp(NINE[1][0].astype(int), NINE[1], Q, (1, 2), 3, **ZERO), TypeError, "g_mean has dtype"),
    (lambda: patch_moments_vjp(NINE[0], NINE[1] * 1j, Q, (1, 2), 3, **ZERO), TypeError, "g_covariance has dtype"),
    *(
        (call, ValueError, f"boundary is {boundary!r}; choose 'periodic' or 'zero'")
        for boundary in ("reflect", "nearest", "mirror")
        for call in (
            lambda b=boundary: patch_moments(F, 0, 3, boundary=b),
            lambda b=boundary: merge_factors(
                F[:2], Y[..., :1], F[0], F, K[:1], lengths=4, stride=1, boundary=b, epsilon=0.1
            ),
        )
    ),
    (lambda: precision("half").__enter__(), ValueError, "precision is 'half'; choose 'float32' or 'tf32'"),
    (lambda: precision("tf32x3").__enter__(), ValueError, r"is 'tf32x3' \(three .* than 'float32'\); choose 'float32'"),
]

NORMALIZATIONS: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: normalize_elu_marginal(Y, K, K, K, 2, epsilon=1.0), ValueError, "take another"),
    *(
        (call, error, message)
        for given, epsilon, error, message in (
            ((np.ones((0, 4)), K, K), 1.0, ValueError, r"y has shape \(0, 4\); mean and variance need an element"),
            ((np.ones(()), K, K), 1.0, ValueError, r"y has shape \(\)"),
            ((Y, np.ones(3), K), 1.0, ValueError, r"scale has shape \(3,\); y, of shape \(2, 3, 4\), wants \(4,\)"),
            ((Y, K, np.ones(())), 1.0, ValueError, r"bias has shape \(\)"),
            ((Y, K, K), -1.0, ValueError, "epsilon is -1.0; it must be finite and at least 0"),
            ((Y, K, K), float("nan"), ValueError, "epsilon is nan"),
            ((Y.astype(int), K, K), 1.0, TypeError, "y has dtype int64"),
            ((Y, K * 1j, K), 1.0, TypeError, "scale has dtype complex128"),
        )
        for call in (
            lambda given=given, e=epsilon: normalize_elu(given[0], K, *given[1:], epsilon=e),
            lambda given=given, e=epsilon: batch_normalize(*given, epsilon=e),
        )
    ),
    (lambda: normalize_elu(Y, Y[0, :2], K, K, epsilon=1.0), ValueError, r"shift has shape \(2, 4\), which does not"),
    (lambda: normalize_elu(Y, Y[None], K, K, epsilon=1.0), ValueError, r"shift has shape \(1, 2, 3, 4\)"),
    *(
        (call, ValueError, r"g has shape \(4,\); the result has \(2, 3, 4\)")
        for call in (
            lambda: normalize_elu_vjp(K, K, K, Y, K, K, K, Y[0, :2], epsilon=1.0),
            lambda: batch_normalize_vjp(K, K, K, Y, K, K, Y[0, :2], epsilon=1.0),
        )
    ),
    *(
        (lambda c=c: normalize_elu_vjp(Y, *c[:2], Y, K, K, K, c[2], epsilon=c[3]), ValueError, message)
        for c, message in (
            ((F[:2, :1], K, Y[0, :2], 1.0), r"g_mean has shape \(2, 1\); y, of shape \(2, 3, 4\), wants \(4,\)"),
            ((K, K[:1], Y[0, :2], 1.0), r"g_variance has shape \(1,\)"),
            ((K, K, F[:2, :1], 1.0), r"moments has shape \(2, 1\); y, of shape \(2, 3, 4\), wants \(2, 4\)"),
            ((K, K, Y[0, :2], -1.0), "epsilon is -1.0; it must be finite and at least 0"),
        )
    ),
]

ASSERTIONS: list[tuple[Callable[[], Any], type[Exception], str]] = [
    *(
        (lambda given=given, options=options: assert_translation_invariant(*given, **options), ValueError, message)
        for given, options, message in (
            ((np.sum, B, 2), {}, "^axes names axis 2 of an array with 2 axes; use -2 to 1"),
            ((np.sum, B, 0, 4), {}, r"axes \(0,\) have \(4,\) samples at stride \(4,\): " + ALONE),
            ((np.sum, B, 0, 4, "zero"), {}, r"axes \(0,\) have \(4,\) samples at stride \(4,\): " + ALONE),
            ((np.sum, B, 0, 2), {"shift": 1}, "shift 1 along axis 0 is no multiple of stride 2"),
            ((lambda x: x[:0], B, 0), {}, r"op\(x\) has shape \(0, 6\); with no element there is nothing"),
        )
    ),
    *(
        (lambda given=given, options=options: check_translation_covariant(np.copy, *given, **options), error, message)
        for given, options, error, message in (
            (((4, 1), 1), {}, ValueError, r"axes \(1,\) have \(1,\) samples at stride \(1,\): every translation is"),
            ((4, 0), {"stride": 3}, ValueError, "stride 3 does not divide the 4 samples of axis 0"),
            ((2, 0), ZERO, ValueError, "axis 0 has 2 samples; zeros at both ends and stride 1 need at least 3"),
            (((4, 0), 0), {}, ValueError, "shape holds 0; give 1 or more"),
            ((4, 0), {"stages": 0}, ValueError, "stages is 0"),
        )
    ),
    (lambda: assert_linear(raising, B), ValueError, "op raised KeyError on an array"),
    (lambda: assert_linear(np.copy, B, stages=0), ValueError, "stages is 0; an operator has at least 1"),
    (lambda: assert_adjoint(np.copy, np.copy, B, B[0]), ValueError, r"y has shape \(6,\); op\(x\) has \(4, 6\)"),
    (lambda: assert_adjoint(np.copy, np.copy, B, B * np.inf), ValueError, r"y is inf at index \(0, 0\); give"),
    (lambda: assert_adjoint(np.copy, np.ravel, B), ValueError, r"adjoint\(y\) has shape \(24,\); x has \(4, 6\)"),
    (lambda: assert_adjoint(np.copy, raising, B), ValueError, "adjoint raised KeyError on an array of shape"),
    (lambda: rounding_bound(np.copy, B[:0]), ValueError, r"x has shape \(0, 6\); with no element there is nothing"),
    (lambda: rounding_bound(np.copy, B, B[0]), ValueError, r"y has shape \(6,\); op\(x\) has \(4, 6\)"),
    (lambda: arrays(2.5), TypeError, "shape is 2.5; give an integer, or one per axis"),  # type: ignore[arg-type]
    (lambda: arrays((2,), "float16"), ValueError, "dtypes names 'float16'; choose among float64, float32, complex128"),
    (lambda: shifts((4, 4), (1, 0)), ValueError, "stride holds 0; give 1 or more"),
]


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
        *CONVOLUTIONS,
        *NORMALIZATIONS,
        *ASSERTIONS,
    ],
)
def test_wrong_arguments_are_refused_in_one_line(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
