"""What a person or a program sees while a fetch runs: a line a source on a terminal, plain lines elsewhere, and JSON lines.

Displays go to standard error; JSON lines where ``--events`` says.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Protocol

import structlog
from rich.console import Console
from rich.live import Live
from rich.table import Table

from jobs.event_lines import EventLines
from jobs.terminal import ShownConsole, coloured, format_bytes, format_seconds, shows_bars, told
from pipelines.fetching.fetch_progress import FetchProgress, FetchWatcher

JSON_INTERVAL_S = 1.0
"""How often a progress event is written."""


class FetchDisplay(FetchWatcher, Protocol):
    """A watcher that must be closed."""

    def close(self) -> None:
        """Leave the display as it stands."""
        ...


class LiveDisplay:
    """A table that is drawn over and over."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, refresh_per_second=4, transient=False)
        self._started = False

    def progress(self, progress: FetchProgress) -> None:
        """Draw."""
        if not self._started:
            self._live.start()
            self._started = True
        self._live.update(_table(progress))

    def event(self, name: str, facts: dict[str, object]) -> None:
        """Print what a person should see at once above the table."""
        text = _event_text(name, facts)
        if text is not None:
            self._console.print(text, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Leave the last table."""
        if self._started:
            self._live.stop()


class FetchLineDisplay:
    """Log lines where there is no terminal."""

    def __init__(self) -> None:
        self._spoke_s: float | None = None

    def progress(self, progress: FetchProgress) -> None:
        """Log now and then, and at the end."""
        now_s = time.monotonic()
        is_last = progress.parts_done == progress.parts_total
        if told.no_progress or (self._spoke_s is not None and now_s - self._spoke_s < told.interval_s and not is_last):
            return
        self._spoke_s = now_s
        structlog.get_logger().info(
            "fetch parts",
            done=f"{progress.parts_done}/{progress.parts_total}",
            bytes=f"{format_bytes(progress.bytes_done)} of {format_bytes(progress.bytes_total)}",
            rate=f"{progress.bytes_per_s / 1e6:,.1f} MB/s",
            **({"left": format_seconds(progress.left_s)} if progress.left_s else {}),
            sources=", ".join(
                f"{source.source_id} {source.parts} parts {source.bytes_per_s / 1e6:,.1f} MB/s"
                + (f" {source.errors} errors" if source.errors else "")
                + (f" ({source.state})" if source.state in ("banned", "given up") else "")
                for source in progress.sources
            ),
        )

    def event(self, name: str, facts: dict[str, object]) -> None:
        """Log what a person should see."""
        text = _event_text(name, facts)
        if text is not None:
            structlog.get_logger().info(text)

    def close(self) -> None:
        """Do nothing."""


class FetchEventDisplay:
    """JSON lines for programs, beside what a person sees."""

    def __init__(self, events: EventLines, shown: FetchDisplay | None) -> None:
        self._events = events
        self._shown = shown
        self._spoke_s = 0.0

    def progress(self, progress: FetchProgress) -> None:
        """Write where the fetch stands, about every second and at the end."""
        if self._shown is not None:
            self._shown.progress(progress)
        now_s = time.monotonic()
        if now_s - self._spoke_s >= JSON_INTERVAL_S or progress.parts_done == progress.parts_total:
            self._spoke_s = now_s
            self._events.write({"message_type": "status", **asdict(progress)})

    def event(self, name: str, facts: dict[str, object]) -> None:
        """Write an event."""
        if self._shown is not None:
            self._shown.event(name, facts)
        self._events.write({"message_type": "event", "event": name, **facts})

    def close(self) -> None:
        """Leave what is shown as it stands."""
        if self._shown is not None:
            self._shown.close()


def open_fetch_display(events: EventLines | None) -> FetchDisplay:
    """Return the display that fits; a program that reads events on standard output is the only one that is told."""
    if events is not None and events.on_standard_output:
        return FetchEventDisplay(events, None)
    shown = LiveDisplay(ShownConsole(stderr=True)) if shows_bars() else FetchLineDisplay()
    return shown if events is None else FetchEventDisplay(events, shown)


def _event_text(name: str, facts: dict[str, object]) -> str | None:
    match name:
        case "note":
            return str(facts["text"])
        case "epoch":
            return f"epoch {facts['number']} of {facts['epochs']}: {facts['epoch']}"
        case "banned":
            return f"{facts['source']} is banned for this run: {facts['problem']}"
        case "given_up":
            return f"{facts['source']} is given up for this run: {facts['problem']}"
        case "reused":
            return f"{facts['parts']} parts were here and are right"
        case "rebuilt":
            return f"{facts['parts']} parts of shard {facts['shard_id']} are rebuilt out of the base and its deltas"
    return None


def _table(progress: FetchProgress) -> Table:
    left = "" if progress.left_s is None else f", {format_seconds(progress.left_s)} left"
    table = Table(
        title=f"{progress.parts_done:,} of {progress.parts_total:,} parts, {format_bytes(progress.bytes_done)} of "
        f"{format_bytes(progress.bytes_total)}, {progress.bytes_per_s / 1e6:,.1f} MB/s, {format_seconds(progress.elapsed_s)}{left}",
        title_justify="left",
        box=None,
    )
    table.add_column("source", overflow="fold")
    for name in ("parts", "received", "MB/s", "transfers", "errors"):
        table.add_column(name, justify="right")
    table.add_column("state")
    for source in progress.sources:
        table.add_row(
            source.source_id,
            f"{source.parts:,}",
            format_bytes(source.bytes_received),
            f"{source.bytes_per_s / 1e6:,.1f}",
            str(source.active),
            str(source.errors),
            coloured((source.state, "red")) if source.state in ("banned", "given up") else source.state,
        )
    return table
