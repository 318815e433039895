"""What can be measured on a GPU alone."""
