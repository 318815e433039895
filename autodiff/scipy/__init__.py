"""SciPy under another name, where its functions do not ask their arguments: special and signal.

The ufuncs of scipy.special work on traced values as they are. The functions here are those that turn their arguments
into NumPy arrays, written in NumPy's; everything else in a module is SciPy's own.
"""
