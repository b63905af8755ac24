"""What publishing, fetching and seeding share of BitTorrent: the library, private sessions, torrents checked against a manifest."""
