# For type checkers; at run time train.recipes is this module.
from train.recipes import *  # noqa: F403
