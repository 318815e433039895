# For type checkers; at run time train.networks is this module.
from train.networks import *  # noqa: F403
