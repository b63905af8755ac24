"""How the work is done: kernel, sources, stores, stages, publishing, trust, epochs, execution."""
