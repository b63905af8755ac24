"""What is published stays right: checked, scrubbed, repaired, and deleted when it is no longer kept."""
