"""What Proposition 3.1 says of a network, and what the network does."""
