"""What a person or a program sees of a seeder: a table on a terminal, plain lines elsewhere, and JSON lines."""

from __future__ import annotations

import time
from collections import Counter
from typing import Final, Protocol

import structlog
from rich.live import Live
from rich.table import Table

from jobs.event_lines import EventLines
from jobs.terminal import ShownConsole, format_bytes, shows_bars, told
from pipelines.seeding.status import PeerStatus, SeedEvent, SeedStatus, ShardStatus

JSON_INTERVAL_S: Final = 5.0
"""How often a status event is written; a change of a shard's phase is written at once."""


class SeedDisplay(Protocol):
    """Shows a seeder."""

    def status(self, status: SeedStatus) -> None:
        """Show how it stands; called some times a second."""
        ...

    def event(self, event: SeedEvent) -> None:
        """Show something that happened; called from several threads."""
        ...

    def close(self) -> None:
        """Leave the display as it stands."""
        ...


class TableDisplay:
    """A table that is drawn over and over, a line a shard."""

    def __init__(self) -> None:
        self._live = Live(console=ShownConsole(stderr=True), refresh_per_second=2)
        self._live.start()

    def status(self, status: SeedStatus) -> None:
        """Draw."""
        self._live.update(_table(status))

    def event(self, event: SeedEvent) -> None:
        """Print a line above the table."""
        self._live.console.print(f"{event.kind.replace('_', ' ')}: {event.message}", highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Leave the last table."""
        self._live.stop()


class SeedLineDisplay:
    """Log lines on standard error, for what changed."""

    def __init__(self) -> None:
        self._spoke_at_s = 0.0
        self._said: dict[object, tuple[object, ...]] = {}

    def status(self, status: SeedStatus) -> None:
        """Log a line a shard now and then."""
        now_s = time.monotonic()
        if now_s - self._spoke_at_s < told.interval_s:
            return
        self._spoke_at_s = now_s
        for shard in status.shards:
            facts = {"parts": _parts(shard), "peers": shard.peers, "up": _rate(shard)}
            line = (str(shard.phase), *facts.values())
            # An idle seeder stands as it stood for days.
            if self._said.get(shard.key) != line:
                structlog.get_logger().info(str(shard.phase), epoch=shard.key.epoch_height, shard=shard.key.shard_id, **facts)
            self._said[shard.key] = line
        if status.near_peer is not None:
            asked = _asked(status.near_peer)
            if self._said.get("nodes") != tuple(asked.values()):
                structlog.get_logger().info("nodes", **asked)
            self._said["nodes"] = tuple(asked.values())

    def event(self, event: SeedEvent) -> None:
        """Log a line."""
        structlog.get_logger().info(event.kind.replace("_", " "), what=event.message)

    def close(self) -> None:
        """Do nothing."""


class SeedEventDisplay:
    """JSON lines for programs, beside what a person sees."""

    def __init__(self, events: EventLines, shown: SeedDisplay | None) -> None:
        self._events = events
        self._shown = shown
        self._spoke_at_s = 0.0
        self._phases: list[str] = []

    def status(self, status: SeedStatus) -> None:
        """Write the status when a phase changed, and now and then."""
        if self._shown is not None:
            self._shown.status(status)
        now_s, phases = time.monotonic(), [f"{shard.key} {shard.phase}" for shard in status.shards]
        if phases == self._phases and now_s - self._spoke_at_s < JSON_INTERVAL_S:
            return
        self._spoke_at_s, self._phases = now_s, phases
        self._events.write({"message_type": "status", **status.to_json()})

    def event(self, event: SeedEvent) -> None:
        """Write an event."""
        if self._shown is not None:
            self._shown.event(event)
        self._events.write({"message_type": "event", "event": event.kind, "message": event.message, **event.facts})

    def close(self) -> None:
        """Leave what is shown as it stands."""
        if self._shown is not None:
            self._shown.close()


def open_seed_display(events: EventLines | None) -> SeedDisplay:
    """Return the display that fits; a program that reads events on standard output is the only one that is told."""
    if events is not None and events.on_standard_output:
        return SeedEventDisplay(events, None)
    shown = TableDisplay() if shows_bars() else SeedLineDisplay()
    return shown if events is None else SeedEventDisplay(events, shown)


def _asked(peer: PeerStatus) -> dict[str, object]:
    """Return what nodes ask for, and what comes of it."""
    outcomes = Counter[str]()
    for (kind, outcome), count in peer.requests_by_kind.items():
        outcomes[f"{kind}s" if outcome == "answered" else outcome.replace(" ", "_")] += count
    return {"connected": peer.neighbours, "asking": peer.askers, "given": format_bytes(peer.bytes_sent), **outcomes}


def _parts(shard: ShardStatus) -> str:
    return f"{shard.parts_complete}/{shard.parts_total}"


def _rate(shard: ShardStatus) -> str:
    return f"{format_bytes(shard.upload_bytes_per_s)}/s"


def _table(status: SeedStatus) -> Table:
    up = sum(shard.upload_bytes_per_s for shard in status.shards)
    looked = "never" if status.polled_at is None else time.strftime("%H:%M:%S", time.localtime(status.polled_at))
    title = f"{status.chain_id}, port {status.listen_port}, up {format_bytes(up)}/s, bucket read {looked}"
    nodes = (
        ""
        if status.near_peer is None
        else "nodes: " + ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in _asked(status.near_peer).items())
    )
    caption = "\n".join(line for line in (nodes, status.poll_problem) if line)
    table = Table(title=title, title_justify="left", caption=caption or None)
    for name in ("epoch", "shard", "parts", "size", "peers", "up", "given"):
        table.add_column(name, justify="right")
    table.add_column("", overflow="fold")
    for shard in status.shards:
        table.add_row(
            *(str(shard.key.epoch_height), str(shard.key.shard_id), _parts(shard), format_bytes(shard.bytes_total), str(shard.peers)),
            *(_rate(shard), format_bytes(shard.bytes_uploaded), shard.problem or str(shard.phase)),
        )
    return table
