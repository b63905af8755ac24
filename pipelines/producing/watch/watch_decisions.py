"""What a watcher does next, from what it has seen and what the clock says. No I/O, no clock of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

from pipelines.near.epoch.node_epochs import NodeEpoch
from pipelines.producing.watch.watch_poll import NodeView
from schemas.errors import IntegrityError, StatecastError
from schemas.ids import CryptoHash
from schemas.json_document import FieldReader, decode_json, encode_json
from schemas.json_limits import JsonLimits

SNAPSHOT_WAIT_S: Final = 300.0
"""How long an epoch waits for its state snapshot on a node that makes some; then whatever flat state there is must do."""

RETRY_S: Final = 10.0
"""Pause after an epoch's first failure; it doubles with each further one."""

RETRY_S_MAX: Final = 300.0
"""Longest pause between two attempts."""

LEDGER_EPOCHS_MAX: Final = 64
"""Most epochs that a ledger remembers; the lowest are forgotten first."""

LEDGER_BYTES_MAX: Final = 1 << 20
"""Largest ledger that is read."""

_FORMAT = "urn:statecast:watch:v1"
_MILLISECONDS_MAX = 2**53
_HEIGHT_MAX = 2**64 - 1


class EpochState(StrEnum):
    """How far a watched epoch is."""

    WAITING = "waiting"
    PUBLISHED = "published"
    ABANDONED = "abandoned"


@dataclass(frozen=True, slots=True)
class WatchedEpoch:
    """One epoch that a watcher has seen."""

    epoch_height: int
    epoch_id: CryptoHash
    first_seen: float
    """Unix time in seconds, whole milliseconds. Its deadline counts from here, also over restarts."""
    snapshot: CryptoHash | None = None
    """Block hash that its state snapshot is named by; None where that is not known."""
    state: EpochState = EpochState.WAITING
    failures: int = 0
    retry_at: float = 0.0
    """Unix time before which it is left alone."""

    def to_json(self) -> dict[str, Any]:
        """Return what outlives the process, as JSON values."""
        return {
            "epoch_height": self.epoch_height,
            "epoch_id": str(self.epoch_id),
            "first_seen_ms": round(self.first_seen * 1000),
            "snapshot": None if self.snapshot is None else str(self.snapshot),
            "state": str(self.state),
        }


@dataclass(frozen=True, slots=True)
class WatchLedger:
    """Everything that a watcher remembers of epochs."""

    floor: int
    """Epochs of this height or below are none of its business: they were there before it."""
    epochs: tuple[WatchedEpoch, ...] = ()
    """Ascending by height."""

    @property
    def waiting(self) -> tuple[WatchedEpoch, ...]:
        """Those that are still to be published."""
        return tuple(epoch for epoch in self.epochs if epoch.state is EpochState.WAITING)

    def with_epoch(self, changed: WatchedEpoch) -> WatchLedger:
        """Return the ledger with one epoch changed."""
        return replace(self, epochs=tuple(changed if epoch.epoch_id == changed.epoch_id else epoch for epoch in self.epochs))

    def to_bytes(self) -> bytes:
        """Return the stored form."""
        return encode_json({"format": _FORMAT, "floor": self.floor, "epochs": [epoch.to_json() for epoch in self.epochs]})

    @classmethod
    def parse(cls, data: bytes, where: str) -> WatchLedger:
        """Parse the stored form; pauses after failures are not kept.

        Raises:
            ManifestError: another form.
        """
        reader = FieldReader(decode_json(data, JsonLimits(LEDGER_BYTES_MAX), where), where)
        reader.literal("format", _FORMAT)
        epochs = tuple(
            WatchedEpoch(
                epoch_height=entry.number("epoch_height", 0, _HEIGHT_MAX),
                epoch_id=entry.hash("epoch_id"),
                first_seen=entry.number("first_seen_ms", 0, _MILLISECONDS_MAX) / 1000,
                snapshot=None if entry.is_null("snapshot") else entry.hash("snapshot"),
                state=EpochState(entry.text("state", 20, "|".join(EpochState))),
            )
            for entry in reader.inners("epochs", LEDGER_EPOCHS_MAX)
        )
        return cls(reader.number("floor", -1, _HEIGHT_MAX), epochs)


@dataclass(frozen=True, slots=True)
class Produce:
    """Make an attempt at an epoch."""

    epoch: WatchedEpoch


@dataclass(frozen=True, slots=True)
class Abandon:
    """Give an epoch up: its deadline has passed."""

    epoch: WatchedEpoch


@dataclass(frozen=True, slots=True)
class Wait:
    """Do nothing before this Unix time, unless something new is seen; None for as long as nothing is."""

    until: float | None


Step = Produce | Abandon | Wait


def first_floor(seen: Sequence[NodeEpoch], latest_published: int | None) -> int:
    """Return the floor of a watcher that remembers nothing: the newest published epoch, else all but the newest of the node."""
    if latest_published is not None:
        return latest_published
    return max((epoch.epoch_height for epoch in seen), default=0) - 1


def unknown_epochs(ledger: WatchLedger, seen: Sequence[NodeEpoch]) -> tuple[NodeEpoch, ...]:
    """Return the epochs above the floor that the ledger lacks, ascending."""
    known = {epoch.epoch_id for epoch in ledger.epochs}
    forgotten = ledger.epochs[0].epoch_height if len(ledger.epochs) == LEDGER_EPOCHS_MAX else -1
    return tuple(epoch for epoch in seen if epoch.epoch_height > max(ledger.floor, forgotten) and epoch.epoch_id not in known)


def add_epochs(ledger: WatchLedger, epochs: Sequence[WatchedEpoch]) -> WatchLedger:
    """Return the ledger with more epochs in it."""
    both = sorted((*ledger.epochs, *epochs), key=lambda epoch: (epoch.epoch_height, epoch.epoch_id))
    return replace(ledger, epochs=tuple(both[-LEDGER_EPOCHS_MAX:]))


def next_step(ledger: WatchLedger, view: NodeView | None, makes_snapshots: bool, now: float, deadline_s: float) -> Step:
    """Decide what to do now.

    The newest epoch goes first: it is what new nodes want. An epoch whose deadline has passed is given up before anything else is done.

    Args:
        view: the last look at the node; None while none has succeeded.
        makes_snapshots: the node has had a state snapshot at some time since the watcher began.
        now: Unix time in seconds.
        deadline_s: seconds that an epoch has from being seen to being published.
    """
    newest = ledger.epochs[-1].epoch_id if ledger.epochs else None
    moments = []
    for epoch in reversed(ledger.waiting):
        if now >= epoch.first_seen + deadline_s:
            return Abandon(epoch)
        moments.append(epoch.first_seen + deadline_s)
    for epoch in reversed(ledger.waiting):
        begin = max(epoch.retry_at, _ready_at(epoch, view, makes_snapshots and epoch.epoch_id == newest))
        if now >= begin:
            return Produce(epoch)
        moments.append(begin)
    return Wait(min(moments, default=None))


def _ready_at(epoch: WatchedEpoch, view: NodeView | None, expects_snapshot: bool) -> float:
    """Return from when on an epoch may be tried; a newer epoch's snapshot has taken the place of an older one's, for which none comes."""
    if not expects_snapshot or (view is not None and epoch.snapshot is not None and view.complete_snapshot == epoch.snapshot):
        return epoch.first_seen
    return epoch.first_seen + SNAPSHOT_WAIT_S


def is_due_to_stop(ledger: WatchLedger, epoch: WatchedEpoch, now: float, deadline_s: float) -> bool:
    """Return whether an attempt that is under way ends here: its deadline has passed and a newer epoch waits. Else it may as well finish."""
    return now >= epoch.first_seen + deadline_s and any(other.epoch_height > epoch.epoch_height for other in ledger.waiting)


def after_failure(epoch: WatchedEpoch, error: StatecastError, now: float) -> WatchedEpoch:
    """Return an epoch after an attempt that failed: with its next attempt after a pause that doubles.

    Records that turned out wrong are read from the node again after the longest pause: what the node was writing may have
    settled, while the same bytes would give the same answer.
    """
    pause_s = RETRY_S_MAX if isinstance(error, IntegrityError) else min(RETRY_S * 2.0 ** min(epoch.failures, 30), RETRY_S_MAX)
    return replace(epoch, failures=epoch.failures + 1, retry_at=now + pause_s)
