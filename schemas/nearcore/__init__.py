"""NEAR's own formats: what nearcore writes, sends and hashes."""
