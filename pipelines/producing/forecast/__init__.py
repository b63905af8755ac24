"""How long an epoch takes and what it costs, worked out from measured costs before any of it runs. Pure."""
