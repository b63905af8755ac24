"""The threat model says of the code what is so: its tests are there, its options too, and every command has its place in it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from jobs.cli import command_names, load_command
from pipelines.execution.status_server import CONNECTION_TIMEOUT_S, CONNECTIONS_MAX

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/operations/threat-model.md").read_text()
TESTS = {path.relative_to(ROOT): path.read_text() for path in (ROOT / "tests").rglob("test_*.py")}


def commands_with(option: str) -> set[str]:
    """Return the commands that have an option."""
    return {name for name in command_names() if any(option in parameter.opts for parameter in load_command(name).params)}


def named(sentence: str) -> set[str]:
    """Return the commands that stand in a sentence of the page."""
    return {word for word in re.findall(r"`([a-z-]+)`", sentence) if word in command_names()}


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(test_\w+)`", PAGE))))
def test_what_holds_a_statement_is_there(name: str) -> None:
    """One test of this name, or several of one kind."""
    assert any(f"def {name}(" in text for text in TESTS.values())


def test_files_of_tests_are_there() -> None:
    """Where a whole file holds a statement."""
    assert all((ROOT / name).is_file() for name in re.findall(r"`(tests/[\w/]+\.py)`", PAGE))


def test_commands_that_ask_whom_to_trust_are_those_that_have_the_option() -> None:
    """By key, by block, and without either."""
    sentence = re.sub(r"\s+", " ", PAGE[PAGE.index("Commands that ask") : PAGE.index("## What a stolen key")])
    by_key, by_block = sentence.split(" by `--trust-key`; ")
    by_block, without = by_block.split(" by `--trusted-block`. ")
    assert named(by_key) == commands_with("--trust-key")
    assert named(by_block) == commands_with("--trusted-block")
    assert named(without.partition(" do nothing without")[0]) == commands_with("--insecure")


def test_the_bounds_of_the_status_server_are_those_of_the_code() -> None:
    """In words."""
    assert (CONNECTIONS_MAX, CONNECTION_TIMEOUT_S) == (16, 10.0)
    assert "keep sixteen connections for ten seconds" in PAGE


def test_security_md_leads_there() -> None:
    """Whoever looks for it looks there first."""
    assert "docs/operations/threat-model.md" in (ROOT / "SECURITY.md").read_text()
