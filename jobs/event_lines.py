"""What happens while a command runs, as JSON objects, one a line: appended to a file, or on standard output.

The last line is the result: a ``summary``, a ``plan`` or the ``error``. ``--json`` is that one object alone.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Annotated, Any, Final, NoReturn, TextIO

import typer

from jobs.terminal import json_text, print_json, say
from pipelines.execution.stop_signals import interrupted_by
from schemas.errors import InvalidInputError, StatecastError

STANDARD_OUTPUT: Final = "-"

Events = Annotated[
    str | None,
    typer.Option(
        "--events",
        metavar="FILE|-",
        help="Append what happens to a file as JSON objects, one a line, the last one the result; - is standard output, which has nothing "
        "else then.",
        show_default=False,
    ),
]


class EventLines:
    """Writes JSON lines; may be called from several threads. What can't be written does not end what it tells of."""

    def __init__(self, stream: TextIO, *, on_standard_output: bool) -> None:
        self._stream = stream
        self._lock = Lock()
        self.on_standard_output = on_standard_output
        """Nothing else is written there."""

    def write(self, document: Mapping[str, Any]) -> None:
        """Write one object, in one write."""
        with self._lock:
            write_line(self._stream, json_text(document))


def write_line(stream: TextIO, line: str) -> None:
    """Write a line for an observer, in one write; one that is gone or whose disk is full is let be."""
    try:
        stream.write(line + "\n")
        stream.flush()
    except BrokenPipeError:
        # What is still in the buffer must not fail at the end of the process either.
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), stream.fileno())
    except OSError:
        # A full disk may have room again for the next line.
        return


@contextmanager
def opened_events(target: str | None, *, as_json: bool) -> Iterator[EventLines | None]:
    """Open what ``--events`` names; None where it names nothing. An error that passes is written to a file as its last line.

    Raises:
        InvalidInputError: the file can't be written, or ``--json`` asks for one object where events would go too.
    """
    if target is None:
        yield None
    elif target == STANDARD_OUTPUT:
        if as_json:
            raise InvalidInputError(
                problem="--json and --events - both go to standard output",
                remedy="Leave --json out: the last event is the same object; or name a file for the events.",
            )
        # An error's object is written there by the command line, for --json too.
        yield EventLines(sys.stdout, on_standard_output=True)
    else:
        try:
            stream = Path(target).expanduser().open("a", encoding="utf-8")
        except (OSError, ValueError, RuntimeError) as error:
            problem = f"the file can't be written: {getattr(error, 'strerror', None) or error}"
            raise InvalidInputError(problem=problem, where=f"--events {target}") from None
        with stream:
            yield from _ended_by_error(EventLines(stream, on_standard_output=False))


def _ended_by_error(events: EventLines) -> Iterator[EventLines]:
    try:
        yield events
    except StatecastError as error:
        events.write(_error_document(error))
        raise
    except KeyboardInterrupt:
        words = "interrupted"
        facts = {"kind": "interrupted", "exit_code": 128 + (interrupted_by() or 2), "problem": words, "message": words}
        events.write({"message_type": "error", "error": facts})
        raise


def write_result(document: Mapping[str, Any], events: EventLines | None, *, as_json: bool) -> bool:
    """Write a result where programs read it; return whether standard output has it, which is for people otherwise."""
    if events is not None:
        events.write(document)
    if as_json:
        print_json(dict(document))
    return as_json or (events is not None and events.on_standard_output)


def fail(error: StatecastError, events: EventLines | None = None, *, facts: Mapping[str, object], as_json: bool) -> NoReturn:
    """End a command with an error of which more is known: one object for programs, one line for people.

    Args:
        facts: stand before the error in the object; ``message_type`` too, where a result is there all the same.
    """
    write_result({**_error_document(error), **facts}, events, as_json=as_json)
    say(f"error: {error}", on_stderr=True)
    raise typer.Exit(error.exit_code)


def _error_document(error: StatecastError) -> dict[str, object]:
    return {"message_type": "error", "error": {**error.to_json(), "message": str(error)}}
