# For type checkers; at run time train.verification is this module.
from train.verification import *  # noqa: F403
