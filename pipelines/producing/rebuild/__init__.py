"""A published shard's parts made again, byte for byte, of an older state and deltas."""
