"""Networks, data, training and command lines. Imports nothing, so that a command can set up its process first."""
