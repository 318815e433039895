"""Reverse-mode differentiation of functions of NumPy and CuPy arrays."""

from autodiff import _rules as _rules  # gives NumPy functions their derivatives
from autodiff.functional import check_grads as check_grads
from autodiff.functional import checkpoint as checkpoint
from autodiff.functional import grad as grad
from autodiff.functional import value_and_grad as value_and_grad
from autodiff.functional import vjp as vjp
from autodiff.jacobians import elementwise_grad as elementwise_grad
from autodiff.jacobians import hessian as hessian
from autodiff.jacobians import hessian_vector_product as hessian_vector_product
from autodiff.jacobians import jacobian as jacobian
from autodiff.jacobians import jvp as jvp
from autodiff.primitives import batch_normalize as batch_normalize
from autodiff.primitives import convolve as convolve
from autodiff.primitives import convolve_elu as convolve_elu
from autodiff.primitives import convolve_elu_marginal as convolve_elu_marginal
from autodiff.primitives import convolve_vjp_w as convolve_vjp_w
from autodiff.primitives import convolve_vjp_x as convolve_vjp_x
from autodiff.primitives import correlate as correlate
from autodiff.primitives import correlate_vjp_w as correlate_vjp_w
from autodiff.primitives import correlate_vjp_x as correlate_vjp_x
from autodiff.primitives import cross_entropy as cross_entropy
from autodiff.primitives import elu as elu
from autodiff.primitives import elu_vjp as elu_vjp
from autodiff.primitives import factored_layer as factored_layer
from autodiff.primitives import log_softmax as log_softmax
from autodiff.primitives import marginal as marginal
from autodiff.primitives import marginal_vjp as marginal_vjp
from autodiff.primitives import max_pool as max_pool
from autodiff.primitives import mean_pool as mean_pool
from autodiff.primitives import mean_pool_vjp as mean_pool_vjp
from autodiff.primitives import merge_factors as merge_factors
from autodiff.primitives import normalize_elu as normalize_elu
from autodiff.primitives import normalize_elu_marginal as normalize_elu_marginal
from autodiff.primitives import normalize_filters as normalize_filters
from autodiff.primitives import patch_moments as patch_moments
from autodiff.primitives import relu as relu
from autodiff.primitives import relu_vjp as relu_vjp
from autodiff.primitives import translate as translate
from autodiff.primitives import translate_vjp as translate_vjp
from autodiff.pytree import tree_leaves as tree_leaves
from autodiff.pytree import tree_map as tree_map
from autodiff.pytree import tree_structure as tree_structure
from autodiff.pytree import tree_unflatten as tree_unflatten
from autodiff.tape import defvjp as defvjp
from autodiff.tape import defvjp_argnums as defvjp_argnums
from autodiff.tape import getval as getval
from autodiff.tape import primitive as primitive

__all__ = [name for name, value in vars().items() if callable(value) and name[0] != "_"]
