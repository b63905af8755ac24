"""A file with options and short variables: what comes first, what is refused, and how little may be told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.commands import Outcome, statecast
from tests.support.nodes import localnet_home
from tests.support.published import produce_localnet, public_key, published_localnet, signing_key


@pytest.fixture(autouse=True)
def no_other_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No file of this user's counts, and the working folder is empty."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("STATECAST_")]:
        monkeypatch.delenv(name)


def plan(*options: object) -> Outcome:
    """Plan a production."""
    return statecast("produce", "--plan", "--json", "--allow-unsigned", "--in-process", *options)


def test_home_destination_and_keys_are_named_once_for_all_commands(tmp_path: Path) -> None:
    """In the file that is in the working folder, or this user's, or named; a command has its own in a table."""
    text = f'node-home = "{localnet_home()}"\nto = "{tmp_path / "to"}"\ntrust_key = ["{public_key()}"]\n[fetch]\ninto = "into"\n'
    for file in (Path("statecast.toml"), Path("home/.config/statecast/statecast.toml")):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        assert plan().document["message_type"] == "plan"
        assert statecast("fetch", published_localnet(), "--plan").code == 0
        assert statecast("header", "--shard-id", 0).code == 0
        file.unlink()
    Path("other").write_text(text)
    assert statecast("--config", "other", "check", published_localnet(), "--in-process", "--json").document["trusted_signers"] == [
        public_key()
    ]
    assert plan().code == 2


def test_the_command_line_comes_before_a_variable_and_that_before_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The variable of one command comes before that of all."""
    Path("statecast.toml").write_text('node-home = "/file"\nto = "to"\n')
    assert "/file" in plan().document["error"]["where"]
    monkeypatch.setenv("STATECAST_NODE_HOME", "/for-all")
    assert "/for-all" in plan().document["error"]["where"]
    monkeypatch.setenv("STATECAST_PRODUCE_NODE_HOME", "/for-one")
    assert "/for-one" in plan().document["error"]["where"]
    assert plan("--node-home", localnet_home()).code == 0
    # Another source on the command line is instead of the home, not beside it.
    assert (
        "dataset" in plan("--from", f"dataset://{tmp_path}").document["error"]["problem"] + plan("--from", f"dataset://{tmp_path}").stderr
    )
    assert statecast("prove", published_localnet(), "--account", "near").code == 0


def test_keys_in_a_variable_are_divided_by_spaces(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as are given."""
    monkeypatch.setenv("STATECAST_TRUST_KEY", f"{public_key('second')} {public_key()}")
    assert statecast("check", published_localnet(), "--in-process").code == 0
    monkeypatch.setenv("STATECAST_TRUST_KEY", public_key("second"))
    assert statecast("check", published_localnet(), "--in-process").code != 0


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("intoo = 1", "statecast.toml: intoo"),
        ("[fetsch]\ninto = 'x'", "statecast.toml: [fetsch]"),
        ("[fetch]\nintoo = 'x'", "statecast.toml: [fetch] intoo"),
        ("[fetch]\ninto = ['x']", "statecast.toml: [fetch] into"),
        ("[fetch]\nplan = 'yes'", "statecast.toml: [fetch] plan"),
        ("[fetch.into]\nx = 1", "statecast.toml: [fetch] into"),
        ("trust-key = {}", "statecast.toml: [trust-key]"),
        ("[", "statecast.toml"),
        ("\udcff", "statecast.toml"),
    ],
)
def test_what_the_file_can_not_say_is_told_with_its_place(text: str, place: str, tmp_path: Path) -> None:
    """As a usage error, before anything is done."""
    Path("statecast.toml").write_bytes(text.encode(errors="surrogateescape"))
    outcome = statecast("fetch", published_localnet(), "--into", "into", "--insecure")
    assert (outcome.code, f"[{place}]" in outcome.error_line) == (2, True), outcome.stderr
    assert not Path("into").exists()


def test_a_file_that_is_named_and_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """By option or by variable; an empty variable means none."""
    assert statecast("--config", "none", "catalogue", published_localnet()).code == 2
    Path("statecast.toml").write_text("wrong = 1")
    monkeypatch.setenv("STATECAST_CONFIG", "none")
    assert statecast("catalogue", published_localnet()).code == 2
    monkeypatch.setenv("STATECAST_CONFIG", "")
    assert statecast("catalogue", published_localnet()).code == 0


def test_json_may_be_asked_for_by_a_file_or_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors are objects then too."""
    Path("statecast.toml").write_text("[inspect]\njson = true\n")
    assert statecast("inspect", "none").document["error"]["exit_code"] == 2
    Path("statecast.toml").unlink()
    assert statecast("inspect", "none").stdout == ""
    monkeypatch.setenv("STATECAST_INSPECT_AS_JSON", "1")
    assert statecast("inspect", "none").document["error"]["exit_code"] == 2


def test_quiet_tells_nothing_but_the_result(tmp_path: Path) -> None:
    """Less progress still has notes, and more has lines of every second; both at once are an error."""
    assert signing_key().is_file()
    quiet = produce_localnet(tmp_path / "a", "--quiet")
    assert (quiet.code, quiet.stderr) == (0, "") and "verified" in quiet.stdout
    usual, less = produce_localnet(tmp_path / "b"), produce_localnet(tmp_path / "c", "--no-progress")
    assert "seal the root" in usual.stderr and "seal the root" not in less.stderr and less.stderr
    both = produce_localnet(tmp_path / "d", "--quiet", "--verbose")
    assert (both.code, "--quiet excludes --verbose" in both.stderr) == (2, True)
