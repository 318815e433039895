"""What the attributes of a trained network mean: section 5.3 of arXiv:1703.04140, and what the layers do to images."""
