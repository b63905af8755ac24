"""Records of all kinds that nearcore's own code encoded."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

_FILE = Path(__file__).resolve().parents[1] / "fixtures" / "records" / "state-records.json"


@dataclass(frozen=True, slots=True)
class StateRecord:
    """A record and what it says."""

    kind: str
    key: bytes
    value: bytes
    facts: dict[str, Any]


@lru_cache
def state_records() -> tuple[StateRecord, ...]:
    """Return all, in the file's order."""
    rows = json.loads(_FILE.read_text(encoding="utf-8"))
    return tuple(StateRecord(row["kind"], bytes.fromhex(row["key"]), bytes.fromhex(row["value"]), row["facts"]) for row in rows)
