"""An older epoch's dataset and what has changed since become a later epoch's dataset."""
