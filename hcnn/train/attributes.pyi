# For type checkers; at run time train.attributes is this module.
from train.attributes import *  # noqa: F403
