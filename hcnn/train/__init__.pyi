# For type checkers; at run time train is this module.
from train import *  # noqa: F403
