"""What is wrong with how a command is called, before anything is done: exit code 2, whichever command it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.commands import statecast
from tests.support.nodes import localnet_home
from tests.support.published import public_key, published_localnet, signing_key

HOMES = {
    "produce": ("--to", "NEW", "--allow-unsigned"),
    "watch": ("--to", "NEW", "--allow-unsigned", "--in-process"),
    "backfill": ("--to", "NEW", "--allow-unsigned", "--epochs", "1..2"),
    "export": ("--to", "dataset://NEW"),
    "header": ("--shard-id", "0"),
    "prove": ("--account", "near"),
}


@pytest.mark.parametrize("command", HOMES)
def test_a_home_that_is_not_there_is_a_usage_error(command: str, tmp_path: Path) -> None:
    """At the start, also of a watcher: it would wait for ever."""
    words = [word.replace("NEW", str(tmp_path / "new")).replace("BUCKET", str(published_localnet())) for word in HOMES[command]]
    outcome = statecast(command, *words, "--node-home", tmp_path / "none")
    assert (outcome.code, "the node's home is not a folder" in outcome.error_line) == (2, True), outcome.stderr
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("command", ["produce", "watch", "backfill"])
@pytest.mark.parametrize("fault", ["missing", "open to others", "no key file"])
def test_a_key_that_can_not_be_used_is_a_usage_error(command: str, fault: str, tmp_path: Path) -> None:
    """With what to do."""
    key = tmp_path / "key.json"
    if fault != "missing":
        key.write_text("{}" if fault == "no key file" else signing_key().read_text())
        key.chmod(0o600 if fault == "no key file" else 0o644)
    epochs = ("--epochs", "6..6") if command == "backfill" else ()
    outcome = statecast(command, *epochs, "--node-home", localnet_home(), "--to", tmp_path / "to", "--signing-key", key, "--in-process")
    assert outcome.code == 2 and str(key) in outcome.error_line, outcome.stderr
    assert not (tmp_path / "to").exists()


def test_a_signature_that_is_missing_says_whose_is_there(tmp_path: Path) -> None:
    """By key id, and both names of the keys that were asked for; keygen shows both of a key."""
    made = statecast("keygen", tmp_path / "key", "--json").document
    for command in (("check", "--in-process"), ("fetch", "--into", tmp_path / "into")):
        outcome = statecast(command[0], published_localnet(), *command[1:], "--trust-key", made["public_key"])
        assert outcome.code in (20, 21) and made["public_key"] in outcome.error_line and made["key_id"] in outcome.error_line
        (signer,) = statecast("inspect", published_localnet(), "--json").document["signature_key_ids"]
        assert f"key id {signer} (another key, not pinned; its envelope has no more of it than this id)" in outcome.error_line
    assert "a publisher says which public key has it" in statecast("inspect", published_localnet()).stdout
    assert statecast("check", published_localnet(), "--in-process", "--trust-key", public_key()).code == 0
