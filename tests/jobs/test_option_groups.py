"""Dataclasses of options as typer sees them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from jobs.option_groups import Without, with_options_of_fields


@dataclass(frozen=True)
class Inner:
    """A group within a group."""

    rate: Annotated[float, typer.Option("--rate", min=1)] = 5.0


@dataclass(frozen=True, kw_only=True)
class Outer:
    """A group with an option that must be given, and a group."""

    to: Annotated[str, typer.Option("--to", help="Where it goes.")]
    inner: Inner
    names: Annotated[list[str] | None, typer.Option("--name")] = None
    level: Annotated[int, typer.Option("--level")] = 1


def told(command: object, *arguments: str) -> str:
    """Run a command, made as the command line makes them, and return what it said."""
    app = typer.Typer()
    app.command()(with_options_of_fields(command))  # type: ignore[arg-type]
    outcome = CliRunner().invoke(app, arguments)
    assert outcome.exit_code == 0, outcome.output
    return outcome.output.strip()


def test_fields_are_options_in_the_order_of_parameters_and_fields() -> None:
    """Groups within groups too; a command without groups stays as it is."""

    def command(
        *, first: Annotated[int, typer.Option("--first")] = 1, group: Outer, last: Annotated[bool, typer.Option("--last")] = False
    ) -> None:
        """Do it."""

    options = typer.main.get_command(_app(command)).params
    assert [option.name for option in options if option.name not in ("install_completion", "show_completion")] == [
        *("first", "to", "rate", "names", "level", "last"),
    ]


def test_values_come_as_they_were_given_or_by_default() -> None:
    """Each group is one frozen value."""

    def command(*, group: Outer, last: Annotated[bool, typer.Option("--last")] = False) -> None:
        typer.echo((group, last) == (Outer(to="there", inner=Inner(7.0), names=["a", "b"]), True))

    assert told(command, "--to", "there", "--rate", "7", "--name", "a", "--name", "b", "--last") == "True"


def test_a_field_left_out_is_no_option_and_keeps_its_default() -> None:
    """The others are there."""

    def command(*, group: Annotated[Outer, Without("names"), Without("level")]) -> None:
        typer.echo(group == Outer(to="there", inner=Inner()))

    assert told(command, "--to", "there") == "True"
    assert "--level" not in {name for option in typer.main.get_command(_app(command)).params for name in option.opts}


def test_two_options_of_one_name_are_refused() -> None:
    """When the command is registered, not when it runs."""

    def command(*, level: Annotated[int, typer.Option("--level")] = 1, group: Outer) -> None:
        """Do it."""

    with pytest.raises(ValueError, match="level"):
        with_options_of_fields(command)


def _app(command: object) -> typer.Typer:
    app = typer.Typer(add_completion=False)
    app.command()(with_options_of_fields(command))  # type: ignore[arg-type]
    return app
