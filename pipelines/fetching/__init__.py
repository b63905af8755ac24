"""Fetches a published epoch from many sources at once, none of them trusted, into a folder of nearcore's object names."""
