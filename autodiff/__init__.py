"""Reverse-mode differentiation of functions of NumPy and CuPy arrays."""

from autodiff import _rules as _rules  # gives NumPy functions their derivatives
from autodiff.functional import check_grads, checkpoint, checkpoint_before, grad, value_and_grad, vjp
from autodiff.jacobians import elementwise_grad, hessian, hessian_vector_product, jacobian, jvp
from autodiff.primitives import (
    convolve,
    convolve_elu,
    convolve_vjp_w,
    convolve_vjp_x,
    cross_entropy,
    elu,
    elu_vjp,
    factored_layer,
    log_softmax,
    marginal,
    marginal_vjp,
    normalize_elu,
    normalize_filters,
    patch_moments,
    translate,
)
from autodiff.pytree import tree_leaves, tree_map, tree_structure, tree_unflatten
from autodiff.tape import defvjp, defvjp_argnums, getval, primitive

__all__ = [
    "check_grads",
    "checkpoint",
    "checkpoint_before",
    "convolve",
    "convolve_elu",
    "convolve_vjp_w",
    "convolve_vjp_x",
    "cross_entropy",
    "defvjp",
    "defvjp_argnums",
    "elementwise_grad",
    "elu",
    "elu_vjp",
    "factored_layer",
    "getval",
    "grad",
    "hessian",
    "hessian_vector_product",
    "jacobian",
    "jvp",
    "log_softmax",
    "marginal",
    "marginal_vjp",
    "normalize_elu",
    "normalize_filters",
    "patch_moments",
    "primitive",
    "translate",
    "tree_leaves",
    "tree_map",
    "tree_structure",
    "tree_unflatten",
    "value_and_grad",
    "vjp",
]
