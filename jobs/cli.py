"""The command ``statecast``: its subcommands, and the one place where errors become exit codes."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Annotated

import typer

from jobs.backfill import backfill
from jobs.catalogue import catalogue
from jobs.check import check
from jobs.export import export
from jobs.fetch import fetch
from jobs.gc import gc
from jobs.header import header
from jobs.import_parts import import_parts
from jobs.inspect import inspect
from jobs.keygen import keygen
from jobs.option_groups import with_options_of_fields
from jobs.plan import plan
from jobs.produce import produce
from jobs.prove import prove
from jobs.restore import restore
from jobs.scrub import scrub
from jobs.seed import seed
from jobs.serve import serve
from jobs.tables import tables
from jobs.terminal import configure_logging
from jobs.verify_proof import verify_proof_file
from jobs.watch import watch
from pipelines.execution.process_exit import leave
from schemas.errors import EXIT_CODES, StatecastError

_EXIT_CODE_HELP = "Exit codes: " + "; ".join(f"{code} {meaning}" for code, meaning in EXIT_CODES.items()) + "; any other means failure."

app = typer.Typer(
    name="statecast",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Publish the state of a NEAR chain each epoch as nearcore-exact state parts, verified and signed.\n\n" + _EXIT_CODE_HELP,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "STATECAST"},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"statecast {version('statecast')}")
        raise typer.Exit


@app.callback()
def _main(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    configure_logging()


_COMMANDS: dict[str, tuple[Callable[..., None], ...]] = {
    "Publish a chain's epochs": (produce, watch, backfill, plan, keygen),
    "Start a node, and help others to": (fetch, restore, import_parts, seed, serve),
    "Work with the data": (inspect, export, tables, prove, verify_proof_file, header),
    "Keep what is published": (check, scrub, gc, catalogue),
}
"""By who needs them."""
_NAMES: dict[Callable[..., None], str] = {import_parts: "import", verify_proof_file: "verify-proof"}
"""Where the command is not called like its function."""

for _panel, _functions in _COMMANDS.items():
    for _function in _functions:
        app.command(_NAMES.get(_function, _function.__name__), epilog=_EXIT_CODE_HELP, rich_help_panel=_panel)(
            with_options_of_fields(_function)
        )


def run(arguments: Sequence[str]) -> int:
    """Run the command with arguments; return its exit code. Prints expected errors in one line, without a traceback."""
    try:
        result = app(list(arguments), standalone_mode=False)
    except StatecastError as error:
        return _report(error, arguments)
    except KeyboardInterrupt:
        message = "interrupted; nothing is lost: the same command goes on where this ended"
        _print_error_json(arguments, {"kind": "interrupted", "exit_code": 130, "problem": message, "message": message})
        _say(message)
        return 130
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 1
    except Exception as error:
        return _unforeseen(error, arguments)
    return result if isinstance(result, int) else 0


def _report(error: StatecastError, arguments: Sequence[str]) -> int:
    # A parser's complaint within it may have lines of its own.
    message = " ".join(str(error).split())
    _print_error_json(arguments, {**error.to_json(), "message": message})
    _say(f"error: {message}")
    return error.exit_code


def _unforeseen(error: Exception, arguments: Sequence[str]) -> int:
    """Report what no handler foresaw: usage errors of the argument parser, or a fault of ours."""
    exit_code = getattr(error, "exit_code", None)
    shown = getattr(error, "show", None)
    if shown is not None and isinstance(exit_code, int):
        message = getattr(error, "format_message", lambda: str(error))()
        _print_error_json(arguments, {"kind": "invalid_input", "exit_code": exit_code, "problem": message, "message": message})
        shown()
        return exit_code
    if type(error).__name__ == "Abort":
        return 130
    if os.environ.get("STATECAST_TRACEBACK"):
        traceback.print_exception(error)
    message = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    _print_error_json(arguments, {"kind": "unexpected", "exit_code": 1, "problem": message, "message": message})
    _say(f"unexpected failure: {message}. Run again with STATECAST_TRACEBACK=1 in the environment for the details.")
    return 1


def _print_error_json(arguments: Sequence[str], error: dict[str, object]) -> None:
    if "--json" in arguments:
        sys.stdout.write(json.dumps({"message_type": "error", "error": error}) + "\n")


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")


def main() -> None:
    """Run the command line of this process."""
    leave(run(sys.argv[1:]))
