# For type checkers; at run time hcnn_core.backend is this module.
from hcnn_core.backend import *  # noqa: F403
