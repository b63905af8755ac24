"""From a dataset to a signed epoch."""
