"""The errors: what each carries, that it crosses processes, and that the docstring shows the tree as it is."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator
from dataclasses import fields

import pytest

from schemas import errors
from schemas.errors import EXIT_CODES, InvalidInputError, StatecastError


def error_classes(root: type[StatecastError] = StatecastError) -> Iterator[type[StatecastError]]:
    """Yield a class and all below it, those of the module."""
    yield root
    for child in root.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from error_classes(child)


CLASSES = list(error_classes())


def documented_tree() -> dict[str, str | None]:
    """Return each class of the module's docstring with the class that it stands under."""
    assert errors.__doc__ is not None
    parents: dict[str, str | None] = {}
    above: list[tuple[int, str]] = []
    for line in errors.__doc__.splitlines():
        match = re.match(r"^( {4}[ |+-]*)(\w*Error)\b", line)
        if match is None:
            continue
        depth, name = len(match[1]), match[2]
        while above and above[-1][0] >= depth:
            above.pop()
        parents[name] = above[-1][1] if above else None
        above.append((depth, name))
    return parents


def filled(error_class: type[StatecastError]) -> StatecastError:
    """Return an error with every field filled."""
    values = {field.name: f"its {field.name}" for field in fields(error_class) if field.type in ("str", "str | None")}
    return error_class(**values)


def test_the_docstring_shows_the_tree_as_it_is() -> None:
    """Every class stands in the docstring under its base, and nothing else does."""
    assert documented_tree() == {
        error_class.__name__: None if error_class is StatecastError else error_class.__bases__[0].__name__ for error_class in CLASSES
    }


def test_the_docstring_shows_the_exit_codes() -> None:
    """Where a code stands in the docstring it is the class's."""
    assert errors.__doc__ is not None
    shown = re.findall(r"(\w+Error)\s+\[(\d+)\]", errors.__doc__)
    assert len(shown) >= 10
    by_name = {error_class.__name__: error_class.exit_code for error_class in CLASSES}
    assert [(name, int(code)) for name, code in shown] == [(name, by_name[name]) for name, _ in shown]


@pytest.mark.parametrize("error_class", CLASSES)
def test_an_error_crosses_processes_whole(error_class: type[StatecastError]) -> None:
    """Pickled and back: the same class, fields and text."""
    error = filled(error_class)
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is error_class
    assert back.to_json() == error.to_json()
    assert str(back) == str(error)


@pytest.mark.parametrize("error_class", CLASSES)
def test_every_exit_code_is_documented(error_class: type[StatecastError]) -> None:
    """A class has a code that the help explains, and a kind in lower case."""
    assert error_class.exit_code in EXIT_CODES
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", error_class.kind)


def test_no_two_classes_share_a_kind() -> None:
    """Programs tell errors apart by it."""
    kinds = [error_class.kind for error_class in CLASSES]
    assert len(set(kinds)) == len(kinds)


def test_the_text_has_problem_place_and_remedy() -> None:
    """In one line; what is not known leaves no trace."""
    assert str(StatecastError(problem="it broke", where="here", remedy="Mend it.")) == "it broke [here]. Mend it."
    assert str(StatecastError(problem="it broke")) == "it broke"


def test_an_error_can_be_told_with_a_better_place() -> None:
    """The first one stays as it is; all else is kept, and the remedy too where none is given."""
    first = errors.StateRootMismatchError(problem="wrong", where="here", remedy="Look.", expected="a", part_id=3)
    second, third = first.at("there"), first.at("there", "Go.")
    assert (first.where, first.remedy) == ("here", "Look.")
    assert second.to_json() == {**first.to_json(), "where": "there"}
    assert third.to_json() == {**first.to_json(), "where": "there", "remedy": "Go."}
    assert type(second) is errors.StateRootMismatchError


def test_json_leaves_out_what_is_not_known() -> None:
    """Kind and exit code are always there."""
    assert StatecastError(problem="it broke").to_json() == {"kind": "unexpected", "exit_code": 1, "problem": "it broke"}


def test_bad_input_is_a_value_error() -> None:
    """Libraries that validate by ValueError take it as such."""
    assert issubclass(InvalidInputError, ValueError)
