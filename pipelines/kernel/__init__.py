"""The trie arithmetic behind one Protocol, with two implementations that give the same bytes."""
