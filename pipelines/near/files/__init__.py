"""Records out of files: genesis records, JSON Lines."""
