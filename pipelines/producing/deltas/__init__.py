"""Deltas of published epochs: between which, found in which way, and published."""
