# For type checkers; at run time wavelets is this module.
from wavelets import *  # noqa: F403
