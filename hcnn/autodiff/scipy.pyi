# For type checkers; at run time autodiff.scipy is this module.
from autodiff.scipy import *  # noqa: F403
