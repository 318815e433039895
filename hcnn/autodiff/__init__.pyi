# For type checkers; at run time autodiff is this module.
from autodiff import *  # noqa: F403
