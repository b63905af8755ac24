"""What a watcher tells of itself while it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from pipelines.producing.watch.watch_decisions import WatchedEpoch
from schemas.errors import StatecastError


class OnEvent(Protocol):
    """Told what happens, from two threads."""

    def __call__(self, kind: str, message: str, facts: Mapping[str, Any]) -> None:
        """Record an event: its kind, a sentence for people, and plain JSON values."""
        ...


@dataclass(slots=True)
class WatchEvents:
    """Tells what happens to epochs, from the thread that works on them."""

    on_event: OnEvent
    _told: dict[str, str] = field(default_factory=dict)
    """What was said last of each thing that is said only when it changes."""

    def tell(self, kind: str, message: str, epoch: WatchedEpoch, facts: Mapping[str, Any] | None = None) -> None:
        """Tell an event of an epoch."""
        self.on_event(kind, message, {**facts_of(epoch), **(facts or {})})

    def tell_once(self, topic: str, state: str, kind: str, message: str, facts: Mapping[str, Any]) -> bool:
        """Emit an event unless its topic is in this state already; an empty state emits none. Return whether it changed."""
        if self._told.get(topic, "") == state:
            return False
        self._told[topic] = state
        if state:
            self.on_event(kind, message, facts)
        return True

    def forget(self, topic: str) -> None:
        """Let the next state of a topic be told, whatever it is."""
        self._told.pop(topic, None)


def facts_of(epoch: WatchedEpoch) -> dict[str, Any]:
    """Return how events name an epoch."""
    return {"epoch_height": epoch.epoch_height, "epoch_id": str(epoch.epoch_id)}


def one_line(error: StatecastError) -> str:
    """Return an error for people, in one line."""
    return " ".join(str(error).split())
