"""From built parts to a published epoch: objects, shard statements, torrents, manifest; and the check of what is published."""
