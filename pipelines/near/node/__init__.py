"""A node's database, opened read-only: flat state, state headers, where its home says that things are."""
