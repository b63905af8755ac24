"""A neard's help texts decide how parts get into its node."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.restoring.into_node.neard_program import LoadWay, inspect_neard
from schemas.errors import InvalidInputError, NodeError
from tests.support.stand_in_neard import calls_of, write_program


@pytest.mark.parametrize(
    ("release", "version", "way"),
    [
        ("2.12.1", (2, 12, 1), LoadWay.CONFIG),
        ("1.40.0", (1, 40, 0), LoadWay.CONFIG),
        ("2.13.0-rc.1", (2, 13, 0), LoadWay.TOOL),
        ("3.0.0", (3, 0, 0), LoadWay.TOOL),
        ("trunk", None, LoadWay.TOOL),
    ],
)
def test_the_release_decides_the_way(tmp_path: Path, release: str, version: tuple[int, int, int] | None, way: LoadWay) -> None:
    """Before 2.13 it is config.json, from then on the tool; a build without a number is judged by its help."""
    found = inspect_neard(write_program(tmp_path, release))
    assert (found.release, found.version, found.way) == (release, version, way)


@pytest.mark.parametrize("option", ["--read-write", "--readwrite"])
def test_the_writing_option_is_taken_from_the_help(tmp_path: Path, option: str) -> None:
    """Its name has changed between releases."""
    assert inspect_neard(write_program(tmp_path, write_option=option)).write_option == option


@pytest.mark.parametrize(("behaviour", "words"), [("not neard", "does not say its version"), ("other tool", "its help lacks --action")])
def test_a_program_that_can_not_is_refused(tmp_path: Path, behaviour: str, words: str) -> None:
    """Another program, and a neard without the tool."""
    with pytest.raises(NodeError, match=words):
        inspect_neard(write_program(tmp_path, behaviour=behaviour))


def test_nothing_but_version_and_help_is_run(tmp_path: Path) -> None:
    """Asking starts no load."""
    program = write_program(tmp_path)
    inspect_neard(program)
    assert calls_of(program) == []


def test_a_missing_program_is_the_users_error(tmp_path: Path) -> None:
    """A path that leads nowhere is bad input, not a node's failure."""
    with pytest.raises(InvalidInputError):
        inspect_neard(tmp_path / "neard")


def test_a_program_that_does_not_answer_is_given_up(tmp_path: Path) -> None:
    """The wait for an answer has an end, and the program does not outlive it."""
    program = tmp_path / "neard"
    program.write_text("#!/bin/sh\nexec sleep 600\n")
    program.chmod(0o755)
    with pytest.raises(NodeError, match="did not end"):
        inspect_neard(program, answer_timeout_s=0.2)
