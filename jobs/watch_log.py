"""What a watcher says: one event a line, for people on standard error, and as JSON lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, NoReturn, TextIO

import structlog
from structlog.typing import Processor

from jobs.event_lines import EventLines, write_line
from jobs.terminal import LINE_INTERVAL_S, shown_event
from pipelines.execution.progress import StageProgress
from pipelines.producing.watch.watch_decisions import WatchedEpoch

_WARNINGS = frozenset({"poll_failed", "waiting_for_other_producer", "attempt_stopped", "memory_lost"})
_ERRORS = frozenset({"failed", "epoch_failed", "epoch_abandoned"})


class LogFormat(StrEnum):
    """How a log line looks."""

    TEXT = "text"
    JSON = "json"


class WatchLog:
    """Writes a watcher's events and its attempts' progress. A log that can't be written does not end what it tells of."""

    def __init__(self, events: EventLines | None) -> None:
        """Set up the process's log lines.

        Args:
            events: where programs read what happens; on standard output it has the process's other log lines too, and a person is told
                nothing.
        """
        self._events = events
        self._is_shown = events is None or not events.on_standard_output
        as_text: list[Processor] = [shown_event, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
        structlog.configure(
            processors=[
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="%Y-%m-%dT%H:%M:%SZ" if self._is_shown else "iso", utc=True),
                *(as_text if self._is_shown else [self._as_event]),
            ],
            logger_factory=lambda *_: _Lines(sys.stderr),
        )

    def event(self, kind: str, message: str, facts: Mapping[str, Any]) -> None:
        """Write one event; may be called from several threads."""
        level = "error" if kind in _ERRORS else "warning" if kind in _WARNINGS else "info"
        if self._events is not None:
            self._write({**facts, "event": kind, "message": message, "level": level, "timestamp": datetime.now(UTC).isoformat()})
        if self._is_shown:
            log = structlog.get_logger()
            getattr(log, level)(message, **{name: value for name, value in facts.items() if not isinstance(value, dict)})

    def _as_event(self, _logger: Any, _method: str, event: MutableMapping[str, Any]) -> NoReturn:
        self._write(event)
        raise structlog.DropEvent

    def _write(self, facts: Mapping[str, Any]) -> None:
        assert self._events is not None, "asked before"
        self._events.write({"message_type": "event", **facts})

    def progress(self, epoch: WatchedEpoch) -> AttemptLines:
        """Return the progress of an attempt."""
        return AttemptLines(self, epoch.epoch_height)


class _Lines:
    """What structlog writes to: each line is one write, so that lines of two threads do not mix."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def msg(self, line: str) -> None:
        """Write a line."""
        write_line(self._stream, line)

    info = warning = error = msg


@dataclass(slots=True)
class AttemptLines:
    """An attempt's progress as events: a stage's end, and a step now and then."""

    log: WatchLog
    epoch_height: int
    _spoke: dict[tuple[str, str], float] = field(default_factory=dict)

    def stage(self, progress: StageProgress) -> None:
        """Write a step."""
        key, now = (progress.stage, progress.shard), time.monotonic()
        spoke = self._spoke.setdefault(key, now)
        if not progress.total or (progress.done < progress.total and now - spoke < LINE_INTERVAL_S):
            return
        self._spoke[key] = now
        facts = {"epoch_height": self.epoch_height, "stage": progress.stage, "shard": progress.shard or None}
        counts = {
            "done": progress.done,
            "total": progress.total,
            "records": progress.records,
            "bytes": progress.size,
            "parts": progress.parts,
        }
        self.log.event("stage", f"{progress.stage} {progress.done}/{progress.total}", facts | {name: n for name, n in counts.items() if n})

    def note(self, message: str) -> None:
        """Write a line."""
        self.log.event("note", message, {"epoch_height": self.epoch_height})
