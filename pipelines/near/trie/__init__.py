"""A trie in a node's State column, walked from a state root."""
