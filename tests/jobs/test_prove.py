"""The commands prove and verify-proof, as a person uses them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.commands import statecast
from tests.support.native_wheel import needs_headers
from tests.support.nodes import localnet_home
from tests.support.published import public_key, published_localnet

NODE_KEY = "ed25519:7PGseFbWxvYVgZ89K1uTJKYoKetWs7BJtbyXDzfbAcqX"
"""Of node0, in the genesis records."""

ACCOUNT_ID = "08fb740e3a2727888fcb3ae7a2a9a5c56a82bbf4dcb5098cf238d6c2d997e559"


@needs_headers
def test_a_proof_is_written_and_verified(tmp_path: Path) -> None:
    """A proof out of a bucket is verified offline, tied to what it names, and refused for anything else."""
    file = tmp_path / "proof.json"
    made = statecast("prove", published_localnet(), "--account", ACCOUNT_ID, "--out", file, "--json")
    assert made.code == 0, made.stderr
    assert made.document["decoded"]["amount"] == "1000000000000000000000000"
    assert made.document["present"] is True
    assert made.document["shard_chosen_by"] == "shard_layout"
    assert made.document["shard_layout_signers"] == []
    assert "proof" not in made.document
    verified = statecast("verify-proof", file, "--json")
    assert verified.code == 0
    assert verified.document["tied_to"] == []
    own = set(made.document) - {"file", "signers", "parts_read", "bytes_read", "shard_layout_signers"}
    assert {name: made.document[name] for name in own} == {name: verified.document[name] for name in own}
    for option, field in (("--trusted-block", "chunk_in_block"), ("--trusted-block", "child_block"), ("--state-root", "state_root")):
        tied = statecast("verify-proof", file, option, made.document[field], "--json")
        assert tied.code == 0
        assert made.document[field] in tied.document["tied_to"][0]
    for option in ("--trusted-block", "--state-root"):
        refused = statecast("verify-proof", file, option, made.document["state_after_block"], "--json")
        assert refused.code == 20
        assert refused.document["error"]["kind"] == "integrity"


def test_a_person_is_told_what_holds(tmp_path: Path) -> None:
    """For people: the account's balance, where it is from, and in one line what it is tied to."""
    file = tmp_path / "proof.json"
    made = statecast("prove", published_localnet(), "--account", ACCOUNT_ID, "--out", file)
    assert "amount            1 NEAR" in made.stdout
    verified = statecast("verify-proof", file).stdout
    assert "storage usage     37628" in verified
    assert verified.splitlines()[-1] == "the proof holds; nothing tied its state root to the chain"
    root = json.loads(file.read_text())["state_root"]
    assert statecast("verify-proof", file, "--state-root", root).stdout.splitlines()[-1] == f"the proof holds, tied to state root {root}"


@pytest.mark.parametrize("node", [False, True], ids=["bucket", "node"])
def test_access_keys_and_code(node: bool) -> None:
    """An access key's nonce and permission are shown; an account without a contract has no code."""
    place = ("--node-home", localnet_home()) if node else (published_localnet(),)
    found = statecast("prove", *place, "--account", "node0", "--access-key", NODE_KEY, "--json").document
    assert found["decoded"] == {"nonce": found["decoded"]["nonce"], "permission": "full_access"}
    assert found["record_kind"] == "access key"
    assert found["proof"]["kind"] == "key"
    absent = statecast("prove", *place, "--account", "node0", "--contract-code", "--json").document
    assert (absent["present"], absent["value"], absent["decoded"]) == (False, None, None)
    assert absent["ending"] in ("no_child", "other_extension", "other_leaf", "no_value")


def test_who_says_where_an_absent_record_belongs_is_shown(tmp_path: Path) -> None:
    """A proof out of a shard that never had the account holds as well; a record that is there speaks for itself."""
    file, warning = tmp_path / "proof.json", "that the record belongs there is the word of the proof's maker"
    made = statecast("prove", published_localnet(), "--account", "node0", "--contract-code", "--out", file)
    assert made.code == 0, made.stderr
    shown = statecast("verify-proof", file)
    assert shown.code == 0 and warning in shown.stdout
    assert "shard_chosen_by" in statecast("verify-proof", file, "--json").document["unproven"]
    assert warning not in statecast("prove", published_localnet(), "--account", "node0").stdout


def test_an_account_that_is_nowhere_is_absent(tmp_path: Path) -> None:
    """Out of a bucket of several shards with no options; the signers of the shard layout are shown, and a reader's own one agrees."""
    file = tmp_path / "proof.json"
    made = statecast("prove", published_localnet(), "--account", "nobody.near", "--out", file)
    assert made.code == 0, made.stderr
    assert "the shard is that of the manifest's shard layout, which no key of yours has signed" in made.stdout
    assert "the word of the proof's maker" in made.stdout
    verified = statecast("verify-proof", file, "--shard-layout", localnet_home() / "genesis.json", "--json")
    assert (verified.code, verified.document["present"], "shard_chosen_by" in verified.document["unproven"]) == (0, False, False)
    signed = statecast("prove", published_localnet(), "--account", "nobody.near", "--trust-key", public_key())
    assert f"shard layout, signed by {public_key()}" in signed.stdout


def test_a_reader_may_check_the_shard_of_what_is_absent(tmp_path: Path) -> None:
    """By a shard layout of the reader's: the shard is no longer the maker's word, and a proof out of another shard fails."""
    file, layout = tmp_path / "proof.json", localnet_home() / "genesis.json"
    codes = {}
    for shard_id in json.loads(layout.read_text())["shard_layout"]["V2"]["shard_ids"]:
        made = statecast("prove", published_localnet(), "--account", "nobody.near", "--shard-id", shard_id, "--out", file)
        assert made.code == 0, made.stderr
        verified = statecast("verify-proof", file, "--shard-layout", layout, "--json")
        codes[shard_id] = verified.code
        if verified.code == 0:
            assert "shard_chosen_by" not in verified.document["unproven"]
            assert "maker" not in statecast("verify-proof", file, "--shard-layout", layout).stdout
    assert sorted(codes.values())[0] == 0 and set(sorted(codes.values())[1:]) == {20}, codes


def test_a_prefix_is_shown(tmp_path: Path) -> None:
    """All entries of a contract are proven from the bucket and from the node alike."""
    from_bucket = statecast("prove", published_localnet(), "--account", ACCOUNT_ID, "--contract-prefix", "", "--json").document
    file = tmp_path / "proof.json"
    from_node = statecast(
        "prove", "--node-home", localnet_home(), "--account", ACCOUNT_ID, "--contract-prefix", "", "--json", "--out", file
    )
    assert from_bucket["values"] == from_node.document["values"]
    assert len(from_bucket["values"]) == 14
    assert "14 keys, and no others" in statecast("verify-proof", file).stdout


def test_a_node_ties_a_proof_too() -> None:
    """With a node's home a trusted block is checked against the headers; keys are of no use."""
    arguments = ("prove", "--node-home", localnet_home(), "--account", ACCOUNT_ID, "--block", "238", "--json")
    block = statecast(*arguments).document["chunk_in_block"]
    assert statecast(*arguments, "--trusted-block", block).document["tied_to"] == [f"block {block}"]
    assert statecast(*arguments, "--trusted-block", "1" * 32).code == 20
    assert statecast(*arguments, "--trust-key", "ed25519:1").code == 2


def test_a_shard_layout_may_be_given(tmp_path: Path) -> None:
    """A layout alone, or a genesis file that has one, names the shard of an account that is nowhere."""
    layout = tmp_path / "layout.json"
    layout.write_text(json.dumps(json.loads((localnet_home() / "genesis.json").read_text())["shard_layout"]))
    for file in (layout, localnet_home() / "genesis.json"):
        found = statecast("prove", published_localnet(), "--account", "nobody.near", "--shard-layout", file, "--json")
        assert found.code == 0, found.stderr
        assert (found.document["present"], found.document["shard_chosen_by"], found.document["shard_uid"]) == (
            False,
            "shard_layout",
            "s0.v0",
        )
    layout.write_text('{"V9": {}}')
    assert statecast("prove", published_localnet(), "--account", "nobody.near", "--shard-layout", layout).code == 2


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("bucket",),
        ("bucket", "--account", "alice.near", "--node-home", "home"),
        ("bucket", "--account", "alice.near", "--block", "5"),
        ("bucket", "--account", "alice.near", "--epoch", "5"),
        ("bucket", "--account", "alice.near", "--trust-threshold", "2"),
        ("bucket", "--account", "alice.near", "--trusted-block", "0"),
        ("bucket", "--account", "alice.near", "--contract-code", "--contract-key", "a"),
        ("--account", "alice.near"),
    ],
)
def test_what_is_not_said_well_is_refused(arguments: tuple[str, ...]) -> None:
    """Usage errors exit with 2 before anything is read."""
    assert statecast("prove", *arguments).code == 2


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b"[1]", b"{" * 10_000])
def test_files_that_are_no_proof_are_refused(tmp_path: Path, content: bytes) -> None:
    """Garbage exits with 20, in one line; a file that is not there with 2."""
    file = tmp_path / "proof.json"
    file.write_bytes(content)
    outcome = statecast("verify-proof", file)
    assert outcome.code == 20
    assert outcome.stderr.startswith("error: this is no proof")
    assert len(outcome.stderr.splitlines()) == 1
    assert statecast("verify-proof", tmp_path / "missing.json").code == 2


def test_a_proof_that_can_not_be_written_leaves_nothing(tmp_path: Path) -> None:
    """A folder that is not there is refused; an older proof is replaced whole."""
    assert statecast("prove", "--node-home", localnet_home(), "--account", "node0", "--out", tmp_path / "none" / "proof.json").code == 2
    file = tmp_path / "proof.json"
    file.write_text("older")
    assert statecast("prove", "--node-home", localnet_home(), "--account", "node0", "--out", file).code == 0
    assert statecast("verify-proof", file).code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["proof.json"]
