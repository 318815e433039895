"""What the command lines share: parsing, the process's settings, one trial of a sweep."""
