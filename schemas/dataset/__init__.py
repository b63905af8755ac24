"""Our formats in Arrow: record batches of flat state, datasets, tables."""
