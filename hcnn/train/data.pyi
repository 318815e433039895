# For type checkers; at run time train.data is this module.
from train.data import *  # noqa: F403
