"""Proofs of single records, or of all keys with a prefix: made from a node's State column or from state parts, and verified offline."""
