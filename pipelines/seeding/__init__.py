"""Keeps published epochs available: a BitTorrent seeder of a bucket's newest epochs, and a plain HTTP mirror of a folder."""
