"""What is believed: signatures, thresholds, contradictions, freshness. Decisions only, no I/O."""
