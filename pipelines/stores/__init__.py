"""Where objects go: files, memory, object stores behind one narrow interface."""
