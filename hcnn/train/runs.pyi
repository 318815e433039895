# For type checkers; at run time train.runs is this module.
from train.runs import *  # noqa: F403
