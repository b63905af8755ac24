"""What a watcher says: one event a line, for people on standard error or as JSON on standard output."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import structlog
from structlog.typing import Processor

from jobs.terminal import LINE_INTERVAL_S, json_text, shown_event
from pipelines.execution.progress import StageProgress
from pipelines.producing.watch.watch_decisions import WatchedEpoch

_WARNINGS = frozenset({"poll_failed", "waiting_for_other_producer", "attempt_stopped", "memory_lost"})
_ERRORS = frozenset({"failed", "epoch_failed", "epoch_abandoned"})


class LogFormat(StrEnum):
    """How a log line looks."""

    TEXT = "text"
    JSON = "json"


class WatchLog:
    """Writes a watcher's events and its attempts' progress."""

    def __init__(self, log_format: LogFormat) -> None:
        """Set up the process's log lines.

        Args:
            log_format: text for people on standard error, or JSON objects on standard output.
        """
        self._as_json = log_format is LogFormat.JSON
        self._stream = sys.stdout if self._as_json else sys.stderr
        colours = not self._as_json and self._stream.isatty()
        as_json: list[Processor] = [structlog.processors.JSONRenderer(json_text)]
        as_text: list[Processor] = [shown_event, structlog.dev.ConsoleRenderer(colors=colours)]
        structlog.configure(
            processors=[
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso" if self._as_json else "%Y-%m-%dT%H:%M:%SZ", utc=True),
                *(as_json if self._as_json else as_text),
            ],
            # Each line is one write and is flushed: lines of two threads do not mix.
            logger_factory=structlog.PrintLoggerFactory(self._stream),
        )

    def event(self, kind: str, message: str, facts: Mapping[str, Any]) -> None:
        """Write one event; may be called from several threads. A log that can't be written does not end what it tells of."""
        try:
            self._write(kind, message, facts)
        except BrokenPipeError:
            # The reader is gone. What is still in the buffer must not fail at the end of the process either.
            with open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), self._stream.fileno())
        except OSError:
            # A full disk may have room again for the next line.
            return

    def _write(self, kind: str, message: str, facts: Mapping[str, Any]) -> None:
        log = structlog.get_logger()
        write = log.error if kind in _ERRORS else log.warning if kind in _WARNINGS else log.info
        if self._as_json:
            write(kind, message=message, **facts)
        else:
            write(message, **{name: value for name, value in facts.items() if not isinstance(value, dict)})

    def progress(self, epoch: WatchedEpoch) -> AttemptLines:
        """Return the progress of an attempt."""
        return AttemptLines(self, epoch.epoch_height)


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
