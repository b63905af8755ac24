"""What NEAR says: a node's database, its tries, genesis files, JSON-RPC, and which epoch it is."""
