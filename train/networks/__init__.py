"""Networks: their layers, and the registry that names them."""
