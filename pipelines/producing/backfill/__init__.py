"""Many past epochs of one node, each published."""
