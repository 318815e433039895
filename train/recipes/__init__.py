"""How weights follow from gradients."""
