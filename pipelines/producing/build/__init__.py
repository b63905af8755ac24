"""From a shard's dataset to its state parts: plan, build, seal, assemble."""
