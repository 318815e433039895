# For type checkers; at run time train.storage is this module.
from train.storage import *  # noqa: F403
