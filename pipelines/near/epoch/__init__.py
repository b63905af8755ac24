"""Which epoch, sync hash, shard layout and state roots: from a node's database, JSON-RPC or a file."""
