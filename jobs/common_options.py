"""Which options come first in every command's help: what nearly every call of it names, in one order for all commands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

COMMON: Final = (
    "--node-home",
    "--from",
    "--source",
    "--to",
    "--into",
    "--out",
    "--epoch",
    "--epochs",
    "--chain-id",
    "--shard-id",
    "--trust-key",
    "--signing-key",
    "--keep-epochs",
    "--plan",
    "--json",
)
"""The rest stands below, by what it is about. What must be given is common too."""

OTHER_PANEL: Final = "Less often"
"""Of options that are about nothing that has a name of its own."""


def common_first(parameters: Sequence[Any]) -> list[Any]:
    """Return click's parameters of a command: arguments, then common options in the first panel, then the others in their own order and panels."""
    arguments = [parameter for parameter in parameters if parameter.param_type_name == "argument"]
    options = [parameter for parameter in parameters if parameter.param_type_name != "argument"]
    common = sorted((option for option in options if _is_common(option)), key=_place)
    others = [option for option in options if not _is_common(option)]
    for option in common:
        option.rich_help_panel = None
    for option in others:
        option.rich_help_panel = option.rich_help_panel or OTHER_PANEL
    return [*arguments, *common, *others]


def _is_common(option: Any) -> bool:
    return bool(option.required) or not set(COMMON).isdisjoint(option.opts)


def _place(option: Any) -> int:
    return min((COMMON.index(name) for name in option.opts if name in COMMON), default=len(COMMON))
