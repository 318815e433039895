"""Common parts of the command lines: parsing, the process's settings, one trial of a sweep."""
