"""What a watcher remembers between two runs: its ledger, in the work folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pipelines.producing.watch.watch_decisions import LEDGER_BYTES_MAX, EpochState, WatchedEpoch, WatchLedger
from pipelines.producing.watch.watch_events import WatchEvents, one_line
from pipelines.producing.watch.watch_metrics import WatchMetrics
from pipelines.stores.store import Store
from schemas.errors import ManifestError, ObjectNotFoundError, StoreError

LEDGER_NAME: Final = "watch.json"
"""The watcher's memory in the work folder."""


@dataclass(slots=True)
class WatchMemory:
    """The ledger, kept in a store."""

    store: Store
    metrics: WatchMetrics
    events: WatchEvents
    ledger: WatchLedger | None = None
    """None before any epoch was recorded."""

    def recall(self) -> None:
        """Load the ledger of an earlier run; one that can't be read is reported and dropped.

        Raises:
            StoreError: the store can't be read.
        """
        try:
            self.ledger = WatchLedger.parse(self.store.get(LEDGER_NAME, 0, LEDGER_BYTES_MAX + 1), f"{self.store.url}/{LEDGER_NAME}")
        except ObjectNotFoundError:
            return
        except ManifestError as error:
            self.events.on_event("memory_lost", f"what was remembered can't be read, and is forgotten: {one_line(error)}", error.to_json())
            return
        self.metrics.epochs_behind = len(self.ledger.waiting)
        for epoch in self.ledger.epochs:
            if epoch.state is EpochState.PUBLISHED:
                self.metrics.published(epoch.epoch_height, by_us=False)

    def known(self) -> WatchLedger:
        """Return the ledger, where epochs are worked on."""
        assert self.ledger is not None, "epochs are worked on when they are in the ledger"
        return self.ledger

    def remember(self, ledger: WatchLedger) -> None:
        """Store a ledger. A failure is reported only: after a restart deadlines would begin again, and nothing worse."""
        self.ledger = ledger
        self.metrics.epochs_behind = len(ledger.waiting)
        try:
            self.store.put(LEDGER_NAME, ledger.to_bytes())
        except StoreError as error:
            message = f"the work folder can't be written: {one_line(error)}"
            self.events.tell_once("memory", error.problem, "failed", message, error.to_json())

    def change(self, epoch: WatchedEpoch) -> None:
        """Keep what has become of an epoch of the ledger."""
        self.remember(self.known().with_epoch(epoch))
