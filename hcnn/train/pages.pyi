# For type checkers; at run time train.pages is this module.
from train.pages import *  # noqa: F403
