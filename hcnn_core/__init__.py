"""N-dimensional convolutions along space and attributes, their adjoints, and the equations built on them.

Functions take and return NumPy or CuPy arrays; the arguments decide which. The equations are those of Jacobsen,
Oyallon, Mallat and Smeulders, "Multiscale Hierarchical Convolutional Networks" (arXiv:1703.04140).
"""

from hcnn_core.activations import elu, elu_vjp, relu, relu_vjp
from hcnn_core.convolution import convolve, convolve_elu, convolve_elu_marginal, convolve_vjp_w, convolve_vjp_x
from hcnn_core.correlation import correlate, correlate_vjp_w, correlate_vjp_x
from hcnn_core.factored import factored_layer
from hcnn_core.filters import merge_factors, merge_factors_vjp, normalize_filters, normalize_filters_vjp
from hcnn_core.loss import cross_entropy, log_softmax
from hcnn_core.marginals import marginal, marginal_vjp
from hcnn_core.moments import patch_moments, patch_moments_vjp
from hcnn_core.normalization import (
    batch_normalize,
    batch_normalize_vjp,
    normalize_elu,
    normalize_elu_marginal,
    normalize_elu_vjp,
)
from hcnn_core.operators import linear_operator
from hcnn_core.plans import explain, planning, wisdom
from hcnn_core.pooling import max_pool, mean_pool, mean_pool_vjp
from hcnn_core.precisions import precision
from hcnn_core.shards import Shard
from hcnn_core.translation import translate, translate_vjp
from hcnn_core.updates import adamw_update, matmul, muon_update_all, sgd_update_all

__version__ = "0.1.0"

__all__ = [
    "Shard",
    "adamw_update",
    "batch_normalize",
    "batch_normalize_vjp",
    "convolve",
    "convolve_elu",
    "convolve_elu_marginal",
    "convolve_vjp_w",
    "convolve_vjp_x",
    "correlate",
    "correlate_vjp_w",
    "correlate_vjp_x",
    "cross_entropy",
    "elu",
    "elu_vjp",
    "explain",
    "factored_layer",
    "linear_operator",
    "log_softmax",
    "marginal",
    "marginal_vjp",
    "matmul",
    "max_pool",
    "mean_pool",
    "mean_pool_vjp",
    "merge_factors",
    "merge_factors_vjp",
    "muon_update_all",
    "normalize_elu",
    "normalize_elu_marginal",
    "normalize_elu_vjp",
    "normalize_filters",
    "normalize_filters_vjp",
    "patch_moments",
    "patch_moments_vjp",
    "planning",
    "precision",
    "relu",
    "relu_vjp",
    "sgd_update_all",
    "translate",
    "translate_vjp",
    "wisdom",
]
