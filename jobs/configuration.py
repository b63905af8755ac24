"""A file with options, and short variables for what several commands share.

The file is the first of ``--config``, ``STATECAST_CONFIG``, ``statecast.toml`` in the working folder and
``~/.config/statecast/statecast.toml``; an empty ``STATECAST_CONFIG`` means none. An option of the command line comes before a variable,
a variable before the file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from schemas.errors import InvalidInputError

VARIABLE: Final = "STATECAST_CONFIG"
PLACES: Final = (Path("statecast.toml"), Path("~/.config/statecast/statecast.toml"))
CONFIGURATION_BYTES_MAX: Final = 1 << 20

SHARED: Final[Mapping[str, frozenset[str] | None]] = {
    "node-home": None,
    "to": frozenset({"produce", "watch", "backfill"}),
    "trust-key": None,
    "quiet": None,
    "verbose": None,
    "no-progress": None,
}
"""Options that may stand before all commands' own, and have a variable without a command's name; for some of them, of which commands: what
``--to`` of ``export`` names is no bucket of epochs."""


def is_shared(option: str, command: str) -> bool:
    """Whether a command takes an option from what commands share."""
    return option in SHARED and command in (SHARED[option] or {command})


def read_configuration(named: Path | None) -> tuple[str, dict[str, Any]]:
    """Return the file's place and its content; empty where there is none.

    Args:
        named: what ``--config`` names.
    Raises:
        InvalidInputError: a file that is named is not there; it is not this user's; or it is no TOML.
    """
    file = named or _found()
    if file is None:
        return "", {}
    # Imported here: most starts read no file.
    import tomllib

    from pipelines.stores.regular_file import open_regular

    try:
        with open_regular(file.expanduser()) as opened:
            owner = os.fstat(opened.fileno()).st_uid
            data = opened.read(CONFIGURATION_BYTES_MAX + 1)
    except (OSError, RuntimeError, ValueError) as error:
        problem = f"the configuration can't be read: {getattr(error, 'strerror', None) or error}"
        raise InvalidInputError(problem=problem, where=str(file)) from None
    if owner not in (0, os.geteuid()):
        # It says whom to believe: one that lies in a working folder may be anybody's.
        raise InvalidInputError(
            problem="the configuration belongs to another user", where=str(file), remedy="Name one of yours with --config."
        )
    if len(data) > CONFIGURATION_BYTES_MAX:
        raise InvalidInputError(problem=f"a configuration has at most {CONFIGURATION_BYTES_MAX} bytes", where=str(file))
    try:
        return str(file), tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(problem=f"the configuration is no TOML: {error}", where=str(file)) from None


def _found() -> Path | None:
    if (variable := os.environ.get(VARIABLE)) is not None:
        return Path(variable) if variable else None
    for place in PLACES:
        try:
            if place.expanduser().is_file():
                return place
        except (OSError, RuntimeError):
            continue
    return None


def command_defaults(
    place: str, content: Mapping[str, Any], command: str, commands: Sequence[str], parameters: Sequence[Any]
) -> dict[str, Any]:
    """Return what a configuration says of a command, by the names of its parameters.

    Args:
        commands: all commands' names.
        parameters: click's of the command.
    Raises:
        InvalidInputError: a name that is no option, or a value of another kind; of the tables of other commands, the name alone is looked at.
    """
    options = {name.removeprefix("--"): parameter for parameter in parameters for name in parameter.opts if name.startswith("--")}
    found: dict[str, Any] = {}
    for name, value in content.items():
        option = name.replace("_", "-")
        if isinstance(value, dict):
            if name not in commands:
                raise InvalidInputError(problem=f"there is no command {name}", where=f"{place}: [{name}]")
        elif option not in SHARED:
            raise InvalidInputError(
                problem=f"{name} is no option that commands share",
                where=f"{place}: {name}",
                remedy=f"Before all tables stand {', '.join(SHARED)}; an option of a command stands in its table, as [fetch].",
            )
        elif is_shared(option, command) and option in options:
            found[options[option].name] = _value(value, options[option], f"{place}: {name}")
    for name, value in content.get(command, {}).items():
        option = name.replace("_", "-")
        if option not in options or option in ("help", "config"):
            raise InvalidInputError(problem=f"{command} has no option --{option}", where=f"{place}: [{command}] {name}")
        found[options[option].name] = _value(value, options[option], f"{place}: [{command}] {name}")
    return found


def _value(value: Any, parameter: Any, where: str) -> Any:
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(one, (str, int, float)) for one in values) or (isinstance(value, list) and not parameter.multiple):
        raise InvalidInputError(problem="this is no value of the option", where=where)
    if any(isinstance(one, str) and "\0" in one for one in values):
        raise InvalidInputError(problem="no value of an option has a NUL character", where=where)
    if isinstance(value, bool) != bool(getattr(parameter, "is_flag", False)):
        raise InvalidInputError(problem="true or false is for options without a value, and they have nothing else", where=where)
    return values if parameter.multiple else value
