"""What a person sees while a job runs: progress bars on a terminal, plain lines elsewhere, always on standard error.

Standard output is for results alone, so that ``--json`` can be piped. Whatever is written goes through `schemas.shown_text` here: tables
and lines by `ShownConsole`, `coloured` and `say`, log lines by `shown_event`, other packages' by a handler, JSON by `json_text`.
"""

from __future__ import annotations

import json
import logging
import math
import sys
import time
from collections.abc import Collection, Iterable, MutableMapping
from dataclasses import dataclass, field, fields
from typing import Any

import structlog
from rich.console import Console, ConsoleOptions, RenderableType
from rich.measure import Measurement
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.segment import Segment
from rich.table import Column, Table
from rich.text import Text

from jobs.command_time import command_time
from pipelines.execution.progress import StageProgress
from schemas.errors import InvalidInputError
from schemas.shown_size import shown_size
from schemas.shown_text import shown_text, shown_values

LINE_INTERVAL_S = 10.0
"""Off a terminal, a stage writes a line at its beginning and end and about this often between."""

BAR_COLUMNS_MIN = 110
"""Columns of a terminal from which on bars are wide."""

RESULT_WIDTH = 180
"""Columns of a table that goes into a file or a pipe."""

_WIDTH_MAX = 100_000
"""Wider than any table."""

_STAGE_NAMES = {
    "export": "export records",
    "values": "export values",
    "hash": "hash records",
    "structure": "plan: structure",
    "boundaries": "plan: boundaries",
    "boundary nodes": "read boundary nodes",
    "build": "build parts",
    "seal": "seal the root",
    "publish": "publish parts",
    "check": "check parts",
    "scrub": "read parts back",
    "validate": "validate parts",
    "apply": "apply parts",
    "merge": "merge state rows",
    "verify": "read back: tries",
    "verify rows": "read back: rows",
    "load": "neard loads parts",
}


_SHORT_STAGES = frozenset({"values", "structure", "boundaries", "boundary nodes", "seal"})


format_bytes = shown_size


def format_seconds(seconds: float) -> str:
    """Return a duration as people say it."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _rates(progress: StageProgress, elapsed_s: float) -> str:
    parts = []
    if elapsed_s > 0.05:
        if progress.records:
            parts.append(f"{progress.records / elapsed_s:,.0f} records/s")
        if progress.size:
            parts.append(f"{progress.size / elapsed_s / 1e6:,.1f} MB/s")
    if progress.parts:
        parts.append(f"{progress.parts} parts")
    return ", ".join(parts)


class ShownConsole(Console):
    """A console that takes every text for a text: it knows no markup and no emoji codes, and lets nothing through that a terminal obeys."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """See `Console.render_str`."""
        return super().render_str(shown_text(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """See `Console.render`. Also what was made a `Text` elsewhere is without control characters."""
        for segment in super().render(renderable, options):
            yield segment if segment.control or segment.text.isprintable() else _shown_segment(segment)

    def print(self, *objects: Any, **options: Any) -> None:
        """See `Console.print`. A table is as wide as it needs; on a terminal that is too narrow for it, each row is lines of its own."""
        command_time.spoke()
        if len(objects) == 1 and isinstance(table := objects[0], Table):
            width = Measurement.get(self, self.options.update(max_width=_WIDTH_MAX), table).maximum
            if width > self.width:
                if self.is_terminal:
                    self._print_rows(table)
                else:
                    narrow, self.width = self.width, width
                    super().print(table, **options)
                    self.width = narrow
                return
        super().print(*objects, **options)

    def _print_rows(self, table: Table) -> None:
        if table.title:
            super().print(table.title, soft_wrap=True, highlight=False)
        names = [str(column.header) for column in table.columns]
        for cells in zip(*(column.cells for column in table.columns), strict=True):
            for name, cell in zip(names, cells, strict=True):
                shown = cell if isinstance(cell, Text) else Text(shown_text(str(cell)))
                super().print(Text.assemble(f"  {shown_text(name):<{max(map(len, names))}}  ", shown), soft_wrap=True, highlight=False)
            super().print()


def _shown_segment(segment: Segment) -> Segment:
    return segment._replace(text="\n".join(map(shown_text, segment.text.split("\n"))))


def coloured(*parts: str | tuple[str, str]) -> Text:
    """Return a line or a cell, some of it in colour.

    Args:
        parts: text, or text and its colour.
    """
    return Text.assemble(*(shown_text(part) if isinstance(part, str) else (shown_text(part[0]), part[1]) for part in parts))


def say(line: str, *, on_stderr: bool = False) -> None:
    """Write one line."""
    command_time.spoke()
    stream = sys.stderr if on_stderr else sys.stdout
    stream.write(shown_text(line) + "\n")
    stream.flush()


def json_text(document: Any, **options: Any) -> str:
    """Return a JSON document in one line without secrets of URLs, in printable ASCII.

    Args:
        options: of `json.dumps`.
    """
    return json.dumps(shown_values(document), **options).replace("\x7f", "\\u007f")


def print_json(document: dict[str, Any]) -> None:
    """Write a JSON document in one line to standard output, in one write: several threads may write."""
    sys.stdout.write(json_text(document) + "\n")
    sys.stdout.flush()


class BarProgress:
    """Progress bars on a terminal: a line a stage and shard, with rates and time left."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24 if console.width >= BAR_COLUMNS_MIN else 8),
            MofNCompleteColumn(),
            # On a narrow terminal this wraps before anything else is cut.
            TextColumn("{task.fields[rates]}", markup=False, table_column=Column(no_wrap=False, overflow="fold")),
            TimeElapsedColumn(),
            TimeRemainingColumn(elapsed_when_finished=False),
            console=console,
        )
        self._started = False
        self._tasks: dict[tuple[str, str], tuple[TaskID, float]] = {}

    def stage(self, progress: StageProgress) -> None:
        """Draw a step."""
        if not self._started:
            command_time.spoke()
            self._bars.start()
            self._started = True
        key = (progress.stage, progress.shard)
        if key not in self._tasks:
            name = f"{_STAGE_NAMES.get(progress.stage, progress.stage):<17} {progress.shard:<8}"
            self._tasks[key] = (self._bars.add_task(name, total=progress.total, rates=""), time.monotonic())
        task, began = self._tasks[key]
        # A bar a stage and shard would fill the screen: the short stages go when they are done.
        visible = progress.done < progress.total or progress.stage not in _SHORT_STAGES
        rates = _rates(progress, time.monotonic() - began)
        self._bars.update(task, completed=progress.done, total=progress.total, rates=rates, visible=visible)

    def note(self, message: str) -> None:
        """Print a line above the bars."""
        self._console.print(coloured(message))

    def close(self) -> None:
        """Leave the bars as they stand."""
        if self._started:
            self._bars.stop()


@dataclass(slots=True)
class LineProgress:
    """Plain log lines where there is no terminal."""

    _began: dict[tuple[str, str], float] = field(default_factory=dict)
    _spoke: dict[tuple[str, str], float] = field(default_factory=dict)

    def stage(self, progress: StageProgress) -> None:
        """Log a stage's end, and a step now and then."""
        key, now = (progress.stage, progress.shard), time.monotonic()
        began = self._began.setdefault(key, now)
        spoke = self._spoke.setdefault(key, now)
        if told.no_progress or not progress.total or (progress.done < progress.total and now - spoke < told.interval_s):
            return
        self._spoke[key] = now
        left_s = (now - began) / progress.done * (progress.total - progress.done) if progress.done else None
        structlog.get_logger().info(
            _STAGE_NAMES.get(progress.stage, progress.stage),
            **({"shard": progress.shard} if progress.shard else {}),
            done=f"{progress.done}/{progress.total}",
            **({"records": progress.records} if progress.records else {}),
            **({"rates": rates} if (rates := _rates(progress, now - began)) else {}),
            **({"left": format_seconds(left_s)} if left_s and progress.done < progress.total else {}),
        )

    def note(self, message: str) -> None:
        """Log a line."""
        structlog.get_logger().info(message)

    def close(self) -> None:
        """Do nothing."""


def shown_event(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Make an event's names and values fit to be shown; a processor of structlog before one that writes text."""
    command_time.spoke()
    return {shown_text(name): _shown_value(value) for name, value in event.items()}


def _shown_value(value: Any) -> Any:
    if isinstance(value, str):
        return shown_text(value)
    # It is written as its representation.
    shown = shown_text(repr(value))
    return value if shown == repr(value) else shown


class _OtherPackages(logging.Handler):
    """Lines of packages that log by themselves: what they warn of may name URLs and repeat what a server said. Without tracebacks."""

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler.emit`."""
        log = structlog.get_logger()
        write = log.error if record.levelno >= logging.ERROR else log.warning if record.levelno >= logging.WARNING else log.info
        write(record.getMessage(), package=record.name)


@dataclass(slots=True)
class Told:
    """How much a command tells of what it does, on standard error."""

    quiet: bool = False
    """Warnings and errors alone."""
    verbose: bool = False
    no_progress: bool = False

    @property
    def interval_s(self) -> float:
        """How often a line says where a stage stands."""
        return math.inf if self.no_progress else 1.0 if self.verbose else LINE_INTERVAL_S

    @property
    def level(self) -> int:
        """The least level of a log line that is written."""
        return logging.WARNING if self.quiet else logging.INFO


told = Told()
"""What this process's command was asked to tell."""


def tell_more_or_less(**change: bool) -> None:
    """Change `told`; log lines follow."""
    for name, value in change.items():
        setattr(told, name, value)
    if told.quiet and told.verbose:
        raise InvalidInputError(problem="--quiet excludes --verbose")
    logging.getLogger().setLevel(logging.INFO if told.verbose else logging.WARNING)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(told.level))


def shows_bars() -> bool:
    """Whether a display may be drawn over and over: standard error is a terminal, and nobody asked for less."""
    return sys.stderr.isatty() and not told.quiet and not told.no_progress


def configure_logging() -> None:
    """Send log lines to standard error, without colours where it is no terminal; as much as a command tells by itself."""
    for option in fields(told):
        setattr(told, option.name, False)
    logging.basicConfig(handlers=[_OtherPackages()], level=logging.WARNING)
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(told.level),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%Y-%m-%dT%H:%M:%SZ", utc=True),
            shown_event,
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=20),
        ],
        # Asked for with each line: what standard error is may change while the process lives.
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )


def open_table(columns: Iterable[str], *, left: Collection[str] | None = (), title: str | None = None) -> Table:
    """Return an empty table for a result; what is too long for a column is folded, never cut.

    Args:
        columns: their headings, from left to right.
        left: of columns of text; the others are numbers and stand to the right. None: all are text.
    """
    table = Table(title=title, title_justify="left")
    for name in columns:
        table.add_column(name, justify="left" if left is None or name in left else "right", overflow="fold")
    return table


def open_console() -> ShownConsole:
    """Return a console for results on standard output; where that is no terminal, lines are not cut to a terminal's width."""
    return ShownConsole() if sys.stdout.isatty() else ShownConsole(width=RESULT_WIDTH)


def open_progress() -> BarProgress | LineProgress:
    """Return the progress display that fits standard error."""
    return BarProgress(ShownConsole(stderr=True)) if shows_bars() else LineProgress()
