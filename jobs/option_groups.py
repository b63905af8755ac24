"""Options that commands share as one value: a frozen dataclass, whose fields are options of each command that has it as a parameter.

``def produce(publish: Annotated[PublishOptions, Without("num_parts")], run: RunOptions)``: a field is an option or a dataclass of options.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any, get_type_hints


@dataclass(frozen=True)
class Without:
    """Which field of a dataclass of options a command has no option for; it keeps its default."""

    name: str


def with_options_of_fields(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command for typer: its options are the command's parameters, those that are dataclasses replaced by their fields, in order."""
    hints = get_type_hints(command, include_extras=True)
    own = [(name, hints[name], parameter.default) for name, parameter in inspect.signature(command).parameters.items()]
    options = [option for parameter in own for option in _options(*parameter)]

    @functools.wraps(command)
    def flat(**values: Any) -> None:
        command(**{name: _value(name, hint, values) for name, hint, _ in own})

    vars(flat)["__signature__"] = inspect.Signature(options)
    flat.__annotations__ = {option.name: option.annotation for option in options}
    return flat


def _options(name: str, hint: Any, default: Any) -> Iterator[inspect.Parameter]:
    if (members := _members(hint)) is None:
        yield inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint)
    for member in members or ():
        yield from _options(*member)


def _value(name: str, hint: Any, values: Mapping[str, Any]) -> Any:
    if (members := _members(hint)) is None:
        return values[name]
    return getattr(hint, "__origin__", hint)(**{field: _value(field, field_hint, values) for field, field_hint, _ in members})


def _members(hint: Any) -> list[tuple[str, Any, Any]] | None:
    """Return name, type and default of each field that has an option; None where the type is no dataclass."""
    kind = getattr(hint, "__origin__", hint)
    if not is_dataclass(kind):
        return None
    left_out = {extra.name for extra in getattr(hint, "__metadata__", ()) if isinstance(extra, Without)}
    hints = get_type_hints(kind, include_extras=True)
    own = [field for field in fields(kind) if field.name not in left_out]
    return [(field.name, hints[field.name], inspect.Parameter.empty if field.default is MISSING else field.default) for field in own]
