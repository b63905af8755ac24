"""The command ``statecast``: its subcommands, and the one place where errors become exit codes.

A command's module, and the libraries behind it, are imported when that command is called: version, help and completion come at once.
"""

from __future__ import annotations

import errno
import io
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial, wraps
from importlib import import_module
from importlib.metadata import version
from inspect import Parameter, signature
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from jobs.command_time import command_time
from jobs.common_options import common_first
from jobs.configuration import command_defaults, is_shared, read_configuration
from jobs.option_groups import with_options_of_fields
from pipelines.execution.process_exit import leave, say_farewell
from pipelines.execution.stop_signals import handled_signals, interrupted_by
from pipelines.stores.held_folder import remove_dead_folders
from schemas.errors import EXIT_CODES, InvalidInputError, StatecastError
from schemas.shown_text import shown_text

INTERRUPTED = "interrupted; run the same command again: nothing is lost, it goes on where this one ended"

_EXIT_CODE_HELP = "Exit codes: " + "; ".join(f"{code} {meaning}" for code, meaning in EXIT_CODES.items()) + "; any other means failure."


@dataclass(slots=True)
class _Asked:
    as_json: bool = False
    """Also by a variable or a file."""


asked = _Asked()
"""What this process's command was asked for, so far as it was understood."""


@dataclass(frozen=True, slots=True)
class _Listed:
    name: str
    summary: str
    """The first paragraph of its help."""
    module: str = ""
    """In `jobs`; empty where it is called like the command."""
    function: str = ""
    """In the module; empty where it is called like the command."""


_COMMANDS: dict[str, tuple[_Listed, ...]] = {
    "Publish a chain's epochs": (
        _Listed(
            "produce", "Compute an epoch's state parts and publish them, every object read back and verified, the signed manifest last."
        ),
        _Listed(
            "doctor",
            "Look at all that a run needs before it is begun: node, snapshots, key, space, memory, open files, clock, destination, tables.",
        ),
        _Listed("watch", "Publish every epoch of a node from now on, each once, as soon as its state snapshot is complete."),
        _Listed("backfill", "Publish a range of past epochs from one node, each proved against its state roots like a fresh one."),
        _Listed(
            "deltas",
            "Publish what changed between epochs that are published already: a delta a shard, listed by a new revision of the later epoch's manifest.",
        ),
        _Listed(
            "plan",
            "Tell what publishing takes before it is built: objects, requests, storage, traffic, machine hours, and whether the deadline is met.",
        ),
        _Listed("keygen", "Make an ed25519 key for signing manifests; the file is readable by you alone."),
    ),
    "Start a node, and help others to": (
        _Listed("fetch", "Fetch an epoch's state parts from many sources at once, verify each, and put it under its name."),
        _Listed("restore", "Apply every part, write the whole state, and prove the state root of what was written by reading it back."),
        _Listed(
            "assist",
            "Give a new node on this machine its state: bring an epoch of a bucket here, and serve it to the node as one of its peers.",
        ),
        _Listed("seed", "Seed the newest epochs of a bucket over BitTorrent until SIGTERM, SIGINT or SIGHUP."),
        _Listed("serve", "Serve a folder's state parts, headers, torrents and manifests over HTTP until SIGTERM, SIGINT or SIGHUP."),
    ),
    "Work with the data": (
        _Listed(
            "inspect",
            "Show what is in something: for people, or with --json for programs. Nothing is verified; `statecast check` does that.",
        ),
        _Listed("export", "Export an epoch's flat state as record batches, and prove that they hash to the chain's state root."),
        _Listed(
            "tables",
            "Write an exported epoch as Parquet tables with typed columns: accounts, access keys, contract data and so on, a table a kind.",
        ),
        _Listed("diff", "Tell what changed between two epochs: each record before and after, decoded, and the sums of each shard."),
        _Listed(
            "prove", "Prove what the state says of an account, access key, contract entry or contract code; also that it is not there."
        ),
        _Listed(
            "get",
            "Look many accounts, access keys or contract entries up in many published epochs, and write a table of the answers.",
            function="get_answers",
        ),
        _Listed(
            "verify-proof",
            "Verify a proof offline: its nodes, its value or absence, and its state root against what you trust.",
            "verify_proof",
            "verify_proof_file",
        ),
        _Listed("header", "Give a shard's state header (ShardStateSyncResponseHeader), as neard dumps it beside the parts."),
    ),
    "Keep what is published": (
        _Listed(
            "check",
            "Verify every object of a published epoch: digests, tries against the state roots, key intervals, torrents, signatures.",
        ),
        _Listed(
            "mirror",
            "Copy epochs from other stores, web servers, torrents or nodes into a store: verified, resumed where it ended, the manifest last.",
        ),
        _Listed("scrub", "Read back what is stored and compare it with the signed manifests: documents all, parts by sample."),
        _Listed("gc", "Delete the epochs of a chain that are no longer kept, and what killed runs left."),
        _Listed("catalogue", "Show which epochs a store has: shards, bytes, whether they are complete, and which are about to go."),
    ),
}
"""By who needs them."""
_PANELS = {command.name: (panel, command) for panel, commands in _COMMANDS.items() for command in commands}


class _Commands(TyperGroup):
    """Names and summarises all commands; makes one when it is called."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names, by who needs the commands."""
        return list(_PANELS)

    def get_command(self, ctx: Any, cmd_name: str) -> TyperCommand | None:
        """Return a command that can be shown in a list; None where there is none of the name."""
        if cmd_name not in _PANELS:
            return None
        return TyperCommand(cmd_name, help=_PANELS[cmd_name][1].summary, rich_markup_mode=None)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands and what each does, by who needs them."""
        for panel, commands in _COMMANDS.items():
            with formatter.section(panel):
                formatter.write_dl([(command.name, command.summary) for command in commands])

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Return the command that is called."""
        name, shown, rest = super().resolve_command(ctx, args)
        if shown is None:
            return name, shown, rest
        command = load_command(str(shown.name))
        place, content = read_configuration(ctx.params.get("config"))
        defaults = command_defaults(place, content, str(command.name), command_names(), command.params)
        vars(ctx)["default_map"] = {str(command.name): defaults}
        return name, command, rest


class _Command(TyperCommand):
    """One command: what its call names comes before what a variable or a file names for all."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse; see `click.Command.parse_args`."""
        rest = super().parse_args(ctx, args)
        is_named = {name: ctx.get_parameter_source(name).name == "COMMANDLINE" for name in ctx.params if ctx.get_parameter_source(name)}
        if not is_named.get("node_home", True) and any(
            ctx.params.get(other) is not None and is_named[other] for other in ("source", "url") if other in is_named
        ):
            ctx.params["node_home"] = None
        return rest


@cache
def load_command(name: str) -> TyperCommand:
    """Import a command and return it with all its options."""
    panel, command = _PANELS[name]
    function = getattr(import_module(f"jobs.{command.module or name}"), command.function or name)
    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")
    alone.command(name, cls=_Command, epilog=_EXIT_CODE_HELP, rich_help_panel=panel)(_told(with_options_of_fields(function)))
    loaded: Any = typer.main.get_command(alone)
    loaded.params = common_first(loaded.params)
    for parameter in loaded.params:
        # Each has a variable of its name; hundreds of lines that say so hide what one looks for.
        parameter.show_envvar = False
        option = next((text.removeprefix("--") for text in parameter.opts if text.startswith("--")), "")
        if is_shared(option, name):
            own, shared = (f"STATECAST_{text}".upper().replace("-", "_") for text in (f"{name}_{parameter.name}", option))
            vars(parameter)["envvar"] = [own, shared]
    return loaded  # type: ignore[no-any-return]


def _told(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command with options, beside its own, that say how much is told meanwhile."""

    def option(words: str, *names: str) -> Any:
        return Annotated[bool, typer.Option(*names, help=words, rich_help_panel="What is told meanwhile")]

    options = {
        "quiet": option("Tell of warnings and errors alone, on standard error; the result is printed.", "--quiet", "-q"),
        "verbose": option(
            "Tell each second where it stands, what libraries log, and where an unforeseen failure arose.", "--verbose", "-v"
        ),
        "no_progress": option("No bars, and no lines that say where it stands.", "--no-progress"),
    }

    @wraps(command)
    def telling(**values: Any) -> None:
        # Its library takes longer to import than help to show.
        from jobs.terminal import tell_more_or_less

        tell_more_or_less(**{name: values.pop(name) for name in options})
        asked.as_json = bool(values.get("as_json")) or values.get("events") == "-"
        for name, value in values.items():
            _refuse_url(name, value)
        command(**values)

    own = signature(command)
    added = [Parameter(name, Parameter.KEYWORD_ONLY, default=False, annotation=hint) for name, hint in options.items()]
    vars(telling)["__signature__"] = own.replace(parameters=[*own.parameters.values(), *added])
    telling.__annotations__ = {**command.__annotations__, **options}
    return telling


def _refuse_url(name: str, value: object) -> None:
    """Refuse a URL where a file or folder of this machine is meant: as a path it would be a folder of that name.

    Raises:
        InvalidInputError: it is one.
    """
    for path in value if isinstance(value, (list, tuple)) else (value,):
        # Of two slashes a path keeps one.
        found = re.match(r"([a-z][a-z0-9+.-]+):/", str(path)) if isinstance(path, Path) else None
        if found is not None:
            option = f"--{name.replace('_', '-')}"
            problem = f"{option} takes a file or folder of this machine, and no {found[1]}:// URL"
            raise InvalidInputError(problem=problem, where=option, remedy="Name a place on this machine.")


def command_names() -> list[str]:
    """Return all commands' names, by who needs them."""
    return list(_PANELS)


app = typer.Typer(
    name="statecast",
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # The library that draws the help of commands takes longer to import than this list to show.
    rich_markup_mode=None,
    help="Publish the state of a NEAR chain each epoch as nearcore-exact state parts, verified and signed.\n\n"
    "Every option is an environment variable too: STATECAST_FETCH_INTO is --into of fetch; STATECAST_NODE_HOME, STATECAST_TO and "
    "STATECAST_TRUST_KEY are those of all commands.\n\n" + _EXIT_CODE_HELP,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "STATECAST"},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"statecast {version('statecast')}")
        raise typer.Exit


@app.callback()
def _main(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, show_envvar=False, help="Print the version and exit.")
    ] = False,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            show_envvar=False,
            help="File with options. Default: STATECAST_CONFIG, ./statecast.toml or ~/.config/statecast/statecast.toml.",
        ),
    ] = None,
) -> None:
    # Its library takes longer to import than a list of commands to show.
    from jobs.terminal import configure_logging

    configure_logging()
    remove_dead_folders()


_NO_WAY = frozenset({errno.ENAMETOOLONG, errno.EACCES, errno.ENOTDIR, errno.ELOOP})


def run(arguments: Sequence[str]) -> int:
    """Run the command with arguments; return its exit code. Prints expected errors in one line, without a traceback."""
    command_time.begin()
    return _run(arguments)


def _run(arguments: Sequence[str]) -> int:
    asked.as_json = False
    if arguments[:1] == ["help"]:
        arguments = [*arguments[1:], "--help"]
    try:
        result = app(list(arguments), standalone_mode=False)
    except KeyboardInterrupt:
        return _interrupted(arguments)
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 1
    except Exception as error:
        # A process that is asked to stop need not say what else fails meanwhile: Ray's processes may be asked at the same time, and be gone first.
        if interrupted_by() is not None:
            return _interrupted(arguments)
        known = error if isinstance(error, StatecastError) else _path_error(error)
        return _unforeseen(error, arguments) if known is None else _report(known, arguments)
    # Typer makes that of an interrupt, and no command returns it.
    if result == 128 + signal.SIGINT:
        return _interrupted(arguments)
    return result if isinstance(result, int) else 0


def _interrupted(arguments: Sequence[str]) -> int:
    """Give back what others wait for, and say how to go on."""
    _release_claims()
    code = 128 + (interrupted_by() or signal.SIGINT)
    _print_error_json(arguments, {"kind": "interrupted", "exit_code": code, "problem": INTERRUPTED, "message": INTERRUPTED})
    # A signal may come in the midst of another line.
    if interrupted_by():
        sys.stderr.write("\n")
    _say(INTERRUPTED)
    return code


def _release_claims() -> None:
    # What was not imported holds none, and to import it now would wait for the thread that imports something.
    module = sys.modules.get("pipelines.bucket.epoch_claim")
    if module is not None:
        module.release_held_claims()


def _report(error: StatecastError, arguments: Sequence[str]) -> int:
    message = str(error)
    _print_error_json(arguments, {**error.to_json(), "message": message})
    _say(f"error: {message}")
    return error.exit_code


def _path_error(error: Exception) -> StatecastError | None:
    """Return what the system says of a path before anything is done there; None where this is something else."""
    if isinstance(error, OSError) and error.errno in _NO_WAY and error.filename is not None:
        return InvalidInputError(problem=f"nothing can be looked for there: {error.strerror}", where=os.fsdecode(error.filename)[:200])
    return None


def _unforeseen(error: Exception, arguments: Sequence[str]) -> int:
    """Report what no handler foresaw: usage errors of the argument parser, or a fault of ours."""
    exit_code = getattr(error, "exit_code", None)
    shown = getattr(error, "show", None)
    if shown is not None and isinstance(exit_code, int):
        if isinstance(words := getattr(error, "message", None), str):
            vars(error)["message"] = shown_text(words)
        message = shown_text(getattr(error, "format_message", lambda: str(error))())
        _print_error_json(arguments, {"kind": "invalid_input", "exit_code": exit_code, "problem": message, "message": message})
        shown()
        return exit_code
    if os.environ.get("STATECAST_TRACEBACK") or _is_verbose():
        for line in "".join(traceback.format_exception(error)).splitlines():
            _say(line)
    message = shown_text(f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}")
    _print_error_json(arguments, {"kind": "unexpected", "exit_code": 1, "problem": message, "message": message})
    _say(f"unexpected failure: {message}. Run again with --verbose for the details.")
    return 1


def _is_verbose() -> bool:
    terminal = sys.modules.get("jobs.terminal")
    return terminal is not None and terminal.told.verbose


def _print_error_json(arguments: Sequence[str], error: dict[str, object]) -> None:
    if asked.as_json or _asks_for_json(arguments):
        from jobs.terminal import print_json

        print_json({"message_type": "error", "error": error})


def _asks_for_json(arguments: Sequence[str]) -> bool:
    pairs = (f"{name} {value}" for name, value in pairwise(arguments))
    return any(
        argument in ("--json", "--events=-", "--log-format=json", "--events -", "--log-format json") for argument in (*arguments, *pairs)
    )


def _say(line: str) -> None:
    sys.stderr.write(shown_text(line) + "\n")


def _give_up(arguments: Sequence[str], number: int | None) -> None:
    """Do the least before the process ends as it is."""
    if number is None:
        _release_claims()
    else:
        _interrupted(arguments)


def main() -> None:
    """Run the command line of this process."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # What a terminal's encoding lacks is written as an escape and ends nothing.
            stream.reconfigure(errors="backslashreplace")
    arguments = sys.argv[1:]
    name = next((argument for argument in arguments if argument in _PANELS), None)
    if name is not None and sys.stderr.isatty() and not {"--quiet", "-q", "--help", "-h"} & set(arguments):
        command_time.say_soon(name)
    with handled_signals(partial(_give_up, arguments)):
        code = _run(arguments)
    say_farewell()
    leave(code)


if __name__ == "__main__":
    # The module under its own name, where the others look for it.
    import_module("jobs.cli").main()
