"""What changed in a shard between two states: found by comparing, written as objects, applied to records."""
