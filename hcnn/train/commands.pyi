# For type checkers; at run time train.commands is this module.
from train.commands import *  # noqa: F403
