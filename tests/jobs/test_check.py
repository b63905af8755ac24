"""``statecast check`` finds every damage to a published epoch, and ``produce`` mends it."""

from __future__ import annotations

import json
import shutil
from base64 import b64decode, b64encode
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from pipelines.keeping.scrub_sample import SampleWindow
from pipelines.stores.file_store import FileStore
from schemas.errors import StoreDeniedError
from tests.support.commands import Outcome, epoch_folder, lasting_objects_in, objects_in, part_names, statecast
from tests.support.native_wheel import needs_headers
from tests.support.published import produce_localnet, produce_node_a, public_key, published_localnet, published_node_a
from tests.support.stored_bytes import flip_bit
from tests.support.stored_epochs import epoch_layout, publish_epoch


def check(folder: Path, *options: object) -> Outcome:
    """Check an epoch in this process, with JSON."""
    return statecast("check", folder, "--in-process", "--json", *options)


def findings(outcome: Outcome) -> list[tuple[str, str]]:
    """Return kind and the end of the name of every finding."""
    return [(found["kind"], "/".join(found["object"].split("/")[3:])) for found in outcome.document["findings"]]


@pytest.fixture
def epoch(tmp_path: Path) -> Path:
    """A copy of the published localnet's epoch folder: headers and all."""
    shutil.copytree(published_localnet(), tmp_path / "out")
    return epoch_folder(tmp_path / "out")


def parts_by_shard(epoch: Path) -> dict[str, list[str]]:
    """Return the parts' names below the epoch, by their shard's folder."""
    folders = sorted(epoch.glob("shard_id=*"))
    return {folder.name: [f"{folder.name}/{part.name}" for part in sorted(folder.glob("state_part_*"))] for folder in folders}


PART = "shard_id=1/state_part_000000_of_000001"


def flip_part(epoch: Path) -> None:
    """One byte of a part changes."""
    flip_bit(epoch / PART)


def cut_part(epoch: Path) -> None:
    """A part loses its last byte."""
    (epoch / PART).write_bytes((epoch / PART).read_bytes()[:-1])


def empty_part(epoch: Path) -> None:
    """A part loses all bytes."""
    (epoch / PART).write_bytes(b"")


def swap_part(epoch: Path) -> None:
    """A part is another shard's."""
    shutil.copy(epoch / PART.replace("=1", "=2"), epoch / PART)


def lose_part(epoch: Path) -> None:
    """A part is gone."""
    (epoch / PART).unlink()


def change_header(epoch: Path) -> None:
    """One byte of a state header changes."""
    flip_bit(epoch / "headers" / "shard_id=1" / "header")


def lose_header(epoch: Path) -> None:
    """A state header is gone."""
    (epoch / "headers" / "shard_id=1" / "header").unlink()


def rewrite_payload(path: Path, change: Callable[[bytes], bytes]) -> None:
    """Change what an envelope says, the signatures as they were."""
    envelope = json.loads(path.read_bytes())
    envelope["payload"] = b64encode(change(b64decode(envelope["payload"]))).decode()
    path.write_text(json.dumps(envelope))


def change_statement(epoch: Path) -> None:
    """A statement says another size."""
    rewrite_payload(epoch / "statements" / "shard_id=1.json", lambda payload: payload.replace(b'"decoded_size":', b'"decoded_size":1'))


def spoil_statement(epoch: Path) -> None:
    """A statement can't be read."""
    (epoch / "statements" / "shard_id=1.json").write_text("{")


def lose_statement(epoch: Path) -> None:
    """A statement is gone."""
    (epoch / "statements" / "shard_id=1.json").unlink()


def swap_statement(epoch: Path) -> None:
    """A statement is another shard's."""
    shutil.copy(epoch / "statements" / "shard_id=2.json", epoch / "statements" / "shard_id=1.json")


def change_torrent(epoch: Path) -> None:
    """One byte of a torrent changes."""
    flip_bit(epoch / "torrents" / "shard_id=1.torrent")


def lose_torrent(epoch: Path) -> None:
    """A torrent is gone."""
    (epoch / "torrents" / "shard_id=1.torrent").unlink()


DAMAGE: list[tuple[Callable[[Path], None], str, str]] = [
    (flip_part, "wrong", PART),
    (cut_part, "wrong", PART),
    (empty_part, "wrong", PART),
    (swap_part, "wrong", PART),
    (lose_part, "missing", PART),
    (change_header, "wrong", "headers/shard_id=1/header"),
    (lose_header, "missing", "headers/shard_id=1/header"),
    (change_statement, "wrong", "statements/shard_id=1.json"),
    (spoil_statement, "wrong", "statements/shard_id=1.json"),
    (lose_statement, "missing", "statements/shard_id=1.json"),
    (swap_statement, "wrong", "statements/shard_id=1.json"),
    (change_torrent, "wrong", "torrents/shard_id=1.torrent"),
    (lose_torrent, "missing", "torrents/shard_id=1.torrent"),
]
DAMAGE_CASES = [
    pytest.param(*case, id=case[0].__name__, marks=[needs_headers] if case[0] in (change_header, lose_header) else []) for case in DAMAGE
]


def test_a_whole_epoch_is_good(epoch: Path) -> None:
    """Four shards, every part right, nothing found; and nothing is claimed that was not checked."""
    outcome = check(epoch)
    assert outcome.code == 0, outcome.stderr
    document = outcome.document
    assert (document["good"], document["findings"], document["tied_to_chain"]) == (True, [], False)
    assert [(shard["parts_right"], shard["num_parts"]) for shard in document["shards"]] == [(1, 1)] * 4
    assert "nothing tied" in statecast("check", epoch, "--in-process").stdout


@pytest.mark.parametrize(("damage", "kind", "name"), DAMAGE_CASES)
def test_every_damage_is_found_and_named(epoch: Path, damage: Callable[[Path], None], kind: str, name: str) -> None:
    """The check exits with 20, prints one object, and finds this damage alone."""
    damage(epoch)
    outcome = check(epoch)
    assert outcome.code == 20, outcome.stderr
    assert findings(outcome) == [(kind, name)]
    assert outcome.document["error"]["kind"] == "object_mismatch"
    assert outcome.error_line.startswith("error: ")
    assert name in outcome.error_line


@pytest.mark.parametrize(("damage", "kind", "name"), DAMAGE_CASES)
def test_every_damage_is_mended(epoch: Path, damage: Callable[[Path], None], kind: str, name: str) -> None:
    """A rerun with --repair brings back exactly the bytes that were; no other object is written."""
    before = objects_in(epoch)
    damage(epoch)
    others = {path: path.stat().st_mtime_ns for path in epoch.rglob("*") if path.is_file() and str(path.relative_to(epoch)) != name}
    outcome = produce_localnet(epoch.parents[2], "--repair", "--json")
    assert outcome.code == 0, outcome.stderr
    after = {path: digest for path, digest in objects_in(epoch).items() if not path.startswith("evidence/")}
    assert after == before
    assert outcome.document["manifest_revision"] == 1
    parts = [path for path in others if "state_part" in path.name]
    assert all(path.stat().st_mtime_ns == others[path] for path in parts)
    assert check(epoch).code == 0


@pytest.mark.parametrize(
    "name",
    [
        PART,
        pytest.param("headers/shard_id=1/header", marks=needs_headers),
        "statements/shard_id=1.json",
        "torrents/shard_id=1.torrent",
        "../../latest.json",
    ],
)
def test_a_rerun_makes_exactly_what_is_missing(epoch: Path, name: str) -> None:
    """Without any option: one object deleted, one object made, the same as before."""
    before = objects_in(epoch.parents[2])
    (epoch / name).unlink()
    kept = {path: path.stat().st_mtime_ns for path in epoch.rglob("*state_part*")}
    outcome = produce_localnet(epoch.parents[2])
    assert outcome.code == 0, outcome.stderr
    assert objects_in(epoch.parents[2]) == before
    assert all(path.stat().st_mtime_ns == kept[path] for path in kept)


def test_a_deleted_manifest_is_written_again(epoch: Path) -> None:
    """Every part is read back, kept, and counted as kept; the revision that is there is taken up."""
    before = objects_in(epoch.parents[2])
    (epoch / "manifest.json").unlink()
    assert check(epoch).code == 11
    outcome = produce_localnet(epoch.parents[2], "--json")
    assert outcome.code == 0, outcome.stderr
    assert [shard["parts_reused"] for shard in outcome.document["shards"]] == [1] * 4
    assert objects_in(epoch.parents[2]) == before


def test_a_foreign_object_beside_the_parts_is_found(epoch: Path) -> None:
    """Nodes count every object of a shard's folder: another number of parts, a file of another kind, a stray header."""
    shutil.copy(epoch / PART, epoch / "shard_id=1" / "state_part_000000_of_000002")
    (epoch / "shard_id=1" / "README").write_text("")
    (epoch / "headers" / "shard_id=9").mkdir(parents=True)
    (epoch / "headers" / "shard_id=9" / "header").write_text("")
    outcome = check(epoch)
    assert outcome.code == 20
    assert sorted(findings(outcome)) == [
        ("foreign", "headers/shard_id=9/header"),
        ("foreign", "shard_id=1/README"),
        ("foreign", "shard_id=1/state_part_000000_of_000002"),
    ]


def test_a_foreign_object_elsewhere_is_harmless(epoch: Path) -> None:
    """It is listed, and the epoch is good."""
    (epoch / "notes.txt").write_text("")
    outcome = check(epoch)
    assert outcome.code == 0, outcome.stderr
    assert [(found["kind"], found["harmless"]) for found in outcome.document["findings"]] == [("foreign", True)]


def test_one_shard_can_be_checked_alone(epoch: Path) -> None:
    """The damage of another shard is not looked at; a shard that is not there is a usage error."""
    flip_part(epoch)
    assert check(epoch, "--shard-id", 0, "--shard-id", 3).code == 0
    assert check(epoch, "--shard-id", 1).code == 20
    assert check(epoch, "--shard-id", 77).code == 2


def test_a_part_of_v1_that_decodes_to_other_bytes_is_found(tmp_path: Path) -> None:
    """Damage to a compressed part, where its neighbours stay right."""
    shutil.copytree(published_node_a(), tmp_path / "out")
    epoch = epoch_folder(tmp_path / "out")
    flip_bit(epoch / "shard_id=5" / "state_part_000003_of_000005")
    outcome = check(epoch)
    assert findings(outcome) == [("wrong", "shard_id=5/state_part_000003_of_000005")]
    assert {shard["shard_id"]: shard["parts_right"] for shard in outcome.document["shards"]} == {0: 5, 5: 4, 90: 5}


def test_parts_of_one_shard_that_changed_places_are_found(tmp_path: Path) -> None:
    """Both are parts of this state root, each under the other's name."""
    shutil.copytree(published_node_a(), tmp_path / "out")
    folder = epoch_folder(tmp_path / "out") / "shard_id=0"
    first, second = folder / "state_part_000001_of_000005", folder / "state_part_000002_of_000005"
    first_bytes, second_bytes = first.read_bytes(), second.read_bytes()
    first.write_bytes(second_bytes)
    second.write_bytes(first_bytes)
    assert len(findings(check(folder.parent))) == 2


# The manifest


def test_a_missing_epoch_is_said() -> None:
    """No manifest, no epoch."""
    missing = published_localnet() / "chain_id=test-chain-klplt" / "epoch_height=7" / "epoch_id=11111111111111111111111111111112"
    outcome = check(missing)
    assert (outcome.code, outcome.document["error"]["kind"]) == (11, "epoch_not_ready")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"payload": "e30=", "payloadType": "x", "signatures": []}'])
def test_a_spoilt_manifest_is_refused(epoch: Path, text: str) -> None:
    """It is no envelope, or no manifest: exit code 21, and produce does not write over it."""
    (epoch / "manifest.json").write_text(text)
    outcome = check(epoch)
    assert (outcome.code, outcome.document["error"]["exit_code"]) == (21, 21), outcome.stderr
    assert produce_localnet(epoch.parents[2]).code == 21
    assert (epoch / "manifest.json").read_text() == text


def test_a_manifest_of_another_epoch_is_refused(epoch: Path) -> None:
    """A manifest belongs to the folder that it lies in."""
    shutil.copy(epoch_folder(published_node_a()) / "manifest.json", epoch / "manifest.json")
    assert check(epoch).code == 21


def test_a_manifest_that_was_changed_does_not_pass_for_signed(epoch: Path) -> None:
    """The payload says something else than what was signed; an error for a reader that names the key."""
    rewrite_payload(
        epoch / "manifest.json", lambda payload: payload.replace(b'"producer_version":"statecast', b'"producer_version":"Statecast')
    )
    assert check(epoch).code == 0
    outcome = check(epoch, "--trust-key", public_key())
    assert (outcome.code, outcome.document["error"]["exit_code"]) == (21, 21)


def test_a_broken_signature_is_found_by_who_names_the_key(epoch: Path) -> None:
    """One byte of the signature differs."""
    envelope = json.loads((epoch / "manifest.json").read_bytes())
    signature = bytearray(b64decode(envelope["signatures"][0]["sig"]))
    signature[0] ^= 1
    envelope["signatures"][0]["sig"] = b64encode(signature).decode()
    (epoch / "manifest.json").write_text(json.dumps(envelope))
    assert check(epoch, "--trust-key", public_key()).code == 21


def test_the_right_key_is_named(epoch: Path) -> None:
    """With its signer's key the check says who signed."""
    outcome = check(epoch, "--trust-key", public_key())
    assert outcome.code == 0, outcome.stderr
    assert outcome.document["trusted_signers"] == [public_key()]
    assert public_key() in statecast("check", epoch, "--in-process", "--trust-key", public_key()).stdout


def test_the_wrong_key_is_refused(epoch: Path) -> None:
    """A key that did not sign."""
    assert check(epoch, "--trust-key", public_key("nobody")).code == 21


def test_an_unsigned_epoch_is_refused_by_any_key(tmp_path: Path) -> None:
    """Unsigned is good without a trust rule only."""
    (tmp_path / "r.jsonl").write_text('{"key": "61", "value": "00"}\n')
    outcome = statecast(
        *("produce", "--from", f"records://{tmp_path / 'r.jsonl'}", "--to", tmp_path / "out", "--in-process"),
        *("--work", f"file://{tmp_path / 'work'}", "--allow-unsigned"),
    )
    assert outcome.code == 0, outcome.stderr
    assert "unsigned" in outcome.stdout
    assert check(tmp_path / "out").code == 0
    assert check(tmp_path / "out", "--trust-key", public_key()).code == 21


def test_a_threshold_counts_the_signatures_of_trusted_keys(tmp_path: Path) -> None:
    """Two producers with two keys sign the same statements and one manifest: 2 of 2 holds, 3 of 3 does not; bytes are the same."""
    to = tmp_path / "out"
    assert produce_node_a(to, "--num-parts", 3, key="first").code == 0
    keys = ("--trust-key", public_key("first"), "--trust-key", public_key("second"))
    assert check(to, *keys, "--trust-threshold", 1).code == 0
    assert check(to, *keys, "--trust-threshold", 2).code == 21
    parts = {name: digest for name, digest in lasting_objects_in(to).items() if "statements" not in name}
    second = produce_node_a(to, "--num-parts", 3, "--json", key="second")
    assert second.code == 0, second.stderr
    assert [shard["parts_reused"] for shard in second.document["shards"]] == [3, 3, 3]
    assert {name: digest for name, digest in lasting_objects_in(to).items() if "statements" not in name} == parts
    assert len(part_names(to)) == 9
    agreed = check(to, *keys, "--trust-threshold", 2)
    assert agreed.code == 0, agreed.stderr
    assert agreed.document["trusted_signers"] == sorted([public_key("first"), public_key("second")])
    assert agreed.document["manifest_revision"] == 1
    assert check(to, *keys, "--trust-key", public_key("nobody"), "--trust-threshold", 3).code == 21


def sync_hash(epoch: Path) -> str:
    """Return the published epoch's sync hash."""
    payload = json.loads(b64decode(json.loads((epoch / "manifest.json").read_bytes())["payload"]))
    found = payload["predicate"]["sync_hash"]
    assert isinstance(found, str)
    return found


@needs_headers
def test_a_trusted_block_ties_the_state_roots_to_the_chain(epoch: Path) -> None:
    """With the sync block's hash, and no publisher's key."""
    outcome = check(epoch, "--trusted-block", sync_hash(epoch))
    assert outcome.code == 0, outcome.stderr
    assert outcome.document["tied_to_chain"] is True
    assert check(epoch).document["tied_to_chain"] is False
    shown = statecast("check", epoch, "--in-process", "--trusted-block", sync_hash(epoch)).stdout
    assert f"chain of block {sync_hash(epoch)}" in " ".join(shown.split())


def test_another_block_does_not_lead_to_the_epoch(epoch: Path) -> None:
    """Any other hash is refused, and so is text that is no hash."""
    assert check(epoch, "--trusted-block", "11111111111111111111111111111111").code == 21
    assert check(epoch, "--trusted-block", "0O").code == 2


def test_an_epoch_without_headers_can_not_be_tied_to_a_block(tmp_path: Path) -> None:
    """Node a has no blocks, so its manifest has no block headers."""
    shutil.copytree(published_node_a(), tmp_path / "out")
    outcome = check(epoch_folder(tmp_path / "out"), "--trusted-block", sync_hash(epoch_folder(tmp_path / "out")))
    assert outcome.code == 21
    assert "no block headers" in outcome.stderr


@needs_headers
def test_a_changed_header_is_a_finding_also_with_a_trusted_block(epoch: Path) -> None:
    """The check goes on and lists it."""
    change_header(epoch)
    outcome = check(epoch, "--trusted-block", sync_hash(epoch))
    assert outcome.code == 20
    assert [kind for kind, _ in findings(outcome)] == ["wrong"]


def test_a_bucket_that_can_be_read_and_not_listed_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that the manifest names is verified; what it does not name is not looked for, and that is said."""
    publish_epoch(str(tmp_path), 3)
    url = f"{tmp_path}/{epoch_layout(3).folder}"

    def denied(store: FileStore, prefix: str = "") -> NoReturn:
        raise StoreDeniedError(problem="the store refuses access: AccessDenied", where=store.url)

    monkeypatch.setattr(FileStore, "list", denied)
    outcome = statecast("check", url, "--trust-key", public_key(), "--in-process", "--json")
    assert outcome.code == 0, outcome.stderr
    assert outcome.document["good"] and outcome.document["foreign_looked_for"] is False
    outcome = statecast("check", url, "--trust-key", public_key(), "--in-process")
    assert outcome.code == 0 and "was not looked for: the store refuses access" in outcome.stdout.replace("\n", " ")


def test_a_sample_reads_some_parts_and_looks_the_others_up(tmp_path: Path) -> None:
    """A byte is found where it was read, another size everywhere."""
    shutil.copytree(published_node_a(), tmp_path / "out")
    epoch = epoch_folder(tmp_path / "out")
    names = {shard: {f"{epoch.relative_to(tmp_path / 'out')}/{name}" for name in parts} for shard, parts in parts_by_shard(epoch).items()}
    window = SampleWindow(200_000, seed=3)
    read = {name for parts in names.values() for name in window.choose(parts)}
    outcome = check(epoch, "--sample", "20%", "--seed", "3")
    assert outcome.code == 0 and outcome.document["sample"] == {"length_ppm": 200_000, "seed": 3}
    assert sum(shard["parts_checked"] for shard in outcome.document["shards"]) == len(read) < sum(map(len, names.values()))
    unread = sorted(set().union(*names.values()) - read)
    flip_bit(tmp_path / "out" / unread[0])
    assert check(epoch, "--sample", "20%", "--seed", "3").code == 0
    flip_bit(tmp_path / "out" / min(read))
    (tmp_path / "out" / unread[0]).write_bytes(b"another size")
    (tmp_path / "out" / unread[1]).unlink()
    found = check(epoch, "--sample", "20%", "--seed", "3")
    assert found.code == 20
    assert {(one["kind"], one["object"]) for one in found.document["findings"]} == {
        ("wrong", min(read)),
        ("wrong", unread[0]),
        ("missing", unread[1]),
    }


def test_another_sample_each_time_is_named(tmp_path: Path) -> None:
    """So that it can be taken again."""
    epoch = epoch_folder(published_node_a())
    outcomes = [check(epoch, "--sample", "20%") for _ in range(2)]
    assert all(outcome.code == 0 for outcome in outcomes)
    assert len({outcome.document["sample"]["seed"] for outcome in outcomes}) == 2
    assert f"by seed {7}" in " ".join(statecast("check", epoch, "--in-process", "--sample", "20%", "--seed", "7").stdout.split())


@pytest.mark.parametrize("options", [("--seed", "1"), ("--sample", "5"), ("--sample", "0%"), ("--sample", "101%")])
def test_no_share_is_no_sample(options: tuple[str, ...]) -> None:
    """A usage error."""
    assert check(epoch_folder(published_node_a()), *options).code == 2
