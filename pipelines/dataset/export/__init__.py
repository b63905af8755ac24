"""A source's flat state becomes an Arrow dataset."""
