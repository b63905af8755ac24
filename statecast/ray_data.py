"""Datasets as Ray's own, and back into tables; needs the extra ``data``. Importing this imports Ray."""

from __future__ import annotations

from pipelines.dataset.tables.flat_state_datasink import write_flat_state
from pipelines.dataset.tables.flat_state_datasource import read_flat_state

__all__ = ["read_flat_state", "write_flat_state"]
