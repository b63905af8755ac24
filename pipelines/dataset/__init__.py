"""The Arrow dataset of an epoch's flat state: read, and proved against its state root."""
