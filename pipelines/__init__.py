"""How the work is done, one room a verb; the ground that verbs stand on is kernel, stores, trust, bittorrent, execution, near and bucket."""
