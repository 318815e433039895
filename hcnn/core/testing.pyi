# For type checkers; at run time hcnn_core.testing is this module.
from hcnn_core.testing import *  # noqa: F403
