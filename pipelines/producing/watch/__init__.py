"""Each new epoch of a node, published once."""
