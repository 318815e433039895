# For type checkers; at run time hcnn_core is this module.
from hcnn_core import *  # noqa: F403
