# For type checkers; at run time hcnn_core.jax is this module.
from hcnn_core.jax import *  # noqa: F403
