"""Our formats in a bucket: manifest, statements, proofs, catalogue, claim, leases."""
