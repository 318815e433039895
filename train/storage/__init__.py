"""Files that are whole or absent, HDF5, and locks."""
