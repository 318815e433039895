"""Convolutions of PyTorch's tensors along 1 to 6 axes, as functions and as modules, with gradients of every order.

Nothing else imports this package; it needs PyTorch, which the extra ``torch`` installs.
"""

from importlib.util import find_spec

if find_spec("torch") is None:
    raise ModuleNotFoundError("hcnn_core.torch needs PyTorch: install it, or hcnn with the extra torch", name="torch")

from hcnn_core.torch._functional import conv_nd, conv_transpose_nd, convolve
from hcnn_core.torch._modules import ConvNd, ConvTransposeNd

__all__ = ["ConvNd", "ConvTransposeNd", "conv_nd", "conv_transpose_nd", "convolve"]
