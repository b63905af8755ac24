"""From state parts back to state: an Arrow dataset or a database, proved by its root."""
