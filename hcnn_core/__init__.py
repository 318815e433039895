"""N-dimensional convolutions along space and attributes, their adjoints, and the equations built on them.

Functions take and return NumPy or CuPy arrays; the arguments decide which. The equations are those of Jacobsen,
Oyallon, Mallat and Smeulders, "Multiscale Hierarchical Convolutional Networks" (arXiv:1703.04140).
"""

from hcnn_core.activations import elu as elu
from hcnn_core.activations import elu_vjp as elu_vjp
from hcnn_core.activations import relu as relu
from hcnn_core.activations import relu_vjp as relu_vjp
from hcnn_core.convolution import convolve as convolve
from hcnn_core.convolution import convolve_elu as convolve_elu
from hcnn_core.convolution import convolve_elu_marginal as convolve_elu_marginal
from hcnn_core.convolution import convolve_vjp_w as convolve_vjp_w
from hcnn_core.convolution import convolve_vjp_x as convolve_vjp_x
from hcnn_core.correlation import correlate as correlate
from hcnn_core.correlation import correlate_vjp_w as correlate_vjp_w
from hcnn_core.correlation import correlate_vjp_x as correlate_vjp_x
from hcnn_core.factored import factored_layer as factored_layer
from hcnn_core.filters import merge_factors as merge_factors
from hcnn_core.filters import merge_factors_vjp as merge_factors_vjp
from hcnn_core.filters import normalize_filters as normalize_filters
from hcnn_core.filters import normalize_filters_vjp as normalize_filters_vjp
from hcnn_core.loss import cross_entropy as cross_entropy
from hcnn_core.loss import log_softmax as log_softmax
from hcnn_core.marginals import marginal as marginal
from hcnn_core.marginals import marginal_vjp as marginal_vjp
from hcnn_core.moments import patch_moments as patch_moments
from hcnn_core.moments import patch_moments_vjp as patch_moments_vjp
from hcnn_core.normalization import batch_normalize as batch_normalize
from hcnn_core.normalization import batch_normalize_vjp as batch_normalize_vjp
from hcnn_core.normalization import normalize_elu as normalize_elu
from hcnn_core.normalization import normalize_elu_marginal as normalize_elu_marginal
from hcnn_core.normalization import normalize_elu_vjp as normalize_elu_vjp
from hcnn_core.operators import linear_operator as linear_operator
from hcnn_core.plans import explain as explain
from hcnn_core.plans import planning as planning
from hcnn_core.plans import wisdom as wisdom
from hcnn_core.pooling import max_pool as max_pool
from hcnn_core.pooling import mean_pool as mean_pool
from hcnn_core.pooling import mean_pool_vjp as mean_pool_vjp
from hcnn_core.precisions import precision as precision
from hcnn_core.shards import Shard as Shard
from hcnn_core.translation import translate as translate
from hcnn_core.translation import translate_vjp as translate_vjp
from hcnn_core.updates import adamw_update as adamw_update
from hcnn_core.updates import matmul as matmul
from hcnn_core.updates import muon_update_all as muon_update_all
from hcnn_core.updates import sgd_update_all as sgd_update_all

__version__ = "0.1.0"

__all__ = [name for name, value in vars().items() if callable(value) and name[0] != "_"]
