"""From built parts to a published epoch: objects, shard statements, manifest, signatures."""
