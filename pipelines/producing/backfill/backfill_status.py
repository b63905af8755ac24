"""How far a backfill is, shard by shard: kept in the work folder after each step, for people and for the next run's table.

The resume itself does not lean on it: what is published and what is exported is looked up where it is.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any

from pipelines.stores.open_store import open_store
from pipelines.stores.ranges import read_object
from schemas.errors import ObjectMismatchError, ObjectNotFoundError
from schemas.json_document import FieldReader
from schemas.json_note import read_note

STATUS_NAME = "backfill.json"
"""The status in the work folder."""

STATUS_BYTES_MAX = 64 << 20
"""Largest status that is read."""


class StepState(StrEnum):
    """How far an epoch's shard has come."""

    WAITING = "waiting"
    EXPORTED = "exported"
    PUBLISHED = "published"
    FAILED = "failed"


class RecordsWay(StrEnum):
    """How a shard's records were had, or will be."""

    PUBLISHED = "published before"
    DATASET = "exported before"
    ROLL_FORWARD = "roll forward"
    FLAT_STATE = "flat state"
    STATE_WALK = "state walk"


@dataclass(frozen=True, slots=True)
class Step:
    """One shard of one epoch."""

    epoch_height: int
    shard: str
    """Shard uid; ``-`` for an epoch that has no context."""
    state: StepState = StepState.WAITING
    way: RecordsWay | None = None
    records: int | None = None
    num_parts: int | None = None
    stored_size: int | None = None
    seconds: float | None = None
    """From the shard's first read to its export's end."""
    error: dict[str, Any] | None = None
    """As `schemas.errors.StatecastError.to_json` says it, with the whole message."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, without what is not known."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(slots=True)
class BackfillStatus:
    """All steps of a run; several threads may note theirs."""

    work_url: str
    steps: dict[tuple[int, str], Step] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def recall(self) -> None:
        """Take what an earlier run noted of the steps that are published by now, for the table; a status that can't be read says nothing."""
        try:
            data = read_object(open_store(self.work_url), STATUS_NAME, STATUS_BYTES_MAX)
        except (ObjectNotFoundError, ObjectMismatchError):
            return
        steps = read_note(data, _read_steps) or ()
        self.steps |= {(step.epoch_height, step.shard): step for step in steps if step.state is StepState.PUBLISHED}

    def note(self, epoch_height: int, shards: Sequence[str], **changed: Any) -> None:
        """Note a change of some steps and keep the status."""
        with self._lock:
            for shard in shards:
                step = self.steps.get((epoch_height, shard), Step(epoch_height, shard))
                self.steps[epoch_height, shard] = replace(step, **changed)
            document = {"steps": [step.to_json() for step in self.listed()]}
            open_store(self.work_url).put(STATUS_NAME, json.dumps(document, indent=1).encode())

    def listed(self) -> list[Step]:
        """Return the steps by epoch and shard."""
        return [self.steps[key] for key in sorted(self.steps)]


def _read_steps(document: dict[str, Any]) -> list[Step]:
    return [_read_step(entry) for entry in document["steps"]]


def _read_step(entry: dict[str, Any]) -> Step:
    reader = FieldReader(entry, "step")
    seconds = entry.get("seconds")
    if seconds is not None and (isinstance(seconds, bool) or not isinstance(seconds, int | float)):
        reader.fail("field seconds must be a number")
    counts = {name: reader.number(name, 0, 2**63) if reader.has(name) else None for name in ("records", "num_parts", "stored_size")}
    return Step(
        epoch_height=reader.number("epoch_height", 0, 2**64 - 1),
        shard=reader.text("shard", 24),
        state=StepState(entry["state"]),
        way=RecordsWay(entry["way"]) if entry.get("way") else None,
        **counts,
        seconds=seconds,
        error=dict(entry["error"]) if entry.get("error") else None,
    )
