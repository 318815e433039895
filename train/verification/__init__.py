"""Proposition 3.1: its statements for a network, and the network's errors."""
