"""Where records come from: a node's store, genesis records, JSON Lines, an Arrow dataset."""
