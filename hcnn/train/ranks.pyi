# For type checkers; at run time train.ranks is this module.
from train.ranks import *  # noqa: F403
