"""Where objects go: fsspec file systems behind one narrow interface that states its guarantees."""
