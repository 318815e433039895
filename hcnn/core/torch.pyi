# For type checkers; at run time hcnn_core.torch is this module.
from hcnn_core.torch import *  # noqa: F403
